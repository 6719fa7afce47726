/* Mapping, finding and checking batches in one segment. */
#define _GNU_SOURCE
#include "pl_segment.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void pl_segment_name(int64_t base_offset, const char *suffix, char *out) {
  snprintf(out, 32, "%020" PRId64 "%s", base_offset, suffix);
}

static pl_status map_segment(pl_segment *segment, uint64_t map_bytes, bool writable) {
  pl_file_info info;
  PL_TRY(pl_file_ask(segment->fd, segment->path, &info));
  uint64_t size = info.size;
  if (size > PL_SEGMENT_BYTES_MAX)
    return pl_fail(PL_ERR_FORMAT, segment->path,
                   "the segment has %" PRIu64 " bytes, over Kafka's limit of 2 GiB; it is foreign",
                   size);
  segment->inode = info.inode;
  segment->mapped = size > map_bytes ? size : map_bytes;
  if (segment->mapped == 0) segment->mapped = 4096;
  atomic_store(&segment->size, size);
  return pl_file_map(segment->fd, segment->path, segment->mapped, writable, &segment->data);
}

pl_status pl_segment_open(const char *directory, const char *name, int64_t base_offset,
                          uint64_t map_bytes, bool writable, uint64_t index_interval_bytes,
                          pl_segment **out) {
  pl_segment *segment = calloc(1, sizeof *segment);
  if (!segment) return pl_fail(PL_ERR_NO_MEMORY, directory, "out of memory for a segment");
  segment->fd = -1;
  segment->base_offset = base_offset;
  atomic_store(&segment->references, 1);
  pthread_mutex_init(&segment->index_lock, NULL);
  pl_index_init(&segment->index, base_offset, index_interval_bytes);
  pl_status status = pl_file_path(directory, name, segment->path);
  /* Read-write also for readers: on overlayfs a read-only descriptor opened before the copy-up
   * would see the lower file for ever (reliability.md finding 16). */
  if (status == PL_OK)
    status = pl_file_open(segment->path, writable ? O_RDWR : O_RDONLY, &segment->fd);
  if (status == PL_OK) status = map_segment(segment, map_bytes, writable);
  if (status != PL_OK) {
    pl_segment_release(segment);
    return status;
  }
  *out = segment;
  return PL_OK;
}

void pl_segment_acquire(pl_segment *segment) {
  atomic_fetch_add_explicit(&segment->references, 1, memory_order_relaxed);
}

static size_t marks_bytes(const pl_segment *segment) {
  return ((segment->mapped >> PL_MARK_SHIFT) / 64 + 1) * sizeof(uint64_t);
}

void pl_segment_release(pl_segment *segment) {
  if (!segment || atomic_fetch_sub(&segment->references, 1) != 1) return;
  pl_segment_forget_verified(segment);
  pl_file_unmap(segment->data, segment->mapped);
  pl_file_close(segment->fd);
  pl_index_free(&segment->index);
  pthread_mutex_destroy(&segment->index_lock);
  free(segment);
}

/* Faults in the windows that [position, position + size) touches, as far as the file goes. */
static pl_status probe_windows(pl_segment *segment, uint64_t position, uint64_t size,
                               uint64_t file_size) {
  uint64_t window_bytes = (uint64_t)1 << PL_PROBE_SHIFT;
  uint64_t last = (position + size - 1) >> PL_PROBE_SHIFT;
  for (uint64_t window = position >> PL_PROBE_SHIFT; window <= last; window++) {
    uint64_t start = window << PL_PROBE_SHIFT;
    uint64_t end = start + window_bytes < file_size ? start + window_bytes : file_size;
    PL_TRY(pl_file_populate(segment->data + start, end - start, false, segment->fd, segment->path));
    atomic_fetch_or(&segment->probed[window / 64], (uint64_t)1 << window % 64);
  }
  return PL_OK;
}

pl_status pl_segment_probe(pl_segment *segment, uint64_t position, uint64_t size) {
  uint64_t file_size, before = UINT64_MAX;
  pl_status status = PL_OK;
  /* A housekeeper may trim the segment, retired meanwhile, between our two calls: what is to be
   * read is there still, and only the rest of its window is not. */
  do {
    PL_TRY(pl_file_size(segment->fd, segment->path, &file_size));
    if (file_size > segment->mapped) file_size = segment->mapped;
    if (file_size >= before) return status;
    before = file_size;
    atomic_store(&segment->size, file_size);
    if (position + size > file_size) return PL_END;
    status = probe_windows(segment, position, size, file_size);
  } while (status == PL_ERR_CORRUPT);
  return status;
}

pl_status pl_segment_grow(pl_segment *segment, bool may_block) {
  uint64_t size;
  if (!may_block) return PL_NOT_READY;
  PL_TRY(pl_file_size(segment->fd, segment->path, &size));
  if (size > segment->mapped) size = segment->mapped;
  return size > atomic_exchange(&segment->size, size) ? PL_OK : PL_END;
}

static pl_status corrupt(const pl_segment *segment, uint64_t position, int64_t offset,
                         const char *why) {
  return pl_fail_corrupt(segment->path, (int64_t)position, offset, -1,
                         "%s; the records before it and in other batches stay readable; "
                         "run `pylog check`", why);
}

/* Loads the length of a batch that may be in the middle of its sealing, 0 while it is open. What
 * might be half a length counts if the CRC agrees; if not, the batch is read as the open one that
 * it was when the view was taken. */
static pl_status load_length(pl_segment *segment, uint64_t position, const pl_view *view,
                             uint32_t *length) {
  const uint8_t *batch = segment->data + position;
  *length = pl_batch_load_length(batch);
  if (*length == 0 || !pl_batch_length_may_tear(batch) ||
      pl_load_i64(batch + PL_BATCH_BASE_OFFSET) < view->sealed_offset)
    return PL_OK;
  uint64_t size = (uint64_t)*length + PL_BATCH_LENGTH_OVERHEAD;
  pl_status status = pl_segment_see(segment, position, size, view->may_block);
  if (status == PL_END || (status == PL_OK && (size < PL_BATCH_HEADER_SIZE ||
                                               !pl_batch_crc_matches(batch, size)))) {
    *length = 0;
    return PL_OK;
  }
  return status;
}

pl_status pl_segment_batch(pl_segment *segment, uint64_t position, int64_t expected,
                           const pl_view *view, pl_header *header) {
  uint32_t length;
  if (expected >= view->end_offset) return PL_END;
  PL_TRY(pl_segment_see(segment, position, PL_BATCH_HEADER_SIZE, view->may_block));
  const uint8_t *batch = segment->data + position;
  const char *why;
  int64_t base = pl_load_i64(batch + PL_BATCH_BASE_OFFSET);
  PL_TRY(load_length(segment, position, view, &length));
  if (length == 0) {
    if (expected < 0) expected = base;
    if (base >= view->end_offset) return PL_END;
    if (expected < view->sealed_offset || base != expected || batch[PL_BATCH_MAGIC] != 2)
      return corrupt(segment, position, expected, "a batch header is zero or broken");
    memset(header, 0, sizeof *header);
    header->base_offset = base;
    header->leader_epoch = pl_load_i32(batch + PL_BATCH_LEADER_EPOCH);
    header->attributes = pl_load_u16(batch + PL_BATCH_ATTRIBUTES);
    header->base_timestamp = pl_load_i64(batch + PL_BATCH_BASE_TIMESTAMP);
    header->last_offset = view->end_offset - 1;
    return PL_OK;
  }
  for (;;) {
    uint64_t available = atomic_load_explicit(&segment->size, memory_order_relaxed) - position;
    if (pl_header_decode(batch, available, header, &why)) break;
    if (header->size <= available) return corrupt(segment, position, expected, why);
    pl_status grown = pl_segment_grow(segment, view->may_block);
    if (grown != PL_END) PL_TRY(grown);
    /* If another thread asked between our two looks, the size is new to us all the same. */
    if (atomic_load(&segment->size) - position == available)
      return corrupt(segment, position, expected, why);
  }
  if (expected >= 0 && base != expected)
    return corrupt(segment, position, expected, "a batch does not begin where the last one ended");
  return PL_OK;
}

static _Atomic uint64_t *marks_of(pl_segment *segment) {
  _Atomic uint64_t *marks = atomic_load_explicit(&segment->verified, memory_order_acquire);
  if (marks) return marks;
  void *fresh = mmap(NULL, marks_bytes(segment), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (fresh == MAP_FAILED) return NULL;
  if (!atomic_compare_exchange_strong(&segment->verified, &marks, fresh)) {
    munmap(fresh, marks_bytes(segment));
    return marks;
  }
  return fresh;
}

void pl_segment_forget_verified(pl_segment *segment) {
  _Atomic uint64_t *marks = atomic_load(&segment->verified);
  if (!marks) return;
  /* Other threads may be setting marks: drop the pages, keep the range. */
  if (atomic_load(&segment->references) > 0)
    madvise((void *)marks, marks_bytes(segment), MADV_DONTNEED);
  else
    munmap((void *)marks, marks_bytes(segment));
}

uint64_t pl_segment_verified_bytes(pl_segment *segment) {
  _Atomic uint64_t *marks = marks_of(segment);
  uint64_t position = 0, verified = 0;
  while (marks && pl_segment_see(segment, position, PL_BATCH_HEADER_SIZE, true) == PL_OK) {
    uint64_t length = pl_batch_load_length(segment->data + position);
    if (length == 0 || length > PL_SEGMENT_BYTES_MAX - position) break;
    uint64_t slot = position >> PL_MARK_SHIFT, size = length + PL_BATCH_LENGTH_OVERHEAD;
    if (atomic_load(&marks[slot / 64]) >> slot % 64 & 1) verified += size;
    position += size;
  }
  return verified;
}

pl_status pl_segment_verify(pl_segment *segment, uint64_t position, const pl_header *header,
                            const pl_view *view) {
  uint64_t slot = position >> PL_MARK_SHIFT;
  /* An emptied batch is its header alone and would share its mark with the next one. */
  _Atomic uint64_t *marks = header->size > 1u << PL_MARK_SHIFT ? marks_of(segment) : NULL;
  if (marks && (atomic_load_explicit(&marks[slot / 64], memory_order_relaxed) >> slot % 64 & 1))
    return PL_OK;
  PL_TRY(pl_segment_see(segment, position, header->size, view->may_block));
  if (!pl_batch_crc_matches(segment->data + position, header->size))
    return corrupt(segment, position, header->base_offset, "a batch fails its CRC-32C");
  if (view->meta && !pl_meta_allows(view->meta, header->leader_epoch, header->base_offset,
                                    header->last_offset))
    return corrupt(segment, position, header->base_offset,
                   "a batch bears a leader epoch that does not belong to its offset");
  if (marks)
    atomic_fetch_or_explicit(&marks[slot / 64], (uint64_t)1 << slot % 64, memory_order_relaxed);
  return PL_OK;
}

static void drop_index(pl_segment *segment) { pl_index_free(&segment->index); }

/* Takes the greatest timestamp so far from the last time entry, if that is of the batch at
 * `position` or of one behind it, and so counts all before. Else later batches get no entries: with
 * a maximum that is too low they would hide earlier ones. The two files may be of different age
 * after a power cut, and timestamps need not rise. */
static void resume_times(pl_segment *segment, const pl_view *view, uint64_t position) {
  pl_index *index = &segment->index;
  pl_header header;
  int64_t timestamp, offset;
  index->is_timeless = true;
  if (!pl_index_time_floor(index, INT64_MAX, &timestamp, &offset)) return;
  do {
    if (pl_segment_batch(segment, position, -1, view, &header) != PL_OK || !header.size) return;
    position += header.size;
  } while (header.last_offset < offset);
  if (header.last_offset != offset || header.max_timestamp != timestamp) return;
  index->max_timestamp = timestamp;
  index->max_timestamp_offset = offset;
  index->is_timeless = false;
}

/* Puts the walk that builds the index behind the batch of the last entry, as if it had come there;
 * false when that batch is not there, or the two files do not belong together. */
static bool resume_index(pl_segment *segment, const pl_view *view) {
  pl_index *index = &segment->index;
  int64_t last_offset;
  uint64_t position;
  pl_header header;
  if (!pl_index_floor(index, INT64_MAX, &last_offset, &position)) return false;
  if (pl_segment_batch(segment, position, -1, view, &header) != PL_OK || header.size == 0 ||
      header.last_offset != last_offset)
    return false;
  resume_times(segment, view, position);
  index->position = position + header.size;
  index->next_offset = header.last_offset + 1;
  index->bytes_since = header.size;
  return true;
}

/* Takes .index and .timeindex as a start, if they look whole: they may end before the segment
 * does, which is walked from there on. Called with index_lock held. */
static void load_index(pl_segment *segment, const pl_view *view) {
  const char *suffixes[] = {".index", ".timeindex"};
  const uint64_t entry_sizes[] = {PL_OFFSET_ENTRY_SIZE, PL_TIME_ENTRY_SIZE};
  pl_entries *entries[] = {&segment->index.offsets, &segment->index.times};
  size_t stem = strlen(segment->path) - strlen(".log");
  bool is_whole = false;
  for (int i = 0; i < 2; i++) {
    char path[PL_PATH_MAX + 16];
    uint64_t size;
    size_t got;
    int fd;
    snprintf(path, sizeof path, "%.*s%s", (int)stem, segment->path, suffixes[i]);
    if (!pl_file_exists(path) || pl_file_open(path, O_RDONLY, &fd) != PL_OK) break;
    pl_status status = pl_file_size(fd, path, &size);
    pl_file_close(fd);
    if (status != PL_OK || size % entry_sizes[i] || size > segment->mapped + PL_TIME_ENTRY_SIZE)
      break;
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes || pl_file_read_small(path, (char *)bytes, size, &got) != PL_OK || got != size) {
      free(bytes);
      break;
    }
    *entries[i] = (pl_entries){bytes, size, size};
    is_whole = i == 1;
  }
  if (!is_whole || !pl_index_rises(&segment->index) || !resume_index(segment, view))
    drop_index(segment);
}

uint64_t pl_segment_last_indexed(pl_segment *segment, const pl_view *view, int64_t *base_offset) {
  size_t stem = strlen(segment->path) - strlen(".log");
  char path[PL_PATH_MAX + 16];
  uint64_t size, position = 0;
  uint8_t *bytes;
  pl_header header;
  int fd;
  *base_offset = segment->base_offset;
  snprintf(path, sizeof path, "%.*s.index", (int)stem, segment->path);
  if (pl_file_open(path, O_RDONLY, &fd) != PL_OK) return 0;
  if (pl_file_size(fd, path, &size) == PL_OK && size && size % PL_OFFSET_ENTRY_SIZE == 0 &&
      pl_file_map(fd, path, size, false, &bytes) == PL_OK) {
    position = pl_load_u32(bytes + size - PL_OFFSET_ENTRY_SIZE + 4);
    int64_t last = segment->base_offset + pl_load_i32(bytes + size - PL_OFFSET_ENTRY_SIZE);
    pl_file_unmap(bytes, size);
    if (pl_segment_batch(segment, position, -1, view, &header) != PL_OK || header.size == 0 ||
        header.last_offset != last || header.base_offset < segment->base_offset)
      position = 0;
  }
  pl_file_close(fd);
  if (position) *base_offset = header.base_offset;
  return position;
}

/* Walks sealed batches into the private index until it covers `offset`. With index_lock held. */
static pl_status extend_index(pl_segment *segment, int64_t offset, const pl_view *view) {
  pl_index *index = &segment->index;
  while (index->next_offset <= offset && index->next_offset < view->sealed_offset) {
    pl_header header;
    pl_status status =
        pl_segment_batch(segment, index->position, index->next_offset, view, &header);
    if (status == PL_END || (status == PL_OK && header.size == 0)) return PL_OK;
    PL_TRY(status);
    PL_TRY(pl_index_add(index, &header));
  }
  return PL_OK;
}

bool pl_segment_has_index(pl_segment *segment, const pl_view *view) {
  pthread_mutex_lock(&segment->index_lock);
  pl_index *index = &segment->index;
  if (index->position == 0) load_index(segment, view);
  uint64_t offsets = index->offsets.size, times = index->times.size;
  /* Of an older age, or of two: then something is to be added. */
  bool has = index->position != 0 && !index->is_timeless &&
             extend_index(segment, INT64_MAX - 1, view) == PL_OK &&
             pl_index_finish(index) == PL_OK && index->offsets.size == offsets &&
             index->times.size == times;
  pthread_mutex_unlock(&segment->index_lock);
  return has;
}

/* Where to start walking for `offset`: an index answer that agrees with the batch it names. */
static uint64_t start_of_walk(pl_segment *segment, int64_t offset, const pl_view *view,
                              int64_t *expected) {
  int64_t last_offset;
  uint64_t position;
  pl_header header;
  *expected = segment->base_offset;
  if (offset <= segment->base_offset) return 0;
  pthread_mutex_lock(&segment->index_lock);
  if (segment->index.position == 0) load_index(segment, view);
  for (int attempt = 0; attempt < 2; attempt++) {
    extend_index(segment, offset, view);
    if (!pl_index_floor(&segment->index, offset, &last_offset, &position)) break;
    if (pl_segment_batch(segment, position, -1, view, &header) == PL_OK && header.size > 0 &&
        header.last_offset == last_offset && header.base_offset >= segment->base_offset) {
      pthread_mutex_unlock(&segment->index_lock);
      *expected = header.base_offset;
      return position;
    }
    drop_index(segment); /* a lying index: rebuilt from the log on the second round */
  }
  pthread_mutex_unlock(&segment->index_lock);
  return 0;
}

pl_status pl_segment_find(pl_segment *segment, int64_t offset, const pl_view *view,
                          uint64_t *position, pl_header *header) {
  int64_t expected;
  uint64_t at = start_of_walk(segment, offset, view, &expected);
  for (;;) {
    PL_TRY(pl_segment_batch(segment, at, expected, view, header));
    if (header->last_offset >= offset || header->size == 0) {
      *position = at;
      return PL_OK;
    }
    at += header->size;
    expected = header->last_offset + 1;
  }
}

/* Counts the open batch's records up to the end. */
static pl_status walk_open(pl_segment *segment, const pl_header *header, const pl_view *view,
                           pl_tail *tail) {
  const uint8_t *p = segment->data + tail->batch_position + PL_BATCH_HEADER_SIZE;
  pl_segment_grow(segment, true); /* the batch may have passed the size last known */
  const uint8_t *end = segment->data + atomic_load(&segment->size);
  tail->batch_timestamp = header->base_timestamp;
  tail->max_timestamp = header->base_timestamp;
  for (int64_t i = 0; i < view->end_offset - header->base_offset; i++) {
    int64_t timestamp_delta, offset_delta;
    const uint8_t *body;
    p = pl_record_get(p, end, &timestamp_delta, &offset_delta, &body);
    if (!p || offset_delta != i)
      return corrupt(segment, tail->batch_position, header->base_offset + i,
                     "the open batch does not reach the end offset");
    int64_t timestamp = (int64_t)((uint64_t)header->base_timestamp + (uint64_t)timestamp_delta);
    if (timestamp > tail->max_timestamp) tail->max_timestamp = timestamp;
    tail->count++;
  }
  tail->position = (uint64_t)(p - segment->data);
  return PL_OK;
}

pl_status pl_segment_last(pl_segment *segment, const pl_view *view, int64_t *end_offset) {
  int64_t expected;
  pl_header header;
  pl_status status;
  uint64_t position = start_of_walk(segment, INT64_MAX - 1, view, &expected);
  *end_offset = segment->base_offset;
  while ((status = pl_segment_batch(segment, position, expected, view, &header)) == PL_OK &&
         header.size) {
    *end_offset = expected = header.last_offset + 1;
    position += header.size;
  }
  return status == PL_END ? PL_OK : status;
}

pl_status pl_segment_walk_to_end(pl_segment *segment, uint64_t position, int64_t expected,
                                 const pl_view *view, pl_tail *tail) {
  memset(tail, 0, sizeof *tail);
  while (expected < view->end_offset) {
    pl_header header;
    pl_status status = pl_segment_batch(segment, position, expected, view, &header);
    if (status == PL_END)
      return corrupt(segment, position, expected, "the segment ends before the log's end offset");
    PL_TRY(status);
    if (header.size == 0) {
      tail->batch_position = position;
      tail->batch_offset = header.base_offset;
      return walk_open(segment, &header, view, tail);
    }
    if (header.last_offset >= view->end_offset)
      return corrupt(segment, position, expected, "a batch passes the log's end offset");
    position += header.size;
    expected = header.last_offset + 1;
  }
  tail->position = tail->batch_position = position;
  tail->batch_offset = expected;
  return PL_OK;
}

/* As with offsets: an entry that disagrees with the batch it names condemns the file. */
int64_t pl_segment_time_floor(pl_segment *segment, int64_t timestamp, const pl_view *view) {
  for (int attempt = 0; attempt < 2; attempt++) {
    int64_t entry_timestamp, offset;
    uint64_t position;
    pl_header header;
    pthread_mutex_lock(&segment->index_lock);
    if (segment->index.position == 0 && attempt == 0) load_index(segment, view);
    extend_index(segment, INT64_MAX - 1, view);
    bool found = pl_index_time_floor(&segment->index, timestamp, &entry_timestamp, &offset);
    pthread_mutex_unlock(&segment->index_lock);
    if (!found) break;
    if (offset >= segment->base_offset &&
        pl_segment_find(segment, offset, view, &position, &header) == PL_OK && header.size > 0 &&
        header.last_offset == offset && header.max_timestamp == entry_timestamp &&
        pl_segment_verify(segment, position, &header, view) == PL_OK)
      return offset;
    pthread_mutex_lock(&segment->index_lock);
    drop_index(segment);
    pthread_mutex_unlock(&segment->index_lock);
  }
  return segment->base_offset;
}

pl_status pl_segment_write_index(pl_segment *segment, const char *directory, const pl_view *view,
                                 uint64_t *log_size) {
  char name[32];
  pl_index index;
  pl_header header;
  pl_index_init(&index, segment->base_offset, segment->index.interval_bytes);
  pl_status status = PL_OK;
  while (status == PL_OK && index.next_offset < view->end_offset) {
    status = pl_segment_batch(segment, index.position, index.next_offset, view, &header);
    if (status == PL_OK && header.size == 0) status = PL_END;
    if (status == PL_OK) status = pl_index_add(&index, &header);
  }
  *log_size = index.position;
  if (status == PL_OK || status == PL_END) status = pl_index_finish(&index);
  pl_segment_name(segment->base_offset, ".index", name);
  if (status == PL_OK)
    status = pl_file_replace(directory, name, index.offsets.bytes, index.offsets.size, false);
  pl_segment_name(segment->base_offset, ".timeindex", name);
  if (status == PL_OK)
    status = pl_file_replace(directory, name, index.times.bytes, index.times.size, false);
  pl_index_free(&index);
  return status;
}

pl_status pl_segment_remove_index(const char *directory, int64_t base_offset) {
  static const char *const suffixes[] = {".index", ".timeindex"};
  char name[32], path[PL_PATH_MAX];
  for (int i = 0; i < 2; i++) {
    pl_segment_name(base_offset, suffixes[i], name);
    PL_TRY(pl_file_path(directory, name, path));
    PL_TRY(pl_file_remove(path));
  }
  return PL_OK;
}

pl_status pl_segment_populate(pl_segment *segment, uint64_t target) {
  uint64_t from = atomic_load(&segment->window_end);
  if (target > segment->mapped) target = segment->mapped;
  if (target <= from) return PL_OK;
  PL_TRY(pl_file_populate(segment->data + from, target - from, true, segment->fd, segment->path));
  while (from < target && !atomic_compare_exchange_weak(&segment->window_end, &from, target)) {
  }
  return PL_OK;
}

int64_t pl_segment_count_valid(pl_segment *segment, uint64_t position) {
  uint64_t size = atomic_load(&segment->size);
  int64_t count = 0;
  if (size && pl_segment_probe(segment, 0, size) != PL_OK) return -1;
  while (position + PL_BATCH_HEADER_SIZE <= size) {
    pl_header header;
    const char *why;
    const uint8_t *batch = segment->data + position;
    if (batch[PL_BATCH_MAGIC] == 2 && pl_header_decode(batch, size - position, &header, &why) &&
        pl_batch_crc_matches(batch, header.size)) {
      count++;
      position += header.size;
    } else {
      position++;
    }
  }
  return count;
}
