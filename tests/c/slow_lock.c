/* To be preloaded: who is given an exclusive flock stands still for SLOW_LOCK_MS first. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

int flock(int fd, int operation) {
  int result = (int)syscall(SYS_flock, fd, operation);
  const char *pause = getenv("SLOW_LOCK_MS");
  if (pause && result == 0 && operation & LOCK_EX) usleep((useconds_t)atoi(pause) * 1000);
  return result;
}
