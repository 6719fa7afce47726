/* Walking a log's segments from what is known durable to the first batch that is not whole. */
#ifndef PL_SCAN_H
#define PL_SCAN_H

#include "pl_log.h"

/* Where a scan stopped. */
typedef struct pl_scan {
  int64_t *bases;
  uint64_t *ends;     /* where each segment's batches end, in bytes; 0: not scanned */
  int64_t count;
  int64_t at;         /* index of the segment that holds the cut */
  int64_t cut_offset;
  uint64_t cut_position;
  uint64_t file_size; /* of that segment */
  bool is_torn;       /* something other than zeros, or a later segment, follows */
  int64_t cut_bytes, beyond; /* how much of it, and valid batches among it */
  char why[160];
} pl_scan;

/* `floor`: the end that is known durable. Frees nothing that it filled, also when it fails. */
pl_status pl_scan_log(pl_log *log, int64_t floor, pl_scan *scan);
void pl_scan_free(pl_scan *scan);
/* One of the segments, as long as its file is. */
pl_status pl_scan_open(pl_log *log, int64_t base, bool writable, pl_segment **segment);

#endif
