/*
 * CRC-32C kernels and the choice between them; pl_crc32c.h says what is promised.
 *
 * The arithmetic, once for all kernels.  A CRC is a remainder modulo the polynomial P, kept
 * bit-reflected: bit i of the 32-bit state is the coefficient of x^(31-i).  "State" below is the
 * CRC before the final inversion.  Two facts carry everything:
 *
 *   - Passing n more zero bytes multiplies the state by x^(8n) mod P.  So the pieces of a buffer
 *     can be worked on apart, each from state 0, and joined by such a multiplication and a xor.
 *   - A carry-less product of two reflected values comes out one bit low, and a 32-bit constant
 *     in a 64-bit operand 32 bits low.  So carrying a state or a data word over n 64-bit words
 *     takes the constant x^(64n - 33) mod P, which is carry_constant[n].
 *
 * The methods are known ones: slicing-by-8 (Kounavis and Berry), three interleaved streams (Gopal
 * et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction"; Mark Adler's
 * crc32c.c) and folding by carry-less products (Gopal et al., "Fast CRC Computation Using
 * PCLMULQDQ"; corsix/fast-crc32).
 */
#include "pl_crc32c.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif

/* P without its x^32 term, reflected: RFC 3720 (iSCSI), section 12.1, gives it as 0x11edc6f41. */
#define POLYNOMIAL UINT32_C(0x82f63b78)

/* Portable kernel -------------------------------------------------------------------------- */

/* slice[k][b]: the state that byte b leaves behind after k more zero bytes. */
static uint32_t slice[8][256];

static void
compute_slices(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t state = byte;
        for (int bit = 0; bit < 8; bit++)
            state = (state >> 1) ^ ((state & 1) ? POLYNOMIAL : 0);
        slice[0][byte] = state;
    }
    for (int zeros = 1; zeros < 8; zeros++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = slice[zeros - 1][byte];
            slice[zeros][byte] = (before >> 8) ^ slice[0][before & 0xff];
        }
}

static inline uint64_t
load_word(const unsigned char *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The state after eight bytes, given as a little-endian word that the old state is xored into. */
static inline uint32_t
slice_word(uint64_t word)
{
    return slice[7][word & 0xff] ^ slice[6][word >> 8 & 0xff] ^ slice[5][word >> 16 & 0xff]
        ^ slice[4][word >> 24 & 0xff] ^ slice[3][word >> 32 & 0xff] ^ slice[2][word >> 40 & 0xff]
        ^ slice[1][word >> 48 & 0xff] ^ slice[0][word >> 56];
}

uint32_t
pl_crc32c_table(uint32_t crc, const void *data, size_t size)
{
    const unsigned char *next = data;
    uint32_t state = ~crc;
    for (; size >= 8; size -= 8, next += 8)
        state = slice_word(load_word(next) ^ state);
    for (; size > 0; size--, next++)
        state = (state >> 8) ^ slice[0][(state ^ *next) & 0xff];
    return ~state;
}

static bool
always(void)
{
    return true;
}

#if defined(__x86_64__)

/* x86-64: the crc32 instruction ------------------------------------------------------------- */

#define SSE42 __attribute__((target("sse4.2")))
#define SSE42_PCLMUL __attribute__((target("sse4.2,pclmul")))
#define AVX512 __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

enum {
    CACHE_LINE = 64,
    /* Words of one stream in a full block of three.  At 128 words (1 KiB) joining the streams is
       3 % of the work. */
    STREAM_WORDS = 128,
    STREAM_BYTES = 8 * STREAM_WORDS,
    /* From here on three streams and a join beat one stream (measured). */
    THREE_STREAMS_MINIMUM = 48,
    /* Cold data goes equally fast from 3 to 12 KiB, more slowly below (measured). */
    PREFETCH_DISTANCE = 6144,
    /* A page is asked for a while before its lines are, by one of them: its address is looked up
       meanwhile, which takes as long as some thirty lines (measured: 14 % of cold data's time; the
       same from 8 to 64 KiB). */
    PAGE_BYTES = 4096,
    PAGE_DISTANCE = 16384,
};

/* carry_constant[n] is x^(64n - 33) mod P: carries a value over n words (see the top). */
static uint32_t carry_constant[2 * STREAM_WORDS + 1];

static void
compute_carry_constants(void)
{
    uint32_t power = 1; /* x^31, which is x^(64 - 33) */
    for (size_t words = 1; words <= 2 * STREAM_WORDS; words++) {
        carry_constant[words] = power;
        power = slice_word(power); /* times x^64: over eight zero bytes */
    }
}

/* Fetches the line that will be due soon.  It may lie past the piece: a prefetch never faults, and
   what follows a batch in a segment is the next batch.  Hence the integer, as C knows no pointer
   out there. */
static inline __attribute__((always_inline)) void
prefetch_ahead(const unsigned char *data)
{
    __builtin_prefetch((const void *)((uintptr_t)data + PREFETCH_DISTANCE), 0, 3);
}

/* Once a page, when called for each `step` bytes. */
static inline __attribute__((always_inline)) void
prefetch_page(const unsigned char *data, size_t step)
{
    if ((uintptr_t)data % PAGE_BYTES < step)
        __builtin_prefetch((const void *)((uintptr_t)data + PAGE_DISTANCE), 0, 3);
}

SSE42 static inline uint32_t
crc_word(uint32_t state, uint64_t word)
{
    return (uint32_t)_mm_crc32_u64(state, word);
}

SSE42 static inline uint32_t
one_stream(uint32_t state, const unsigned char *data, size_t size)
{
    for (; size >= 8; size -= 8, data += 8)
        state = crc_word(state, load_word(data));
    if (size & 4) {
        uint32_t half;
        memcpy(&half, data, sizeof half);
        state = _mm_crc32_u32(state, half);
        data += 4;
    }
    if (size & 2) {
        uint16_t quarter;
        memcpy(&quarter, data, sizeof quarter);
        state = _mm_crc32_u16(state, quarter);
        data += 2;
    }
    if (size & 1)
        state = _mm_crc32_u8(state, *data);
    return state;
}

SSE42 static uint32_t
crc_sse42(uint32_t crc, const void *data, size_t size)
{
    return ~one_stream(~crc, data, size);
}

/* x86-64: three streams --------------------------------------------------------------------- */

/* The instruction takes three cycles, but one can start each cycle: three independent streams
   keep it busy. */
struct streams {
    uint32_t first, second, third;
};

SSE42 static inline void
step(struct streams *states, const unsigned char *data, size_t stride)
{
    states->first = crc_word(states->first, load_word(data));
    states->second = crc_word(states->second, load_word(data + stride));
    states->third = crc_word(states->third, load_word(data + 2 * stride));
}

/* The 64-bit word that, xored into the last data word of a stream, brings in a state that lies
   `words` words before the end of that stream. */
SSE42_PCLMUL static inline uint64_t
carried(uint32_t state, size_t words)
{
    __m128i value = _mm_cvtsi32_si128((int)state);
    __m128i constant = _mm_cvtsi32_si128((int)carry_constant[words]);
    return (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(value, constant, 0));
}

/* Takes the last word of each stream and joins the three.  Doing both at once saves the third
   stream a dependent instruction. */
SSE42_PCLMUL static inline uint32_t
last_step(struct streams states, const unsigned char *data, size_t words)
{
    size_t stride = 8 * words;
    states.first = crc_word(states.first, load_word(data));
    states.second = crc_word(states.second, load_word(data + stride));
    uint64_t word = load_word(data + 2 * stride);
    word ^= carried(states.first, 2 * words) ^ carried(states.second, words);
    return crc_word(states.third, word);
}

/* Three streams of `words` (1 to STREAM_WORDS) words each. */
SSE42_PCLMUL static inline uint32_t
short_block(uint32_t state, const unsigned char *data, size_t words)
{
    struct streams states = {state, 0, 0};
    for (size_t word = 1; word < words; word++, data += 8)
        step(&states, data, 8 * words);
    return last_step(states, data, words);
}

/* Three streams of STREAM_WORDS words each.  Three streams 1 KiB apart defeat the hardware's own
   prefetcher, so each cache line is asked for here, once: on cold data this gives 1.6 to 2.2 times
   the speed. */
SSE42_PCLMUL static inline uint32_t
full_block(uint32_t state, const unsigned char *data)
{
    struct streams states = {state, 0, 0};
    for (size_t done = 0;; done += CACHE_LINE) {
        for (size_t stream = 0; stream < 3; stream++) {
            prefetch_ahead(data + stream * STREAM_BYTES);
            prefetch_page(data + stream * STREAM_BYTES, CACHE_LINE);
        }
        for (int word = 0; word < 7; word++, data += 8)
            step(&states, data, STREAM_BYTES);
        if (done == STREAM_BYTES - CACHE_LINE)
            return last_step(states, data, STREAM_WORDS);
        step(&states, data, STREAM_BYTES);
        data += 8;
    }
}

SSE42_PCLMUL static inline uint32_t
three_streams(uint32_t state, const unsigned char *data, size_t size)
{
    for (; size >= 3 * STREAM_BYTES; size -= 3 * STREAM_BYTES, data += 3 * STREAM_BYTES)
        state = full_block(state, data);
    if (size >= THREE_STREAMS_MINIMUM) {
        size_t words = size / 24;
        state = short_block(state, data, words);
        data += 24 * words;
        size -= 24 * words;
    }
    return one_stream(state, data, size);
}

SSE42_PCLMUL static uint32_t
crc_sse42_pclmul(uint32_t crc, const void *data, size_t size)
{
    return ~three_streams(~crc, data, size);
}

/* x86-64: folding 64-byte vectors ------------------------------------------------------------ */

enum {
    VECTOR_BYTES = 64,
    FOLD_VECTORS = 4, /* enough to hide the latency of a product */
    FOLD_BYTES = FOLD_VECTORS * VECTOR_BYTES,
    FOLD_MINIMUM = 512, /* from here on folding beats three streams (measured) */
};

/* The constants that carry each 128-bit lane over `words` words.  The lane's low half comes first
   in the data, so it has one word more to go. */
AVX512 static inline __m512i
lane_constants(size_t words)
{
    return _mm512_broadcast_i32x4(
        _mm_set_epi64x((long long)carry_constant[words], (long long)carry_constant[words + 1]));
}

/* `value` carried to where `onto` lies, and added to it. */
AVX512 static inline __m512i
fold(__m512i value, __m512i constants, __m512i onto)
{
    __m512i low = _mm512_clmulepi64_epi128(value, constants, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(value, constants, 0x11);
    return _mm512_ternarylogic_epi64(low, high, onto, 0x96); /* 0x96: the xor of all three */
}

/* Folds `size` bytes, a multiple of FOLD_BYTES and not 0, into one vector that leaves the same
   state behind. */
AVX512 static inline __m512i
fold_blocks(uint32_t state, const unsigned char *data, size_t size)
{
    __m512i sums[FOLD_VECTORS];
    for (int i = 0; i < FOLD_VECTORS; i++)
        sums[i] = _mm512_loadu_si512(data + i * VECTOR_BYTES);
    __m512i start = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state));
    sums[0] = _mm512_xor_si512(sums[0], start);

    __m512i constants = lane_constants(FOLD_BYTES / 8);
    for (size_t done = FOLD_BYTES; done < size; done += FOLD_BYTES) {
        prefetch_page(data + done, FOLD_BYTES);
        for (int i = 0; i < FOLD_VECTORS; i++) {
            const unsigned char *vector = data + done + i * VECTOR_BYTES;
            prefetch_ahead(vector);
            sums[i] = fold(sums[i], constants, _mm512_loadu_si512(vector));
        }
    }

    constants = lane_constants(VECTOR_BYTES / 8);
    for (int i = 1; i < FOLD_VECTORS; i++)
        sums[i] = fold(sums[i - 1], constants, sums[i]);
    return sums[FOLD_VECTORS - 1];
}

AVX512 static uint32_t
crc_avx512(uint32_t crc, const void *data, size_t size)
{
    const unsigned char *next = data;
    uint32_t state = ~crc;
    if (size >= FOLD_MINIMUM) {
        size_t folded = size - size % FOLD_BYTES;
        unsigned char sum[VECTOR_BYTES];
        _mm512_storeu_si512(sum, fold_blocks(state, next, folded));
        state = one_stream(0, sum, sizeof sum);
        next += folded;
        size -= folded;
    }
    return ~three_streams(state, next, size);
}

static bool
has_sse42(void)
{
    return __builtin_cpu_supports("sse4.2");
}

static bool
has_sse42_pclmul(void)
{
    return has_sse42() && __builtin_cpu_supports("pclmul");
}

static bool
has_avx512(void)
{
    return has_sse42_pclmul() && __builtin_cpu_supports("avx512f")
        && __builtin_cpu_supports("vpclmulqdq");
}

#elif defined(__aarch64__)

/* ARMv8: one stream of crc32cx --------------------------------------------------------------- */

/* UNTESTED on hardware: no ARM machine was at hand.  It passes its tests under qemu-aarch64. */

__attribute__((target("+crc"))) static uint32_t
crc_armv8(uint32_t crc, const void *data, size_t size)
{
    const unsigned char *next = data;
    uint32_t state = ~crc;
    for (; size >= 8; size -= 8, next += 8)
        state = __crc32cd(state, load_word(next));
    for (; size > 0; size--, next++)
        state = __crc32cb(state, *next);
    return ~state;
}

static bool
has_armv8_crc(void)
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & (1UL << 7)) != 0; /* HWCAP_CRC32 of <asm/hwcap.h> */
#elif defined(__APPLE__)
    return true; /* every 64-bit Apple CPU that macOS runs on */
#else
    return false;
#endif
}

#endif

/* The choice --------------------------------------------------------------------------------- */

struct kernel {
    const char *name;
    pl_crc32c_function *function;
    bool (*supported)(void);
};

/* Best first. */
static const struct kernel kernels[] = {
#if defined(__x86_64__)
    {"avx512+vpclmulqdq", crc_avx512, has_avx512},
    {"sse4.2+pclmul", crc_sse42_pclmul, has_sse42_pclmul},
    {"sse4.2", crc_sse42, has_sse42},
#elif defined(__aarch64__)
    {"armv8", crc_armv8, has_armv8_crc},
#endif
    {"table", pl_crc32c_table, always},
};

static const struct kernel *chosen;
/* Beside `chosen` to save each call one load. */
static pl_crc32c_function *chosen_function;

/* Priority 101, the earliest not reserved: constructors without one may compute CRCs. */
__attribute__((constructor(101))) static void
choose_kernel(void)
{
    compute_slices();
#if defined(__x86_64__)
    compute_carry_constants();
    __builtin_cpu_init();
#endif
    chosen = kernels;
    while (!chosen->supported())
        chosen++;
    chosen_function = chosen->function;
}

uint32_t
pl_crc32c_extend(uint32_t crc, const void *data, size_t size)
{
    return chosen_function(crc, data, size);
}

uint32_t
pl_crc32c(const void *data, size_t size)
{
    return chosen_function(0, data, size);
}

const char *
pl_crc32c_kernel(void)
{
    return chosen->name;
}

pl_crc32c_function *
pl_crc32c_find(const char *kernel)
{
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++)
        if (strcmp(kernels[i].name, kernel) == 0 && kernels[i].supported())
            return kernels[i].function;
    return NULL;
}
