/* Hostile bytes for everything that decodes: batches, records, segments, indexes, log.meta.
 *
 *     fuzz_batch [seconds [seed [folder of golden files]]]
 *
 * Inputs are golden batches and batches of our own, a few bytes of which are changed, moved, cut or
 * set to numbers that hurt; half of them get their CRC put right again, or nothing behind the CRC
 * would ever be reached. Each lies in a block of exactly its size, so that the address sanitizer
 * sees a read of one byte too many. Beyond "no crash" it proves that pl_records_verify() and the
 * readers agree about what is whole.
 */
#define _GNU_SOURCE
#define FUZZER "fuzz_batch"
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "pl_cursor.h"

enum { META_MAX = 1 << 14 };

static struct counts {
  uint64_t headers, whole, records, walked, found, metas;
} counts;
/* ---- one batch -------------------------------------------------------------------------- */

static bool read_headers(const pl_record_fields *fields) {
  const uint8_t *p = fields->headers, *end = p + fields->headers_size;
  int64_t count;
  p = pl_get_varint(p, end, &count);
  if (!p || count < 0) return false;
  for (int64_t i = 0; i < count; i++) {
    pl_slice key, value;
    if (!pl_record_header_next(&p, end, &key, &value)) return false;
  }
  return p == end;
}

static volatile uint8_t sink;

static void touch(pl_slice slice) {
  for (int64_t i = 0; i < slice.size; i++) sink = slice.data[i];
}

/* All records of a reader, every byte of them; false when one is broken. */
static bool read_all(pl_reader *reader, int64_t *count) {
  pl_record records[7];
  int64_t got;
  bool is_whole = true;
  *count = 0;
  while ((got = pl_reader_records(reader, records, 7)) > 0)
    for (int64_t i = 0; i < got; i++, ++*count) {
      pl_record_fields fields;
      if (!pl_record_split(records[i].body, records[i].body_size, &fields)) {
        is_whole = false;
        continue;
      }
      touch(fields.key);
      touch(fields.value);
      if (!read_headers(&fields)) is_whole = false;
    }
  return is_whole && got == 0;
}

static void read_values(const pl_reader *start, int64_t wanted, bool is_whole) {
  pl_reader reader = *start;
  pl_slice values[5];
  int64_t got, count = 0;
  while ((got = pl_reader_values(&reader, values, 5)) > 0) {
    for (int64_t i = 0; i < got; i++) touch(values[i]);
    count += got;
  }
  CHECK(!is_whole || (got == 0 && count == wanted));
}

static void read_columns(const pl_reader *start, int64_t wanted, bool is_whole) {
  pl_reader reader = *start;
  int64_t offsets[3], timestamps[3], value_at[3], key_at[3];
  int32_t value_sizes[3], key_sizes[3];
  const uint8_t *origin = reader.p;
  pl_column_arrays arrays = {offsets, timestamps, value_at, key_at, value_sizes, key_sizes, origin};
  int64_t got, count = 0, previous = -1;
  while ((got = pl_reader_columns(&reader, &arrays, 3)) > 0) {
    for (int64_t i = 0; i < got; i++) {
      CHECK(offsets[i] > previous);
      previous = offsets[i];
      touch((pl_slice){origin + value_at[i], value_sizes[i]});
      touch((pl_slice){origin + key_at[i], key_sizes[i]});
    }
    count += got;
  }
  CHECK(!is_whole || (got == 0 && count == wanted));
}

static void try_batch(const uint8_t *input, uint64_t size) {
  pl_header header;
  const char *why;
  int64_t max_timestamp, count;
  if (size < PL_BATCH_HEADER_SIZE) return;
  uint8_t *batch = exactly(input, size);
  if (pl_header_decode(batch, size, &header, &why)) {
    counts.headers++;
    CHECK(header.size >= PL_BATCH_HEADER_SIZE && header.size <= size);
    CHECK(header.base_offset >= 0 && header.last_offset >= header.base_offset);
    CHECK(header.last_offset < INT64_MAX);
    bool has_crc = pl_batch_crc_matches(batch, header.size);
    pl_segment segment = {.data = batch};
    pl_chunk chunk = {.segment = &segment, .end_position = header.size,
                      .from_offset = header.base_offset, .next_offset = header.last_offset + 1};
    pl_slice payload = pl_chunk_payload(&chunk);
    why = pl_records_verify(payload.data, (uint64_t)payload.size, &header, &max_timestamp);
    pl_reader start, reader;
    pl_reader_init_payload(&start, &chunk, payload);
    reader = start;
    bool is_whole = read_all(&reader, &count);
    CHECK(is_whole == (why == NULL));
    CHECK(!is_whole || count == header.records_count);
    read_values(&start, count, is_whole);
    read_columns(&start, count, is_whole);
    counts.records += (uint64_t)count;
    counts.whole += is_whole && has_crc;
  } else {
    CHECK(why != NULL);
  }
  free(batch);
}

/* ---- a segment -------------------------------------------------------------------------- */

/* Some batches in a row, most of them rightly numbered. */
static uint64_t make_segment(uint8_t *out) {
  uint64_t size = 0;
  int64_t next = 0;
  for (uint64_t n = 1 + below(6); n > 0; n--) {
    uint8_t *batch = out + size;
    uint64_t batch_size = make_batch(batch);
    if (batch_size >= PL_BATCH_HEADER_SIZE && !one_in(8)) {
      pl_batch_stamp(batch, next, 0);
      next += pl_load_i32(batch + PL_BATCH_LAST_OFFSET_DELTA);
      next = next < 0 || next >= INT64_MAX - INT32_MAX ? 0 : next + 1;
    }
    size += batch_size;
    if (size > INPUT_MAX / 2) break;
  }
  if (one_in(4)) { /* an open tail, and zeros */
    memset(out + size, 0, 200);
    size += below(200);
  }
  return size;
}

static void fill_index(pl_segment *segment) {
  pl_entries *both[] = {&segment->index.offsets, &segment->index.times};
  const uint64_t sizes[] = {PL_OFFSET_ENTRY_SIZE, PL_TIME_ENTRY_SIZE};
  for (int i = 0; i < 2; i++) {
    uint64_t size = sizes[i] * below(6);
    both[i]->bytes = malloc(size ? size : 1);
    both[i]->size = both[i]->capacity = size;
    for (uint64_t at = 0; at < size; at++)
      both[i]->bytes[at] = one_in(3) ? (uint8_t)draw() : 0;
  }
  segment->index.position = below(atomic_load(&segment->size) + 100);
  segment->index.next_offset = (int64_t)below(100);
}

static void read_chunk(pl_segment *segment, uint64_t position, uint64_t end, int64_t base,
                       int64_t next, bool is_open) {
  pl_chunk chunk = {.segment = segment, .position = position, .end_position = end,
                    .from_offset = base + (int64_t)below(4), .next_offset = next,
                    .is_open = is_open};
  if (one_in(3)) chunk.next_offset = base + (int64_t)below((uint64_t)(next - base) + 1);
  pl_reader reader;
  int64_t count;
  pl_reader_init(&reader, &chunk);
  read_all(&reader, &count);
  counts.records += (uint64_t)count;
}

/* Walks as a cursor does: header, check, on to the next; then reads what was checked. */
static void walk(pl_segment *segment, const pl_view *view) {
  uint64_t position = 0, end = 0;
  int64_t expected = 0, base = 0;
  pl_header header;
  while (pl_segment_batch(segment, position, expected, view, &header) == PL_OK) {
    if (header.size == 0) {
      end = atomic_load(&segment->size);
      read_chunk(segment, position, end, header.base_offset, view->end_offset, true);
      return;
    }
    if (pl_segment_verify(segment, position, &header, view) != PL_OK) break;
    CHECK(header.base_offset == expected && position + header.size <= segment->size);
    position += header.size;
    expected = header.last_offset + 1;
    end = position;
    counts.walked++;
  }
  if (end) read_chunk(segment, 0, end, base, expected, false);
}

static void try_segment(const uint8_t *input, uint64_t size, int fd) {
  static const pl_meta meta = {.epoch_count = 1};
  if (size == 0 || ftruncate(fd, (off_t)size) != 0) return;
  pl_segment segment = {.fd = fd, .data = exactly(input, size), .mapped = size};
  pl_view view = {INT64_MAX, INT64_MAX, &meta, true};
  if (one_in(3)) view.end_offset = view.sealed_offset = (int64_t)below(60);
  if (one_in(3)) view.sealed_offset = (int64_t)below(60);
  snprintf(segment.path, sizeof segment.path, "/nowhere/%020d.log", 0);
  pthread_mutex_init(&segment.index_lock, NULL);
  atomic_store(&segment.size, size);
  atomic_store(&segment.references, 1);
  memset(segment.probed, 0xff, sizeof segment.probed);
  pl_index_init(&segment.index, 0, below(300));
  if (one_in(2)) fill_index(&segment);
  walk(&segment, &view);
  for (int i = 0; i < 4; i++) {
    uint64_t position;
    pl_header header;
    pl_tail tail;
    int64_t wanted = one_in(5) ? (int64_t)(draw() >> 1) : (int64_t)below(100);
    if (pl_segment_find(&segment, wanted, &view, &position, &header) == PL_OK) {
      CHECK(position + PL_BATCH_HEADER_SIZE <= size);
      CHECK(header.size == 0 || header.last_offset >= wanted);
      counts.found++;
      pl_segment_walk_to_end(&segment, position, header.base_offset, &view, &tail);
    }
    CHECK(pl_segment_time_floor(&segment, (int64_t)draw() >> below(60), &view) >= 0);
  }
  atomic_store(&segment.references, 0);
  pl_segment_forget_verified(&segment);
  pl_index_free(&segment.index);
  pthread_mutex_destroy(&segment.index_lock);
  free(segment.data);
}

/* ---- numbers ---------------------------------------------------------------------------- */

/* The fast paths must agree with the plain loop on any bytes. */
static void try_varints(const uint8_t *input, uint64_t size) {
  uint64_t n = below(13);
  if (n > size) n = size;
  uint8_t *data = exactly(input + below(size - n + 1), n);
  int64_t fast = 0, slow = 0;
  const uint8_t *a = pl_get_varint(data, data + n, &fast);
  const uint8_t *b = pl_get_varint_slow(data, data + n, 5, &slow);
  CHECK(a == b && (!a || fast == slow));
  CHECK(!a || (fast >= INT32_MIN && fast <= INT32_MAX));
  a = pl_get_varlong(data, data + n, &fast);
  b = pl_get_varint_slow(data, data + n, 10, &slow);
  CHECK(a == b && (!a || fast == slow));
  if (a) {
    uint8_t again[10];
    uint8_t *end = pl_put_varint(again, pl_zigzag(fast));
    CHECK(end - again == pl_varint_size(pl_zigzag(fast)) && end - again <= a - data);
  }
  free(data);
}

/* ---- log.meta --------------------------------------------------------------------------- */

static const char meta_text[] =
    "pylog-log 1\nfeatures 0\nincarnation 41c45951f71c73b6\n"
    "clean_boot 393688cc3e0648b59398247047336f25\nlog_start 0\nclean_end 300\ndurable_end 0\n"
    "reserved_end 16777216\ndurability 0\nsegment_bytes 8192\nmax_message_bytes 1048588\n"
    "append_time 0\nindex_interval_bytes 4096\nflush_interval_ms 100\nepoch 0 0\nepoch 1 300\n";

static void try_meta(const char *folder) {
  char text[META_MAX], path[PL_PATH_MAX];
  static pl_meta first, second;
  uint64_t size = sizeof meta_text - 1;
  memcpy(text, meta_text, size);
  for (uint64_t n = below(4); n > 0; n--) size = mutate_once((uint8_t *)text, size);
  if (!one_in(8))
    size += (uint64_t)snprintf(text + size, 32, "crc32c %08x\n",
                               one_in(8) ? 0 : pl_crc32c(text, size));
  snprintf(path, sizeof path, "%s/" PL_META_NAME, folder);
  FILE *file = fopen(path, "w");
  CHECK(file && fwrite(text, 1, size, file) == size && fclose(file) == 0);
  if (pl_meta_load(folder, &first) != PL_OK) return;
  counts.metas++;
  int64_t offset = (int64_t)(draw() >> 1);
  pl_meta_allows(&first, first.epochs[0].epoch, offset, offset);
  CHECK(pl_meta_store(folder, &first, false) == PL_OK);
  CHECK(pl_meta_load(folder, &second) == PL_OK);
  CHECK(memcmp(&first, &second, sizeof first) == 0);
}

/* ---- the loop --------------------------------------------------------------------------- */

static char folder[] = "fuzz-XXXXXX";
static int segment_fd;

static void execute(void) {
  static uint8_t input[2 * INPUT_MAX];
  if (one_in(32)) {
    try_meta(folder);
  } else if (one_in(3)) {
    try_segment(input, make_segment(input), segment_fd);
  } else {
    uint64_t size = make_batch(input);
    try_batch(input, size);
    try_varints(input, size);
  }
}

int main(int argument_count, char **arguments) {
  char path[PL_PATH_MAX];
  CHECK(mkdtemp(folder));
  segment_fd = memfd_create("segment", MFD_CLOEXEC);
  CHECK(segment_fd >= 0);
  double seconds = fuzz(argument_count, arguments, execute);
  printf("fuzz_batch: %" PRIu64 " executions in %.1f s, no finding; %" PRIu64 " headers legal, %"
         PRIu64 " batches whole, %" PRIu64 " records, %" PRIu64 " batches walked, %" PRIu64
         " found, %" PRIu64 " log.meta read\n", executions, seconds, counts.headers, counts.whole,
         counts.records, counts.walked, counts.found, counts.metas);
  snprintf(path, sizeof path, "%s/" PL_META_NAME, folder);
  unlink(path);
  snprintf(path, sizeof path, "%s/" PL_EPOCHS_NAME, folder);
  unlink(path);
  rmdir(folder);
  close(segment_fd);
  return 0;
}
