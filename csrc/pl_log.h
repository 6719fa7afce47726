/* One log in one directory, opened by any number of processes. The floors above a segment:
 *
 *   pl_log.c      open, close, the list of segments, what a reader may see
 *   pl_create.c   a new log
 *   pl_recover.c  what the first opener does before anybody else may come in
 *   pl_scan.c     the walk of a log that no control page tells of
 *   pl_append.c   the writers' critical section: encode, publish, seal, roll
 *   pl_prepare.c  what an appending thread must never do itself: map, allocate, prefault, reserve
 *   pl_flush.c    durability and group commit
 *   pl_cursor.c   reading
 *   pl_keeper.c   the housekeeper thread, one a process
 *   pl_alter.c    options that change while the log is in use
 *   pl_delete.c   how a log dies while others have it open
 *
 * Locks, in the order they are taken:
 *   flock on "lock"        shared while open; exclusive to create, recover, close cleanly
 *   page->flush_lock       held across fdatasync
 *   page->maintenance_lock adds blocks, removes, trims, indexes, writes log.meta
 *   log->prepare_lock      this process's mapping work
 *   page->append_lock      pure C, no system call but the roll's rename
 *   log->list_lock         this process's list of segments
 */
#ifndef PL_LOG_H
#define PL_LOG_H

#include "pl_clock.h"
#include "pl_page.h"
#include "pl_segment.h"

enum { PL_OPEN_SEGMENTS_MAX = 64 }; /* mapped by the list; views may hold more */

typedef struct pl_listed {
  int64_t base_offset;
  pl_segment *segment; /* NULL until used */
  uint64_t used;       /* for eviction */
} pl_listed;

/* What recovery did; all zero when there was nothing to do. */
typedef struct pl_recovered {
  int reason;             /* 0 none, 1 killed: page believed, 2 page not believed: scanned */
  int is_lossy;           /* the log goes on at a fresh offset */
  int64_t cut_offset;     /* first offset that is gone or never was */
  int64_t next_offset;    /* where the log goes on */
  int64_t cut_bytes;      /* bytes set aside */
  int64_t batches_beyond; /* valid batches among them */
  int64_t cut_position;
  char path[PL_PATH_MAX]; /* file that was cut */
  char why[160];
} pl_recovered;

typedef struct pl_log {
  pl_page *page;
  pl_bells *bells;
  uint64_t bells_inode;   /* logs with the same one can be waited for together */
  pl_segment *active;     /* changed with append_lock and list_lock held */
  pl_options options;     /* as of `edition`; changed with append_lock held */
  uint32_t edition;       /* 0: this process has not written yet */
  uint64_t record_bytes_max; /* a record of at most this bound is encoded under the lock */
  uint64_t batch_bytes_max;  /* and joins an open batch of at most this */
  bool is_writable;
  bool is_private;        /* mode "r" on a log that nobody recovered: our own page, no updates */
  unsigned fork_generation;
  _Atomic uint32_t is_closed, is_closing;
  _Atomic int poll_ms;    /* pause of a reader that cannot be woken; grows while nothing comes */
  _Atomic uint32_t users; /* threads inside waits and syncs */
  _Atomic uint64_t nudge_position; /* past it an append wakes the housekeeper */

  char directory[PL_PATH_MAX];
  _Atomic int lock_fd; /* a close takes it away from who looks whether the place is still ours */
  pl_file_info lock_file; /* the directory is ours while "lock" in it is this file */
  pl_meta meta;           /* as loaded at open: epochs never change while open */
  pl_recovered recovered;

  pthread_mutex_t list_lock;
  pl_listed *list;
  int64_t list_count, list_capacity;
  uint64_t list_rolls, list_sequence, list_clock;
  _Atomic uint64_t dropped_sequence; /* list sequence whose deleted segments were let go of */
  uint32_t list_edition;
  uint64_t map_bytes;     /* how much of the last segment is mapped for reading; list_lock */
  pl_segment *prepared;   /* mapped next segment; guarded by list_lock */
  pl_segment *outgoing;   /* last active, to be released by the housekeeper; list_lock */

  pthread_mutex_t prepare_lock;
  bool is_kept;           /* the housekeeper knows it */
  struct pl_log *keeper_next;
  int64_t keeper_end, keeper_sealed;
  int64_t keeper_end_ms, keeper_sealed_ms, keeper_flush_ms, keeper_retry_ms;
  uint64_t keeper_nudge;    /* nudge_position as it was before all went to rest */
  _Atomic uint64_t keeper_failures;
} pl_log;

/* Defaults for options that the caller left at -1 (a stored one wins over a default). */
#define PL_OPTION_UNSET (-1)

/* Opens or creates. `wait_ms` bounds the wait for somebody else's recovery (PL_ERR_TIMEOUT); a
 * reader with 0 waits for nobody, and takes from the files what they tell. */
pl_status pl_log_open(const char *directory, bool writable, const pl_options *wanted, int wait_ms,
                      pl_log **log);
/* Seals; the last one out writes indexes, trims and notes the clean end. Idempotent. Not to be
 * called while another thread is inside; pl_log_free releases the memory. */
pl_status pl_log_close(pl_log *log);
/* Of a closed log that no thread is inside: lets go of its segments. Views keep theirs. */
void pl_log_let_go(pl_log *log);
void pl_log_free(pl_log *log);

/* Closed, forked or fine. */
pl_status pl_log_check(const pl_log *log);
static inline bool pl_log_is_deleted(const pl_log *log) {
  return atomic_load_explicit(&log->page->state, memory_order_relaxed) == PL_LOG_DELETED;
}
pl_status pl_log_fail_deleted(const pl_log *log);

void pl_log_view(const pl_log *log, pl_view *view);
static inline int64_t pl_log_end(const pl_log *log) {
  return atomic_load_explicit(&log->page->end_offset, memory_order_acquire);
}
int64_t pl_log_readable(const pl_log *log);

/* Names are looked up anew each time: is what bears ours still what was opened? To be asked before
 * anything is changed by name, and after a file was opened by it. */
pl_status pl_log_check_place(const pl_log *log);
/* Opens and maps one of the log's segments, whatever it is for. */
pl_status pl_log_map_segment(pl_log *log, int64_t base, uint64_t map_bytes, bool writable,
                             pl_segment **segment);

/* The segment that would hold `offset`, with a reference; *next_base is where the following one
 * starts (INT64_MAX: it is the last). */
pl_status pl_log_segment(pl_log *log, int64_t offset, pl_segment **segment, int64_t *next_base);
pl_status pl_log_refresh_list(pl_log *log);
/* A mapped file keeps its blocks when it is deleted, also where nobody reads any more: lets go of
 * the list's segments that were, in any process. Cost: a load while nothing is deleted. */
void pl_log_drop_deleted(pl_log *log);
/* Sum of the segment files' sizes as the directory tells them. */
pl_status pl_log_size_bytes(pl_log *log, uint64_t *total);
/* Base offsets of the segment files in a directory, sorted; free() the array. */
pl_status pl_list_segments(const char *directory, int64_t **bases, int64_t *count);

/* Changes log.meta: loads, calls, stores, under the maintenance lock which the caller holds. */
typedef void (*pl_meta_change)(pl_meta *meta, void *argument);
pl_status pl_log_change_meta(pl_log *log, pl_meta_change change, void *argument, bool sync);

/* Changes the options of the log for all processes; PL_OPTION_UNSET leaves one as it is. Others
 * learn of it at their next append, or when they look for a segment. PL_BUSY after wait_ms. */
pl_status pl_alter(pl_log *log, const pl_options *wanted, int wait_ms);
/* Begins a new segment, unless the last one is empty. PL_BUSY after wait_ms. */
pl_status pl_roll(pl_log *log, int wait_ms);
/* Takes over what another process has altered. Nothing to do: a load. */
pl_status pl_learn_options(pl_log *log);
void pl_take_options(pl_log *log); /* the same with append_lock held */
void pl_log_set_options(pl_log *log, const pl_options *options);
static inline bool pl_log_knows_options(const pl_log *log) {
  return atomic_load_explicit(&log->page->edition, memory_order_relaxed) == log->edition;
}

/* Are these numbers that a log can have? */
pl_status pl_options_check(const char *directory, const pl_options *options);

/* pl_create.c: with the exclusive lock held, in a directory without log.meta. */
#define PL_RESERVE_OFFSETS ((int64_t)16 << 20) /* the first block of offsets, and the least */
pl_status pl_create(pl_log *log, const pl_options *wanted);
pl_status pl_create_segment(pl_log *log, int64_t base);
/* Fails, and says whether there is no log or only no log.meta. */
pl_status pl_fail_no_meta(const pl_log *log);

/* pl_recover.c: called with the exclusive lock held. Leaves a page that can be attached to. */
pl_status pl_recover(pl_log *log, const pl_options *wanted);
/* For mode "r" without a believable page: fills a private one from the files alone. */
pl_status pl_recover_private(pl_log *log);
/* Does a status tell something of the files? That they could not be asked, for want of descriptors
 * or memory, tells nothing: who took it for damage would cut off what a kill had left whole. */
bool pl_is_evidence(pl_status status);

typedef enum pl_trust {
  PL_TRUST_NONE,
  PL_TRUST_FLOOR, /* of this very file, but of another boot: only the durable floor counts */
  PL_TRUST_ALL,
} pl_trust;
pl_trust pl_page_trust(const pl_page *page, const pl_file_info *file, const pl_meta *meta);

/* pl_append.c. All return PL_BUSY or PL_NOT_READY without having done anything when the lock or
 * a preparation is missing and wait_ms is 0; with wait_ms > 0 they prepare and wait themselves
 * and return PL_BUSY after that time. `if_end` < 0: unconditional. */
pl_status pl_append(pl_log *log, int64_t timestamp, pl_slice key, pl_slice value,
                    pl_slice headers, int64_t if_end, int wait_ms, int64_t *offset);
/* As many of the records from `start` on as fit one hold of the lock (64 KiB), in batches. */
pl_status pl_append_run(pl_log *log, const pl_columns *columns, int64_t start, int wait_ms,
                        int64_t *done, int64_t *first_offset);
/* One sealed batch, stamped in the log. */
pl_status pl_append_batch(pl_log *log, const uint8_t *batch, uint64_t size, int64_t count,
                          int64_t if_end, int wait_ms, int64_t *first_offset);
/* Seals the open batch; *end_offset and *active_base as of that moment. */
pl_status pl_seal(pl_log *log, int wait_ms, int64_t *end_offset, int64_t *active_base);
enum { PL_HOLD_BYTES = 65536 };

/* Seals, and has all writers and readers go by these options. PL_NOT_READY: prepare, come again. */
pl_status pl_turn_edition(pl_log *log, const pl_options *options, int wait_ms);

/* Takes the append lock, repairing after a death. On PL_OK the caller must pl_writer_leave(). */
pl_status pl_writer_enter(pl_log *log, int wait_ms);
void pl_writer_leave(pl_log *log);

/* pl_prepare.c */
pl_status pl_prepare(pl_log *log, uint64_t need_bytes, int64_t need_offsets);
void pl_prepare_ahead(pl_log *log);  /* the housekeeper's share; failures are counted */
pl_status pl_retire(pl_log *log);    /* trims and indexes rolled segments */
pl_status pl_delete_before(pl_log *log, int64_t offset); /* PL_BUSY: look at signals, come again */
pl_status pl_maintenance_enter(pl_log *log, int wait_ms);
void pl_maintenance_leave(pl_log *log);

/* pl_flush.c: makes everything below `target` durable; PL_BUSY after wait_ms of waiting for
 * somebody else's flush. */
pl_status pl_flush(pl_log *log, int64_t target, int wait_ms);

/* After a sync that failed: no more appends, in any process, until a recovery after a reboot. */
void pl_log_poison(pl_log *log, int os_errno);

/* Waits until the readable (or durable) end passes `offset`: PL_OK, or PL_BUSY after wait_ms or
 * when a signal came. */
pl_status pl_wait_readable(pl_log *log, int64_t offset, int wait_ms);
pl_status pl_wait_durable(pl_log *log, int64_t offset, int wait_ms);
void pl_end_waits(pl_log *log); /* before a close: PL_BUSY for those inside, and from now on */

/* pl_delete.c: tells all who have the log open that it is no more, and renames its directory to
 * `aside` when nobody is inside. PL_BUSY after wait_ms for a lock; absent is fine. To be called
 * again after a kill anywhere in it. */
pl_status pl_delete(const char *directory, const char *aside, int wait_ms);

/* pl_keeper.c */
void pl_keeper_register(pl_log *log); /* at open: so that a fork can be noticed */
pl_status pl_keeper_adopt(pl_log *log); /* from the first write on it is worked on */
void pl_keeper_drop(pl_log *log);
void pl_keeper_nudge(pl_log *log);
extern unsigned pl_forks; /* forks between the first process and this one */
void pl_forks_count(void);  /* from now on, if not yet */

#endif
