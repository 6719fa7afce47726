/* Decoding the records of a chunk. The bytes passed their CRC; still no length is believed. */
#include "pl_reader.h"

#include <string.h>

enum { AHEAD_RECORDS = 8 }; /* to fetch ahead of the walk */

/* An open batch ends where its chunk does, whatever its header says by now. */
static void enter_batch(pl_reader *reader, const uint8_t *batch, bool is_open) {
  uint32_t length = is_open ? 0 : pl_batch_load_length(batch);
  uint16_t attributes = pl_load_u16(batch + PL_BATCH_ATTRIBUTES);
  reader->batch = batch;
  reader->p = batch + PL_BATCH_HEADER_SIZE;
  reader->end = reader->stop;
  if (length && length <= (uint64_t)(reader->stop - batch) - PL_BATCH_LENGTH_OVERHEAD)
    reader->end = batch + PL_BATCH_LENGTH_OVERHEAD + length;
  reader->base_offset = pl_load_i64(batch + PL_BATCH_BASE_OFFSET);
  reader->base_timestamp = pl_load_i64(batch + PL_BATCH_BASE_TIMESTAMP);
  reader->fixed_timestamp = attributes & PL_ATTRIBUTE_APPEND_TIME
                                ? pl_load_i64(batch + PL_BATCH_MAX_TIMESTAMP)
                                : INT64_MIN;
  reader->least_offset = reader->base_offset;
  reader->batch_end = reader->next_offset;
  reader->left = reader->next_offset - reader->base_offset;
  if (length) {
    int64_t delta = pl_load_i32(batch + PL_BATCH_LAST_OFFSET_DELTA);
    reader->batch_end = (int64_t)((uint64_t)reader->base_offset + (uint64_t)delta + 1);
    reader->left = pl_load_i32(batch + PL_BATCH_RECORDS_COUNT);
  }
}

/* Markers are for the log itself: they take an offset and are no records. */
static void step_over_control(pl_reader *reader) {
  if (!(pl_load_u16(reader->batch + PL_BATCH_ATTRIBUTES) & PL_ATTRIBUTE_CONTROL)) return;
  reader->p = reader->end;
  reader->left = 0;
}

/* Hops over the records before `from_offset` by their lengths alone. Each length depends on the
 * one before, so a batch that is not in the cache is fetched ahead of the hops: a get in a log of
 * 110 MB spent two thirds of its 2.5 us on these misses. */
static void hop(pl_reader *reader, int64_t count) {
  const uint8_t *p = reader->p;
  for (int64_t i = 0; i < count; i++) {
    int64_t size;
    const uint8_t *body = pl_get_varint(p, reader->end, &size);
    if (!body || size < 0 || size > reader->end - body) return; /* decoding tells */
    p = body + size;
    __builtin_prefetch(p + 1024);
  }
  reader->p = p;
  reader->left -= count;
  reader->least_offset += count;
}

void pl_reader_init(pl_reader *reader, const pl_chunk *chunk) {
  const uint8_t *data = chunk->segment->data;
  memset(reader, 0, sizeof *reader);
  reader->stop = data + chunk->end_position;
  reader->from_offset = chunk->from_offset;
  reader->next_offset = chunk->next_offset;
  reader->ahead = chunk->ahead;
  enter_batch(reader, data + chunk->position, chunk->is_open);
  if (chunk->record_position) { /* it was open once, so no offset is missing in it */
    reader->p = data + chunk->record_position;
    reader->least_offset = chunk->from_offset;
    reader->left = reader->batch_end - chunk->from_offset;
  }
  step_over_control(reader);
  int64_t before = chunk->from_offset - reader->base_offset;
  bool is_dense = reader->left == reader->batch_end - reader->base_offset;
  if (before > 0 && is_dense && !chunk->record_position && !chunk->codec) hop(reader, before);
}

void pl_reader_init_payload(pl_reader *reader, const pl_chunk *chunk, pl_slice payload) {
  pl_reader_init(reader, chunk);
  reader->ahead = 0; /* the payload is elsewhere */
  reader->p = payload.data;
  reader->end = reader->stop = payload.data + payload.size;
  reader->left = pl_load_i32(reader->batch + PL_BATCH_RECORDS_COUNT);
}

/* 1: a record; 0: no more; -1: broken. */
static inline __attribute__((always_inline)) int next_record(pl_reader *reader,
                                                             pl_record *record) {
  for (;;) {
    if (__builtin_expect(reader->p >= reader->end, 0)) {
      if (reader->is_done) return 0;
      if (reader->left != 0) return -1;
      if (reader->end >= reader->stop) return 0;
      enter_batch(reader, reader->end, false);
      step_over_control(reader);
      continue;
    }
    int64_t timestamp_delta, offset_delta;
    const uint8_t *body;
    const uint8_t *after =
        pl_record_get(reader->p, reader->end, &timestamp_delta, &offset_delta, &body);
    if (__builtin_expect(!after, 0)) return -1;
    int64_t offset = (int64_t)((uint64_t)reader->base_offset + (uint64_t)offset_delta);
    if (__builtin_expect(offset < reader->least_offset || offset >= reader->batch_end, 0))
      return -1;
    /* Where a record begins is known only when the one before has been read; so the next ones
     * are guessed to be as large as this and fetched ahead from the outer caches: 4 ns of 32. */
    __builtin_prefetch(after + AHEAD_RECORDS * (after - reader->p));
    reader->p = after;
    reader->least_offset = offset + 1;
    reader->left--;
    if (__builtin_expect(offset < reader->from_offset, 0)) continue;
    if (__builtin_expect(offset >= reader->next_offset, 0)) {
      reader->is_done = true;
      reader->p = reader->end = reader->stop;
      return 0;
    }
    record->offset = offset;
    record->timestamp =
        __builtin_expect(reader->fixed_timestamp != INT64_MIN, 0)
            ? reader->fixed_timestamp
            : (int64_t)((uint64_t)reader->base_timestamp + (uint64_t)timestamp_delta);
    record->batch = reader->batch;
    record->body = body;
    record->body_size = after - body;
    return 1;
  }
}

int64_t pl_reader_records(pl_reader *reader, pl_record *records, int64_t count) {
  int64_t n = 0;
  while (n < count) {
    int got = next_record(reader, &records[n]);
    if (got < 0) return n ? n : -1;
    if (got == 0) break;
    n++;
  }
  return n;
}

/* Key and value of a record body, bounded; the headers are left alone. */
static inline bool key_and_value(const pl_record *record, pl_slice *key, pl_slice *value) {
  const uint8_t *p = record->body, *end = p + record->body_size;
  p = pl_get_varint(p, end, &key->size);
  if (!p || key->size < -1 || key->size > end - p) return false;
  key->data = p;
  p += key->size > 0 ? key->size : 0;
  p = pl_get_varint(p, end, &value->size);
  if (!p || value->size < -1 || value->size > end - p) return false;
  value->data = p;
  return true;
}

int64_t pl_reader_values(pl_reader *reader, pl_slice *values, int64_t count) {
  int64_t n = 0;
  pl_record record;
  pl_slice key;
  while (n < count) {
    int got = next_record(reader, &record);
    if (got < 0 || (got > 0 && !key_and_value(&record, &key, &values[n]))) return -1;
    if (got == 0) break;
    n++;
  }
  return n;
}

int64_t pl_reader_columns(pl_reader *reader, pl_column_arrays *c, int64_t count) {
  int64_t n = 0;
  pl_record record;
  pl_slice key, value;
  while (n < count) {
    int got = next_record(reader, &record);
    if (got < 0 || (got > 0 && !key_and_value(&record, &key, &value))) return -1;
    if (got == 0) break;
    if (c->offsets) c->offsets[n] = record.offset;
    if (c->timestamps) c->timestamps[n] = record.timestamp;
    if (c->value_positions) c->value_positions[n] = value.data - c->origin;
    if (c->value_sizes) c->value_sizes[n] = (int32_t)value.size;
    if (c->key_positions) c->key_positions[n] = key.data - c->origin;
    if (c->key_sizes) c->key_sizes[n] = (int32_t)key.size;
    pl_reader_ahead(reader, record.body, record.body_size);
    n++;
  }
  return n;
}
