/* The document, the slots, and what is taken over into a new file after a reboot. */
#define _GNU_SOURCE
#include "pl_table.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pl_clock.h"
#include "pl_crc32c.h"
#include "pl_fault.h"
#include "pl_log.h"

enum {
  PAGE = 4096,
  HEADER = PAGE,
  FIRST_DOCUMENT = PAGE,
  FIRST_BYTES = HEADER + 2 * FIRST_DOCUMENT + PL_TABLE_FIRST_SLOTS * sizeof(pl_table_slot),
  BYTES_MAX = 128 << 20,
  SLOTS_MAX = PL_TABLE_FIRST_SLOTS * ((1 << PL_TABLE_EXTENTS) - 1),
};

_Static_assert(sizeof(pl_table_file) <= HEADER, "the header outgrew its page");
_Static_assert(sizeof(pl_table_slot) == 1024, "eight to a page and a half: mind the padding");
_Static_assert(SLOTS_MAX * sizeof(pl_table_slot) < BYTES_MAX - (32 << 20), "no room for documents");

/* Slots lie in extents of 16, 32, 64, ...: none ever moves. */
static int extent_of(int index, int *within) {
  int extent = 31 - __builtin_clz((unsigned)index / PL_TABLE_FIRST_SLOTS + 1);
  *within = index - PL_TABLE_FIRST_SLOTS * ((1 << extent) - 1);
  return extent;
}

static size_t extent_bytes(int extent) {
  return ((size_t)PL_TABLE_FIRST_SLOTS << extent) * sizeof(pl_table_slot);
}

static pl_table_slot *slot_at(uint8_t *data, int index) {
  int within, extent = extent_of(index, &within);
  pl_table_file *file = (pl_table_file *)(void *)data;
  return (pl_table_slot *)(void *)(data + file->extents[extent]) + within;
}

pl_table_slot *pl_table_at(pl_table *self, int index) { return slot_at(self->shared.data, index); }

/* ---- entries ----------------------------------------------------------------------------- */

static uint32_t crc_of(const pl_entry *entry) {
  const uint8_t *start = (const uint8_t *)entry + offsetof(pl_entry, text_size);
  return pl_crc32c(start, offsetof(pl_entry, text) - offsetof(pl_entry, text_size) +
                              entry->text_size);
}

static bool is_whole(const pl_entry *entry) {
  return entry->sequence && entry->text_size <= PL_TABLE_TEXT_MAX && entry->crc == crc_of(entry);
}

static uint16_t name_check_of(const pl_table_slot *slot) {
  uint32_t crc = pl_crc32c(&slot->number, sizeof slot->number);
  return (uint16_t)pl_crc32c_extend(crc, slot->name, slot->name_size);
}

/* Of one that is whole: of another the size may be any. */
static void copy_entry(pl_entry *to, const pl_entry *from) {
  memcpy(to, from, offsetof(pl_entry, text) + from->text_size);
}

/* ---- a new file, and what it takes over -------------------------------------------------- */

/* All that the old file says is checked: it may be torn by a power cut, or not be a table. */
static void take_over(uint8_t *data, size_t size, const uint8_t *old, size_t old_size) {
  pl_table_file *file = (pl_table_file *)(void *)data;
  const pl_table_file *had = (const pl_table_file *)(const void *)old;
  if (old_size < FIRST_BYTES || had->identity.magic != file->identity.magic) return;
  uint64_t generation = atomic_load(&had->generation), next = atomic_load(&had->next_owner);
  /* Even, so that the first, empty document is the one that holds. */
  if (generation < (uint64_t)1 << 52) atomic_store(&file->generation, (generation / 2 + 1) * 2);
  if (next < (uint64_t)1 << 52) atomic_store(&file->next_owner, next);
  uint32_t taken = 0;
  for (int i = 0; i < SLOTS_MAX && (uint32_t)i < atomic_load(&had->slot_count); i++) {
    int within, extent = extent_of(i, &within);
    uint64_t at = had->extents[extent];
    if (at == 0 || at % 128 || at > old_size || old_size - at < extent_bytes(extent)) break;
    const pl_table_slot *from = (const pl_table_slot *)(const void *)(old + at) + within;
    bool holds[2] = {is_whole(&from->entries[0]), is_whole(&from->entries[1])};
    if (from->name_size > PL_TABLE_NAME_MAX || from->name_check != name_check_of(from) ||
        !(holds[0] || holds[1]))
      continue;
    int newer = !holds[0] || (holds[1] && from->entries[1].sequence > from->entries[0].sequence);
    extent = extent_of((int)taken, &within);
    if (!file->extents[extent]) {
      if (size - file->size < extent_bytes(extent)) break;
      file->extents[extent] = file->size;
      file->size += extent_bytes(extent);
    }
    pl_table_slot *to = slot_at(data, (int)taken++);
    to->number = from->number;
    to->name_size = from->name_size;
    memcpy(to->name, from->name, from->name_size);
    to->name_check = from->name_check;
    copy_entry(&to->entries[0], &from->entries[newer]);
  }
  atomic_store(&file->slot_count, taken);
}

static void fill(uint8_t *data, size_t size, const uint8_t *old, size_t old_size, void *context) {
  pl_table_file *file = (pl_table_file *)(void *)data;
  strncpy(file->name, context, PL_TABLE_NAME_MAX);
  atomic_store(&file->generation, 2);
  atomic_store(&file->next_owner, 1);
  file->documents[0] = (pl_document){HEADER, FIRST_DOCUMENT, 0, 0};
  file->documents[1] = (pl_document){HEADER + FIRST_DOCUMENT, FIRST_DOCUMENT, 0, 0};
  file->extents[0] = HEADER + 2 * FIRST_DOCUMENT;
  file->size = FIRST_BYTES;
  if (old) take_over(data, size, old, old_size);
}

static const pl_shared_kind KIND = {
    .noun = "the table",
    .magic = 0x6c6261742d796c31u, /* "1ly-tabl" */
    .layout = 2,
    .bytes = FIRST_BYTES,
    .bytes_max = BYTES_MAX,
    .is_kept = true,
    .fill = fill,
};

/* A place behind the header, in the `size` bytes that are in use. */
static bool is_inside(uint64_t position, uint64_t bytes, uint64_t size) {
  return position >= HEADER && position <= size && size - position >= bytes;
}

static bool are_sound(const uint64_t *extents, uint32_t slot_count, uint64_t size) {
  uint64_t slots = 0;
  bool is_behind_last = false;
  for (int i = 0; i < PL_TABLE_EXTENTS; i++) {
    uint64_t at = extents[i];
    if (at && (is_behind_last || at % sizeof(pl_table_slot) ||
               !is_inside(at, extent_bytes(i), size)))
      return false;
    is_behind_last |= !at;
    if (at) slots += (uint64_t)PL_TABLE_FIRST_SLOTS << i;
  }
  return slot_count <= slots;
}

/* Where the slots are said to lie, checked once: they never move. Who grows the table meanwhile
 * stores the file's size, ours, the place and the count in this order; they are read backwards. */
static pl_status check_places(const pl_table *self) {
  const pl_table_file *file = self->file;
  uint64_t extents[PL_TABLE_EXTENTS], file_size;
  uint32_t slot_count = atomic_load(&file->slot_count);
  memcpy(extents, file->extents, sizeof extents);
  atomic_thread_fence(memory_order_acquire);
  uint64_t size = file->size;
  PL_TRY(pl_file_size(self->shared.fd, self->shared.path, &file_size));
  if (size >= FIRST_BYTES && size <= BYTES_MAX && size <= file_size &&
      are_sound(extents, slot_count, size))
    return PL_OK;
  return pl_fail_corrupt(self->shared.path, -1, -1, -1,
                         "the table is damaged; stop all that use it, and remove this file: the "
                         "offsets committed in it go with it");
}

pl_status pl_table_open(const char *path, const char *name, pl_table **out) {
  char held[PL_TABLE_NAME_MAX + 1] = "";
  pl_table *self = calloc(1, sizeof *self);
  if (!self) return pl_fail(PL_ERR_NO_MEMORY, path, "there is no memory for the table");
  strncpy(held, name, PL_TABLE_NAME_MAX);
  pl_status status = pl_shared_open(path, &KIND, held, &self->shared);
  self->file = (pl_table_file *)(void *)self->shared.data;
  pl_forks_count();
  self->fork_generation = pl_forks;
  if (status == PL_OK) status = check_places(self);
  if (status == PL_OK) *out = self;
  else pl_table_close(self);
  return status;
}

void pl_table_let_go(pl_table *self) { pl_shared_let_go(&self->shared); }

void pl_table_close(pl_table *self) {
  pl_shared_close(&self->shared);
  free(self);
}

pl_status pl_table_remove(pl_table *self) {
  return pl_shared_remove(&self->shared);
}

/* The kernel takes pages for clean that it could not write, and the next sync would say yes: all
 * are made dirty again. */
pl_status pl_table_sync(pl_table *self) {
  pl_status status = pl_file_sync(self->shared.fd, self->shared.path);
  for (uint64_t at = 0; status != PL_OK && at < self->file->size; at += PAGE)
    atomic_fetch_add((_Atomic uint32_t *)(void *)(self->shared.data + at), 0);
  return status;
}

/* ---- locks ------------------------------------------------------------------------------- */

/* A death inside left nothing half done: each change is published by one word. */
static pl_status lock(pl_slot *slot, int wait_ms) {
  pl_lock_result result = pl_slot_try(slot);
  if (result == PL_LOCK_BUSY) result = pl_slot_wait(slot, wait_ms);
  return result == PL_LOCK_BUSY ? PL_BUSY : PL_OK;
}

/* `bytes` more at the end of the file; with its lock held. They are taken before anybody is told
 * where they are: who dies in between leaves them to nobody, and not to two. */
static pl_status grow(pl_table *self, size_t bytes, uint64_t *position) {
  if (self->file->size > BYTES_MAX || BYTES_MAX - self->file->size < bytes)
    return pl_fail(PL_ERR_LIMIT, self->shared.path,
                   "the table has no room for more; use fewer partitions in this group");
  uint64_t at = self->file->size;
  PL_TRY(pl_file_reserve(self->shared.fd, self->shared.path, at + bytes, 0));
  self->file->size = at + bytes;
  PL_POINT("table-grown");
  atomic_thread_fence(memory_order_release);
  *position = at;
  return PL_OK;
}

/* ---- the document ------------------------------------------------------------------------ */

static bool has_place(const pl_table *self, const pl_document *document) {
  return is_inside(document->position, document->capacity, self->file->size);
}

static pl_status damaged(const pl_table *self, const pl_document *document) {
  return pl_fail_corrupt(self->shared.path, (int64_t)document->position, -1, -1,
                         "the members of the group are damaged; stop all of them, and remove "
                         "this file: its committed offsets go with it");
}

pl_status pl_table_read(pl_table *self, void *out, size_t capacity, size_t *size,
                        uint64_t *generation) {
  uint64_t seen = atomic_load_explicit(&self->file->generation, memory_order_acquire);
  pl_document document = self->file->documents[seen & 1];
  bool fits = document.size <= document.capacity && has_place(self, &document);
  if (fits && document.size <= capacity)
    memcpy(out, self->shared.data + document.position, document.size);
  atomic_thread_fence(memory_order_acquire);
  if (atomic_load(&self->file->generation) != seen) return PL_NOT_READY;
  if (!fits || (document.size <= capacity && pl_crc32c(out, document.size) != document.crc))
    return damaged(self, &document);
  *size = document.size;
  *generation = seen;
  return PL_OK;
}

static pl_status publish(pl_table *self, uint64_t generation, const void *bytes, size_t size) {
  pl_document *document = &self->file->documents[(generation + 1) & 1];
  if (!has_place(self, document)) return damaged(self, document);
  if (size > document->capacity) {
    size_t capacity = FIRST_DOCUMENT;
    uint64_t position = 0;
    while (capacity < size) capacity *= 2;
    PL_TRY(grow(self, capacity, &position));
    document->size = 0;
    document->position = position;
    document->capacity = capacity;
  }
  memcpy(self->shared.data + document->position, bytes, size);
  document->size = size;
  document->crc = pl_crc32c(bytes, size);
  PL_POINT("table-document-written");
  atomic_store_explicit(&self->file->generation, generation + 1, memory_order_release);
  atomic_fetch_add(&self->file->changes, 1);
  return PL_OK;
}

pl_status pl_table_publish(pl_table *self, uint64_t generation, const void *bytes, size_t size,
                           int wait_ms) {
  PL_TRY(lock(&self->file->lock, wait_ms));
  pl_status status = PL_END;
  if (atomic_load(&self->file->generation) == generation)
    status = publish(self, generation, bytes, size);
  pl_slot_release(&self->file->lock);
  return status;
}

/* ---- slots ------------------------------------------------------------------------------- */

static int search(pl_table *self, const char *name, size_t size, int32_t number, int from) {
  int count = (int)atomic_load_explicit(&self->file->slot_count, memory_order_acquire);
  for (int i = from; i < count && i < SLOTS_MAX; i++) {
    const pl_table_slot *slot = pl_table_at(self, i);
    if (slot->number == number && slot->name_size == size && memcmp(slot->name, name, size) == 0)
      return i;
  }
  return -1;
}

static pl_status add(pl_table *self, const char *name, size_t size, int32_t number, int *index) {
  uint32_t count = atomic_load(&self->file->slot_count);
  int within;
  if (count >= SLOTS_MAX)
    return pl_fail(PL_ERR_LIMIT, self->shared.path,
                   "the table has %u slots, which is all it can; use fewer partitions", count);
  int extent = extent_of((int)count, &within);
  if (!self->file->extents[extent])
    PL_TRY(grow(self, extent_bytes(extent), &self->file->extents[extent]));
  pl_table_slot *slot = pl_table_at(self, (int)count);
  memset(slot, 0, sizeof *slot);
  slot->number = number;
  slot->name_size = (uint32_t)size;
  memcpy(slot->name, name, size);
  slot->name_check = name_check_of(slot);
  PL_POINT("table-slot-filled");
  atomic_store_explicit(&self->file->slot_count, count + 1, memory_order_release);
  *index = (int)count;
  return PL_OK;
}

pl_status pl_table_find(pl_table *self, const char *name, size_t size, int32_t number, bool make,
                        int wait_ms, int *index) {
  if (size > PL_TABLE_NAME_MAX)
    return pl_fail(PL_ERR_CONFIG, self->shared.path, "a name of %zu bytes; use %d at most", size,
                   PL_TABLE_NAME_MAX);
  if ((*index = search(self, name, size, number, 0)) >= 0 || !make) return PL_OK;
  PL_TRY(lock(&self->file->lock, wait_ms));
  pl_status status = PL_OK;
  if ((*index = search(self, name, size, number, 0)) < 0)
    status = add(self, name, size, number, index);
  pl_slot_release(&self->file->lock);
  return status;
}

pl_status pl_table_own(pl_table *self, int index, uint64_t was, const pl_owner *now,
                       uint64_t generation, int wait_ms) {
  pl_table_slot *slot = pl_table_at(self, index);
  PL_TRY(lock(&slot->lock, wait_ms));
  pl_status status = PL_END;
  if (atomic_load(&slot->owner) == was &&
      (!generation || atomic_load(&self->file->generation) == generation)) {
    slot->owner_nonce = now->nonce; /* before the owner: who dies here was not yet one */
    slot->owner_process = now->process;
    PL_POINT("table-owner-named");
    atomic_store_explicit(&slot->owner, now->id, memory_order_release);
    atomic_fetch_add(&self->file->changes, 1);
    status = PL_OK;
  }
  pl_slot_release(&slot->lock);
  return status;
}

static void put(pl_table_slot *slot, pl_entry *entry) {
  uint32_t current = atomic_load(&slot->current) & 1;
  entry->sequence = slot->entries[current].sequence + 1;
  entry->flags = 0;
  entry->crc = crc_of(entry);
  copy_entry(&slot->entries[!current], entry);
  PL_POINT("table-entry-written");
  atomic_store_explicit(&slot->current, !current, memory_order_release);
}

pl_status pl_table_commit(pl_table *self, int index, uint64_t owner, uint64_t generation,
                          pl_entry *entry, int wait_ms) {
  pl_table_slot *slot = pl_table_at(self, index);
  entry->time_ms = pl_clock_ms();
  PL_TRY(lock(&slot->lock, wait_ms));
  pl_status status = PL_OK;
  if (atomic_load(&self->file->generation) != generation) status = PL_NOT_READY;
  else if (atomic_load(&slot->owner) != owner) status = PL_END;
  else put(slot, entry);
  pl_slot_release(&slot->lock);
  if (status == PL_OK) atomic_fetch_add_explicit(&self->file->commits, 1, memory_order_relaxed);
  return status;
}

pl_status pl_table_get(pl_table *self, int index, pl_entry *entry, pl_owner *owner, int wait_ms) {
  pl_table_slot *slot = pl_table_at(self, index);
  PL_TRY(lock(&slot->lock, wait_ms));
  const pl_entry *current = &slot->entries[atomic_load(&slot->current) & 1];
  bool is_good = is_whole(current), is_none = !current->sequence;
  if (is_good) copy_entry(entry, current);
  else *entry = (pl_entry){0};
  *owner = (pl_owner){atomic_load(&slot->owner), slot->owner_nonce, slot->owner_process};
  pl_slot_release(&slot->lock);
  if (is_good || is_none) return PL_OK;
  return pl_fail_corrupt(self->shared.path, (uint8_t *)slot - self->shared.data, -1, -1,
                         "a committed offset is damaged; commit another, or reset the group");
}

pl_status pl_table_forget(pl_table *self, int index, int wait_ms) {
  pl_table_slot *slot = pl_table_at(self, index);
  PL_TRY(lock(&slot->lock, wait_ms));
  uint32_t current = atomic_load(&slot->current) & 1;
  bool is_free = !atomic_load(&slot->owner);
  if (is_free) {
    slot->entries[!current].sequence = 0;
    slot->entries[current].sequence = 0;
  }
  pl_slot_release(&slot->lock);
  return is_free ? PL_OK : PL_END;
}
