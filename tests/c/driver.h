/* What the C drivers share: records that describe themselves, witnesses of what was acknowledged,
 * and the reader that compares a log with its witnesses.
 *
 * A *life* is one writing process, from fork to death. Its records bear its number and a sequence
 * from 0 on; what it was told is in, it notes in a mapping that is outside the log and outlives
 * it. A whole read of the log then proves, life by life: nothing acknowledged is missing, nothing
 * stands there that was never sent, nothing twice, everything in order.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pl_cursor.h"

enum { LIVES_MAX = 4096, POINTS_MAX = 64, VALUE_MAX = 48 * 1024 };

typedef struct life {
  _Atomic uint64_t attempted;   /* records handed to an append that may have begun */
  _Atomic uint64_t acked;       /* records whose append (and flush, where promised) returned */
  _Atomic int64_t acked_offset; /* of the last of them */
} life;

typedef struct point {
  char name[32];
  uint32_t hits_before; /* in earlier runs */
  _Atomic uint32_t kills, tries;
  _Atomic bool is_passed; /* by a process of this run, so that one may die there */
} point;

/* Shared by all processes of a driver. */
typedef struct stage {
  _Atomic uint32_t lives;
  int point_count;
  point points[POINTS_MAX];
  life life[LIVES_MAX];
} stage;

extern stage *the_stage;

extern char the_context[160]; /* what die() says first, if anything */

/* Prints and ends the process with status 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Dies of a pl_status that is not PL_OK, with its details. */
void must(pl_status status, const char *what);

/* From `count` words: name, hits before, name, ... */
stage *stage_new(char *const *points, int count);
int stage_point(const char *name); /* -1: unknown */

uint32_t random_below(uint32_t limit);
void random_seed(uint64_t seed);

/* Record `sequence` of a life: all of it follows from the two. */
int64_t value_size(uint32_t life_number, uint64_t sequence);
pl_slice value_make(uint8_t *buffer, uint32_t life_number, uint64_t sequence);
pl_slice key_of(uint64_t sequence);
int64_t timestamp_of(uint64_t sequence);

typedef struct verdict {
  int64_t records, start, end;
  uint64_t crc_bytes;
} verdict;

/* Reads all of the log, its CRC marks dropped, and dies of the first thing that is wrong. With
 * `may_be_cut`, a life may have lost its beginning to delete_before. */
verdict verify_log(pl_log *log, bool may_be_cut);
/* The same, but what the core answered when it could not read is returned. */
pl_status read_log(pl_log *log, bool may_be_cut, verdict *v);

/* All options left to what is stored or default. */
pl_options options_unset(void);
void remove_tree(const char *directory);

#endif
