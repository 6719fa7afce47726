/* The checker: one streaming pass over records that check themselves (pl_stamp.h).
 *
 * It is given batches, or decoded records, in the order of their offsets, and holds for each
 * producer the set of sequences it has seen, as intervals: one interval and 64 bytes a producer as
 * long as all is well, 32 bytes more for each hole. What is wrong becomes a finding: a counter for
 * each kind, and the first few with their places. What a *missing* record means, the ledgers
 * decide afterwards (pylog/stress/passage.py): the sets can be taken out.
 *
 * It decodes batches by itself and calls nothing of pl_batch.c: what has a mistake in it there
 * must not be hidden by the same mistake here. Nothing is trusted; every length is checked.
 * One thread at a time. Cost: 23 ns a record of 100 bytes in cache, half of it the two CRCs.
 */
#ifndef PL_CHECKER_H
#define PL_CHECKER_H

#include <stdatomic.h>

#include "pl_bytes.h"
#include "pl_error.h"

/* In the order of pylog/stress/anomalies.py. */
typedef enum pl_finding_kind {
  PL_FOUND_TORN_BATCH,      /* header, CRC or structure of a batch */
  PL_FOUND_CORRUPT_RECORD,  /* the batch's CRC is right and the record's is not */
  PL_FOUND_FOREIGN_RECORD,  /* a record without a stamp */
  PL_FOUND_OTHER_RUN,       /* stamped, but by another run */
  PL_FOUND_ZOMBIE,          /* of an incarnation that a later one has followed */
  PL_FOUND_DUPLICATE,
  PL_FOUND_REORDERED,
  PL_FOUND_GAP,             /* offsets jump within an epoch */
  PL_FOUND_BACKWARDS,       /* an offset that should have come before */
  PL_FOUND_STALE_EPOCH,     /* an epoch below an earlier one */
  PL_FOUND_INCONSISTENT,    /* other bytes than another reader (or an earlier look) saw here */
  PL_FOUND_KINDS,
} pl_finding_kind;

enum { PL_FINDINGS_KEPT = 16, PL_FOLD_RECORDS = 4096, PL_PRODUCERS_MAX = 1 << 20 };

typedef struct pl_finding {
  int64_t offset;      /* of the record or batch */
  int64_t expected;    /* offset, sequence or epoch that should have been there; -1: none */
  int64_t sequence;    /* -1: unknown */
  int64_t producer;    /* -1: unknown */
  uint32_t kind, incarnation;
} pl_finding;

/* Sequences [start, end), seen. At `offset` stands `start`, at `last_offset` the one before `end`:
 * whether records are missing in front of a cut or behind it. */
typedef struct pl_seen {
  uint64_t start, end;
  int64_t offset, last_offset;
} pl_seen;

typedef struct pl_checker pl_checker;

/* `run` 0: the first stamp's. `next_offset` -1: wherever the first record stands. */
pl_checker *pl_checker_new(uint64_t run, int64_t next_offset);
void pl_checker_free(pl_checker *self);

/* Compares what it sees with what others saw: one hash for each whole block of PL_FOLD_RECORDS
 * offsets, in zeroed memory that all share; it is to outlive the checker. Blocks go round in it:
 * looks at an offset are compared as long as they are less than PL_FOLD_RECORDS * count apart. */
void pl_checker_share(pl_checker *self, _Atomic uint64_t *folds, int64_t count);

/* After a seek: the next record may stand anywhere at or after `offset` (-1: anywhere). */
void pl_checker_seek(pl_checker *self, int64_t offset);

/* Takes one whole batch of `size` bytes. `records`: its decompressed records, or NULL. Records
 * below the next expected offset are passed over if `is_resumed`, as the first batch after a
 * pause has some that were checked before it. PL_ERR_NO_MEMORY, or PL_OK whatever it finds. */
pl_status pl_checker_take_batch(pl_checker *self, pl_slice batch, const pl_slice *records,
                                bool is_resumed);

/* Takes one record that somebody else decoded. */
pl_status pl_checker_take_record(pl_checker *self, int64_t offset, pl_slice key, pl_slice value);

typedef struct pl_checker_figures {
  int64_t next_offset; /* -1: nothing seen */
  int64_t records, batches, bytes, cuts; /* cuts: gaps that a new epoch explains */
  uint64_t run, last_sent_ns;
  int32_t epoch;
  uint32_t producers;
  uint64_t memory_bytes;
  int64_t found[PL_FOUND_KINDS];
} pl_checker_figures;
void pl_checker_ask(const pl_checker *self, pl_checker_figures *figures);

/* The kept findings of a kind; returns how many. */
int64_t pl_checker_findings(const pl_checker *self, pl_finding_kind kind, const pl_finding **out);
/* The sequences of a producer that were seen, rising; returns how many intervals. */
int64_t pl_checker_seen(const pl_checker *self, uint32_t id, const pl_seen **out);

#endif
