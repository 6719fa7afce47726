/* To be preloaded: fallocate does what ext4 does on a disk that fills up. It gives most of the
 * blocks, and lets the size show it, before it finds that the last ones are not to be had. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, PAUSE_US = 200000 };

int fallocate(int fd, int mode, off_t start, off_t length) {
  if (length <= 1 << 20) return (int)syscall(SYS_fallocate, fd, mode, start, length);
  syscall(SYS_fallocate, fd, mode, start, length - PAGE);
  usleep(PAUSE_US);
  errno = ENOSPC;
  return -1;
}
