/* To be preloaded: fdatasync fails with EIO while the file that REFUSE_SYNC names is there. The
 * pages are clean then, as the kernel leaves those that it could not write.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
  const char *path = getenv("REFUSE_SYNC");
  int result = (int)syscall(SYS_fdatasync, fd);
  if (!path || access(path, F_OK) != 0) return result;
  errno = EIO;
  return -1;
}
