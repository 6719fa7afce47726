/* Linux, behind one seam. */
#define _GNU_SOURCE
#include "pl_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "pl_clock.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

/* A signal is no answer: a handler ran, the call is made again. */
#define UNINTERRUPTED(call)                               \
  __extension__({                                         \
    int result_;                                          \
    do result_ = (call);                                  \
    while (result_ < 0 && errno == EINTR);                \
    result_;                                              \
  })

pl_status pl_file_path(const char *directory, const char *name, char *out) {
  int n = snprintf(out, PL_PATH_MAX, "%s/%s", directory, name);
  if (n < 0 || n >= PL_PATH_MAX)
    return pl_fail(PL_ERR_CONFIG, directory, "the path is too long; use a shorter one");
  return PL_OK;
}

typedef struct filesystem {
  uint32_t magic;
  const char *name;
  bool mapped, persistent;
} filesystem;

static const filesystem filesystems[] = {
    {0xEF53, "ext4", true, true},          {0x58465342, "xfs", true, true},
    {0x01021994, "tmpfs", true, false},    {0x794C7630, "overlayfs", true, true},
    {0x858458F6, "ramfs", true, false},    {0x9123683E, "btrfs", false, true},
    {0x2FC12FC1, "zfs", false, true},      {0x6969, "nfs", false, true},
    {0xFF534D42, "cifs", false, true},     {0xFE534D42, "smb2", false, true},
    {0x01021997, "9p", false, true},       {0x65735546, "fuse", false, true},
};

static const filesystem *find_filesystem(uint32_t magic) {
  for (size_t i = 0; i < sizeof filesystems / sizeof *filesystems; i++)
    if (filesystems[i].magic == magic) return &filesystems[i];
  return NULL;
}

const char *pl_filesystem_name(uint32_t magic) {
  const filesystem *found = find_filesystem(magic);
  return found ? found->name : NULL;
}

pl_status pl_file_check_filesystem(const char *path, bool must_survive_power_loss) {
  struct statfs info;
  if (UNINTERRUPTED(statfs(path, &info)) != 0)
    return pl_fail_errno(errno, path, "ask for the file system");
  uint32_t magic = (uint32_t)info.f_type;
  const filesystem *found = find_filesystem(magic);
  if (!found || !found->mapped)
    pl_fail(PL_ERR_FILESYSTEM, path,
            "the file system is %s (0x%x), on which a log cannot be written through a mapping; "
            "put the directory on ext4, xfs or tmpfs", found ? found->name : "unknown", magic);
  else if (must_survive_power_loss && !found->persistent)
    pl_fail(PL_ERR_FILESYSTEM, path,
            "the file system is %s, which keeps nothing over a power loss, so "
            "durability=\"fsync\" would be a lie; use durability=\"os\" or another disk",
            found->name);
  else
    return PL_OK;
  pl_error_last()->extra = magic;
  return PL_ERR_FILESYSTEM;
}

pl_status pl_file_open(const char *path, int flags, int *fd) {
  *fd = -1;
  int opened = UNINTERRUPTED(open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  if (opened < 0)
    return (flags & O_ACCMODE) == O_RDONLY ? pl_fail_reading(errno, path, "open the file")
                                           : pl_fail_errno(errno, path, "open the file");
  struct stat info;
  pl_status status = PL_OK;
  if (fstat(opened, &info) != 0)
    status = pl_fail_errno(errno, path, "ask what the file is");
  else if (!S_ISREG(info.st_mode))
    status = pl_fail(PL_ERR_FORMAT, path, "this is not a regular file; move it away");
  if (status == PL_OK) *fd = opened;
  else close(opened);
  return status;
}

void pl_file_close(int fd) {
  if (fd >= 0) close(fd);
}

pl_status pl_file_ask(int fd, const char *path, pl_file_info *info) {
  struct stat found;
  if (fstat(fd, &found) != 0) return pl_fail_errno(errno, path, "ask for the size of the file");
  *info = (pl_file_info){(uint64_t)found.st_size, (uint64_t)found.st_dev, (uint64_t)found.st_ino};
  return PL_OK;
}

pl_status pl_file_ask_name(const char *path, pl_file_info *info) {
  struct stat found;
  if (stat(path, &found) != 0) return pl_fail_reading(errno, path, "ask what the file is");
  *info = (pl_file_info){(uint64_t)found.st_size, (uint64_t)found.st_dev, (uint64_t)found.st_ino};
  return PL_OK;
}

pl_status pl_file_size(int fd, const char *path, uint64_t *size) {
  pl_file_info info = {0};
  pl_status status = pl_file_ask(fd, path, &info);
  *size = info.size;
  return status;
}

bool pl_file_exists(const char *path) { return access(path, F_OK) == 0; }

static pl_status disk_full(const char *path, uint64_t wanted, int error) {
  pl_fail(PL_ERR_DISK_FULL, path,
          "no room for %llu more bytes; free some space", (unsigned long long)wanted);
  pl_error_last()->os_errno = error;
  pl_error_last()->extra = (int64_t)wanted;
  return PL_ERR_DISK_FULL;
}

pl_status pl_file_reserve(int fd, const char *path, uint64_t size, uint64_t spare) {
  struct statvfs disk;
  uint64_t had;
  PL_TRY(pl_file_size(fd, path, &had));
  if (size <= had) return PL_OK;
  if (fstatvfs(fd, &disk) == 0 &&
      (uint64_t)disk.f_bavail * disk.f_frsize < size - had + spare)
    return disk_full(path, size - had, ENOSPC);
  /* The size comes last and at once: ext4 moves it as it finds blocks, and another process would
   * write there, where a failure cuts. */
  if (UNINTERRUPTED(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size)) == 0 &&
      UNINTERRUPTED(ftruncate(fd, (off_t)size)) == 0)
    return PL_OK;
  int error = errno;
  int ignored = ftruncate(fd, (off_t)had);
  (void)ignored;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG)
    return disk_full(path, size - had, error);
  return pl_fail_errno(error, path, "reserve blocks for the file");
}

pl_status pl_file_map(int fd, const char *path, size_t size, bool writable, uint8_t **data) {
  int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void *mapped = mmap(NULL, size, protection, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return pl_fail_errno(errno, path, "map the file");
  *data = mapped;
  return PL_OK;
}

void pl_file_unmap(uint8_t *data, size_t size) {
  if (data) munmap(data, size);
}

pl_status pl_file_populate(uint8_t *data, size_t size, bool for_write, int fd, const char *path) {
  uintptr_t start = (uintptr_t)data & ~(uintptr_t)4095;
  size_t length = (uintptr_t)data + size - start;
  int advice = for_write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
  int error = 0;
  while (!error && madvise((void *)start, length, advice) != 0) {
    error = errno;
    if (error == EINTR || error == EAGAIN) error = 0;
  }
  if (!error) return PL_OK;
  if (error == EINVAL)
    return pl_fail(PL_ERR_ENVIRONMENT, path,
                   "the kernel lacks MADV_POPULATE; Linux 5.14 or newer is needed");
  /* EFAULT is what a full disk, a failed read and a truncated file all answer (finding 6). */
  if (error == EFAULT || error == EHWPOISON) {
    uint64_t now = 0;
    if (for_write) return disk_full(path, size, ENOSPC);
    if (fd >= 0) PL_TRY(pl_file_size(fd, path, &now));
    pl_fail_corrupt(path, -1, -1, -1,
                    "the file cannot be read where it was mapped (it has %llu bytes now); it was "
                    "truncated or the disk failed; run `pylog check`", (unsigned long long)now);
    pl_error_last()->os_errno = error;
    return PL_ERR_CORRUPT;
  }
  return pl_fail_errno(error, path, "populate the mapping");
}

pl_status pl_file_sync(int fd, const char *path) {
  if (UNINTERRUPTED(fdatasync(fd)) == 0) return PL_OK;
  return pl_fail_errno(errno, path, "flush the file to disk");
}

pl_status pl_file_open_directory(const char *directory, int *fd) {
  *fd = UNINTERRUPTED(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return *fd < 0 ? pl_fail_reading(errno, directory, "open the directory") : PL_OK;
}

pl_status pl_file_sync_names(int fd, const char *directory) {
  if (UNINTERRUPTED(fsync(fd)) == 0) return PL_OK;
  return pl_fail_errno(errno, directory, "flush the directory to disk");
}

pl_status pl_file_sync_directory(const char *directory) {
  int fd;
  PL_TRY(pl_file_open_directory(directory, &fd));
  pl_status status = pl_file_sync_names(fd, directory);
  pl_file_close(fd);
  return status;
}

pl_status pl_file_truncate(int fd, const char *path, uint64_t size) {
  if (UNINTERRUPTED(ftruncate(fd, (off_t)size)) == 0) return PL_OK;
  return pl_fail_errno(errno, path, "truncate the file");
}

pl_status pl_file_rename(const char *from, const char *to) {
  if (rename(from, to) == 0) return PL_OK;
  return pl_fail_errno(errno, to, "rename a file to this name");
}

pl_status pl_file_link(const char *from, const char *to) {
  if (link(from, to) == 0 || errno == EEXIST) return PL_OK;
  return pl_fail_errno(errno, to, "give a file this name");
}

pl_status pl_file_remove(const char *path) {
  if (unlink(path) != 0 && errno != ENOENT) return pl_fail_errno(errno, path, "remove the file");
  return PL_OK;
}

pl_status pl_file_read_small(const char *path, char *buffer, size_t capacity, size_t *size) {
  *size = 0;
  int fd;
  pl_status status = pl_file_open(path, O_RDONLY, &fd);
  if (status == PL_ERR_IO && pl_error_last()->os_errno == ENOENT) return PL_NOT_READY;
  PL_TRY(status);
  while (*size < capacity) {
    ssize_t n = read(fd, buffer + *size, capacity - *size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int error = errno;
      close(fd);
      return pl_fail_errno(error, path, "read the file");
    }
    if (n == 0) break;
    *size += (size_t)n;
  }
  close(fd);
  return PL_OK;
}

static pl_status write_all(int fd, const char *path, const char *bytes, size_t size) {
  while (size > 0) {
    ssize_t n = write(fd, bytes, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return pl_fail_errno(errno, path, "write the file");
    bytes += n;
    size -= (size_t)n;
  }
  return PL_OK;
}

pl_status pl_file_replace(const char *directory, const char *name, const void *bytes, size_t size,
                          bool sync) {
  char path[PL_PATH_MAX], temporary_name[256], temporary[PL_PATH_MAX];
  snprintf(temporary_name, sizeof temporary_name, "%s.tmp", name);
  PL_TRY(pl_file_path(directory, name, path));
  PL_TRY(pl_file_path(directory, temporary_name, temporary));
  int fd;
  PL_TRY(pl_file_open(temporary, O_RDWR | O_CREAT | O_TRUNC, &fd));
  pl_status status = write_all(fd, temporary, bytes, size);
  if (status == PL_OK && sync) status = pl_file_sync(fd, temporary);
  close(fd);
  if (status == PL_OK) status = pl_file_rename(temporary, path);
  if (status == PL_OK && sync) status = pl_file_sync_directory(directory);
  return status;
}

pl_status pl_file_lock(int fd, const char *path, bool exclusive, int wait_ms) {
  int64_t deadline = pl_monotonic_ms() + wait_ms;
  for (;;) {
    if (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) return PL_OK;
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return pl_fail_errno(errno, path, "lock the file");
    if (pl_monotonic_ms() >= deadline) return PL_BUSY;
    pl_sleep_ms(1);
  }
}

void pl_file_unlock(int fd) { flock(fd, LOCK_UN); }

bool pl_futex_wait(_Atomic uint32_t *word, uint32_t expected, int timeout_ms) {
  struct timespec timeout = {timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000000};
  return syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, NULL, 0) == 0 || errno != EINTR;
}

void pl_futex_wake_all(_Atomic uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void pl_file_signal(int event_fd) {
  static const uint64_t one = 1;
  while (write(event_fd, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

static struct {
  pthread_mutex_t lock;
  bool is_known;
  uint8_t boot_id[16]; /* zeros where there is no /proc */
  uint64_t pid_namespace;
} host = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void parse_boot_id(const char *text, uint8_t out[16]) {
  size_t digits = 0;
  for (const char *c = text; *c && digits < 32; c++) {
    int value = *c >= '0' && *c <= '9' ? *c - '0' : *c >= 'a' && *c <= 'f' ? *c - 'a' + 10 : -1;
    if (value < 0) continue;
    out[digits / 2] = (uint8_t)(out[digits / 2] << 4 | value);
    digits++;
  }
}

static pl_status learn(void) {
  static const char boot_id[] = "/proc/sys/kernel/random/boot_id", pid[] = "/proc/self/ns/pid";
  char text[64] = {0};
  size_t size;
  struct stat info;
  if (!host.is_known) {
    pl_status status = pl_file_read_small(boot_id, text, sizeof text - 1, &size);
    if (status < 0) return status;
    parse_boot_id(text, host.boot_id);
    host.is_known = true;
  }
  /* Asked again each time: a fork may have led into another one. */
  if (stat(pid, &info) == 0) host.pid_namespace = (uint64_t)info.st_ino;
  else if (errno != ENOENT) return pl_fail_errno(errno, pid, "ask for the PID namespace");
  return PL_OK;
}

pl_status pl_host_learn(void) {
  pthread_mutex_lock(&host.lock);
  pl_status status = learn();
  pthread_mutex_unlock(&host.lock);
  return status;
}

void pl_boot_id(uint8_t out[16]) {
  pthread_mutex_lock(&host.lock);
  memcpy(out, host.boot_id, sizeof host.boot_id);
  pthread_mutex_unlock(&host.lock);
}

uint64_t pl_pid_namespace(void) {
  pthread_mutex_lock(&host.lock);
  uint64_t known = host.pid_namespace;
  pthread_mutex_unlock(&host.lock);
  return known;
}

uint64_t pl_random_u64(void) {
  uint64_t value = 0;
  if (getrandom(&value, sizeof value, 0) != sizeof value) value = pl_monotonic_ns();
  return value;
}

void pl_describe_thread(int tid, char *out, size_t size) {
  char path[64], text[2048];
  size_t got;
  snprintf(path, sizeof path, "/proc/%d/status", tid);
  if (pl_file_read_small(path, text, sizeof text - 1, &got) != PL_OK || got == 0) {
    snprintf(out, size, "thread %d, which /proc does not show", tid);
    return;
  }
  text[got] = 0;
  const char *state = strstr(text, "\nState:\t"), *group = strstr(text, "\nTgid:\t");
  snprintf(out, size, "pid %d (state %c)", group ? atoi(group + 7) : tid, state ? state[8] : '?');
}
