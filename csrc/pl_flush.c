/* Durability: one fdatasync for all who wait, in all threads and processes; and waiting.
 *
 * Group commit without a queue: who holds the flush lock syncs everything appended so far. The
 * others sleep on the flush bell, not on the lock: it wakes all whom one sync has served at once.
 * Handing the lock from one to the next cost eight threads 270 us a record, four times as much as
 * a sync of its own for each.
 * A failed fdatasync is told to everybody through the page before the lock is released, and is
 * never retried: the kernel marks the pages clean after a failure, so that a second fdatasync
 * would say yes to what is not on the disk (reliability.md finding 3).
 */
#include <inttypes.h>

#include "pl_fault.h"
#include "pl_log.h"
#include "pl_spin.h"

enum {
  POLL_MAX_MS = 128,
  TICK_MS = 4, /* of the coarse clock: sleeping on for a rest of less would be a second wake-up */
};

static pl_status poisoned(const pl_log *log, int os_errno) {
  pl_fail(PL_ERR_DURABILITY, log->directory,
          "a flush to disk failed (errno %d): records from offset %" PRId64 " on may not survive "
          "a power loss; the log takes no more appends; copy it, then repair the disk",
          os_errno, (int64_t)atomic_load(&log->page->durable_offset));
  pl_error_last()->os_errno = os_errno;
  pl_error_last()->extra = atomic_load(&log->page->durable_offset);
  return PL_ERR_DURABILITY;
}

void pl_log_poison(pl_log *log, int os_errno) {
  uint32_t state = atomic_load(&log->page->state);
  atomic_store(&log->page->poison_errno, os_errno);
  while (state == PL_LOG_LIVE || state == PL_LOG_BROKEN)
    if (atomic_compare_exchange_weak(&log->page->state, &state, PL_LOG_POISONED)) break;
  pl_bells_ring_if_any(log->bells, &log->page->bells);
}

/* For what the disk answered, and nothing else: a file that could not be opened to ask it is no
 * news. */
static pl_status poison_if_lost(pl_log *log, pl_status status) {
  if (status >= 0) return status;
  int os_errno = pl_error_last()->os_errno;
  pl_log_poison(log, os_errno);
  return poisoned(log, os_errno);
}

static pl_status sync_segment_of(pl_log *log, int64_t offset, int64_t *base, int64_t *next_base) {
  pl_segment *segment;
  PL_TRY(pl_log_segment(log, offset, &segment, next_base));
  *base = segment->base_offset;
  PL_POINT("before-sync");
  pl_status status = pl_file_sync(segment->fd, segment->path);
  pl_segment_release(segment);
  return poison_if_lost(log, status);
}

/* Syncs the files that hold [durable, end): old segments first, the directory, then publish. */
static pl_status sync_segments(pl_log *log, int64_t from, int64_t active_base) {
  int64_t base, next_base = from;
  do PL_TRY(sync_segment_of(log, next_base, &base, &next_base));
  while (base < active_base && next_base != INT64_MAX);
  int fd;
  PL_TRY(pl_file_open_directory(log->directory, &fd));
  PL_POINT("before-sync-names");
  pl_status status = poison_if_lost(log, pl_file_sync_names(fd, log->directory));
  pl_file_close(fd);
  return status;
}

static pl_status flush_locked(pl_log *log, int wait_ms) {
  pl_page *page = log->page;
  int64_t end, active_base, from = atomic_load(&page->durable_offset);
  PL_POINT("flush-locked");
  PL_TRY(pl_seal(log, wait_ms, &end, &active_base));
  if (end <= from) return PL_OK;
  int64_t unused;
  if (from > active_base) /* the common case: one file, in its directory since long */
    PL_TRY(sync_segment_of(log, active_base, &unused, &unused));
  else
    PL_TRY(sync_segments(log, from, active_base));
  PL_POINT("synced");
  /* Another process's descriptor may have been given the error: believe it over ours. */
  if (atomic_load(&page->state) == PL_LOG_POISONED)
    return poisoned(log, atomic_load(&page->poison_errno));
  atomic_store_explicit(&page->durable_offset, end, memory_order_release);
  atomic_store(&page->durable_floor, end);
  atomic_store(&page->floor_check, pl_floor_check(end, page->identity.incarnation));
  atomic_fetch_add(&page->flushes, 1);
  PL_POINT("durable-published");
  return PL_OK;
}

/* Makes the bell even and another number, so that who looked before does not fall asleep. */
static void wake_flushers(pl_page *page) {
  uint32_t seen = atomic_load(&page->flush_bell);
  while (!atomic_compare_exchange_weak(&page->flush_bell, &seen, (seen | 1) + 1)) continue;
  if (seen & 1) pl_futex_wake_all(&page->flush_bell);
}

static pl_status flush_as(pl_log *log, pl_lock_result result, int64_t target, int wait_ms) {
  pl_page *page = log->page;
  if (result == PL_LOCK_BROKEN)
    return pl_fail(PL_ERR_IO, log->directory, "the flush lock is unusable; reopen the log");
  if (result == PL_LOCKED_DEAD) pl_lock_adopt(&page->flush_lock); /* its sync counts for nothing */
  pl_status status = PL_OK;
  if (atomic_load(&page->state) == PL_LOG_POISONED)
    status = poisoned(log, atomic_load(&page->poison_errno));
  else if (atomic_load(&page->durable_offset) < target)
    status = flush_locked(log, wait_ms);
  pl_lock_release(&page->flush_lock);
  wake_flushers(page);
  pl_bells_ring_if_any(log->bells, &page->bells);
  return status;
}

/* A killed flusher rings nobody, so nobody sleeps for longer than this without looking. */
enum { FLUSH_SLICE_MS = 20 };

pl_status pl_flush(pl_log *log, int64_t target, int wait_ms) {
  pl_page *page = log->page;
  int64_t deadline = pl_monotonic_ms() + wait_ms;
  for (bool may_sleep = true; may_sleep;) {
    if (atomic_load(&page->durable_offset) >= target) return PL_OK;
    pl_lock_result result = pl_lock_wait(&page->flush_lock, 0);
    if (result != PL_LOCK_BUSY) return flush_as(log, result, target, wait_ms);
    int64_t left = deadline - pl_monotonic_ms();
    if (left <= 0) return PL_BUSY;
    uint32_t seen = atomic_fetch_or(&page->flush_bell, 1) | 1;
    if (atomic_load(&page->durable_offset) >= target) return PL_OK;
    result = pl_lock_try(&page->flush_lock);
    if (result != PL_LOCK_BUSY) return flush_as(log, result, target, wait_ms);
    may_sleep = pl_futex_wait(&page->flush_bell, seen,
                              left < FLUSH_SLICE_MS ? (int)left : FLUSH_SLICE_MS);
  }
  return PL_BUSY; /* a signal came */
}

/* ---- waiting ---------------------------------------------------------------------------- */

typedef int64_t (*end_of_log)(const pl_log *log);

static int64_t durable_of(const pl_log *log) { return atomic_load(&log->page->durable_offset); }

/* A private page never moves; one that we may not write cannot bear our bell: both are polled, more
 * slowly the longer nothing happens. */
static pl_status poll_past(pl_log *log, int64_t offset, int wait_ms, end_of_log end) {
  for (int waited = 0, pause_ms;; waited += pause_ms) {
    if (end(log) > offset) {
      atomic_store_explicit(&log->poll_ms, 1, memory_order_relaxed);
      return PL_OK;
    }
    if (pl_log_is_deleted(log)) return pl_log_fail_deleted(log);
    if (waited >= wait_ms || atomic_load(&log->is_closing)) return PL_BUSY;
    pause_ms = atomic_load_explicit(&log->poll_ms, memory_order_relaxed);
    int longer_ms = pause_ms + (pause_ms + 3) / 4; /* a fifth of the time that nothing came */
    if (pause_ms > wait_ms - waited) pause_ms = wait_ms - waited;
    pl_sleep_ms(pause_ms);
    if (longer_ms <= POLL_MAX_MS)
      atomic_store_explicit(&log->poll_ms, longer_ms, memory_order_relaxed);
  }
}

static pl_status sleep_past(pl_log *log, int64_t offset, int wait_ms, end_of_log end) {
  pl_log_drop_deleted(log); /* who waits may be what keeps a disk full, and no record from coming */
  if (!log->bells) return poll_past(log, offset, wait_ms, end);
  int64_t deadline = pl_monotonic_ms() + wait_ms;
  for (;;) {
    _Atomic uint64_t *map = &log->page->bells;
    uint32_t seen = pl_bells_announce(log->bells, &map, 1);
    if (end(log) > offset) return PL_OK;
    if (atomic_load(&log->is_closing)) return PL_BUSY;
    if (pl_log_is_deleted(log)) return pl_log_fail_deleted(log);
    if (atomic_load(&log->page->state) == PL_LOG_POISONED && end == durable_of)
      return poisoned(log, atomic_load(&log->page->poison_errno));
    int64_t left = deadline - pl_monotonic_ms();
    if (left <= 0) return PL_BUSY;
    if (!pl_bells_sleep(log->bells, seen, (int)left)) return PL_BUSY;
    if (end(log) > offset) return PL_OK;
    if (deadline - pl_monotonic_ms() <= TICK_MS) return PL_BUSY;
  }
}

typedef struct pl_place {
  const pl_log *log;
  int64_t offset;
} pl_place;

static bool is_past(const void *what) {
  const pl_place *place = what;
  return pl_log_readable(place->log) > place->offset || atomic_load(&place->log->is_closing);
}

void pl_end_waits(pl_log *log) {
  atomic_store(&log->is_closing, 1);
  if (log->bells) pl_bells_ring(log->bells, &log->page->bells);
}

pl_status pl_wait_readable(pl_log *log, int64_t offset, int wait_ms) {
  if (pl_log_readable(log) > offset) return PL_OK;
  uint64_t start_ns = pl_monotonic_ns();
  pl_place place = {log, offset};
  if (wait_ms > 0 && pl_spin(start_ns, is_past, &place) && pl_log_readable(log) > offset)
    return PL_OK;
  pl_status status = sleep_past(log, offset, wait_ms, pl_log_readable);
  pl_spin_learn(start_ns, status == PL_OK);
  return status;
}

pl_status pl_wait_durable(pl_log *log, int64_t offset, int wait_ms) {
  if (durable_of(log) > offset) return PL_OK;
  return sleep_past(log, offset, wait_ms, durable_of); /* a disk takes longer than any spin */
}
