/* log.meta: what a log knows about itself, one small text file, replaced atomically.
 *
 *     pylog-log 1
 *     incarnation 1f3a...            lines "name value", in this order
 *     ...
 *     epoch 0 0                      leader epoch and its first offset, one line each
 *     crc32c 89abcdef                of all bytes before this line
 *
 * The same epochs are also written as Kafka's leader-epoch-checkpoint, for Kafka's tools; this
 * file is the truth. docs/format.md lists the lines.
 */
#ifndef PL_META_H
#define PL_META_H

#include <stdbool.h>
#include <stdint.h>

#include "pl_error.h"

#define PL_META_NAME "log.meta"
#define PL_EPOCHS_NAME "leader-epoch-checkpoint"
#define PL_FORMAT_VERSION 1

enum { PL_EPOCHS_MAX = 1024 };

typedef enum pl_durability {
  PL_DURABILITY_OS,
  PL_DURABILITY_INTERVAL,
  PL_DURABILITY_FSYNC,
} pl_durability;

/* The stored properties of a log; conflicting ones at open are an error. */
typedef struct pl_options {
  int64_t durability; /* pl_durability */
  int64_t segment_bytes, max_message_bytes;
  int64_t append_time; /* 1: timestamps are the append's */
  int64_t index_interval_bytes;
  int64_t flush_interval_ms;
} pl_options;

typedef struct pl_epoch {
  int64_t epoch, start_offset;
} pl_epoch;

typedef struct pl_meta {
  uint64_t features; /* bits that an older reader must know to read; none yet */
  uint64_t incarnation;
  pl_options options;
  int64_t log_start;
  int64_t clean_end;     /* where the last closer left the end; -1: not closed */
  uint8_t clean_boot[16]; /* the boot it was closed in */
  int64_t durable_end;   /* durable when this was written */
  int64_t reserved_end;
  int64_t epoch_count;
  pl_epoch epochs[PL_EPOCHS_MAX];
} pl_meta;

/* PL_NOT_READY: there is none. PL_ERR_CORRUPT, PL_ERR_FORMAT: it is damaged, or newer than us. */
pl_status pl_meta_load(const char *directory, pl_meta *meta);
/* Writes both files. With `sync`, log.meta is durable on return. */
pl_status pl_meta_store(const char *directory, const pl_meta *meta, bool sync);

/* May a batch with these offsets, first and last, bear this epoch? Before the oldest epoch that
 * is listed any older one will do: the list has a limit. */
bool pl_meta_allows(const pl_meta *meta, int64_t epoch, int64_t first_offset, int64_t last_offset);
/* Does one start there? Only a recovery leaves a gap in the offsets, and it starts one behind. */
bool pl_meta_starts_epoch(const pl_meta *meta, int64_t offset);
/* Closed by its last user, in this boot. */
bool pl_meta_is_clean(const pl_meta *meta);
/* Starts a new epoch at `offset`; drops epochs that would be empty. */
void pl_meta_add_epoch(pl_meta *meta, int64_t offset);

#endif
