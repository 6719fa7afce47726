/* Encoding, sealing and proving batches. */
#include "pl_batch.h"

#include <assert.h>

#include "pl_crc32c.h"
#include "pl_fault.h"

_Static_assert(PL_BATCH_HEADER_SIZE == 61, "Kafka's header is 61 bytes");
_Static_assert(PL_BATCH_CRC_START == 21, "Kafka's CRC starts at the attributes");

enum { MAGIC = 2, MIN_LENGTH = PL_BATCH_HEADER_SIZE - PL_BATCH_LENGTH_OVERHEAD };

void pl_batch_open(uint8_t *batch, int64_t base_offset, int32_t leader_epoch,
                   int64_t base_timestamp, const pl_identity *identity) {
  pl_store_u64(batch + PL_BATCH_BASE_OFFSET, (uint64_t)base_offset);
  pl_store_u32(batch + PL_BATCH_LENGTH, 0);
  pl_store_u32(batch + PL_BATCH_LEADER_EPOCH, (uint32_t)leader_epoch);
  batch[PL_BATCH_MAGIC] = MAGIC;
  pl_store_u32(batch + PL_BATCH_CRC, 0);
  pl_store_u16(batch + PL_BATCH_ATTRIBUTES, identity->attributes);
  pl_store_u32(batch + PL_BATCH_LAST_OFFSET_DELTA, 0);
  pl_store_u64(batch + PL_BATCH_BASE_TIMESTAMP, (uint64_t)base_timestamp);
  pl_store_u64(batch + PL_BATCH_MAX_TIMESTAMP, (uint64_t)base_timestamp);
  pl_store_u64(batch + PL_BATCH_PRODUCER_ID, (uint64_t)identity->producer_id);
  pl_store_u16(batch + PL_BATCH_PRODUCER_EPOCH, (uint16_t)identity->producer_epoch);
  pl_store_u32(batch + PL_BATCH_BASE_SEQUENCE, (uint32_t)identity->base_sequence);
  pl_store_u32(batch + PL_BATCH_RECORDS_COUNT, 0);
}

void pl_batch_seal(uint8_t *batch, uint64_t size, int64_t count, int64_t max_timestamp) {
  assert(count > 0 && count <= INT32_MAX);
  assert(size >= PL_BATCH_HEADER_SIZE + PL_RECORD_SIZE_MIN && size <= INT32_MAX);
  pl_store_u32(batch + PL_BATCH_LAST_OFFSET_DELTA, (uint32_t)(count - 1));
  pl_store_u64(batch + PL_BATCH_MAX_TIMESTAMP, (uint64_t)max_timestamp);
  pl_store_u32(batch + PL_BATCH_RECORDS_COUNT, (uint32_t)count);
  PL_POINT("seal-filled");
  uint32_t crc = pl_crc32c(batch + PL_BATCH_CRC_START, size - PL_BATCH_CRC_START);
  pl_store_u32(batch + PL_BATCH_CRC, crc);
  PL_POINT("seal-summed");
  uint32_t length = __builtin_bswap32((uint32_t)(size - PL_BATCH_LENGTH_OVERHEAD));
  __atomic_store_n((uint32_t *)(void *)(batch + PL_BATCH_LENGTH), length, __ATOMIC_RELEASE);
}

static inline pl_slice column(const pl_slice *slices, int64_t i, int64_t absent) {
  return slices ? slices[i] : (pl_slice){NULL, absent};
}

uint64_t pl_batch_size_bound(const pl_columns *columns) {
  uint64_t size = PL_BATCH_HEADER_SIZE;
  for (int64_t i = 0; i < columns->count; i++)
    size += pl_record_size_bound(column(columns->keys, i, -1).size, columns->values[i].size,
                                 column(columns->headers, i, 0).size);
  return size;
}

uint64_t pl_batch_encode(uint8_t *batch, const pl_columns *columns, const pl_identity *identity) {
  int64_t base = columns->timestamps ? columns->timestamps[0] : columns->timestamp;
  int64_t max_timestamp = base;
  pl_batch_open(batch, 0, 0, base, identity);
  uint8_t *p = batch + PL_BATCH_HEADER_SIZE;
  for (int64_t i = 0; i < columns->count; i++) {
    int64_t timestamp = columns->timestamps ? columns->timestamps[i] : base;
    if (timestamp > max_timestamp) max_timestamp = timestamp;
    p = pl_record_put(p, timestamp - base, i, column(columns->keys, i, -1), columns->values[i],
                      column(columns->headers, i, 0));
  }
  uint64_t size = (uint64_t)(p - batch);
  pl_batch_seal(batch, size, columns->count, max_timestamp);
  return size;
}

bool pl_header_decode(const uint8_t *batch, uint64_t available, pl_header *header,
                      const char **why) {
  int64_t length = (int32_t)pl_batch_load_length(batch);
  int64_t delta = pl_load_i32(batch + PL_BATCH_LAST_OFFSET_DELTA);
  header->base_offset = pl_load_i64(batch + PL_BATCH_BASE_OFFSET);
  header->size = (uint64_t)(length + PL_BATCH_LENGTH_OVERHEAD);
  header->last_offset = (int64_t)((uint64_t)header->base_offset + (uint64_t)delta);
  header->leader_epoch = pl_load_i32(batch + PL_BATCH_LEADER_EPOCH);
  header->attributes = pl_load_u16(batch + PL_BATCH_ATTRIBUTES);
  header->base_timestamp = pl_load_i64(batch + PL_BATCH_BASE_TIMESTAMP);
  header->max_timestamp = pl_load_i64(batch + PL_BATCH_MAX_TIMESTAMP);
  header->producer_id = pl_load_i64(batch + PL_BATCH_PRODUCER_ID);
  header->producer_epoch = pl_load_i16(batch + PL_BATCH_PRODUCER_EPOCH);
  header->base_sequence = pl_load_i32(batch + PL_BATCH_BASE_SEQUENCE);
  header->records_count = pl_load_i32(batch + PL_BATCH_RECORDS_COUNT);
  *why = batch[PL_BATCH_MAGIC] != MAGIC                       ? "the magic byte is not 2"
         : length < MIN_LENGTH                                ? "the length is too small"
         : header->size > available                           ? "the length runs past the end"
         : header->base_offset < 0                            ? "the base offset is negative"
         : delta < 0 || header->last_offset < header->base_offset ||
                 header->last_offset == INT64_MAX            ? "the last offset is illegal"
         : header->records_count < 0                          ? "the record count is negative"
         : header->records_count > delta + 1                  ? "more records than offsets"
         : header->attributes & PL_ATTRIBUTE_UNUSED           ? "an unused attribute bit is set"
         : (header->attributes & PL_ATTRIBUTE_CODEC_MASK) > PL_CODEC_ZSTD ? "the codec is unknown"
                                                              : NULL;
  return *why == NULL;
}

bool pl_batch_crc_matches(const uint8_t *batch, uint64_t size) {
  return pl_crc32c(batch + PL_BATCH_CRC_START, size - PL_BATCH_CRC_START) ==
         pl_load_u32(batch + PL_BATCH_CRC);
}

/* A length and as many bytes; -1 stands for null where that is legal. */
static const uint8_t *get_slice(const uint8_t *p, const uint8_t *end, pl_slice *slice,
                                bool may_be_null) {
  p = pl_get_varint(p, end, &slice->size);
  if (!p || slice->size < (may_be_null ? -1 : 0) || slice->size > end - p) return NULL;
  slice->data = slice->size < 0 ? NULL : p;
  return p + (slice->size > 0 ? slice->size : 0);
}

bool pl_record_split(const uint8_t *body, int64_t body_size, pl_record_fields *fields) {
  const uint8_t *end = body + body_size;
  const uint8_t *p = get_slice(body, end, &fields->key, true);
  if (p) p = get_slice(p, end, &fields->value, true);
  if (!p || p >= end) return false;
  fields->headers = p;
  fields->headers_size = end - p;
  return true;
}

bool pl_record_header_next(const uint8_t **p, const uint8_t *end, pl_slice *key, pl_slice *value) {
  const uint8_t *next = get_slice(*p, end, key, false);
  if (next) next = get_slice(next, end, value, true);
  if (!next) return false;
  *p = next;
  return true;
}

static bool headers_are_exact(const pl_record_fields *fields) {
  const uint8_t *end = fields->headers + fields->headers_size;
  int64_t count;
  const uint8_t *p = pl_get_varint(fields->headers, end, &count);
  if (!p || count < 0) return false;
  for (int64_t i = 0; i < count; i++) {
    pl_slice key, value;
    if (!pl_record_header_next(&p, end, &key, &value)) return false;
  }
  return p == end;
}

const char *pl_records_verify(const uint8_t *payload, uint64_t size, const pl_header *header,
                              int64_t *max_timestamp) {
  const uint8_t *p = payload, *end = payload + size;
  int64_t previous = -1, last = header->last_offset - header->base_offset;
  *max_timestamp = -1;
  for (int32_t i = 0; i < header->records_count; i++) {
    int64_t timestamp_delta, offset_delta;
    const uint8_t *body;
    pl_record_fields fields;
    p = pl_record_get(p, end, &timestamp_delta, &offset_delta, &body);
    if (!p) return "a record's length or number is broken";
    if (offset_delta <= previous || offset_delta > last) return "a record's offset is out of order";
    if (!pl_record_split(body, p - body, &fields)) return "a record's key or value is broken";
    if (!headers_are_exact(&fields)) return "a record's headers are broken";
    int64_t timestamp = (int64_t)((uint64_t)header->base_timestamp + (uint64_t)timestamp_delta);
    if (timestamp > *max_timestamp) *max_timestamp = timestamp;
    previous = offset_delta;
  }
  return p == end ? NULL : "there are bytes after the last record";
}
