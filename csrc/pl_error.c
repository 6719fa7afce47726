/* The thread-local record of the latest failure. */
#include "pl_error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local pl_error last_error;

pl_error *pl_error_last(void) { return &last_error; }

static void set(pl_status status, const char *path, const char *format, va_list arguments) {
  last_error.status = status;
  last_error.os_errno = 0;
  last_error.position = -1;
  last_error.offset = -1;
  last_error.extra = -1;
  last_error.bound = -1;
  snprintf(last_error.path, sizeof last_error.path, "%s", path ? path : "");
  vsnprintf(last_error.text, sizeof last_error.text, format, arguments);
}

pl_status pl_fail(pl_status status, const char *path, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set(status, path, format, arguments);
  va_end(arguments);
  return status;
}

pl_status pl_fail_corrupt(const char *path, int64_t position, int64_t offset, int64_t beyond,
                          const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set(PL_ERR_CORRUPT, path, format, arguments);
  va_end(arguments);
  last_error.position = position;
  last_error.offset = offset;
  last_error.extra = beyond;
  return PL_ERR_CORRUPT;
}

/* What the caller may do about it; NULL where there is nothing to be said in general. */
static const char *advice(int os_errno) {
  switch (os_errno) {
    case ENOSPC: return "free some space";
    case EDQUOT: return "free some space, or ask for a larger quota";
    case EFBIG: return "raise `ulimit -f`";
    case EMFILE: return "close some files, or raise `ulimit -n`";
    case ENFILE: return "close some files, or raise fs.file-max";
    case ENOMEM: return "free some memory, or raise `ulimit -v` or vm.max_map_count";
    case EROFS: return "mount it writable, or open with mode=\"r\"";
    case EACCES:
    case EPERM: return "look at its owner and mode, or be another user";
    case EIO: return "the disk fails: look at the kernel's log, restore a copy elsewhere";
    case ENOENT: return "somebody removed it: open the log again";
    default: return NULL;
  }
}

pl_status pl_fail_errno(int os_errno, const char *path, const char *action) {
  pl_status status;
  switch (os_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: status = PL_ERR_DISK_FULL; break;
    case EMFILE:
    case ENFILE: status = PL_ERR_LIMIT; break;
    case ENOMEM: status = PL_ERR_LIMIT; break;
    case EROFS:
    case EACCES:
    case EPERM: status = PL_ERR_READ_ONLY; break;
    default: status = PL_ERR_IO;
  }
  const char *next = advice(os_errno);
  pl_fail(status, path, "cannot %s: %s%s%s", action, strerror(os_errno), next ? "; " : "",
          next ? next : "");
  last_error.os_errno = os_errno;
  return status;
}

pl_status pl_fail_reading(int os_errno, const char *path, const char *action) {
  pl_status status = pl_fail_errno(os_errno, path, action);
  if (status == PL_ERR_READ_ONLY) status = last_error.status = PL_ERR_DENIED;
  return status;
}
