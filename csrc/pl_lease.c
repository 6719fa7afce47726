/* Taking leases, settling them, and what is made again when somebody dies in between. */
#include "pl_lease.h"

#include <string.h>

#include "pl_fault.h"

/* ---- sets ---------------------------------------------------------------------------------- */

static void set_add(pl_lease_set *set, uint32_t i) {
  uint64_t bit = (uint64_t)1 << i % 64, *word = &set->words[i / 64];
  set->count += !(*word & bit);
  *word |= bit;
  set->summary[i / 4096] |= (uint64_t)1 << i / 64 % 64;
}

static void set_remove(pl_lease_set *set, uint32_t i) {
  uint64_t bit = (uint64_t)1 << i % 64, *word = &set->words[i / 64];
  set->count -= !!(*word & bit);
  *word &= ~bit;
  if (!*word) set->summary[i / 4096] &= ~((uint64_t)1 << i / 64 % 64);
}

/* The first at or behind `from`, not beyond the ring's end; -1: none. */
static int32_t set_next(const pl_lease_set *set, uint32_t from) {
  uint32_t word = from / 64;
  uint64_t bits = set->words[word] & ~(uint64_t)0 << from % 64;
  if (bits) return (int32_t)(word * 64 + (uint32_t)__builtin_ctzll(bits));
  if (++word == PL_LEASES / 64) return -1;
  uint32_t group = word / 64;
  bits = set->summary[group] & ~(uint64_t)0 << word % 64;
  while (!bits)
    if (++group == PL_LEASES / 4096) return -1;
    else bits = set->summary[group];
  word = group * 64 + (uint32_t)__builtin_ctzll(bits);
  return (int32_t)(word * 64 + (uint32_t)__builtin_ctzll(set->words[word]));
}

/* The oldest: the ring begins anywhere. */
static int32_t set_oldest(const pl_lease_set *set, uint64_t first) {
  if (!set->count) return -1;
  int32_t found = set_next(set, (uint32_t)(first % PL_LEASES));
  return found >= 0 ? found : set_next(set, 0);
}

/* ---- one lease ----------------------------------------------------------------------------- */

static pl_lease *lease_at(pl_leases_file *file, uint64_t number) {
  return &file->leases[number % PL_LEASES];
}

static uint32_t index_of(const pl_leases_file *file, const pl_lease *lease) {
  return (uint32_t)(lease - file->leases);
}

uint16_t pl_lease_check(const pl_lease *lease) {
  uint64_t bits = (uint64_t)lease->offset << 20 ^ (uint64_t)lease->deliveries << 4 ^
                  (uint64_t)lease->bucket << 40 ^ (uint64_t)lease->is_keyed << 2 ^
                  (uint64_t)(lease->state == PL_LEASE_DONE) << 1 ^ 1;
  bits *= 0x9e3779b97f4a7c15u;
  return (uint16_t)(bits >> 48);
}

uint64_t pl_leases_mark_check(int64_t start, uint64_t incarnation) {
  return ((uint64_t)start ^ incarnation) * 0x9e3779b97f4a7c15u ^ (uint64_t)start;
}

/* The state last: it is what a repair believes. */
static void enter_state(pl_lease *lease, pl_lease_state state) {
  pl_lease told = *lease;
  told.state = (uint8_t)state;
  lease->check = pl_lease_check(&told);
  PL_POINT("lease-before-state");
  __atomic_store_n(&lease->state, (uint8_t)state, __ATOMIC_RELEASE);
  PL_POINT("lease-stated");
}

static void make_ready(pl_leases_file *file, pl_lease *lease) {
  enter_state(lease, PL_LEASE_READY);
  set_add(&file->ready, index_of(file, lease));
}

static void leave_held(pl_leases_file *file, pl_lease *lease) {
  set_remove(&file->held, index_of(file, lease));
}

/* ---- keys ---------------------------------------------------------------------------------- */

/* At the end of its bucket; true: it is the only one. */
static bool join_bucket(pl_leases_file *file, pl_lease *lease) {
  pl_lease_bucket *bucket = &file->buckets[lease->bucket % PL_LEASE_BUCKETS];
  uint16_t index = (uint16_t)index_of(file, lease);
  bool is_first = !bucket->is_used;
  lease->next = index;
  if (is_first) bucket->head = index;
  else file->leases[bucket->tail].next = index;
  bucket->tail = index;
  bucket->is_used = true;
  return is_first;
}

/* The head is done; true: another became ready. */
static bool leave_bucket(pl_leases_file *file, pl_lease *lease) {
  pl_lease_bucket *bucket = &file->buckets[lease->bucket % PL_LEASE_BUCKETS];
  if (lease->next == index_of(file, lease)) {
    bucket->is_used = false;
    return false;
  }
  pl_lease *next = &file->leases[lease->next];
  bucket->head = lease->next;
  make_ready(file, next);
  return true;
}

/* ---- the ends of the ring ------------------------------------------------------------------ */

static void mark_start(pl_leases_file *file) {
  int64_t start = file->first < file->last ? lease_at(file, file->first)->offset
                                           : file->next_offset;
  pl_leases_mark *mark = &file->head.marks[++file->head.mark % 2];
  mark->start = start;
  mark->check = pl_leases_mark_check(start, file->head.incarnation);
}

static void pass_done(pl_leases_file *file) {
  uint64_t first = file->first;
  while (file->first < file->last && lease_at(file, file->first)->state == PL_LEASE_DONE)
    file->first++;
  if (file->first != first) mark_start(file);
}

/* A new one at the end, in a state that is still to be entered. */
static pl_lease *add(pl_leases_file *file, int64_t offset) {
  pl_lease *lease = lease_at(file, file->last);
  lease->state = PL_LEASE_NONE;
  lease->offset = offset;
  lease->deliveries = 0;
  lease->token = 0;
  lease->bucket = 0;
  lease->is_keyed = false;
  lease->next = (uint16_t)index_of(file, lease);
  return lease;
}

/* It exists from here on. Who dies between the two leaves an offset that the repair puts right. */
static void count_in(pl_leases_file *file, int64_t next_offset) {
  PL_POINT("lease-before-count");
  file->last++;
  PL_POINT("lease-counted");
  file->next_offset = next_offset;
}

static bool has_room(const pl_leases_file *file) { return file->last - file->first < PL_LEASES; }

/* ---- after a death inside ------------------------------------------------------------------ */

/* States, offsets and the ring's two ends are the truth. */
void pl_leases_rebuild(pl_leases_file *file) {
  memset(&file->ready, 0, sizeof file->ready);
  memset(&file->held, 0, sizeof file->held);
  memset(&file->delayed, 0, sizeof file->delayed);
  memset(file->buckets, 0, sizeof file->buckets);
  file->expiry_ms = file->due_ms = 0; /* looked at soon */
  for (uint64_t number = file->first; number < file->last; number++) {
    pl_lease *lease = lease_at(file, number);
    uint32_t index = index_of(file, lease);
    if (lease->state == PL_LEASE_DONE) continue;
    bool is_first = !file->head.is_ordered || !lease->is_keyed || join_bucket(file, lease);
    if (lease->state == PL_LEASE_HELD) set_add(&file->held, index);
    else if (lease->state == PL_LEASE_DELAYED) set_add(&file->delayed, index);
    else if (is_first) make_ready(file, lease);
    else enter_state(lease, PL_LEASE_BEHIND);
    if (lease->offset >= file->next_offset) file->next_offset = lease->offset + 1;
  }
  pass_done(file);
}

static pl_status lock(pl_leases *self, int wait_ms) {
  pl_slot *slot = &self->file->lock;
  pl_lock_result result = pl_slot_try(slot);
  if (result == PL_LOCK_BUSY) result = pl_slot_wait(slot, wait_ms);
  if (result == PL_LOCK_BUSY) return PL_BUSY;
  PL_POINT("lease-locked");
  if (result == PL_LOCKED_DEAD) pl_leases_rebuild(self->file);
  return PL_OK;
}

static void unlock(pl_leases *self) {
  PL_POINT("lease-before-unlock");
  pl_slot_release(&self->file->lock);
}

static void tell(pl_leases *self) {
  pl_word_step(&self->file->changes);
  if (self->log->bells) pl_bells_ring_if_any(self->log->bells, &self->log->page->bells);
}

/* ---- leases that ended by themselves ------------------------------------------------------- */

typedef bool (*is_over)(const pl_leases *self, const pl_lease *lease, int64_t argument);

static bool is_orphan(const pl_leases *self, const pl_lease *lease, int64_t unused) {
  (void)unused;
  return lease->holder >= PL_PROCESSES_MAX ||
         !pl_process_is_alive(self->processes, lease->holder,
                              self->file->holders[lease->holder]);
}

static bool is_of_slot(const pl_leases *self, const pl_lease *lease, int64_t slot) {
  (void)self;
  return lease->holder == slot;
}

static bool is_expired(const pl_leases *self, const pl_lease *lease, int64_t now_ms) {
  (void)self;
  return lease->until_ms <= now_ms;
}

static int64_t take_back(pl_leases *self, is_over over, int64_t argument) {
  pl_leases_file *file = self->file;
  int64_t count = 0, earliest = INT64_MAX;
  for (int32_t i = set_next(&file->held, 0); i >= 0;
       i = i + 1 < PL_LEASES ? set_next(&file->held, (uint32_t)i + 1) : -1) {
    pl_lease *lease = &file->leases[i];
    if (over(self, lease, argument)) {
      leave_held(file, lease);
      make_ready(file, lease);
      count++;
    } else if (lease->until_ms < earliest) {
      earliest = lease->until_ms;
    }
  }
  file->expiry_ms = earliest;
  return count;
}

static void ripen(pl_leases_file *file, int64_t wall_ms) {
  int64_t earliest = INT64_MAX;
  for (int32_t i = set_next(&file->delayed, 0); i >= 0;
       i = i + 1 < PL_LEASES ? set_next(&file->delayed, (uint32_t)i + 1) : -1) {
    pl_lease *lease = &file->leases[i];
    if (lease->until_ms <= wall_ms) {
      set_remove(&file->delayed, (uint32_t)i);
      make_ready(file, lease);
    } else if (lease->until_ms < earliest) {
      earliest = lease->until_ms;
    }
  }
  file->due_ms = earliest;
}

static void look_at_the_clock(pl_leases *self, int64_t now_ms) {
  pl_leases_file *file = self->file;
  uint64_t deaths = atomic_load(&self->processes->file->deaths);
  if (deaths != file->deaths) {
    file->counts.orphaned += take_back(self, is_orphan, 0);
    file->deaths = deaths;
  }
  if (file->held.count && now_ms >= file->expiry_ms)
    file->counts.expired += take_back(self, is_expired, now_ms);
  if (file->delayed.count) {
    int64_t wall_ms = pl_clock_ms();
    if (wall_ms >= file->due_ms) ripen(file, wall_ms);
  }
}

/* True: another became ready, or there is room again. */
static bool finish(pl_leases_file *file, pl_lease *lease) {
  bool was_full = !has_room(file);
  set_remove(&file->held, index_of(file, lease));
  enter_state(lease, PL_LEASE_DONE);
  bool has_next = file->head.is_ordered && lease->is_keyed && leave_bucket(file, lease);
  pass_done(file);
  return has_next || (was_full && has_room(file));
}

/* ---- take ---------------------------------------------------------------------------------- */

/* The clock is up to a kernel tick late. No lock is over sooner than it was said to be. */
enum { LATE_MS = 10 };

static int64_t end_of_lock(int64_t now_ms, int64_t lock_ms) { return now_ms + lock_ms + LATE_MS; }

static void grant(pl_leases *self, pl_lease *lease, int64_t until_ms, pl_grant *out) {
  pl_leases_file *file = self->file;
  lease->until_ms = until_ms;
  lease->token = ++file->token;
  lease->holder = (uint16_t)self->processes->slot;
  if (lease->deliveries < UINT16_MAX) lease->deliveries++;
  enter_state(lease, PL_LEASE_HELD);
  set_add(&file->held, index_of(file, lease));
  *out = (pl_grant){lease->offset, index_of(file, lease), lease->token, lease->deliveries, 0};
}

/* The ring is full, and its first waits for its time: that is for its taker to remember. */
static bool displace(pl_leases *self, int64_t until_ms, pl_grant *out) {
  pl_leases_file *file = self->file;
  pl_lease *lease = lease_at(file, file->first);
  if (!self->displaces || file->head.is_ordered || lease->state != PL_LEASE_DELAYED) return false;
  int64_t due_ms = lease->until_ms;
  set_remove(&file->delayed, index_of(file, lease));
  grant(self, lease, until_ms, out);
  out->deliveries = --lease->deliveries;
  out->due_ms = due_ms;
  return true;
}

pl_status pl_leases_take(pl_leases *self, int64_t count, int64_t lock_ms, int wait_ms,
                        pl_grant *grants, int64_t *taken, uint64_t *changes) {
  pl_leases_file *file = self->file;
  int64_t now_ms = pl_monotonic_ms(), until_ms = end_of_lock(now_ms, lock_ms), n = 0;
  int slot = self->processes->slot;
  *changes = atomic_load(&file->changes);
  *taken = 0;
  if (slot < 0) return pl_fail(PL_ERR_CLOSED, self->shared.path, "the broker is closed");
  int64_t start = atomic_load(&self->log->page->log_start), end = pl_log_readable(self->log);
  PL_TRY(lock(self, wait_ms));
  if (file->holders[slot] != self->processes->nonce) { /* what its last process had is nobody's */
    file->counts.orphaned += take_back(self, is_of_slot, slot);
    file->holders[slot] = self->processes->nonce;
  }
  look_at_the_clock(self, now_ms);
  if (file->next_offset < start) {
    file->next_offset = start;
    mark_start(file);
  }
  while (n < count) {
    int32_t oldest = set_oldest(&file->ready, file->first);
    if (oldest >= 0) {
      pl_lease *lease = &file->leases[oldest];
      set_remove(&file->ready, (uint32_t)oldest);
      if (lease->offset < start) finish(file, lease); /* deleted meanwhile */
      else grant(self, lease, until_ms, &grants[n++]);
    } else if (!file->head.is_ordered && file->next_offset < end && has_room(file)) {
      pl_lease *lease = add(file, file->next_offset);
      grant(self, lease, until_ms, &grants[n++]);
      count_in(file, file->next_offset + 1);
    } else if (!has_room(file) && file->next_offset < end &&
               displace(self, until_ms, &grants[n])) {
      n++;
    } else {
      break;
    }
  }
  if (n && until_ms < file->expiry_ms) file->expiry_ms = until_ms;
  file->counts.taken += n;
  unlock(self);
  *taken = n;
  return PL_OK;
}

pl_status pl_leases_admit(pl_leases *self, int64_t next, const int64_t *offsets,
                         const int32_t *buckets, int64_t count, int wait_ms, int64_t *admitted) {
  pl_leases_file *file = self->file;
  int64_t i = 0;
  PL_TRY(lock(self, wait_ms));
  pl_status status = file->next_offset == next ? PL_OK : PL_END;
  for (; status == PL_OK && i < count; i++) {
    if (!has_room(file)) {
      status = PL_END;
      break;
    }
    pl_lease *lease = add(file, offsets[i]);
    lease->is_keyed = buckets[i] >= 0;
    lease->bucket = lease->is_keyed ? (uint16_t)(buckets[i] % PL_LEASE_BUCKETS) : 0;
    if (!lease->is_keyed || join_bucket(file, lease)) make_ready(file, lease);
    else enter_state(lease, PL_LEASE_BEHIND);
    count_in(file, offsets[i] + 1);
  }
  unlock(self);
  *admitted = i;
  return status;
}

/* ---- settle -------------------------------------------------------------------------------- */

static pl_lease *held_by(pl_leases *self, uint32_t index, uint32_t token) {
  pl_lease *lease = &self->file->leases[index % PL_LEASES];
  return lease->state == PL_LEASE_HELD && lease->token == token ? lease : NULL;
}

static bool give_back(pl_leases_file *file, pl_lease *lease, int64_t ms) {
  leave_held(file, lease);
  if (ms <= 0) {
    make_ready(file, lease);
    return true;
  }
  lease->until_ms = pl_clock_ms() + ms;
  enter_state(lease, PL_LEASE_DELAYED);
  set_add(&file->delayed, index_of(file, lease));
  if (lease->until_ms < file->due_ms || file->delayed.count == 1) file->due_ms = lease->until_ms;
  return true; /* who waits is to look at the time anew */
}

pl_status pl_leases_settle(pl_leases *self, uint32_t index, uint32_t token, pl_settlement how,
                          int64_t ms, int wait_ms) {
  pl_leases_file *file = self->file;
  PL_TRY(lock(self, wait_ms));
  pl_lease *lease = held_by(self, index, token);
  bool tells = false;
  if (lease) switch (how) {
      case PL_SETTLE_REJECT: file->counts.rejected++; /* fall through */
      case PL_SETTLE_DONE:
        file->counts.done++;
        tells = finish(file, lease);
        break;
      case PL_SETTLE_RETURN:
        if (lease->deliveries) lease->deliveries--; /* fall through */
      case PL_SETTLE_GIVE_BACK:
        file->counts.given_back++;
        tells = give_back(file, lease, ms);
        break;
      case PL_SETTLE_RENEW:
        lease->until_ms = end_of_lock(pl_monotonic_ms(), ms);
        if (lease->until_ms < file->expiry_ms) file->expiry_ms = lease->until_ms;
        break;
    }
  unlock(self);
  if (tells) tell(self);
  return lease ? PL_OK : PL_END;
}

pl_status pl_leases_peek(pl_leases *self, uint32_t index, uint32_t token) {
  const pl_lease *lease = &self->file->leases[index % PL_LEASES];
  return lease->state == PL_LEASE_HELD && lease->token == token ? PL_OK : PL_END;
}

pl_status pl_leases_skip(pl_leases *self, uint32_t index, uint32_t token, int64_t next,
                        int wait_ms) {
  pl_leases_file *file = self->file;
  PL_TRY(lock(self, wait_ms));
  pl_lease *lease = held_by(self, index, token);
  bool tells = lease && finish(file, lease);
  if (file->next_offset < next) {
    file->next_offset = next;
    mark_start(file);
  }
  unlock(self);
  if (tells) tell(self);
  return lease ? PL_OK : PL_END;
}

/* ---- waiting ------------------------------------------------------------------------------- */

/* Plain loads of what others write under the lock: a hint, which a take makes good. */
int64_t pl_leases_next_look(const pl_leases *self) {
  const pl_leases_file *file = self->file;
  int64_t look_ms = INT64_MAX, now_ms = pl_monotonic_ms();
  if (file->held.count) look_ms = file->expiry_ms;
  if (file->delayed.count) {
    int64_t left_ms = file->due_ms - pl_clock_ms();
    if (now_ms + left_ms < look_ms) look_ms = now_ms + left_ms;
  }
  return look_ms;
}

/* A listener that is stopped hears nothing: the others look by themselves. */
enum { LISTENER_SLICE_MS = 200 };

pl_status pl_leases_listen(pl_leases *self, uint64_t changes, const _Atomic uint64_t *word,
                           uint64_t seen, int wait_ms) {
  pl_leases_file *file = self->file;
  uint64_t deaths = file->deaths;
  pl_lock_result result =
      pl_lock_wait(&file->listen, wait_ms < LISTENER_SLICE_MS ? wait_ms : LISTENER_SLICE_MS);
  if (result == PL_LOCK_BUSY) return PL_BUSY;
  if (result == PL_LOCK_BROKEN)
    return pl_fail(PL_ERR_IO, self->shared.path, "the listeners' lock is unusable; open it anew");
  if (result == PL_LOCKED_DEAD) pl_lock_adopt(&file->listen);
  PL_POINT("lease-listening");
  if (file->ready.count) return PL_OK;
  int64_t next = file->next_offset, left_ms = pl_leases_next_look(self) - pl_monotonic_ms();
  if (left_ms < wait_ms) wait_ms = left_ms < 0 ? 0 : (int)left_ms;
  if (file->last - file->first >= PL_LEASES) next = INT64_MAX - 1; /* full: no append helps */
  pl_watched watched[] = {
      {&file->changes, changes}, {&self->processes->file->deaths, deaths}, {word, seen}};
  _Atomic uint64_t *maps[1];
  pl_wait wait = {&self->log, &next, 1, watched, 3, self->processes->bells,
                  self->processes->bells_inode, maps};
  int found;
  pl_status status = pl_wait_any(&wait, wait_ms, &found);
  if (status == PL_BUSY && left_ms <= wait_ms) status = PL_OK; /* something is due */
  if (status != PL_OK) pl_leases_unlisten(self);
  return status;
}

void pl_leases_unlisten(pl_leases *self) { pl_lock_release(&self->file->listen); }

pl_status pl_leases_get_stats(pl_leases *self, int wait_ms, pl_leases_stats *out) {
  pl_leases_file *file = self->file;
  PL_TRY(lock(self, wait_ms));
  look_at_the_clock(self, pl_monotonic_ms());
  int64_t in_ring = (int64_t)(file->last - file->first), done = 0, behind = 0;
  for (uint64_t number = file->first; number < file->last; number++) {
    pl_lease_state state = lease_at(file, number)->state;
    done += state == PL_LEASE_DONE;
    behind += state == PL_LEASE_BEHIND;
  }
  *out = (pl_leases_stats){
      .start = in_ring ? lease_at(file, file->first)->offset : file->next_offset,
      .next = file->next_offset,
      .ready = file->ready.count,
      .held = file->held.count,
      .delayed = file->delayed.count,
      .done = done,
      .behind = behind,
      .counts = file->counts,
  };
  unlock(self);
  return PL_OK;
}
