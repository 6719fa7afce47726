/* Kills a process at every named point of the shared tables, and looks at what it left.
 *
 *     tables DIRECTORY ROUNDS SEED POINT...
 *
 * In each round a child takes part, publishes documents, adds slots, owns and commits, until it is
 * killed at one of the points. A parent that watches must hear of the death, find the document of
 * the generation, in each slot what was acknowledged or what was in flight, and be able to take
 * over. Of the deaths at each point most must be heard of within 200 ms: the threads of a busy
 * machine may stand still for longer, now and then. Every seventh round the files are of another
 * boot: what was committed must be in the new ones. Prints "name value" lines: rounds, kills at
 * each point, the slowest death.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
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
#include "pl_process.h"
#include "tables.h"

enum { HEARD_MS = 200, PATIENCE_MS = 20000, PLACES_MAX = 64 };

/* What the child had acknowledged, and had begun, for each slot; outlives it. */
static struct witness {
  _Atomic int64_t acked[NAMES], begun[NAMES];
} * witness;

static char processes_path[PL_PATH_MAX], bells_path[PL_PATH_MAX], table_path[PL_PATH_MAX];
static const char *_Atomic armed; /* the watcher passes points, too */
static _Atomic int countdown;
static bool is_child;

void pl_fault_point(const char *name) {
  const char *here = armed;
  if (is_child && here && strcmp(name, here) == 0 && atomic_fetch_sub(&countdown, 1) == 1)
    kill(getpid(), SIGKILL);
}

static void publish(pl_table *table) {
  static uint64_t words[DOCUMENT_MAX / 8 + 1];
  uint64_t generation = atomic_load(&table->file->generation);
  size_t size = document_of(generation + 1, words);
  must(pl_table_publish(table, generation, words, size, 1000), "publish");
}

static void commit(pl_table *table, int i) {
  char name[32];
  int index;
  pl_entry entry;
  pl_owner owner;
  name_of(i, name);
  must(pl_table_find(table, name, strlen(name), i, true, 1000, &index), "find");
  must(pl_table_get(table, index, &entry, &owner, 1000), "get");
  pl_owner me = {pl_table_new_owner(table), 7, 1}, nobody = {0};
  must(pl_table_own(table, index, owner.id, &me, 0, 1000), "own");
  int64_t offset = atomic_load(&witness->acked[i]) + 1 + random_below(1000);
  fill_entry(&entry, offset);
  atomic_store(&witness->begun[i], offset);
  must(pl_table_commit(table, index, me.id, atomic_load(&table->file->generation), &entry, 1000),
       "commit");
  atomic_store(&witness->acked[i], offset);
  if (random_below(2)) must(pl_table_own(table, index, me.id, &nobody, 0, 1000), "let go");
}

/* Until the document grows no more. */
static void publish_large(pl_table *table) {
  static uint8_t large[2 * DOCUMENT_MAX];
  for (int i = 0; i < 2; i++)
    must(pl_table_publish(table, atomic_load(&table->file->generation), large, sizeof large, 1000),
         "publish a large one");
}

static _Noreturn void live(const char *dying_at, uint64_t seed) {
  pl_processes *processes;
  pl_table *table;
  random_seed(seed);
  is_child = true;
  armed = dying_at;
  atomic_store(&countdown, strncmp(armed, "table-own", 9) && strncmp(armed, "table-e", 7)
                               ? 1 : 1 + (int)random_below(20));
  must(pl_processes_open(processes_path, bells_path, &processes), "open the processes");
  must(pl_processes_join(processes), "join");
  must(pl_table_open(table_path, "a group", &table), "open the table");
  if (strcmp(armed, "table-grown") == 0 && random_below(2)) { /* then it is the slots that grow */
    armed = NULL;
    publish_large(table);
    publish(table);
    armed = dying_at;
  }
  for (;;) {
    publish(table);
    for (int i = 0; i < 8; i++) commit(table, (int)random_below(NAMES));
  }
}

static void verify(void) {
  static uint64_t words[DOCUMENT_MAX / 8 + 1], expected[DOCUMENT_MAX / 8 + 1];
  pl_table *table;
  uint64_t generation;
  size_t size;
  must(pl_table_open(table_path, "a group", &table), "open after a kill");
  must(pl_table_read(table, words, sizeof words, &size, &generation), "read");
  if (size && (size != document_of(generation, expected) || memcmp(words, expected, size)))
    die("the document is not that of generation %" PRIu64, generation);
  for (int i = 0; i < NAMES; i++) {
    char name[32];
    int index;
    pl_entry entry, whole;
    pl_owner owner;
    name_of(i, name);
    must(pl_table_find(table, name, strlen(name), i, false, 1000, &index), "find");
    if (index < 0) {
      if (atomic_load(&witness->acked[i])) die("%s is gone", name);
      continue;
    }
    must(pl_table_get(table, index, &entry, &owner, 1000), "get");
    int64_t found = entry.sequence ? entry.offset : 0;
    if (found != atomic_load(&witness->acked[i]) && found != atomic_load(&witness->begun[i]))
      die("%s has %" PRId64 ", acknowledged %" PRId64, name, found,
          atomic_load(&witness->acked[i]));
    fill_entry(&whole, found);
    if (entry.sequence && (entry.text_size != whole.text_size ||
                           memcmp(entry.text, whole.text, whole.text_size)))
      die("%s: the note of another commit", name);
    atomic_store(&witness->acked[i], found);
    atomic_store(&witness->begun[i], found);
    pl_owner nobody = {0};
    must(pl_table_own(table, index, owner.id, &nobody, 0, 1000), "take over");
  }
  /* What was grown by half grows on, and is whole. */
  for (int i = 0; i < NAMES; i++) commit(table, i);
  publish_large(table);
  for (int i = 0; i < NAMES; i++) commit(table, i);
  publish(table);
  pl_table_close(table);
  must(pl_table_open(table_path, "a group", &table), "open what has grown");
  pl_table_close(table);
}

static pl_processes *watch(void) {
  pl_processes *processes;
  must(pl_processes_open(processes_path, bells_path, &processes), "open the processes");
  must(pl_processes_join(processes), "join");
  return processes;
}

static void make_bells(void) {
  FILE *bells = fopen(bells_path, "wb");
  if (!bells || ftruncate(fileno(bells), sizeof(pl_bells))) die("no doorbells");
  fclose(bells);
}

/* late: how many of these deaths were heard of after more than HEARD_MS. */
static void tell(const char *where, int kills, int late) {
  printf("point %s %d\n", where, kills);
  if (2 * late > kills)
    die("%s: of %d deaths, %d were heard of after more than %d ms", where, kills, late, HEARD_MS);
}

int main(int count, char **words) {
  if (count < 5) die("tables DIRECTORY ROUNDS SEED POINT...");
  int rounds = atoi(words[2]), points = count - 4;
  int kills[PLACES_MAX] = {0}, late[PLACES_MAX] = {0};
  uint64_t seed = strtoull(words[3], NULL, 10);
  int64_t slowest_ms = 0;
  if (points > PLACES_MAX) die("%d points, room for %d", points, PLACES_MAX);
  mkdir(words[1], 0700);
  snprintf(processes_path, sizeof processes_path, "%s/processes", words[1]);
  snprintf(bells_path, sizeof bells_path, "%s/doorbells", words[1]);
  snprintf(table_path, sizeof table_path, "%s/group", words[1]);
  make_bells();
  witness = mmap(NULL, sizeof *witness, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  random_seed(seed);
  pl_processes *watching = watch();
  for (int round = 0; round < rounds; round++) {
    const char *where = words[4 + round % points];
    snprintf(the_context, sizeof the_context, "round %d, %s", round, where);
    if (round % 7 == 6) {
      pl_processes_close(watching);
      reboot(processes_path);
      reboot(table_path);
      watching = watch();
    }
    /* These are passed by who makes a file, an extent or a slot: let there be something to make. */
    if (strcmp(where, "shared-filled") == 0) reboot(table_path);
    else if (strncmp(where, "table-g", 7) == 0 || strncmp(where, "table-s", 7) == 0) {
      unlink(table_path);
      memset(witness, 0, sizeof *witness);
    }
    uint64_t deaths = atomic_load(&watching->file->deaths);
    pid_t child = fork();
    if (child == 0) live(where, seed * 1000 + (uint64_t)round);
    int status;
    alarm(60);
    waitpid(child, &status, 0);
    alarm(0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) die("the child was not killed");
    kills[round % points]++;
    /* Who dies before its nonce is stored took no part yet: nobody is to hear of it. */
    bool took_part = strcmp(where, "process-locked") != 0;
    int64_t since = pl_monotonic_ms(), waited = 0;
    while (took_part && atomic_load(&watching->file->deaths) == deaths) {
      if ((waited = pl_monotonic_ms() - since) > PATIENCE_MS) die("nobody heard of the death");
      usleep(200);
    }
    if (waited > slowest_ms) slowest_ms = waited;
    late[round % points] += waited > HEARD_MS;
    verify();
  }
  pl_processes_close(watching);
  printf("rounds %d\nslowest_death_ms %" PRId64 "\n", rounds, slowest_ms);
  for (int i = 0; i < points; i++) tell(words[4 + i], kills[i], late[i]);
  return 0;
}
