/* The sparse indexes of a segment, offset to position and time to offset, in Kafka's bytes.
 *
 * An index is a cache: it has no checksum, an answer is a hint that the reader checks against the
 * batch it points at, and pl_segment_index() rebuilds the same bytes from the log at any time.
 *
 *   .index      { last offset of a batch - base, int32 | position of that batch, int32 }
 *   .timeindex  { greatest timestamp so far, int64 | last offset of its batch - base, int32 }
 *
 * Source: Apache Kafka, OffsetIndex.java, TimeIndex.java, LogSegment.append.
 */
#ifndef PL_INDEX_H
#define PL_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "pl_batch.h"

enum { PL_OFFSET_ENTRY_SIZE = 8, PL_TIME_ENTRY_SIZE = 12 };

/* A growing array of big-endian entries, or a loaded file of them. */
typedef struct pl_entries {
  uint8_t *bytes;
  uint64_t size, capacity;
} pl_entries;

typedef struct pl_index {
  int64_t base_offset;
  uint64_t interval_bytes;
  pl_entries offsets, times;
  /* Where the walk that builds it stands. */
  uint64_t position;      /* all batches before are counted */
  int64_t next_offset;
  uint64_t bytes_since;   /* since the last entry */
  int64_t max_timestamp, max_timestamp_offset;
  bool is_timeless;       /* max_timestamp is not known for all of it: no more time entries */
} pl_index;

void pl_index_init(pl_index *index, int64_t base_offset, uint64_t interval_bytes);
void pl_index_free(pl_index *index);

/* Do the entries rise, from the first to the last? A power cut may leave zeros where they were. */
bool pl_index_rises(const pl_index *index);

/* Counts one more batch, at index->position; adds entries by Kafka's rule. */
pl_status pl_index_add(pl_index *index, const pl_header *header);
/* The last time entry, which a segment gets when it is closed. */
pl_status pl_index_finish(pl_index *index);

/* Greatest entry at or below: the position (and last offset) of a batch from which to walk.
 * False: walk from the start of the segment. */
bool pl_index_floor(const pl_index *index, int64_t offset, int64_t *batch_last_offset,
                    uint64_t *position);
/* The last entry earlier than `timestamp`: every record at or after it comes behind `*offset`,
 * the last one of a batch whose greatest time is `*entry_timestamp`. False: there is none. */
bool pl_index_time_floor(const pl_index *index, int64_t timestamp, int64_t *entry_timestamp,
                         int64_t *offset);

#endif
