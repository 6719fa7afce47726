/* What an appending thread must never do inside its lock: mapping, allocating, prefaulting,
 * reserving offsets, making the next segment; and the removal of what is no longer needed.
 *
 * Page tables belong to a process, so each writing process prefaults for itself; blocks belong
 * to the file, so growing it is done by one process at a time, under the maintenance lock (a
 * failed allocation cuts the file back, which must not cut somebody else's).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pl_fault.h"
#include "pl_log.h"

enum {
  STEP_MIN = 1 << 20,  /* blocks are given in steps that grow with use, so an idle log is small */
  STEP_MAX = 64 << 20,
  AHEAD_MAX = 16 << 20, /* faulted in ahead of the writer, in each writing process */
  WAIT_MS = 100,        /* for a lock that is held for long: then the caller looks at signals */
};
#define RESERVE_OFFSETS_MAX ((int64_t)1 << 30)

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high) {
  return value < low ? low : value > high ? high : value;
}

pl_status pl_maintenance_enter(pl_log *log, int wait_ms) {
  pl_lock_result result = pl_lock_wait(&log->page->maintenance_lock, wait_ms);
  if (result == PL_LOCK_BUSY) return PL_BUSY;
  if (result == PL_LOCK_BROKEN)
    return pl_fail(PL_ERR_IO, log->directory, "the maintenance lock is unusable; reopen the log");
  if (result == PL_LOCKED_DEAD) {
    /* Every step under this lock can be repeated; only the list sequence may be left odd. */
    pl_lock_adopt(&log->page->maintenance_lock);
    if (atomic_load(&log->page->list_sequence) & 1) atomic_fetch_add(&log->page->list_sequence, 1);
  }
  pl_status status = pl_log_check_place(log);
  if (status != PL_OK) pl_maintenance_leave(log);
  return status;
}

void pl_maintenance_leave(pl_log *log) { pl_lock_release(&log->page->maintenance_lock); }

pl_status pl_log_change_meta(pl_log *log, pl_meta_change change, void *argument, bool sync) {
  pl_meta meta;
  pl_status status = pl_meta_load(log->directory, &meta);
  if (status == PL_NOT_READY)
    return pl_fail(PL_ERR_IO, log->directory, "log.meta has vanished; was the log deleted?");
  PL_TRY(status);
  change(&meta, argument);
  meta.durable_end = atomic_load(&log->page->durable_offset);
  return pl_meta_store(log->directory, &meta, sync);
}

/* ---- offsets and the clean mark --------------------------------------------------------- */

static void set_dirty(pl_meta *meta, void *argument) {
  (void)argument;
  meta->clean_end = -1;
}

static pl_status make_dirty(pl_log *log) {
  if (atomic_load(&log->page->is_dirty)) return PL_OK;
  PL_TRY(pl_maintenance_enter(log, WAIT_MS));
  pl_status status = PL_OK;
  if (!atomic_load(&log->page->is_dirty)) {
    /* What the last close said about this segment will be too little when it is retired. */
    status = pl_segment_remove_index(log->directory, atomic_load(&log->page->active_base));
    if (status == PL_OK) status = pl_log_change_meta(log, set_dirty, NULL, true);
    if (status == PL_OK)
      atomic_store(&log->page->is_dirty, atomic_load(&log->page->edition));
  }
  pl_maintenance_leave(log);
  return status;
}

static void set_reserved(pl_meta *meta, void *argument) {
  int64_t reserved = *(int64_t *)argument;
  if (reserved > meta->reserved_end) meta->reserved_end = reserved;
}

/* Blocks of offsets double with use, so that a fast writer does not sync a file each second. */
static pl_status reserve_offsets(pl_log *log, int64_t need, bool ahead) {
  pl_page *page = log->page;
  int64_t end = pl_log_end(log), reserved = atomic_load(&page->reserved_end);
  int64_t used = end - log->meta.log_start;
  int64_t block = used < PL_RESERVE_OFFSETS ? PL_RESERVE_OFFSETS
                  : used > RESERVE_OFFSETS_MAX ? RESERVE_OFFSETS_MAX : used;
  if (end + need <= reserved && !(ahead && end > reserved - block / 2)) return PL_OK;
  PL_TRY(pl_maintenance_enter(log, WAIT_MS));
  pl_status status = PL_OK;
  if (atomic_load(&page->reserved_end) == reserved) {
    int64_t wanted = (end + need > reserved ? end + need : reserved) + block;
    status = pl_log_change_meta(log, set_reserved, &wanted, true);
    if (status == PL_OK) atomic_store(&page->reserved_end, wanted);
  }
  pl_maintenance_leave(log);
  return status;
}

/* ---- the active segment ----------------------------------------------------------------- */

/* Maps the active segment if another process rolled; the prepared one may be it already. */
static pl_status map_active(pl_log *log) {
  pl_page *page = log->page;
  int64_t base = atomic_load(&page->active_base);
  pthread_mutex_lock(&log->list_lock);
  uint32_t edition = log->edition;
  bool is_current = log->active && log->active->base_offset == base;
  pthread_mutex_unlock(&log->list_lock);
  if (is_current) return PL_OK;
  pl_segment *segment;
  pl_status status =
      pl_log_map_segment(log, base, (uint64_t)log->options.segment_bytes, true, &segment);
  /* Rolled and deleted by others meanwhile: the caller comes again. */
  if (status == PL_ERR_IO && atomic_load(&page->active_base) != base) return PL_BUSY;
  PL_TRY(status);
  pl_lock_result locked = pl_slot_wait(&page->append_lock, WAIT_MS);
  if (locked != PL_LOCK_BUSY) PL_POINT("map-locked");
  if (locked != PL_LOCKED) { /* a death to repair, or a busy lock: the caller comes again */
    if (locked == PL_LOCKED_DEAD) {
      uint32_t live = PL_LOG_LIVE;
      atomic_compare_exchange_strong(&page->state, &live, PL_LOG_BROKEN);
      atomic_fetch_add(&page->owner_deaths, 1);
      pl_slot_release(&page->append_lock);
    }
    pl_segment_release(segment);
    return PL_OK;
  }
  pl_segment *old = segment, *stale = NULL;
  /* Of another edition it may have been mapped too short. */
  if (atomic_load(&page->active_base) == base && log->edition == edition) {
    pthread_mutex_lock(&log->list_lock);
    pl_segment *prepared = log->prepared;
    if (prepared && prepared->inode == segment->inode) { /* warm already: take that */
      stale = segment;
      memcpy(prepared->path, segment->path, sizeof prepared->path);
      prepared->base_offset = base;
      pl_index_init(&prepared->index, base, (uint64_t)log->options.index_interval_bytes);
      segment = prepared;
      log->prepared = NULL;
    }
    old = log->active;
    log->active = segment;
    pthread_mutex_unlock(&log->list_lock);
    atomic_store(&log->nudge_position, 0);
  }
  pl_slot_release(&page->append_lock);
  pl_segment_release(old);
  pl_segment_release(stale);
  return PL_OK;
}

static pl_segment *acquire_active(pl_log *log) {
  pthread_mutex_lock(&log->list_lock);
  pl_segment *segment = log->active;
  if (segment) pl_segment_acquire(segment);
  pthread_mutex_unlock(&log->list_lock);
  return segment;
}

/* Blocks and page tables for [0, position + bytes + what is wise ahead). */
static pl_status make_window(pl_log *log, pl_segment *segment, uint64_t position, uint64_t bytes) {
  uint64_t capacity = segment->mapped;
  uint64_t ahead = clamp(position, STEP_MIN, AHEAD_MAX);
  uint64_t need = position + bytes > capacity ? capacity : position + bytes;
  uint64_t target = need + ahead > capacity ? capacity : need + ahead;
  uint64_t size;
  if (atomic_load(&segment->window_end) >= target) return PL_OK;
  PL_TRY(pl_file_size(segment->fd, segment->path, &size));
  if (size < target) {
    uint64_t step = clamp(position, STEP_MIN, STEP_MAX);
    uint64_t wanted = target + step > capacity ? capacity : target + step;
    PL_TRY(pl_maintenance_enter(log, WAIT_MS));
    pl_status status = PL_OK;
    /* A segment that was retired meanwhile must not grow again. */
    if (segment->base_offset == atomic_load(&log->page->active_base)) {
      status = pl_file_reserve(segment->fd, segment->path, wanted, PL_DISK_SPARE);
      if (status == PL_ERR_DISK_FULL && need > size)
        status = pl_file_reserve(segment->fd, segment->path, need, PL_DISK_SPARE);
    }
    pl_maintenance_leave(log);
    pl_file_size(segment->fd, segment->path, &size);
    if (size < need) return status == PL_OK ? PL_BUSY : status;
    if (size < target) target = size;
  }
  pl_status status = pl_segment_populate(segment, target);
  /* Rolled and trimmed by another process meanwhile: no lack of room. */
  if (status < 0 && segment->base_offset != atomic_load(&log->page->active_base)) return PL_BUSY;
  PL_TRY(status);
  atomic_store(&log->nudge_position, target - ahead / 2);
  return PL_OK;
}

/* ---- the next segment ------------------------------------------------------------------- */

static pl_status create_prepared(pl_log *log, const char *path) {
  int fd;
  struct pl_segment *segment;
  /* A new file, never an old one emptied: some process may have that mapped, and would take it for
   * this one by its inode. */
  PL_TRY(pl_file_remove(path));
  PL_TRY(pl_file_open(path, O_RDWR | O_CREAT | O_EXCL, &fd));
  uint64_t first = clamp((uint64_t)log->options.segment_bytes, 4096, STEP_MIN);
  pl_status status = pl_file_reserve(fd, path, first, PL_DISK_SPARE);
  /* A durable log's file is in its directory, with its blocks, before it is put in service. */
  if (status == PL_OK && log->options.durability == PL_DURABILITY_FSYNC) {
    status = pl_file_sync(fd, path);
    if (status == PL_OK) status = pl_file_sync_directory(log->directory);
  }
  pl_file_close(fd);
  if (status != PL_OK) {
    pl_file_remove(path);
    return status;
  }
  PL_TRY(pl_segment_open(log->directory, PL_PREPARED_NAME, INT64_MAX, 0, true, 0, &segment));
  atomic_store(&log->page->prepared, segment->inode);
  pl_segment_release(segment);
  return PL_OK;
}

static pl_status prepare_next(pl_log *log) {
  pl_page *page = log->page;
  char path[PL_PATH_MAX];
  uint64_t inode = atomic_load(&page->prepared);
  pthread_mutex_lock(&log->list_lock);
  bool is_mapped = inode && log->prepared && log->prepared->inode == inode;
  uint32_t edition = log->edition;
  pthread_mutex_unlock(&log->list_lock);
  if (is_mapped) return PL_OK;
  PL_TRY(pl_file_path(log->directory, PL_PREPARED_NAME, path));
  PL_TRY(pl_maintenance_enter(log, WAIT_MS));
  pl_status status = PL_OK;
  if (!atomic_load(&page->prepared) || !pl_file_exists(path)) {
    status = create_prepared(log, path);
  }
  inode = atomic_load(&page->prepared);
  pl_segment *segment = NULL;
  bool is_rolled = false;
  if (status == PL_OK) {
    status = pl_segment_open(log->directory, PL_PREPARED_NAME, INT64_MAX,
                             (uint64_t)log->options.segment_bytes, true,
                             (uint64_t)log->options.index_interval_bytes, &segment);
    is_rolled = status == PL_ERR_IO && pl_error_last()->os_errno == ENOENT;
  }
  pl_maintenance_leave(log);
  if (is_rolled) return PL_OK;
  PL_TRY(status);
  status = pl_segment_populate(segment, atomic_load(&segment->size));
  /* Rolled, filled and trimmed by others meanwhile: that is no lack of room. */
  bool is_still_next = segment->inode == inode && atomic_load(&page->prepared) == inode;
  if (status != PL_OK || !is_still_next) {
    pl_segment_release(segment);
    return is_still_next ? status : PL_OK;
  }
  pthread_mutex_lock(&log->list_lock);
  pl_segment *old = segment;
  if (log->edition == edition) {
    old = log->prepared;
    log->prepared = segment;
  }
  pthread_mutex_unlock(&log->list_lock);
  pl_segment_release(old);
  return PL_OK;
}

static pl_status prepare_locked(pl_log *log, uint64_t need_bytes, int64_t need_offsets) {
  PL_TRY(make_dirty(log));
  PL_TRY(pl_learn_options(log));
  PL_TRY(reserve_offsets(log, need_offsets, false));
  PL_TRY(map_active(log));
  pl_segment *segment = acquire_active(log);
  if (!segment) return PL_OK;
  uint64_t position = log->page->position; /* a hint: it is checked again under the lock */
  pl_status status;
  if (position + need_bytes > (uint64_t)log->options.segment_bytes ||
      pl_log_end(log) + need_offsets - segment->base_offset > INT32_MAX)
    status = prepare_next(log);
  else
    status = make_window(log, segment, position, need_bytes);
  pl_segment_release(segment);
  return status;
}

pl_status pl_prepare(pl_log *log, uint64_t need_bytes, int64_t need_offsets) {
  pl_log_drop_deleted(log); /* the room that is missing may be theirs */
  pthread_mutex_lock(&log->prepare_lock);
  pl_status status = prepare_locked(log, need_bytes, need_offsets);
  pthread_mutex_unlock(&log->prepare_lock);
  if (status == PL_OK) (void)pl_keeper_adopt(log); /* without it appends are slower, no more */
  return status;
}

static pl_status prepare_ahead_locked(pl_log *log) {
  pl_segment *outgoing = NULL;
  pthread_mutex_lock(&log->list_lock);
  outgoing = log->outgoing;
  log->outgoing = NULL;
  pthread_mutex_unlock(&log->list_lock);
  pl_segment_release(outgoing);
  PL_TRY(map_active(log));
  PL_TRY(reserve_offsets(log, 0, true));
  pl_segment *segment = acquire_active(log);
  if (!segment) return PL_OK;
  uint64_t position = log->page->position;
  pl_status status = PL_OK;
  /* Only where this process writes: its window tells. */
  if (atomic_load(&segment->window_end)) {
    status = make_window(log, segment, position, 0);
    uint64_t left = segment->mapped > position ? segment->mapped - position : 0;
    if (status == PL_OK && (left < AHEAD_MAX * 2u || left < segment->mapped / 4))
      status = prepare_next(log);
  }
  pl_segment_release(segment);
  return status;
}

void pl_prepare_ahead(pl_log *log) {
  if (!atomic_load(&log->page->is_dirty)) return;
  pthread_mutex_lock(&log->prepare_lock);
  pl_status status = prepare_ahead_locked(log);
  pthread_mutex_unlock(&log->prepare_lock);
  if (status < 0) atomic_fetch_add(&log->keeper_failures, 1);
}

/* ---- retiring and removing -------------------------------------------------------------- */

/* Where the segment's bytes end; writes its indexes unless whole ones are there. */
static pl_status close_segment(pl_log *log, pl_segment *segment, int64_t next_base,
                               uint64_t *log_size) {
  pl_view view = {next_base, next_base, &log->meta, true};
  pl_header header;
  pl_tail tail;
  uint64_t position;
  if (pl_segment_has_index(segment, &view) &&
      pl_segment_find(segment, next_base - 1, &view, &position, &header) == PL_OK &&
      pl_segment_walk_to_end(segment, position, header.base_offset, &view, &tail) == PL_OK) {
    *log_size = tail.position;
    return PL_OK;
  }
  return pl_segment_write_index(segment, log->directory, &view, log_size);
}

static pl_status retire_one(pl_log *log, int64_t base, int64_t next_base) {
  pl_segment *segment;
  uint64_t log_size, size;
  PL_TRY(pl_log_map_segment(log, base, 0, true, &segment));
  pl_status status = close_segment(log, segment, next_base, &log_size);
  if (status == PL_OK) status = pl_file_size(segment->fd, segment->path, &size);
  if (status == PL_OK && size > log_size)
    status = pl_file_truncate(segment->fd, segment->path, log_size);
  pl_segment_release(segment);
  /* A damaged segment stays as it is: its readers are told, and nothing is cut silently. */
  return status == PL_ERR_CORRUPT ? PL_OK : status;
}

pl_status pl_retire(pl_log *log) {
  pl_page *page = log->page;
  if (atomic_load(&page->retired_base) >= atomic_load(&page->active_base)) return PL_OK;
  pl_status status = pl_maintenance_enter(log, 0);
  if (status == PL_BUSY) return PL_OK;
  PL_TRY(status);
  int64_t active = atomic_load(&page->active_base); /* first: all before it are in the list then */
  int64_t *bases, count;
  status = pl_list_segments(log->directory, &bases, &count);
  for (int64_t i = 0; status == PL_OK && i + 1 < count && bases[i] < active; i++) {
    if (bases[i] < atomic_load(&page->retired_base)) continue;
    status = retire_one(log, bases[i], bases[i + 1]);
    if (status == PL_OK) atomic_store(&page->retired_base, bases[i + 1]);
  }
  /* What was deleted before anybody came to retire it is not in the list, and not waited for. */
  if (status == PL_OK && count > 0 && bases[count - 1] >= active &&
      atomic_load(&page->retired_base) < active)
    atomic_store(&page->retired_base, active);
  if (status == PL_OK || count > 0) free(bases);
  pl_maintenance_leave(log);
  return status;
}

static void set_log_start(pl_meta *meta, void *argument) {
  int64_t start = *(int64_t *)argument;
  if (start > meta->log_start) meta->log_start = start;
}

static pl_status remove_segment(const pl_log *log, int64_t base) {
  char name[32], path[PL_PATH_MAX];
  pl_segment_name(base, ".log", name);
  PL_TRY(pl_file_path(log->directory, name, path));
  PL_TRY(pl_file_remove(path));
  return pl_segment_remove_index(log->directory, base);
}

static pl_status remove_below(pl_log *log, int64_t offset) {
  pl_page *page = log->page;
  int64_t *bases, count;
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  pl_status status = PL_OK;
  PL_POINT("delete-started");
  atomic_fetch_add(&page->list_sequence, 1);
  for (int64_t i = 0; status == PL_OK && i + 1 < count && bases[i + 1] <= offset; i++) {
    PL_POINT("remove-segment");
    status = remove_segment(log, bases[i]);
  }
  PL_POINT("delete-removed");
  atomic_fetch_add(&page->list_sequence, 1);
  free(bases);
  return status;
}

/* Has a deletion left files that it was to remove? Who was killed in it is not asked for them. */
static pl_status was_killed(const pl_log *log, int64_t start, bool *answer) {
  int64_t *bases, count;
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  *answer = count > 1 && bases[1] <= start;
  free(bases);
  return PL_OK;
}

pl_status pl_delete_before(pl_log *log, int64_t offset) {
  pl_page *page = log->page;
  int64_t end = pl_log_readable(log); /* the start must not be where a power cut ends the log */
  if (offset < 0 || offset > end) {
    int64_t start = atomic_load(&page->log_start);
    pl_fail(PL_ERR_OUT_OF_RANGE, log->directory,
            "offset %" PRId64 " is not within [%" PRId64 ", %" PRId64 "], so nothing was deleted; "
            "pass the first offset to keep", offset, start, end);
    pl_error_last()->offset = offset;
    pl_error_last()->bound = start;
    pl_error_last()->extra = end;
    return PL_ERR_OUT_OF_RANGE;
  }
  int64_t start = atomic_load(&page->log_start);
  bool is_due = offset > start;
  if (offset == start) PL_TRY(was_killed(log, start, &is_due));
  if (!is_due) return PL_OK;
  PL_TRY(make_dirty(log));
  PL_TRY(pl_maintenance_enter(log, WAIT_MS));
  PL_POINT("delete-locked");
  /* The start is durable before a byte goes: a crash between leaves only files to remove. */
  pl_status status = pl_log_change_meta(log, set_log_start, &offset, true);
  if (status == PL_OK) {
    if (offset > atomic_load(&page->log_start)) atomic_store(&page->log_start, offset);
    status = remove_below(log, offset);
  }
  pl_maintenance_leave(log);
  return status;
}
