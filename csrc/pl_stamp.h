/* The record that checks itself: 48 bytes that say who sent it and which one it is, then filler.
 *
 * docs/format.md draws it. The stamp opens the value; a value that is too short for it (or null)
 * leaves it to the key, which is then the stamp and nothing else. Its CRC covers the rest of the
 * stamp and all of the value, so a record that came through whole proves itself, whatever codec,
 * file, process or other client it came through.
 *
 * Source: the headers of Redpanda's kgo-verifier, which puts the sequence into each record.
 */
#ifndef PL_STAMP_H
#define PL_STAMP_H

#include "pl_bytes.h"

enum {
  PL_STAMP_MAGIC_AT = 0,
  PL_STAMP_CRC = PL_STAMP_MAGIC_AT + 4,
  PL_STAMP_RUN = PL_STAMP_CRC + 4,
  PL_STAMP_PRODUCER = PL_STAMP_RUN + 8,
  PL_STAMP_INCARNATION = PL_STAMP_PRODUCER + 4,
  PL_STAMP_FLAGS = PL_STAMP_INCARNATION + 2,
  PL_STAMP_SEQUENCE = PL_STAMP_FLAGS + 2,
  PL_STAMP_TRANSACTION = PL_STAMP_SEQUENCE + 8,
  PL_STAMP_INDEX = PL_STAMP_TRANSACTION + 4,
  PL_STAMP_COUNT = PL_STAMP_INDEX + 2,
  PL_STAMP_SENT = PL_STAMP_COUNT + 2,
  PL_STAMP_SIZE = PL_STAMP_SENT + 8,
};

#define PL_STAMP_MAGIC 0x706c5354u /* "plST" */

enum {
  PL_STAMP_WILL_ABORT = 1, /* its transaction is planned to abort: who reads it read too much */
  PL_STAMP_LAST = 2,       /* the last one of its transaction */
  PL_STAMP_TOMBSTONE = 4,  /* its value is null */
};

typedef struct pl_stamp {
  uint64_t run;      /* drawn once a run: no record of another one may turn up */
  uint64_t sequence; /* from 0, per producer and partition; goes on after the producer's death */
  uint64_t sent_ns;  /* monotonic clock of this boot */
  uint32_t producer, transaction;
  uint16_t incarnation; /* how often the producer was started anew */
  uint16_t flags, index, count; /* place in the transaction, and how many it has */
} pl_stamp;

typedef enum pl_stamp_found { PL_STAMP_GOOD, PL_STAMP_ABSENT, PL_STAMP_BAD } pl_stamp_found;

/* Writes value[0, size): stamp and filler, of which all follows from producer and sequence. A
 * value below PL_STAMP_SIZE is all filler, and the stamp goes to key[0, PL_STAMP_SIZE).
 * size -1: null. Cost: one CRC, some 10 ns for 100 bytes. */
void pl_stamp_write(const pl_stamp *stamp, uint8_t *key, uint8_t *value, int64_t size);

/* Finds the stamp of a record and checks it against the bytes. *crc is the one in the stamp. */
pl_stamp_found pl_stamp_read(pl_slice key, pl_slice value, pl_stamp *stamp, uint32_t *crc);

#endif
