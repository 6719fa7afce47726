/* Hostile bytes for a table file that is opened as if this boot had made it (pl_table.c), and for
 * one that is taken over after a reboot.
 *
 *     fuzz_table [seconds [seed [folder of golden files]]]
 *
 * The header's words, slots and entries of a good table are spoiled, the file cut or lengthened;
 * then all that a table can do is done. Beyond "no crash" it proves that what is returned is within
 * bounds, that a document or an entry that is returned is one that was written, and that no byte
 * behind the file's end was touched (there a mapping answers with SIGBUS).
 */
#define _GNU_SOURCE
#define FUZZER "fuzz_table"
#include "fuzz.h"

#include <fcntl.h>
#include <stdalign.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pl_table.h"

enum { NAMES = 20, HEADER = 4096, DOCUMENT_MAX = 20000 };

static struct counts {
  uint64_t opened, taken_over, refused, documents, entries, grown;
} counts;
static char path[64];
alignas(4096) static uint8_t good[1 << 20], spoiled[1 << 20];
static uint64_t good_size;

static void name_of(int i, char *out) { sprintf(out, "topic-%d", i); }

static bool is_refusal(pl_status status) {
  return status == PL_BUSY || status == PL_END || status == PL_NOT_READY ||
         status == PL_ERR_CORRUPT || status == PL_ERR_LIMIT;
}

/* ---- a good table ------------------------------------------------------------------------ */

static void commit(pl_table *table, int index, int64_t offset) {
  pl_entry entry = {.offset = offset, .text_size = (uint16_t)(offset % PL_TABLE_TEXT_MAX)};
  memset(entry.text, 'n', entry.text_size);
  CHECK(pl_table_commit(table, index, 0, atomic_load(&table->file->generation), &entry, 0) ==
        PL_OK);
}

static void make_good(void) {
  pl_table *table;
  char name[32];
  int index;
  CHECK(pl_table_open(path, "a group", &table) == PL_OK);
  for (int i = 0; i < NAMES; i++) {
    name_of(i, name);
    CHECK(pl_table_find(table, name, strlen(name), i, true, 0, &index) == PL_OK);
    for (int n = 0; n < i % 4; n++) commit(table, index, 1000 * i + n);
  }
  for (int i = 0; i < 3; i++) {
    memset(spoiled, 'd', 6000);
    CHECK(pl_table_publish(table, atomic_load(&table->file->generation), spoiled, 6000, 0) ==
          PL_OK);
  }
  pl_table_close(table);
  int fd = open(path, O_RDONLY);
  ssize_t size = read(fd, good, sizeof good);
  CHECK(size > HEADER && (size_t)size < sizeof good);
  good_size = (uint64_t)size;
  close(fd);
}

/* ---- spoiling it ------------------------------------------------------------------------- */

/* A number that is wrong by a little, or by much. */
static uint64_t draw_number(uint64_t was) {
  static const uint64_t hostile[] = {0, 1, 4095, 4096, 16384, 128 << 20, UINT32_MAX, INT64_MAX,
                                     UINT64_MAX, 1ull << 63};
  switch (below(4)) {
    case 0: return hostile[below(sizeof hostile / sizeof *hostile)];
    case 1: return was + 1024 * (below(65) - 32);
    case 2: return was ^ 1ull << below(64);
    default: return below(2 * good_size) & ~(one_in(2) ? 1023ull : 0);
  }
}

static void spoil_word(uint64_t start, uint64_t end) {
  uint64_t at = (start + below(end - start)) & ~7ull, was;
  memcpy(&was, spoiled + at, sizeof was);
  was = draw_number(was);
  memcpy(spoiled + at, &was, sizeof was);
}

/* Extents that are where they may be, or not there, but not those that are. */
static void spoil_places(void) {
  pl_table_file *file = (pl_table_file *)(void *)spoiled;
  for (uint64_t n = 1 + below(3); n > 0; n--)
    file->extents[below(3)] = one_in(2) ? 0 : file->extents[below(2)];
  if (one_in(2)) atomic_store(&file->slot_count, (uint32_t)below(120));
}

/* Where nothing was committed no CRC holds the size of a text. */
static void spoil_empty_entry(uint64_t extent) {
  pl_table_slot *slot = (pl_table_slot *)(void *)(spoiled + extent) + 4 * below(4);
  slot->entries[below(2)].text_size = (uint16_t)draw_number(0);
}

static void spoil(void) {
  uint64_t extent = ((pl_table_file *)(void *)good)->extents[0];
  for (uint64_t n = below(5); n > 0; n--) {
    if (one_in(3)) spoil_word(offsetof(pl_table_file, generation), sizeof(pl_table_file));
    else if (one_in(2)) spoil_word(offsetof(pl_table_file, size), sizeof(pl_table_file));
    else spoil_word(extent, extent + PL_TABLE_FIRST_SLOTS * sizeof(pl_table_slot));
  }
  if (one_in(8)) spoil_places();
  if (one_in(8)) spoil_empty_entry(extent);
  if (one_in(8)) mutate_once(spoiled, below(good_size) + 1);
  if (one_in(50)) memset(spoiled, (int)below(256), HEADER);
  if (one_in(50)) make_batch(spoiled); /* another kind of file */
}

static uint64_t draw_size(void) {
  if (one_in(200)) return below(32 << 20);
  if (one_in(6)) return below(good_size + 1);
  return one_in(6) ? good_size + below(1 << 18) : good_size;
}

/* Puts it in place; as this boot's own, mostly. */
static void write_spoiled(void) {
  struct stat info;
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  CHECK(fd >= 0 && fstat(fd, &info) == 0);
  pl_page_identity *identity = (pl_page_identity *)(void *)spoiled;
  if (!one_in(10)) {
    memcpy(identity, good, sizeof *identity);
    identity->device = (uint64_t)info.st_dev;
    identity->inode = (uint64_t)info.st_ino;
    if (one_in(4)) identity->boot_id[below(16)] ^= 1;
  }
  CHECK(ftruncate(fd, 0) == 0);
  CHECK(pwrite(fd, spoiled, good_size, 0) == (ssize_t)good_size);
  CHECK(ftruncate(fd, (off_t)draw_size()) == 0);
  close(fd);
}

/* ---- using it ---------------------------------------------------------------------------- */

static void use_document(pl_table *table) {
  static uint8_t out[1 << 18];
  uint64_t generation;
  size_t size = 0;
  size_t capacity = below(8192) + 1;
  uint8_t *exact = exactly(out, capacity);
  pl_status status = pl_table_read(table, exact, capacity, &size, &generation);
  if (status == PL_OK && size <= capacity) {
    for (size_t i = 0; i < size; i++) CHECK(exact[i] == 'd' || exact[i] == 'e');
    counts.documents++;
  }
  free(exact);
  CHECK(status == PL_OK || is_refusal(status));
  size_t wanted = one_in(2) ? below(6000) : below(DOCUMENT_MAX);
  memset(out, 'e', wanted);
  status = pl_table_publish(table, atomic_load(&table->file->generation), out, wanted, 0);
  CHECK(status == PL_OK || is_refusal(status));
  if (status != PL_OK) return;
  CHECK(pl_table_read(table, out, sizeof out, &size, &generation) == PL_OK && size == wanted);
}

static void use_slot(pl_table *table, int index) {
  pl_entry entry;
  pl_owner owner, me = {pl_table_new_owner(table), 7, 1};
  pl_status status = pl_table_get(table, index, &entry, &owner, 0);
  CHECK(status == PL_OK || is_refusal(status));
  if (status != PL_OK) return;
  CHECK(entry.text_size <= PL_TABLE_TEXT_MAX);
  for (int i = 0; entry.sequence && i < entry.text_size; i++) CHECK(entry.text[i] == 'n');
  counts.entries += entry.sequence != 0;
  CHECK(pl_table_own(table, index, owner.id, &me, 0, 0) == PL_OK);
  if (one_in(4)) CHECK(pl_table_forget(table, index, 0) == (me.id ? PL_END : PL_OK));
  entry = (pl_entry){.offset = 5, .text_size = (uint16_t)below(PL_TABLE_TEXT_MAX + 1)};
  memset(entry.text, 'n', entry.text_size);
  CHECK(pl_table_commit(table, index, me.id, atomic_load(&table->file->generation), &entry, 0) ==
        PL_OK);
}

static void use(pl_table *table) {
  char name[32];
  int index;
  if (one_in(2)) use_document(table);
  for (uint64_t n = below(40); n > 0; n--) {
    int i = (int)below(2 * NAMES);
    name_of(i, name);
    pl_status status = pl_table_find(table, name, strlen(name), i, one_in(2), 0, &index);
    CHECK(status == PL_OK || is_refusal(status));
    if (status != PL_OK || index < 0) continue;
    CHECK(index < (int)atomic_load(&table->file->slot_count));
    counts.grown += index >= NAMES;
    use_slot(table, index);
  }
  use_document(table);
}

static void execute(void) {
  pl_table *table = NULL;
  memcpy(spoiled, good, good_size);
  spoil();
  write_spoiled();
  uint64_t inode = ((pl_page_identity *)(void *)spoiled)->inode;
  pl_status status = pl_table_open(path, "a group", &table);
  if (status != PL_OK) {
    CHECK(status == PL_ERR_CORRUPT || status == PL_ERR_ENVIRONMENT || status == PL_ERR_FORMAT);
    counts.refused++;
    if (status != PL_ERR_CORRUPT) unlink(path);
    return;
  }
  counts.opened++;
  counts.taken_over += table->file->identity.inode != inode;
  use(table);
  pl_table_close(table);
}

int main(int argument_count, char **arguments) {
  snprintf(path, sizeof path, "%s/pylog-fuzz-%d", access("/dev/shm", W_OK) ? "." : "/dev/shm",
           (int)getpid());
  make_good();
  double seconds = fuzz(argument_count, arguments, execute);
  unlink(path);
  printf("fuzz_table: %" PRIu64 " executions in %.1f s, no finding; %" PRIu64 " opened (%" PRIu64
         " of them made anew), %" PRIu64 " refused, %" PRIu64 " documents, %" PRIu64
         " entries, %" PRIu64 " new slots\n",
         executions, seconds, counts.opened, counts.taken_over, counts.refused, counts.documents,
         counts.entries, counts.grown);
  return 0;
}
