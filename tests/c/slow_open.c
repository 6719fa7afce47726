/* To be preloaded: opening a segment takes so long that others may roll and delete meanwhile. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAUSE_US = 30000 };

int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;
  va_end(arguments);
  size_t size = strlen(path);
  if (size > 4 && strcmp(path + size - 4, ".log") == 0) usleep(PAUSE_US);
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
