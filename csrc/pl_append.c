/* The writers' critical section.
 *
 *   enter (lock, repair after a death) -> room -> encode in place -> publish the end -> leave
 *
 * Inside is pure C: no allocation, no page fault, no system call but the roll's rename. Whoever
 * finds something missing (a mapping, a prefaulted window, a prepared file) leaves, prepares it
 * (pl_prepare.c) and tries again.
 *
 * Order of the stores of one append, each of which a SIGKILL may be the last:
 *   record bytes -> page hints -> end_offset (release). Only the last makes the record exist.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pl_fault.h"
#include "pl_log.h"

static int64_t end_of(const pl_page *page) {
  return atomic_load_explicit(&page->end_offset, memory_order_relaxed);
}

static void publish(pl_page *page, int64_t end) {
  PL_POINT("before-publish");
  atomic_store_explicit(&page->end_offset, end, memory_order_release);
  PL_POINT("after-publish");
}

static void mark_sealed(pl_page *page) {
  page->batch_count = 0;
  page->batch_position = page->position;
  PL_POINT("before-sealed");
  atomic_store_explicit(&page->sealed_offset, end_of(page), memory_order_release);
  PL_POINT("after-sealed");
}

static void seal_open_batch(pl_log *log) {
  pl_page *page = log->page;
  if (page->batch_count == 0) return;
  PL_POINT("before-seal");
  pl_batch_seal(log->active->data + page->batch_position, page->position - page->batch_position,
                page->batch_count, page->max_timestamp);
  PL_POINT("after-seal");
  mark_sealed(page);
}

/* ---- after a death ---------------------------------------------------------------------- */

static pl_status state_error(const pl_log *log, uint32_t state) {
  if (state == PL_LOG_POISONED) {
    pl_fail(PL_ERR_DURABILITY, log->directory,
            "a flush to disk failed (errno %d), so the log takes no more appends; records below "
            "durable_offset are safe; copy what you need, repair the disk and reopen after a "
            "reboot", atomic_load(&log->page->poison_errno));
    pl_error_last()->os_errno = atomic_load(&log->page->poison_errno);
    pl_error_last()->extra = atomic_load(&log->page->durable_offset);
    return PL_ERR_DURABILITY;
  }
  return pl_log_fail_deleted(log);
}

static pl_status switch_active(pl_log *log, int64_t base) {
  pl_segment *segment;
  PL_TRY(pl_log_map_segment(log, base, (uint64_t)log->options.segment_bytes, true, &segment));
  pthread_mutex_lock(&log->list_lock);
  pl_segment *old = log->active;
  log->active = segment;
  pthread_mutex_unlock(&log->list_lock);
  pl_segment_release(old);
  return PL_OK;
}

/* Names on disk are the truth about segments: a roll that died after its rename is finished. */
static pl_status finish_roll(pl_log *log) {
  pl_page *page = log->page;
  int64_t *bases, count;
  PL_POINT("repair-begun");
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  int64_t newest = count ? bases[count - 1] : -1;
  free(bases);
  if (newest > atomic_load(&page->active_base)) atomic_store(&page->active_base, newest);
  if (!log->active || log->active->base_offset != newest) PL_TRY(switch_active(log, newest));
  if (log->active->inode == atomic_load(&page->prepared)) atomic_store(&page->prepared, 0);
  PL_POINT("repair-before-count");
  /* Counted again if it was: a roll too many costs the readers a listing, one too few would hide
   * the segment from them. */
  atomic_fetch_add(&page->rolls, 1);
  return PL_OK;
}

/* What the dead writer left behind the end could be whole valid batches, and might reach the
 * disk while what is written over them does not. They are made no batches there, durably, before
 * any of their offsets is used again. Only the magic byte goes: whoever repairs after a death in
 * here finds them again by their lengths, and syncs again. */
static pl_status destroy_leftovers(pl_log *log, pl_segment *segment, uint64_t position) {
  bool found = false;
  pl_status status;
  while ((status = pl_segment_see(segment, position, PL_BATCH_HEADER_SIZE, true)) == PL_OK) {
    uint64_t length = pl_batch_load_length(segment->data + position);
    if (length == 0 || length > PL_SEGMENT_BYTES_MAX) break;
    PL_POINT("repair-before-void");
    segment->data[position + PL_BATCH_MAGIC] = 0xff;
    position += length + PL_BATCH_LENGTH_OVERHEAD;
    found = true;
  }
  if (status < 0) return status;
  if (!found) return PL_OK;
  PL_POINT("repair-before-sync");
  if (pl_file_sync(segment->fd, segment->path) == PL_OK) return PL_OK;
  pl_log_poison(log, pl_error_last()->os_errno); /* never asked again: see pl_flush.c */
  return state_error(log, PL_LOG_POISONED);
}

static pl_status find_tail(pl_log *log, const pl_view *view, pl_tail *tail) {
  pl_page *page = log->page;
  pl_segment *segment = log->active;
  pl_header header;
  uint64_t hint = page->batch_position;
  if (view->end_offset <= segment->base_offset) {
    memset(tail, 0, sizeof *tail);
    return PL_OK;
  }
  if (hint < segment->mapped &&
      pl_segment_batch(segment, hint, -1, view, &header) == PL_OK &&
      header.base_offset >= segment->base_offset &&
      pl_segment_walk_to_end(segment, hint, header.base_offset, view, tail) == PL_OK)
    return PL_OK;
  uint64_t position;
  PL_TRY(pl_segment_find(segment, view->end_offset - 1, view, &position, &header));
  return pl_segment_walk_to_end(segment, position, header.base_offset, view, tail);
}

static pl_status repair(pl_log *log) {
  pl_page *page = log->page;
  PL_TRY(finish_roll(log));
  pl_view view = {end_of(page), atomic_load(&page->sealed_offset), &log->meta, true};
  pl_tail tail;
  PL_POINT("repair-before-derive");
  PL_TRY(find_tail(log, &view, &tail));
  page->position = tail.position;
  page->batch_position = tail.batch_position;
  page->batch_timestamp = tail.batch_timestamp;
  page->max_timestamp = tail.max_timestamp;
  page->batch_count = tail.count;
  PL_POINT("repair-derived");
  seal_open_batch(log);
  mark_sealed(page);
  return destroy_leftovers(log, log->active, page->position);
}

/* Entered with the lock held and something wrong; releases it unless it returns PL_OK. */
static pl_status enter_slowly(pl_log *log, bool owner_died) {
  pl_page *page = log->page;
  if (owner_died) {
    uint32_t live = PL_LOG_LIVE;
    atomic_compare_exchange_strong(&page->state, &live, PL_LOG_BROKEN);
    atomic_fetch_add(&page->owner_deaths, 1);
  }
  pl_status status = PL_OK;
  uint32_t state = atomic_load(&page->state);
  uint32_t dirty = atomic_load(&page->is_dirty), edition = atomic_load(&page->edition);
  if (edition != log->edition || (dirty && dirty != edition)) pl_take_options(log);
  if (state == PL_LOG_BROKEN) {
    status = repair(log);
    PL_POINT("repair-before-live");
    /* A flush may have failed meanwhile: that word stands. */
    if (status == PL_OK && !atomic_compare_exchange_strong(&page->state, &state, PL_LOG_LIVE))
      status = state_error(log, state);
  } else if (state != PL_LOG_LIVE) {
    status = state_error(log, state);
  }
  if (status == PL_OK &&
      (!log->active || log->active->base_offset != atomic_load(&page->active_base) ||
       atomic_load(&page->is_dirty) != log->edition))
    status = PL_NOT_READY;
  if (status != PL_OK) pl_slot_release(&page->append_lock);
  return status;
}

static inline pl_status enter(pl_log *log, int wait_ms) {
  pl_page *page = log->page;
  pl_lock_result result = pl_slot_try(&page->append_lock);
  if (__builtin_expect(result == PL_LOCK_BUSY, 0))
    result = pl_slot_wait(&page->append_lock, wait_ms);
  if (__builtin_expect(result == PL_LOCK_BUSY, 0)) return PL_BUSY;
  PL_POINT("locked");
  if (__builtin_expect(result == PL_LOCKED_DEAD ||
                           atomic_load_explicit(&page->state, memory_order_relaxed) != 0 ||
                           !log->active ||
                           log->active->base_offset !=
                               atomic_load_explicit(&page->active_base, memory_order_relaxed) ||
                           atomic_load_explicit(&page->is_dirty, memory_order_relaxed) !=
                               log->edition, 0))
    return enter_slowly(log, result == PL_LOCKED_DEAD);
  return PL_OK;
}

static inline void leave(pl_log *log) {
  uint64_t position = log->page->position;
  PL_POINT("before-unlock");
  pl_slot_release(&log->page->append_lock);
  PL_POINT("after-unlock");
  pl_bells_ring_if_any(log->bells, &log->page->bells);
  if (__builtin_expect(position > atomic_load_explicit(&log->nudge_position,
                                                       memory_order_relaxed), 0))
    pl_keeper_nudge(log);
}

pl_status pl_writer_enter(pl_log *log, int wait_ms) { return enter(log, wait_ms); }
void pl_writer_leave(pl_log *log) { leave(log); }

/* ---- room ------------------------------------------------------------------------------- */

/* The mapped next segment if it still is the one, out of the reach of the housekeeper, who may be
 * replacing it. */
static pl_segment *take_prepared(pl_log *log) {
  pthread_mutex_lock(&log->list_lock);
  pl_segment *next = log->prepared;
  if (next && next->inode == atomic_load(&log->page->prepared))
    log->prepared = NULL;
  else
    next = NULL;
  pthread_mutex_unlock(&log->list_lock);
  return next;
}

static pl_status roll(pl_log *log) {
  pl_page *page = log->page;
  char name[32], path[PL_PATH_MAX];
  seal_open_batch(log);
  int64_t base = end_of(page);
  pl_segment_name(base, ".log", name);
  PL_TRY(pl_file_path(log->directory, name, path));
  PL_TRY(pl_log_check_place(log));
  pl_segment *next = take_prepared(log);
  if (!next) return PL_NOT_READY;
  PL_POINT("roll-before-rename");
  pl_status renamed = pl_file_rename(next->path, path);
  if (renamed != PL_OK) {
    bool is_removed = renamed == PL_ERR_IO && pl_error_last()->os_errno == ENOENT;
    atomic_store(&page->prepared, 0); /* whatever is there now: prepare another */
    pl_segment_release(next);
    return is_removed ? PL_NOT_READY : renamed;
  }
  PL_POINT("roll-after-rename");
  memcpy(next->path, path, sizeof path);
  page->position = page->batch_position = 0; /* first: who sees the new segment prepares by it */
  pthread_mutex_lock(&log->list_lock);
  pl_segment *old = log->outgoing;
  next->base_offset = base;
  pl_index_init(&next->index, base, (uint64_t)log->options.index_interval_bytes);
  log->outgoing = log->active;
  log->active = next;
  pthread_mutex_unlock(&log->list_lock);
  pl_segment_release(old);
  PL_POINT("roll-before-base");
  atomic_store(&page->active_base, base);
  atomic_store(&page->prepared, 0);
  PL_POINT("roll-before-count");
  atomic_fetch_add_explicit(&page->rolls, 1, memory_order_release);
  atomic_store(&log->nudge_position, 0);
  return PL_OK;
}

static pl_status set_too_large(const pl_log *log, uint64_t bytes) {
  pl_error_last()->extra = (int64_t)bytes;
  pl_error_last()->bound = log->options.max_message_bytes;
  return PL_ERR_TOO_LARGE;
}

static pl_status fits_no_segment(const pl_log *log, uint64_t bytes) {
  pl_fail(PL_ERR_TOO_LARGE, log->directory,
          "a batch of %llu bytes fits no segment of %lld (segment_bytes); split it, or alter the "
          "log",
          (unsigned long long)bytes, (long long)log->options.segment_bytes);
  return set_too_large(log, bytes);
}

/* Makes sure that `bytes` and `offsets` more fit the active segment, rolling it if they do not. */
static inline pl_status room(pl_log *log, uint64_t bytes, int64_t offsets) {
  pl_page *page = log->page;
  int64_t end = end_of(page);
  uint64_t capacity = (uint64_t)log->options.segment_bytes;
  if (__builtin_expect(page->position + bytes > capacity ||
                           end + offsets - log->active->base_offset > INT32_MAX, 0)) {
    if (bytes > capacity) return fits_no_segment(log, bytes);
    PL_TRY(roll(log));
  }
  if (__builtin_expect(
          page->position + bytes > atomic_load_explicit(&log->active->window_end,
                                                        memory_order_relaxed) ||
              end + offsets > atomic_load_explicit(&page->reserved_end, memory_order_relaxed), 0))
    return PL_NOT_READY;
  return PL_OK;
}

static pl_status wrong_end(const pl_log *log, int64_t expected) {
  int64_t end = end_of(log->page);
  pl_fail(PL_ERR_WRONG_END, log->directory,
          "the log ends at offset %lld and not at %lld; read what is new, decide again, retry",
          (long long)end, (long long)expected);
  pl_error_last()->offset = expected;
  pl_error_last()->extra = end;
  return PL_ERR_WRONG_END;
}

/* Enters with room for `bytes`, preparing what is missing when the caller can wait. Who comes in
 * after a close, from a long preparation or a caller's own code, must not write: this process no
 * longer holds the flock, and others may have made a new page and write at the same place. */
static inline pl_status enter_with_room(pl_log *log, uint64_t bytes, int64_t offsets,
                                        int64_t if_end, int wait_ms) {
  for (;;) {
    uint32_t edition = log->edition;
    pl_status status = enter(log, wait_ms);
    if (status == PL_OK) {
      status = __builtin_expect(edition != log->edition, 0) ? PL_BUSY /* other limits: come again */
               : __builtin_expect(atomic_load_explicit(&log->is_closed, memory_order_relaxed), 0)
                   ? pl_log_check(log)
               : if_end >= 0 && if_end != end_of(log->page) ? wrong_end(log, if_end)
                                                            : room(log, bytes, offsets);
      if (status == PL_OK) return PL_OK;
      leave(log);
    }
    if (status != PL_NOT_READY || wait_ms == 0) return status;
    if (atomic_load(&log->is_closed)) return pl_log_check(log); /* and stays as it was left */
    PL_TRY(pl_prepare(log, bytes, offsets)); /* PL_BUSY too: the caller looks at signals */
    if (edition && edition != log->edition) return PL_BUSY;
  }
}

/* The release of the lock waits until all stores before it have their cache lines, and the lines
 * of a fresh page are with the core that zeroed it. Asked for ten records ahead, they are here in
 * time: 4 ns of an append of 100 bytes. A prefetch never faults, so it may pass the window. */
static inline void fetch_line_ahead(const uint8_t *p) {
  enum { AHEAD = 1024, LINE = 64 };
#if defined(__x86_64__)
  __asm__ volatile("prefetchw %0" : : "m"(p[AHEAD])); /* a no-op where the CPU has none */
  __asm__ volatile("prefetchw %0" : : "m"(p[AHEAD + LINE]));
#else
  __builtin_prefetch(p + AHEAD, 1);
  __builtin_prefetch(p + AHEAD + LINE, 1);
#endif
}

/* ---- one record ------------------------------------------------------------------------- */

static inline bool joins_open_batch(const pl_log *log, uint64_t bytes, int64_t timestamp) {
  const pl_page *page = log->page;
  return page->batch_count > 0 && page->batch_count < PL_OPEN_BATCH_RECORDS &&
         page->position - page->batch_position + bytes <= log->batch_bytes_max &&
         (!log->options.append_time || timestamp == page->batch_timestamp);
}

static pl_status append_large(pl_log *log, int64_t timestamp, pl_slice key, pl_slice value,
                              pl_slice headers, int64_t if_end, int wait_ms, int64_t *offset) {
  if (wait_ms == 0) return PL_NOT_READY; /* encoding takes long: not with the GIL held */
  pl_columns columns = {&value, &key, &headers, NULL, timestamp, 1};
  pl_identity identity = PL_IDENTITY_NONE;
  if (log->options.append_time) identity.attributes = PL_ATTRIBUTE_APPEND_TIME;
  uint8_t *batch = malloc(pl_batch_size_bound(&columns));
  if (!batch) return pl_fail(PL_ERR_NO_MEMORY, log->directory, "out of memory for a record");
  uint64_t size = pl_batch_encode(batch, &columns, &identity);
  pl_status status = pl_append_batch(log, batch, size, 1, if_end, wait_ms, offset);
  free(batch);
  return status;
}

static pl_status too_large(pl_log *log, uint64_t bytes, int wait_ms) {
  if (!pl_log_knows_options(log)) { /* the limit may be another by now */
    if (wait_ms == 0) return PL_NOT_READY;
    PL_TRY(pl_learn_options(log));
    return PL_BUSY;
  }
  pl_fail(PL_ERR_TOO_LARGE, log->directory,
          "a batch of %llu bytes is over max_message_bytes (%lld); split it, or raise that: alter "
          "the log, or max.message.bytes of its topic",
          (unsigned long long)bytes, (long long)log->options.max_message_bytes);
  return set_too_large(log, bytes);
}

static void open_batch(pl_log *log, int64_t end, int64_t timestamp) {
  pl_page *page = log->page;
  pl_identity identity = PL_IDENTITY_NONE;
  if (log->options.append_time) identity.attributes = PL_ATTRIBUTE_APPEND_TIME;
  PL_POINT("before-open");
  pl_batch_open(log->active->data + page->position, end,
                atomic_load_explicit(&page->leader_epoch, memory_order_relaxed), timestamp,
                &identity);
  PL_POINT("batch-opened");
  page->batch_position = page->position;
  page->position += PL_BATCH_HEADER_SIZE;
  page->batch_timestamp = page->max_timestamp = timestamp;
}

pl_status pl_append(pl_log *log, int64_t timestamp, pl_slice key, pl_slice value,
                    pl_slice headers, int64_t if_end, int wait_ms, int64_t *offset) {
  uint64_t bytes = pl_record_size_bound(key.size, value.size, headers.size);
  if (__builtin_expect(bytes > log->record_bytes_max, 0)) {
    int64_t size = pl_alone_size(key.size, value.size, headers.size);
    if (size > log->options.max_message_bytes) return too_large(log, (uint64_t)size, wait_ms);
    return append_large(log, timestamp, key, value, headers, if_end, wait_ms, offset);
  }
  PL_TRY(enter_with_room(log, bytes + PL_BATCH_HEADER_SIZE, 1, if_end, wait_ms));
  pl_page *page = log->page;
  int64_t end = end_of(page);
  if (!joins_open_batch(log, bytes, timestamp)) {
    seal_open_batch(log);
    open_batch(log, end, timestamp);
  }
  uint8_t *p = log->active->data + page->position;
  fetch_line_ahead(p);
  PL_POINT("before-copy");
  uint8_t *after = pl_record_put(p, timestamp - page->batch_timestamp, page->batch_count, key,
                                 value, headers);
  PL_POINT("after-copy");
  page->position += (uint64_t)(after - p);
  page->batch_count++;
  if (timestamp > page->max_timestamp) page->max_timestamp = timestamp;
  publish(page, end + 1);
  leave(log);
  *offset = end;
  return PL_OK;
}

/* ---- many ------------------------------------------------------------------------------- */

static inline uint64_t bound_of(const pl_columns *c, int64_t i) {
  return pl_record_size_bound(c->keys ? c->keys[i].size : -1, c->values[i].size,
                              c->headers ? c->headers[i].size : 0);
}

/* Encodes one sealed batch at the page's position from records [i, ...). Returns the next i. */
static int64_t encode_batch(pl_log *log, const pl_columns *c, int64_t i, int64_t base_offset,
                            uint64_t limit) {
  pl_page *page = log->page;
  pl_identity identity = PL_IDENTITY_NONE;
  if (log->options.append_time) identity.attributes = PL_ATTRIBUTE_APPEND_TIME;
  const int64_t *times = log->options.append_time ? NULL : c->timestamps;
  int64_t base = times ? times[i] : c->timestamp, max_timestamp = base, first = i;
  uint8_t *batch = log->active->data + page->position;
  pl_batch_open(batch, base_offset, atomic_load_explicit(&page->leader_epoch, memory_order_relaxed),
                base, &identity);
  uint8_t *p = batch + PL_BATCH_HEADER_SIZE;
  const pl_slice null = {NULL, -1}, none = {NULL, 0};
  do {
    int64_t timestamp = times ? times[i] : base;
    if (timestamp > max_timestamp) max_timestamp = timestamp;
    p = pl_record_put(p, timestamp - base, i - first, c->keys ? c->keys[i] : null, c->values[i],
                      c->headers ? c->headers[i] : none);
    i++;
  } while (i < c->count && (uint64_t)(p - batch) + bound_of(c, i) <= limit);
  PL_POINT("many-before-seal");
  pl_batch_seal(batch, (uint64_t)(p - batch), i - first, max_timestamp);
  PL_POINT("many-sealed");
  page->position += (uint64_t)(p - batch);
  return i;
}

static pl_status append_large_of(pl_log *log, const pl_columns *c, int64_t i, int wait_ms,
                                 int64_t *done, int64_t *first_offset) {
  pl_slice null = {NULL, -1}, none = {NULL, 0};
  int64_t timestamp = c->timestamps ? c->timestamps[i] : c->timestamp;
  PL_TRY(pl_append(log, timestamp, c->keys ? c->keys[i] : null, c->values[i],
                   c->headers ? c->headers[i] : none, -1, wait_ms, first_offset));
  *done = 1;
  return PL_OK;
}

pl_status pl_append_run(pl_log *log, const pl_columns *columns, int64_t start, int wait_ms,
                        int64_t *done, int64_t *first_offset) {
  uint64_t first_bound = bound_of(columns, start) + PL_BATCH_HEADER_SIZE;
  const uint64_t bound_max = log->record_bytes_max + PL_BATCH_HEADER_SIZE;
  if (first_bound > bound_max)
    return append_large_of(log, columns, start, wait_ms, done, first_offset);
  uint64_t need = first_bound > log->batch_bytes_max ? first_bound : log->batch_bytes_max;
  int64_t remaining = columns->count - start;
  const int64_t most = PL_HOLD_BYTES / PL_RECORD_SIZE_MIN;
  if (remaining > most) remaining = most;
  if (need > (uint64_t)log->options.segment_bytes) need = first_bound;
  PL_TRY(enter_with_room(log, need, remaining, -1, wait_ms));
  pl_page *page = log->page;
  seal_open_batch(log);
  int64_t end = end_of(page), i = start;
  uint64_t hold_end = page->position + PL_HOLD_BYTES;
  uint64_t window = atomic_load_explicit(&log->active->window_end, memory_order_relaxed);
  uint64_t capacity = (uint64_t)log->options.segment_bytes;
  uint64_t room_end = window < capacity ? window : capacity;
  do {
    i = encode_batch(log, columns, i, end + (i - start), need);
    if (i >= columns->count || i - start >= remaining) break;
    need = bound_of(columns, i) + PL_BATCH_HEADER_SIZE;
    if (need > bound_max) break;
    if (need < log->batch_bytes_max) need = log->batch_bytes_max;
  } while (page->position + need <= hold_end && page->position + need <= room_end);
  publish(page, end + (i - start));
  mark_sealed(page);
  leave(log);
  *done = i - start;
  *first_offset = end;
  return PL_OK;
}

pl_status pl_append_batch(pl_log *log, const uint8_t *batch, uint64_t size, int64_t count,
                          int64_t if_end, int wait_ms, int64_t *first_offset) {
  if (size > (uint64_t)log->options.max_message_bytes) return too_large(log, size, wait_ms);
  PL_TRY(enter_with_room(log, size, count, if_end, wait_ms));
  pl_page *page = log->page;
  seal_open_batch(log);
  int64_t end = end_of(page);
  uint8_t *target = log->active->data + page->position;
  memcpy(target, batch, size);
  PL_POINT("batch-copied");
  pl_batch_stamp(target, end, atomic_load_explicit(&page->leader_epoch, memory_order_relaxed));
  page->position += size;
  publish(page, end + count);
  mark_sealed(page);
  leave(log);
  *first_offset = end;
  return PL_OK;
}

pl_status pl_seal(pl_log *log, int wait_ms, int64_t *end_offset, int64_t *active_base) {
  pl_page *page = log->page;
  int64_t end = atomic_load(&page->end_offset);
  bool is_live = atomic_load(&page->state) == PL_LOG_LIVE; /* else it is to be repaired first */
  if (is_live && end == atomic_load(&page->sealed_offset)) { /* nothing is open */
    *active_base = atomic_load(&page->active_base);
    *end_offset = end;
    return PL_OK;
  }
  pl_status status;
  while ((status = pl_writer_enter(log, wait_ms)) == PL_NOT_READY) PL_TRY(pl_prepare(log, 0, 0));
  PL_TRY(status);
  seal_open_batch(log);
  *end_offset = end_of(page);
  *active_base = atomic_load(&page->active_base);
  leave(log);
  return PL_OK;
}

pl_status pl_roll(pl_log *log, int wait_ms) {
  pl_status status;
  while ((status = pl_writer_enter(log, wait_ms)) == PL_OK || status == PL_NOT_READY) {
    if (status == PL_OK) {
      status = log->page->position ? roll(log) : PL_OK;
      leave(log);
      if (status != PL_NOT_READY) return status;
    }
    PL_TRY(pl_prepare(log, (uint64_t)log->options.segment_bytes, 0));
  }
  return status;
}

/* What is open was begun under the old options. Readers of the last segment look for it again. */
pl_status pl_turn_edition(pl_log *log, const pl_options *options, int wait_ms) {
  pl_page *page = log->page;
  PL_TRY(pl_writer_enter(log, wait_ms));
  seal_open_batch(log);
  uint32_t edition = atomic_load(&page->edition) + 1;
  pl_page_put_options(page, edition, options);
  PL_POINT("alter-put");
  atomic_store(&page->edition, edition);
  PL_POINT("alter-turned");
  atomic_store(&page->is_dirty, edition);
  PL_POINT("alter-before-count");
  atomic_fetch_add_explicit(&page->rolls, 1, memory_order_release);
  leave(log);
  return PL_OK;
}
