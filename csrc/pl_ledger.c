/* Ledgers: made, entered, and their doubts noted. */
#include "pl_ledger.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pl_file.h"

static const char MAGIC[8] = {'p', 'l', 'L', 'E', 'D', 'G', 'E', 'R'};
enum { LAYOUT = 1 };

static pl_status identify(const pl_ledger *self, const char *path, uint64_t run,
                          uint32_t producer) {
  if (memcmp(self->magic, MAGIC, 8) || self->layout != LAYOUT)
    return pl_fail(PL_ERR_FORMAT, path, "this is no ledger of this version of pylog; remove it");
  uint64_t settled = atomic_load(&self->settled); /* first: `sent` is never behind it */
  if (atomic_load(&self->span_count) > PL_LEDGER_SPANS || settled > atomic_load(&self->sent))
    return pl_fail(PL_ERR_FORMAT, path, "the ledger is damaged; remove it");
  if (run && (self->run != run || self->producer != producer))
    return pl_fail(PL_ERR_CONFIG, path,
                   "the ledger belongs to producer %u of another run; use an empty directory",
                   self->producer);
  return PL_OK;
}

static pl_status map_ledger(const char *path, int flags, bool is_new, pl_ledger **out) {
  int fd;
  uint64_t size;
  uint8_t *data = NULL;
  PL_TRY(pl_file_open(path, flags, &fd));
  /* Real blocks: a full disk must not become a SIGBUS in the middle of a run. */
  pl_status status = is_new ? pl_file_reserve(fd, path, sizeof(pl_ledger), 0) : PL_OK;
  if (status == PL_OK) status = pl_file_size(fd, path, &size);
  if (status == PL_OK && size != sizeof(pl_ledger))
    status = pl_fail(PL_ERR_FORMAT, path, "this is no ledger: %llu bytes, not %zu; remove it",
                     (unsigned long long)size, sizeof(pl_ledger));
  if (status == PL_OK)
    status = pl_file_map(fd, path, sizeof(pl_ledger), (flags & O_ACCMODE) != O_RDONLY, &data);
  pl_file_close(fd);
  *out = (pl_ledger *)(void *)data;
  return status;
}

/* Under another name first: who is killed in here leaves no half ledger. */
static pl_status make_ledger(const char *path, uint64_t run, uint32_t producer) {
  char unfinished[PL_PATH_MAX];
  pl_ledger *made;
  if (snprintf(unfinished, sizeof unfinished, "%s.tmp", path) >= (int)sizeof unfinished)
    return pl_fail(PL_ERR_CONFIG, path, "the path is too long; use a shorter one");
  PL_TRY(map_ledger(unfinished, O_RDWR | O_CREAT | O_TRUNC, true, &made));
  memcpy(made->magic, MAGIC, 8);
  made->layout = LAYOUT;
  made->producer = producer;
  made->run = run;
  pl_ledger_close(made);
  return pl_file_rename(unfinished, path);
}

pl_status pl_ledger_open(const char *path, uint64_t run, uint32_t producer, pl_ledger **out) {
  pl_ledger *self;
  if (run && !pl_file_exists(path)) PL_TRY(make_ledger(path, run, producer));
  PL_TRY(map_ledger(path, run ? O_RDWR : O_RDONLY, false, &self));
  pl_status status = identify(self, path, run, producer);
  if (status == PL_OK) *out = self;
  else pl_ledger_close(self);
  return status;
}

void pl_ledger_close(pl_ledger *self) { pl_file_unmap((uint8_t *)self, sizeof(pl_ledger)); }

pl_status pl_ledger_doubt(pl_ledger *self, pl_span_kind kind) {
  uint64_t start = atomic_load(&self->settled), end = atomic_load(&self->sent);
  uint32_t count = atomic_load(&self->span_count);
  if (start == end) return PL_OK;
  /* Who died between the two stores below left the span and not its settlement. */
  if (count && self->spans[count - 1].end == end) {
    atomic_store_explicit(&self->settled, end, memory_order_release);
    return PL_OK;
  }
  if (count && self->spans[count - 1].end == start && self->spans[count - 1].kind == kind) {
    self->spans[count - 1].end = end;
    atomic_store_explicit(&self->settled, end, memory_order_release);
    return PL_OK;
  }
  if (count == PL_LEDGER_SPANS)
    return pl_fail(PL_ERR_LIMIT, NULL, "the ledger has room for %d doubts and no more: a run with "
                   "that many faults is to be a shorter one", PL_LEDGER_SPANS);
  self->spans[count] = (pl_span){start, end, kind};
  atomic_store_explicit(&self->span_count, count + 1, memory_order_release);
  atomic_store_explicit(&self->settled, end, memory_order_release);
  return PL_OK;
}

pl_status pl_ledger_enter(pl_ledger *self, uint32_t *incarnation) {
  PL_TRY(pl_ledger_doubt(self, PL_SPAN_INDETERMINATE));
  *incarnation = atomic_fetch_add(&self->incarnation, 1) + 1;
  atomic_store(&self->pid, (uint32_t)getpid());
  return PL_OK;
}
