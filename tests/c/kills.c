/* Kills writers by SIGKILL, at random times and at every named point of the core, and reads the
 * whole log back every twenty kills.
 *
 *     kills DIRECTORY MODE DURABILITY SEGMENT_BYTES KILLS SEED POINT HITS...
 *
 * HITS is how many died at the point in earlier runs: who dies where is chosen to even that out.
 *
 * MODE is crowd (four writers, one is killed at a time, this process keeps the log open), deleters
 * (the same, and they delete what is old), heirs (one writer dies with a batch behind the end, the
 * next one in its repair), all (three writers die at once, nobody has the log open between), alone
 * (one writer that opens and closes, and whose control page is removed now and then, so that
 * recovery scans; fsync only) or births (one writer, of a log that is new each time). Prints one
 * line "name value" per figure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"
#include "pl_fault.h"

enum {
  WRITERS_MAX = 4,
  VERIFY_EVERY = 20,
  ALL_WRITERS = 3,
  PATIENCE_US = 12000,
  PATIENCE_US_MAX = 100000,
  PATIENCE_SYNCS = 8,
  NO_POINT = -1,
  ANY_POINT = -2,
};

static struct {
  const char *directory;
  pl_options options;
  bool deletes, loses_page;
  int kills_wanted;
  int patience_us; /* until one that is to die at a point is killed wherever it is */
} run;

static struct {
  int kills, verifications, point_kills;
  uint64_t owner_deaths, killed_recoveries, scanned_recoveries, crc_bytes;
  int64_t records;
} figures;

/* ---- the point at which this process is to die ------------------------------------------ */

static int armed_point = NO_POINT;
static _Atomic int armed_count;

static int index_of_point(const char *name) {
  static _Thread_local struct {
    const char *name;
    int index;
  } known[256];
  size_t slot = ((uintptr_t)name >> 2) % 256;
  while (known[slot].name && known[slot].name != name) slot = (slot + 1) % 256;
  if (!known[slot].name) {
    known[slot].index = stage_point(name);
    known[slot].name = name;
    if (known[slot].index < 0) die("the point %s was not named on the command line", name);
    atomic_store(&the_stage->points[known[slot].index].is_passed, true);
  }
  return known[slot].index;
}

void pl_fault_point(const char *name) {
  if (!the_stage) return;
  int index = index_of_point(name);
  if (index != armed_point || atomic_fetch_sub(&armed_count, 1) != 1) return;
  atomic_fetch_add(&the_stage->points[index].kills, 1);
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* ---- a writer --------------------------------------------------------------------------- */

typedef struct writer {
  pl_log *log;
  uint32_t number;
  uint64_t sequence;
  life *witness;
  uint8_t *values, *batch;
} writer;

enum { RUN_MAX = 300, VALUES_BYTES = 4 << 20 };

/* What a call sent is in; an fsync log says so after the flush. */
static void acknowledge(writer *w, int64_t first, int64_t count) {
  if (w->log->options.durability == PL_DURABILITY_FSYNC) {
    pl_status status;
    do status = pl_flush(w->log, first + count, 1000);
    while (status == PL_BUSY);
    must(status, "flush");
  }
  w->sequence += (uint64_t)count;
  atomic_store(&w->witness->acked_offset, first + count - 1);
  atomic_store(&w->witness->acked, w->sequence);
}

static void append_one(writer *w) {
  int64_t offset;
  pl_status status;
  const pl_slice none = {NULL, 0};
  pl_slice value = value_make(w->values, w->number, w->sequence);
  atomic_store(&w->witness->attempted, w->sequence + 1);
  do status = pl_append(w->log, timestamp_of(w->sequence), key_of(w->sequence), value, none, -1,
                        1000, &offset);
  while (status == PL_BUSY);
  must(status, "append");
  acknowledge(w, offset, 1);
}

typedef struct many {
  pl_slice values[RUN_MAX], keys[RUN_MAX];
  int64_t timestamps[RUN_MAX];
} many;

/* As many of `count` records as the writer has room for. */
static pl_columns make_many(writer *w, many *m, int64_t count) {
  int64_t used = 0, i = 0;
  for (; i < count && used < VALUES_BYTES - VALUE_MAX; i++) {
    uint64_t sequence = w->sequence + (uint64_t)i;
    m->values[i] = value_make(w->values + used, w->number, sequence);
    m->keys[i] = key_of(sequence);
    m->timestamps[i] = timestamp_of(sequence);
    used += m->values[i].size;
  }
  return (pl_columns){m->values, m->keys, NULL, m->timestamps, 0, i};
}

static void append_many(writer *w, int64_t count) {
  many m;
  pl_columns columns = make_many(w, &m, count);
  atomic_store(&w->witness->attempted, w->sequence + (uint64_t)columns.count);
  for (int64_t start = 0; start < columns.count;) {
    int64_t done, first;
    pl_status status;
    do status = pl_append_run(w->log, &columns, start, 1000, &done, &first);
    while (status == PL_BUSY);
    must(status, "append many");
    acknowledge(w, first, done);
    start += done;
  }
}

static void append_whole_batch(writer *w, int64_t count) {
  many m;
  pl_identity identity = PL_IDENTITY_NONE;
  int64_t first;
  pl_status status;
  pl_columns columns = make_many(w, &m, count);
  if (pl_batch_size_bound(&columns) > (uint64_t)w->log->options.segment_bytes) return;
  uint64_t size = pl_batch_encode(w->batch, &columns, &identity);
  atomic_store(&w->witness->attempted, w->sequence + (uint64_t)columns.count);
  do status = pl_append_batch(w->log, w->batch, size, columns.count, -1, 1000, &first);
  while (status == PL_BUSY);
  must(status, "append a batch");
  acknowledge(w, first, columns.count);
}

static void delete_some(writer *w) {
  int64_t start = atomic_load(&w->log->page->log_start);
  int64_t half = start + (pl_log_end(w->log) - start) / 2;
  pl_status status = pl_delete_before(w->log, half);
  if (status != PL_BUSY && status != PL_ERR_OUT_OF_RANGE) must(status, "delete");
}

static void flush_some(writer *w) {
  pl_status status = pl_flush(w->log, pl_log_end(w->log), 100);
  if (status != PL_BUSY) must(status, "flush");
}

static bool has_prefix(int index, const char *prefix) {
  return strncmp(the_stage->points[index].name, prefix, strlen(prefix)) == 0;
}

static bool is_to_die_deleting(void) {
  return run.deletes && armed_point >= 0 &&
         (has_prefix(armed_point, "delete-") || has_prefix(armed_point, "remove-"));
}

static void act(writer *w) {
  uint32_t dice = random_below(1000);
  if (dice % 4 == 0 && is_to_die_deleting()) dice = 999;
  if (dice < 560) {
    for (uint32_t n = random_below(60); n; n--) append_one(w);
  } else if (dice < 800) {
    append_many(w, 1 + random_below(RUN_MAX));
  } else if (dice < 920) {
    append_whole_batch(w, 1 + random_below(20));
  } else if (dice < 950) {
    flush_some(w);
  } else if (run.deletes) {
    delete_some(w);
  }
}

static void open_log(pl_log **log) {
  must(pl_log_open(run.directory, true, &run.options, 20000, log), "open");
}

static void close_log(pl_log *log) {
  must(pl_log_close(log), "close");
  pl_log_free(log);
}

static _Noreturn void write_for_ever(uint32_t number, bool closes) {
  writer w = {.number = number, .witness = &the_stage->life[number]};
  w.values = malloc(VALUES_BYTES);
  w.batch = malloc(VALUES_BYTES + (1 << 20));
  if (!w.values || !w.batch) die("no memory");
  for (;;) {
    open_log(&w.log);
    for (uint32_t n = closes ? random_below(12) : UINT32_MAX; n; n--) act(&w);
    close_log(w.log);
  }
}

/* ---- who dies when ---------------------------------------------------------------------- */

typedef struct death {
  int point, passes; /* NO_POINT: at any time */
} death;

/* A quarter die at any time; the others at a point that anybody passed, half of these, and all who
 * are alone, where the fewest died. */
static death choose_death(void) {
  death d = {NO_POINT, 1};
  uint32_t dice = random_below(8);
  if (dice < 2) return d;
  bool evens_out = run.loses_page || dice >= 5;
  uint32_t fewest = UINT32_MAX, candidates = 0;
  for (int i = 0; i < the_stage->point_count; i++) {
    point *p = &the_stage->points[i];
    if (!atomic_load(&p->is_passed)) continue;
    uint32_t hits = p->hits_before + atomic_load(&p->kills);
    uint32_t rank = evens_out ? hits * 2 + atomic_load(&p->tries) : 0;
    if (rank < fewest) fewest = rank, candidates = 0;
    if (rank == fewest && random_below(++candidates) == 0) d.point = i;
  }
  if (d.point < 0) return d;
  atomic_fetch_add(&the_stage->points[d.point].tries, 1);
  static const char *const once_a_life[] = {"recover-",      "repair-", "create-",
                                            "before-clean-", "clean-", "remove-", "delete-",
                                            "map-"};
  bool is_rare = false;
  for (size_t i = 0; i < sizeof once_a_life / sizeof *once_a_life; i++)
    is_rare |= has_prefix(d.point, once_a_life[i]);
  if (!is_rare) d.passes = 1 + (int)random_below(random_below(2) ? 3 : 60);
  return d;
}

/* What a reboot does to a log that nobody closed: there is no control page to believe. */
static void lose_page(void) {
  char page[PL_PATH_MAX];
  snprintf(page, sizeof page, "%s/control", run.directory);
  unlink(page);
}

typedef struct victim {
  pid_t pid;
  bool is_armed;
} victim;

static victim start_writer(bool closes, int at_point) {
  uint32_t number = atomic_fetch_add(&the_stage->lives, 1);
  if (number >= LIVES_MAX) die("more lives than room for them");
  death d = at_point == ANY_POINT ? choose_death() : (death){at_point, 1};
  if (run.loses_page && (random_below(3) == 0 ||
                         (d.point >= 0 && has_prefix(d.point, "recover-"))))
    lose_page();
  uint64_t seed = (uint64_t)random_below(UINT32_MAX) << 20 | number;
  victim v = {fork(), d.point >= 0};
  if (v.pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no writer outlives a run that failed */
    armed_point = d.point; /* here alone: this driver's own housekeeper passes points as well */
    armed_count = d.passes;
    random_seed(seed);
    write_for_ever(number, closes);
  }
  if (v.pid < 0) die("fork: %s", strerror(errno));
  return v;
}

static void must_be_killed(pid_t pid, int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return;
  if (WIFSIGNALED(status)) die("writer %d died of signal %d", (int)pid, WTERMSIG(status));
  die("writer %d ended by itself with status %d", (int)pid, WEXITSTATUS(status));
}

static void kill_writer(victim v) {
  int status;
  for (int waited = 0; v.is_armed && waited < run.patience_us; waited += 200) {
    if (waitpid(v.pid, &status, WNOHANG) == v.pid) {
      must_be_killed(v.pid, status);
      figures.kills++;
      figures.point_kills++;
      return;
    }
    usleep(200);
  }
  if (!v.is_armed) usleep(random_below(3000));
  kill(v.pid, SIGKILL);
  if (waitpid(v.pid, &status, 0) != v.pid) die("waitpid: %s", strerror(errno));
  must_be_killed(v.pid, status);
  figures.kills++;
}

/* On a slow disk a writer needs longer to any point. The best of three: others use it as well. */
static void learn_patience(void) {
  char path[PL_PATH_MAX];
  if (snprintf(path, sizeof path, "%s.probe", run.directory) >= (int)sizeof path)
    die("the path is too long");
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  uint64_t best_us = PATIENCE_US_MAX;
  for (int i = 0; i < 3; i++) {
    uint64_t began = pl_monotonic_ns();
    if (fd < 0 || pwrite(fd, path, sizeof path, 0) < 0 || fdatasync(fd) != 0)
      die("%s: %s", path, strerror(errno));
    uint64_t took_us = (pl_monotonic_ns() - began) / 1000;
    if (took_us < best_us) best_us = took_us;
  }
  close(fd);
  unlink(path);
  run.patience_us = (int)best_us * PATIENCE_SYNCS;
  if (run.patience_us < PATIENCE_US) run.patience_us = PATIENCE_US;
  if (run.patience_us > PATIENCE_US_MAX) run.patience_us = PATIENCE_US_MAX;
}

static void verify(pl_log *log) {
  verdict v = verify_log(log, run.deletes);
  figures.verifications++;
  figures.records = v.end;
  figures.crc_bytes += v.crc_bytes;
}

/* ---- the modes -------------------------------------------------------------------------- */

static void kill_in_a_crowd(void) {
  victim victims[WRITERS_MAX];
  pl_log *log;
  open_log(&log);
  for (int i = 0; i < WRITERS_MAX; i++) victims[i] = start_writer(false, ANY_POINT);
  while (figures.kills < run.kills_wanted) {
    victim *v = &victims[random_below(WRITERS_MAX)];
    kill_writer(*v);
    *v = start_writer(false, ANY_POINT);
    if (figures.kills % VERIFY_EVERY == 0) verify(log);
  }
  for (int i = 0; i < WRITERS_MAX; i++) kill_writer(victims[i]);
  verify(log);
  figures.owner_deaths = atomic_load(&log->page->owner_deaths);
  close_log(log);
}

/* Opens what the dead left, proves it, and leaves it as they did: open. */
static void inspect(bool expects_scan) {
  pl_log *log;
  open_log(&log);
  int reason = log->recovered.reason;
  if (reason == 2 && !expects_scan) die("a kill led to a scan: %s", log->recovered.why);
  figures.killed_recoveries += reason == 1;
  figures.scanned_recoveries += reason == 2;
  verify(log);
  if (random_below(2)) {
    uint8_t value[VALUE_MAX];
    uint32_t number = atomic_fetch_add(&the_stage->lives, 1);
    writer w = {.log = log, .number = number, .witness = &the_stage->life[number],
                .values = value};
    append_one(&w);
    figures.owner_deaths += atomic_load(&log->page->owner_deaths);
    verify(log);
  }
  close_log(log);
}

static void kill_all(void) {
  while (figures.kills < run.kills_wanted) {
    victim victims[ALL_WRITERS];
    for (int i = 0; i < ALL_WRITERS; i++) {
      victims[i] = start_writer(random_below(4) == 0, ANY_POINT);
    }
    usleep(random_below(4000));
    for (int i = 0; i < ALL_WRITERS; i++) kill_writer(victims[i]);
    if (figures.kills / ALL_WRITERS % (VERIFY_EVERY / ALL_WRITERS) == 0) inspect(false);
  }
  inspect(false);
}

static void kill_alone(void) {
  while (figures.kills < run.kills_wanted) {
    kill_writer(start_writer(true, ANY_POINT));
    if (figures.kills % VERIFY_EVERY == 0) inspect(true);
  }
  inspect(true);
}

/* Of the points in a repair, the one where the fewest died so far. */
static int seldomest_in_repair(void) {
  int seldomest = NO_POINT;
  uint32_t fewest = UINT32_MAX;
  for (int i = 0; i < the_stage->point_count; i++) {
    uint32_t hits = the_stage->points[i].hits_before + atomic_load(&the_stage->points[i].kills);
    if (has_prefix(i, "repair-") && hits < fewest) fewest = hits, seldomest = i;
  }
  return seldomest;
}

static void kill_heirs(void) {
  pl_log *log;
  open_log(&log);
  while (figures.kills < run.kills_wanted) {
    kill_writer(start_writer(false, stage_point("many-sealed")));
    kill_writer(start_writer(false, seldomest_in_repair()));
    if (figures.kills % VERIFY_EVERY == 0) verify(log);
  }
  verify(log);
  figures.owner_deaths = atomic_load(&log->page->owner_deaths);
  close_log(log);
}

/* Every other one dies where a log has its first segment and no log.meta. */
static void kill_at_birth(void) {
  int birth = stage_point("create-segment-made");
  while (figures.kills < run.kills_wanted) {
    remove_tree(run.directory);
    mkdir(run.directory, 0700);
    memset(the_stage->life, 0, sizeof the_stage->life);
    atomic_store(&the_stage->lives, 0);
    victim v = start_writer(false, figures.kills % 2 ? birth : NO_POINT);
    kill_writer(v);
    inspect(false);
  }
}

int main(int argc, char **argv) {
  if (argc < 7) {
    die("usage: kills DIRECTORY MODE DURABILITY SEGMENT_BYTES KILLS SEED POINT HITS...");
  }
  const char *mode = argv[2];
  run.directory = argv[1];
  run.options = options_unset();
  run.options.durability = atoi(argv[3]);
  run.options.segment_bytes = atoll(argv[4]);
  run.options.flush_interval_ms = 20;
  run.kills_wanted = atoi(argv[5]);
  run.deletes = strcmp(mode, "deleters") == 0;
  run.loses_page = strcmp(mode, "alone") == 0;
  random_seed(strtoull(argv[6], NULL, 10));
  stage_new(argv + 7, argc - 7);
  learn_patience();
  uint64_t started = pl_monotonic_ns();
  mkdir(run.directory, 0700);
  if (strcmp(mode, "crowd") == 0 || run.deletes) kill_in_a_crowd();
  else if (strcmp(mode, "heirs") == 0) kill_heirs();
  else if (strcmp(mode, "all") == 0) kill_all();
  else if (strcmp(mode, "alone") == 0) kill_alone();
  else if (strcmp(mode, "births") == 0) kill_at_birth();
  else die("mode %s is unknown", mode);
  printf("kills %d\npoint_kills %d\nverifications %d\nowner_deaths %" PRIu64
         "\nkilled_recoveries %" PRIu64 "\nscanned_recoveries %" PRIu64 "\nrecords %" PRId64
         "\ncrc_bytes %" PRIu64 "\nmilliseconds %" PRIu64 "\n", figures.kills,
         figures.point_kills, figures.verifications, figures.owner_deaths,
         figures.killed_recoveries, figures.scanned_recoveries, figures.records,
         figures.crc_bytes, (pl_monotonic_ns() - started) / 1000000);
  for (int i = 0; i < the_stage->point_count; i++)
    printf("point %s %u\n", the_stage->points[i].name, atomic_load(&the_stage->points[i].kills));
  return 0;
}
