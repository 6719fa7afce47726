/* One script of all that processes share beside their logs, in which each call into the operating
 * system fails in turn (sweep.h).
 *
 *     table_faults DIRECTORY MODE FIRST STRIDE
 *
 * Of each run: the step that met the fault returned a status that fits it, or did its work all the
 * same; the table then holds the last document that was published and what was committed for each
 * slot, nobody's half file lies beside it, and the step, done again, works; so does the rest;
 * another process finds all of it; no descriptor, mapping or block of memory is left.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pl_clock.h"
#include "pl_fault.h"
#include "pl_process.h"
#include "sweep.h"
#include "tables.h"

enum { WAIT_MS = 1000, HEARD_MS = 5000, DYING = 3 };


/* What was acknowledged, and begun; outlives a process. */
static struct witness {
  _Atomic int64_t acked[NAMES], begun[NAMES];
  _Atomic uint64_t published; /* generation */
  _Atomic bool has_document;
} * witness;

static const char *directory;
static char processes_path[PL_PATH_MAX], bells_path[PL_PATH_MAX], table_path[PL_PATH_MAX];
static pl_processes *processes;
static pl_table *table;

void pl_fault_point(const char *name) { (void)name; }

/* ---- steps: each may be done again after it failed --------------------------------------- */

static pl_status take_part(void) {
  if (!processes) PL_TRY(pl_processes_open(processes_path, bells_path, &processes));
  return pl_processes_join(processes);
}

static pl_status open_table(void) {
  return table ? PL_OK : pl_table_open(table_path, "a group", &table);
}

static pl_status open_all(void) {
  PL_TRY(take_part());
  return open_table();
}

static pl_status publish(void) {
  static uint64_t words[DOCUMENT_MAX / 8 + 1];
  uint64_t generation = atomic_load(&table->file->generation);
  size_t size = document_of(generation + 1, words);
  PL_TRY(pl_table_publish(table, generation, words, size, WAIT_MS));
  atomic_store(&witness->published, generation + 1);
  atomic_store(&witness->has_document, true);
  return PL_OK;
}

/* Until both places of a document have grown. */
static pl_status publish_many(void) {
  for (int i = 0; i < 12; i++) PL_TRY(publish());
  return PL_OK;
}

static pl_status commit(int i) {
  char name[32];
  int index;
  pl_entry entry;
  pl_owner owner, me = {pl_table_new_owner(table), processes->nonce, processes->slot};
  name_of(i, name);
  PL_TRY(pl_table_find(table, name, strlen(name), i, true, WAIT_MS, &index));
  PL_TRY(pl_table_get(table, index, &entry, &owner, WAIT_MS));
  PL_TRY(pl_table_own(table, index, owner.id, &me, 0, WAIT_MS));
  fill_entry(&entry, atomic_load(&witness->acked[i]) + 1 + i);
  atomic_store(&witness->begun[i], entry.offset);
  PL_TRY(pl_table_commit(table, index, me.id, atomic_load(&table->file->generation), &entry,
                         WAIT_MS));
  atomic_store(&witness->acked[i], entry.offset);
  return PL_OK;
}

static pl_status commit_few(void) {
  for (int i = 0; i < PL_TABLE_FIRST_SLOTS; i++) PL_TRY(commit(i));
  return PL_OK;
}

static pl_status commit_all(void) {
  for (int i = 0; i < NAMES; i++) PL_TRY(commit(i));
  return PL_OK;
}

static pl_status sync_table(void) { return pl_table_sync(table); }

static pl_status forget_one(void) {
  char name[32];
  int index;
  pl_entry entry;
  pl_owner owner, nobody = {0};
  name_of(1, name);
  PL_TRY(pl_table_find(table, name, strlen(name), 1, false, WAIT_MS, &index));
  PL_TRY(pl_table_get(table, index, &entry, &owner, WAIT_MS));
  PL_TRY(pl_table_own(table, index, owner.id, &nobody, 0, WAIT_MS));
  atomic_store(&witness->begun[1], 0);
  PL_TRY(pl_table_forget(table, index, WAIT_MS));
  atomic_store(&witness->acked[1], 0);
  return PL_OK;
}

/* Another has it open, and wants to remove it. */
static pl_status remove_in_use(void) {
  pl_table *another;
  PL_TRY(pl_table_open(table_path, "a group", &another));
  pl_status status = pl_table_remove(another);
  if (status == PL_OK) die("a table that is in use was removed");
  pl_table_close(another);
  return status == PL_BUSY ? PL_OK : status;
}

static pl_status remove_it(void) {
  PL_TRY(pl_table_remove(table));
  if (access(table_path, F_OK) == 0) die("a table that was removed is there");
  memset(witness, 0, sizeof *witness);
  pl_table_close(table);
  table = NULL;
  return PL_OK;
}

static pl_status close_all(void) {
  pl_table_close(table);
  pl_processes_close(processes);
  table = NULL;
  processes = NULL;
  return PL_OK;
}

static void live_and_die(void) {
  table = NULL;
  processes = NULL;
  must(open_all(), "opening in another process");
  must(commit(DYING), "committing in another process");
}

static pl_status lose_another(void) {
  uint64_t deaths = atomic_load(&processes->file->deaths);
  in_child(live_and_die);
  for (int64_t since = pl_monotonic_ms(); atomic_load(&processes->file->deaths) == deaths;
       pl_sleep_ms(1))
    if (pl_monotonic_ms() - since > HEARD_MS) die("nobody heard of the death");
  return PL_OK;
}

static pl_status take_over(void) {
  char name[32];
  int index;
  pl_entry entry;
  pl_owner owner;
  name_of(DYING, name);
  PL_TRY(pl_table_find(table, name, strlen(name), DYING, false, WAIT_MS, &index));
  PL_TRY(pl_table_get(table, index, &entry, &owner, WAIT_MS));
  if (pl_process_is_alive(processes, owner.process, owner.nonce)) die("the dead owner is alive");
  return commit(DYING);
}

/* Members are not taken over into the new file; what was committed is. */
static pl_status lose_power(void) {
  reboot(processes_path);
  reboot(table_path);
  atomic_store(&witness->has_document, false);
  return PL_OK;
}

static const step script[] = {
    {"take part", take_part, false},
    {"make a table", open_table, false},
    {"publish", publish, false},
    {"commit", commit_few, false},
    {"publish larger ones", publish_many, false},
    {"add slots and commit", commit_all, false},
    {"sync", sync_table, false},
    {"remove in use", remove_in_use, false},
    {"forget", forget_one, false},
    {"lose another process", lose_another, true},
    {"take over", take_over, false},
    {"close", close_all, false},
    {"open", open_all, false},
    {"commit after open", commit_all, false},
    {"close before a reboot", close_all, false},
    {"lose power", lose_power, true},
    {"open after a reboot", open_all, false},
    {"publish after a reboot", publish_many, false},
    {"commit after a reboot", commit_all, false},
    {"remove", remove_it, false},
    {"make it again", open_table, false},
    {"publish at last", publish_many, false},
    {"commit at last", commit_all, false},
    {"close at last", close_all, false},
};

/* ---- judgement -------------------------------------------------------------------------- */

static void verify_document(void) {
  static uint64_t words[DOCUMENT_MAX / 8 + 1], expected[DOCUMENT_MAX / 8 + 1];
  uint64_t generation, published = atomic_load(&witness->published);
  size_t size;
  must(pl_table_read(table, words, sizeof words, &size, &generation), "reading the document");
  if (!atomic_load(&witness->has_document)) {
    if (size || generation <= published) die("a new table has a document");
  } else if (generation != published || size != document_of(published, expected) ||
             memcmp(words, expected, size)) {
    die("the document is not that of generation %" PRIu64, published);
  }
}

static void verify_slot(int i) {
  char name[32];
  int index;
  pl_entry entry, whole;
  pl_owner owner;
  int64_t acked = atomic_load(&witness->acked[i]);
  name_of(i, name);
  must(pl_table_find(table, name, strlen(name), i, false, WAIT_MS, &index), "finding a slot");
  if (index < 0) {
    if (acked) die("%s is gone", name);
    return;
  }
  must(pl_table_get(table, index, &entry, &owner, WAIT_MS), "reading a slot");
  int64_t found = entry.sequence ? entry.offset : 0;
  if (found != acked && found != atomic_load(&witness->begun[i]))
    die("%s has %" PRId64 ", acknowledged %" PRId64, name, found, acked);
  fill_entry(&whole, found);
  if (entry.sequence && (entry.text_size != whole.text_size ||
                         memcmp(entry.text, whole.text, whole.text_size)))
    die("%s: the note of another commit", name);
}

static void verify(void) {
  verify_document();
  for (int i = 0; i < NAMES; i++) verify_slot(i);
}

static void must_be_tidy(void) {
  DIR *entries = opendir(directory);
  for (struct dirent *entry; (entry = readdir(entries));)
    if (strstr(entry->d_name, ".tmp")) die("%s was left", entry->d_name);
  closedir(entries);
}

static void judge(pl_status status) {
  (void)status;
  if (table) verify();
  if (refusal.kind != CALL_UNLINK) must_be_tidy(); /* then it is what was not to be removed */
}

static void verify_afresh(void) {
  must(open_all(), "opening in another process");
  verify();
  must(publish(), "publishing in another process");
  must(commit_all(), "committing in another process");
  must(close_all(), "closing in another process");
}

static void begin(void) {
  FILE *bells = fopen(bells_path, "wb");
  if (!bells || ftruncate(fileno(bells), sizeof(pl_bells))) die("no doorbells");
  fclose(bells);
  memset(witness, 0, sizeof *witness);
}

static void name_file(char *path, const char *name) {
  must(pl_file_path(directory, name, path), "a path");
}

int main(int count, char **words) {
  if (count != 5) die("usage: table_faults DIRECTORY MODE FIRST STRIDE");
  directory = words[1];
  name_file(processes_path, "processes");
  name_file(bells_path, "doorbells");
  name_file(table_path, "group");
  witness = mmap(NULL, sizeof *witness, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  threads_run = true; /* a watcher, while who started it waits for it */
  const sweep all = {directory, script, sizeof script / sizeof *script, begin, judge,
                     verify_afresh};
  return sweep_all(&all, words + 2);
}
