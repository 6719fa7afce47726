/* Waiting for any of many things with one sleep: logs that can be read on, words that change. */
#ifndef PL_WAIT_H
#define PL_WAIT_H

#include "pl_log.h"

/* A word in shared memory or in this process. Who changes it rings all doorbells, or at least the
 * own one of each process that may be waiting. */
typedef struct pl_watched {
  const _Atomic uint64_t *word;
  uint64_t seen;
} pl_watched;

/* Has it changed since it was last looked at? */
static inline bool pl_watched_look(pl_watched *watched) {
  uint64_t now = atomic_load_explicit(watched->word, memory_order_acquire);
  bool has_changed = now != watched->seen;
  watched->seen = now;
  return has_changed;
}

static inline void pl_word_step(_Atomic uint64_t *word) { atomic_fetch_add(word, 1); }

typedef struct pl_wait {
  pl_log *const *logs; /* each until it can be read past its offset, or ends */
  const int64_t *offsets;
  int log_count;
  const pl_watched *watched; /* each until it is not as it was seen */
  int watched_count;
  pl_bells *bells; /* where those ring who change the words; NULL: at the logs' bells */
  uint64_t bells_inode;
  _Atomic uint64_t **maps; /* room for log_count pointers */
} pl_wait;

/* PL_OK: *found is the number of a log, or log_count and the number of a word. PL_BUSY: after
 * wait_ms or when a signal came. Where all have one file of doorbells (hard links to it) that is
 * one sleep, else they are polled. Cost: a look at each, and once a membarrier. */
pl_status pl_wait_any(const pl_wait *wait, int wait_ms, int *found);

/* Its parts: the first that is there, -1: none; the one file of bells that all of it rings, and its
 * inode, NULL: there are several. */
int pl_wait_find(const pl_wait *wait);
pl_bells *pl_wait_bells(const pl_wait *wait, uint64_t *inode);
void pl_wait_let_go(const pl_wait *wait); /* of segments that were deleted, before a sleep */
uint32_t pl_wait_announce(const pl_wait *wait, pl_bells *bells); /* as pl_bells_announce */

/* Wakes those of this process who wait with `bells`; NULL: who have nothing else to sleep on. */
void pl_wait_wake_own(pl_bells *bells);

#endif
