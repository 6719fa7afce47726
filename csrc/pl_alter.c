/* Options that change while processes have the log open.
 *
 * log.meta is their truth. The page has a number, the edition, which an append compares anyway: it
 * is what `is_dirty` holds. Who knows another edition leaves its lock, reads log.meta and comes
 * again, so nothing is added to the path of a record. What is mapped for another segment size is
 * let go of and mapped anew.
 *
 * A kill between log.meta and the edition leaves the others with the old options; who alters again,
 * or opens the log anew, makes up for it.
 */
#include <stdlib.h>

#include "pl_log.h"

enum { WAIT_MS = 100 };

static pl_status load(const pl_log *log, pl_options *options) {
  pl_meta *meta = malloc(sizeof *meta);
  if (!meta) return pl_fail(PL_ERR_NO_MEMORY, log->directory, "out of memory for log.meta");
  pl_status status = pl_meta_load(log->directory, meta);
  if (status == PL_NOT_READY)
    status = pl_fail(PL_ERR_IO, log->directory, "log.meta has vanished; was the log deleted?");
  *options = meta->options;
  free(meta);
  if (status == PL_OK) status = pl_options_check(log->directory, options);
  return status == PL_OK ? pl_log_check_place(log) : status;
}

/* With the append lock held. */
static void take_over(pl_log *log, const pl_options *options, uint32_t edition) {
  pl_segment *active = NULL, *prepared = NULL;
  pthread_mutex_lock(&log->list_lock);
  if (options->segment_bytes != log->options.segment_bytes) {
    active = log->active;
    prepared = log->prepared;
    log->active = log->prepared = NULL;
  }
  pl_log_set_options(log, options);
  log->edition = edition;
  pthread_mutex_unlock(&log->list_lock);
  if (atomic_load(&log->page->is_dirty))
    atomic_store(&log->page->is_dirty, atomic_load(&log->page->edition));
  pl_segment_release(active);
  pl_segment_release(prepared);
}

pl_status pl_learn_options_locked(pl_log *log) {
  pl_page *page = log->page;
  uint32_t edition = atomic_load(&page->edition), dirty = atomic_load(&page->is_dirty);
  pl_options options;
  if (edition == log->edition && (!dirty || dirty == edition)) return PL_OK;
  PL_TRY(load(log, &options));
  pl_lock_result locked = pl_slot_wait(&page->append_lock, WAIT_MS);
  if (locked == PL_LOCK_BUSY) return PL_BUSY;
  if (locked == PL_LOCKED_DEAD) { /* whoever enters next repairs */
    uint32_t live = PL_LOG_LIVE;
    atomic_compare_exchange_strong(&page->state, &live, PL_LOG_BROKEN);
    atomic_fetch_add(&page->owner_deaths, 1);
  }
  take_over(log, &options, edition);
  pl_slot_release(&page->append_lock);
  return PL_OK;
}

pl_status pl_learn_options(pl_log *log) {
  pthread_mutex_lock(&log->prepare_lock);
  pl_status status = pl_learn_options_locked(log);
  pthread_mutex_unlock(&log->prepare_lock);
  return status;
}

static void set_options(pl_meta *meta, void *argument) {
  const int64_t *wanted = argument;
  int64_t *options = (int64_t *)&meta->options;
  for (size_t i = 0; i < sizeof meta->options / sizeof *options; i++)
    if (wanted[i] != PL_OPTION_UNSET) options[i] = wanted[i];
}

pl_status pl_alter(pl_log *log, const pl_options *wanted, int wait_ms) {
  pl_options altered = *wanted;
  PL_TRY(pl_maintenance_enter(log, wait_ms));
  pl_status status = pl_log_change_meta(log, set_options, &altered, true);
  pl_maintenance_leave(log);
  PL_TRY(status);
  PL_TRY(pl_turn_edition(log, wait_ms));
  return pl_learn_options(log);
}
