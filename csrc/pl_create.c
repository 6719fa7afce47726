/* A new log: its options, its first segment and its log.meta.
 *
 * Until log.meta is there the directory is no log; a creation that was killed is done again.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pl_fault.h"
#include "pl_log.h"

static const pl_options defaults = {PL_DURABILITY_OS, 1 << 30, 1048588, 0, 4096, 100};

pl_status pl_options_check(const char *directory, const pl_options *o) {
  if (o->durability < 0 || o->durability > PL_DURABILITY_FSYNC)
    return pl_fail(PL_ERR_CONFIG, directory, "durability must be os, interval or fsync");
  if (o->segment_bytes < 4096 || o->segment_bytes > (1 << 30))
    return pl_fail(PL_ERR_CONFIG, directory,
                   "segment_bytes is %" PRId64 "; it must be from 4,096 to 1,073,741,824",
                   o->segment_bytes);
  if (o->max_message_bytes < 128 || o->max_message_bytes > (1 << 30))
    return pl_fail(PL_ERR_CONFIG, directory,
                   "max_message_bytes is %" PRId64 "; it must be from 128 to 1,073,741,824",
                   o->max_message_bytes);
  if (o->index_interval_bytes < 0 || o->index_interval_bytes > (1 << 30))
    return pl_fail(PL_ERR_CONFIG, directory, "index_interval_bytes must be from 0 to 2^30");
  if (o->flush_interval_ms < 1 || o->flush_interval_ms > 86400000)
    return pl_fail(PL_ERR_CONFIG, directory, "flush_interval_ms must be from 1 to 86,400,000");
  return PL_OK;
}

pl_status pl_create_segment(pl_log *log, int64_t base) {
  char name[32], path[PL_PATH_MAX];
  int fd;
  pl_segment_name(base, ".log", name);
  PL_TRY(pl_file_path(log->directory, name, path));
  PL_TRY(pl_file_open(path, O_RDWR | O_CREAT, &fd));
  pl_file_close(fd);
  return PL_OK;
}

/* No segment, or the empty one of a creation that was killed before its log.meta. */
static pl_status is_new(const pl_log *log, bool *answer) {
  char name[32], path[PL_PATH_MAX];
  int64_t *bases, count;
  struct stat info;
  PL_TRY(pl_list_segments(log->directory, &bases, &count));
  bool is_first = count == 1 && bases[0] == 0;
  free(bases);
  pl_segment_name(0, ".log", name);
  PL_TRY(pl_file_path(log->directory, name, path));
  *answer = count == 0 || (is_first && stat(path, &info) == 0 && info.st_size == 0);
  return PL_OK;
}

pl_status pl_fail_no_meta(const pl_log *log) {
  bool directory_is_new;
  PL_TRY(is_new(log, &directory_is_new));
  if (directory_is_new)
    return pl_fail(PL_ERR_FORMAT, log->directory,
                   "there is no log here: no log.meta, and no records; mode=\"a\" makes one");
  return pl_fail(PL_ERR_FORMAT, log->directory,
                 "log.meta is missing, though segments are there: restore it from a copy (Kafka's "
                 "own logs have none); `pylog check DIR` and `pylog dump --records DIR` read the "
                 "segments without it");
}

pl_status pl_create(pl_log *log, const pl_options *wanted) {
  bool directory_is_new;
  PL_TRY(is_new(log, &directory_is_new));
  if (!directory_is_new) return pl_fail_no_meta(log);
  pl_meta *meta = &log->meta;
  memset(meta, 0, sizeof *meta);
  const int64_t *want = (const int64_t *)wanted, *fallback = (const int64_t *)&defaults;
  int64_t *have = (int64_t *)&meta->options;
  for (size_t i = 0; i < sizeof(pl_options) / sizeof(int64_t); i++)
    have[i] = want[i] == PL_OPTION_UNSET ? fallback[i] : want[i];
  PL_TRY(pl_options_check(log->directory, &meta->options));
  PL_TRY(pl_file_check_filesystem(log->directory,
                                  meta->options.durability == PL_DURABILITY_FSYNC));
  meta->incarnation = pl_random_u64();
  meta->reserved_end = PL_RESERVE_OFFSETS;
  meta->clean_end = 0;
  pl_boot_id(meta->clean_boot);
  meta->epoch_count = 1;
  PL_TRY(pl_create_segment(log, 0));
  PL_POINT("create-segment-made");
  return pl_meta_store(log->directory, meta, true);
}
