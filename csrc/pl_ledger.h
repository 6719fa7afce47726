/* The ledger of one producer or reader: what it did, in a mapping that outlives its SIGKILL.
 *
 * A producer says how far it is *before* a call (`sent`) and *after* it (`settled`), so a death in
 * between leaves records that may be in the log or not: indeterminate, never falsely acknowledged.
 * Everything below `settled` was acknowledged, but for the noted spans: those of calls that raised
 * or that a death cut off. A reader keeps in `next` the offset that it wants to see next.
 *
 * The file grows with its spans, under a mapping of all that it may become: no pointer into it ever
 * moves. A run has one or two spans a second where it is killed all the time; for what fails far
 * more often, a conditional append that came second, there is `pl_ledger_withdraw`.
 *
 * One writer at a time (the living incarnation), any number of readers; each word is stored with
 * release order. The file does not outlive a reboot usefully: it is never synced.
 */
#ifndef PL_LEDGER_H
#define PL_LEDGER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pl_error.h"

enum { PL_LEDGER_BYTES = 16 << 10, PL_LEDGER_BYTES_MAX = 32 << 20 };

typedef enum pl_span_kind {
  PL_SPAN_FAILED = 1,        /* the call raised, and promises that nothing was appended */
  PL_SPAN_INDETERMINATE = 2, /* the call raised without such a promise, or its caller died */
} pl_span_kind;

typedef struct pl_span {
  uint64_t start, end; /* sequences [start, end) */
  uint64_t kind;
} pl_span;

typedef struct pl_ledger_file {
  char magic[8];
  uint32_t layout, producer;
  uint64_t run;
  _Atomic uint32_t incarnation, pid;
  _Alignas(64) _Atomic uint64_t sent;
  _Alignas(64) _Atomic uint64_t settled;
  _Alignas(64) _Atomic uint64_t next;
  _Atomic uint64_t records, rounds; /* a reader's: records seen, whole turns (polls, seeks) */
  _Alignas(64) _Atomic uint32_t span_count;
  pl_span spans[];
} pl_ledger_file;

enum {
  PL_LEDGER_SPANS = (PL_LEDGER_BYTES - offsetof(pl_ledger_file, spans)) / sizeof(pl_span),
  PL_LEDGER_SPANS_MAX = (PL_LEDGER_BYTES_MAX - offsetof(pl_ledger_file, spans)) / sizeof(pl_span),
};

typedef struct pl_ledger {
  pl_ledger_file *file; /* PL_LEDGER_BYTES_MAX mapped; what the file does not have is not touched */
  uint64_t size;        /* of the file, as its writer made it or its reader found it */
  char path[];
} pl_ledger;

/* Makes or opens the ledger at `path` and maps it. `producer` and `run` must be those of a ledger
 * that is there (PL_ERR_CONFIG); with `run` 0 it is opened as it is, to be read, and must exist.
 * PL_ERR_FORMAT, and nothing is written, for a file that is no ledger or none that can be. */
pl_status pl_ledger_open(const char *path, uint64_t run, uint32_t producer, pl_ledger **out);
void pl_ledger_close(pl_ledger *self);

/* Begins a new incarnation: what the dead one had in flight becomes a span. Returns its number.
 * Fails as pl_ledger_doubt. */
pl_status pl_ledger_enter(pl_ledger *self, uint32_t *incarnation);

/* Before a call with `count` records; the first of their sequences. */
static inline uint64_t pl_ledger_begin(pl_ledger *self, uint64_t count) {
  uint64_t first = atomic_load_explicit(&self->file->sent, memory_order_relaxed);
  atomic_store_explicit(&self->file->sent, first + count, memory_order_release);
  return first;
}

/* After a call that returned; or that raised with its first `count` records in, for those alone. */
static inline void pl_ledger_acknowledge(pl_ledger *self, uint64_t count) {
  uint64_t sent = atomic_load_explicit(&self->file->sent, memory_order_relaxed);
  uint64_t settled = atomic_load_explicit(&self->file->settled, memory_order_relaxed);
  if (count > sent - settled) count = sent - settled;
  atomic_store_explicit(&self->file->settled, settled + count, memory_order_release);
}

/* After a call that raised. PL_ERR_LIMIT when PL_LEDGER_SPANS_MAX spans are used; PL_ERR_DISK_FULL
 * and the like when the file cannot grow, which is tried long before it must. */
pl_status pl_ledger_doubt(pl_ledger *self, pl_span_kind kind);

/* After a call that raised and of which nothing is in the log, as its caller has *seen*: it was
 * never sent, and its sequences are those of the next call. */
static inline void pl_ledger_withdraw(pl_ledger *self) {
  uint64_t settled = atomic_load_explicit(&self->file->settled, memory_order_relaxed);
  atomic_store_explicit(&self->file->sent, settled, memory_order_release);
}

#endif
