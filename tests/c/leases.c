/* Kills a process at every named point of the leases, and does what it left.
 *
 *     leases DIRECTORY ROUNDS SEED POINT...
 *
 * In each round a child appends, takes, and settles what it took in every way, until it is killed
 * at one of the points. Then a parent takes all there is: each record that was not acknowledged
 * must come, once, and none that was; of one whose acknowledgement had begun either is right; in an
 * ordered ring (every other round) those of a bucket in their order. Every seventh round the file
 * is of another boot first. Prints "name value" lines: rounds, records, and kills at each point.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"
#include "pl_clock.h"
#include "pl_fault.h"
#include "pl_lease.h"
#include "tables.h"

enum { RECORDS_MAX = 1 << 22, BUCKETS = 5, MANY = 64, LOCK_MS = 60000 };
enum { OPEN, ACKING, ACKED };

static _Atomic uint8_t *witness; /* of each offset; outlives the child */
static char processes_path[PL_PATH_MAX], bells_path[PL_PATH_MAX];
static char log_paths[2][PL_PATH_MAX], leases_paths[2][PL_PATH_MAX]; /* plain, ordered */
static const char *armed;
static int countdown;
static bool is_child;

void pl_fault_point(const char *name) {
  if (is_child && armed && strcmp(name, armed) == 0 && --countdown == 0) kill(getpid(), SIGKILL);
}

typedef struct group {
  pl_log *log;
  pl_processes *processes;
  pl_leases *leases;
  bool is_ordered;
} group;

static int32_t bucket_of(int64_t offset) {
  return offset % 7 == 0 ? -1 : (int32_t)(offset * 31 % BUCKETS);
}

static group join(bool is_ordered) {
  group g = {.is_ordered = is_ordered};
  pl_options options = options_unset();
  options.segment_bytes = 1 << 20;
  pl_leases_terms terms = {"workers", 0, is_ordered, false};
  must(pl_log_open(log_paths[is_ordered], true, &options, 10000, &g.log), "open the log");
  must(pl_processes_open(processes_path, bells_path, &g.processes), "open the processes");
  must(pl_processes_join(g.processes), "join");
  must(pl_leases_open(leases_paths[is_ordered], &terms, g.log, g.processes, &g.leases),
       "open the leases");
  return g;
}

static void leave(group *g) {
  pl_leases_close(g->leases);
  pl_processes_close(g->processes);
  must(pl_log_close(g->log), "close");
  pl_log_free(g->log);
}

static void append(group *g) {
  const pl_slice null = {NULL, -1}, none = {NULL, 0}, value = {(const uint8_t *)"v", 1};
  int64_t offset;
  pl_status status;
  do status = pl_append(g->log, 1, null, value, none, -1, 1000, &offset);
  while (status == PL_BUSY);
  must(status, "append");
  if (offset >= RECORDS_MAX) die("more records than room for them");
}

/* What the native layer does with the keys of records. */
static void admit(group *g) {
  int64_t offsets[MANY], next = g->leases->file->next_offset, admitted, count = 0;
  int32_t buckets[MANY];
  for (; count < MANY && next + count < pl_log_end(g->log); count++) {
    offsets[count] = next + count;
    buckets[count] = bucket_of(offsets[count]);
  }
  pl_status status = pl_leases_admit(g->leases, next, offsets, buckets, count, 1000, &admitted);
  if (status != PL_END) must(status, "admit");
}

static int64_t take(group *g, int64_t count, pl_grant *grants) {
  int64_t taken;
  uint64_t changes;
  if (g->is_ordered) admit(g);
  must(pl_leases_take(g->leases, count, LOCK_MS, 1000, grants, &taken, &changes), "take");
  return taken;
}

static void acknowledge(group *g, const pl_grant *grant, pl_settlement how) {
  if (atomic_load(&witness[grant->offset]) != OPEN)
    die("offset %" PRId64 " was acknowledged, and comes again", grant->offset);
  atomic_store(&witness[grant->offset], ACKING);
  must(pl_leases_settle(g->leases, grant->index, grant->token, how, 0, 1000), "acknowledge");
  atomic_store(&witness[grant->offset], ACKED);
}

static _Noreturn void live(const char *dying_at, uint64_t seed, bool is_ordered) {
  pl_grant grants[MANY];
  random_seed(seed);
  is_child = true;
  countdown = 1 + (int)random_below(random_below(2) ? 4 : 200);
  armed = dying_at;
  group g = join(is_ordered);
  for (;;) {
    for (uint32_t n = random_below(30); n; n--) append(&g);
    int64_t taken = take(&g, 1 + random_below(MANY), grants);
    if (random_below(10) == 0) {
      pl_leases_stats stats;
      must(pl_leases_get_stats(g.leases, 1000, &stats), "stats");
    }
    for (int64_t i = 0; i < taken; i++) {
      const pl_grant *grant = &grants[i];
      uint32_t dice = random_below(10);
      if (dice < 5) acknowledge(&g, grant, random_below(20) ? PL_SETTLE_DONE : PL_SETTLE_REJECT);
      else if (dice < 7)
        must(pl_leases_settle(g.leases, grant->index, grant->token,
                              random_below(2) ? PL_SETTLE_GIVE_BACK : PL_SETTLE_RETURN,
                              random_below(3) ? 0 : random_below(5), 1000), "give back");
      else if (dice < 8)
        must(pl_leases_settle(g.leases, grant->index, grant->token, PL_SETTLE_RENEW, LOCK_MS, 1000),
             "renew");
    }
    uint64_t changes = atomic_load(&g.leases->file->changes);
    static const _Atomic uint64_t still;
    pl_status status = pl_leases_listen(g.leases, changes, &still, 0, 1);
    if (status == PL_OK) pl_leases_unlisten(g.leases);
  }
}

/* Takes and acknowledges all; what is settled twice, or left, or out of order is found. */
static void verify(bool is_ordered) {
  group g = join(is_ordered);
  pl_grant grants[MANY];
  int64_t last[BUCKETS], end = pl_log_end(g.log), taken;
  memset(last, -1, sizeof last);
  usleep(6000); /* what is delayed is due */
  for (int64_t i = 0; i < end; i++) {
    /* Its acknowledgement had begun: it may come or not. */
    if (atomic_load(&witness[i]) == ACKING) atomic_store(&witness[i], OPEN | 0x80);
  }
  while ((taken = take(&g, MANY, grants))) {
    for (int64_t i = 0; i < taken; i++) {
      int64_t offset = grants[i].offset;
      int32_t bucket = bucket_of(offset);
      if (is_ordered && bucket >= 0) {
        if (last[bucket] >= offset)
          die("offset %" PRId64 " after %" PRId64 " of its bucket", offset, last[bucket]);
        last[bucket] = offset;
      }
      atomic_fetch_and(&witness[offset], 0x7f);
      acknowledge(&g, &grants[i], PL_SETTLE_DONE);
    }
  }
  for (int64_t i = 0; i < end; i++) {
    uint8_t seen = atomic_load(&witness[i]);
    if (seen == OPEN) die("offset %" PRId64 " of %" PRId64 " never came", i, end);
    atomic_store(&witness[i], ACKED);
  }
  pl_leases_stats stats;
  must(pl_leases_get_stats(g.leases, 1000, &stats), "stats");
  if (stats.start != end || stats.ready || stats.held || stats.delayed || stats.behind)
    die("something is left: start %" PRId64 " of %" PRId64 ", %" PRId64 " ready, %" PRId64
        " held, %" PRId64 " delayed, %" PRId64 " behind", stats.start, end, stats.ready, stats.held,
        stats.delayed, stats.behind);
  leave(&g);
}

int main(int count, char **words) {
  if (count < 5) die("leases DIRECTORY ROUNDS SEED POINT...");
  int rounds = atoi(words[2]), points = count - 4, kills[64] = {0};
  uint64_t seed = strtoull(words[3], NULL, 10);
  mkdir(words[1], 0700);
  snprintf(processes_path, PL_PATH_MAX, "%s/processes", words[1]);
  snprintf(bells_path, PL_PATH_MAX, "%s/doorbells", words[1]);
  for (int i = 0; i < 2; i++) {
    snprintf(log_paths[i], PL_PATH_MAX, "%s/log-%d", words[1], i);
    snprintf(leases_paths[i], PL_PATH_MAX, "%s/leases-%d", words[1], i);
    mkdir(log_paths[i], 0700);
  }
  FILE *bells = fopen(bells_path, "wb");
  if (!bells || ftruncate(fileno(bells), sizeof(pl_bells))) die("no doorbells");
  fclose(bells);
  uint8_t *memory = mmap(NULL, 2 * RECORDS_MAX, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  random_seed(seed);
  for (int round = 0; round < rounds; round++) {
    const char *where = words[4 + round % points];
    bool is_ordered = round / points % 2;
    snprintf(the_context, sizeof the_context, "round %d, %s%s", round, where,
             is_ordered ? ", ordered" : "");
    witness = (_Atomic uint8_t *)memory + (is_ordered ? RECORDS_MAX : 0);
    if (round % 7 == 6) reboot(leases_paths[is_ordered]);
    pid_t child = fork();
    if (child == 0) live(where, seed * 1000 + (uint64_t)round, is_ordered);
    int status;
    alarm(60);
    waitpid(child, &status, 0);
    alarm(0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) die("the child was not killed");
    kills[round % points]++;
    verify(is_ordered);
  }
  printf("rounds %d\n", rounds);
  for (int ordered = 0; ordered < 2; ordered++) {
    group g = join(ordered);
    printf("%s %" PRId64 "\n", ordered ? "ordered_records" : "records", pl_log_end(g.log));
    leave(&g);
  }
  for (int i = 0; i < points; i++) printf("point %s %d\n", words[4 + i], kills[i]);
  return 0;
}
