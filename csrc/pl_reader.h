/* Decoding: a reader takes records out of a chunk, which is a run of batches that a cursor found.
 *
 *   pl_reader_*        chunk -> records, values or columns; pointers into the mapping
 *
 * Neither locks, copies or allocates. A chunk holds a reference to its segment, and its bytes
 * stay valid and unchanged as long as it does.
 */
#ifndef PL_READER_H
#define PL_READER_H

#include "pl_segment.h"

typedef struct pl_chunk {
  pl_segment *segment;
  uint64_t position;        /* header of the first batch */
  uint64_t record_position; /* of its first record that counts; 0: walk to it */
  uint64_t end_position;    /* after the last whole batch, or after the last open record */
  int64_t from_offset, next_offset; /* half-open */
  int64_t count;            /* records in it, control records excluded */
  int codec;                /* compressed: the chunk is exactly one batch */
  bool is_open;             /* it is the open batch, as far as that went; sealed since, maybe */
  uint64_t ahead;           /* its bytes if more was there than the caller wanted, else 0 */
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
  uint64_t ahead;           /* from what is read now to what will be, in bytes; or 0 */
  bool is_done;
} pl_reader;

/* Parallel columns; positions count from the start of `origin`. NULL columns are not filled. */
typedef struct pl_column_arrays {
  int64_t *offsets, *timestamps;
  int64_t *value_positions, *key_positions;
  int32_t *value_sizes, *key_sizes; /* -1: null */
  const uint8_t *origin;
} pl_column_arrays;

void pl_reader_init(pl_reader *reader, const pl_chunk *chunk);
/* For a decompressed payload of a chunk's only batch. */
void pl_reader_init_payload(pl_reader *reader, const pl_chunk *chunk, pl_slice payload);

/* Each fills up to `count` entries and returns how many; 0 at the end; -1 when a record does not
 * parse, is out of order, missing or one too many. pl_reader_records first hands out those before
 * the broken one; the reader stays at it. */
int64_t pl_reader_records(pl_reader *reader, pl_record *records, int64_t count);
int64_t pl_reader_values(pl_reader *reader, pl_slice *values, int64_t count);
int64_t pl_reader_columns(pl_reader *reader, pl_column_arrays *columns, int64_t count);

/* Larger records leave too little time between them for all of their lines. */
enum { PL_AHEAD_BYTES = 256 };

/* Fetches into the outer cache what stands `ahead` of a record that is being used, so that the CRC
 * of the next chunk need not wait for memory. Once a record, between whatever else is done with it:
 * only so many lines can be on their way at a time. A prefetch never faults, wherever it goes. */
static inline void pl_reader_ahead(const pl_reader *reader, const uint8_t *record, int64_t size) {
  uintptr_t first = (uintptr_t)record + reader->ahead;
  if (size <= 0 || size > PL_AHEAD_BYTES) return;
  for (uintptr_t line = first; line < first + (uintptr_t)size; line += 64)
    __builtin_prefetch((const void *)line, 0, 2);
}

#endif
