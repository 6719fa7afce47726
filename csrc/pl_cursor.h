/* Reading: a cursor finds whole batches and checks them; a reader decodes records out of them.
 *
 *   pl_cursor_fetch    position -> chunk: consecutive batches of one segment, of one codec
 *   pl_reader_*        chunk -> records, values or columns; pointers into the mapping
 *
 * Neither locks, copies or allocates. A chunk holds a reference to its segment, and its bytes
 * stay valid and unchanged as long as it does.
 */
#ifndef PL_CURSOR_H
#define PL_CURSOR_H

#include "pl_log.h"

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
} pl_cursor;

typedef struct pl_chunk {
  pl_segment *segment;
  uint64_t position;        /* header of the first batch */
  uint64_t record_position; /* of its first record that counts; 0: walk to it */
  uint64_t end_position;    /* after the last whole batch, or after the last open record */
  int64_t from_offset, next_offset; /* half-open */
  int64_t count;            /* records in it, control records excluded */
  int codec;                /* compressed: the chunk is exactly one batch */
  bool is_open;             /* it is the open batch, as far as that went; sealed since, maybe */
} pl_chunk;

typedef struct pl_reader {
  const uint8_t *batch;     /* header of the current batch */
  const uint8_t *p, *end;   /* rest of its payload */
  const uint8_t *stop;      /* end of the chunk's bytes */
  int64_t base_offset, base_timestamp;
  int64_t fixed_timestamp;  /* append time; INT64_MIN: each record's own */
  int64_t from_offset, next_offset;
  int64_t least_offset, batch_end; /* where the batch's next record must lie, half-open */
  int64_t left;             /* records that the batch must still have */
  bool is_done;
} pl_reader;

/* Parallel columns; positions count from the start of `origin`. NULL columns are not filled. */
typedef struct pl_column_arrays {
  int64_t *offsets, *timestamps;
  int64_t *value_positions, *key_positions;
  int32_t *value_sizes, *key_sizes; /* -1: null */
  const uint8_t *origin;
} pl_column_arrays;

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

void pl_reader_init(pl_reader *reader, const pl_chunk *chunk);
/* For a decompressed payload of a chunk's only batch. */
void pl_reader_init_payload(pl_reader *reader, const pl_chunk *chunk, pl_slice payload);

/* Each fills up to `count` entries and returns how many; 0 at the end; -1 when a record does not
 * parse, is out of order, missing or one too many. pl_reader_records first hands out those before
 * the broken one; the reader stays at it. */
int64_t pl_reader_records(pl_reader *reader, pl_record *records, int64_t count);
int64_t pl_reader_values(pl_reader *reader, pl_slice *values, int64_t count);
int64_t pl_reader_columns(pl_reader *reader, pl_column_arrays *columns, int64_t count);

/* Offset of the first record at or after `timestamp`; PL_END: there is none. */
pl_status pl_offset_for_time(pl_log *log, int64_t timestamp, int64_t *offset);

#endif
