/* What the first opener does, alone in the directory (exclusive flock on "lock").
 *
 *   clean close, same boot   the end is log.meta's clean_end                      constant time
 *   killed, same boot        the control page is believed: nothing can be lost    constant time
 *   anything else            scan from what is known durable, by the acceptance rule
 *                            (reliability.md 3.2); the first batch that fails it is the cut
 *
 * A torn tail is normal: it is set aside, reported, and the log goes on in a *new* segment, at an
 * offset never used before (reserved_end), since somebody may have seen the lost ones. Damage
 * below what was known durable is corruption: the log is not opened for append.
 *
 * Every step can be repeated after a crash in the next one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pl_fault.h"
#include "pl_log.h"
#include "pl_scan.h"

/* ---- after the scan --------------------------------------------------------------------- */

static pl_status refuse(const pl_log *log, const pl_scan *scan, int64_t known_end) {
  char name[32], path[PL_PATH_MAX];
  pl_segment_name(scan->bases[scan->at], ".log", name);
  PL_TRY(pl_file_path(log->directory, name, path));
  return pl_fail_corrupt(path, (int64_t)scan->cut_position, scan->cut_offset, scan->beyond,
                         "%s, but the log was whole up to offset %" PRId64
                         ": this is damage and not a torn tail; nothing was changed; restore a "
                         "copy, or copy what is readable into a new log: `pylog read "
                         "--skip-corrupt --json DIR | pylog append --json NEW`",
                         scan->why, known_end);
}

static pl_status copy_aside(pl_log *log, const pl_scan *scan, int64_t stamp) {
  char name[80];
  pl_segment *segment;
  if (scan->cut_position >= scan->file_size) return PL_OK;
  PL_TRY(pl_scan_open(log, scan->bases[scan->at], false, &segment));
  snprintf(name, sizeof name, "%020" PRId64 ".log.cut-%" PRId64, scan->bases[scan->at], stamp);
  pl_status status = pl_file_replace(log->directory, name, segment->data + scan->cut_position,
                                     scan->file_size - scan->cut_position, true);
  pl_segment_release(segment);
  return status;
}

static pl_status trim(const pl_log *log, int64_t base, uint64_t size) {
  char name[32], path[PL_PATH_MAX];
  int fd;
  pl_segment_name(base, ".log", name);
  PL_TRY(pl_file_path(log->directory, name, path));
  PL_TRY(pl_file_open(path, O_RDWR, &fd));
  uint64_t had;
  pl_status status = pl_file_size(fd, path, &had);
  if (status == PL_OK && had != size) status = pl_file_truncate(fd, path, size);
  if (status == PL_OK) status = pl_file_sync(fd, path); /* an earlier attempt may have died here */
  pl_file_close(fd);
  return status;
}

/* Moves what is beyond the cut out of the log's names and trims what was rolled but not retired,
 * and the segment that was cut: behind it a gap may follow, so its size must tell its end. */
static pl_status set_aside(pl_log *log, const pl_scan *scan) {
  char name[32], path[PL_PATH_MAX], aside[PL_PATH_MAX + 32];
  int64_t stamp = pl_clock_ms();
  for (int64_t i = 0; i < scan->at; i++)
    if (scan->ends[i]) PL_TRY(trim(log, scan->bases[i], scan->ends[i]));
  if (scan->is_torn) {
    PL_TRY(copy_aside(log, scan, stamp));
    for (int64_t i = scan->at + 1; i < scan->count; i++) {
      pl_segment_name(scan->bases[i], ".log", name);
      PL_TRY(pl_file_path(log->directory, name, path));
      snprintf(aside, sizeof aside, "%s.cut-%" PRId64, path, stamp);
      PL_TRY(pl_file_rename(path, aside));
    }
  }
  for (int64_t i = scan->at; i < scan->count; i++)
    PL_TRY(pl_segment_remove_index(log->directory, scan->bases[i]));
  PL_POINT("recover-set-aside");
  PL_TRY(trim(log, scan->bases[scan->at], scan->cut_position));
  PL_POINT("recover-trimmed");
  return pl_file_sync_directory(log->directory);
}

/* An empty segment at `next`, in place of what may bear the name, so that there is one at every
 * moment; then the cut one goes if nothing of it is left. */
static pl_status start_segment(pl_log *log, const pl_scan *scan, int64_t next) {
  char name[32], path[PL_PATH_MAX];
  int64_t cut_base = scan->bases[scan->at];
  pl_segment_name(next, ".log", name);
  PL_TRY(pl_file_replace(log->directory, name, "", 0, true));
  if (scan->cut_position > 0 || cut_base == next || !scan->is_torn) return PL_OK;
  pl_segment_name(cut_base, ".log", name);
  PL_TRY(pl_file_path(log->directory, name, path));
  PL_TRY(pl_file_remove(path));
  return pl_file_sync_directory(log->directory);
}

static void report(pl_log *log, const pl_scan *scan, int64_t next, bool is_lossy) {
  pl_recovered *r = &log->recovered;
  char name[32];
  r->reason = 2;
  r->is_lossy = is_lossy;
  r->cut_offset = scan->cut_offset;
  r->next_offset = next;
  r->cut_bytes = scan->cut_bytes;
  r->batches_beyond = scan->beyond;
  r->cut_position = (int64_t)scan->cut_position;
  pl_segment_name(scan->bases[scan->at], ".log", name);
  pl_file_path(log->directory, name, r->path);
  if (scan->is_torn) memcpy(r->why, scan->why, sizeof r->why);
  else /* zeros and the end of the file are the normal end */
    snprintf(r->why, sizeof r->why, "every batch is whole, and nothing was cut%s",
             is_lossy ? "; offsets that may have been lost are skipped" : "");
}

static pl_status refuse_damage(const pl_log *log, const pl_scan *scan, int64_t floor,
                               bool was_clean_this_boot) {
  if (scan->cut_offset < floor) return refuse(log, scan, floor);
  if (was_clean_this_boot && scan->cut_offset != log->meta.clean_end)
    return refuse(log, scan, log->meta.clean_end);
  return PL_OK;
}

/* Should we die from here on, who waits for our flock must recover too: attached to this page, it
 * would go on behind an end that is no more. Its durable floor stays evidence. */
static pl_status disown_page(const pl_log *log) {
  char path[PL_PATH_MAX];
  uint8_t *data;
  int fd;
  PL_TRY(pl_file_path(log->directory, "control", path));
  PL_TRY(pl_file_open(path, O_RDWR, &fd));
  pl_status status = pl_file_map(fd, path, PL_PAGE_BYTES, true, &data);
  pl_file_close(fd);
  PL_TRY(status);
  pl_page *page = (pl_page *)(void *)data;
  memset(page->identity.boot_id, 0, sizeof page->identity.boot_id);
  pl_file_unmap(data, PL_PAGE_BYTES);
  return PL_OK;
}

/* The log's end after a scan, with everything on disk arranged for it. */
static pl_status settle(pl_log *log, pl_scan *scan, int64_t floor, int64_t *end) {
  pl_meta *meta = &log->meta;
  bool is_lossless = scan->cut_offset == meta->clean_end ||
                     meta->options.durability == PL_DURABILITY_FSYNC;
  int64_t next = is_lossless ? scan->cut_offset : meta->reserved_end;
  if (next < scan->cut_offset) next = scan->cut_offset;
  if (next < meta->log_start) next = meta->log_start;
  PL_TRY(set_aside(log, scan));
  if (scan->is_torn || next != scan->cut_offset) PL_TRY(start_segment(log, scan, next));
  report(log, scan, next, !is_lossless);
  pl_meta_add_epoch(meta, next);
  if (meta->reserved_end < next + PL_RESERVE_OFFSETS)
    meta->reserved_end = next + PL_RESERVE_OFFSETS;
  meta->clean_end = -1;
  meta->durable_end = floor;
  *end = next;
  PL_POINT("recover-before-meta");
  return pl_meta_store(log->directory, meta, true);
}

/* ---- evidence --------------------------------------------------------------------------- */

/* Copies the old page out, and tells how much of it may be believed. */
static pl_status read_old_page(const pl_log *log, pl_page *old, pl_trust *trust) {
  char path[PL_PATH_MAX];
  int fd;
  size_t got;
  pl_file_info info;
  *trust = PL_TRUST_NONE;
  PL_TRY(pl_file_path(log->directory, "control", path));
  pl_status status = pl_file_read_small(path, (char *)old, sizeof *old, &got);
  if (status == PL_OK && got == sizeof *old) status = pl_file_open(path, O_RDONLY, &fd);
  else if (status == PL_OK) return PL_OK;
  if (status != PL_OK) return pl_is_evidence(status) ? PL_OK : status;
  status = pl_file_ask(fd, path, &info);
  if (status == PL_OK) *trust = pl_page_trust(old, &info, &log->meta);
  pl_file_close(fd);
  return status;
}

static pl_status walk_tail(pl_segment *segment, const pl_view *view, uint64_t hint,
                           pl_tail *tail) {
  pl_header header;
  int64_t end = view->end_offset, base = segment->base_offset, expected;
  memset(tail, 0, sizeof *tail);
  if (end == base) return PL_OK;
  if (hint < segment->mapped &&
      pl_segment_batch(segment, hint, -1, view, &header) == PL_OK && header.base_offset >= base &&
      pl_segment_walk_to_end(segment, hint, header.base_offset, view, tail) == PL_OK)
    return PL_OK;
  uint64_t position = pl_segment_last_indexed(segment, view, &expected);
  PL_TRY(pl_segment_batch(segment, position, expected, view, &header));
  while (header.size && header.last_offset < end - 1) {
    position += header.size;
    PL_TRY(pl_segment_batch(segment, position, header.last_offset + 1, view, &header));
  }
  if (header.size) PL_TRY(pl_segment_verify(segment, position, &header, view));
  return pl_segment_walk_to_end(segment, position, header.base_offset, view, tail);
}

/* Does the last segment's walk meet `end` exactly, every batch of the last stretch whole? */
static pl_status tail_is_whole(pl_log *log, int64_t end, int64_t sealed, uint64_t hint,
                               pl_tail *tail, bool *is_whole) {
  int64_t *bases, count;
  pl_segment *segment;
  *is_whole = false;
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  int64_t base = count ? bases[count - 1] : -1;
  free(bases);
  if (base < 0 || base > end) return PL_OK;
  pl_view view = {end, sealed, &log->meta, true};
  pl_status status = pl_scan_open(log, base, false, &segment);
  if (status == PL_OK) {
    status = walk_tail(segment, &view, hint, tail);
    pl_segment_release(segment);
  }
  *is_whole = status == PL_OK;
  return pl_is_evidence(status) ? PL_OK : status;
}

static void remove_leftovers(const pl_log *log) {
  static const char *const names[] = {PL_PREPARED_NAME, "log.meta.tmp", "control.tmp",
                                      PL_EPOCHS_NAME ".tmp"};
  char path[PL_PATH_MAX];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (pl_file_path(log->directory, names[i], path) == PL_OK) pl_file_remove(path);
}

/* ---- the new page ----------------------------------------------------------------------- */

static pl_status make_file(const pl_log *log, const char *name, int flags, size_t size, char *path,
                           int *fd) {
  PL_TRY(pl_file_path(log->directory, name, path));
  PL_TRY(pl_file_open(path, O_RDWR | O_CREAT | flags, fd));
  pl_status status = pl_file_reserve(*fd, path, size, 0);
  if (status != PL_OK) pl_file_close(*fd);
  return status;
}

/* The first segment behind which all are to be retired (once more): everyone after a death, else
 * those from the first one on that lacks an index. */
static int64_t first_to_retire(const pl_log *log, const int64_t *bases, int64_t count,
                               bool is_dirty) {
  static const char *const suffixes[] = {".index", ".timeindex"};
  char name[32], path[PL_PATH_MAX];
  for (int64_t i = 0; i < count - 1; i++) {
    if (is_dirty) return bases[i];
    for (int j = 0; j < 2; j++) {
      pl_segment_name(bases[i], suffixes[j], name);
      if (pl_file_path(log->directory, name, path) != PL_OK || !pl_file_exists(path))
        return bases[i];
    }
  }
  return bases[count - 1];
}

static pl_status put_page(pl_log *log, const pl_page *old, int64_t end, const pl_tail *tail,
                          bool is_dirty, int64_t durable) {
  char path[PL_PATH_MAX], final[PL_PATH_MAX];
  int64_t *bases, count;
  uint8_t *data;
  pl_file_info info;
  int fd;
  /* Not cut first: a file that other logs share (by a hard link) is mapped by their users. */
  PL_TRY(make_file(log, "doorbells", 0, sizeof(pl_bells), path, &fd));
  pl_file_close(fd);
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  int64_t active = bases[count - 1], first = bases[0];
  int64_t retired = first_to_retire(log, bases, count, is_dirty);
  free(bases);
  if (first > log->meta.log_start && !pl_meta_starts_epoch(&log->meta, first))
    return pl_fail_corrupt(log->directory, -1, log->meta.log_start, -1,
                           "the segment that holds offset %" PRId64 " is missing; restore it, or "
                           "copy the rest into a new log: `pylog read --skip-corrupt --json DIR "
                           "| pylog append --json NEW`", log->meta.log_start);
  PL_TRY(make_file(log, "control.tmp", O_TRUNC, PL_PAGE_BYTES, path, &fd));
  pl_status status = pl_file_ask(fd, path, &info);
  if (status == PL_OK) status = pl_file_map(fd, path, PL_PAGE_BYTES, true, &data);
  pl_file_close(fd);
  PL_TRY(status);
  pl_page *page = (pl_page *)(void *)data;
  pl_page_init(page, log->meta.incarnation);
  page->identity.device = info.device;
  page->identity.inode = info.inode;
  /* Nobody saw whether the last writer died inside: the first to append looks, and repairs. */
  atomic_store(&page->state, log->recovered.reason == 1 ? PL_LOG_BROKEN : PL_LOG_LIVE);
  if (old && atomic_load(&old->state) == PL_LOG_POISONED) {
    atomic_store(&page->state, PL_LOG_POISONED);
    atomic_store(&page->poison_errno, atomic_load(&old->poison_errno));
  }
  atomic_store(&page->is_dirty, is_dirty);
  pl_page_put_options(page, atomic_load(&page->edition), &log->meta.options);
  atomic_store(&page->leader_epoch, (int32_t)log->meta.epochs[log->meta.epoch_count - 1].epoch);
  atomic_store(&page->log_start, log->meta.log_start > first ? log->meta.log_start : first);
  atomic_store(&page->reserved_end, log->meta.reserved_end);
  atomic_store(&page->active_base, active);
  atomic_store(&page->retired_base, retired);
  page->position = tail->position;
  page->batch_position = tail->batch_position;
  page->batch_timestamp = tail->batch_timestamp;
  page->max_timestamp = tail->max_timestamp;
  page->batch_count = tail->count;
  page->identity_open = PL_IDENTITY_NONE;
  atomic_store(&page->end_offset, end);
  atomic_store(&page->sealed_offset, end - tail->count);
  atomic_store(&page->durable_offset, durable);
  atomic_store(&page->durable_floor, durable);
  atomic_store(&page->floor_check, pl_floor_check(durable, log->meta.incarnation));
  pl_file_unmap(data, PL_PAGE_BYTES);
  PL_TRY(pl_file_path(log->directory, "control", final));
  PL_POINT("recover-before-page");
  return pl_file_rename(path, final);
}

/* What a promise of durability needs after a kill: the page cache goes to disk before anybody
 * reads (reliability.md finding 17). *refused is the disk's errno: never to be asked again. */
static pl_status sync_all(pl_log *log, int64_t from, int *refused) {
  int64_t *bases, count;
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  pl_status status = PL_OK;
  for (int64_t i = 0; status == PL_OK && i < count; i++) {
    if (i + 1 < count && bases[i + 1] <= from) continue;
    pl_segment *segment;
    status = pl_scan_open(log, bases[i], true, &segment);
    if (status != PL_OK) break;
    if (pl_file_sync(segment->fd, segment->path) != PL_OK) *refused = pl_error_last()->os_errno;
    pl_segment_release(segment);
  }
  free(bases);
  int fd;
  if (status == PL_OK) status = pl_file_open_directory(log->directory, &fd);
  if (status != PL_OK) return status;
  if (pl_file_sync_names(fd, log->directory) != PL_OK) *refused = pl_error_last()->os_errno;
  pl_file_close(fd);
  return PL_OK;
}

static int64_t known_floor(const pl_log *log, const pl_page *old, pl_trust trust) {
  int64_t floor = log->meta.durable_end;
  int64_t claimed = atomic_load(&old->durable_floor);
  if (trust >= PL_TRUST_FLOOR && claimed > floor &&
      atomic_load(&old->floor_check) == pl_floor_check(claimed, log->meta.incarnation))
    floor = claimed;
  return floor;
}

static pl_status recover_with(pl_log *log, pl_page *old) {
  pl_meta *meta = &log->meta;
  pl_tail tail = {0};
  bool is_dirty = true, is_whole = false;
  pl_trust trust;
  PL_TRY(read_old_page(log, old, &trust));
  bool was_clean = pl_meta_is_clean(meta);
  int64_t floor = known_floor(log, old, trust), end = meta->clean_end;
  pl_page *state_from = trust == PL_TRUST_ALL ? old : NULL;
  if (was_clean) {
    PL_TRY(tail_is_whole(log, end, end, UINT64_MAX, &tail, &is_whole));
  } else if (state_from) {
    end = atomic_load(&old->end_offset);
    PL_TRY(tail_is_whole(log, end, atomic_load(&old->sealed_offset), old->batch_position, &tail,
                         &is_whole));
  }
  if (is_whole && was_clean) {
    is_dirty = false;
  } else if (is_whole) {
    log->recovered.reason = 1;
    log->recovered.cut_offset = log->recovered.next_offset = end;
    if (atomic_load(&old->reserved_end) > meta->reserved_end && end > meta->reserved_end)
      return pl_fail_corrupt(log->directory, -1, end, -1, "log.meta is older than the log; "
                             "restore it");
  } else {
    pl_scan scan;
    memset(&tail, 0, sizeof tail);
    pl_status status = pl_scan_log(log, floor, &scan);
    if (status == PL_OK) status = refuse_damage(log, &scan, floor, was_clean);
    if (status == PL_OK && trust == PL_TRUST_ALL) status = disown_page(log);
    if (status == PL_OK) status = settle(log, &scan, floor, &end);
    if (status == PL_OK && !log->recovered.is_lossy && !scan.is_torn)
      tail.position = tail.batch_position = scan.cut_position;
    pl_scan_free(&scan);
    PL_TRY(status);
    state_from = NULL;
  }
  if (meta->options.durability != PL_DURABILITY_OS && is_dirty &&
      !(state_from && atomic_load(&state_from->state) == PL_LOG_POISONED)) {
    int refused = 0;
    PL_TRY(sync_all(log, floor, &refused));
    /* What a scan read came from the disk: it may be asked again. */
    if (refused && !state_from) return pl_fail_errno(refused, log->directory, "flush the log");
    if (!refused) {
      floor = end - tail.count; /* an open batch is no batch yet for a scan: never promised */
    } else { /* asked again, it would say yes to what it lost: the log is poisoned instead */
      atomic_store(&old->state, PL_LOG_POISONED);
      atomic_store(&old->poison_errno, refused);
    }
  }
  return put_page(log, state_from, end, &tail, is_dirty, floor < end ? floor : end);
}

pl_status pl_recover(pl_log *log, const pl_options *wanted) {
  memset(&log->recovered, 0, sizeof log->recovered);
  pl_status status = pl_meta_load(log->directory, &log->meta);
  if (status == PL_NOT_READY) status = pl_create(log, wanted);
  PL_TRY(status);
  PL_TRY(pl_options_check(log->directory, &log->meta.options));
  PL_TRY(pl_file_check_filesystem(log->directory,
                                  log->meta.options.durability == PL_DURABILITY_FSYNC));
  remove_leftovers(log);
  pl_page *old = calloc(1, sizeof *old);
  if (!old) return pl_fail(PL_ERR_NO_MEMORY, log->directory, "out of memory");
  status = recover_with(log, old);
  free(old);
  return status;
}

/* ---- without writing -------------------------------------------------------------------- */

pl_status pl_recover_private(pl_log *log) {
  pl_scan scan;
  pl_tail tail;
  pl_status status = pl_meta_load(log->directory, &log->meta);
  if (status == PL_NOT_READY) return pl_fail_no_meta(log);
  PL_TRY(status);
  PL_TRY(pl_options_check(log->directory, &log->meta.options));
  pl_log_set_options(log, &log->meta.options);
  log->map_bytes = (uint64_t)log->options.segment_bytes;
  int64_t end = log->meta.clean_end;
  bool is_whole = false;
  if (end >= 0) PL_TRY(tail_is_whole(log, end, end, UINT64_MAX, &tail, &is_whole));
  if (!is_whole) {
    status = pl_scan_log(log, log->meta.durable_end, &scan);
    end = scan.cut_offset;
    pl_scan_free(&scan);
    PL_TRY(status);
    /* What was there for certain and is not is damage, which a reader meets where it is. */
    int64_t known_end = pl_meta_is_clean(&log->meta) ? log->meta.clean_end : log->meta.durable_end;
    if (end < known_end) end = known_end;
  }
  int64_t *bases, count;
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  int64_t first = count ? bases[0] : 0, last = count ? bases[count - 1] : 0;
  free(bases);
  void *memory = NULL;
  if (posix_memalign(&memory, 128, PL_PAGE_BYTES) != 0)
    return pl_fail(PL_ERR_NO_MEMORY, log->directory, "out of memory");
  memset(memory, 0, PL_PAGE_BYTES);
  pl_page *page = memory;
  bool is_moved = first > log->meta.log_start && pl_meta_starts_epoch(&log->meta, first);
  atomic_store(&page->log_start, is_moved ? first : log->meta.log_start);
  atomic_store(&page->active_base, last);
  atomic_store(&page->end_offset, end);
  atomic_store(&page->sealed_offset, end);
  atomic_store(&page->durable_offset, end);
  log->page = page;
  log->is_private = true;
  return PL_OK;
}
