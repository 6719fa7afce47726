/* A share: which records of a partition a share group has done, holds, or has still to do.
 *
 * A file with a ring of *leases*, one for each record from the first that is not done to the last
 * that was ever given out. Any process that works for the group maps it; there is no coordinator.
 * What Kafka calls a share partition (KIP-932), and its states: available, acquired, acknowledged.
 *
 *   take     the oldest that is ready to be done, else the next of the log, for so many ms
 *   settle   done; or given back, at once or after a while; or kept for longer
 *
 * A lease names its holder's process by slot and nonce (pl_process.h), so it ends with it, at the
 * next take of anybody; it ends too when its time is over. A *token* of each taking fences: who
 * held it before, and wakes up, is refused.
 *
 * Each is a few stores under one lock of the ring. A lease's state is stored last, and all else
 * (which are ready, which are held, who is behind whom) is made again from the states if somebody
 * dies inside. In an *ordered* share a record waits until those before it with keys of the same
 * bucket are done.
 *
 * After a reboot a new file is made out of the leases whose check agrees: what it does not know to
 * be done is done again. Source: KIP-932; Kafka's group.share.record.lock.duration.ms and
 * group.share.delivery.count.limit.
 */
#ifndef PL_LEASE_H
#define PL_LEASE_H

#include "pl_log.h"
#include "pl_process.h"
#include "pl_wait.h"

enum {
  PL_LEASES = 65536, /* this far the newest may be from the oldest that is not done */
  PL_LEASE_BUCKETS = 4096,
  PL_LEASE_NAME_MAX = 249,
};

typedef enum pl_lease_state {
  PL_LEASE_NONE,
  PL_LEASE_READY,
  PL_LEASE_HELD,
  PL_LEASE_DELAYED, /* ready at `until_ms`, wall clock */
  PL_LEASE_BEHIND,  /* another of its bucket comes first */
  PL_LEASE_DONE,
} pl_lease_state;

typedef struct pl_lease {
  int64_t offset;
  int64_t until_ms;    /* of a held one by the monotonic clock */
  uint32_t token;      /* of the last taking */
  uint16_t deliveries; /* how often it was taken */
  uint16_t holder;     /* slot of a process */
  uint16_t bucket, next; /* the next lease of the bucket; its own index: none */
  uint8_t state;
  uint8_t is_keyed;
  uint16_t check;      /* of what counts after a reboot */
} pl_lease;

/* Which of them; the summary says which words are not 0. */
typedef struct pl_lease_set {
  uint64_t summary[PL_LEASES / 64 / 64];
  uint64_t words[PL_LEASES / 64];
  int64_t count;
} pl_lease_set;

typedef struct pl_lease_bucket {
  uint16_t head, tail;
  uint16_t is_used;
} pl_lease_bucket;

typedef struct pl_leases_mark {
  int64_t start;
  uint64_t check;
} pl_leases_mark;

typedef struct pl_leases_counts {
  int64_t done, rejected, given_back, expired, orphaned, taken;
} pl_leases_counts;

/* What may be read without the rest. */
typedef struct pl_leases_head {
  pl_page_identity identity;
  char name[PL_LEASE_NAME_MAX + 1]; /* of the group */
  uint64_t incarnation;             /* of the log */
  uint8_t is_ordered, keeps_records;
  uint32_t mark;
  alignas(64) pl_leases_mark marks[2]; /* the first that is not done, written in turn */
} pl_leases_head;

typedef struct pl_leases_file {
  pl_leases_head head;

  alignas(128) pl_slot lock; /* of all that follows, but for the two words */
  uint64_t first, last;      /* of the ring: numbers that only grow */
  int64_t next_offset;       /* what was never given out */
  uint32_t token;
  uint64_t deaths;           /* as last seen */
  int64_t expiry_ms, due_ms; /* no lease ends, no delayed one is due, before */
  pl_leases_counts counts;
  uint64_t holders[PL_PROCESSES_MAX]; /* nonces */

  alignas(128) _Atomic uint64_t changes; /* something became ready that no append tells of */
  alignas(128) pthread_mutex_t listen;   /* who of the idle waits for the log: one is woken */

  alignas(128) pl_lease_set ready;
  pl_lease_set held, delayed;
  pl_lease_bucket buckets[PL_LEASE_BUCKETS];
  alignas(128) pl_lease leases[PL_LEASES];
} pl_leases_file;

typedef struct pl_leases {
  pl_leases_file *file;
  pl_log *log;
  pl_processes *processes;
  unsigned fork_generation;
  bool displaces; /* takes a delayed one out of the way where the ring is full behind it */
  pl_shared shared;
} pl_leases;

/* What was taken. */
typedef struct pl_grant {
  int64_t offset;
  uint32_t index, token;
  uint32_t deliveries; /* with this one */
  int64_t due_ms;      /* not 0: displaced, and not to be delivered before, by the wall clock */
} pl_grant;

typedef struct pl_leases_stats {
  int64_t start, next, ready, held, delayed, done, behind;
  pl_leases_counts counts;
} pl_leases_stats;

/* How a new share begins, and what it is. */
typedef struct pl_leases_terms {
  const char *name;
  int64_t start;
  int is_ordered;     /* -1: as it was made; not, if it is new */
  bool keeps_records; /* retention stops in front of what is not done */
} pl_leases_terms;

/* The log and the processes are used until the close. PL_ERR_CONFIG: it is there, and ordered while
 * this is not to be, or the other way. */
pl_status pl_leases_open(const char *path, const pl_leases_terms *terms, pl_log *log,
                        pl_processes *processes, pl_leases **out);
void pl_leases_let_go(pl_leases *self);
void pl_leases_close(pl_leases *self);
pl_status pl_leases_remove(pl_leases *self);
pl_status pl_leases_sync(pl_leases *self);

/* Takes up to `count` leases for lock_ms. *taken may be 0: nothing is ready; then *changes is what
 * to wait with. The process must have joined. PL_BUSY: somebody stopped holds the lock. */
pl_status pl_leases_take(pl_leases *self, int64_t count, int64_t lock_ms, int wait_ms,
                        pl_grant *grants, int64_t *taken, uint64_t *changes);
/* In an ordered share: records at next_offset that nobody has admitted yet, with their buckets, -1
 * for none. PL_END: `next` is not next_offset any more; or there is no room: *admitted says how
 * many are in. */
pl_status pl_leases_admit(pl_leases *self, int64_t next, const int64_t *offsets,
                         const int32_t *buckets, int64_t count, int wait_ms, int64_t *admitted);
/* There is no record from this lease's offset on up to `next`: it is done, and so are those. */
pl_status pl_leases_skip(pl_leases *self, uint32_t index, uint32_t token, int64_t next,
                         int wait_ms);

typedef enum pl_settlement {
  PL_SETTLE_DONE,
  PL_SETTLE_REJECT,
  PL_SETTLE_GIVE_BACK, /* after `ms` */
  PL_SETTLE_RETURN,    /* the same, and this delivery does not count */
  PL_SETTLE_RENEW,     /* kept for `ms` from now */
} pl_settlement;
/* PL_END: the lease has ended, and may be another's. */
pl_status pl_leases_settle(pl_leases *self, uint32_t index, uint32_t token, pl_settlement how,
                          int64_t ms, int wait_ms);
/* PL_END as above. */
pl_status pl_leases_peek(pl_leases *self, uint32_t index, uint32_t token);

/* Waits until a take may find something. One of those who wait hears of appends; it returns PL_OK
 * as the *listener*, takes, and lets the next one listen. PL_BUSY: look again, and at signals.
 * `word` is one more that ends the wait, when it is not `seen` any more. */
pl_status pl_leases_listen(pl_leases *self, uint64_t changes, const _Atomic uint64_t *word,
                           uint64_t seen, int wait_ms);
void pl_leases_unlisten(pl_leases *self);
/* When to look although nothing happens; INT64_MAX: never. Monotonic ms. */
int64_t pl_leases_next_look(const pl_leases *self);

pl_status pl_leases_get_stats(pl_leases *self, int wait_ms, pl_leases_stats *out);
/* Of pl_lease_file.c and pl_lease.c for each other. */
uint16_t pl_lease_check(const pl_lease *lease);
uint64_t pl_leases_mark_check(int64_t start, uint64_t incarnation);
void pl_leases_rebuild(pl_leases_file *file);

/* The first record that is not done, of the file at `path`, without opening it for work; -1: it
 * keeps no records, or is none. That it could not be read is no answer. */
pl_status pl_leases_kept_from(const char *path, int64_t *start);

#endif
