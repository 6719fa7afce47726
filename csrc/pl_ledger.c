/* Ledgers: made, entered, and their doubts noted. */
#include "pl_ledger.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "pl_file.h"

static const char MAGIC[8] = {'p', 'l', 'L', 'E', 'D', 'G', 'E', 'R'};
enum { LAYOUT = 1 };

static pl_status identify(pl_ledger *self, const char *path, uint64_t run, uint32_t producer) {
  static const char blank[8];
  if (!memcmp(self->magic, blank, 8) && run) {
    self->layout = LAYOUT;
    self->producer = producer;
    self->run = run;
    atomic_thread_fence(memory_order_release);
    memcpy(self->magic, MAGIC, 8);
  }
  if (memcmp(self->magic, MAGIC, 8) || self->layout != LAYOUT)
    return pl_fail(PL_ERR_FORMAT, path, "this is no ledger of this version of pylog; remove it");
  if (atomic_load(&self->span_count) > PL_LEDGER_SPANS)
    return pl_fail(PL_ERR_FORMAT, path, "the ledger is damaged: too many spans; remove it");
  if (run && (self->run != run || self->producer != producer))
    return pl_fail(PL_ERR_CONFIG, path,
                   "the ledger belongs to producer %u of another run; use an empty directory",
                   self->producer);
  return PL_OK;
}

static pl_status map_ledger(int fd, const char *path, bool is_new, uint8_t **data) {
  uint64_t size;
  /* Real blocks: a full disk must not become a SIGBUS in the middle of a run. */
  if (is_new) PL_TRY(pl_file_reserve(fd, path, sizeof(pl_ledger), 0));
  PL_TRY(pl_file_size(fd, path, &size));
  if (size != sizeof(pl_ledger))
    return pl_fail(PL_ERR_FORMAT, path, "this is no ledger: %llu bytes instead of %zu; remove it",
                   (unsigned long long)size, sizeof(pl_ledger));
  return pl_file_map(fd, path, sizeof(pl_ledger), is_new, data);
}

pl_status pl_ledger_open(const char *path, uint64_t run, uint32_t producer, pl_ledger **out) {
  int fd;
  uint8_t *data = NULL;
  PL_TRY(pl_file_open(path, run ? O_RDWR | O_CREAT : O_RDONLY, &fd));
  pl_status status = map_ledger(fd, path, run != 0, &data);
  pl_file_close(fd);
  if (status != PL_OK) return status;
  pl_ledger *self = (pl_ledger *)(void *)data;
  status = identify(self, path, run, producer);
  if (status != PL_OK) {
    pl_ledger_close(self);
    return status;
  }
  *out = self;
  return PL_OK;
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
