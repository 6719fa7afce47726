/* Building and searching the sparse indexes. */
#include "pl_index.h"

#include <stdlib.h>
#include <string.h>

void pl_index_init(pl_index *index, int64_t base_offset, uint64_t interval_bytes) {
  memset(index, 0, sizeof *index);
  index->base_offset = base_offset;
  index->next_offset = base_offset;
  index->interval_bytes = interval_bytes;
  index->max_timestamp = -1;
}

void pl_index_free(pl_index *index) {
  free(index->offsets.bytes);
  free(index->times.bytes);
  pl_index_init(index, index->base_offset, index->interval_bytes);
}

static uint8_t *entries_push(pl_entries *entries, uint64_t size) {
  if (entries->size + size > entries->capacity) {
    uint64_t capacity = entries->capacity ? entries->capacity * 2 : 1024;
    uint8_t *bytes = realloc(entries->bytes, capacity);
    if (!bytes) return NULL;
    entries->bytes = bytes;
    entries->capacity = capacity;
  }
  entries->size += size;
  return entries->bytes + entries->size - size;
}

static uint32_t relative(const pl_index *index, int64_t offset) {
  return (uint32_t)(offset - index->base_offset);
}

static pl_status add_time(pl_index *index) {
  const pl_entries *times = &index->times;
  if (index->max_timestamp < 0 || index->is_timeless) return PL_OK;
  if (times->size && pl_load_i64(times->bytes + times->size - PL_TIME_ENTRY_SIZE) >=
                         index->max_timestamp)
    return PL_OK;
  uint8_t *entry = entries_push(&index->times, PL_TIME_ENTRY_SIZE);
  if (!entry) return pl_fail(PL_ERR_NO_MEMORY, NULL, "out of memory for a time index");
  pl_store_u64(entry, (uint64_t)index->max_timestamp);
  pl_store_u32(entry + 8, relative(index, index->max_timestamp_offset));
  return PL_OK;
}

bool pl_index_rises(const pl_index *index) {
  const uint8_t *entry = index->offsets.bytes, *end = entry + index->offsets.size;
  for (int64_t offset = -1, position = -1; entry < end; entry += PL_OFFSET_ENTRY_SIZE) {
    if (pl_load_i32(entry) <= offset || pl_load_i32(entry + 4) <= position) return false;
    offset = pl_load_i32(entry);
    position = pl_load_i32(entry + 4);
  }
  entry = index->times.bytes;
  end = entry + index->times.size;
  for (int64_t timestamp = -1, offset = -1; entry < end; entry += PL_TIME_ENTRY_SIZE) {
    if (pl_load_i64(entry) <= timestamp || pl_load_i32(entry + 8) <= offset) return false;
    timestamp = pl_load_i64(entry);
    offset = pl_load_i32(entry + 8);
  }
  return true;
}

pl_status pl_index_add(pl_index *index, const pl_header *header) {
  if (header->max_timestamp > index->max_timestamp) {
    index->max_timestamp = header->max_timestamp;
    index->max_timestamp_offset = header->last_offset;
  }
  if (index->bytes_since > index->interval_bytes) {
    uint8_t *entry = entries_push(&index->offsets, PL_OFFSET_ENTRY_SIZE);
    if (!entry) return pl_fail(PL_ERR_NO_MEMORY, NULL, "out of memory for an offset index");
    pl_store_u32(entry, relative(index, header->last_offset));
    pl_store_u32(entry + 4, (uint32_t)index->position);
    PL_TRY(add_time(index));
    index->bytes_since = 0;
  }
  index->bytes_since += header->size;
  index->position += header->size;
  index->next_offset = header->last_offset + 1;
  return PL_OK;
}

pl_status pl_index_finish(pl_index *index) { return add_time(index); }

/* Number of entries whose leading big-endian integer is at or below `key`. */
static uint64_t count_at_or_below(const pl_entries *entries, uint64_t entry_size, bool is_wide,
                                  int64_t key) {
  uint64_t low = 0, high = entries->size / entry_size;
  while (low < high) {
    uint64_t middle = (low + high) / 2;
    const uint8_t *entry = entries->bytes + middle * entry_size;
    int64_t value = is_wide ? pl_load_i64(entry) : pl_load_i32(entry);
    if (value <= key)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

bool pl_index_floor(const pl_index *index, int64_t offset, int64_t *batch_last_offset,
                    uint64_t *position) {
  uint64_t count = count_at_or_below(&index->offsets, PL_OFFSET_ENTRY_SIZE, false,
                                     offset - index->base_offset);
  if (count == 0) return false;
  const uint8_t *entry = index->offsets.bytes + (count - 1) * PL_OFFSET_ENTRY_SIZE;
  *batch_last_offset = index->base_offset + pl_load_i32(entry);
  *position = pl_load_u32(entry + 4);
  return true;
}

bool pl_index_time_floor(const pl_index *index, int64_t timestamp, int64_t *entry_timestamp,
                         int64_t *offset) {
  uint64_t count = count_at_or_below(&index->times, PL_TIME_ENTRY_SIZE, true, timestamp - 1);
  if (count == 0) return false;
  const uint8_t *entry = index->times.bytes + (count - 1) * PL_TIME_ENTRY_SIZE;
  *entry_timestamp = pl_load_i64(entry);
  *offset = index->base_offset + pl_load_i32(entry + 8);
  return true;
}
