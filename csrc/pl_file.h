/* The only file that meets the operating system.
 *
 * Everything that can fail for the world's reasons (a full disk, a limit, a foreign truncation)
 * is here. The tests make each call fail (tests/c/calls.h). Linux 5.14 or newer.
 */
#ifndef PL_FILE_H
#define PL_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pl_error.h"

#define PL_PATH_MAX 1024

/* Writes "directory/name" into out[PL_PATH_MAX]; PL_ERR_CONFIG when it does not fit. */
pl_status pl_file_path(const char *directory, const char *name, char *out);

const char *pl_filesystem_name(uint32_t magic); /* NULL: unknown to us */
/* Refuses file systems on which a shared mapping is not what we need (design 2). */
pl_status pl_file_check_filesystem(const char *path, bool must_survive_power_loss);

/* Opens with O_CLOEXEC and O_NOFOLLOW; refuses what is not a regular file. -1 in *fd on error. */
pl_status pl_file_open(const char *path, int flags, int *fd);
void pl_file_close(int fd);

typedef struct pl_file_info {
  uint64_t size, device, inode;
} pl_file_info;
pl_status pl_file_ask(int fd, const char *path, pl_file_info *info);
pl_status pl_file_ask_name(const char *path, pl_file_info *info);
pl_status pl_file_size(int fd, const char *path, uint64_t *size);
bool pl_file_exists(const char *path);

/* What segments leave free on a disk, so that the small files beside them can still be written. */
#define PL_DISK_SPARE ((uint64_t)1 << 20)

/* Gives [0, size) real blocks if that leaves `spare` bytes on the disk. On failure the file is cut
 * back to what it was: ext4 keeps what it got (reliability.md finding 5). */
pl_status pl_file_reserve(int fd, const char *path, uint64_t size, uint64_t spare);

pl_status pl_file_map(int fd, const char *path, size_t size, bool writable, uint8_t **data);
void pl_file_unmap(uint8_t *data, size_t size);

/* Faults pages in ahead of need: an error and not a SIGBUS when blocks are missing. */
pl_status pl_file_populate(uint8_t *data, size_t size, bool for_write, int fd, const char *path);

pl_status pl_file_sync(int fd, const char *path); /* fdatasync */
pl_status pl_file_sync_directory(const char *directory);
/* In two halves, for who must know whether it was the disk that failed. */
pl_status pl_file_open_directory(const char *directory, int *fd);
pl_status pl_file_sync_names(int fd, const char *directory);
pl_status pl_file_truncate(int fd, const char *path, uint64_t size);
pl_status pl_file_rename(const char *from, const char *to);
pl_status pl_file_link(const char *from, const char *to); /* where `to` is there it stays */
pl_status pl_file_remove(const char *path); /* absent is fine */

/* Reads a small file whole; *size is 0 and PL_NOT_READY is returned when there is none. */
pl_status pl_file_read_small(const char *path, char *buffer, size_t capacity, size_t *size);
/* Replaces directory/name atomically; with `sync` it is durable on return. */
pl_status pl_file_replace(const char *directory, const char *name, const void *bytes, size_t size,
                          bool sync);

/* flock. PL_BUSY when it is held otherwise and `wait_ms` ran out. */
pl_status pl_file_lock(int fd, const char *path, bool exclusive, int wait_ms);
void pl_file_unlock(int fd);

/* Shared futexes on 32-bit words of a mapping. The wait returns on a wake, a changed word, a
 * signal or after `timeout_ms`; only a signal is told: false. */
bool pl_futex_wait(_Atomic uint32_t *word, uint32_t expected, int timeout_ms);
void pl_futex_wake_all(_Atomic uint32_t *word);
void pl_file_signal(int event_fd); /* adds one; when it is full, whoever reads it is late anyway */

/* What the page must be compared with (reliability.md findings 13 to 15 and W19): to be learnt
 * before the other two are asked. An answer that failed would look like another boot, in which
 * what a kill left is not believed. */
pl_status pl_host_learn(void);
void pl_boot_id(uint8_t out[16]);
uint64_t pl_pid_namespace(void);
uint64_t pl_random_u64(void);

/* "pid 4711 (state T)" or so for a thread id, from /proc. */
void pl_describe_thread(int tid, char *out, size_t size);

#endif
