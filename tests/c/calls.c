/* The doors of calls.h. */
#define _GNU_SOURCE
#include "calls.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

const char *const call_names[CALLS] = {
    "open",      "fstat",  "stat",      "access",    "statfs",  "fstatvfs", "fallocate",
    "ftruncate", "mmap",   "madvise",   "fdatasync", "fsync",   "rename",   "link",
    "unlink",    "read",   "write",     "flock",     "opendir", "readdir",  "malloc",
    "calloc",    "realloc", "posix_memalign", "pthread_create", "getrandom",
};

const int call_answers[CALLS][ANSWERS_MAX] = {
    [CALL_OPEN] = {EMFILE, EIO, ENOSPC, ENOMEM, EINTR},
    [CALL_FSTAT] = {EIO},
    [CALL_STAT] = {EIO, ENOMEM},
    [CALL_ACCESS] = {EIO, ENOMEM},
    [CALL_STATFS] = {EIO, EINTR},
    [CALL_FSTATVFS] = {EIO},
    [CALL_FALLOCATE] = {ENOSPC, EIO, EFBIG, EINTR},
    [CALL_FTRUNCATE] = {EIO, EINTR},
    [CALL_MMAP] = {ENOMEM},
    [CALL_MADVISE] = {EFAULT, ENOMEM, EINTR},
    [CALL_FDATASYNC] = {EIO, ENOSPC, ENOMEM, EINTR},
    [CALL_FSYNC] = {EIO, EINTR},
    [CALL_RENAME] = {EIO, ENOSPC},
    [CALL_LINK] = {EIO, ENOSPC},
    [CALL_UNLINK] = {EIO},
    [CALL_READ] = {EIO, EINTR, ANSWER_SHORT},
    [CALL_WRITE] = {ENOSPC, EIO, EINTR, ANSWER_SHORT},
    [CALL_FLOCK] = {ENOLCK, EINTR},
    [CALL_OPENDIR] = {EMFILE, ENOMEM},
    [CALL_READDIR] = {EIO},
    [CALL_MALLOC] = {ENOMEM},
    [CALL_CALLOC] = {ENOMEM},
    [CALL_REALLOC] = {ENOMEM},
    [CALL_POSIX_MEMALIGN] = {ENOMEM},
    [CALL_PTHREAD_CREATE] = {EAGAIN},
    [CALL_GETRANDOM] = {EINTR},
};

struct refusal refusal = {.kind = -1};
struct balance balance;
long filesystem_magic;
bool threads_run;
static int entries_read; /* of the listing under way */

/* 0, or what this call is to be answered. */
static int refused(call kind) {
  if (!refusal.is_armed) return 0;
  refusal.calls++;
  if (refusal.kind < 0 && refusal.calls == refusal.at) {
    refusal.kind = (int)kind;
    int answer = call_answers[kind][refusal.choice];
    refusal.answer = refusal.for_good && (answer == EINTR || answer < 0) ? 0 : answer;
    note_refusal();
  } else if (!refusal.for_good || refusal.is_lifted || refusal.kind != (int)kind) {
    return 0;
  }
  return refusal.answer;
}

#define REFUSE(kind, failure)      \
  do {                             \
    int answer = refused(kind);    \
    if (answer > 0) {              \
      errno = answer;              \
      return failure;              \
    }                              \
  } while (0)

#define DOOR(type, name, ...)      \
  type __real_##name(__VA_ARGS__); \
  type __wrap_##name(__VA_ARGS__); \
  type __wrap_##name(__VA_ARGS__)

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  unsigned mode = flags & O_CREAT ? va_arg(arguments, unsigned) : 0;
  va_end(arguments);
  REFUSE(CALL_OPEN, -1);
  int fd = __real_open(path, flags, mode);
  balance.descriptors += fd >= 0;
  return fd;
}

DOOR(int, close, int fd) {
  balance.descriptors--;
  return __real_close(fd);
}

DOOR(int, fstat, int fd, struct stat *info) {
  REFUSE(CALL_FSTAT, -1);
  return __real_fstat(fd, info);
}

DOOR(int, stat, const char *path, struct stat *info) {
  REFUSE(CALL_STAT, -1);
  return __real_stat(path, info);
}

DOOR(int, access, const char *path, int mode) {
  REFUSE(CALL_ACCESS, -1);
  return __real_access(path, mode);
}

DOOR(int, statfs, const char *path, struct statfs *info) {
  REFUSE(CALL_STATFS, -1);
  int result = __real_statfs(path, info);
  if (filesystem_magic) info->f_type = (__typeof__(info->f_type))filesystem_magic;
  return result;
}

DOOR(int, fstatvfs, int fd, struct statvfs *info) {
  REFUSE(CALL_FSTATVFS, -1);
  return __real_fstatvfs(fd, info);
}

/* As ext4 does, it keeps what it got before the disk was full. */
DOOR(int, fallocate, int fd, int mode, off_t start, off_t length) {
  int answer = refused(CALL_FALLOCATE);
  if (answer == ENOSPC) __real_fallocate(fd, mode, start, length / 2);
  if (answer > 0) {
    errno = answer;
    return -1;
  }
  return __real_fallocate(fd, mode, start, length);
}

DOOR(int, ftruncate, int fd, off_t size) {
  REFUSE(CALL_FTRUNCATE, -1);
  return __real_ftruncate(fd, size);
}

DOOR(void *, mmap, void *at, size_t size, int protection, int flags, int fd, off_t start) {
  REFUSE(CALL_MMAP, MAP_FAILED);
  void *mapped = __real_mmap(at, size, protection, flags, fd, start);
  balance.mappings += mapped != MAP_FAILED;
  return mapped;
}

DOOR(int, munmap, void *data, size_t size) {
  balance.mappings--;
  return __real_munmap(data, size);
}

DOOR(int, madvise, void *data, size_t size, int advice) {
  bool was_asked = refusal.kind >= 0;
  int answer = refused(CALL_MADVISE);
  if (!was_asked && answer) refusal.for_write = advice == MADV_POPULATE_WRITE;
  if (answer > 0) {
    errno = answer;
    return -1;
  }
  return __real_madvise(data, size, advice);
}

DOOR(int, fdatasync, int fd) {
  REFUSE(CALL_FDATASYNC, -1);
  return __real_fdatasync(fd);
}

DOOR(int, fsync, int fd) {
  REFUSE(CALL_FSYNC, -1);
  return __real_fsync(fd);
}

DOOR(int, rename, const char *from, const char *to) {
  REFUSE(CALL_RENAME, -1);
  return __real_rename(from, to);
}

DOOR(int, link, const char *from, const char *to) {
  REFUSE(CALL_LINK, -1);
  return __real_link(from, to);
}

DOOR(int, unlink, const char *path) {
  REFUSE(CALL_UNLINK, -1);
  return __real_unlink(path);
}

DOOR(ssize_t, read, int fd, void *bytes, size_t size) {
  int answer = refused(CALL_READ);
  if (answer == ANSWER_SHORT) size = (size + 1) / 2;
  if (answer > 0) {
    errno = answer;
    return -1;
  }
  return __real_read(fd, bytes, size);
}

DOOR(ssize_t, write, int fd, const void *bytes, size_t size) {
  int answer = refused(CALL_WRITE);
  if (answer == ANSWER_SHORT) size = (size + 1) / 2;
  if (answer > 0) {
    errno = answer;
    return -1;
  }
  return __real_write(fd, bytes, size);
}

DOOR(int, flock, int fd, int operation) {
  REFUSE(CALL_FLOCK, -1);
  return __real_flock(fd, operation);
}

DOOR(DIR *, opendir, const char *path) {
  REFUSE(CALL_OPENDIR, NULL);
  DIR *entries = __real_opendir(path);
  balance.descriptors += entries != NULL;
  entries_read = 0;
  return entries;
}

DOOR(int, closedir, DIR *entries) {
  balance.descriptors--;
  return __real_closedir(entries);
}

/* The first and the fourth entry of a listing stand for all. */
DOOR(struct dirent *, readdir, DIR *entries) {
  entries_read++;
  if (entries_read == 1 || entries_read == 4) REFUSE(CALL_READDIR, NULL);
  return __real_readdir(entries);
}

DOOR(void *, malloc, size_t size) {
  REFUSE(CALL_MALLOC, NULL);
  void *block = __real_malloc(size);
  balance.blocks += block != NULL;
  return block;
}

DOOR(void *, calloc, size_t count, size_t size) {
  REFUSE(CALL_CALLOC, NULL);
  void *block = __real_calloc(count, size);
  balance.blocks += block != NULL;
  return block;
}

DOOR(void *, realloc, void *old, size_t size) {
  REFUSE(CALL_REALLOC, NULL);
  void *block = __real_realloc(old, size);
  balance.blocks += !old && block;
  return block;
}

DOOR(int, posix_memalign, void **block, size_t alignment, size_t size) {
  int answer = refused(CALL_POSIX_MEMALIGN);
  if (answer > 0) return answer;
  answer = __real_posix_memalign(block, alignment, size);
  balance.blocks += answer == 0;
  return answer;
}

DOOR(void, free, void *block) {
  balance.blocks -= block != NULL;
  __real_free(block);
}

DOOR(int, pthread_create, pthread_t *thread, const pthread_attr_t *attributes,
     void *(*run)(void *), void *argument) {
  int answer = refused(CALL_PTHREAD_CREATE);
  if (answer > 0 || !threads_run) return answer > 0 ? answer : 0;
  return __real_pthread_create(thread, attributes, run, argument);
}

DOOR(ssize_t, getrandom, void *bytes, size_t size, unsigned flags) {
  REFUSE(CALL_GETRANDOM, -1);
  return __real_getrandom(bytes, size, flags);
}
