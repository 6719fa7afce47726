/* A writer of `pylog stress --nemesis kill-at` that dies at a named point of the core.
 *
 *     stress --points                                          the points, a line each
 *     stress LOG LEDGER RUN PRODUCER SEED POINT PASSES CHECKED
 *
 * Appends records that check themselves (csrc/pl_stamp.h) by every way in, notes them in its
 * ledger, and dies by SIGKILL when POINT is passed for the PASSES-th time. Who does not come by in
 * a second ends with 0; what should not happen is said on stderr and ends with 1. Offsets below
 * CHECKED may be deleted.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "pl_clock.h"
#include "pl_fault.h"
#include "pl_ledger.h"
#include "pl_stamp.h"

enum { LIFE_MS = 1000, RUN_MAX = 300, SIZE_MAX_BYTES = 40000 };

/* Those that a writer of a log that others have open can pass. */
static const char *const points[] = {
    "locked",          "batch-opened",  "before-copy",       "after-copy",
    "before-publish",  "after-publish", "before-unlock",     "after-unlock",
    "before-seal",     "after-seal",    "after-sealed",      "many-before-seal",
    "batch-copied",    "repair-derived", "roll-before-rename", "roll-after-rename",
    "roll-before-count", "before-sync", "synced",            "durable-published",
    "remove-segment",
};

static const char *_Atomic armed_point; /* the housekeeper passes points, too */
static _Atomic int passes_left;

void pl_fault_point(const char *name) {
  const char *armed = armed_point;
  if (!armed || strcmp(name, armed) != 0) return;
  if (atomic_fetch_sub(&passes_left, 1) != 1) return;
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static struct {
  pl_log *log;
  pl_ledger *ledger;
  pl_stamp stamp;
  int64_t checked;
  uint8_t *values, *batch;
  uint8_t keys[RUN_MAX][PL_STAMP_SIZE];
} writer;

/* One in three too short for a stamp, one in two hundred large. */
static int64_t draw_size(void) {
  uint32_t dice = random_below(600);
  if (dice < 200) return random_below(PL_STAMP_SIZE);
  return PL_STAMP_SIZE + random_below(dice < 597 ? 200 : SIZE_MAX_BYTES - PL_STAMP_SIZE);
}

typedef struct many {
  pl_slice values[RUN_MAX], keys[RUN_MAX];
} many;

/* Begins a call with `count` records. */
static pl_columns make(many *m, int64_t count) {
  uint8_t *value = writer.values;
  writer.stamp.sequence = pl_ledger_begin(writer.ledger, (uint64_t)count);
  writer.stamp.sent_ns = pl_monotonic_ns();
  for (int64_t i = 0; i < count; i++) {
    int64_t size = draw_size();
    bool is_short = size < PL_STAMP_SIZE;
    pl_stamp_write(&writer.stamp, writer.keys[i], value, size);
    m->values[i] = (pl_slice){value, size};
    m->keys[i] = is_short ? (pl_slice){writer.keys[i], PL_STAMP_SIZE} : (pl_slice){NULL, -1};
    value += size;
    writer.stamp.sequence++;
  }
  return (pl_columns){m->values, m->keys, NULL, NULL, pl_clock_ms(), count};
}

/* What a call sent is in; an fsync log says so after the flush. */
static void acknowledge(int64_t end) {
  pl_status status;
  if (writer.log->options.durability == PL_DURABILITY_FSYNC) {
    do status = pl_flush(writer.log, end, 1000);
    while (status == PL_BUSY);
    must(status, "flush");
  }
  pl_ledger_acknowledge(writer.ledger, UINT64_MAX);
}

static void append_one(void) {
  static many m;
  const pl_slice none = {NULL, 0};
  pl_columns one = make(&m, 1);
  int64_t offset;
  pl_status status;
  do status = pl_append(writer.log, one.timestamp, one.keys[0], one.values[0], none, -1, 1000,
                        &offset);
  while (status == PL_BUSY);
  must(status, "append");
  acknowledge(offset + 1);
}

static void append_many(void) {
  static many m;
  pl_columns columns = make(&m, 1 + random_below(RUN_MAX));
  int64_t done, first = 0;
  for (int64_t start = 0; start < columns.count; start += done) {
    pl_status status;
    do status = pl_append_run(writer.log, &columns, start, 1000, &done, &first);
    while (status == PL_BUSY);
    must(status, "append many");
    first += done;
  }
  acknowledge(first);
}

static void append_whole_batch(void) {
  static many m;
  pl_identity identity = PL_IDENTITY_NONE;
  pl_columns columns = make(&m, 1 + random_below(20));
  int64_t first;
  pl_status status;
  uint64_t size = pl_batch_encode(writer.batch, &columns, &identity);
  do status = pl_append_batch(writer.log, writer.batch, size, columns.count, -1, 1000, &first);
  while (status == PL_BUSY);
  if (status == PL_ERR_TOO_LARGE) must(pl_ledger_doubt(writer.ledger, PL_SPAN_FAILED), "doubt");
  else {
    must(status, "append a batch");
    acknowledge(first + columns.count);
  }
}

static void flush_some(void) {
  pl_status status = pl_flush(writer.log, pl_log_end(writer.log), 100);
  if (status != PL_BUSY) must(status, "flush");
}

static void delete_some(void) {
  int64_t start = atomic_load(&writer.log->page->log_start);
  pl_status status = PL_OK;
  if (start < writer.checked)
    status = pl_delete_before(writer.log, start + (writer.checked - start) / 4);
  if (status != PL_BUSY && status != PL_ERR_OUT_OF_RANGE) must(status, "delete");
}

static void act(void) {
  uint32_t dice = random_below(100);
  if (dice < 50) for (uint32_t n = random_below(60); n; n--) append_one();
  else if (dice < 75) append_many();
  else if (dice < 90) append_whole_batch();
  else if (dice < 97) flush_some();
  else delete_some();
}

static int print_points(void) {
  for (size_t i = 0; i < sizeof points / sizeof *points; i++) puts(points[i]);
  return 0;
}

int main(int argc, char **argv) {
  uint32_t incarnation;
  if (argc == 2 && strcmp(argv[1], "--points") == 0) return print_points();
  if (argc != 9) die("usage: stress LOG LEDGER RUN PRODUCER SEED POINT PASSES CHECKED");
  pl_options options = options_unset();
  writer.stamp.run = strtoull(argv[3], NULL, 10);
  writer.stamp.producer = (uint32_t)strtoul(argv[4], NULL, 10);
  writer.checked = strtoll(argv[8], NULL, 10);
  random_seed(strtoull(argv[5], NULL, 10));
  writer.values = malloc((size_t)RUN_MAX * SIZE_MAX_BYTES);
  writer.batch = malloc((size_t)RUN_MAX * (SIZE_MAX_BYTES + 100));
  if (!writer.values || !writer.batch) die("no memory");
  must(pl_ledger_open(argv[2], writer.stamp.run, writer.stamp.producer, &writer.ledger), "ledger");
  must(pl_ledger_enter(writer.ledger, &incarnation), "ledger");
  writer.stamp.incarnation = (uint16_t)incarnation;
  must(pl_log_open(argv[1], true, &options, 20000, &writer.log), "open");
  atomic_store(&passes_left, atoi(argv[7]));
  armed_point = argv[6];
  for (uint64_t end = pl_monotonic_ns() + LIFE_MS * 1000000ull; pl_monotonic_ns() < end;) act();
  armed_point = NULL;
  must(pl_log_close(writer.log), "close");
  return 0;
}
