/* Bytes: big-endian loads and stores, zigzag varints, and a bounded reader.
 *
 * The only header that casts pointers to wider types. Varints are protobuf's zigzag encoding as
 * Kafka's record format uses it (KIP-98, ByteUtils.java): at most 5 bytes for 32 bits, 10 for 64.
 */
#ifndef PL_BYTES_H
#define PL_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct pl_slice {
  const uint8_t *data;
  int64_t size; /* -1: null */
} pl_slice;

static inline uint64_t pl_load_u64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return __builtin_bswap64(v);
}
static inline uint32_t pl_load_u32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return __builtin_bswap32(v);
}
static inline uint16_t pl_load_u16(const uint8_t *p) {
  return (uint16_t)((p[0] << 8) | p[1]);
}
static inline int64_t pl_load_i64(const uint8_t *p) { return (int64_t)pl_load_u64(p); }
static inline int32_t pl_load_i32(const uint8_t *p) { return (int32_t)pl_load_u32(p); }
static inline int16_t pl_load_i16(const uint8_t *p) { return (int16_t)pl_load_u16(p); }

static inline void pl_store_u64(uint8_t *p, uint64_t v) {
  v = __builtin_bswap64(v);
  memcpy(p, &v, 8);
}
static inline void pl_store_u32(uint8_t *p, uint32_t v) {
  v = __builtin_bswap32(v);
  memcpy(p, &v, 4);
}
static inline void pl_store_u16(uint8_t *p, uint16_t v) {
  p[0] = (uint8_t)(v >> 8);
  p[1] = (uint8_t)v;
}

static inline uint64_t pl_zigzag(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }
static inline int64_t pl_unzigzag(uint64_t v) { return (int64_t)(v >> 1) ^ -(int64_t)(v & 1); }

/* Bytes that a zigzagged value takes: one for each started group of seven bits. */
static inline unsigned pl_varint_size(uint64_t zigzag) {
  return (unsigned)(70 - __builtin_clzll(zigzag | 1)) / 7;
}

static inline uint8_t *pl_put_varint(uint8_t *p, uint64_t zigzag) {
  if (__builtin_expect(zigzag < 0x80, 1)) {
    *p = (uint8_t)zigzag;
    return p + 1;
  }
  while (zigzag >= 0x80) {
    *p++ = (uint8_t)(zigzag | 0x80);
    zigzag >>= 7;
  }
  *p++ = (uint8_t)zigzag;
  return p;
}

/* Reads one varint of at most `size_max` bytes from [p, end). NULL when it is cut off or too
 * long, else the byte after it. */
static inline const uint8_t *pl_get_varint_slow(const uint8_t *p, const uint8_t *end,
                                                unsigned size_max, int64_t *value) {
  uint64_t v = 0;
  for (unsigned i = 0; i < size_max; i++) {
    if (p >= end) return NULL;
    uint8_t byte = *p++;
    v |= (uint64_t)(byte & 0x7f) << (7 * i);
    if (!(byte & 0x80)) {
      if (i == 9 && byte > 1) return NULL;
      if (size_max == 5 && v > UINT32_MAX) return NULL;
      *value = pl_unzigzag(v);
      return p;
    }
  }
  return NULL;
}

/* One and two byte forms cover lengths under 8 KiB and are decoded in line. */
static inline const uint8_t *pl_get_varint(const uint8_t *p, const uint8_t *end, int64_t *value) {
  if (__builtin_expect(end - p >= 2, 1)) {
    if (!(p[0] & 0x80)) {
      *value = pl_unzigzag(p[0]);
      return p + 1;
    }
    if (!(p[1] & 0x80)) {
      *value = pl_unzigzag((uint64_t)(p[0] & 0x7f) | ((uint64_t)p[1] << 7));
      return p + 2;
    }
  }
  return pl_get_varint_slow(p, end, 5, value);
}

static inline const uint8_t *pl_get_varlong(const uint8_t *p, const uint8_t *end, int64_t *value) {
  if (__builtin_expect(p < end && !(p[0] & 0x80), 1)) {
    *value = pl_unzigzag(p[0]);
    return p + 1;
  }
  return pl_get_varint_slow(p, end, 10, value);
}

#endif
