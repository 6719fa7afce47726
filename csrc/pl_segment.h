/* One segment: a file of batches, mapped, with its private index and its marks.
 *
 *   file    | batch | batch | open batch ....|  real blocks, zero  |
 *   mapping |<------------- mapped (the virtual range, may pass the end of the file) ------->|
 *                                            ^ the page's position  ^ size
 *
 * Segments are counted: every view that a caller holds keeps its segment, and the mapping goes
 * with the last. The file may be unlinked meanwhile; its bytes never change once published.
 * Nobody reads past `size`, and readers probe each mebibyte before they first touch it.
 */
#ifndef PL_SEGMENT_H
#define PL_SEGMENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pl_batch.h"
#include "pl_file.h"
#include "pl_index.h"
#include "pl_meta.h"

#define PL_SEGMENT_BYTES_MAX 0x7fffffffu /* positions are int32 in Kafka's index */
#define PL_PREPARED_NAME "segment.prepared"

enum {
  PL_PROBE_SHIFT = 20,
  PL_PROBE_WORDS = (int)((PL_SEGMENT_BYTES_MAX >> PL_PROBE_SHIFT) / 64 + 1),
  PL_MARK_SHIFT = 6, /* a batch with records is longer than 64 bytes: one mark each */
};

typedef struct pl_segment {
  _Atomic int references;
  int fd;
  int64_t base_offset;
  uint64_t inode;
  uint8_t *data;
  size_t mapped;
  _Atomic uint64_t size;       /* of the file, as last asked */
  _Atomic uint64_t window_end; /* this process has faulted in [0, window_end) for writing */
  _Atomic uint64_t probed[PL_PROBE_WORDS];
  _Atomic(_Atomic uint64_t *) verified; /* a bit for each 64 bytes: batch checked; lazily made */
  pthread_mutex_t index_lock;
  pl_index index; /* guarded by index_lock */
  char path[PL_PATH_MAX];
} pl_segment;

/* What a reader may see: taken end first, then sealed (prototype.md 9, trap 1). */
typedef struct pl_view {
  int64_t end_offset;    /* records from here on do not exist for this reader */
  int64_t sealed_offset; /* batches that start below must be sealed */
  const pl_meta *meta;   /* epochs */
  bool may_block;        /* false: PL_NOT_READY instead of a system call or a cold read */
} pl_view;

/* Opens "directory/name" and maps at least `map_bytes`. */
pl_status pl_segment_open(const char *directory, const char *name, int64_t base_offset,
                          uint64_t map_bytes, bool writable, uint64_t index_interval_bytes,
                          pl_segment **segment);
void pl_segment_acquire(pl_segment *segment);
void pl_segment_release(pl_segment *segment);

/* "00000000000000000042.log"; out has 32 bytes. */
void pl_segment_name(int64_t base_offset, const char *suffix, char *out);

/* Makes [position, position + size) safe to read. PL_END: the file is shorter. */
pl_status pl_segment_probe(pl_segment *segment, uint64_t position, uint64_t size);

/* Asks for the file's size again, after a parse ran into the one last known: a log that is being
 * written grows. PL_END: it did not; PL_NOT_READY: to be asked where a system call may be made. */
pl_status pl_segment_grow(pl_segment *segment, bool may_block);

static inline pl_status pl_segment_see(pl_segment *segment, uint64_t position, uint64_t size,
                                       bool may_block) {
  uint64_t first = position >> PL_PROBE_SHIFT, last = (position + size - 1) >> PL_PROBE_SHIFT;
  if (position + size <= atomic_load_explicit(&segment->size, memory_order_relaxed) &&
      last - first <= 1 && (segment->probed[first / 64] >> first % 64 & 1) &&
      (segment->probed[last / 64] >> last % 64 & 1))
    return PL_OK;
  return may_block ? pl_segment_probe(segment, position, size) : PL_NOT_READY;
}

/* The batch at `position`, whose first record must have the offset `expected` (-1: any).
 * header->size is 0 for the open batch. PL_END: there is none for this reader. */
pl_status pl_segment_batch(pl_segment *segment, uint64_t position, int64_t expected,
                           const pl_view *view, pl_header *header);

/* Checks CRC and epoch of a sealed batch once; later calls cost a load. */
pl_status pl_segment_verify(pl_segment *segment, uint64_t position, const pl_header *header,
                            const pl_view *view);
void pl_segment_forget_verified(pl_segment *segment);
/* Bytes of the sealed batches that bear the mark. Cost: a walk over all headers. */
uint64_t pl_segment_verified_bytes(pl_segment *segment);

/* Position and header of the batch that bears `offset` (or of the first one after it).
 * PL_END: this segment has none at or after it. Cost: an index look-up and a short walk. */
pl_status pl_segment_find(pl_segment *segment, int64_t offset, const pl_view *view,
                          uint64_t *position, pl_header *header);

/* Position of the batch that the last entry of .index names, if it is there; else 0. Reads that
 * entry alone: an opener who wants the end of a large segment need not read all of its index. */
uint64_t pl_segment_last_indexed(pl_segment *segment, const pl_view *view, int64_t *base_offset);

/* How many whole batches with a right CRC lie at or after `position`, wherever they begin; -1 where
 * the file cannot be read. Cost: a pass over the rest of the file. */
int64_t pl_segment_count_valid(pl_segment *segment, uint64_t position);

/* One past the last record that is there. Cost: as pl_segment_find. */
pl_status pl_segment_last(pl_segment *segment, const pl_view *view, int64_t *end_offset);

/* Walks from the batch at *position to the record at view->end_offset. Returns where the next
 * batch or record would go; *open gets the open batch's header position or UINT64_MAX, *count
 * its records, *max_timestamp theirs. PL_ERR_CORRUPT when the end is not met exactly. */
typedef struct pl_tail {
  uint64_t position, batch_position;
  int64_t batch_offset, batch_timestamp, max_timestamp, count;
} pl_tail;
pl_status pl_segment_walk_to_end(pl_segment *segment, uint64_t position, int64_t expected,
                                 const pl_view *view, pl_tail *tail);

/* A lower bound, good as a start of a search, for the first record at or after `timestamp`. */
int64_t pl_segment_time_floor(pl_segment *segment, int64_t timestamp, const pl_view *view);

/* Writes .index and .timeindex of a segment whose batches end at view->end_offset. Returns the
 * size of its log in *log_size. */
pl_status pl_segment_write_index(pl_segment *segment, const char *directory, const pl_view *view,
                                 uint64_t *log_size);

/* Are .index and .timeindex there, and do they reach the end of the segment? */
bool pl_segment_has_index(pl_segment *segment, const pl_view *view);

/* Removes them: before a segment that was closed once is written again, or is cut. */
pl_status pl_segment_remove_index(const char *directory, int64_t base_offset);

/* Faults in [window_end, target) for writing; blocks must be there. */
pl_status pl_segment_populate(pl_segment *segment, uint64_t target);

#endif
