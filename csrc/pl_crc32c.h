/*
 * CRC-32C (Castagnoli), the checksum of Kafka's record batches.
 *
 * Every value here is the finished CRC (initial value and final xor already applied), so the CRC of
 * nothing is 0 and pl_crc32c_extend(0, data, size) is the same as pl_crc32c(data, size).
 *
 * No function fails, allocates, locks or reads a byte outside [data, data + size); any alignment
 * will do, and data may be NULL where size is 0.  The kernel is chosen once, by what the CPU can
 * do, before main() or before dlopen() returns: there is nothing to initialise, and all functions
 * may be called from any thread.
 */
#ifndef PL_CRC32C_H
#define PL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of one whole piece: "123456789" gives 0xe3069283. */
uint32_t pl_crc32c(const void *data, size_t size);

/* Continues a CRC: extend(crc(a), b) is crc(a followed by b). */
uint32_t pl_crc32c_extend(uint32_t crc, const void *data, size_t size);

/* The same as pl_crc32c_extend, in portable C; for CPUs without CRC instructions, and for tests. */
uint32_t pl_crc32c_table(uint32_t crc, const void *data, size_t size);

/* The kernel in use: "avx512+vpclmulqdq", "sse4.2+pclmul", "sse4.2", "armv8" or "table". */
const char *pl_crc32c_kernel(void);

/* A kernel by its name, called as pl_crc32c_extend is; NULL where this CPU cannot run it.
   For tests and benchmarks, which must reach also the kernels that were not chosen. */
typedef uint32_t pl_crc32c_function(uint32_t crc, const void *data, size_t size);
pl_crc32c_function *pl_crc32c_find(const char *kernel);

#endif
