/* Looking, spinning, announcing oneself at each bell, looking again, sleeping. */
#include "pl_wait.h"

#include "pl_spin.h"

enum { POLL_ANY_MS = 20 }; /* between looks at logs that have no doorbells in common */

static pl_bells own_bells; /* of this process, for those who wait for no log */

int pl_wait_find(const pl_wait *wait) {
  for (int i = 0; i < wait->watched_count; i++)
    if (atomic_load(wait->watched[i].word) != wait->watched[i].seen) return wait->log_count + i;
  for (int i = 0; i < wait->log_count; i++) {
    pl_log *log = wait->logs[i];
    if (pl_log_readable(log) > wait->offsets[i] || atomic_load(&log->is_closing) ||
        pl_log_is_deleted(log))
      return i;
  }
  return -1;
}

pl_bells *pl_wait_bells(const pl_wait *wait, uint64_t *inode) {
  pl_bells *bells = wait->bells;
  *inode = wait->bells_inode;
  for (int i = 0; i < wait->log_count; i++) {
    if (!wait->logs[i]->bells || (bells && wait->logs[i]->bells_inode != *inode)) return NULL;
    bells = wait->logs[i]->bells;
    *inode = wait->logs[i]->bells_inode;
  }
  return bells ? bells : &own_bells;
}

uint32_t pl_wait_announce(const pl_wait *wait, pl_bells *bells) {
  for (int i = 0; i < wait->log_count; i++) wait->maps[i] = &wait->logs[i]->page->bells;
  return pl_bells_announce(bells, wait->maps, wait->log_count);
}

void pl_wait_let_go(const pl_wait *wait) {
  for (int i = 0; i < wait->log_count; i++) pl_log_drop_deleted(wait->logs[i]);
}

static pl_status sleep_on_any(const pl_wait *wait, int wait_ms, int *found) {
  pl_wait_let_go(wait);
  uint64_t inode;
  pl_bells *bells = pl_wait_bells(wait, &inode);
  int64_t deadline = pl_monotonic_ms() + wait_ms;
  do {
    uint32_t seen = bells ? pl_wait_announce(wait, bells) : 0;
    if ((*found = pl_wait_find(wait)) >= 0) return PL_OK;
    int64_t left = deadline - pl_monotonic_ms();
    if (left <= 0) return PL_BUSY;
    if (!bells) pl_sleep_ms(left < POLL_ANY_MS ? (int)left : POLL_ANY_MS);
    else if (!pl_bells_sleep(bells, seen, (int)left)) return PL_BUSY;
  } while ((*found = pl_wait_find(wait)) < 0); /* before it announces, which interrupts a core */
  return PL_OK;
}

static bool is_there(const void *wait) { return pl_wait_find(wait) >= 0; }

pl_status pl_wait_any(const pl_wait *wait, int wait_ms, int *found) {
  if ((*found = pl_wait_find(wait)) >= 0) return PL_OK;
  uint64_t start_ns = pl_monotonic_ns();
  if (wait_ms > 0 && pl_spin(start_ns, is_there, wait) && (*found = pl_wait_find(wait)) >= 0)
    return PL_OK;
  pl_status status = sleep_on_any(wait, wait_ms, found);
  pl_spin_learn(start_ns, status == PL_OK);
  return status;
}

void pl_wait_wake_own(pl_bells *bells) { pl_bells_ring_own(bells ? bells : &own_bells); }
