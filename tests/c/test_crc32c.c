/*
 * Tests of pl_crc32c; with the argument `bench`, its speed instead.
 *
 *     gcc -std=gnu11 -O3 -Icsrc tests/c/test_crc32c.c csrc/pl_crc32c.c -o /tmp/test_crc32c
 *
 * Every kernel that this CPU can run is held against published vectors, a bit-by-bit reference and
 * the others.  Each piece under test ends at the end of an inaccessible page, or begins at the
 * beginning of one, so that a read outside it is a crash even without a sanitizer.
 */
#include "pl_crc32c.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

static const char *const kernel_names[] = {
    "table", "sse4.2", "sse4.2+pclmul", "avx512+vpclmulqdq", "armv8",
};
enum { KERNELS = sizeof kernel_names / sizeof kernel_names[0] };

static int failures;

static void
check(bool holds, const char *what, const char *kernel, size_t size, size_t offset)
{
    if (holds)
        return;
    failures++;
    if (failures <= 20)
        fprintf(stderr, "FAILED: %s, kernel %s, size %zu, offset %zu\n", what, kernel, size,
                offset);
}

/* xorshift64: the same bytes on every run. */
static uint64_t
random_word(void)
{
    static uint64_t word = 0x9e3779b97f4a7c15u;
    word ^= word << 13;
    word ^= word >> 7;
    word ^= word << 17;
    return word;
}

static void
fill_random(unsigned char *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (unsigned char)(random_word() >> 32);
}

static uint32_t
bit_by_bit(uint32_t crc, const unsigned char *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
    }
    return ~crc;
}

/* `size` bytes (a multiple of the page size) between two inaccessible pages. */
static unsigned char *
guarded_bytes(size_t size)
{
    enum { GUARD = 65536 };
    unsigned char *area = mmap(NULL, size + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                               0);
    if (area == MAP_FAILED || mprotect(area + GUARD, size, PROT_READ | PROT_WRITE) != 0) {
        perror("mmap");
        exit(2);
    }
    return area + GUARD;
}

/* The first four are from RFC 3720, appendix B.4. */
static void
test_vectors(const char *name, pl_crc32c_function *extend)
{
    unsigned char data[48];
    memset(data, 0x00, 32);
    check(extend(0, data, 32) == 0x8a9136aa, "32 zeros", name, 32, 0);
    memset(data, 0xff, 32);
    check(extend(0, data, 32) == 0x62a8ab43, "32 ones", name, 32, 0);
    for (int i = 0; i < 32; i++)
        data[i] = (unsigned char)i;
    check(extend(0, data, 32) == 0x46dd794e, "32 rising", name, 32, 0);
    for (int i = 0; i < 32; i++)
        data[i] = (unsigned char)(31 - i);
    check(extend(0, data, 32) == 0x113fdb5c, "32 falling", name, 32, 0);
    check(extend(0, "123456789", 9) == 0xe3069283, "123456789", name, 9, 0);
    check(extend(0, NULL, 0) == 0, "nothing", name, 0, 0);
    check(extend(0x12345678, NULL, 0) == 0x12345678, "extended by nothing", name, 0, 0);
}

/* Every length to 5000: at the start, at the end, and at a moving odd offset of a guarded area. */
static void
test_lengths(const char *name, pl_crc32c_function *extend)
{
    enum { AREA = 3 * 65536, LONGEST = 5000 };
    static unsigned char *area;
    static uint32_t expected[LONGEST + 1][3];
    bool first_kernel = area == NULL;
    if (first_kernel) {
        area = guarded_bytes(AREA);
        fill_random(area, AREA);
    }
    for (size_t size = 0; size <= LONGEST; size++) {
        size_t offsets[3] = {0, AREA - size, (size * 2 + 1) % 128 + 64};
        for (int i = 0; i < 3; i++) {
            if (first_kernel)
                expected[size][i] = bit_by_bit(0, area + offsets[i], size);
            uint32_t crc = extend(0, area + offsets[i], size);
            check(crc == expected[size][i], "lengths", name, size, offsets[i]);
        }
    }
}

/* Pieces to 100 kB cut at random places. */
static void
test_splits(const char *name, pl_crc32c_function *extend)
{
    enum { LONGEST = 100000, ROUNDS = 2000 };
    unsigned char *data = malloc(LONGEST);
    if (data == NULL)
        exit(2);
    fill_random(data, LONGEST);
    for (int round = 0; round < ROUNDS; round++) {
        size_t size = random_word() % (round % 2 ? LONGEST : 3000);
        size_t start = random_word() % (LONGEST - size);
        uint32_t whole = pl_crc32c_table(0, data + start, size);
        uint32_t crc = 0;
        for (size_t done = 0; done < size;) {
            size_t piece = random_word() % (size - done) + 1;
            crc = extend(crc, data + start + done, piece);
            done += piece;
        }
        check(crc == whole, "splits", name, size, start);
        check(extend(0, data + start, size) == whole, "whole", name, size, start);
    }
    free(data);
}

static void
test_choice(void)
{
    const char *name = pl_crc32c_kernel();
    pl_crc32c_function *chosen = pl_crc32c_find(name);
    check(chosen != NULL, "the chosen kernel is found", name, 0, 0);
    check(pl_crc32c_find("no such kernel") == NULL, "an unknown kernel is not", "", 0, 0);
    check(pl_crc32c_find("table") == pl_crc32c_table, "the table is always there", "table", 0, 0);
    check(pl_crc32c("123456789", 9) == 0xe3069283, "pl_crc32c", name, 9, 0);
    uint32_t crc = pl_crc32c("1234", 4);
    check(pl_crc32c_extend(crc, "56789", 5) == 0xe3069283, "pl_crc32c_extend", name, 9, 0);
}

/* Benchmark ---------------------------------------------------------------------------------- */

static volatile uint32_t sink;

static double
seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* GB/s over one buffer that stays in the cache, the best of several runs.  Each CRC depends on the
   one before, so that calls do not overlap. */
static double
hot_speed(pl_crc32c_function *extend, const unsigned char *data, size_t size)
{
    size_t calls = 50000000 / size + 1;
    double best = 0;
    for (int run = 0; run < 15; run++) {
        uint32_t crc = 0;
        double start = seconds();
        for (size_t call = 0; call < calls; call++)
            crc = extend(crc, data, size);
        double speed = 1e-9 * (double)(calls * size) / (seconds() - start);
        best = speed > best ? speed : best;
        sink = crc;
    }
    return best;
}

/* Takes the data out of every cache.  (A buffer larger than the cache would not do: servers have
   hundreds of MiB of it.) */
static void
make_cold(const unsigned char *data, size_t size)
{
#if defined(__x86_64__)
    for (size_t i = 0; i < size; i += 64)
        _mm_clflush(data + i);
    _mm_mfence();
#else
    (void)data, (void)size;
#endif
}

static int
ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* GB/s over data that is in no cache, taken in pieces one after the other; the median. */
static double
cold_speed(pl_crc32c_function *extend, const unsigned char *data, size_t size, size_t piece)
{
    enum { RUNS = 7 };
    double speeds[RUNS];
    for (int run = 0; run < RUNS; run++) {
        make_cold(data, size);
        uint32_t crc = 0;
        double start = seconds();
        for (size_t done = 0; done < size; done += piece)
            crc ^= extend(0, data + done, piece);
        speeds[run] = 1e-9 * (double)size / (seconds() - start);
        sink = crc;
    }
    qsort(speeds, RUNS, sizeof speeds[0], ascending);
    return speeds[RUNS / 2];
}

static void
bench(void)
{
    static const size_t hot_sizes[] = {148, 1024, 4096, 16384, 65536};
    size_t cold_size = (size_t)256 << 20;
    unsigned char *data = malloc(cold_size);
    if (data == NULL)
        exit(2);
    for (size_t i = 0; i < cold_size; i += 8) {
        uint64_t word = random_word();
        memcpy(data + i, &word, 8);
    }
    printf("GB/s; chosen: %s\n%-20s%8s%8s%8s%8s%8s%10s%12s\n", pl_crc32c_kernel(), "kernel",
           "148 B", "1 KiB", "4 KiB", "16 KiB", "64 KiB", "256M cold", "by 16 KiB");
    for (int i = 0; i < KERNELS; i++) {
        pl_crc32c_function *extend = pl_crc32c_find(kernel_names[i]);
        if (extend == NULL)
            continue;
        printf("%-20s", kernel_names[i]);
        for (size_t j = 0; j < sizeof hot_sizes / sizeof hot_sizes[0]; j++)
            printf("%8.2f", hot_speed(extend, data, hot_sizes[j]));
        printf("%10.2f%12.2f\n", cold_speed(extend, data, cold_size, cold_size),
               cold_speed(extend, data, cold_size, 16384));
    }
    free(data);
}

int
main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "bench") == 0) {
        bench();
        return 0;
    }
    for (int i = 0; i < KERNELS; i++) {
        pl_crc32c_function *extend = pl_crc32c_find(kernel_names[i]);
        if (extend == NULL) {
            printf("%s: not on this CPU\n", kernel_names[i]);
            continue;
        }
        test_vectors(kernel_names[i], extend);
        test_lengths(kernel_names[i], extend);
        test_splits(kernel_names[i], extend);
        printf("%s: tested\n", kernel_names[i]);
    }
    test_choice();
    printf("%s: %d failures; chosen: %s\n", failures ? "FAILED" : "ok", failures,
           pl_crc32c_kernel());
    return failures != 0;
}
