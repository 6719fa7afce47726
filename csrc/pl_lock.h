/* Robust locks between processes: when an owner is killed, the kernel frees its lock and the next
 * one is told. Two kinds behind the same verbs.
 *
 *   pl_lock_*   glibc's robust mutex, 18 ns a pair, for what may be held for long
 *   pl_slot_*   the append lock, 9 ns a pair: one word, and the kernel's *pending slot*
 *
 * The pending slot. Each thread has registered a list of the robust locks it holds with the
 * kernel (set_robust_list(2)), with one slot beside it for the lock that it is just taking or
 * leaving. When the thread dies, the kernel looks at list and slot alike: if the word that the
 * slot names bears the dead thread's id, it sets FUTEX_OWNER_DIED there and wakes a waiter. So a
 * lock that a thread holds one at a time needs no list: the slot is set before the word is taken
 * and cleared after it is released. The rules: at most one such lock per thread, and no robust
 * mutex is taken or left while it is held (glibc uses the same slot).
 *
 * Source: Linux, Documentation/locking/robust-futexes.rst; kernel/futex/core.c, exit_robust_list.
 */
#ifndef PL_LOCK_H
#define PL_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* PL_LOCKED_DEAD means "yours, but its owner died inside": repair what it guards, then adopt. */
typedef enum pl_lock_result {
  PL_LOCKED,
  PL_LOCKED_DEAD,
  PL_LOCK_BUSY,
  PL_LOCK_BROKEN,
} pl_lock_result;

void pl_lock_init(pthread_mutex_t *lock);
pl_lock_result pl_lock_try(pthread_mutex_t *lock);
/* Spins for some microseconds, then sleeps for up to wait_ms (0: does not sleep). */
pl_lock_result pl_lock_wait(pthread_mutex_t *lock, int wait_ms);
void pl_lock_adopt(pthread_mutex_t *lock);
void pl_lock_release(pthread_mutex_t *lock);
int pl_lock_owner(const pthread_mutex_t *lock); /* thread id, 0 unknown */
bool pl_lock_is_held(pthread_mutex_t *lock);    /* false too where its owner has died */
/* The word that the kernel wakes a waiter on when the owner dies; NULL where libc's layout is not
 * known. *seen is what to wait for a change of, 0: nobody holds it. */
_Atomic uint32_t *pl_lock_watch(pthread_mutex_t *lock, uint32_t *seen);
uint32_t pl_lock_abi(void); /* names libc and sizes: layouts differ */

typedef struct pl_slot {
  _Atomic uint32_t word; /* 0, or the owner's thread id and the kernel's two flags */
} pl_slot;

enum {
  PL_SLOT_WAITERS = (int)0x80000000, /* FUTEX_WAITERS */
  PL_SLOT_DIED = 0x40000000,         /* FUTEX_OWNER_DIED */
  PL_SLOT_OWNER = 0x3fffffff,        /* FUTEX_TID_MASK */
};

/* What the kernel reads when the thread dies; cached per thread, asked anew after a fork. */
typedef struct pl_slot_thread {
  void **pending;  /* the slot of this thread's robust list */
  long offset;     /* from a list entry to its lock word */
  uint32_t id;
} pl_slot_thread;

extern _Thread_local pl_slot_thread pl_slot_self __attribute__((tls_model("initial-exec")));

void pl_slot_find_self(void);
void pl_slot_after_fork(void); /* in the child: its thread id is another */
pl_lock_result pl_slot_wait(pl_slot *slot, int wait_ms);
pl_lock_result pl_slot_take_contended(pl_slot *slot, uint32_t seen);
void pl_slot_release_contended(pl_slot *slot);

static inline pl_lock_result pl_slot_try(pl_slot *slot) {
  if (__builtin_expect(!pl_slot_self.pending, 0)) pl_slot_find_self();
  uint32_t free_word = 0;
  *(void *volatile *)pl_slot_self.pending = (char *)&slot->word - pl_slot_self.offset;
  atomic_signal_fence(memory_order_seq_cst); /* the kernel sees this thread's own order */
  if (__builtin_expect(
          atomic_compare_exchange_strong_explicit(&slot->word, &free_word, pl_slot_self.id,
                                                  memory_order_acquire, memory_order_relaxed), 1))
    return PL_LOCKED;
  return pl_slot_take_contended(slot, free_word);
}

/* The plain store is what makes it cheap, at two prices. It can wipe the mark of a waiter that
 * comes at this very moment: waiters sleep a millisecond at most. And it is no full fence: who
 * waits for what is published here uses membarrier (pl_bells_announce). */
static inline void pl_slot_release(pl_slot *slot) {
  if (__builtin_expect(
          atomic_load_explicit(&slot->word, memory_order_relaxed) != pl_slot_self.id, 0))
    pl_slot_release_contended(slot);
  else
    atomic_store_explicit(&slot->word, 0, memory_order_release);
  atomic_signal_fence(memory_order_seq_cst);
  *(void *volatile *)pl_slot_self.pending = NULL;
}

static inline int pl_slot_owner(const pl_slot *slot) {
  return (int)(atomic_load_explicit(&slot->word, memory_order_relaxed) & PL_SLOT_OWNER);
}

#endif
