/* Status codes, and the one place where a failure leaves its details.
 *
 * Every function that can fail returns a pl_status. The details (file, position, offset, errno, a
 * sentence) go into a thread-local record, written by whoever finds the failure and read by the
 * gate in pylog/native/gate.pxi, which turns it into an exception. Functions that succeed never
 * touch it.
 */
#ifndef PL_ERROR_H
#define PL_ERROR_H

#include <stdint.h>

typedef enum pl_status {
  PL_OK = 0,
  /* Not failures: the caller is to do something and call again. */
  PL_BUSY = 1,      /* the lock is held by somebody else */
  PL_NOT_READY = 2, /* a mapping, a prefaulted window or a prepared file is missing */
  PL_END = 3,       /* nothing more is there now */
  PL_ERR_IO = -1,
  PL_ERR_DISK_FULL = -2,
  PL_ERR_CORRUPT = -3,
  PL_ERR_FORMAT = -4,
  PL_ERR_FILESYSTEM = -5,
  PL_ERR_ENVIRONMENT = -6,
  PL_ERR_CODEC = -7,
  PL_ERR_LIMIT = -8,
  PL_ERR_READ_ONLY = -9,
  PL_ERR_DURABILITY = -10,
  PL_ERR_TIMEOUT = -11,
  PL_ERR_OUT_OF_RANGE = -12,
  PL_ERR_WRONG_END = -13,
  PL_ERR_NOT_FOUND = -14,
  PL_ERR_TOO_LARGE = -15,
  PL_ERR_CLOSED = -16,
  PL_ERR_FORKED = -17,
  PL_ERR_CONFIG = -18,
  PL_ERR_NO_MEMORY = -19,
  PL_ERR_DENIED = -20, /* no permission to read */
  PL_ERR_DELETED = -21, /* the topic, and this partition with it */
} pl_status;

typedef struct pl_error {
  pl_status status;
  int os_errno;     /* 0 when no system call failed */
  int64_t position; /* byte in `path`, -1 when unknown */
  int64_t offset;   /* record offset, -1 when unknown */
  int64_t extra;    /* CORRUPT: valid batches beyond; WRONG_END, OUT_OF_RANGE: the end; DISK_FULL:
                     * bytes wanted; DURABILITY: the durable offset; FILESYSTEM: its magic number;
                     * TOO_LARGE: the size; ENVIRONMENT: our PID namespace; else -1 */
  int64_t bound;    /* OUT_OF_RANGE: the start; TOO_LARGE: max_message_bytes; ENVIRONMENT: the log's
                     * PID namespace; else -1 */
  char path[1024];
  char text[512];
} pl_error;

/* The details of this thread's latest failure. */
pl_error *pl_error_last(void);

/* Records a failure and returns its status, so that `return pl_fail(...)` reads well. */
pl_status pl_fail(pl_status status, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As pl_fail for a system call that set errno: disk full, limits and the rest become their own
 * status. `action` is the verb that failed, for the message. */
pl_status pl_fail_errno(int os_errno, const char *path, const char *action);

/* The same where nothing was to be written: a refusal is no matter of being read-only then. */
pl_status pl_fail_reading(int os_errno, const char *path, const char *action);

/* As pl_fail for damage at a known place. `beyond`: valid batches after it, -1 unknown. */
pl_status pl_fail_corrupt(const char *path, int64_t position, int64_t offset, int64_t beyond,
                          const char *format, ...) __attribute__((format(printf, 5, 6)));

#define PL_TRY(expression)                     \
  do {                                         \
    pl_status pl_try_status = (expression);    \
    if (pl_try_status != PL_OK) return pl_try_status; \
  } while (0)

#endif
