/* Making a control page, its locks and its doorbells. */
#define _GNU_SOURCE
#include "pl_page.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pl_file.h"

/* Names the mutex implementation: glibc's and musl's layouts differ (reliability.md finding 14). */
static uint32_t mutex_abi(void) {
#if defined(__GLIBC__)
  uint32_t libc = 1;
#else
  uint32_t libc = 2;
#endif
  return libc << 16 | (uint32_t)sizeof(pthread_mutex_t) << 4 | (uint32_t)sizeof(void *);
}

static void init_lock(pthread_mutex_t *lock) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(lock, &attributes);
  pthread_mutexattr_destroy(&attributes);
}

void pl_page_init(pl_page *page, uint64_t incarnation) {
  page->identity.magic = PL_PAGE_MAGIC;
  page->identity.layout = PL_PAGE_LAYOUT;
  page->identity.mutex_abi = mutex_abi();
  pl_boot_id(page->identity.boot_id);
  page->identity.incarnation = incarnation;
  page->identity.pid_namespace = pl_pid_namespace();
  init_lock(&page->append_lock);
  init_lock(&page->flush_lock);
  init_lock(&page->maintenance_lock);
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

/* The holder is usually in the middle of copying one record, or 64 KiB of them. */
static pl_lock_result spin(pthread_mutex_t *lock, int times) {
  for (int i = 0; i < times; i++) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    pl_lock_result result = pl_lock_try(lock);
    if (result != PL_LOCK_BUSY) return result;
  }
  return PL_LOCK_BUSY;
}

pl_lock_result pl_lock_wait(pthread_mutex_t *lock, int wait_ms) {
  pl_lock_result result = spin(lock, wait_ms ? 200 : 20);
  if (result != PL_LOCK_BUSY || wait_ms == 0) return result;
  struct timespec deadline;
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  deadline.tv_sec += wait_ms / 1000;
  deadline.tv_nsec += (long)(wait_ms % 1000) * 1000000;
  if (deadline.tv_nsec >= 1000000000) {
    deadline.tv_sec++;
    deadline.tv_nsec -= 1000000000;
  }
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

uint64_t pl_floor_check(int64_t floor, uint64_t incarnation) {
  /* splitmix64's finaliser (Steele, Lea, Flood 2014): any odd bit in either input shows. */
  uint64_t x = (uint64_t)floor * 0x9e3779b97f4a7c15u ^ incarnation;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

void pl_bells_ring(pl_bells *bells, _Atomic uint64_t *map) {
  uint64_t waiting = atomic_exchange(map, 0);
  while (waiting) {
    int bell = __builtin_ctzll(waiting);
    waiting &= waiting - 1;
    atomic_fetch_add(&bells->bell[bell].word, 1);
    pl_futex_wake_all(&bells->bell[bell].word);
  }
}

static int own_bell(void) { return (int)((uint32_t)getpid() * 2654435761u >> 26); }

uint32_t pl_bells_announce(pl_bells *bells, _Atomic uint64_t *map) {
  int bell = own_bell();
  uint32_t seen = atomic_load(&bells->bell[bell].word);
  atomic_fetch_or(map, (uint64_t)1 << bell); /* a full fence on x86, seq_cst elsewhere */
  return seen;
}

void pl_bells_sleep(pl_bells *bells, uint32_t seen, int timeout_ms) {
  pl_futex_wait(&bells->bell[own_bell()].word, seen, timeout_ms);
}
