/* What the fuzzers share: dice, seeds, and ways to spoil them. Each includes it once, after naming
 * itself as FUZZER.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pl_batch.h"
#include "pl_clock.h"
#include "pl_crc32c.h"
#include "pl_file.h"

void __sanitizer_set_death_callback(void (*callback)(void));

enum { SEEDS_MAX = 64, INPUT_MAX = 1 << 16 };

#define CHECK(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      tell_replay(); \
      abort(); \
    } \
  } while (0)

typedef struct bytes {
  uint8_t *data;
  uint64_t size;
} bytes;

static bytes seeds[SEEDS_MAX];
static int seed_count;
static uint64_t random_state, execution_seed;
static uint64_t executions;

static void tell_replay(void) {
  fprintf(stderr, "replay: " FUZZER " 0 %" PRIu64 "\n", execution_seed);
}

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t draw(void) {
  uint64_t x = random_state += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
static uint64_t below(uint64_t bound) { return bound ? draw() % bound : 0; }
static bool one_in(uint64_t n) { return below(n) == 0; }

/* ---- seeds ------------------------------------------------------------------------------ */

static void add_seed(const uint8_t *data, uint64_t size) {
  if (seed_count == SEEDS_MAX) return;
  seeds[seed_count].data = malloc(size);
  seeds[seed_count].size = size;
  memcpy(seeds[seed_count++].data, data, size);
}

static void add_golden(const char *path) {
  uint8_t data[4096];
  uint64_t size = 0;
  unsigned value;
  FILE *file = fopen(path, "r");
  if (!file) return;
  while (size < sizeof data && fscanf(file, "%2x", &value) == 1) data[size++] = (uint8_t)value;
  fclose(file);
  if (size) add_seed(data, size);
}

static void add_golden_folder(const char *folder) {
  char path[4096];
  struct dirent **entries;
  int n = scandir(folder, &entries, NULL, alphasort); /* sorted: a seed means the same anywhere */
  for (int i = 0; i < n; i++) {
    if (strstr(entries[i]->d_name, ".hex")) {
      snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
      add_golden(path);
    }
    free(entries[i]);
  }
  if (n >= 0) free(entries);
}

/* Batches of 1 to 40 records with keys, nulls and headers. */
static void add_own(void) {
  static const uint8_t text[] = "0123456789abcdefghijklmnopqrstuvwxyz";
  static const uint8_t headers[] = {4, 2, 'h', 2, 'x', 2, 'n', 1};
  pl_slice values[40], keys[40], heads[40];
  int64_t times[40];
  for (int64_t count = 1; count <= 40; count = count * 3 + 1) {
    for (int64_t i = 0; i < count; i++) {
      values[i] = i % 5 == 4 ? (pl_slice){NULL, -1} : (pl_slice){text, i % 36};
      keys[i] = i % 3 == 2 ? (pl_slice){NULL, -1} : (pl_slice){text, i % 4};
      heads[i] = i % 4 == 3 ? (pl_slice){headers, sizeof headers} : (pl_slice){NULL, 0};
      times[i] = 1700000000000 + i * i * (i % 2 ? -100 : 100);
    }
    pl_columns columns = {values, keys, heads, times, 0, count};
    pl_identity identity = PL_IDENTITY_NONE;
    uint8_t *batch = malloc(pl_batch_size_bound(&columns));
    add_seed(batch, pl_batch_encode(batch, &columns, &identity));
    free(batch);
  }
}

/* ---- mutation --------------------------------------------------------------------------- */

static void put_number(uint8_t *at, uint64_t room) {
  static const int64_t numbers[] = {0,         1,          -1,        -2,        48,
                                    49,        INT32_MAX,  INT32_MIN, INT64_MAX, INT64_MIN,
                                    0x7fffff3, 2147483583, 61,        500,       65535};
  int64_t number = numbers[below(sizeof numbers / sizeof *numbers)];
  uint8_t encoded[16] = {0};
  uint64_t size;
  switch (below(4)) {
    case 0: size = (uint64_t)(pl_put_varint(encoded, pl_zigzag(number)) - encoded); break;
    case 1: pl_store_u32(encoded, (uint32_t)number); size = 4; break;
    case 2: pl_store_u64(encoded, (uint64_t)number); size = 8; break;
    default: /* a varint that does not end in time */
      size = 1 + below(12);
      memset(encoded, 0x80 | (int)below(128), size);
  }
  memcpy(at, encoded, size < room ? size : room);
}

static uint64_t mutate_once(uint8_t *data, uint64_t size) {
  if (size == 0) return 0;
  uint64_t at = below(size), n = 1 + below(12);
  if (n > size - at) n = size - at;
  switch (below(7)) {
    case 0:
    case 1: data[at] ^= (uint8_t)(1 << below(8)); break;
    case 2: data[at] = (uint8_t)draw(); break;
    case 3: put_number(data + at, size - at); break;
    case 4: /* remove */
      memmove(data + at, data + at + n, size - at - n);
      return size - n;
    case 5: /* double */
      if (size + n > INPUT_MAX) break;
      memmove(data + at + n, data + at, size - at);
      return size + n;
    default: return one_in(4) ? at : size;
  }
  return size;
}

/* Makes the batch at the front whole again as far as length and CRC go. */
static void put_right(uint8_t *data, uint64_t size) {
  if (size < PL_BATCH_HEADER_SIZE) return;
  if (one_in(2)) pl_store_u32(data + PL_BATCH_LENGTH, (uint32_t)(size - PL_BATCH_LENGTH_OVERHEAD));
  uint64_t length = pl_load_u32(data + PL_BATCH_LENGTH);
  if (length < PL_BATCH_HEADER_SIZE - PL_BATCH_LENGTH_OVERHEAD ||
      length > size - PL_BATCH_LENGTH_OVERHEAD)
    return;
  uint64_t end = length + PL_BATCH_LENGTH_OVERHEAD;
  pl_store_u32(data + PL_BATCH_CRC,
               pl_crc32c(data + PL_BATCH_CRC_START, end - PL_BATCH_CRC_START));
}

/* A mutated batch at `out`, which has INPUT_MAX bytes. */
static uint64_t make_batch(uint8_t *out) {
  const bytes *seed = &seeds[below((uint64_t)seed_count)];
  uint64_t size = seed->size;
  memcpy(out, seed->data, size);
  for (uint64_t n = below(5); n > 0; n--) size = mutate_once(out, size);
  if (one_in(2)) put_right(out, size);
  return size;
}

static uint8_t *exactly(const uint8_t *data, uint64_t size) {
  uint8_t *copy = malloc(size ? size : 1);
  memcpy(copy, data, size);
  return copy;
}

/* ---- the loop --------------------------------------------------------------------------- */

/* [seconds [seed [folder of golden files]]]; returns how long it took. Execution n uses the seed
 * `seed + n` and nothing else: what a failure prints replays it. */
static double fuzz(int argument_count, char **arguments, void (*execute)(void)) {
  double seconds = argument_count > 1 ? atof(arguments[1]) : 30;
  uint64_t seed = argument_count > 2 ? strtoull(arguments[2], NULL, 0) : pl_random_u64() >> 16;
  add_golden_folder(argument_count > 3 ? arguments[3] : "golden");
  CHECK(seed_count > 0); /* golden files are there */
  add_own();
  __sanitizer_set_death_callback(tell_replay);
  printf("%s: seed %" PRIu64 ", %d seeds, %s\n", FUZZER, seed, seed_count, pl_crc32c_kernel());
  fflush(stdout);
  uint64_t start = pl_monotonic_ns(), limit = (uint64_t)(seconds * 1e9);
  do {
    execution_seed = random_state = seed + executions;
    execute();
    executions++;
  } while ((executions & 63) || pl_monotonic_ns() - start < limit);
  for (int i = 0; i < seed_count; i++) free(seeds[i].data);
  return (double)(pl_monotonic_ns() - start) / 1e9;
}

#endif
