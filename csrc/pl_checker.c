/* Offsets, sequences and batches, looked at once. */
#include "pl_checker.h"

#include <stdlib.h>

#include "pl_crc32c.h"
#include "pl_stamp.h"

/* The header again, on purpose: see pl_checker.h. */
enum {
  AT_LENGTH = 8, AT_EPOCH = 12, AT_MAGIC = 16, AT_CRC = 17, AT_ATTRIBUTES = 21, AT_LAST_DELTA = 23,
  AT_COUNT = 57, HEADER = 61, BEFORE_LENGTH_COUNTS = 12, CODEC_BITS = 7, CONTROL_BIT = 0x20,
};

typedef struct producer {
  pl_seen *seen; /* sorted, disjoint, never adjacent */
  int64_t count, room;
  uint16_t incarnation;
} producer;

struct pl_checker {
  pl_checker_figures figures;
  producer *producers;
  uint32_t producers_room;
  _Atomic uint64_t *folds;
  int64_t fold_count;
  uint64_t fold;
  int64_t fold_records;
  pl_finding kept[PL_FOUND_KINDS][PL_FINDINGS_KEPT];
};

pl_checker *pl_checker_new(uint64_t run, int64_t next_offset) {
  pl_checker *self = calloc(1, sizeof *self);
  if (!self) return NULL;
  self->figures.run = run;
  self->figures.next_offset = next_offset;
  self->figures.epoch = -1;
  return self;
}

void pl_checker_free(pl_checker *self) {
  if (!self) return;
  for (uint32_t i = 0; i < self->producers_room; i++) free(self->producers[i].seen);
  free(self->producers);
  free(self);
}

void pl_checker_share(pl_checker *self, _Atomic uint64_t *folds, int64_t count) {
  self->folds = folds;
  self->fold_count = count;
}

void pl_checker_seek(pl_checker *self, int64_t offset) {
  self->figures.next_offset = offset;
  self->figures.epoch = -1;
  self->fold_records = -1;
}

static pl_status no_memory(void) {
  return pl_fail(PL_ERR_NO_MEMORY, NULL, "no memory for the checker's sets; check fewer at once");
}

static void find(pl_checker *self, pl_finding_kind kind, int64_t offset, int64_t expected,
                 const pl_stamp *stamp) {
  int64_t n = self->figures.found[kind]++;
  if (n >= PL_FINDINGS_KEPT) return;
  self->kept[kind][n] = (pl_finding){
      .offset = offset,
      .expected = expected,
      .sequence = stamp ? (int64_t)stamp->sequence : -1,
      .producer = stamp ? (int64_t)stamp->producer : -1,
      .kind = kind,
      .incarnation = stamp ? stamp->incarnation : 0,
  };
}

/* Is `a` before `b`? They count in 16 bits, and a run of a day comes round: serial numbers (RFC
 * 1982). */
static bool is_before(uint16_t a, uint16_t b) { return (int16_t)(uint16_t)(a - b) < 0; }

/* ---- sequences ---------------------------------------------------------------------------- */

static pl_status producer_of(pl_checker *self, uint32_t id, producer **out) {
  if (id >= self->producers_room) {
    uint32_t room = self->producers_room ? self->producers_room : 64;
    while (room <= id) room *= 2;
    producer *grown = realloc(self->producers, room * sizeof *grown);
    if (!grown) return no_memory();
    memset(grown + self->producers_room, 0, (room - self->producers_room) * sizeof *grown);
    self->producers = grown;
    self->figures.memory_bytes += (room - self->producers_room) * sizeof *grown;
    self->producers_room = room;
  }
  *out = &self->producers[id];
  return PL_OK;
}

static pl_status insert_seen(pl_checker *self, producer *p, int64_t at, uint64_t sequence,
                             int64_t offset) {
  if (p->count == p->room) {
    int64_t room = p->room ? 2 * p->room : 1;
    pl_seen *grown = realloc(p->seen, (size_t)room * sizeof *grown);
    if (!grown) return no_memory();
    self->figures.memory_bytes += (uint64_t)(room - p->room) * sizeof *grown;
    p->seen = grown;
    p->room = room;
  }
  memmove(p->seen + at + 1, p->seen + at, (size_t)(p->count - at) * sizeof *p->seen);
  p->seen[at] = (pl_seen){sequence, sequence + 1, offset, offset};
  p->count++;
  return PL_OK;
}

/* A sequence that does not follow the greatest one seen: a jump, a duplicate or a late one. */
static pl_status take_unexpected(pl_checker *self, producer *p, const pl_stamp *stamp,
                                 int64_t offset) {
  uint64_t s = stamp->sequence;
  int64_t low = 0, high = p->count; /* the first interval that starts beyond s */
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (p->seen[middle].start <= s) low = middle + 1;
    else high = middle;
  }
  pl_seen *below = low > 0 ? &p->seen[low - 1] : NULL;
  if (below && s < below->end) {
    find(self, PL_FOUND_DUPLICATE, offset, below->offset, stamp);
    return PL_OK;
  }
  if (low < p->count) find(self, PL_FOUND_REORDERED, offset, p->seen[low].offset, stamp);
  bool joins_below = below && below->end == s;
  bool joins_above = low < p->count && p->seen[low].start == s + 1;
  if (joins_below && joins_above) {
    below->end = p->seen[low].end;
    below->last_offset = p->seen[low].last_offset;
    memmove(p->seen + low, p->seen + low + 1, (size_t)(p->count - low - 1) * sizeof *p->seen);
    p->count--;
  } else if (joins_below) {
    below->end++;
    below->last_offset = offset;
  } else if (joins_above) {
    p->seen[low].start = s;
    p->seen[low].offset = offset;
  } else {
    return insert_seen(self, p, low, s, offset);
  }
  return PL_OK;
}

static pl_status take_stamp(pl_checker *self, const pl_stamp *stamp, int64_t offset) {
  producer *p = NULL;
  if (!self->figures.run) self->figures.run = stamp->run;
  if (stamp->run != self->figures.run || stamp->producer >= PL_PRODUCERS_MAX ||
      stamp->sequence > INT64_MAX) {
    find(self, PL_FOUND_OTHER_RUN, offset, -1, stamp);
    return PL_OK;
  }
  PL_TRY(producer_of(self, stamp->producer, &p));
  bool is_new = p->count == 0;
  if (is_new) self->figures.producers++;
  if (!is_new && is_before(stamp->incarnation, p->incarnation))
    find(self, PL_FOUND_ZOMBIE, offset, p->incarnation, stamp);
  else p->incarnation = stamp->incarnation;
  self->figures.last_sent_ns = stamp->sent_ns;
  if (__builtin_expect(p->count > 0 && p->seen[p->count - 1].end == stamp->sequence, 1)) {
    p->seen[p->count - 1].end++;
    p->seen[p->count - 1].last_offset = offset;
    return PL_OK;
  }
  return take_unexpected(self, p, stamp, offset);
}

/* ---- offsets ------------------------------------------------------------------------------ */

static inline uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 33)) * 0xff51afd7ed558ccdu; /* MurmurHash3's finaliser */
  z = (z ^ (z >> 33)) * 0xc4ceb9fe1a85ec53u;
  return z ^ (z >> 33);
}

/* What was seen of a block: against what another saw, or for the next one. Blocks go round in the
 * folds, so 48 bits are the hash and 16 say in which round it is; who is a round late has nothing
 * to compare with any more. */
static bool agrees(pl_checker *self, int64_t block, uint64_t hash) {
  enum { ROUND_BITS = 16 };
  uint64_t round = (uint64_t)(block / self->fold_count) << (64 - ROUND_BITS);
  _Atomic uint64_t *fold = &self->folds[block % self->fold_count];
  uint64_t kept = hash >> ROUND_BITS, mine = round | (kept ? kept : 1);
  for (uint64_t theirs = atomic_load(fold);;) {
    uint16_t of_theirs = (uint16_t)(theirs >> (64 - ROUND_BITS));
    uint16_t of_mine = (uint16_t)(round >> (64 - ROUND_BITS));
    if (theirs && of_theirs == of_mine) return theirs == mine;
    if (theirs && is_before(of_mine, of_theirs)) return true;
    if (atomic_compare_exchange_weak(fold, &theirs, mine)) return true;
  }
}

/* A block counts when all its offsets went by in one go. */
static void fold_in(pl_checker *self, int64_t offset, uint32_t crc) {
  int64_t block = offset / PL_FOLD_RECORDS, place = offset % PL_FOLD_RECORDS;
  if (place == 0) {
    self->fold = 0;
    self->fold_records = 0;
  }
  if (self->fold_records != place) { /* came in at the middle, or there is a gap */
    self->fold_records = -1;
    return;
  }
  self->fold += mix(((uint64_t)offset << 20) ^ crc);
  if (++self->fold_records == PL_FOLD_RECORDS && !agrees(self, block, self->fold))
    find(self, PL_FOUND_INCONSISTENT, offset + 1 - PL_FOLD_RECORDS, -1, NULL);
}

/* Is it a new one? One below the latest is a finding for its batch, not for each of its records. */
static bool take_epoch(pl_checker *self, int64_t offset, int32_t epoch, bool is_first) {
  int32_t before = self->figures.epoch;
  if (epoch < 0) return false; /* it says none */
  if (epoch >= before) self->figures.epoch = epoch;
  else if (is_first) find(self, PL_FOUND_STALE_EPOCH, offset, before, NULL);
  return before >= 0 && epoch > before;
}

/* Is this the offset to come? The first of a new epoch may skip some, nothing may come again. */
static void take_offset(pl_checker *self, int64_t offset, bool may_skip) {
  pl_checker_figures *f = &self->figures;
  if (f->next_offset < 0 || offset == f->next_offset) return;
  if (offset < f->next_offset) find(self, PL_FOUND_BACKWARDS, offset, f->next_offset, NULL);
  else if (may_skip) f->cuts++;
  else find(self, PL_FOUND_GAP, offset, f->next_offset, NULL);
}

static pl_status take(pl_checker *self, int64_t offset, pl_slice key, pl_slice value) {
  pl_stamp stamp;
  uint32_t crc = 0;
  self->figures.records++;
  self->figures.next_offset = offset + 1;
  pl_stamp_found found = pl_stamp_read(key, value, &stamp, &crc);
  /* What is no record of the run is a finding of its own: hashed, it would accuse those who see it
   * as it was. */
  if (found != PL_STAMP_GOOD) self->fold_records = -1;
  else if (self->folds) fold_in(self, offset, crc);
  if (__builtin_expect(found == PL_STAMP_GOOD, 1)) return take_stamp(self, &stamp, offset);
  find(self, found == PL_STAMP_BAD ? PL_FOUND_CORRUPT_RECORD : PL_FOUND_FOREIGN_RECORD, offset, -1,
       NULL);
  return PL_OK;
}

pl_status pl_checker_take_record(pl_checker *self, int64_t offset, pl_slice key, pl_slice value) {
  self->figures.bytes += (key.size > 0 ? key.size : 0) + (value.size > 0 ? value.size : 0);
  if (offset < 0 || offset == INT64_MAX) { /* no log has it, and none can follow */
    find(self, PL_FOUND_BACKWARDS, offset, self->figures.next_offset, NULL);
    return PL_OK;
  }
  take_offset(self, offset, false);
  return take(self, offset, key, value);
}

/* ---- batches ------------------------------------------------------------------------------ */

static const uint8_t *take_slice(const uint8_t *p, const uint8_t *end, pl_slice *out) {
  int64_t size;
  p = pl_get_varint(p, end, &size);
  if (!p || size < -1 || size > end - p) return NULL;
  *out = (pl_slice){size < 0 ? NULL : p, size};
  return size > 0 ? p + size : p;
}

static const uint8_t *skip_headers(const uint8_t *p, const uint8_t *end) {
  int64_t count;
  pl_slice slice;
  p = pl_get_varint(p, end, &count);
  if (!p || count < 0 || count > end - p) return NULL;
  while (count-- > 0) {
    p = take_slice(p, end, &slice);
    if (!p || slice.size < 0) return NULL;
    p = take_slice(p, end, &slice);
    if (!p) return NULL;
  }
  return p;
}

typedef struct decoded {
  int64_t delta;
  pl_slice key, value;
} decoded;

/* The byte after the record at p, or NULL. */
static const uint8_t *decode(const uint8_t *p, const uint8_t *end, decoded *out) {
  int64_t size, time;
  p = pl_get_varint(p, end, &size);
  if (!p || size < 1 || size > end - p) return NULL;
  end = p + size;
  p = pl_get_varlong(p + 1, end, &time);
  if (p) p = pl_get_varint(p, end, &out->delta);
  if (p) p = take_slice(p, end, &out->key);
  if (p) p = take_slice(p, end, &out->value);
  if (p) p = skip_headers(p, end);
  return p == end ? end : NULL;
}

/* Header and CRC. */
static bool is_whole(pl_slice batch) {
  if (batch.size < HEADER) return false;
  const uint8_t *b = batch.data;
  int64_t length = pl_load_i32(b + AT_LENGTH), count = pl_load_i32(b + AT_COUNT);
  int64_t last_delta = pl_load_i32(b + AT_LAST_DELTA), base = pl_load_i64(b);
  return length + BEFORE_LENGTH_COUNTS == batch.size && b[AT_MAGIC] == 2 && base >= 0 &&
         last_delta >= 0 && base < INT64_MAX - last_delta && count >= 0 &&
         count <= last_delta + 1 &&
         pl_load_u32(b + AT_CRC) ==
             pl_crc32c(b + AT_ATTRIBUTES, (size_t)(batch.size - AT_ATTRIBUTES));
}

static pl_status take_records(pl_checker *self, pl_slice batch, pl_slice records,
                              bool is_resumed) {
  const uint8_t *p = records.data, *end = p + records.size;
  int64_t base = pl_load_i64(batch.data), last = pl_load_i32(batch.data + AT_LAST_DELTA);
  int32_t epoch = pl_load_i32(batch.data + AT_EPOCH);
  int64_t count = pl_load_i32(batch.data + AT_COUNT), before = -1;
  int64_t from = is_resumed ? self->figures.next_offset : -1;
  for (int64_t i = 0; i < count; i++) {
    decoded record;
    p = decode(p, end, &record);
    if (!p || record.delta <= before || record.delta > last) {
      find(self, PL_FOUND_TORN_BATCH, base, base + i, NULL);
      return PL_OK;
    }
    before = record.delta;
    int64_t offset = base + record.delta;
    if (offset < from) continue;
    bool is_new_epoch = take_epoch(self, offset, epoch, i == 0);
    take_offset(self, offset, is_new_epoch && offset == base);
    PL_TRY(take(self, offset, record.key, record.value));
  }
  if (p != end) find(self, PL_FOUND_TORN_BATCH, base, base + count, NULL);
  else if (self->figures.next_offset >= 0 && self->figures.next_offset <= base + last)
    find(self, PL_FOUND_GAP, self->figures.next_offset, self->figures.next_offset, NULL);
  return PL_OK;
}

pl_status pl_checker_take_batch(pl_checker *self, pl_slice batch, const pl_slice *records,
                                bool is_resumed) {
  pl_checker_figures *f = &self->figures;
  f->batches++;
  f->bytes += batch.size;
  if (!is_whole(batch)) {
    find(self, PL_FOUND_TORN_BATCH, batch.size >= 8 ? pl_load_i64(batch.data) : -1,
         f->next_offset, NULL);
    return PL_OK;
  }
  uint16_t attributes = pl_load_u16(batch.data + AT_ATTRIBUTES);
  int64_t base = pl_load_i64(batch.data);
  int64_t end = base + pl_load_i32(batch.data + AT_LAST_DELTA) + 1;
  if (attributes & CONTROL_BIT) {
    if (!is_resumed || base >= f->next_offset)
      take_offset(self, base, take_epoch(self, base, pl_load_i32(batch.data + AT_EPOCH), true));
  } else if (attributes & CODEC_BITS && !records) {
    find(self, PL_FOUND_TORN_BATCH, base, -1, NULL);
  } else {
    pl_slice own = {batch.data + HEADER, batch.size - HEADER};
    PL_TRY(take_records(self, batch, records ? *records : own, is_resumed));
  }
  if (end > f->next_offset) f->next_offset = end;
  return PL_OK;
}

/* ---- answers ------------------------------------------------------------------------------ */

void pl_checker_ask(const pl_checker *self, pl_checker_figures *figures) {
  *figures = self->figures;
  figures->memory_bytes += sizeof *self;
}

int64_t pl_checker_findings(const pl_checker *self, pl_finding_kind kind, const pl_finding **out) {
  int64_t n = self->figures.found[kind];
  *out = self->kept[kind];
  return n < PL_FINDINGS_KEPT ? n : PL_FINDINGS_KEPT;
}

int64_t pl_checker_seen(const pl_checker *self, uint32_t id, const pl_seen **out) {
  if (id >= self->producers_room) return 0;
  *out = self->producers[id].seen;
  return self->producers[id].count;
}
