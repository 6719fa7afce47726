/* One script of all that a log does, in which each call into the operating system fails in turn
 * (sweep.h).
 *
 *     faults DIRECTORY DURABILITY MODE FIRST STRIDE
 *     faults DIRECTORY DURABILITY on MAGIC            opens it on a file system of that number
 *
 * Of each run: the step that met the fault returned a status that fits it, or did its work all the
 * same; the log then holds all that was acknowledged, and nothing else; the step, done again,
 * works; so does the rest; a fresh open in this and in another process finds all of it; no
 * descriptor, mapping or block of memory is left. Only a failed flush may end it otherwise: then
 * every process is told so at each append, and all can be read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "driver.h"
#include "pl_fault.h"
#include "sweep.h"

enum {
  EXT4 = 0xEF53,
  SEGMENT_BYTES = 48 * 1024, /* of the large record and a little more */
  MANY = 150,
  TRIES_MAX = 20,
  WAIT_MS = 100,
};

static struct {
  const char *directory;
  pl_options options;
  uint32_t number; /* of the life, chosen so that one of its first records is large */
  uint64_t large;
} run;

static pl_log *the_log, *another;
static uint64_t sequence;

void pl_fault_point(const char *name) { (void)name; }

/* ---- steps: each may be done again after it failed --------------------------------------- */

static life *witness(void) { return &the_stage->life[run.number]; }

static pl_status must_not_stay_busy(pl_status status, int *tries) {
  if (status == PL_BUSY && ++*tries == TRIES_MAX) die("busy for ever");
  return status;
}

/* Of an fsync log, what was appended is acknowledged by the flush. */
static pl_status acknowledge(pl_log *log, int64_t first, int64_t count) {
  sequence += (uint64_t)count;
  if (log->options.durability == PL_DURABILITY_FSYNC) {
    pl_status status;
    int tries = 0;
    do status = must_not_stay_busy(pl_flush(log, first + count, WAIT_MS), &tries);
    while (status == PL_BUSY);
    PL_TRY(status);
  }
  atomic_store(&witness()->acked_offset, first + count - 1);
  atomic_store(&witness()->acked, sequence);
  return PL_OK;
}

static pl_status append_to(pl_log *log) {
  static uint8_t value[VALUE_MAX];
  const pl_slice none = {NULL, 0};
  int64_t offset;
  int tries = 0;
  pl_status status;
  pl_slice made = value_make(value, run.number, sequence);
  atomic_store(&witness()->attempted, sequence + 1);
  do
    status = must_not_stay_busy(pl_append(log, timestamp_of(sequence), key_of(sequence), made,
                                          none, -1, WAIT_MS, &offset), &tries);
  while (status == PL_BUSY);
  PL_TRY(status);
  return acknowledge(log, offset, 1);
}

static pl_status append_one(void) { return append_to(the_log); }

static pl_status append_up_to_large(void) {
  while (sequence <= run.large) PL_TRY(append_one());
  return PL_OK;
}

static struct {
  pl_slice values[MANY], keys[MANY];
  int64_t timestamps[MANY];
  uint8_t bytes[4 << 20], batch[4 << 20];
} made;

static pl_columns make(int64_t count) {
  uint8_t *p = made.bytes;
  for (int64_t i = 0; i < count; i++) {
    uint64_t n = sequence + (uint64_t)i;
    made.values[i] = value_make(p, run.number, n);
    made.keys[i] = key_of(n);
    made.timestamps[i] = timestamp_of(n);
    p += made.values[i].size;
  }
  atomic_store(&witness()->attempted, sequence + (uint64_t)count);
  return (pl_columns){made.values, made.keys, NULL, made.timestamps, 0, count};
}

static pl_status append_many(void) {
  pl_columns columns = make(MANY);
  for (int64_t start = 0; start < columns.count;) {
    int64_t done, first;
    int tries = 0;
    pl_status status;
    do
      status = must_not_stay_busy(
          pl_append_run(the_log, &columns, start, WAIT_MS, &done, &first), &tries);
    while (status == PL_BUSY);
    PL_TRY(status);
    PL_TRY(acknowledge(the_log, first, done));
    start += done;
  }
  return PL_OK;
}

static pl_status append_batch(void) {
  pl_columns columns = make(8);
  pl_identity identity = PL_IDENTITY_NONE;
  int64_t first;
  int tries = 0;
  pl_status status;
  uint64_t size = pl_batch_encode(made.batch, &columns, &identity);
  do
    status = must_not_stay_busy(
        pl_append_batch(the_log, made.batch, size, columns.count, -1, WAIT_MS, &first), &tries);
  while (status == PL_BUSY);
  PL_TRY(status);
  return acknowledge(the_log, first, columns.count);
}

static pl_status flush(void) { return pl_flush(the_log, pl_log_end(the_log), 1000); }

/* The housekeeper's share; what fails there is counted and comes again. */
static pl_status keep(void) {
  pl_prepare_ahead(the_log);
  return pl_retire(the_log);
}

static pl_status read_back(void) {
  verdict v;
  return read_log(the_log, true, &v);
}

static pl_status look_up_time(void) {
  int64_t offset;
  pl_status status = pl_offset_for_time(the_log, timestamp_of(3), &offset);
  return status == PL_END ? PL_OK : status;
}

static pl_status delete_some(void) {
  int64_t start = atomic_load(&the_log->page->log_start), end = pl_log_readable(the_log);
  pl_status status;
  do status = pl_delete_before(the_log, start + (end - start) * 3 / 4);
  while (status == PL_BUSY);
  return status;
}

static pl_status open_as(bool writable, pl_log **log) {
  if (*log) return PL_OK; /* it was, before the fault */
  return pl_log_open(run.directory, writable, &run.options, 300, log);
}

static pl_status close_it(pl_log **log) {
  if (!*log) return PL_OK;
  pl_status status = pl_log_close(*log);
  pl_log_free(*log);
  *log = NULL;
  return status;
}

static pl_status open_log(void) { return open_as(true, &the_log); }
static pl_status close_log(void) { return close_it(&the_log); }

static pl_status share(void) {
  pl_status status = open_as(true, &another);
  if (status == PL_OK) status = append_to(another);
  pl_status closed = close_it(&another);
  return status == PL_OK ? closed : status;
}

static pl_status read_only(void) {
  verdict v;
  pl_status status = open_as(false, &another);
  if (status == PL_OK) status = read_log(another, true, &v);
  pl_status closed = close_it(&another);
  return status == PL_OK ? closed : status;
}

/* What SIGKILL leaves of the log. */
static pl_status abandon(void) {
  pl_keeper_drop(the_log);
  atomic_store(&the_log->is_closed, 1);
  pl_log_free(the_log);
  the_log = NULL;
  return PL_OK;
}

static void path_of(const char *name, char *path) {
  must(pl_file_path(run.directory, name, path), "a path");
}

static pl_status lose_page(void) {
  char path[PL_PATH_MAX];
  path_of("control", path);
  unlink(path);
  return PL_OK;
}

/* Of a log that was closed, or else it would be a power cut. */
static pl_status lose_page_if_tidy(void) {
  static pl_meta meta;
  must(pl_meta_load(run.directory, &meta), "log.meta");
  return meta.clean_end < 0 ? PL_OK : lose_page();
}

/* A power cut, with a part of a batch behind the end; only fsync logs promise to survive it. */
static pl_status reboot(void) {
  static const char torn[] = "this was to become a batch, of the length that the zeros tell";
  char name[32], path[PL_PATH_MAX];
  int64_t base = atomic_load(&the_log->page->active_base);
  off_t position = (off_t)the_log->page->position;
  abandon();
  if (run.options.durability != PL_DURABILITY_FSYNC) return PL_OK;
  lose_page();
  pl_segment_name(base, ".log", name);
  path_of(name, path);
  int fd = open(path, O_RDWR);
  if (pwrite(fd, torn, sizeof torn, position) != sizeof torn) die("pwrite: %s", strerror(errno));
  close(fd);
  return PL_OK;
}

static const step script[] = {
    {"create", open_log, false},
    {"append one", append_one, false},
    {"append one more", append_one, false},
    {"flush", flush, false},
    {"append a large one", append_up_to_large, false},
    {"append many", append_many, false},
    {"keep", keep, false},
    {"append a batch", append_batch, false},
    {"append many more", append_many, false},
    {"read", read_back, false},
    {"look up a time", look_up_time, false},
    {"share", share, false},
    {"append in a shared log", append_one, false},
    {"flush files", flush, false},
    {"delete the first", delete_some, false},
    {"read only", read_only, false},
    {"keep again", keep, false},
    {"close", close_log, false},
    {"read only, closed", read_only, false},
    {"open", open_log, false},
    {"append after open", append_one, false},
    {"be killed", abandon, true},
    {"read only, killed", read_only, false},
    {"open after a kill", open_log, false},
    {"append after a kill", append_one, false},
    {"append many after a kill", append_many, false},
    {"lose power", reboot, true},
    {"read only, rebooted", read_only, false},
    {"open after a reboot", open_log, false},
    {"append after a reboot", append_one, false},
    {"read after a reboot", read_back, false},
    {"close after a reboot", close_log, false},
    {"lose the page", lose_page_if_tidy, true},
    {"open without a page", open_log, false},
    {"append without a page", append_one, false},
    {"close at last", close_log, false},
};

/* ---- judgement -------------------------------------------------------------------------- */

static bool is_poisoned(const pl_log *log) {
  return log && atomic_load(&log->page->state) == PL_LOG_POISONED;
}

static void must_be_refused(pl_status status, const char *what) {
  if (status != PL_ERR_DURABILITY)
    die("%s a poisoned log: status %d, not DURABILITY", what, (int)status);
  if (pl_error_last()->os_errno != refusal.answer)
    die("%s a poisoned log: errno %d", what, pl_error_last()->os_errno);
}

/* All of it can be read, nothing added. */
static void must_be_poisoned(pl_log *log) {
  verify_log(log, true);
  must_be_refused(append_to(log), "appending to");
  int64_t end = pl_log_end(log);
  if (end > atomic_load(&log->page->durable_offset)) {
    must_be_refused(pl_flush(log, end, 0), "flushing");
    must_be_refused(pl_wait_durable(log, end - 1, 1000), "waiting for");
  }
  verify_log(log, true);
}

static void share_poisoned(void) {
  pl_log *log = NULL;
  must(open_as(true, &log), "opening a poisoned log");
  must_be_poisoned(log);
  pl_status status = close_it(&log);
  if (status != PL_ERR_DURABILITY) must(status, "closing a poisoned log");
}

/* The rest of the life of a log that a failed flush has made read-only. */
static void be_poisoned(void) {
  must_be_poisoned(the_log);
  in_child(share_poisoned);
  must(read_only(), "reading a poisoned log only");
  pl_status status = close_it(&the_log);
  if (status != PL_ERR_DURABILITY) must(status, "closing a poisoned log");
  share_poisoned(); /* the page cache lies until the next boot */
  in_child(share_poisoned);
  lose_page();
  must(open_log(), "opening a poisoned log after a reboot");
  if (run.options.durability == PL_DURABILITY_FSYNC) verify_log(the_log, true);
  must(append_one(), "appending after a reboot");
  must(close_log(), "closing after a reboot");
}

static void judge(pl_status status) {
  if (status == PL_ERR_DURABILITY && !the_log) must(open_log(), "opening what closed poisoned");
  if (the_log) verify_log(the_log, true);
  if (is_poisoned(the_log)) {
    if (!is_sync()) die("a fault that is none of a flush has poisoned the log");
    the_report->outcome = POISONED;
    be_poisoned();
    must_balance();
    _exit(0);
  }
}

/* What another process finds when all have closed. */
static void verify_afresh(void) {
  pl_log *log = NULL;
  bool is_whole = the_report->outcome != POISONED ||
                  run.options.durability == PL_DURABILITY_FSYNC;
  must(open_as(true, &log), "opening it in another process");
  if (is_whole) verify_log(log, true);
  must(close_it(&log), "closing it in another process");
}

/* A life of which one of the records 8 to 15 is larger than an append encodes in place. */
static void choose_life(void) {
  for (run.number = 0; run.number < LIVES_MAX; run.number++)
    for (run.large = 8; run.large < 16; run.large++)
      if (value_size(run.number, run.large) > PL_HOLD_BYTES / 2 + 1024) return;
  die("no life has a large record early");
}

/* Opens the log on a file system of that magic number, and prints what is said about it. */
static int open_on(const char *magic) {
  filesystem_magic = strtol(magic, NULL, 16);
  pl_status status = open_log();
  printf("%s: %s\n", status == PL_ERR_FILESYSTEM ? "UNSUPPORTED" : "?", pl_error_last()->text);
  return 0;
}

static void begin(void) { memset(witness(), 0, sizeof *witness()); }

int main(int argc, char **argv) {
  bool is_open_on = argc == 5 && strcmp(argv[3], "on") == 0;
  if (argc != 6 && !is_open_on) die("usage: faults DIRECTORY DURABILITY MODE FIRST STRIDE");
  run.directory = argv[1];
  run.options = options_unset();
  run.options.durability = atoi(argv[2]);
  if (is_open_on) return open_on(argv[4]);
  run.options.segment_bytes = SEGMENT_BYTES;
  stage_new(NULL, 0);
  choose_life();
  atomic_store(&the_stage->lives, run.number + 1);
  filesystem_magic = EXT4; /* memory is taken for a disk: a sync costs nothing there */
  const sweep all = {run.directory, script, sizeof script / sizeof *script, begin, judge,
                     verify_afresh};
  return sweep_all(&all, argv + 3);
}
