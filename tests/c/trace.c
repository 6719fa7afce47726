/* Tells which fault points of the core one operation after another passes.
 *
 *     trace DIRECTORY WORD...
 *
 * A word is an operation: append, append_many (two records, one batch), flush, delete_before (all
 * that may go), fill (appends until the next one has to roll), fill_batch (until it has to open a
 * batch). This process does it and prints the points, one line a word; of the two that fill it
 * prints nothing. With @POINT behind it, another process does it, has mapped and prepared what it
 * needs beforehand, prints nothing, and is killed at its first pass of the point; with @ alone it
 * ends after. The first word may be open, for the points of opening the log; with @POINT this
 * process is killed there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"
#include "pl_fault.h"
#include "pl_log.h"

enum { SEGMENT_BYTES = 65536, VALUE_BYTES = 2000 };

static const char *directory;
static const char *armed; /* where to die */
static bool is_printing;

void pl_fault_point(const char *name) {
  if (is_printing) printf(" %s", name);
  if (armed && strcmp(name, armed) == 0) kill(getpid(), SIGKILL);
}

/* In libc's place: no housekeeper, which would seal an idle batch between two of our words. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
  (void)thread, (void)attributes, (void)start, (void)argument;
  return EAGAIN;
}

static const pl_slice null = {NULL, -1}, none = {NULL, 0};
static const uint8_t bytes[VALUE_BYTES];
static const pl_slice values[] = {{bytes, VALUE_BYTES}, {bytes, VALUE_BYTES}};

static void append(pl_log *log) {
  int64_t offset;
  must(pl_append(log, 1, null, values[0], none, -1, 1000, &offset), "append");
}

static void append_many(pl_log *log) {
  int64_t done, first;
  pl_columns columns = {values, NULL, NULL, NULL, 1, 2};
  must(pl_append_run(log, &columns, 0, 1000, &done, &first), "append many");
  if (done != 2) die("append_many took two holds of the lock");
}

static uint64_t room_for_one(void) {
  return pl_record_size_bound(-1, VALUE_BYTES, 0) + PL_BATCH_HEADER_SIZE;
}

static void fill(pl_log *log) {
  append(log);
  while (log->page->position + room_for_one() <= SEGMENT_BYTES) append(log);
}

static void fill_batch(pl_log *log) {
  const pl_page *page = log->page;
  append(log);
  while (page->position - page->batch_position + room_for_one() - PL_BATCH_HEADER_SIZE <=
         log->batch_bytes_max)
    append(log);
}

/* The next segment, so that a roll need not come again for it. */
static void prepare(pl_log *log) {
  must(pl_prepare(log, 0, 0), "map");
  must(pl_prepare(log, SEGMENT_BYTES, 1), "prepare");
}

static void act(pl_log *log, const char *word) {
  if (strcmp(word, "append") == 0) append(log);
  else if (strcmp(word, "append_many") == 0) append_many(log);
  else if (strcmp(word, "flush") == 0) must(pl_flush(log, pl_log_end(log), 1000), "flush");
  else if (strcmp(word, "delete_before") == 0)
    must(pl_delete_before(log, pl_log_end(log)), "delete");
  else if (strcmp(word, "fill") == 0) fill(log);
  else if (strcmp(word, "fill_batch") == 0) fill_batch(log);
  else die("there is no word %s", word);
}

static pl_log *open_log(void) {
  pl_options options = options_unset();
  pl_log *log;
  options.segment_bytes = SEGMENT_BYTES;
  must(pl_log_open(directory, true, &options, 10000, &log), "open");
  return log;
}

static void let_another(const char *word, const char *where) {
  pid_t pid = fork();
  if (pid < 0) die("fork: %s", strerror(errno));
  if (pid == 0) {
    pl_log *log = open_log();
    if (*where) armed = where; /* preparing passes map-locked alone */
    prepare(log);
    act(log, word);
    _exit(*where ? 1 : 0);
  }
  int status;
  if (waitpid(pid, &status, 0) != pid) die("waitpid: %s", strerror(errno));
  if (*where ? !WIFSIGNALED(status) : status != 0) die("%s: nobody died at %s", word, where);
}

static pl_log *open_printing(const char *word) {
  const char *at = strchr(word, '@');
  if (at) armed = at + 1;
  printf("open");
  is_printing = true;
  pl_log *log = open_log();
  is_printing = false;
  puts("");
  return log;
}

int main(int argc, char **argv) {
  if (argc < 3) die("usage: trace DIRECTORY WORD...");
  directory = argv[1];
  bool is_opening = strncmp(argv[2], "open", 4) == 0;
  pl_log *log = is_opening ? open_printing(argv[2]) : open_log();
  for (int i = 2 + is_opening; i < argc; i++) {
    char *at = strchr(argv[i], '@');
    fflush(stdout);
    if (at) {
      *at = 0;
      let_another(argv[i], at + 1);
      continue;
    }
    if (strncmp(argv[i], "fill", 4) == 0) {
      act(log, argv[i]);
      prepare(log);
      continue;
    }
    printf("%s", argv[i]);
    is_printing = true;
    act(log, argv[i]);
    is_printing = false;
    puts("");
  }
  _exit(fflush(stdout) ? 1 : 0);
}
