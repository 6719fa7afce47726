/* Hashes of keys: where Kafka's clients would put a record.
 *
 * Both look at each byte once, read none outside [data, data + size), take any alignment, and data
 * may be NULL where size is 0. Nothing is initialised, nothing fails.
 */
#ifndef PL_HASH_H
#define PL_HASH_H

#include <stddef.h>
#include <stdint.h>

/* MurmurHash2, 32 bits, seed 0x9747b28c, as Utils.murmur2 of Kafka's Java client: "kafka" gives
 * 0xd067cf64. Java prints it signed. */
uint32_t pl_murmur2(const uint8_t *data, size_t size);

/* zlib's CRC-32, by which librdkafka's `consistent` goes: "123456789" gives 0xcbf43926. */
uint32_t pl_crc32(const uint8_t *data, size_t size);

typedef enum pl_key_hash { PL_KEY_MURMUR2, PL_KEY_CRC32 } pl_key_hash;

/* The partition of a key, of `count` >= 1: Java's toPositive(murmur2) % count, librdkafka's
 * crc32 % count. */
static inline int32_t pl_key_partition(const uint8_t *data, size_t size, pl_key_hash hash,
                                       int32_t count) {
  uint32_t number = hash == PL_KEY_CRC32 ? pl_crc32(data, size)
                                         : pl_murmur2(data, size) & 0x7fffffff;
  return (int32_t)(number % (uint32_t)count);
}

#endif
