/* Ledgers: made, entered, and their doubts noted. */
#include "pl_ledger.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pl_file.h"

static const char MAGIC[8] = {'p', 'l', 'L', 'E', 'D', 'G', 'E', 'R'};
enum { LAYOUT = 1 };

static uint64_t room(const pl_ledger *self) {
  return (self->size - offsetof(pl_ledger_file, spans)) / sizeof(pl_span);
}

static pl_status identify(const pl_ledger *self, uint64_t run, uint32_t producer) {
  const pl_ledger_file *file = self->file;
  if (memcmp(file->magic, MAGIC, 8) || file->layout != LAYOUT)
    return pl_fail(PL_ERR_FORMAT, self->path,
                   "this is no ledger of this version of pylog; remove it");
  uint64_t settled = atomic_load(&file->settled); /* first: `sent` is never behind it */
  if (atomic_load(&file->span_count) > room(self) || settled > atomic_load(&file->sent))
    return pl_fail(PL_ERR_FORMAT, self->path, "the ledger is damaged; remove it");
  if (run && (file->run != run || file->producer != producer))
    return pl_fail(PL_ERR_CONFIG, self->path,
                   "the ledger belongs to producer %u of another run; use an empty directory",
                   file->producer);
  return PL_OK;
}

static pl_status map_ledger(pl_ledger *self, int flags) {
  int fd;
  uint8_t *data = NULL;
  PL_TRY(pl_file_open(self->path, flags, &fd));
  /* Real blocks: a full disk must not become a SIGBUS in the middle of a run. */
  pl_status status =
      flags & O_CREAT ? pl_file_reserve(fd, self->path, PL_LEDGER_BYTES, 0) : PL_OK;
  if (status == PL_OK) status = pl_file_size(fd, self->path, &self->size);
  if (status == PL_OK && (self->size < PL_LEDGER_BYTES || self->size > PL_LEDGER_BYTES_MAX))
    status = pl_fail(PL_ERR_FORMAT, self->path,
                     "this is no ledger: %llu bytes, not %d to %d; remove it",
                     (unsigned long long)self->size, PL_LEDGER_BYTES, PL_LEDGER_BYTES_MAX);
  if (status == PL_OK)
    status = pl_file_map(fd, self->path, PL_LEDGER_BYTES_MAX, (flags & O_ACCMODE) != O_RDONLY,
                         &data);
  pl_file_close(fd);
  self->file = (pl_ledger_file *)(void *)data;
  return status;
}

static pl_status open_ledger(const char *path, int flags, pl_ledger **out) {
  size_t size = strlen(path) + 1;
  pl_ledger *self = calloc(1, sizeof *self + size);
  if (!self) return pl_fail(PL_ERR_NO_MEMORY, path, "no memory for the ledger; free some");
  memcpy(self->path, path, size);
  pl_status status = map_ledger(self, flags);
  if (status == PL_OK) *out = self;
  else pl_ledger_close(self);
  return status;
}

/* Under another name first: who is killed in here leaves no half ledger. */
static pl_status make_ledger(const char *path, uint64_t run, uint32_t producer) {
  char unfinished[PL_PATH_MAX];
  pl_ledger *made;
  if (snprintf(unfinished, sizeof unfinished, "%s.tmp", path) >= (int)sizeof unfinished)
    return pl_fail(PL_ERR_CONFIG, path, "the path is too long; use a shorter one");
  PL_TRY(open_ledger(unfinished, O_RDWR | O_CREAT | O_TRUNC, &made));
  memcpy(made->file->magic, MAGIC, 8);
  made->file->layout = LAYOUT;
  made->file->producer = producer;
  made->file->run = run;
  pl_ledger_close(made);
  return pl_file_rename(unfinished, path);
}

pl_status pl_ledger_open(const char *path, uint64_t run, uint32_t producer, pl_ledger **out) {
  pl_ledger *self;
  if (run && !pl_file_exists(path)) PL_TRY(make_ledger(path, run, producer));
  PL_TRY(open_ledger(path, run ? O_RDWR : O_RDONLY, &self));
  pl_status status = identify(self, run, producer);
  if (status == PL_OK) *out = self;
  else pl_ledger_close(self);
  return status;
}

void pl_ledger_close(pl_ledger *self) {
  pl_file_unmap((uint8_t *)self->file, PL_LEDGER_BYTES_MAX);
  free(self);
}

/* Twice the size, with real blocks. */
static pl_status grow(pl_ledger *self) {
  int fd;
  uint64_t size = 2 * self->size < PL_LEDGER_BYTES_MAX ? 2 * self->size : PL_LEDGER_BYTES_MAX;
  if (size == self->size)
    return pl_fail(PL_ERR_LIMIT, self->path, "the ledger has room for %llu doubts and no more: a "
                   "run with that many faults is to be a shorter one",
                   (unsigned long long)room(self));
  PL_TRY(pl_file_open(self->path, O_RDWR, &fd));
  pl_status status = pl_file_reserve(fd, self->path, size, 0);
  pl_file_close(fd);
  if (status == PL_OK) self->size = size;
  return status;
}

pl_status pl_ledger_doubt(pl_ledger *self, pl_span_kind kind) {
  pl_ledger_file *file = self->file;
  uint64_t start = atomic_load(&file->settled), end = atomic_load(&file->sent);
  uint32_t count = atomic_load(&file->span_count);
  pl_span *last = count ? &file->spans[count - 1] : NULL;
  if (start == end) return PL_OK;
  /* Who died between the two stores below left the span and not its settlement. */
  bool is_noted = last && last->end == end;
  bool is_longer = last && last->end == start && last->kind == kind;
  if (!is_noted && !is_longer) {
    /* Half the room early: what is in the way of a file that grows is a fault that ends. */
    pl_status status = count < room(self) / 2 ? PL_OK : grow(self);
    if (count == room(self)) return status;
    file->spans[count] = (pl_span){start, end, kind};
    atomic_store_explicit(&file->span_count, count + 1, memory_order_release);
  } else if (is_longer) {
    last->end = end;
  }
  atomic_store_explicit(&file->settled, end, memory_order_release);
  return PL_OK;
}

pl_status pl_ledger_enter(pl_ledger *self, uint32_t *incarnation) {
  PL_TRY(pl_ledger_doubt(self, PL_SPAN_INDETERMINATE));
  *incarnation = atomic_fetch_add(&self->file->incarnation, 1) + 1;
  atomic_store(&self->file->pid, (uint32_t)getpid());
  return PL_OK;
}
