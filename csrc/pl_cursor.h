/* Reading: a cursor finds whole batches and checks them. What is in them, pl_reader.h tells.
 *
 *   pl_cursor_fetch    position -> chunk: consecutive batches of one segment, of one codec
 *
 * Neither locks, copies or allocates.
 */
#ifndef PL_CURSOR_H
#define PL_CURSOR_H

#include "pl_log.h"
#include "pl_reader.h"

typedef struct pl_cursor {
  pl_log *log;
  int64_t offset;          /* next record to read */
  pl_segment *segment;     /* referenced; NULL: to be found */
  int64_t segment_end;     /* first offset of the next segment; INT64_MAX: none was listed */
  uint64_t rolls;          /* page->rolls when that was looked up */
  uint64_t position;       /* header of the batch to read next */
  int64_t batch_offset;    /* its base offset */
  int64_t next_base;       /* where the next segment starts; INT64_MAX: there was none */
  uint64_t record_position; /* of the record at `offset` inside it; 0: unknown */
  uint64_t verified_to;     /* how far pl_cursor_batch has checked ahead; 0: it was not called */
} pl_cursor;

void pl_cursor_init(pl_cursor *cursor, pl_log *log, int64_t offset);
void pl_cursor_seek(pl_cursor *cursor, int64_t offset);
void pl_cursor_release(pl_cursor *cursor);

/* Whole batches from the cursor's offset on: at most max_bytes (but at least one batch) and
 * max_records. Moves the cursor behind them. PL_END: nothing there now. PL_NOT_READY: it would
 * have blocked; call again with may_block and without the GIL. */
pl_status pl_cursor_fetch(pl_cursor *cursor, int64_t max_records, int64_t max_bytes,
                          bool may_block, pl_chunk *chunk);
void pl_chunk_release(pl_chunk *chunk);

/* The whole batch that bears the cursor's offset, as a chunk with count -1; header->size is 0 for
 * the open tail, of which pl_chunk_finish() makes a sealed copy. Moves the cursor behind it. */
pl_status pl_cursor_batch(pl_cursor *cursor, bool may_block, pl_chunk *chunk, pl_header *header);
/* Copies the open batch of a chunk to `out` (end_position - position bytes) and seals the copy. */
pl_status pl_chunk_finish(const pl_chunk *chunk, uint8_t *out);

/* Steps over the batch that pl_cursor_fetch said is corrupt; PL_END when it is the last. */
pl_status pl_cursor_skip(pl_cursor *cursor);

/* Payload of a compressed chunk, to be decompressed by the caller. */
pl_slice pl_chunk_payload(const pl_chunk *chunk);

/* Offset of the record with `count` - 1 others behind it, or the start: what recoveries skipped is
 * not counted. */
pl_status pl_offset_before_end(pl_log *log, int64_t count, int64_t *offset);

/* Offset of the first record at or after `timestamp`; PL_END: there is none. */
pl_status pl_offset_for_time(pl_log *log, int64_t timestamp, int64_t *offset);

#endif
