/* Hostile bytes for the checker's own decoder, its sets and its folds (pl_checker.c, pl_stamp.c).
 *
 *     fuzz_checker [seconds [seed [folder of golden files]]]
 *
 * Batches of stamped records are spoiled as fuzz_batch spoils its own, half of them with their CRC
 * put right again, and given to a checker in blocks of exactly their size. Beyond "no crash" it
 * proves that what pl_batch.c calls whole is not called torn here, that every record is counted
 * once, and that the sets stay sorted and disjoint.
 */
#define _GNU_SOURCE
#define FUZZER "fuzz_checker"
#include "fuzz.h"

#include "pl_checker.h"
#include "pl_stamp.h"

enum { RUN = 7, PRODUCERS = 3, FOLDS = 4, RECORDS_MAX = 48 };

static struct counts {
  uint64_t batches, torn, records, findings, whole;
} counts;
static uint8_t input[INPUT_MAX];

/* ---- making ----------------------------------------------------------------------------- */

static pl_stamp draw_stamp(uint64_t *sequence) {
  static const uint64_t hostile[] = {0, UINT32_MAX, INT64_MAX, UINT64_MAX, 1ull << 63};
  if (one_in(9)) *sequence += below(5) - 2; /* a hole, a duplicate, a late one */
  return (pl_stamp){
      .run = one_in(40) ? draw() : RUN,
      .sequence = one_in(60) ? hostile[below(5)] : (*sequence)++,
      .sent_ns = draw(),
      .producer = (uint32_t)(one_in(60) ? hostile[below(5)] : below(PRODUCERS)),
      .incarnation = (uint16_t)(one_in(20) ? draw() : 1),
      .flags = (uint16_t)below(8),
  };
}

/* A batch of stamped records in `input`; returns its size. */
static uint64_t make_stamped(uint64_t *sequence) {
  static uint8_t room[RECORDS_MAX][PL_STAMP_SIZE + 96];
  pl_slice values[RECORDS_MAX], keys[RECORDS_MAX];
  int64_t count = 1 + (int64_t)below(RECORDS_MAX);
  for (int64_t i = 0; i < count; i++) {
    pl_stamp stamp = draw_stamp(sequence);
    uint8_t *key = room[i], *value = room[i] + PL_STAMP_SIZE;
    int64_t size = one_in(4) ? (int64_t)below(PL_STAMP_SIZE + 1) - 1 : (int64_t)below(96);
    pl_stamp_write(&stamp, key, size < 0 ? NULL : value, size);
    values[i] = (pl_slice){size < 0 ? NULL : value, size};
    keys[i] = size < PL_STAMP_SIZE ? (pl_slice){key, PL_STAMP_SIZE} : (pl_slice){NULL, -1};
  }
  pl_columns columns = {values, keys, NULL, NULL, 5, count};
  pl_identity identity = PL_IDENTITY_NONE;
  return pl_batch_encode(input, &columns, &identity);
}

static uint64_t draw_batch(int64_t next, uint64_t *sequence) {
  if (one_in(8)) return make_batch(input);
  uint64_t size = make_stamped(sequence);
  pl_batch_stamp(input, one_in(9) ? (int64_t)draw() : next, (int32_t)(one_in(9) ? draw() : 1));
  if (one_in(2)) return size;
  for (uint64_t n = below(4); n > 0; n--) size = mutate_once(input, size);
  if (one_in(2)) put_right(input, size);
  return size;
}

/* ---- trying ----------------------------------------------------------------------------- */

static int64_t torn(const pl_checker *checker) {
  pl_checker_figures figures;
  pl_checker_ask(checker, &figures);
  return figures.found[PL_FOUND_TORN_BATCH];
}

/* What the other decoder says: the records of a batch that is whole, -1 if it is not. */
static int64_t records_of(const uint8_t *batch, uint64_t size) {
  pl_header header;
  const char *why;
  int64_t max_timestamp;
  if (size < PL_BATCH_HEADER_SIZE || !pl_header_decode(batch, size, &header, &why) ||
      header.size != size || !pl_batch_crc_matches(batch, size) || header.attributes & 0x20)
    return -1;
  why = pl_records_verify(batch + PL_BATCH_HEADER_SIZE, size - PL_BATCH_HEADER_SIZE, &header,
                          &max_timestamp);
  return why ? -1 : header.records_count;
}

static void take(pl_checker *checker, uint64_t size) {
  uint8_t *batch = exactly(input, size);
  pl_slice payload = {NULL, 0};
  if (size >= PL_BATCH_HEADER_SIZE)
    payload = (pl_slice){batch + PL_BATCH_HEADER_SIZE, (int64_t)size - PL_BATCH_HEADER_SIZE};
  pl_checker_figures before, after;
  bool is_resumed = one_in(5);
  int64_t wanted = records_of(batch, size);
  pl_checker_ask(checker, &before);
  CHECK(pl_checker_take_batch(checker, (pl_slice){batch, (int64_t)size},
                              wanted >= 0 || one_in(2) ? &payload : NULL, is_resumed) == PL_OK);
  pl_checker_ask(checker, &after);
  CHECK(after.batches == before.batches + 1 && after.bytes == before.bytes + (int64_t)size);
  if (wanted >= 0) {
    counts.whole++;
    CHECK(after.found[PL_FOUND_TORN_BATCH] == before.found[PL_FOUND_TORN_BATCH]);
    CHECK(after.records - before.records <= wanted);
    CHECK(is_resumed || after.records - before.records == wanted);
  }
  CHECK(after.next_offset >= -1);
  counts.records += (uint64_t)(after.records - before.records);
  counts.torn += (uint64_t)(torn(checker) - before.found[PL_FOUND_TORN_BATCH]);
  counts.batches++;
  free(batch);
}

static void take_any_record(pl_checker *checker) {
  uint64_t size = make_batch(input), key_size = below(PL_STAMP_SIZE + 2);
  if (key_size > size) key_size = size;
  uint8_t *both = exactly(input, size);
  pl_slice key = {both, (int64_t)key_size}, value = {both + key_size, (int64_t)(size - key_size)};
  if (one_in(4)) value = (pl_slice){NULL, -1};
  if (one_in(4)) key = (pl_slice){NULL, -1};
  int64_t offset = one_in(3) ? (int64_t)draw() : (int64_t)below(FOLDS * PL_FOLD_RECORDS);
  CHECK(pl_checker_take_record(checker, one_in(20) ? INT64_MAX : offset, key, value) == PL_OK);
  free(both);
}

static void check_sets(const pl_checker *checker) {
  pl_checker_figures figures;
  int64_t held = 0;
  pl_checker_ask(checker, &figures);
  for (uint32_t producer = 0; producer < PRODUCERS; producer++) {
    const pl_seen *seen;
    int64_t n = pl_checker_seen(checker, producer, &seen);
    for (int64_t i = 0; i < n; i++) {
      CHECK(seen[i].start < seen[i].end);
      CHECK(i == 0 || seen[i - 1].end < seen[i].start);
      held += (int64_t)(seen[i].end - seen[i].start);
    }
  }
  CHECK(held <= figures.records);
  for (int kind = 0; kind < PL_FOUND_KINDS; kind++) {
    const pl_finding *kept;
    int64_t n = pl_checker_findings(checker, (pl_finding_kind)kind, &kept);
    CHECK(n <= figures.found[kind] && n <= PL_FINDINGS_KEPT);
    for (int64_t i = 0; i < n; i++) CHECK(kept[i].kind == (uint32_t)kind);
    counts.findings += (uint64_t)figures.found[kind];
  }
}

static void execute(void) {
  static _Atomic uint64_t folds[FOLDS];
  uint64_t sequence = below(100);
  pl_checker *checker = pl_checker_new(one_in(4) ? 0 : RUN, one_in(2) ? -1 : 0);
  CHECK(checker);
  if (one_in(2)) pl_checker_share(checker, folds, (int64_t)below(FOLDS + 1));
  for (uint64_t n = 1 + below(8); n > 0; n--) {
    pl_checker_figures figures;
    pl_checker_ask(checker, &figures);
    if (one_in(10)) pl_checker_seek(checker, one_in(2) ? -1 : (int64_t)below(1000));
    if (one_in(10)) take_any_record(checker);
    else take(checker, draw_batch(figures.next_offset < 0 ? 0 : figures.next_offset, &sequence));
  }
  check_sets(checker);
  pl_checker_free(checker);
}

int main(int argument_count, char **arguments) {
  double seconds = fuzz(argument_count, arguments, execute);
  printf("fuzz_checker: %" PRIu64 " executions in %.1f s, no finding; %" PRIu64 " batches, %"
         PRIu64 " whole, %" PRIu64 " torn, %" PRIu64 " records, %" PRIu64 " findings\n",
         executions, seconds, counts.batches, counts.whole, counts.torn, counts.records,
         counts.findings);
  return 0;
}
