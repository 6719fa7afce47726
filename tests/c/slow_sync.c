/* To be preloaded: a disk that takes SLOW_SYNC_MS for each flush. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void take_time(void) {
  const char *ms = getenv("SLOW_SYNC_MS");
  if (ms) usleep((useconds_t)atoi(ms) * 1000);
}

int fdatasync(int fd) {
  take_time();
  return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd) {
  take_time();
  return (int)syscall(SYS_fsync, fd);
}
