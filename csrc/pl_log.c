/* Opening, closing, the list of segments, and what a reader may see. */
#define _GNU_SOURCE
#include "pl_log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "pl_fault.h"
#include "pl_sentry.h"

/* ---- the list of segments --------------------------------------------------------------- */

static int compare_bases(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* -1 unless the name is twenty digits and ".log". */
static int64_t base_of_name(const char *name) {
  if (strlen(name) != 24 || strcmp(name + 20, ".log") != 0) return -1;
  int64_t base = 0;
  for (int i = 0; i < 20; i++) {
    if (name[i] < '0' || name[i] > '9') return -1;
    int digit = name[i] - '0';
    if (__builtin_mul_overflow(base, 10, &base) || __builtin_add_overflow(base, digit, &base))
      return -1;
  }
  return base;
}

pl_status pl_list_segments(const char *directory, int64_t **bases, int64_t *count) {
  *bases = NULL;
  *count = 0;
  DIR *entries = opendir(directory);
  if (!entries) return pl_fail_reading(errno, directory, "list the directory");
  int64_t capacity = 0;
  struct dirent *entry;
  while (errno = 0, (entry = readdir(entries))) {
    int64_t base = base_of_name(entry->d_name);
    if (base < 0) continue;
    if (*count == capacity) {
      capacity = capacity ? capacity * 2 : 16;
      int64_t *grown = realloc(*bases, (size_t)capacity * sizeof **bases);
      if (!grown) {
        closedir(entries);
        free(*bases);
        *bases = NULL;
        return pl_fail(PL_ERR_NO_MEMORY, directory, "out of memory for the list of segments");
      }
      *bases = grown;
    }
    (*bases)[(*count)++] = base;
  }
  int error = errno;
  closedir(entries);
  if (error) {
    free(*bases);
    *bases = NULL;
    return pl_fail_errno(error, directory, "list the directory");
  }
  if (*count) qsort(*bases, (size_t)*count, sizeof **bases, compare_bases);
  return PL_OK;
}

static void close_list(pl_listed *list, int64_t count) {
  for (int64_t i = 0; i < count; i++) pl_segment_release(list[i].segment);
  free(list);
}

/* The last segment may have grown beyond what is mapped of it when the options were altered, also
 * if they are by now as they were before. */
static void map_as_altered(pl_log *log, uint32_t edition) {
  for (int64_t i = 0; i < log->list_count; i++) {
    pl_segment_release(log->list[i].segment);
    log->list[i].segment = NULL;
  }
  pl_options options = log->options; /* what log.meta said, should the page be damaged */
  pl_page_get_options(log->page, &options);
  log->map_bytes = (uint64_t)options.segment_bytes;
  log->list_edition = edition;
}

/* Lists the directory again, keeping the mappings that are still named. With list_lock held. What
 * is added to a directory while it is read may be seen or not, also the second of two without the
 * first. So of a listing during which the log rolled only that counts which was there before: a
 * segment left out in the middle would be looked for behind the end of the one before it. */
static pl_status refresh(pl_log *log) {
  uint64_t rolls = atomic_load(&log->page->rolls);
  int64_t newest = atomic_load(&log->page->active_base);
  uint64_t sequence = atomic_load(&log->page->list_sequence);
  uint32_t edition = atomic_load(&log->page->edition);
  if (edition != log->list_edition) map_as_altered(log, edition);
  if (log->list && rolls == log->list_rolls && sequence == log->list_sequence) return PL_OK;
  int64_t *bases, count;
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  if (atomic_load(&log->page->rolls) != rolls)
    while (count > 1 && bases[count - 1] > newest) count--;
  pl_status status = pl_log_check_place(log);
  if (status != PL_OK) {
    free(bases);
    return status;
  }
  pl_listed *list = calloc((size_t)(count ? count : 1), sizeof *list);
  if (!list) {
    free(bases);
    return pl_fail(PL_ERR_NO_MEMORY, log->directory, "out of memory for the list of segments");
  }
  int64_t old = 0;
  for (int64_t i = 0; i < count; i++) {
    list[i].base_offset = bases[i];
    while (old < log->list_count && log->list[old].base_offset < bases[i]) old++;
    if (old < log->list_count && log->list[old].base_offset == bases[i]) {
      list[i] = log->list[old];
      log->list[old].segment = NULL;
    }
  }
  free(bases);
  close_list(log->list, log->list_count);
  log->list = list;
  log->list_count = count;
  log->list_rolls = rolls;
  log->list_sequence = sequence;
  return PL_OK;
}

pl_status pl_log_refresh_list(pl_log *log) {
  pthread_mutex_lock(&log->list_lock);
  pl_status status = refresh(log);
  pthread_mutex_unlock(&log->list_lock);
  return status;
}

void pl_log_drop_deleted(pl_log *log) {
  uint64_t sequence = atomic_load(&log->page->list_sequence);
  if (sequence == atomic_load(&log->dropped_sequence)) return;
  int64_t start = atomic_load(&log->page->log_start);
  pthread_mutex_lock(&log->list_lock);
  for (int64_t i = 0; i + 1 < log->list_count && log->list[i + 1].base_offset <= start; i++) {
    pl_segment_release(log->list[i].segment);
    log->list[i].segment = NULL;
  }
  pthread_mutex_unlock(&log->list_lock);
  atomic_store(&log->dropped_sequence, sequence);
}

static void evict_one(pl_log *log) {
  pl_listed *oldest = NULL;
  int64_t open = 0;
  for (int64_t i = 0; i < log->list_count; i++) {
    if (!log->list[i].segment) continue;
    open++;
    if (!oldest || log->list[i].used < oldest->used) oldest = &log->list[i];
  }
  if (open < PL_OPEN_SEGMENTS_MAX) return;
  pl_segment_release(oldest->segment);
  oldest->segment = NULL;
}

pl_status pl_log_check_place(const pl_log *log) {
  char path[PL_PATH_MAX];
  pl_file_info found;
  if (log->lock_fd < 0) return PL_OK;
  PL_TRY(pl_file_path(log->directory, "lock", path));
  pl_status status = pl_file_ask_name(path, &found);
  if (status != PL_OK && !pl_is_evidence(status)) return status;
  if (status == PL_OK && found.inode == log->lock_file.inode &&
      found.device == log->lock_file.device)
    return PL_OK;
  if (log->page && pl_log_is_deleted(log)) return pl_log_fail_deleted(log);
  return pl_fail(PL_ERR_IO, log->directory,
                 "the directory was moved, removed or replaced while the log was open; nothing "
                 "was changed in it; close this object and open the log where it is now");
}

pl_status pl_log_map_segment(pl_log *log, int64_t base, uint64_t map_bytes, bool writable,
                             pl_segment **segment) {
  char name[32];
  pl_segment_name(base, ".log", name);
  PL_TRY(pl_segment_open(log->directory, name, base, map_bytes, writable,
                         (uint64_t)log->options.index_interval_bytes, segment));
  pl_status status = pl_log_check_place(log);
  if (status == PL_OK) return PL_OK;
  pl_segment_release(*segment);
  *segment = NULL;
  return status;
}

static pl_status open_listed(pl_log *log, pl_listed *listed) {
  if (log->active && log->active->base_offset == listed->base_offset &&
      log->edition == log->list_edition) { /* else it may be mapped for another size */
    listed->segment = log->active;
    pl_segment_acquire(log->active);
    return PL_OK;
  }
  evict_one(log);
  bool may_grow = listed->base_offset >= atomic_load(&log->page->active_base);
  return pl_log_map_segment(log, listed->base_offset,
                            may_grow ? log->map_bytes : 0,
                            log->is_writable, &listed->segment);
}

/* Index of the last entry at or below `offset`; 0 when all are above. */
static int64_t bisect(const pl_log *log, int64_t offset) {
  int64_t low = 0, high = log->list_count;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (log->list[middle].base_offset <= offset)
      low = middle + 1;
    else
      high = middle;
  }
  return low ? low - 1 : 0;
}

static pl_status find_listed(pl_log *log, int64_t offset, pl_segment **segment,
                             int64_t *next_base) {
  PL_TRY(refresh(log));
  if (log->list_count == 0)
    return pl_fail_corrupt(log->directory, -1, offset, -1, "there is no segment file; restore it");
  int64_t i = bisect(log, offset);
  if (!log->list[i].segment) PL_TRY(open_listed(log, &log->list[i]));
  log->list[i].used = ++log->list_clock;
  *segment = log->list[i].segment;
  pl_segment_acquire(*segment);
  *next_base = i + 1 < log->list_count ? log->list[i + 1].base_offset : INT64_MAX;
  return PL_OK;
}

pl_status pl_log_segment(pl_log *log, int64_t offset, pl_segment **segment, int64_t *next_base) {
  pthread_mutex_lock(&log->list_lock);
  pl_status status = find_listed(log, offset, segment, next_base);
  /* Deleted between the listing and the opening, as the next ones may be. */
  for (int i = 0; i < 100 && status == PL_ERR_IO && pl_error_last()->os_errno == ENOENT; i++) {
    log->list_sequence = UINT64_MAX;
    status = find_listed(log, offset, segment, next_base);
  }
  pthread_mutex_unlock(&log->list_lock);
  return status;
}

pl_status pl_log_size_bytes(pl_log *log, uint64_t *total) {
  int64_t *bases, count;
  *total = 0;
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  for (int64_t i = 0; i < count; i++) {
    char name[32], path[PL_PATH_MAX];
    struct stat info;
    pl_segment_name(bases[i], ".log", name);
    if (pl_file_path(log->directory, name, path) == PL_OK && stat(path, &info) == 0)
      *total += (uint64_t)info.st_size; /* else it was deleted meanwhile */
  }
  free(bases);
  return PL_OK;
}

/* ---- what a reader may see -------------------------------------------------------------- */

int64_t pl_log_readable(const pl_log *log) {
  /* With fsync nobody may act on what a power loss could take back (reliability.md finding 11). */
  return log->options.durability == PL_DURABILITY_FSYNC
             ? atomic_load_explicit(&log->page->durable_offset, memory_order_acquire)
             : pl_log_end(log);
}

void pl_log_view(const pl_log *log, pl_view *view) {
  view->end_offset = pl_log_readable(log);
  view->sealed_offset = atomic_load_explicit(&log->page->sealed_offset, memory_order_acquire);
  view->meta = &log->meta;
  view->may_block = false;
}

pl_status pl_log_check(const pl_log *log) {
  if (atomic_load_explicit(&log->is_closed, memory_order_relaxed))
    return pl_fail(PL_ERR_CLOSED, log->directory, "the log is closed; open it again");
  if (log->fork_generation != pl_forks)
    return pl_fail(PL_ERR_FORKED, log->directory, "opened before fork: open again");
  return PL_OK;
}

pl_status pl_log_fail_deleted(const pl_log *log) {
  return pl_fail(PL_ERR_DELETED, log->directory, "the log was deleted; open another");
}

/* ---- opening ---------------------------------------------------------------------------- */

pl_trust pl_page_trust(const pl_page *page, const pl_file_info *file, const pl_meta *meta) {
  const pl_page_identity *a = &page->identity;
  pl_page_identity b;
  pl_page_identify(&b, meta->incarnation);
  if (a->magic != b.magic || a->layout != b.layout || a->incarnation != b.incarnation ||
      a->device != file->device || a->inode != file->inode)
    return PL_TRUST_NONE;
  bool is_of_boot = memcmp(a->boot_id, b.boot_id, sizeof a->boot_id) == 0;
  return is_of_boot && a->mutex_abi == b.mutex_abi ? PL_TRUST_ALL : PL_TRUST_FLOOR;
}

bool pl_is_evidence(pl_status status) {
  if (status >= 0) return true;
  int error = pl_error_last()->os_errno;
  return status == PL_ERR_FORMAT || (status == PL_ERR_CORRUPT && !error) ||
         (status == PL_ERR_IO && (error == ENOENT || error == ELOOP));
}

static pl_status conflicts(const pl_log *log, const pl_options *stored, const pl_options *wanted) {
  static const char *const names[] = {
      "durability",     "segment_bytes",        "max_message_bytes",
      "timestamp_type", "index_interval_bytes", "flush_interval_ms",
  };
  const int64_t *have = (const int64_t *)stored, *want = (const int64_t *)wanted;
  for (size_t i = 0; i < sizeof *stored / sizeof *have; i++)
    if (want[i] != PL_OPTION_UNSET && want[i] != have[i])
      return pl_fail(PL_ERR_CONFIG, log->directory,
                     "the log was created with %s = %" PRId64 ", not %" PRId64
                     "; leave the option out to use the stored one", names[i], have[i], want[i]);
  return PL_OK;
}

static pl_status map_shared(const char *directory, const char *name, bool writable, size_t size,
                            int *fd, uint8_t **data) {
  char path[PL_PATH_MAX];
  uint64_t found;
  PL_TRY(pl_file_path(directory, name, path));
  PL_TRY(pl_file_open(path, writable ? O_RDWR : O_RDONLY, fd));
  pl_status status = pl_file_size(*fd, path, &found);
  if (status == PL_OK && found < size)
    status = pl_fail(PL_ERR_FORMAT, path, "the file is too short; close the log and reopen it");
  if (status == PL_OK) status = pl_file_map(*fd, path, size, writable, data);
  if (status != PL_OK) {
    pl_file_close(*fd);
    *fd = -1;
  }
  return status;
}

/* A page that somebody holds and that is not ours to use: say why. */
static pl_status refuse_page(const pl_log *log, const pl_page *page) {
  if (page->identity.magic == PL_PAGE_MAGIC && page->identity.layout != PL_PAGE_LAYOUT)
    return pl_fail(PL_ERR_FORMAT, log->directory,
                   "processes of another pylog version have the log open (control page layout "
                   "%u, ours is %u); close it there first", page->identity.layout, PL_PAGE_LAYOUT);
  return PL_NOT_READY;
}

static pl_status refuse_namespace(const pl_log *log, const pl_page *page) {
  pl_fail(PL_ERR_ENVIRONMENT, log->directory,
          "processes of another PID namespace have the log open: the locks compare thread ids and "
          "would not work; open it with mode=\"r\", or share the namespace");
  pl_error_last()->extra = (int64_t)pl_pid_namespace();
  pl_error_last()->bound = (int64_t)page->identity.pid_namespace;
  return PL_ERR_ENVIRONMENT;
}

/* The page of a tidy log that nobody may have open has no checksum, but log.meta, which has one,
 * tells the same: a reader believes both or neither. A writer rebuilds the page. */
static bool agrees_with_meta(const pl_page *page, const pl_meta *meta) {
  int64_t end = atomic_load(&page->end_offset), start = atomic_load(&page->log_start);
  if (atomic_load(&page->is_dirty) || !pl_meta_is_clean(meta)) return true;
  return end == meta->clean_end &&
         (start == meta->log_start || pl_meta_starts_epoch(meta, start));
}

/* A reader that has no bell polls; a writer needs one. */
static pl_status map_bells(pl_log *log) {
  uint8_t *bells;
  int fd;
  pl_status status =
      map_shared(log->directory, "doorbells", true, sizeof(pl_bells), &fd, &bells);
  if (status != PL_OK && !log->is_writable) return PL_OK;
  if (status != PL_OK) return pl_is_evidence(status) ? PL_NOT_READY : status;
  pl_file_info info;
  status = pl_file_ask(fd, log->directory, &info);
  pl_file_close(fd);
  log->bells = (pl_bells *)(void *)bells;
  log->bells_inode = status == PL_OK ? info.inode : 0;
  return status;
}

void pl_log_set_options(pl_log *log, const pl_options *options) {
  log->options = *options;
  uint64_t message_max = (uint64_t)options->max_message_bytes, hold = PL_HOLD_BYTES / 2;
  log->batch_bytes_max = message_max < PL_OPEN_BATCH_BYTES ? message_max : PL_OPEN_BATCH_BYTES;
  log->record_bytes_max = (message_max < hold ? message_max : hold) - PL_BATCH_HEADER_SIZE;
}

/* Maps page and doorbells of a log that some process (maybe we) has recovered. PL_NOT_READY:
 * there is no page to believe. */
static pl_status attach(pl_log *log, const pl_options *wanted) {
  uint8_t *data;
  int fd;
  pl_status status = pl_meta_load(log->directory, &log->meta);
  if (status != PL_OK) return status;
  PL_TRY(pl_options_check(log->directory, &log->meta.options));
  PL_TRY(conflicts(log, &log->meta.options, wanted));
  pl_log_set_options(log, &log->meta.options);
  log->map_bytes = (uint64_t)log->options.segment_bytes;
  status = map_shared(log->directory, "control", true, PL_PAGE_BYTES, &fd, &data);
  bool may_ring = status == PL_OK; /* a reader writes nothing there but that it waits */
  if (!log->is_writable && status == PL_ERR_READ_ONLY)
    status = map_shared(log->directory, "control", false, PL_PAGE_BYTES, &fd, &data);
  if (status != PL_OK) return pl_is_evidence(status) ? PL_NOT_READY : status;
  pl_page *page = (pl_page *)(void *)data;
  pl_file_info info;
  status = pl_file_ask(fd, log->directory, &info);
  if (status == PL_OK && pl_page_trust(page, &info, &log->meta) != PL_TRUST_ALL)
    status = refuse_page(log, page);
  else if (status == PL_OK && !log->is_writable && !agrees_with_meta(page, &log->meta))
    status = PL_NOT_READY;
  pl_file_close(fd);
  if (status == PL_OK && log->is_writable && page->identity.pid_namespace != pl_pid_namespace())
    status = refuse_namespace(log, page);
  if (status == PL_OK && may_ring) status = map_bells(log);
  if (status != PL_OK) {
    pl_file_unmap(data, PL_PAGE_BYTES);
    return status;
  }
  log->page = page;
  return PL_OK;
}

static pl_status open_lock(pl_log *log) {
  char path[PL_PATH_MAX];
  PL_TRY(pl_file_path(log->directory, "lock", path));
  int fd;
  PL_TRY(pl_file_open(path, log->is_writable ? O_RDWR | O_CREAT : O_RDONLY, &fd));
  log->lock_fd = fd;
  return pl_file_ask(log->lock_fd, path, &log->lock_file);
}

static pl_status waited_enough(const pl_log *log, int wait_ms) {
  return pl_fail(PL_ERR_TIMEOUT, log->directory,
                 "another process has been recovering or closing the log for %d ms; look at who "
                 "holds the file \"lock\" there", wait_ms);
}

static pl_status open_for_append(pl_log *log, const pl_options *wanted, int wait_ms) {
  int64_t deadline = pl_monotonic_ms() + wait_ms;
  PL_TRY(pl_file_check_filesystem(log->directory, wanted->durability == PL_DURABILITY_FSYNC));
  PL_TRY(open_lock(log));
  for (;;) {
    /* Deleted and made anew while we waited: then the lock is not that of the files that we find
     * by name. It is looked at before they are touched, and after the page was mapped. */
    pl_status status = pl_file_lock(log->lock_fd, log->directory, true, 0);
    if (status == PL_OK) status = pl_log_check_place(log);
    if (status == PL_OK) status = pl_recover(log, wanted);
    if (status < 0) return status;
    status = pl_file_lock(log->lock_fd, log->directory, false, 100);
    if (status < 0) return status;
    if (status == PL_OK) status = attach(log, wanted);
    if (status == PL_OK) status = pl_log_check_place(log);
    if (status != PL_NOT_READY && status != PL_BUSY) return status;
    if (pl_monotonic_ms() >= deadline) return waited_enough(log, wait_ms);
  }
}

static pl_status open_for_reading(pl_log *log, const pl_options *wanted, int wait_ms) {
  pl_status status = open_lock(log);
  if (status == PL_OK) status = pl_file_lock(log->lock_fd, log->directory, false, wait_ms);
  if (status == PL_BUSY && wait_ms > 0) return waited_enough(log, wait_ms);
  if (status == PL_OK) status = attach(log, wanted);
  if (status == PL_OK) return pl_log_check_place(log);
  /* A private page would show less than there is, for a failure that will pass. */
  if (!(pl_is_evidence(status) || status == PL_ERR_DENIED)) return status;
  pl_file_close(log->lock_fd); /* whoever comes to recover must not be kept waiting by us */
  log->lock_fd = -1;
  PL_TRY(pl_recover_private(log));
  return conflicts(log, &log->meta.options, wanted);
}

pl_status pl_log_open(const char *directory, bool writable, const pl_options *wanted, int wait_ms,
                      pl_log **out) {
  pl_log *log = calloc(1, sizeof *log);
  if (!log) return pl_fail(PL_ERR_NO_MEMORY, directory, "out of memory");
  log->lock_fd = -1;
  log->is_writable = writable;
  atomic_store(&log->nudge_position, UINT64_MAX);
  atomic_store(&log->poll_ms, 1);
  pthread_mutex_init(&log->list_lock, NULL);
  pthread_mutex_init(&log->prepare_lock, NULL);
  pl_status status = pl_host_learn();
  if (snprintf(log->directory, PL_PATH_MAX - 64, "%s", directory) >= PL_PATH_MAX - 64)
    status = pl_fail(PL_ERR_CONFIG, directory, "the path is too long; use a shorter one");
  pl_keeper_register(log);
  if (status == PL_OK)
    status = writable ? open_for_append(log, wanted, wait_ms)
                      : open_for_reading(log, wanted, wait_ms);
  if (status == PL_OK && writable && log->options.durability == PL_DURABILITY_INTERVAL)
    status = pl_keeper_adopt(log); /* who else would keep the promise? */
  if (status != PL_OK) {
    pl_error saved = *pl_error_last();
    pl_keeper_drop(log);
    atomic_store(&log->is_closed, 1);
    pl_log_free(log);
    *pl_error_last() = saved;
    return status;
  }
  *out = log;
  return PL_OK;
}

/* ---- closing ---------------------------------------------------------------------------- */

static void set_clean(pl_meta *meta, void *argument) {
  meta->clean_end = *(int64_t *)argument;
  pl_boot_id(meta->clean_boot);
}

/* With everybody else gone: what a tidy log looks like. Failing here costs only a longer open. */
static void tidy(pl_log *log) {
  pl_page *page = log->page;
  int64_t end = pl_log_end(log), base = atomic_load(&page->active_base);
  char path[PL_PATH_MAX];
  pl_segment *segment;
  uint64_t log_size;
  if (pl_retire(log) != PL_OK || end != atomic_load(&page->sealed_offset)) return;
  if (pl_log_map_segment(log, base, 0, true, &segment) != PL_OK) return;
  pl_view view = {end, end, &log->meta, true};
  pl_status status = pl_segment_write_index(segment, log->directory, &view, &log_size);
  if (status == PL_OK) status = pl_file_truncate(segment->fd, segment->path, log_size);
  pl_segment_release(segment);
  if (pl_file_path(log->directory, PL_PREPARED_NAME, path) == PL_OK) pl_file_remove(path);
  atomic_store(&page->prepared, 0);
  if (status != PL_OK) return;
  /* First: who waits for our flock, should we die here, attaches to this page without recovery, and
   * must mark the log dirty again before it appends. */
  atomic_store(&page->is_dirty, 0);
  PL_POINT("before-clean-mark");
  /* Synced whatever the durability: a log.meta that a power cut left empty would end the log. */
  if (pl_log_change_meta(log, set_clean, &end, true) == PL_OK) PL_POINT("clean-marked");
}

pl_status pl_log_close(pl_log *log) {
  if (atomic_exchange(&log->is_closed, 1)) return PL_OK;
  pl_keeper_drop(log);
  if (log->fork_generation != pl_forks) return PL_OK;
  pl_status status = PL_OK;
  uint32_t state = log->is_writable ? atomic_load(&log->page->state) : PL_LOG_DELETED;
  if (state == PL_LOG_LIVE || state == PL_LOG_BROKEN) {
    int64_t end, active_base;
    /* Whoever is inside by now is waited for; whoever enters later sees that we are closed. */
    if (pl_writer_enter(log, 100) == PL_OK) pl_writer_leave(log);
    status = pl_seal(log, 1000, &end, &active_base);
    /* Moved away: whoever opens it next seals. Only what was to be on disk is worth an error. */
    if (status < 0 && log->options.durability == PL_DURABILITY_OS &&
        pl_log_check_place(log) != PL_OK)
      status = PL_END;
    if (status == PL_OK && log->options.durability != PL_DURABILITY_OS)
      status = pl_flush(log, end, 10000);
    if (status >= 0 && atomic_load(&log->page->is_dirty) &&
        pl_file_lock(log->lock_fd, log->directory, true, 0) == PL_OK)
      tidy(log);
  }
  pl_end_waits(log);
  pl_file_close(log->lock_fd);
  log->lock_fd = -1;
  return status < 0 ? status : PL_OK;
}

static void release_segments(pl_log *log) {
  pl_segment_release(log->active);
  pl_segment_release(log->prepared);
  pl_segment_release(log->outgoing);
  close_list(log->list, log->list_count);
  log->active = log->prepared = log->outgoing = NULL;
  log->list = NULL;
  log->list_count = 0;
}

void pl_log_let_go(pl_log *log) {
  if (log->fork_generation != pl_forks) return; /* another thread may have held the list's lock */
  pthread_mutex_lock(&log->list_lock);
  release_segments(log);
  pthread_mutex_unlock(&log->list_lock);
}

void pl_log_free(pl_log *log) {
  if (!log) return;
  release_segments(log);
  if (log->is_private)
    free(log->page);
  else
    pl_file_unmap((uint8_t *)log->page, PL_PAGE_BYTES);
  pl_bells_close(log->bells);
  if (log->lock_fd >= 0) pl_file_close(log->lock_fd);
  free(log);
}
