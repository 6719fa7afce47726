/* Finding batches across segments. */
#include "pl_cursor.h"

#include <inttypes.h>
#include <string.h>

enum { AHEAD_CHUNK_MAX = 512 * 1024, VERIFY_AHEAD_BYTES = 256 * 1024 };

void pl_cursor_init(pl_cursor *cursor, pl_log *log, int64_t offset) {
  memset(cursor, 0, sizeof *cursor);
  cursor->log = log;
  cursor->offset = offset;
}

void pl_cursor_release(pl_cursor *cursor) {
  pl_segment_release(cursor->segment);
  cursor->segment = NULL;
}

void pl_cursor_seek(pl_cursor *cursor, int64_t offset) {
  cursor->offset = offset;
  cursor->record_position = 0;
  /* Reading on in the same batch is common (consumers that pause): keep the place then. */
  if (cursor->segment && offset < cursor->batch_offset) pl_cursor_release(cursor);
  else if (cursor->segment && offset > cursor->batch_offset + 4096) pl_cursor_release(cursor);
}

static pl_status out_of_range(const pl_cursor *cursor, int64_t start, int64_t end) {
  pl_fail(PL_ERR_OUT_OF_RANGE, cursor->log->directory,
          "offset %" PRId64 " is not within [%" PRId64 ", %" PRId64 "]; seek to one of those",
          cursor->offset, start, end);
  pl_error_last()->offset = cursor->offset;
  pl_error_last()->bound = start;
  pl_error_last()->extra = end;
  return PL_ERR_OUT_OF_RANGE;
}

static pl_status missing_segment(const pl_cursor *cursor, int64_t next_base) {
  return pl_fail_corrupt(cursor->segment->path, (int64_t)atomic_load(&cursor->segment->size),
                         cursor->offset, 0,
                         "the records from offset %" PRId64 " to %" PRId64 " are missing: a "
                         "segment was removed or cut short; restore it, or run `pylog check`",
                         cursor->offset, next_base - 1);
}

/* A segment that was rolled is trimmed behind its last batch, so nobody may look there: within a
 * segment the view ends where the next one begins. The list is taken after the log's end was
 * loaded, so whatever lies below that end and is not in a later segment is in this one. */
static pl_view within(const pl_view *view, int64_t segment_end) {
  pl_view clipped = *view;
  if (clipped.end_offset > segment_end) clipped.end_offset = segment_end;
  if (clipped.sealed_offset > segment_end) clipped.sealed_offset = segment_end;
  return clipped;
}

static pl_status enter_segment(pl_cursor *cursor) {
  pl_cursor_release(cursor);
  cursor->rolls = atomic_load(&cursor->log->page->rolls);
  return pl_log_segment(cursor->log, cursor->offset, &cursor->segment, &cursor->segment_end);
}

/* Has a segment been added behind the one that was the last? */
static bool knows_its_end(const pl_cursor *cursor) {
  return cursor->segment_end != INT64_MAX ||
         cursor->rolls == atomic_load_explicit(&cursor->log->page->rolls, memory_order_acquire);
}

/* Nobody tells who reads with a page of his own that others delete; log.meta does, before a file
 * goes. */
static int64_t start_by_now(pl_log *log) {
  pl_meta meta;
  int64_t start = atomic_load(&log->page->log_start);
  if (log->is_private && pl_meta_load(log->directory, &meta) == PL_OK &&
      meta.incarnation == log->meta.incarnation && meta.log_start > start)
    atomic_store(&log->page->log_start, start = meta.log_start);
  return start;
}

/* All segments lie above the cursor: somebody has just deleted before them, a recovery kept none
 * of those below, or one is missing. */
static pl_status go_to_first(pl_cursor *cursor, const pl_view *view) {
  int64_t base = cursor->segment->base_offset, start = start_by_now(cursor->log);
  if (cursor->offset < start) return out_of_range(cursor, start, view->end_offset);
  if (!pl_meta_starts_epoch(view->meta, base)) return missing_segment(cursor, base);
  cursor->offset = base;
  return PL_OK;
}

static pl_status search(pl_cursor *cursor, const pl_view *view, pl_header *header) {
  for (;;) {
    PL_TRY(enter_segment(cursor));
    if (cursor->segment->base_offset > cursor->offset) PL_TRY(go_to_first(cursor, view));
    int64_t next_base = cursor->segment_end;
    pl_view clipped = within(view, next_base);
    pl_status status =
        pl_segment_find(cursor->segment, cursor->offset, &clipped, &cursor->position, header);
    if (status == PL_OK) {
      cursor->batch_offset = header->base_offset;
      int64_t start = atomic_load(&cursor->log->page->log_start);
      if (header->base_offset <= cursor->offset || cursor->offset >= start) return PL_OK;
      pl_cursor_release(cursor); /* deleted since we were called: not to be stepped over */
      return out_of_range(cursor, start, view->end_offset);
    }
    if (status != PL_END) return status;
    if (next_base == INT64_MAX) {
      if (cursor->offset >= view->end_offset) return PL_END;
      return pl_fail_corrupt(cursor->segment->path, (int64_t)atomic_load(&cursor->segment->size),
                             cursor->offset, 0,
                             "the segment files end here, and the log at offset %" PRId64
                             ": the last one was cut, or one behind it is missing; restore a copy; "
                             "`pylog check` tells more", view->end_offset);
    }
    if (cursor->offset < next_base) {
      if (!pl_meta_starts_epoch(view->meta, next_base)) return missing_segment(cursor, next_base);
      cursor->offset = next_base;
    }
    if (cursor->offset >= view->end_offset) return PL_END;
  }
}

/* Finds the segment and the batch for cursor->offset, moving on over gaps and empty segments. A
 * cursor that found none is nowhere: its position would be that of another segment. */
static pl_status locate(pl_cursor *cursor, const pl_view *view, pl_header *header) {
  pl_status status = search(cursor, view, header);
  if (status == PL_OK) return PL_OK;
  pl_cursor_release(cursor);
  int64_t start = atomic_load(&cursor->log->page->log_start);
  if (status == PL_ERR_CORRUPT && cursor->offset < start) /* deleted since we were called */
    return out_of_range(cursor, start, view->end_offset);
  return status;
}

/* The batch at the cursor, found anew when the segment is used up. */
static pl_status current_batch(pl_cursor *cursor, const pl_view *view, pl_header *header) {
  while (cursor->segment && knows_its_end(cursor)) {
    pl_view clipped = within(view, cursor->segment_end);
    pl_status status = pl_segment_batch(cursor->segment, cursor->position, cursor->batch_offset,
                                        &clipped, header);
    if (status == PL_END) break;
    PL_TRY(status);
    if (header->size == 0 || header->last_offset >= cursor->offset) return PL_OK;
    cursor->position += header->size;
    cursor->batch_offset = header->last_offset + 1;
    cursor->record_position = 0;
  }
  if (!view->may_block) return PL_NOT_READY;
  cursor->record_position = 0;
  return locate(cursor, view, header);
}

/* Walks an open batch from the cursor's record to `stop` and notes where that is. */
static pl_status walk_open(pl_cursor *cursor, const pl_header *header, int64_t stop,
                           bool may_block, uint64_t *stop_position) {
  pl_segment *segment = cursor->segment;
  bool resumes = cursor->record_position != 0;
  const uint8_t *p = segment->data + (resumes ? cursor->record_position
                                              : cursor->position + PL_BATCH_HEADER_SIZE);
  const uint8_t *end = segment->data + atomic_load_explicit(&segment->size, memory_order_relaxed);
  for (int64_t at = resumes ? cursor->offset : header->base_offset; at < stop; at++) {
    int64_t timestamp_delta, offset_delta;
    const uint8_t *body;
    if (at == cursor->offset) cursor->record_position = (uint64_t)(p - segment->data);
    const uint8_t *record = p;
    p = pl_record_get(record, end, &timestamp_delta, &offset_delta, &body);
    if (!p) { /* it may have passed the size last known */
      pl_status grown = pl_segment_grow(segment, may_block);
      if (grown != PL_OK && grown != PL_END) return grown;
      end = segment->data + atomic_load(&segment->size);
      p = pl_record_get(record, end, &timestamp_delta, &offset_delta, &body);
    }
    if (!p || header->base_offset + offset_delta != at)
      return pl_fail_corrupt(segment->path, (int64_t)cursor->position, at, -1,
                             "a record of the open batch is broken; run `pylog check`");
  }
  *stop_position = (uint64_t)(p - segment->data);
  return PL_OK;
}

/* Records of a sealed batch in [from, stop). Dense batches are counted without a look. */
static int64_t count_records(const pl_segment *segment, uint64_t position, const pl_header *header,
                             int64_t from, int64_t stop) {
  if (header->attributes & PL_ATTRIBUTE_CONTROL) return 0;
  if (from < header->base_offset) from = header->base_offset;
  if (stop > header->last_offset + 1) stop = header->last_offset + 1;
  if (header->records_count == header->last_offset - header->base_offset + 1 ||
      (header->attributes & PL_ATTRIBUTE_CODEC_MASK))
    return stop - from;
  const uint8_t *p = segment->data + position + PL_BATCH_HEADER_SIZE;
  const uint8_t *end = segment->data + position + header->size;
  int64_t count = 0;
  for (int32_t i = 0; p && i < header->records_count; i++) {
    int64_t timestamp_delta, offset_delta;
    const uint8_t *body;
    p = pl_record_get(p, end, &timestamp_delta, &offset_delta, &body);
    int64_t offset = header->base_offset + offset_delta;
    if (p && offset >= from && offset < stop) count++;
  }
  return count;
}

static void start_chunk(const pl_cursor *cursor, const pl_header *header, pl_chunk *chunk) {
  chunk->position = cursor->position;
  chunk->record_position = cursor->record_position;
  chunk->from_offset = cursor->offset;
  chunk->next_offset = cursor->offset;
  chunk->codec = header->attributes & PL_ATTRIBUTE_CODEC_MASK;
}

/* Adds the cursor's batch to the chunk. PL_END: the chunk is full, or the batch does not mix. */
static pl_status add_batch(pl_cursor *cursor, const pl_header *header, const pl_view *view,
                           int64_t max_records, int64_t max_bytes, pl_chunk *chunk) {
  bool is_first = chunk->next_offset == chunk->from_offset;
  int codec = header->attributes & PL_ATTRIBUTE_CODEC_MASK;
  /* The open batch comes alone: its header is still to be written, and views never change. */
  if (!is_first && (header->size == 0 || codec || chunk->codec || chunk->count >= max_records ||
                    (int64_t)(cursor->position + header->size - chunk->position) > max_bytes))
    return PL_END;
  int64_t from = cursor->offset;
  int64_t stop = view->end_offset < header->last_offset + 1 ? view->end_offset
                                                            : header->last_offset + 1;
  bool is_control = header->attributes & PL_ATTRIBUTE_CONTROL;
  if (!is_control && stop - from > max_records - chunk->count)
    stop = from + (max_records - chunk->count);
  if (header->size == 0) {
    if (from >= stop) return PL_END;
    PL_TRY(walk_open(cursor, header, stop, view->may_block, &chunk->end_position));
    chunk->is_open = true;
    chunk->record_position = cursor->record_position;
    cursor->record_position = chunk->end_position;
    chunk->count += stop - from;
    chunk->next_offset = cursor->offset = stop;
    return PL_END;
  }
  PL_TRY(pl_segment_verify(cursor->segment, cursor->position, header, view));
  chunk->count += count_records(cursor->segment, cursor->position, header, from, stop);
  chunk->end_position = cursor->position + header->size;
  chunk->next_offset = cursor->offset = stop;
  cursor->record_position = 0;
  if (stop <= header->last_offset) return PL_END;
  cursor->position += header->size;
  cursor->batch_offset = header->last_offset + 1;
  return PL_OK;
}

/* What follows is sealed and will be wanted next, by a chunk as large as this. Two of them must fit
 * the outer cache. */
static void look_ahead(pl_chunk *chunk) {
  uint64_t size = chunk->end_position - chunk->position;
  if (size <= AHEAD_CHUNK_MAX) chunk->ahead = size;
}

pl_status pl_cursor_fetch(pl_cursor *cursor, int64_t max_records, int64_t max_bytes,
                          bool may_block, pl_chunk *chunk) {
  pl_log *log = cursor->log;
  pl_view view;
  pl_header header;
  memset(chunk, 0, sizeof *chunk);
  pl_log_view(log, &view);
  view.may_block = may_block;
  int64_t start = atomic_load_explicit(&log->page->log_start, memory_order_relaxed);
  if (cursor->offset < start || cursor->offset > view.end_offset)
    return out_of_range(cursor, start, view.end_offset);
  do {
    if (cursor->offset >= view.end_offset) return PL_END;
    PL_TRY(current_batch(cursor, &view, &header));
    start_chunk(cursor, &header, chunk);
    pl_segment *segment = cursor->segment;
    pl_view clipped = within(&view, cursor->segment_end);
    pl_status status = add_batch(cursor, &header, &view, max_records, max_bytes, chunk);
    while (status == PL_OK) {
      status = pl_segment_batch(segment, cursor->position, cursor->batch_offset, &clipped, &header);
      if (status != PL_OK) break;
      status = add_batch(cursor, &header, &view, max_records, max_bytes, chunk);
      if (status == PL_END && header.size) look_ahead(chunk);
    }
    /* What was found before trouble is handed out first; the next call meets the trouble. */
    if (chunk->next_offset == chunk->from_offset && status != PL_OK && status != PL_END)
      return status;
  } while (chunk->count == 0);
  chunk->segment = cursor->segment;
  pl_segment_acquire(chunk->segment);
  return PL_OK;
}

/* Where batches are taken one by one, a stretch of them is checked at one time: between two, a
 * caller in Python takes so long that the memory stands still. */
static void verify_ahead(pl_cursor *cursor, const pl_view *view) {
  uint64_t position = cursor->position, end = position + VERIFY_AHEAD_BYTES;
  bool is_first = cursor->verified_to == 0;
  if (is_first) cursor->verified_to = position;
  if (is_first || (position < cursor->verified_to && cursor->verified_to <= end)) return;
  pl_view clipped = within(view, cursor->segment_end);
  pl_header header;
  int64_t offset = cursor->batch_offset;
  while (position < end && offset < clipped.end_offset &&
         pl_segment_batch(cursor->segment, position, offset, &clipped, &header) == PL_OK &&
         header.size && pl_segment_verify(cursor->segment, position, &header, &clipped) == PL_OK) {
    position += header.size;
    offset = header.last_offset + 1;
  }
  cursor->verified_to = position;
}

pl_status pl_cursor_batch(pl_cursor *cursor, bool may_block, pl_chunk *chunk, pl_header *header) {
  pl_log *log = cursor->log;
  pl_view view;
  memset(chunk, 0, sizeof *chunk);
  pl_log_view(log, &view);
  view.may_block = may_block;
  int64_t start = atomic_load_explicit(&log->page->log_start, memory_order_relaxed);
  if (cursor->offset < start || cursor->offset > view.end_offset)
    return out_of_range(cursor, start, view.end_offset);
  if (cursor->offset >= view.end_offset) return PL_END;
  PL_TRY(current_batch(cursor, &view, header));
  chunk->position = cursor->position;
  chunk->from_offset = header->base_offset;
  chunk->count = -1;
  chunk->codec = header->attributes & PL_ATTRIBUTE_CODEC_MASK;
  if (header->size == 0) {
    chunk->is_open = true;
    cursor->record_position = 0;
    PL_TRY(walk_open(cursor, header, view.end_offset, may_block, &chunk->end_position));
    cursor->record_position = chunk->end_position;
    cursor->offset = view.end_offset;
  } else {
    PL_TRY(pl_segment_verify(cursor->segment, cursor->position, header, &view));
    chunk->end_position = cursor->position + header->size;
    cursor->position = chunk->end_position;
    cursor->offset = cursor->batch_offset = header->last_offset + 1;
    cursor->record_position = 0;
    verify_ahead(cursor, &view);
  }
  chunk->next_offset = cursor->offset;
  chunk->segment = cursor->segment;
  pl_segment_acquire(chunk->segment);
  return PL_OK;
}

pl_status pl_chunk_finish(const pl_chunk *chunk, uint8_t *out) {
  uint64_t size = chunk->end_position - chunk->position;
  pl_reader reader;
  pl_record record;
  int64_t count = 0, max_timestamp = -1;
  pl_reader_init(&reader, chunk);
  while (pl_reader_records(&reader, &record, 1) == 1) {
    if (record.timestamp > max_timestamp) max_timestamp = record.timestamp;
    count++;
  }
  if (count != chunk->next_offset - chunk->from_offset)
    return pl_fail_corrupt(chunk->segment->path, (int64_t)chunk->position, chunk->from_offset, -1,
                           "the open batch does not parse; run `pylog check`");
  memcpy(out, chunk->segment->data + chunk->position, size);
  pl_batch_seal(out, size, count, max_timestamp);
  return PL_OK;
}

void pl_chunk_release(pl_chunk *chunk) {
  pl_segment_release(chunk->segment);
  chunk->segment = NULL;
}

/* Does a batch stand at `at` that nothing speaks against? */
static bool is_believable(pl_segment *segment, uint64_t at, const pl_view *view,
                          pl_header *header) {
  uint64_t size = atomic_load(&segment->size);
  const uint8_t *batch = segment->data + at;
  const char *why;
  return at + PL_BATCH_HEADER_SIZE <= size && batch[PL_BATCH_MAGIC] == 2 &&
         pl_header_decode(batch, size - at, header, &why) &&
         header->last_offset < view->end_offset &&
         pl_meta_allows(view->meta, header->leader_epoch, header->base_offset,
                        header->last_offset) &&
         pl_segment_see(segment, at, header->size, true) == PL_OK &&
         pl_batch_crc_matches(batch, header->size);
}

/* The next batch behind `at`: where the header there leads, if length and offsets agree with what
 * it leads to. Else the first one that is found by its bytes, for which a value that is a batch
 * itself might be taken. UINT64_MAX: there is none. */
static uint64_t next_believable(pl_segment *segment, uint64_t at, const pl_view *view,
                                pl_header *header) {
  uint64_t size = atomic_load(&segment->size);
  if (at + PL_BATCH_HEADER_SIZE > size) return UINT64_MAX;
  const uint8_t *batch = segment->data + at;
  uint64_t led = at + pl_batch_load_length(batch) + PL_BATCH_LENGTH_OVERHEAD;
  uint64_t next_offset = (uint64_t)pl_load_i64(batch + PL_BATCH_BASE_OFFSET) +
                         (uint64_t)pl_load_i32(batch + PL_BATCH_LAST_OFFSET_DELTA) + 1;
  if (is_believable(segment, led, view, header) && (uint64_t)header->base_offset == next_offset)
    return led;
  while (++at + PL_BATCH_HEADER_SIZE <= size)
    if (is_believable(segment, at, view, header)) return at;
  return UINT64_MAX;
}

/* To the next batch behind damage at the cursor, or to the next segment. */
pl_status pl_cursor_skip(pl_cursor *cursor) {
  pl_log *log = cursor->log;
  pl_view view;
  pl_header header;
  pl_log_view(log, &view);
  view.may_block = true;
  int64_t next_base = INT64_MAX;
  if (!cursor->segment) {
    PL_TRY(enter_segment(cursor));
    cursor->position = 0; /* the walk itself failed: look from the start for what follows */
  }
  pl_segment *segment = cursor->segment;
  if (segment->base_offset > cursor->offset && segment->base_offset < view.end_offset) {
    cursor->offset = segment->base_offset; /* the segments before it are missing: it is whole */
    cursor->record_position = 0;
    pl_cursor_release(cursor);
    return PL_OK;
  }
  pl_segment_probe(segment, 0, 1);
  pl_view here = within(&view, cursor->segment_end); /* what is beyond belongs to another file */
  uint64_t at = cursor->position;
  do at = next_believable(segment, at, &here, &header);
  while (at != UINT64_MAX && header.base_offset <= cursor->offset);
  if (at != UINT64_MAX) {
    cursor->position = at;
    cursor->batch_offset = cursor->offset = header.base_offset;
    cursor->record_position = 0;
    return PL_OK;
  }
  int64_t base = segment->base_offset;
  pl_cursor_release(cursor);
  PL_TRY(pl_log_segment(log, base, &segment, &next_base));
  pl_segment_release(segment);
  cursor->record_position = 0;
  cursor->offset = next_base < view.end_offset ? next_base : view.end_offset;
  return next_base < view.end_offset ? PL_OK : PL_END;
}

pl_slice pl_chunk_payload(const pl_chunk *chunk) {
  const uint8_t *start = chunk->segment->data + chunk->position + PL_BATCH_HEADER_SIZE;
  return (pl_slice){start, chunk->segment->data + chunk->end_position - start};
}

/* ---- from the end ----------------------------------------------------------------------- */

/* Where the records below `end` end: below a gap, if an epoch begins at `end`. */
static int64_t records_end(pl_log *log, pl_segment *segment, int64_t end, const pl_view *view) {
  pl_view here = within(view, end);
  int64_t last;
  if (!pl_meta_starts_epoch(&log->meta, end)) return end;
  return pl_segment_last(segment, &here, &last) == PL_OK ? last : end; /* its readers are told */
}

pl_status pl_offset_before_end(pl_log *log, int64_t count, int64_t *offset) {
  pl_view view;
  pl_log_view(log, &view);
  view.may_block = true;
  int64_t start = atomic_load(&log->page->log_start), end = view.end_offset;
  while (end > start) {
    pl_segment *segment;
    int64_t unused;
    PL_TRY(pl_log_segment(log, end - 1, &segment, &unused));
    int64_t base = segment->base_offset > start ? segment->base_offset : start;
    int64_t last = records_end(log, segment, end, &view);
    pl_segment_release(segment);
    if (last - base >= count) {
      *offset = last - count;
      return PL_OK;
    }
    if (last > base) count -= last - base;
    if (base >= end) break; /* a listing that changed under us: the start will do */
    end = base;
  }
  *offset = start;
  return PL_OK;
}

/* ---- by time ---------------------------------------------------------------------------- */

pl_status pl_offset_for_time(pl_log *log, int64_t timestamp, int64_t *offset) {
  pl_view view;
  pl_log_view(log, &view);
  view.may_block = true;
  pl_cursor cursor;
  int64_t start = atomic_load(&log->page->log_start), next_base = start;
  pl_cursor_init(&cursor, log, start);
  pl_status status = PL_END;
  while (next_base < view.end_offset) {
    pl_segment *segment;
    int64_t here = next_base;
    if ((status = pl_log_segment(log, here, &segment, &next_base)) != PL_OK) break;
    pl_view clipped = within(&view, next_base);
    int64_t from = pl_segment_time_floor(segment, timestamp, &clipped);
    pl_segment_release(segment);
    pl_cursor_seek(&cursor, from > here ? from : here);
    /* Batches of this segment whose greatest time is early are skipped by their header alone. */
    pl_header header;
    while (cursor.offset < view.end_offset && cursor.offset < next_base &&
           (status = current_batch(&cursor, &view, &header)) == PL_OK &&
           cursor.offset < next_base) {
      /* The header decides what is skipped, so it is checked before it is believed. */
      if (header.size && (status = pl_segment_verify(cursor.segment, cursor.position, &header,
                                                     &view)) != PL_OK)
        break;
      if (header.size == 0 || header.max_timestamp >= timestamp) {
        pl_cursor_release(&cursor);
        *offset = cursor.offset;
        return PL_OK;
      }
      cursor.offset = header.last_offset + 1;
    }
    if (status < 0) break;
  }
  pl_cursor_release(&cursor);
  return status < 0 ? status : PL_END;
}
