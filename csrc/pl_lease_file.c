/* The file of a share: made, opened, and made anew out of what a reboot left of it. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "pl_lease.h"

enum { BYTES = (sizeof(pl_leases_file) + 4095) / 4096 * 4096 };

typedef struct making {
  const pl_leases_terms *terms;
  uint64_t incarnation;
} making;

/* ---- a new file, and what it takes over ------------------------------------------------------ */

static bool has_start(const pl_leases_head *had, int64_t *start) {
  bool is_known = false;
  for (int i = 0; i < 2; i++) {
    const pl_leases_mark *mark = &had->marks[i];
    if (mark->check != pl_leases_mark_check(mark->start, had->incarnation) || mark->start < 0)
      continue;
    if (!is_known || mark->start > *start) *start = mark->start;
    is_known = true;
  }
  return is_known;
}

/* Each lease speaks for itself, if its check agrees: a page of the file may be older than the next.
 * Of a record that none speaks of it is not known whether it was done, so it is done again. */
static void take_over(pl_leases_file *file, const pl_leases_file *had, int64_t start) {
  uint64_t count = 0;
  for (uint32_t i = 0; i < PL_LEASES; i++) {
    const pl_lease *from = &had->leases[i];
    uint64_t number = (uint64_t)from->offset - (uint64_t)start;
    if (from->state == PL_LEASE_NONE || from->check != pl_lease_check(from) ||
        from->offset < start || number >= PL_LEASES)
      continue;
    pl_lease *to = &file->leases[number];
    to->offset = from->offset;
    to->deliveries = from->deliveries;
    to->bucket = from->bucket;
    to->is_keyed = from->is_keyed;
    to->state = from->state == PL_LEASE_DONE ? PL_LEASE_DONE : PL_LEASE_READY;
    if (number >= count) count = number + 1;
  }
  for (uint64_t number = 0; number < count; number++) {
    pl_lease *lease = &file->leases[number];
    if (lease->state == PL_LEASE_NONE) {
      if (file->head.is_ordered) count = number; /* its key is not known */
      lease->offset = start + (int64_t)number;
      lease->state = PL_LEASE_READY;
    }
    lease->check = pl_lease_check(lease);
  }
  file->last = count;
  file->next_offset = start + (int64_t)count;
  pl_leases_rebuild(file);
}

static void fill(uint8_t *data, size_t size, const uint8_t *old, size_t old_size, void *context) {
  pl_leases_file *file = (pl_leases_file *)(void *)data;
  const pl_leases_file *had = (const pl_leases_file *)(const void *)old;
  const making *what = context;
  int64_t start = what->terms->start;
  (void)size;
  strncpy(file->head.name, what->terms->name, PL_LEASE_NAME_MAX);
  file->head.incarnation = what->incarnation;
  bool was_made = had && old_size >= BYTES && had->head.incarnation == what->incarnation &&
                  had->head.identity.magic == file->head.identity.magic;
  file->head.is_ordered = was_made ? had->head.is_ordered : what->terms->is_ordered > 0;
  file->head.keeps_records = was_made ? had->head.keeps_records : what->terms->keeps_records;
  file->expiry_ms = file->due_ms = INT64_MAX;
  file->deaths = UINT64_MAX; /* looked at by the first take */
  pl_lock_init(&file->listen);
  bool is_known = was_made && has_start(&had->head, &start);
  file->next_offset = start;
  for (int i = 0; i < 2; i++)
    file->head.marks[i] =
        (pl_leases_mark){start, pl_leases_mark_check(start, file->head.incarnation)};
  if (is_known) take_over(file, had, start);
}

static const pl_shared_kind KIND = {
    .noun = "the leases of a share group",
    .magic = 0x6165736c2d796c31u, /* "1ly-lsea" */
    .layout = 1,
    .bytes = BYTES,
    .bytes_max = BYTES,
    .is_kept = true,
    .fill = fill,
};

/* ---- opening -------------------------------------------------------------------------------- */

static pl_status check_terms(const pl_leases *self, const pl_leases_terms *terms) {
  const pl_leases_file *file = self->file;
  if (file->last - file->first > PL_LEASES || file->next_offset < 0)
    return pl_fail_corrupt(self->shared.path, -1, -1, -1,
                           "the leases are damaged; stop all that use them, and remove this file: "
                           "what was not done, and some that was, is done again");
  if (terms->is_ordered >= 0 && file->head.is_ordered != terms->is_ordered)
    return pl_fail(PL_ERR_CONFIG, self->shared.path,
                   "the share group %s keep the order of a key; open it as it was made",
                   file->head.is_ordered ? "was made to" : "was not made to");
  return PL_OK;
}

static pl_status open_it(pl_leases *self, const char *path, const pl_leases_terms *terms,
                         uint64_t incarnation) {
  making what = {terms, incarnation};
  PL_TRY(pl_shared_open(path, &KIND, &what, &self->shared));
  self->file = (pl_leases_file *)(void *)self->shared.data;
  return PL_OK;
}

pl_status pl_leases_open(const char *path, const pl_leases_terms *terms, pl_log *log,
                         pl_processes *processes, pl_leases **out) {
  pl_leases *self = calloc(1, sizeof *self);
  if (!self) return pl_fail(PL_ERR_NO_MEMORY, path, "there is no memory for the leases");
  uint64_t incarnation = log->meta.incarnation;
  self->shared.fd = -1;
  self->log = log;
  self->processes = processes;
  pl_status status = open_it(self, path, terms, incarnation);
  /* Of a topic that was deleted since: nobody works for it any more. Or ours was, while we opened
   * this, and it is the next one's. */
  while (status == PL_OK && self->file->head.incarnation != incarnation &&
         !pl_log_is_deleted(log)) {
    status = pl_shared_remove(&self->shared);
    pl_shared_close(&self->shared);
    if (status == PL_BUSY)
      status = pl_fail(PL_ERR_TIMEOUT, path, "others still work for the topic that was deleted; "
                       "stop them, then open it again");
    if (status == PL_OK) status = open_it(self, path, terms, incarnation);
  }
  /* A deletion that is told of after this look removes what we have made; an earlier one may have
   * been over, and it would be in the way of the next topic. */
  if (status == PL_OK && pl_log_is_deleted(log)) {
    if (self->file->head.incarnation == incarnation) (void)pl_shared_remove(&self->shared);
    status = pl_log_fail_deleted(log);
  }
  if (status == PL_OK) status = check_terms(self, terms);
  pl_forks_count();
  self->fork_generation = pl_forks;
  if (status == PL_OK) *out = self;
  else pl_leases_close(self);
  return status;
}

void pl_leases_let_go(pl_leases *self) { pl_shared_let_go(&self->shared); }

void pl_leases_close(pl_leases *self) {
  if (self->shared.data || self->shared.fd >= 0) pl_shared_close(&self->shared);
  free(self);
}

pl_status pl_leases_remove(pl_leases *self) { return pl_shared_remove(&self->shared); }

/* As pl_table_sync: pages that could not be written are made dirty again. */
pl_status pl_leases_sync(pl_leases *self) {
  pl_status status = pl_file_sync(self->shared.fd, self->shared.path);
  for (size_t at = 0; status != PL_OK && at < BYTES; at += 4096)
    atomic_fetch_add((_Atomic uint32_t *)(void *)(self->shared.data + at), 0);
  return status;
}

pl_status pl_leases_kept_from(const char *path, int64_t *start) {
  pl_leases_head head;
  size_t got;
  *start = -1;
  PL_TRY(pl_file_read_small(path, (char *)&head, sizeof head, &got));
  if (got != sizeof head || head.identity.magic != KIND.magic || !head.keeps_records) return PL_OK;
  *start = 0; /* where no mark is whole nothing may go */
  has_start(&head, start);
  return PL_OK;
}
