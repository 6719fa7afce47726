/* Stamps: written and read. */
#include "pl_stamp.h"

#include "pl_crc32c.h"

enum { COVERED = PL_STAMP_RUN };

/* splitmix64 (Steele, Lea, Flood, 2014): no two records have the same filler. */
static inline uint64_t filler_next(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static void fill(uint8_t *p, int64_t size, const pl_stamp *stamp) {
  uint64_t state = ((uint64_t)stamp->producer << 40) ^ stamp->sequence;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word = filler_next(&state);
    memcpy(p, &word, 8);
  }
  if (size > 0) {
    uint64_t word = filler_next(&state);
    memcpy(p, &word, (size_t)size);
  }
}

/* The CRC of a stamp and of what it vouches for. */
static uint32_t crc_of(const uint8_t *stamp, const uint8_t *rest, int64_t rest_size) {
  if (rest == stamp + PL_STAMP_SIZE)
    return pl_crc32c(stamp + COVERED, (size_t)(PL_STAMP_SIZE - COVERED + rest_size));
  uint32_t crc = pl_crc32c(stamp + COVERED, PL_STAMP_SIZE - COVERED);
  return rest_size > 0 ? pl_crc32c_extend(crc, rest, (size_t)rest_size) : crc;
}

void pl_stamp_write(const pl_stamp *stamp, uint8_t *key, uint8_t *value, int64_t size) {
  bool is_in_value = size >= PL_STAMP_SIZE;
  uint8_t *p = is_in_value ? value : key;
  uint8_t *rest = is_in_value ? value + PL_STAMP_SIZE : value;
  int64_t rest_size = is_in_value ? size - PL_STAMP_SIZE : size;
  fill(rest, rest_size, stamp);
  pl_store_u32(p + PL_STAMP_MAGIC_AT, PL_STAMP_MAGIC);
  pl_store_u64(p + PL_STAMP_RUN, stamp->run);
  pl_store_u32(p + PL_STAMP_PRODUCER, stamp->producer);
  pl_store_u16(p + PL_STAMP_INCARNATION, stamp->incarnation);
  pl_store_u16(p + PL_STAMP_FLAGS, stamp->flags);
  pl_store_u64(p + PL_STAMP_SEQUENCE, stamp->sequence);
  pl_store_u32(p + PL_STAMP_TRANSACTION, stamp->transaction);
  pl_store_u16(p + PL_STAMP_INDEX, stamp->index);
  pl_store_u16(p + PL_STAMP_COUNT, stamp->count);
  pl_store_u64(p + PL_STAMP_SENT, stamp->sent_ns);
  pl_store_u32(p + PL_STAMP_CRC, crc_of(p, rest, rest_size));
}

pl_stamp_found pl_stamp_read(pl_slice key, pl_slice value, pl_stamp *stamp, uint32_t *crc) {
  bool is_in_value = value.size >= PL_STAMP_SIZE;
  if (!is_in_value && key.size != PL_STAMP_SIZE) return PL_STAMP_ABSENT;
  const uint8_t *p = is_in_value ? value.data : key.data;
  const uint8_t *rest = is_in_value ? value.data + PL_STAMP_SIZE : value.data;
  int64_t rest_size = is_in_value ? value.size - PL_STAMP_SIZE : value.size;
  if (pl_load_u32(p + PL_STAMP_MAGIC_AT) != PL_STAMP_MAGIC) return PL_STAMP_ABSENT;
  *crc = pl_load_u32(p + PL_STAMP_CRC);
  if (*crc != crc_of(p, rest, rest_size)) return PL_STAMP_BAD;
  stamp->run = pl_load_u64(p + PL_STAMP_RUN);
  stamp->producer = pl_load_u32(p + PL_STAMP_PRODUCER);
  stamp->incarnation = pl_load_u16(p + PL_STAMP_INCARNATION);
  stamp->flags = pl_load_u16(p + PL_STAMP_FLAGS);
  stamp->sequence = pl_load_u64(p + PL_STAMP_SEQUENCE);
  stamp->transaction = pl_load_u32(p + PL_STAMP_TRANSACTION);
  stamp->index = pl_load_u16(p + PL_STAMP_INDEX);
  stamp->count = pl_load_u16(p + PL_STAMP_COUNT);
  stamp->sent_ns = pl_load_u64(p + PL_STAMP_SENT);
  return PL_STAMP_GOOD;
}
