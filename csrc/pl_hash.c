/* Hashes of keys: murmur2 and zlib's CRC-32. */
#include "pl_hash.h"

#include <string.h>

static inline uint32_t load_word(const uint8_t *data) {
  uint32_t word;
  memcpy(&word, data, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = __builtin_bswap32(word);
#endif
  return word;
}

/* Austin Appleby's MurmurHash2 (public domain), in the words of Kafka's Utils.java: the bytes of
 * the tail are unsigned, which kafkajs 1 got wrong. */
uint32_t pl_murmur2(const uint8_t *data, size_t size) {
  const uint32_t multiplier = 0x5bd1e995;
  uint32_t hash = 0x9747b28c ^ (uint32_t)size;
  const uint8_t *end = data + (size & ~(size_t)3);
  for (; data != end; data += 4) {
    uint32_t word = load_word(data) * multiplier;
    word ^= word >> 24;
    hash = hash * multiplier ^ word * multiplier;
  }
  switch (size & 3) {
  case 3:
    hash ^= (uint32_t)data[2] << 16; /* fall through */
  case 2:
    hash ^= (uint32_t)data[1] << 8; /* fall through */
  case 1:
    hash ^= data[0];
    hash *= multiplier;
  }
  hash ^= hash >> 13;
  hash *= multiplier;
  return hash ^ hash >> 15;
}

/* CRC-32 (IEEE 802.3, reflected, polynomial 0xedb88320), eight bytes a step by slicing (Kounavis
 * and Berry, 2005): slice[k][b] is what byte b leaves behind after k more bytes of zeros. The
 * instructions for it want 64 bytes before they pay, and keys are shorter. */
static uint32_t slice[8][256];

__attribute__((constructor(101))) static void compute_slices(void) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t state = byte;
    for (int bit = 0; bit < 8; bit++)
      state = state >> 1 ^ (state & 1 ? 0xedb88320 : 0);
    slice[0][byte] = state;
  }
  for (int zeros = 1; zeros < 8; zeros++)
    for (int byte = 0; byte < 256; byte++) {
      uint32_t before = slice[zeros - 1][byte];
      slice[zeros][byte] = before >> 8 ^ slice[0][before & 0xff];
    }
}

uint32_t pl_crc32(const uint8_t *data, size_t size) {
  uint32_t state = ~0U;
  for (; size >= 8; data += 8, size -= 8) {
    uint32_t low = load_word(data) ^ state, high = load_word(data + 4);
    state = slice[7][low & 0xff] ^ slice[6][low >> 8 & 0xff] ^ slice[5][low >> 16 & 0xff] ^
            slice[4][low >> 24] ^ slice[3][high & 0xff] ^ slice[2][high >> 8 & 0xff] ^
            slice[1][high >> 16 & 0xff] ^ slice[0][high >> 24];
  }
  for (; size; data++, size--)
    state = state >> 8 ^ slice[0][(state ^ *data) & 0xff];
  return ~state;
}
