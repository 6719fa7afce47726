/* The housekeeper: one C thread a process, for all the logs that it writes.
 *
 * It prefaults ahead, prepares the next segment, retires the full ones, seals idle batches, keeps
 * an interval log's promise and reserves offsets. It needs no interpreter and cannot log: what
 * fails is counted and tried again by whoever needs it. An appending thread that runs out of
 * window does the work itself, so nothing depends on this thread but latency.
 *
 * It sleeps 50 ms at a time, or until an append nudges it; a second at a time once nothing has
 * been appended for a second, since the next append will nudge it. A wake-up costs some 30 to 60
 * us on a virtual machine: 20 of them a second were 0.06 % of a core, more than a waiting reader.
 */
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "pl_log.h"
#include "pl_thread.h"

enum { TICK_MS = 50, REST_MS = 1000, IDLE_SEAL_MS = 100, AGE_SEAL_MS = 1000, RETRY_MS = 1000 };

static struct keeper {
  pthread_mutex_t lock; /* guards the list; held while a log is being worked on */
  pl_log *logs;         /* all that this process has open */
  _Atomic bool is_running;
  _Atomic uint32_t nudges;
} keeper = {.lock = PTHREAD_MUTEX_INITIALIZER};

unsigned pl_forks; /* counted in the child */

static void seal_if_due(pl_log *log, int64_t now) {
  int64_t end = pl_log_end(log), sealed = atomic_load(&log->page->sealed_offset);
  if (end != log->keeper_end) {
    log->keeper_end = end;
    log->keeper_end_ms = now;
  }
  if (sealed != log->keeper_sealed || sealed == end) {
    log->keeper_sealed = sealed;
    log->keeper_sealed_ms = now;
  }
  if (sealed == end) return;
  if (now - log->keeper_end_ms < IDLE_SEAL_MS && now - log->keeper_sealed_ms < AGE_SEAL_MS) return;
  int64_t unused;
  if (pl_seal(log, 0, &unused, &unused) >= 0) return;
  atomic_fetch_add(&log->keeper_failures, 1);
  log->keeper_end_ms = log->keeper_sealed_ms = now + RETRY_MS;
}

static void flush_if_due(pl_log *log, int64_t now) {
  if (log->options.durability != PL_DURABILITY_INTERVAL) return;
  if (now - log->keeper_flush_ms < log->options.flush_interval_ms) return;
  log->keeper_flush_ms = now;
  if (pl_flush(log, pl_log_end(log), 0) < 0) atomic_fetch_add(&log->keeper_failures, 1);
}

static void keep(pl_log *log) {
  int64_t now = pl_monotonic_ms();
  pl_log_drop_deleted(log);
  /* Who was killed inside left a tail to repair, and the next append may be far off. Sealing does
   * it; no flush can make durable what is not sealed. */
  if (atomic_load(&log->page->state) == PL_LOG_BROKEN) seal_if_due(log, now);
  if (atomic_load(&log->page->state) != PL_LOG_LIVE) return;
  uint64_t failures = atomic_load(&log->keeper_failures);
  if (now >= log->keeper_retry_ms) {
    pl_prepare_ahead(log);
    if (pl_retire(log) < 0) atomic_fetch_add(&log->keeper_failures, 1);
    if (atomic_load(&log->keeper_failures) != failures) log->keeper_retry_ms = now + RETRY_MS;
  }
  seal_if_due(log, now);
  flush_if_due(log, now);
}

/* Nothing to do until the next append. */
static bool is_idle(const pl_log *log) {
  const pl_page *page = log->page;
  int64_t end = pl_log_end(log);
  if (pl_log_is_deleted(log)) return true;
  return end == log->keeper_end && end == atomic_load(&page->sealed_offset) &&
         pl_monotonic_ms() - log->keeper_end_ms >= REST_MS &&
         atomic_load(&page->retired_base) == atomic_load(&page->active_base) &&
         (log->options.durability != PL_DURABILITY_INTERVAL ||
          end == atomic_load(&page->durable_offset));
}

/* If all logs are idle, has the next append to any of them nudge us. */
static bool may_rest(void) {
  for (const pl_log *log = keeper.logs; log; log = log->keeper_next)
    if (log->is_kept && !is_idle(log)) return false;
  bool all_idle = true;
  for (pl_log *log = keeper.logs; log; log = log->keeper_next) {
    if (!log->is_kept) continue;
    log->keeper_nudge = atomic_exchange(&log->nudge_position, 0);
    all_idle &= pl_log_end(log) == log->keeper_end; /* an append that saw the old position */
  }
  return all_idle;
}

/* Puts the positions of nudges back, but for one that was set anew meanwhile. */
static void wake_up(void) {
  for (pl_log *log = keeper.logs; log; log = log->keeper_next) {
    uint64_t resting = 0, nudged = UINT64_MAX;
    if (!log->keeper_nudge) continue;
    if (!atomic_compare_exchange_strong(&log->nudge_position, &resting, log->keeper_nudge))
      atomic_compare_exchange_strong(&log->nudge_position, &nudged, log->keeper_nudge);
    log->keeper_nudge = 0;
  }
}

static void *run(void *argument) {
  (void)argument;
  pl_bells_register();
  for (;;) {
    uint32_t seen = atomic_load(&keeper.nudges);
    pthread_mutex_lock(&keeper.lock);
    wake_up();
    int tick = TICK_MS;
    for (pl_log *log = keeper.logs; log; log = log->keeper_next) {
      if (!log->is_kept) continue;
      keep(log);
      if (log->options.durability == PL_DURABILITY_INTERVAL &&
          log->options.flush_interval_ms < tick)
        tick = (int)log->options.flush_interval_ms;
    }
    if (may_rest()) tick = REST_MS;
    pthread_mutex_unlock(&keeper.lock);
    pl_futex_wait(&keeper.nudges, seen, tick);
  }
  return NULL;
}

/* A forked child has no housekeeper and none of its parent's logs; its copies of their lock
 * descriptors would keep the parent's flocks alive, so they are closed (without unlocking). */
static void after_fork_in_child(void) {
  pthread_mutex_init(&keeper.lock, NULL);
  pl_slot_after_fork();
  atomic_store(&pl_bells_must_fence, true);
  for (pl_log *log = keeper.logs; log; log = log->keeper_next) {
    pl_file_close(log->lock_fd);
    log->lock_fd = -1;
  }
  keeper.logs = NULL;
  keeper.is_running = false;
  pl_forks++;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

void pl_forks_count(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
}

void pl_keeper_register(pl_log *log) {
  pl_forks_count();
  pthread_mutex_lock(&keeper.lock);
  log->keeper_next = keeper.logs;
  keeper.logs = log;
  log->keeper_end = log->keeper_sealed = -1;
  log->fork_generation = pl_forks;
  pthread_mutex_unlock(&keeper.lock);
}

void pl_keeper_drop(pl_log *log) {
  pthread_mutex_lock(&keeper.lock);
  for (pl_log **link = &keeper.logs; *link; link = &(*link)->keeper_next)
    if (*link == log) {
      *link = log->keeper_next;
      break;
    }
  log->is_kept = false;
  pthread_mutex_unlock(&keeper.lock);
}

pl_status pl_keeper_adopt(pl_log *log) {
  if (log->is_kept && atomic_load(&keeper.is_running)) return PL_OK;
  int error = 0;
  pthread_mutex_lock(&keeper.lock);
  log->is_kept = true;
  if (!atomic_load(&keeper.is_running)) error = pl_thread_start(run, NULL, NULL);
  atomic_store(&keeper.is_running, error == 0);
  pthread_mutex_unlock(&keeper.lock);
  if (!error) return PL_OK;
  atomic_fetch_add(&log->keeper_failures, 1);
  pl_fail(PL_ERR_LIMIT, log->directory,
          "the housekeeper thread cannot be started: %s; raise the limit of threads (ulimit -u)",
          strerror(error));
  pl_error_last()->os_errno = error;
  return PL_ERR_LIMIT;
}

void pl_keeper_nudge(pl_log *log) {
  atomic_store(&log->nudge_position, UINT64_MAX);
  atomic_fetch_add(&keeper.nudges, 1);
  pl_futex_wake_all(&keeper.nudges);
}
