/* Reading and writing log.meta and leader-epoch-checkpoint. */
#include "pl_meta.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pl_crc32c.h"
#include "pl_file.h"

enum { TEXT_MAX = 65536 };

/* One table for both directions: name, where, and the least legal value. */
typedef struct field {
  const char *name;
  size_t at;
  int64_t least;
} field;

static const field fields[] = {
    {"log_start", offsetof(pl_meta, log_start), 0},
    {"clean_end", offsetof(pl_meta, clean_end), -1},
    {"durable_end", offsetof(pl_meta, durable_end), 0},
    {"reserved_end", offsetof(pl_meta, reserved_end), 0},
    {"durability", offsetof(pl_meta, options.durability), 0},
    {"segment_bytes", offsetof(pl_meta, options.segment_bytes), 1},
    {"max_message_bytes", offsetof(pl_meta, options.max_message_bytes), 1},
    {"append_time", offsetof(pl_meta, options.append_time), 0},
    {"index_interval_bytes", offsetof(pl_meta, options.index_interval_bytes), 0},
    {"flush_interval_ms", offsetof(pl_meta, options.flush_interval_ms), 1},
};
enum {
  FIELD_COUNT = sizeof fields / sizeof *fields,
  HEX_LINES = 3,                          /* features, incarnation, clean_boot */
  LINES_MIN = HEX_LINES + FIELD_COUNT + 1 /* and an epoch */
};

static int64_t *at(const pl_meta *meta, const field *f) {
  return (int64_t *)(void *)((char *)(uintptr_t)meta + f->at);
}

static int print_hex16(char *out, const uint8_t bytes[16]) {
  for (int i = 0; i < 16; i++) snprintf(out + 2 * i, 3, "%02x", bytes[i]);
  return 32;
}

/* Exactly `digits` hexadecimal digits (0: as many as there are, up to 16) and nothing else. */
static bool parse_hex(const char *text, size_t digits, uint64_t *value) {
  size_t length = strspn(text, "0123456789abcdef");
  if (length == 0 || length > 16 || text[length] || (digits && length != digits)) return false;
  *value = strtoull(text, NULL, 16);
  return true;
}

static bool parse_hex16(const char *text, uint8_t bytes[16]) {
  if (strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32) return false;
  for (int i = 0; i < 16; i++) {
    const char digits[3] = {text[2 * i], text[2 * i + 1], 0};
    bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
  }
  return true;
}

/* A decimal number; *end is the character after it. */
static bool parse_number(const char *text, int64_t *value, char **end) {
  if ((*text < '0' || *text > '9') && (*text != '-' || text[1] != '1')) return false;
  errno = 0;
  *value = strtoll(text, end, 10);
  return errno == 0;
}

static size_t format_meta(const pl_meta *meta, char *text) {
  char boot[33];
  print_hex16(boot, meta->clean_boot);
  int n = snprintf(text, TEXT_MAX,
                   "pylog-log %d\nfeatures %" PRIx64 "\nincarnation %016" PRIx64
                   "\nclean_boot %s\n",
                   PL_FORMAT_VERSION, meta->features, meta->incarnation, boot);
  for (int i = 0; i < FIELD_COUNT; i++)
    n += snprintf(text + n, (size_t)(TEXT_MAX - n), "%s %" PRId64 "\n", fields[i].name,
                  *at(meta, &fields[i]));
  for (int64_t i = 0; i < meta->epoch_count; i++)
    n += snprintf(text + n, (size_t)(TEXT_MAX - n), "epoch %" PRId64 " %" PRId64 "\n",
                  meta->epochs[i].epoch, meta->epochs[i].start_offset);
  n += snprintf(text + n, (size_t)(TEXT_MAX - n), "crc32c %08x\n", pl_crc32c(text, (size_t)n));
  return (size_t)n;
}

static size_t format_epochs(const pl_meta *meta, char *text) {
  int n = snprintf(text, TEXT_MAX, "0\n%" PRId64 "\n", meta->epoch_count);
  for (int64_t i = 0; i < meta->epoch_count; i++)
    n += snprintf(text + n, (size_t)(TEXT_MAX - n), "%" PRId64 " %" PRId64 "\n",
                  meta->epochs[i].epoch, meta->epochs[i].start_offset);
  return (size_t)n;
}

pl_status pl_meta_store(const char *directory, const pl_meta *meta, bool sync) {
  char *text = malloc(TEXT_MAX);
  if (!text) return pl_fail(PL_ERR_NO_MEMORY, directory, "out of memory");
  pl_status status =
      pl_file_replace(directory, PL_EPOCHS_NAME, text, format_epochs(meta, text), false);
  if (status == PL_OK)
    status = pl_file_replace(directory, PL_META_NAME, text, format_meta(meta, text), sync);
  free(text);
  return status;
}

/* What follows "name " on a line; NULL when it is another line. */
static const char *value_of(const char *line, const char *name) {
  size_t length = strlen(name);
  return strncmp(line, name, length) == 0 && line[length] == ' ' ? line + length + 1 : NULL;
}

static bool parse_epoch(pl_meta *meta, const char *text) {
  int64_t epoch, start;
  char *end;
  if (!parse_number(text, &epoch, &end) || *end != ' ' || !parse_number(end + 1, &start, &end) ||
      *end || meta->epoch_count >= PL_EPOCHS_MAX || epoch < 0 || epoch > INT32_MAX || start < 0)
    return false;
  const pl_epoch *last = meta->epochs + meta->epoch_count - 1;
  if (meta->epoch_count && (epoch <= last->epoch || start <= last->start_offset)) return false;
  meta->epochs[meta->epoch_count++] = (pl_epoch){epoch, start};
  return true;
}

/* The lines have one order, so none can be missing or come twice. */
static bool parse_line(pl_meta *meta, int number, const char *line) {
  bool is_field = number >= HEX_LINES && number < LINES_MIN - 1;
  const field *f = &fields[is_field ? number - HEX_LINES : 0];
  const char *name = number == 0   ? "features"
                     : number == 1 ? "incarnation"
                     : number == 2 ? "clean_boot"
                     : is_field    ? f->name
                                   : "epoch";
  const char *text = value_of(line, name);
  char *end;
  if (!text) return false;
  if (number == 0) return parse_hex(text, 0, &meta->features);
  if (number == 1) return parse_hex(text, 16, &meta->incarnation);
  if (number == 2) return parse_hex16(text, meta->clean_boot);
  if (!is_field) return parse_epoch(meta, text);
  return parse_number(text, at(meta, f), &end) && !*end && *at(meta, f) >= f->least;
}

static pl_status parse_meta(pl_meta *meta, const char *path, char *text, size_t size) {
  int version = 0;
  char crc[] = "crc32c 00000000\n", *last = NULL;
  text[size] = 0;
  if (sscanf(text, "pylog-log %d\n", &version) == 1 && version > PL_FORMAT_VERSION)
    return pl_fail(PL_ERR_FORMAT, path,
                   "the log has format version %d, this pylog knows up to %d; upgrade pylog",
                   version, PL_FORMAT_VERSION);
  for (char *p = text; (p = strstr(p, "\ncrc32c ")); p++) last = p + 1;
  if (last) snprintf(crc, sizeof crc, "crc32c %08x\n", pl_crc32c(text, (size_t)(last - text)));
  if (version < 1 || !last || last + strlen(crc) != text + size || strcmp(last, crc) != 0)
    return pl_fail_corrupt(path, 0, -1, -1,
                           "the file fails its checksum; restore it, or run `pylog check`");
  char *state = NULL;
  *last = 0;
  strtok_r(text, "\n", &state);
  int number = 0;
  for (char *line; (line = strtok_r(NULL, "\n", &state)); number++)
    if (!parse_line(meta, number, line))
      return pl_fail_corrupt(path, line - text, -1, -1,
                             "the line '%.60s' is not understood; run `pylog check`", line);
  if (meta->features)
    return pl_fail(PL_ERR_FORMAT, path,
                   "the log uses features (0x%" PRIx64 ") that this pylog lacks; upgrade pylog",
                   meta->features);
  if (number < LINES_MIN)
    return pl_fail_corrupt(path, 0, -1, -1, "lines are missing; restore it, or run `pylog check`");
  return PL_OK;
}

pl_status pl_meta_load(const char *directory, pl_meta *meta) {
  char path[PL_PATH_MAX];
  memset(meta, 0, sizeof *meta);
  PL_TRY(pl_file_path(directory, PL_META_NAME, path));
  char *text = malloc(TEXT_MAX + 1);
  if (!text) return pl_fail(PL_ERR_NO_MEMORY, path, "out of memory");
  size_t size;
  pl_status status = pl_file_read_small(path, text, TEXT_MAX, &size);
  if (status == PL_OK) status = parse_meta(meta, path, text, size);
  free(text);
  return status;
}

bool pl_meta_allows(const pl_meta *meta, int64_t epoch, int64_t first_offset, int64_t last_offset) {
  int64_t i = meta->epoch_count - 1, interval_end = INT64_MAX;
  while (i >= 0 && meta->epochs[i].start_offset > first_offset)
    interval_end = meta->epochs[i--].start_offset;
  if (last_offset >= interval_end) return false;
  return i >= 0 ? epoch == meta->epochs[i].epoch : epoch >= 0 && epoch < meta->epochs[0].epoch;
}

bool pl_meta_starts_epoch(const pl_meta *meta, int64_t offset) {
  for (int64_t i = 0; i < meta->epoch_count; i++)
    if (meta->epochs[i].start_offset == offset) return true;
  return false;
}

bool pl_meta_is_clean(const pl_meta *meta) {
  uint8_t boot[16];
  pl_boot_id(boot);
  return meta->clean_end >= 0 && memcmp(boot, meta->clean_boot, sizeof boot) == 0;
}

void pl_meta_add_epoch(pl_meta *meta, int64_t offset) {
  int64_t epoch = meta->epochs[meta->epoch_count - 1].epoch + 1;
  while (meta->epoch_count > 0 && meta->epochs[meta->epoch_count - 1].start_offset >= offset)
    meta->epoch_count--;
  if (meta->epoch_count == PL_EPOCHS_MAX) {
    /* Too many recoveries to list them all: what is older than the list is told apart no more. */
    memmove(meta->epochs, meta->epochs + 1, sizeof *meta->epochs * (PL_EPOCHS_MAX - 1));
    meta->epoch_count--;
  }
  meta->epochs[meta->epoch_count++] = (pl_epoch){epoch, offset};
}
