/* Kafka's record batch, magic 2: the same bytes on disk and on the wire. docs/format.md draws it.
 *
 *   | header, 61 bytes | record | record | ... |      big-endian; CRC-32C over [21, end)
 *
 * A batch is *open* while its length field is 0: records are added behind it in place and only
 * the end offset in the control page says how many count. *Sealing* fills the header in; the
 * length is stored last, with release order, so whoever sees it sees the whole header. An open
 * header already bears base offset, epoch, attributes, base timestamp and the producer's fields.
 *
 * Source: Apache Kafka, DefaultRecordBatch.java and DefaultRecord.java (KIP-98).
 */
#ifndef PL_BATCH_H
#define PL_BATCH_H

#include "pl_bytes.h"
#include "pl_error.h"

/* Each offset is the previous field's offset plus its size. tests/test_format.py compares them
 * with docs/format.md. */
enum {
  PL_BATCH_BASE_OFFSET = 0,
  PL_BATCH_LENGTH = PL_BATCH_BASE_OFFSET + 8,
  PL_BATCH_LEADER_EPOCH = PL_BATCH_LENGTH + 4,
  PL_BATCH_MAGIC = PL_BATCH_LEADER_EPOCH + 4,
  PL_BATCH_CRC = PL_BATCH_MAGIC + 1,
  PL_BATCH_ATTRIBUTES = PL_BATCH_CRC + 4,
  PL_BATCH_LAST_OFFSET_DELTA = PL_BATCH_ATTRIBUTES + 2,
  PL_BATCH_BASE_TIMESTAMP = PL_BATCH_LAST_OFFSET_DELTA + 4,
  PL_BATCH_MAX_TIMESTAMP = PL_BATCH_BASE_TIMESTAMP + 8,
  PL_BATCH_PRODUCER_ID = PL_BATCH_MAX_TIMESTAMP + 8,
  PL_BATCH_PRODUCER_EPOCH = PL_BATCH_PRODUCER_ID + 8,
  PL_BATCH_BASE_SEQUENCE = PL_BATCH_PRODUCER_EPOCH + 2,
  PL_BATCH_RECORDS_COUNT = PL_BATCH_BASE_SEQUENCE + 4,
  PL_BATCH_HEADER_SIZE = PL_BATCH_RECORDS_COUNT + 4,
  PL_BATCH_LENGTH_OVERHEAD = PL_BATCH_LEADER_EPOCH, /* the length counts from here */
  PL_BATCH_CRC_START = PL_BATCH_ATTRIBUTES,
};

enum {
  PL_ATTRIBUTE_CODEC_MASK = 0x07,
  PL_ATTRIBUTE_APPEND_TIME = 0x08,
  PL_ATTRIBUTE_TRANSACTIONAL = 0x10,
  PL_ATTRIBUTE_CONTROL = 0x20,
  PL_ATTRIBUTE_DELETE_HORIZON = 0x40,
  PL_ATTRIBUTE_UNUSED = 0xff80,
};

enum {
  PL_CODEC_NONE = 0,
  PL_CODEC_GZIP = 1,
  PL_CODEC_SNAPPY = 2,
  PL_CODEC_LZ4 = 3,
  PL_CODEC_ZSTD = 4,
};

enum {
  PL_RECORD_SIZE_MIN = 7,       /* six one-byte fields and the length */
  PL_RECORD_OVERHEAD_MAX = 36,  /* all that a record adds to key, value and headers, at most */
  PL_OPEN_BATCH_BYTES = 16384,  /* an open batch is sealed at this size ... */
  PL_OPEN_BATCH_RECORDS = 500,  /* ... or at this many records */
};

/* Who a batch belongs to. Records of one open batch share it; anything else seals it first. */
typedef struct pl_identity {
  int64_t producer_id; /* -1: none */
  int32_t base_sequence;
  int16_t producer_epoch;
  uint16_t attributes;
} pl_identity;

#define PL_IDENTITY_NONE ((pl_identity){-1, -1, -1, 0})

/* A header's fields, decoded. */
typedef struct pl_header {
  int64_t base_offset, last_offset;
  int64_t base_timestamp, max_timestamp;
  int64_t producer_id;
  uint64_t size; /* of the whole batch, header included */
  int32_t leader_epoch, base_sequence, records_count;
  int16_t producer_epoch;
  uint16_t attributes;
} pl_header;

/* Records to append, as parallel columns of `count` entries; NULL columns take the default. */
typedef struct pl_columns {
  const pl_slice *values;
  const pl_slice *keys;        /* NULL: null keys */
  const pl_slice *headers;     /* encoded: count varint and all; NULL: none */
  const int64_t *timestamps;   /* NULL: `timestamp` for all */
  int64_t timestamp;
  int64_t count;
} pl_columns;

/* A decoded record; it points into the batch. `body` starts at the key length. */
typedef struct pl_record {
  int64_t offset, timestamp;
  const uint8_t *batch; /* header of the batch it stands in */
  const uint8_t *body;
  int64_t body_size;
} pl_record;

typedef struct pl_record_fields {
  pl_slice key, value;
  const uint8_t *headers; /* at the header count */
  int64_t headers_size;
} pl_record_fields;

/* Writes the header of an empty open batch. */
void pl_batch_open(uint8_t *batch, int64_t base_offset, int32_t leader_epoch,
                   int64_t base_timestamp, const pl_identity *identity);

/* Finishes an open batch of `size` bytes and `count` records in place. Cost: one CRC. */
void pl_batch_seal(uint8_t *batch, uint64_t size, int64_t count, int64_t max_timestamp);

/* Stamps the two fields outside the CRC, as a broker does with a producer's batch. */
static inline void pl_batch_stamp(uint8_t *batch, int64_t base_offset, int32_t leader_epoch) {
  pl_store_u64(batch + PL_BATCH_BASE_OFFSET, (uint64_t)base_offset);
  pl_store_u32(batch + PL_BATCH_LEADER_EPOCH, (uint32_t)leader_epoch);
}

/* Length as a reader of a live log must load it: acquire, 0 while the batch is open. */
static inline uint32_t pl_batch_load_length(const uint8_t *batch) {
  return __builtin_bswap32(
      __atomic_load_n((const uint32_t *)(const void *)(batch + PL_BATCH_LENGTH), __ATOMIC_ACQUIRE));
}

/* Batches lie at any position, so the length may straddle two cache lines (on arm64 two of 16
 * bytes), and who loads it while it is being stored may see half of it. */
static inline bool pl_batch_length_may_tear(const uint8_t *batch) {
  return ((uintptr_t)(batch + PL_BATCH_LENGTH) & 15) > 12;
}

/* Most bytes that a record with these contents can take. */
static inline uint64_t pl_record_size_bound(int64_t key, int64_t value, int64_t headers) {
  return PL_RECORD_OVERHEAD_MAX + (uint64_t)(key > 0 ? key : 0) +
         (uint64_t)(value > 0 ? value : 0) + (uint64_t)(headers > 0 ? headers : 0);
}

static inline uint8_t *pl_put_slice(uint8_t *p, pl_slice slice) {
  p = pl_put_varint(p, pl_zigzag(slice.size));
  if (slice.size > 0) {
    memcpy(p, slice.data, (size_t)slice.size);
    p += slice.size;
  }
  return p;
}

/* Bytes to leave for the length of a record whose contents have this many: right but for the few
 * sizes at a border, where the record is moved by a byte afterwards. Six more bytes is the least
 * that a record adds. */
static inline unsigned pl_length_guess(int64_t contents) {
  return contents < 58 ? 1 : contents < 8186 ? 2 : pl_varint_size(pl_zigzag(contents + 6));
}

/* Bytes of the batch that this record alone makes. */
static inline int64_t pl_alone_size(int64_t key, int64_t value, int64_t headers) {
  int64_t body = 3 + (int64_t)pl_varint_size(pl_zigzag(key)) + (key > 0 ? key : 0) +
                 (int64_t)pl_varint_size(pl_zigzag(value)) + (value > 0 ? value : 0) +
                 (headers > 0 ? headers : 1);
  return PL_BATCH_HEADER_SIZE + (int64_t)pl_varint_size(pl_zigzag(body)) + body;
}

/* Encodes one record at p, which has pl_record_size_bound() bytes. `headers.size` <= 0: none.
 * Returns the byte after it. The body is written first and its length measured: cheaper than to
 * size six varints before. */
static inline uint8_t *pl_record_put(uint8_t *p, int64_t timestamp_delta, int64_t offset_delta,
                                     pl_slice key, pl_slice value, pl_slice headers) {
  int64_t contents = (key.size > 0 ? key.size : 0) + (value.size > 0 ? value.size : 0) +
                     (headers.size > 0 ? headers.size - 1 : 0);
  unsigned guess = pl_length_guess(contents);
  uint8_t *body = p + guess, *q = body;
  *q++ = 0;
  q = pl_put_varint(q, pl_zigzag(timestamp_delta));
  q = pl_put_varint(q, pl_zigzag(offset_delta));
  q = pl_put_slice(q, key);
  q = pl_put_slice(q, value);
  if (__builtin_expect(headers.size > 0, 0)) {
    memcpy(q, headers.data, (size_t)headers.size);
    q += headers.size;
  } else {
    *q++ = 0;
  }
  uint64_t size = pl_zigzag(q - body);
  if (__builtin_expect(guess == 2 && size >= 0x80 && size < 0x4000, 1)) {
    p[0] = (uint8_t)(size | 0x80);
    p[1] = (uint8_t)(size >> 7);
    return q;
  }
  unsigned needed = pl_varint_size(size);
  if (needed != guess) memmove(p + needed, body, (size_t)(q - body));
  pl_put_varint(p, size);
  return p + needed + (q - body);
}

/* Encodes all of `columns` as one sealed, uncompressed batch with base offset 0.
 * `batch` has pl_batch_size_bound(). Returns its size. */
uint64_t pl_batch_size_bound(const pl_columns *columns);
uint64_t pl_batch_encode(uint8_t *batch, const pl_columns *columns, const pl_identity *identity);

/* Decodes a header of at least 61 readable bytes. Fails (false, *why a sentence) when a field is
 * illegal; does not look at the CRC. `available` bounds the batch's size. */
bool pl_header_decode(const uint8_t *batch, uint64_t available, pl_header *header,
                      const char **why);

/* CRC-32C of a batch whose header decoded. */
bool pl_batch_crc_matches(const uint8_t *batch, uint64_t size);

/* Reads the record at p. NULL when it does not fit [p, end) or does not parse. */
static inline const uint8_t *pl_record_get(const uint8_t *p, const uint8_t *end,
                                           int64_t *timestamp_delta, int64_t *offset_delta,
                                           const uint8_t **body) {
  int64_t size;
  p = pl_get_varint(p, end, &size);
  if (!p || size < PL_RECORD_SIZE_MIN - 1 || size > end - p) return NULL;
  end = p + size;
  p = pl_get_varlong(p + 1, end, timestamp_delta);
  if (!p) return NULL;
  p = pl_get_varint(p, end, offset_delta);
  if (!p) return NULL;
  *body = p;
  return end;
}

/* Key, value and headers of a record; false when they do not parse. */
bool pl_record_split(const uint8_t *body, int64_t body_size, pl_record_fields *fields);

/* Walks the encoded headers: call with *p at the byte after the count. False on bad bytes. */
bool pl_record_header_next(const uint8_t **p, const uint8_t *end, pl_slice *key, pl_slice *value);

/* Proves every record of a batch's payload: lengths exact, offsets rising within the batch,
 * count right, no byte over. Returns NULL or the sentence that says what is wrong. */
const char *pl_records_verify(const uint8_t *payload, uint64_t size, const pl_header *header,
                              int64_t *max_timestamp);

#endif
