/* The scan of a log that no control page tells of, by the acceptance rule (reliability.md 3.2). */
#include "pl_scan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pl_status pl_scan_open(pl_log *log, int64_t base, bool writable, pl_segment **segment) {
  char name[32];
  pl_segment_name(base, ".log", name);
  return pl_segment_open(log->directory, name, base, 0, writable,
                         (uint64_t)log->meta.options.index_interval_bytes, segment);
}

static bool is_zero(const uint8_t *p, uint64_t size) {
  while (size && *p == 0) p++, size--;
  return size == 0;
}

static const char unreadable[] = "it cannot be read"; /* whose status stands in pl_error_last() */

/* What a writer was filling: its length and CRC would have come with its sealing. */
static bool is_open_batch(const uint8_t *batch, int64_t expected) {
  return pl_load_u32(batch + PL_BATCH_LENGTH) == 0 && batch[PL_BATCH_MAGIC] == 2 &&
         pl_load_i64(batch + PL_BATCH_BASE_OFFSET) == expected;
}

/* The acceptance rule for the batch at `position`; NULL or why not. */
static const char *reject(pl_segment *segment, uint64_t position, int64_t expected,
                          const pl_meta *meta, pl_header *header) {
  uint64_t size = atomic_load(&segment->size);
  const char *why;
  int64_t unused;
  if (position + PL_BATCH_HEADER_SIZE > size) return "the file ends inside a batch header";
  const uint8_t *batch = segment->data + position;
  if (is_open_batch(batch, expected)) return "an open batch, which was not sealed: it has no CRC";
  if (!pl_header_decode(batch, size - position, header, &why)) return why;
  if (pl_segment_probe(segment, position, header->size) != PL_OK) return unreadable;
  if (!pl_batch_crc_matches(batch, header->size)) return "a batch fails its CRC-32C";
  if (header->base_offset != expected) return "a batch does not begin where the last one ended";
  if (header->records_count != header->last_offset - header->base_offset + 1)
    return "a batch's record count and offsets disagree";
  if (!pl_meta_allows(meta, header->leader_epoch, expected, header->last_offset))
    return "a batch bears a leader epoch that does not belong to its offset";
  if (!(header->attributes & PL_ATTRIBUTE_CODEC_MASK))
    return pl_records_verify(batch + PL_BATCH_HEADER_SIZE, header->size - PL_BATCH_HEADER_SIZE,
                             header, &unused);
  return NULL;
}

/* Walks one segment from its start. Fills the cut when it fails before the end of the file. */
static pl_status scan_segment(pl_log *log, pl_scan *scan, int64_t i, int64_t *expected,
                              bool *reached_end) {
  pl_segment *segment;
  pl_header header;
  const char *why = NULL;
  uint64_t position = 0;
  PL_TRY(pl_scan_open(log, scan->bases[i], false, &segment));
  uint64_t size = atomic_load(&segment->size);
  if (size && pl_segment_probe(segment, 0, size) != PL_OK) why = unreadable;
  while (!why && position < size) {
    why = reject(segment, position, *expected, &log->meta, &header);
    if (why) break;
    position += header.size;
    *expected = header.last_offset + 1;
  }
  if (why == unreadable) {
    pl_segment_release(segment);
    return pl_error_last()->status;
  }
  *reached_end = position >= size;
  scan->ends[i] = position;
  scan->at = i;
  scan->cut_offset = *expected;
  scan->cut_position = position;
  scan->file_size = size;
  scan->is_torn = !*reached_end && !is_zero(segment->data + position, size - position);
  if (scan->is_torn) scan->beyond = pl_segment_count_valid(segment, position + 1);
  if (!why) why = "the segment files end: the last one was cut, or one behind it is missing";
  else if (!scan->is_torn) why = "zeros follow";
  snprintf(scan->why, sizeof scan->why, "%s", why);
  pl_segment_release(segment);
  return PL_OK;
}

/* Segments behind the cut go too. */
static pl_status count_later(pl_log *log, pl_scan *scan) {
  for (int64_t i = scan->at + 1; i < scan->count; i++) {
    pl_segment *segment;
    PL_TRY(pl_scan_open(log, scan->bases[i], false, &segment));
    uint64_t size = atomic_load(&segment->size);
    int64_t valid = pl_segment_count_valid(segment, 0);
    if (valid > 0) scan->beyond += valid;
    scan->cut_bytes += (int64_t)size;
    scan->is_torn = true;
    pl_segment_release(segment);
  }
  return PL_OK;
}

pl_status pl_scan_log(pl_log *log, int64_t floor, pl_scan *scan) {
  memset(scan, 0, sizeof *scan);
  PL_TRY(pl_list_segments(log->directory, &scan->bases, &scan->count));
  if (scan->count == 0)
    return pl_fail_corrupt(log->directory, -1, log->meta.log_start, -1,
                           "there is no segment file; restore it from a copy");
  scan->ends = calloc((size_t)scan->count, sizeof *scan->ends);
  if (!scan->ends) return pl_fail(PL_ERR_NO_MEMORY, log->directory, "out of memory for a scan");
  /* From the segment of the last durable record on: if nothing of a later one is whole, a gap will
   * follow that one, and it must be trimmed. */
  int64_t i = scan->count - 1;
  while (i > 0 && scan->bases[i] >= floor) i--;
  int64_t expected = scan->bases[i];
  for (; i < scan->count; i++) {
    bool reached_end = false;
    int64_t base = scan->bases[i];
    if (base != expected && !(base > expected && pl_meta_starts_epoch(&log->meta, base))) {
      scan->is_torn = true; /* a segment is missing, or holds what another one holds */
      snprintf(scan->why, sizeof scan->why, "the segment at offset %" PRId64 " is missing",
               expected);
      break;
    }
    expected = base;
    PL_TRY(scan_segment(log, scan, i, &expected, &reached_end));
    /* A tail inside the log is a page that never reached the disk, or an untrimmed segment with
     * zeros there or what a killed writer had begun: the next segment's name tells which. */
    bool is_rolled = i + 1 < scan->count && (!scan->is_torn || scan->bases[i + 1] == expected);
    if (!reached_end && !is_rolled) break;
  }
  if (scan->is_torn) scan->cut_bytes = (int64_t)(scan->file_size - scan->cut_position);
  return count_later(log, scan);
}

void pl_scan_free(pl_scan *scan) {
  free(scan->bases);
  free(scan->ends);
}
