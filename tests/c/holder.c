/* A writer that stops, or dies, at a named point of the core: for tests that need one there.
 *
 *     holder DIRECTORY POINT SIGNAL [delete | alter | remove | open]
 *
 * Appends "before", says "ready", appends "held" with SIGNAL sent to itself at POINT, and if it
 * comes back from there, appends "after" and closes. With "delete" it fills some segments before
 * it says "ready", and deletes them instead of appending "held"; with "alter" it makes the next
 * segments larger; with "remove" it deletes the log, to DIRECTORY-removed. With "open" it says
 * "ready" before it opens, and dies or stops in there.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "pl_fault.h"

static const char *armed;
static int signal_to_send;

void pl_fault_point(const char *name) {
  if (!armed || strcmp(name, armed) != 0) return;
  armed = NULL;
  kill(getpid(), signal_to_send);
}

static void append(pl_log *log, const char *text) {
  const pl_slice null = {NULL, -1}, none = {NULL, 0};
  pl_slice value = {(const uint8_t *)text, (int64_t)strlen(text)};
  int64_t offset;
  pl_status status;
  do status = pl_append(log, 1, null, value, none, -1, 1000, &offset);
  while (status == PL_BUSY);
  must(status, text);
}

static void alter(pl_log *log) {
  pl_options wanted = options_unset();
  wanted.segment_bytes = 1 << 20;
  must(pl_alter(log, &wanted, 1000), "alter");
}

static int remove_log(const char *directory) {
  char aside[PL_PATH_MAX];
  snprintf(aside, sizeof aside, "%s-removed", directory);
  must(pl_delete(directory, aside, 1000), "remove");
  return 0;
}

static void arm(char **argv) {
  puts("ready");
  fflush(stdout);
  signal_to_send = atoi(argv[3]);
  armed = argv[2];
}

int main(int argc, char **argv) {
  if (argc < 4) die("usage: holder DIRECTORY POINT SIGNAL [delete | alter | remove | open]");
  const char *mode = argc > 4 ? argv[4] : "append";
  bool deletes = strcmp(mode, "delete") == 0, opens = strcmp(mode, "open") == 0;
  if (opens) arm(argv);
  pl_options options = options_unset();
  if (deletes) options.segment_bytes = 4096;
  pl_log *log;
  must(pl_log_open(argv[1], true, &options, 10000, &log), "open");
  append(log, "before");
  while (deletes && atomic_load(&log->page->active_base) == 0) append(log, "more");
  if (!opens) arm(argv);
  if (deletes) must(pl_delete_before(log, pl_log_end(log)), "delete");
  else if (strcmp(mode, "alter") == 0) alter(log);
  else if (strcmp(mode, "remove") == 0) return remove_log(argv[1]);
  else append(log, "held");
  append(log, "after");
  must(pl_log_close(log), "close");
  pl_log_free(log);
  return 0;
}
