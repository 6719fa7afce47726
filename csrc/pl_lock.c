/* The slow halves of the robust locks. */
#define _GNU_SOURCE
#include "pl_lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pl_clock.h"
#include "pl_file.h"
#include "pl_spin.h"

enum { SPINS = 200, SPINS_WITHOUT_SLEEP = 20 };

/* Names the mutex implementation: glibc's and musl's layouts differ (reliability.md finding 14). */
uint32_t pl_lock_abi(void) {
#if defined(__GLIBC__)
  uint32_t libc = 1;
#else
  uint32_t libc = 2;
#endif
  return libc << 16 | (uint32_t)sizeof(pthread_mutex_t) << 4 | (uint32_t)sizeof(void *);
}

void pl_lock_init(pthread_mutex_t *lock) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(lock, &attributes);
  pthread_mutexattr_destroy(&attributes);
}

static pl_lock_result result_of(int error) {
  switch (error) {
    case 0: return PL_LOCKED;
    case EOWNERDEAD: return PL_LOCKED_DEAD;
    case EBUSY:
    case ETIMEDOUT: return PL_LOCK_BUSY;
    default: return PL_LOCK_BROKEN;
  }
}

pl_lock_result pl_lock_try(pthread_mutex_t *lock) { return result_of(pthread_mutex_trylock(lock)); }

pl_lock_result pl_lock_wait(pthread_mutex_t *lock, int wait_ms) {
  for (int i = 0; i < (wait_ms ? SPINS : SPINS_WITHOUT_SLEEP); i++) {
    pl_lock_result result = pl_lock_try(lock);
    if (result != PL_LOCK_BUSY) return result;
    pl_spin_pause();
  }
  if (wait_ms == 0) return PL_LOCK_BUSY;
  struct timespec deadline = pl_deadline(wait_ms);
  return result_of(pthread_mutex_clocklock(lock, CLOCK_MONOTONIC, &deadline));
}

void pl_lock_adopt(pthread_mutex_t *lock) { pthread_mutex_consistent(lock); }
void pl_lock_release(pthread_mutex_t *lock) { pthread_mutex_unlock(lock); }

int pl_lock_owner(const pthread_mutex_t *lock) {
#if defined(__GLIBC__)
  return *(const volatile int *)&lock->__data.__owner;
#else
  (void)lock;
  return 0;
#endif
}

#if defined(__GLIBC__)
static _Atomic uint32_t *word_of(pthread_mutex_t *lock) {
  return (_Atomic uint32_t *)(void *)&lock->__data.__lock;
}

bool pl_lock_is_held(pthread_mutex_t *lock) {
  return (atomic_load(word_of(lock)) & FUTEX_TID_MASK) != 0;
}

_Atomic uint32_t *pl_lock_watch(pthread_mutex_t *lock, uint32_t *seen) {
  _Atomic uint32_t *word = word_of(lock);
  uint32_t found = atomic_load(word);
  while ((found & FUTEX_TID_MASK) && !(found & FUTEX_WAITERS) &&
         !atomic_compare_exchange_weak(word, &found, found | FUTEX_WAITERS)) {
  }
  *seen = found & FUTEX_TID_MASK ? found | FUTEX_WAITERS : 0;
  return word;
}
#else
bool pl_lock_is_held(pthread_mutex_t *lock) {
  pl_lock_result result = pl_lock_try(lock);
  if (result == PL_LOCKED_DEAD) pl_lock_adopt(lock);
  if (result == PL_LOCKED || result == PL_LOCKED_DEAD) pl_lock_release(lock);
  return result == PL_LOCK_BUSY;
}

_Atomic uint32_t *pl_lock_watch(pthread_mutex_t *lock, uint32_t *seen) {
  *seen = pl_lock_is_held(lock);
  return NULL;
}
#endif

/* ---- the append lock -------------------------------------------------------------------- */

_Thread_local pl_slot_thread pl_slot_self __attribute__((tls_model("initial-exec")));

/* For a thread whose libc registered no list yet (musl does it at the first robust mutex). */
static _Thread_local struct robust_list_head own_head;

void pl_slot_find_self(void) {
  struct robust_list_head *head = NULL;
  size_t size;
  if (syscall(SYS_get_robust_list, 0, &head, &size) != 0 || !head) {
    head = &own_head;
    head->list.next = &head->list;
    head->futex_offset = 0;
    head->list_op_pending = NULL;
    syscall(SYS_set_robust_list, head, sizeof *head);
  }
  pl_slot_self.offset = head->futex_offset;
  pl_slot_self.id = (uint32_t)syscall(SYS_gettid);
  pl_slot_self.pending = (void **)&head->list_op_pending;
}

void pl_slot_after_fork(void) { pl_slot_self.pending = NULL; }

/* The word was `seen` and not free. Takes it over from the dead; else clears the pending slot. */
pl_lock_result pl_slot_take_contended(pl_slot *slot, uint32_t seen) {
  if ((seen & PL_SLOT_DIED) &&
      atomic_compare_exchange_strong(&slot->word, &seen,
                                     pl_slot_self.id | (seen & (uint32_t)PL_SLOT_WAITERS)))
    return PL_LOCKED_DEAD;
  *(void *volatile *)pl_slot_self.pending = NULL;
  return PL_LOCK_BUSY;
}

pl_lock_result pl_slot_wait(pl_slot *slot, int wait_ms) {
  for (int i = 0; i < (wait_ms ? SPINS : SPINS_WITHOUT_SLEEP); i++) {
    pl_lock_result result = pl_slot_try(slot);
    if (result != PL_LOCK_BUSY) return result;
    pl_spin_pause();
  }
  for (int waited = 0; waited < wait_ms; waited++) {
    uint32_t seen = atomic_load(&slot->word);
    if ((seen & PL_SLOT_OWNER) &&
        ((seen & (uint32_t)PL_SLOT_WAITERS) ||
         atomic_compare_exchange_strong(&slot->word, &seen, seen | (uint32_t)PL_SLOT_WAITERS)))
      pl_futex_wait(&slot->word, seen | (uint32_t)PL_SLOT_WAITERS, 1);
    pl_lock_result result = pl_slot_try(slot);
    if (result != PL_LOCK_BUSY) return result;
  }
  return PL_LOCK_BUSY;
}

void pl_slot_release_contended(pl_slot *slot) {
  if (atomic_exchange(&slot->word, 0) & (uint32_t)PL_SLOT_WAITERS) pl_futex_wake_all(&slot->word);
}
