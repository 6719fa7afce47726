/* Taking a slot, holding it, and watching those of others. */
#define _GNU_SOURCE
#include "pl_process.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pl_clock.h"
#include "pl_fault.h"
#include "pl_log.h"
#include "pl_sentry.h"
#include "pl_thread.h"

enum { LOOK_MS = 50, REST_MS = 1000 };
enum state { APART, STARTING, JOINED, REFUSED, LEAVING };

static void fill(uint8_t *data, size_t size, const uint8_t *old, size_t old_size, void *context) {
  (void)size, (void)old, (void)old_size, (void)context; /* nobody lived through the reboot */
  pl_process_file *file = (pl_process_file *)(void *)data;
  for (int i = 0; i < PL_PROCESSES_MAX; i++) pl_lock_init(&file->slots[i].lock);
}

static const pl_shared_kind KIND = {
    .noun = "the table of processes",
    .magic = 0x636f72702d796c31u, /* "1ly-proc" */
    .layout = 1,
    .bytes = sizeof(pl_process_file),
    .bytes_max = sizeof(pl_process_file),
    .fill = fill,
};

pl_status pl_processes_open(const char *path, const char *bells_path, pl_processes **out) {
  pl_processes *self = calloc(1, sizeof *self);
  if (!self) return pl_fail(PL_ERR_NO_MEMORY, path, "there is no memory for the processes");
  pl_status status = pl_shared_open(path, &KIND, NULL, &self->shared);
  if (status == PL_OK) status = pl_bells_open(bells_path, &self->bells, &self->bells_inode);
  if (status != PL_OK) {
    pl_shared_close(&self->shared);
    free(self);
    return status;
  }
  self->file = (pl_process_file *)(void *)self->shared.data;
  self->slot = -1;
  pl_forks_count();
  self->fork_generation = pl_forks;
  *out = self;
  return PL_OK;
}

static void announce(pl_processes *self) {
  atomic_fetch_add(&self->file->deaths, 1);
  pl_bells_ring_all(self->bells);
}

static void call_watchers(pl_processes *self) {
  atomic_fetch_add(&self->file->joins, 1);
  pl_futex_wake_all(&self->file->joins);
}

/* ---- the watcher ------------------------------------------------------------------------- */

static int take_slot(pl_processes *self) {
  for (int i = 0; i < PL_PROCESSES_MAX; i++) {
    pl_process_slot *slot = &self->file->slots[i];
    pl_lock_result result = pl_lock_try(&slot->lock);
    if (result != PL_LOCKED && result != PL_LOCKED_DEAD) continue;
    if (result == PL_LOCKED_DEAD) pl_lock_adopt(&slot->lock);
    PL_POINT("process-locked");
    /* The nonce goes first: what was the dead one's is free before the slot is ours. */
    if (atomic_exchange(&slot->nonce, 0)) announce(self);
    atomic_store(&slot->pid, (uint32_t)getpid());
    atomic_store(&slot->beat_ms, pl_monotonic_ms());
    do self->nonce = pl_random_u64(); while (!self->nonce);
    atomic_store(&slot->nonce, self->nonce);
    uint32_t used = atomic_load(&self->file->used);
    while (used <= (uint32_t)i &&
           !atomic_compare_exchange_weak(&self->file->used, &used, (uint32_t)i + 1)) {
    }
    return i;
  }
  return -1;
}

static void leave_slot(pl_processes *self) {
  atomic_store(&self->file->slots[self->slot].nonce, 0);
  pl_lock_release(&self->file->slots[self->slot].lock);
  announce(self);
}

/* Counts the deaths that nobody has counted. */
static void look(pl_processes *self) {
  uint32_t used = atomic_load(&self->file->used);
  for (uint32_t i = 0; i < used && i < PL_PROCESSES_MAX; i++) {
    pl_process_slot *slot = &self->file->slots[i];
    uint64_t nonce = atomic_load(&slot->nonce);
    if (nonce && !pl_lock_is_held(&slot->lock) &&
        atomic_compare_exchange_strong(&slot->nonce, &nonce, 0))
      announce(self);
  }
}

static bool has_waitv = true;

/* Until somebody dies, joins, or `wait_ms` are over. */
static void sleep_watching(pl_processes *self, uint32_t joins, int wait_ms) {
#ifdef SYS_futex_waitv
  if (has_waitv) {
    struct futex_waitv words[FUTEX_WAITV_MAX];
    uint32_t used = atomic_load(&self->file->used), count = 1;
    words[0] = (struct futex_waitv){joins, (uintptr_t)&self->file->joins, FUTEX_32, 0};
    /* From our own slot on, in a ring: also where there are more than fit, each has watchers. */
    for (uint32_t i = 1; i < used && count < FUTEX_WAITV_MAX; i++) {
      pl_process_slot *slot = &self->file->slots[((uint32_t)self->slot + i) % used];
      uint32_t seen;
      if (!atomic_load(&slot->nonce)) continue;
      _Atomic uint32_t *word = pl_lock_watch(&slot->lock, &seen);
      if (!word) break;
      if (!seen) return;
      words[count++] = (struct futex_waitv){seen, (uintptr_t)word, FUTEX_32, 0};
    }
    struct timespec until = pl_deadline(wait_ms);
    long woken = syscall(SYS_futex_waitv, words, count, 0, &until, CLOCK_MONOTONIC);
    if (woken >= 0 || (errno != ENOSYS && errno != EPERM && errno != EINVAL)) return;
    has_waitv = false;
  }
#endif
  pl_futex_wait(&self->file->joins, joins, wait_ms < LOOK_MS ? wait_ms : LOOK_MS);
}

static int wait_ms_of(uint32_t every) { return every && every < REST_MS ? (int)every : REST_MS; }

/* A watcher that slept for longer than this was stopped, or its machine is very busy. */
static int64_t overslept_ms(uint32_t every) { return 2 * wait_ms_of(every); }

static void *watch(void *argument) {
  pl_processes *self = argument;
  pl_bells_register();
  self->slot = take_slot(self);
  call_watchers(self); /* first: nobody may own anything and die unwatched */
  atomic_store(&self->state, self->slot < 0 ? REFUSED : JOINED);
  pl_futex_wake_all(&self->state);
  if (self->slot < 0) return NULL;
  pl_process_slot *slot = &self->file->slots[self->slot];
  int64_t last_ms = pl_monotonic_ms();
  while (atomic_load(&self->state) == JOINED) {
    int64_t now_ms = pl_monotonic_ms();
    uint32_t joins = atomic_load(&self->file->joins);
    uint32_t every = atomic_load(&self->file->beat_every_ms);
    int wait_ms = wait_ms_of(every);
    if (now_ms - last_ms > overslept_ms(every)) atomic_store(&self->stalled_ms, now_ms);
    atomic_store(&slot->beat_ms, now_ms);
    last_ms = now_ms;
    look(self);
    if (atomic_load(&self->state) == JOINED) sleep_watching(self, joins, wait_ms);
  }
  leave_slot(self);
  return NULL;
}

/* ---- taking part ------------------------------------------------------------------------- */

pl_status pl_processes_join(pl_processes *self) {
  if (self->fork_generation != pl_forks)
    return pl_fail(PL_ERR_FORKED, self->shared.path, "opened before fork: open again");
  if (atomic_load(&self->state) == JOINED) return PL_OK;
  atomic_store(&self->state, STARTING);
  int error = pl_thread_start(watch, self, &self->watcher);
  if (error) {
    atomic_store(&self->state, APART);
    pl_fail(PL_ERR_LIMIT, self->shared.path,
            "the watcher thread cannot be started: %s; raise the limit of threads (ulimit -u)",
            strerror(error));
    pl_error_last()->os_errno = error;
    return PL_ERR_LIMIT;
  }
  while (atomic_load(&self->state) == STARTING) pl_futex_wait(&self->state, STARTING, REST_MS);
  if (atomic_load(&self->state) == JOINED) return PL_OK;
  pthread_join(self->watcher, NULL);
  atomic_store(&self->state, APART);
  return pl_fail(PL_ERR_LIMIT, self->shared.path,
                 "%d processes take part in this broker, which is all that can; close some",
                 PL_PROCESSES_MAX);
}

void pl_processes_leave(pl_processes *self) {
  if (self->fork_generation == pl_forks && atomic_load(&self->state) == JOINED) {
    atomic_store(&self->state, LEAVING);
    call_watchers(self);
    pthread_join(self->watcher, NULL);
    self->slot = -1;
    atomic_store(&self->state, APART);
  }
  pl_shared_let_go(&self->shared);
}

void pl_processes_close(pl_processes *self) {
  pl_processes_leave(self);
  pl_bells_close(self->bells);
  pl_shared_close(&self->shared);
  free(self);
}

bool pl_process_is_alive(const pl_processes *self, int slot, uint64_t nonce) {
  if (slot < 0 || slot >= PL_PROCESSES_MAX || !nonce) return false;
  pl_process_slot *of = &self->file->slots[slot];
  return atomic_load(&of->nonce) == nonce && pl_lock_is_held(&of->lock);
}

int64_t pl_process_silence_ms(const pl_processes *self, int slot) {
  uint32_t every = atomic_load(&self->file->beat_every_ms);
  if (!every) return 0;
  int64_t now_ms = pl_monotonic_ms();
  /* Stopped with all others, and running again before our own watcher, who would have told it. */
  if (self->slot >= 0 &&
      now_ms - atomic_load(&self->file->slots[self->slot].beat_ms) > overslept_ms(every))
    return 0;
  int64_t since = atomic_load(&self->file->slots[slot].beat_ms);
  int64_t stalled = atomic_load(&self->stalled_ms);
  return now_ms - (since > stalled ? since : stalled);
}

void pl_processes_ask_beats(pl_processes *self, uint32_t every_ms) {
  uint32_t had = atomic_load(&self->file->beat_every_ms);
  while ((!had || every_ms < had) &&
         !atomic_compare_exchange_weak(&self->file->beat_every_ms, &had, every_ms)) {
  }
  if (!had || every_ms < had) call_watchers(self);
}
