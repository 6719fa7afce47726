/* The processes that take part in a broker, and which of them live.
 *
 * A file with a slot for each. A process that joined holds its slot's robust mutex in a thread of
 * its own (the housekeeper may sit in a sync for seconds); when it is killed the kernel frees the
 * mutex, however large the process was, before it takes down its memory: 0.2 ms where the flock of
 * a process of 4 GiB takes 0.4 s. The mutex is not inherited by a fork.
 *
 * Whatever belongs to a process (a member of a group, a claim) names its slot and its nonce, and
 * so dies with it, also when the slot has another process now.
 *
 * Every watcher sleeps on the mutexes of all others; the kernel wakes one of them, who counts the
 * death in `deaths` and rings every doorbell. So nobody polls. Where there is no futex_waitv
 * (Linux before 5.16) watchers look each 50 ms.
 */
#ifndef PL_PROCESS_H
#define PL_PROCESS_H

#include <pthread.h>

#include "pl_shared.h"

enum { PL_PROCESSES_MAX = 1000 };

typedef struct pl_process_slot {
  alignas(128) pthread_mutex_t lock; /* held by the process while it lives */
  _Atomic uint64_t nonce;            /* 0: nobody, or a death that has been counted */
  _Atomic uint32_t pid;
  _Atomic int64_t beat_ms;           /* monotonic; stands still while the process is stopped */
} pl_process_slot;

typedef struct pl_process_file {
  pl_page_identity identity;
  alignas(128) _Atomic uint64_t deaths; /* and departures: when it moves, look who is missing */
  _Atomic uint32_t joins;               /* futex of the watchers: somebody to watch is new */
  _Atomic uint32_t used;                /* slots from here on were never used */
  _Atomic uint32_t beat_every_ms;       /* the shortest that anybody asked for; 0: nobody did */
  pl_process_slot slots[PL_PROCESSES_MAX];
} pl_process_file;

typedef struct pl_processes {
  pl_process_file *file;
  pl_bells *bells;
  uint64_t bells_inode;
  int slot;                   /* ours, -1 while we take no part */
  uint64_t nonce;
  unsigned fork_generation;
  pthread_t watcher;
  _Atomic uint32_t state;
  _Atomic int64_t stalled_ms; /* when the watcher last overslept: it was stopped, as all may be */
  pl_shared shared;
} pl_processes;

/* Opens `path`, whose doorbells are in the file `bells_path`. */
pl_status pl_processes_open(const char *path, const char *bells_path, pl_processes **out);
/* What is ours is free for others from then on, and the file is nothing of ours to them; it stays
 * mapped, for others of this process may be looking at it. Idempotent; no more joins, and none
 * going on in another thread: it would keep its slot. */
void pl_processes_leave(pl_processes *self);
/* Leaves, and frees. */
void pl_processes_close(pl_processes *self);

/* Takes a slot, for as long as this process lives or until the close; idempotent, not for two
 * threads at once. PL_ERR_LIMIT: all slots are taken, or there can be no more threads. */
pl_status pl_processes_join(pl_processes *self);

bool pl_process_is_alive(const pl_processes *self, int slot, uint64_t nonce);
/* How long it has not run, ms; 0 where nobody asked for beats. Only of one that is alive. */
int64_t pl_process_silence_ms(const pl_processes *self, int slot);
/* All watchers beat at least this often from now on. */
void pl_processes_ask_beats(pl_processes *self, uint32_t every_ms);

#endif
