/* Options that change while processes have the log open.
 *
 * log.meta is their truth, and the page has a copy, with a number, the edition, which an append
 * compares anyway: it is what `is_dirty` holds. Whoever enters and knows another edition takes the
 * page's options over under the append lock, as they were put there: so all who write have the same
 * at any time, and what they have mapped of a segment reaches as far as any of them may write. For
 * that, what is mapped is let go of at each edition.
 *
 * A kill between log.meta and the page leaves all with the old options; who alters again, or opens
 * the log anew, makes up for it.
 */
#include "pl_fault.h"
#include "pl_log.h"

enum { WAIT_MS = 100 };

void pl_take_options(pl_log *log) {
  pl_page *page = log->page;
  uint32_t edition = atomic_load(&page->edition);
  pthread_mutex_lock(&log->list_lock);
  pl_segment *active = log->active, *prepared = log->prepared;
  log->active = log->prepared = NULL;
  pl_options options = log->options; /* what log.meta said, should the page be damaged */
  pl_page_get_options(page, &options);
  pl_log_set_options(log, &options);
  log->edition = edition;
  pthread_mutex_unlock(&log->list_lock);
  if (atomic_load(&page->is_dirty)) atomic_store(&page->is_dirty, edition);
  pl_segment_release(active);
  pl_segment_release(prepared);
}

pl_status pl_learn_options(pl_log *log) {
  pl_page *page = log->page;
  if (pl_log_knows_options(log)) return PL_OK;
  pl_lock_result locked = pl_slot_wait(&page->append_lock, WAIT_MS);
  if (locked == PL_LOCK_BUSY) return PL_BUSY;
  if (locked == PL_LOCKED_DEAD) { /* whoever enters next repairs */
    uint32_t live = PL_LOG_LIVE;
    atomic_compare_exchange_strong(&page->state, &live, PL_LOG_BROKEN);
    atomic_fetch_add(&page->owner_deaths, 1);
  }
  pl_take_options(log);
  pl_slot_release(&page->append_lock);
  return PL_OK;
}

typedef struct alteration {
  const pl_options *wanted;
  pl_options result;
} alteration;

static void set_options(pl_meta *meta, void *argument) {
  alteration *change = argument;
  const int64_t *wanted = (const int64_t *)change->wanted;
  int64_t *options = (int64_t *)&meta->options;
  for (size_t i = 0; i < sizeof meta->options / sizeof *options; i++)
    if (wanted[i] != PL_OPTION_UNSET) options[i] = wanted[i];
  change->result = meta->options;
}

/* Both under one lock, so that the page never goes back to what log.meta was before. */
static pl_status alter_locked(pl_log *log, const pl_options *wanted, int wait_ms) {
  alteration change = {.wanted = wanted};
  PL_TRY(pl_log_change_meta(log, set_options, &change, true));
  PL_POINT("alter-stored");
  return pl_turn_edition(log, &change.result, wait_ms);
}

pl_status pl_alter(pl_log *log, const pl_options *wanted, int wait_ms) {
  for (;;) {
    PL_TRY(pl_maintenance_enter(log, wait_ms));
    pl_status status = alter_locked(log, wanted, wait_ms);
    pl_maintenance_leave(log);
    if (status == PL_OK) return pl_learn_options(log);
    if (status != PL_NOT_READY) return status;
    PL_TRY(pl_prepare(log, 0, 0));
  }
}
