/* The control page: what the processes that have a log open share. Design decision 5.
 *
 * One word is the truth: `end_offset`. A record exists for everybody when the end has passed it.
 * All else is a hint, re-derived after a death, or a bound. Each hot word has its own 128 bytes
 * (two cache lines: the neighbour line is prefetched with it).
 *
 * No pointer and no length that is used unchecked is ever stored here by us; the mutexes bear
 * glibc's own pointers, which is why whoever can write the directory is trusted.
 */
#ifndef PL_PAGE_H
#define PL_PAGE_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pl_batch.h"
#include "pl_error.h"
#include "pl_lock.h"
#include "pl_meta.h"

#define PL_PAGE_MAGIC 0x6c6f672d70796c31u /* "1lyp-gol" */
#define PL_PAGE_BYTES 8192u
#define PL_BELLS 64

enum { PL_PAGE_LAYOUT = 7 };

typedef enum pl_log_state {
  PL_LOG_LIVE = 0,
  PL_LOG_POISONED = 1, /* a flush failed: what is in the page cache may not be on disk */
  PL_LOG_BROKEN = 3,   /* a writer died inside and its work is not yet repaired */
  PL_LOG_DELETED = 0x476f6e65, /* its directory goes: no more appends, reads or waits. No flipped
                                * bit may say so to a reader who finds the page of a tidy log */
} pl_log_state;

/* Why a page is or is not to be believed (reliability.md 3.1). Written once, at its making. */
typedef struct pl_page_identity {
  uint64_t magic;
  uint32_t layout;
  uint32_t mutex_abi;
  uint8_t boot_id[16];
  uint64_t device, inode;
  uint64_t incarnation;
  uint64_t pid_namespace;
} pl_page_identity;

typedef struct pl_page {
  pl_page_identity identity;

  /* Words that change seldom; read by every append. */
  alignas(128) _Atomic uint32_t state; /* pl_log_state */
  _Atomic int32_t poison_errno;
  _Atomic uint32_t is_dirty;      /* log.meta no longer says clean_end: 0, or the edition */
  _Atomic uint32_t edition;       /* which options hold: who knows another takes them over */
  _Atomic int32_t leader_epoch;
  _Atomic int64_t log_start;
  _Atomic int64_t reserved_end;   /* no offset from here on is used before log.meta says so */
  _Atomic int64_t active_base;    /* base offset of the segment being written */
  _Atomic uint64_t rolls;         /* segments added since the page was made */
  _Atomic uint64_t list_sequence; /* odd while segments are being removed */
  _Atomic int64_t retired_base;   /* segments below are trimmed and indexed */
  _Atomic uint64_t prepared;      /* inode of the file the next roll will rename, 0: none */
  pl_options options[2];          /* those of log.meta, by the edition's last bit */
  uint32_t options_check[2];      /* they say how far to map */

  /* The writer's line: guarded by `append_lock`. */
  alignas(128) pl_slot append_lock;
  uint64_t position;       /* where the next byte goes in the active segment */
  uint64_t batch_position; /* header of the open batch; == position when there is none */
  int64_t batch_timestamp; /* its base timestamp */
  int64_t max_timestamp;
  int64_t batch_count;     /* records in it; 0: no batch is open */
  pl_identity identity_open;

  alignas(128) _Atomic int64_t end_offset;
  alignas(128) _Atomic int64_t sealed_offset; /* base of the open batch; == end when none */
  alignas(128) _Atomic uint64_t bells;        /* doorbells to ring at the next append */

  alignas(128) pthread_mutex_t flush_lock; /* who holds it is syncing for all */
  _Atomic uint32_t flush_bell; /* futex of those who wait for it; odd: somebody sleeps */
  _Atomic int64_t durable_offset;
  _Atomic int64_t durable_floor; /* believed after a reboot if `floor_check` agrees */
  _Atomic uint64_t floor_check;
  _Atomic uint64_t flushes;

  alignas(128) pthread_mutex_t maintenance_lock; /* who removes, trims, indexes or grows */
  _Atomic uint64_t owner_deaths;
} pl_page;

_Static_assert(sizeof(pl_page) <= PL_PAGE_BYTES, "the page outgrew its file");

/* Fills a zeroed page. The file's device and inode are the caller's to set. */
void pl_page_init(pl_page *page, uint64_t incarnation);
void pl_page_identify(pl_page_identity *identity, uint64_t incarnation);

/* Of the next edition; who dies before it is stored has changed nothing. */
void pl_page_put_options(pl_page *page, uint32_t edition, const pl_options *options);
/* False: a bit of them has flipped, or they changed twice meanwhile; *out is what it was. */
bool pl_page_get_options(const pl_page *page, pl_options *out);

/* Check value of the durable floor: ties it to this log. */
uint64_t pl_floor_check(int64_t floor, uint64_t incarnation);

/* Doorbells: 64 shared futex words in a file of their own. A thread waits on the one its id hashes
 * to, with its bit set in the page's map, and sleeps through what others of its process wait for;
 * who changes something rings all bits it finds. With nobody waiting a ring costs one load. */
typedef struct pl_bell {
  alignas(64) _Atomic uint32_t word;
  _Atomic uint64_t topics; /* of the first: another for each change of a broker's topics */
} pl_bell;

typedef struct pl_bells {
  pl_bell bell[PL_BELLS];
} pl_bells;

pl_status pl_bells_open(const char *path, pl_bells **out, uint64_t *inode);

void pl_bells_ring(pl_bells *bells, _Atomic uint64_t *map);
/* Wakes all who wait for anything: for what happens seldom and concerns many. */
void pl_bells_ring_all(pl_bells *bells);
void pl_bells_ring_own(pl_bells *bells); /* wakes who waits in this process */

/* A ringer stores the end, then loads the map; a waiter stores into the map, then loads the end.
 * Both need a full fence between, or both could miss each other. The waiter pays for both: its
 * membarrier(2) fences every thread of every process that registered (0.7 us; an append saves 8
 * ns). Until a process has registered, which takes some 8 ms where it has threads, and where the
 * kernel refuses, ringers fence themselves. */
extern _Atomic bool pl_bells_must_fence;
void pl_bells_register(void); /* the housekeeper does; a forked child starts anew */

/* Must follow the store it announces. */
static inline void pl_bells_ring_if_any(pl_bells *bells, _Atomic uint64_t *map) {
  if (__builtin_expect(atomic_load_explicit(&pl_bells_must_fence, memory_order_acquire), 0))
    atomic_thread_fence(memory_order_seq_cst);
  if (__builtin_expect(atomic_load_explicit(map, memory_order_relaxed) != 0, 0))
    pl_bells_ring(bells, map);
}

/* Announces the caller in each of `count` maps and returns the value to wait on; look at all the
 * conditions once more, then pl_bells_sleep, which is false when a signal came. One file of bells
 * may serve many maps, so one sleep any number of logs. */
uint32_t pl_bells_announce(pl_bells *bells, _Atomic uint64_t *const *maps, int count);
bool pl_bells_sleep(pl_bells *bells, uint32_t seen, int timeout_ms);

#endif
