/* Records that describe themselves, and the proof that a log holds what its witnesses say. */
#define _GNU_SOURCE
#include "driver.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pl_crc32c.h"

#define VALUE_MAGIC 0x6c6f6779u

stage *the_stage;
char the_context[160];

typedef struct value_head {
  uint32_t magic, life_number, size, check;
  uint64_t sequence;
} value_head;

_Noreturn void die(const char *format, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  fprintf(stderr, "FAILED (process %d): %s%s%s\n", (int)getpid(), the_context,
          *the_context ? ": " : "", text);
  fflush(NULL);
  _exit(1);
}

void must(pl_status status, const char *what) {
  if (status == PL_OK) return;
  const pl_error *error = pl_error_last();
  if (status > 0) die("%s: status %d", what, (int)status);
  die("%s: status %d: %s [%s, byte %" PRId64 ", offset %" PRId64 ", errno %d]", what, (int)status,
      error->text, error->path, error->position, error->offset, error->os_errno);
}

stage *stage_new(char *const *points, int count) {
  if (count > 2 * POINTS_MAX) die("%d points, room for %d", count / 2, POINTS_MAX);
  stage *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (s == MAP_FAILED) die("no memory for the stage");
  s->point_count = count / 2;
  for (int i = 0; i < s->point_count; i++) {
    snprintf(s->points[i].name, sizeof s->points[i].name, "%s", points[2 * i]);
    s->points[i].hits_before = (uint32_t)atoi(points[2 * i + 1]);
  }
  the_stage = s;
  return s;
}

int stage_point(const char *name) {
  for (int i = 0; i < the_stage->point_count; i++)
    if (strcmp(the_stage->points[i].name, name) == 0) return i;
  return -1;
}

/* ---- random numbers: splitmix64 (Steele, Lea, Flood 2014) ------------------------------- */

static _Thread_local uint64_t random_state;

static uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

void random_seed(uint64_t seed) { random_state = seed; }

uint32_t random_below(uint32_t limit) {
  random_state += 0x9e3779b97f4a7c15u;
  return (uint32_t)(((mix(random_state) >> 32) * limit) >> 32);
}

/* ---- values ----------------------------------------------------------------------------- */

int64_t value_size(uint32_t life_number, uint64_t sequence) {
  uint64_t dice = mix(sequence * 0x9e3779b97f4a7c15u ^ life_number);
  uint64_t extra = dice % 400 == 0 ? dice / 400 % 40000 : dice % 37 == 0 ? dice / 37 % 3000
                                                                         : dice % 150;
  return (int64_t)(sizeof(value_head) + extra);
}

pl_slice value_make(uint8_t *buffer, uint32_t life_number, uint64_t sequence) {
  int64_t size = value_size(life_number, sequence);
  value_head head = {VALUE_MAGIC, life_number, (uint32_t)size, 0, sequence};
  memset(buffer + sizeof head, (int)(mix(sequence) & 0xff), (size_t)size - sizeof head);
  memcpy(buffer, &head, sizeof head);
  head.check = pl_crc32c(buffer, (size_t)size);
  memcpy(buffer, &head, sizeof head);
  return (pl_slice){buffer, size};
}

/* Null for one in three, else of up to 15 bytes. */
pl_slice key_of(uint64_t sequence) {
  static const uint8_t bytes[16] = "key of a record";
  uint64_t dice = mix(sequence + 1);
  return dice % 3 ? (pl_slice){bytes, (int64_t)(dice / 3 % 16)} : (pl_slice){NULL, -1};
}

int64_t timestamp_of(uint64_t sequence) {
  return 1600000000000 + (int64_t)(mix(sequence + 2) % 86400000);
}

static bool are_equal(pl_slice a, pl_slice b) {
  return a.size == b.size && (a.size <= 0 || memcmp(a.data, b.data, (size_t)a.size) == 0);
}

static void read_value(const pl_record *record, value_head *head) {
  static _Thread_local uint8_t expected[VALUE_MAX];
  pl_record_fields fields;
  if (!pl_record_split(record->body, record->body_size, &fields))
    die("offset %" PRId64 ": the record does not parse", record->offset);
  if (fields.value.size < (int64_t)sizeof *head)
    die("offset %" PRId64 ": a value of %" PRId64 " bytes", record->offset, fields.value.size);
  memcpy(head, fields.value.data, sizeof *head);
  if (head->magic != VALUE_MAGIC || head->life_number >= atomic_load(&the_stage->lives))
    die("offset %" PRId64 ": invented: life %u, magic %x", record->offset, head->life_number,
        head->magic);
  pl_slice value = value_make(expected, head->life_number, head->sequence);
  if (!are_equal(value, fields.value) || !are_equal(key_of(head->sequence), fields.key) ||
      record->timestamp != timestamp_of(head->sequence))
    die("offset %" PRId64 ": life %u, sequence %" PRIu64 ": not what was sent", record->offset,
        head->life_number, head->sequence);
}

/* ---- the proof -------------------------------------------------------------------------- */

typedef struct progress {
  bool is_seen;
  uint64_t next;
} progress;

static void forget_crc_marks(pl_log *log) {
  pthread_mutex_lock(&log->list_lock);
  for (int64_t i = 0; i < log->list_count; i++)
    if (log->list[i].segment) pl_segment_forget_verified(log->list[i].segment);
  if (log->active) pl_segment_forget_verified(log->active);
  pthread_mutex_unlock(&log->list_lock);
}

static void see_record(const pl_record *record, progress *lives, bool may_be_cut) {
  value_head head;
  read_value(record, &head);
  progress *seen = &lives[head.life_number];
  const life *witness = &the_stage->life[head.life_number];
  if (head.sequence >= atomic_load(&witness->attempted))
    die("offset %" PRId64 ": invented: life %u never sent sequence %" PRIu64, record->offset,
        head.life_number, head.sequence);
  if (!seen->is_seen) seen->next = may_be_cut ? head.sequence : 0;
  if (head.sequence != seen->next)
    die("offset %" PRId64 ": life %u: sequence %" PRIu64 " where %" PRIu64 " was to come: %s",
        record->offset, head.life_number, head.sequence, seen->next,
        head.sequence < seen->next ? "twice, or out of order" : "lost");
  seen->is_seen = true;
  seen->next++;
}

/* PL_OK at the end; PL_ERR_OUT_OF_RANGE when the beginning was deleted under us. */
static pl_status read_all(pl_log *log, progress *lives, bool may_be_cut, verdict *v) {
  pl_cursor cursor;
  pl_status status;
  int64_t expected = v->start;
  pl_cursor_init(&cursor, log, v->start);
  for (;;) {
    pl_chunk chunk;
    pl_reader reader;
    pl_record records[64];
    int64_t count;
    status = pl_cursor_fetch(&cursor, 100000, 1 << 20, true, &chunk);
    if (status != PL_OK) break;
    pl_reader_init(&reader, &chunk);
    while ((count = pl_reader_records(&reader, records, 64)) > 0)
      for (int64_t i = 0; i < count; i++) {
        if (records[i].offset != expected)
          die("offset %" PRId64 " where %" PRId64 " was to come", records[i].offset, expected);
        see_record(&records[i], lives, may_be_cut);
        expected++;
        v->records++;
      }
    if (count < 0) die("offset %" PRId64 ": a record does not parse", expected);
    v->crc_bytes += chunk.end_position - chunk.position;
    pl_chunk_release(&chunk);
    if (expected >= v->end) break; /* writers go on: what was there at the start is enough */
  }
  pl_cursor_release(&cursor);
  return status == PL_END ? PL_OK : status;
}

pl_status read_log(pl_log *log, bool may_be_cut, verdict *v) {
  static life before[LIVES_MAX];
  static progress lives[LIVES_MAX];
  uint32_t count = atomic_load(&the_stage->lives);
  /* Witnesses first, then the end: all that they bear must lie below it. */
  for (uint32_t i = 0; i < count; i++) {
    before[i].acked_offset = atomic_load(&the_stage->life[i].acked_offset);
    before[i].acked = atomic_load(&the_stage->life[i].acked);
  }
  forget_crc_marks(log);
  pl_status status;
  int attempts = 0;
  do {
    memset(lives, 0, sizeof lives);
    *v = (verdict){0, atomic_load(&log->page->log_start), pl_log_readable(log), 0};
    status = read_all(log, lives, may_be_cut && v->start > 0, v);
  } while (status == PL_ERR_OUT_OF_RANGE && may_be_cut && ++attempts < 100);
  if (status != PL_OK) return status;
  if (v->start + v->records < v->end)
    die("the log ends at %" PRId64 ", read up to %" PRId64, v->end, v->start + v->records);
  for (uint32_t i = 0; i < count; i++)
    if (before[i].acked > lives[i].next && before[i].acked_offset >= v->start)
      die("life %u: %" PRIu64 " acknowledged, the last at offset %" PRId64 ", but %" PRIu64
          " found in [%" PRId64 ", %" PRId64 ")", i, before[i].acked, before[i].acked_offset,
          lives[i].next, v->start, v->end);
  return PL_OK;
}

verdict verify_log(pl_log *log, bool may_be_cut) {
  verdict v;
  must(read_log(log, may_be_cut, &v), "reading the log back");
  return v;
}

/* ---- small things ----------------------------------------------------------------------- */

pl_options options_unset(void) {
  pl_options options;
  int64_t *field = (int64_t *)&options;
  for (size_t i = 0; i < sizeof options / sizeof *field; i++) field[i] = PL_OPTION_UNSET;
  return options;
}

void remove_tree(const char *directory) {
  DIR *entries = opendir(directory);
  struct dirent *entry;
  char path[PL_PATH_MAX];
  while (entries && (entry = readdir(entries))) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) < (int)sizeof path)
      unlink(path);
  }
  if (entries) closedir(entries);
  rmdir(directory);
}
