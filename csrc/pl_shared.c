/* Opening a shared file: the first makes it, and after a reboot the first makes it anew. */
#define _GNU_SOURCE
#include "pl_shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "pl_clock.h"
#include "pl_fault.h"
#include "pl_log.h"

enum { WAIT_MS = 10000, OTHERS_MS = 2000 };

/* Once, when the file is made: a sync of what is in it says nothing about its name. */
static pl_status sync_directory_of(const char *path) {
  char directory[PL_PATH_MAX];
  snprintf(directory, sizeof directory, "%s", path);
  char *slash = strrchr(directory, '/');
  if (!slash) return pl_file_sync_directory(".");
  *(slash == directory ? slash + 1 : slash) = 0;
  return pl_file_sync_directory(directory);
}

/* Under another name first: who is killed in here leaves no half file. */
static pl_status make(const char *path, const pl_shared_kind *kind, const uint8_t *old,
                      size_t old_size, void *context) {
  char unfinished[PL_PATH_MAX];
  pl_file_info info;
  uint8_t *data = NULL;
  int fd;
  size_t size = old_size < kind->bytes ? kind->bytes : old_size;
  if (snprintf(unfinished, sizeof unfinished, "%s.%llx.tmp", path,
               (unsigned long long)pl_random_u64()) >= (int)sizeof unfinished)
    return pl_fail(PL_ERR_CONFIG, path, "the path is too long; use a shorter one");
  pl_status status = pl_file_open(unfinished, O_RDWR | O_CREAT | O_EXCL, &fd);
  if (status == PL_OK) status = pl_file_reserve(fd, unfinished, size, 0);
  if (status == PL_OK) status = pl_file_ask(fd, unfinished, &info);
  if (status == PL_OK) status = pl_file_map(fd, unfinished, size, true, &data);
  if (status == PL_OK) {
    pl_page_identity *identity = (pl_page_identity *)(void *)data;
    pl_page_identify(identity, 0);
    identity->magic = kind->magic;
    identity->layout = kind->layout;
    identity->device = info.device;
    identity->inode = info.inode;
    kind->fill(data, size, old, old_size, context);
    PL_POINT("shared-filled");
    pl_file_unmap(data, size);
    if (old) status = pl_file_sync(fd, unfinished); /* what it takes over may be only there */
  }
  if (status == PL_OK) {
    /* A rename replaces the old; a link leaves it to whoever was first. */
    status = old ? pl_file_rename(unfinished, path) : pl_file_link(unfinished, path);
  }
  if (status == PL_OK && kind->is_kept) status = sync_directory_of(path);
  pl_file_close(fd);
  if (!old || status != PL_OK) (void)pl_file_remove(unfinished);
  return status;
}

typedef enum pl_fit { FITS, IS_OLD, IS_OTHER_LAYOUT, IS_OTHER_NAMESPACE } pl_fit;

static pl_fit judge(const pl_page_identity *found, const pl_shared_kind *kind,
                    const pl_file_info *info) {
  pl_page_identity wanted = {0};
  pl_page_identify(&wanted, 0);
  if (info->size < kind->bytes || !found->magic) return IS_OLD;
  if (found->magic != kind->magic) return kind->is_kept ? IS_OTHER_LAYOUT : IS_OLD;
  if (found->layout != kind->layout) return IS_OTHER_LAYOUT;
  if (memcmp(found->boot_id, wanted.boot_id, sizeof wanted.boot_id) != 0 ||
      found->device != info->device || found->inode != info->inode ||
      found->mutex_abi != wanted.mutex_abi)
    return IS_OLD;
  return found->pid_namespace == wanted.pid_namespace ? FITS : IS_OTHER_NAMESPACE;
}

/* PL_NOT_READY: the name is gone, or another file's. */
static pl_status check_name(const char *path, const pl_file_info *info) {
  pl_file_info named;
  pl_status status = pl_file_ask_name(path, &named);
  if (status != PL_OK) return pl_error_last()->os_errno == ENOENT ? PL_NOT_READY : status;
  return named.inode == info->inode && named.device == info->device ? PL_OK : PL_NOT_READY;
}

/* Only who has it alone may make it anew: then its processes are gone, whatever they were. With the
 * name still ours nobody did before we had the lock. */
static pl_status replace(pl_shared *self, const pl_file_info *info, void *context) {
  size_t max = self->kind->bytes_max, old_size = info->size < max ? (size_t)info->size : max;
  PL_TRY(pl_file_lock(self->fd, self->path, true, 0));
  PL_TRY(check_name(self->path, info));
  PL_TRY(make(self->path, self->kind, self->data, old_size, context));
  return PL_NOT_READY;
}

static pl_status of_another_version(const pl_shared *self) {
  return pl_fail(PL_ERR_FORMAT, self->path, "%s is of another version of pylog, or its first bytes "
                 "are damaged; open it with that version, or restore the file; if you remove it, "
                 "what was committed in it is forgotten", self->kind->noun);
}

/* What is there, locked shared and mapped; PL_NOT_READY: made anew or gone meanwhile, or it did not
 * fit and somebody has it open. Try again. */
static pl_status try_open(pl_shared *self, void *context, pl_fit *fit) {
  const pl_shared_kind *kind = self->kind;
  pl_file_info info;
  PL_TRY(pl_file_open(self->path, O_RDWR, &self->fd));
  pl_status status = pl_file_lock(self->fd, self->path, false, 0);
  if (status == PL_OK) status = pl_file_ask(self->fd, self->path, &info);
  if (status == PL_OK)
    status = pl_file_map(self->fd, self->path, kind->bytes_max, true, &self->data);
  if (status == PL_OK) status = check_name(self->path, &info);
  if (status == PL_OK) {
    pl_page_identity *found = (pl_page_identity *)(void *)self->data, nothing = {0};
    *fit = judge(info.size < kind->bytes ? &nothing : found, kind, &info);
    if (*fit == FITS) return PL_OK;
    status = *fit == IS_OTHER_LAYOUT && kind->is_kept ? of_another_version(self)
                                                     : replace(self, &info, context);
  }
  pl_shared_close(self);
  return status == PL_BUSY ? PL_NOT_READY : status;
}

static pl_status in_use(const pl_shared *self, pl_fit fit) {
  if (fit == IS_OTHER_LAYOUT)
    return pl_fail(PL_ERR_FORMAT, self->path, "%s is in use by another version of pylog; close it "
                   "there first", self->kind->noun);
  if (fit == IS_OTHER_NAMESPACE)
    return pl_fail(PL_ERR_ENVIRONMENT, self->path,
                   "%s is in use in another PID namespace, and whether its processes live cannot "
                   "be told from here; run all of them in one container", self->kind->noun);
  return pl_fail(PL_ERR_TIMEOUT, self->path, "another process has been making %s anew for %d ms; "
                 "continue or kill it, then open again", self->kind->noun, WAIT_MS);
}

pl_status pl_shared_open(const char *path, const pl_shared_kind *kind, void *context,
                         pl_shared *out) {
  int64_t start = pl_monotonic_ms();
  pl_forks_count();
  *out = (pl_shared){.fd = -1, .kind = kind, .fork_generation = pl_forks};
  if (snprintf(out->path, sizeof out->path, "%s", path) >= (int)sizeof out->path)
    return pl_fail(PL_ERR_CONFIG, path, "the path is too long; use a shorter one");
  PL_TRY(pl_host_learn());
  for (;;) {
    /* From before the try: who stood still in it may have made the file anew by then. */
    int64_t waited = pl_monotonic_ms() - start;
    pl_fit fit = IS_OLD;
    if (!pl_file_exists(path)) PL_TRY(make(path, kind, NULL, 0, context));
    pl_status status = try_open(out, context, &fit);
    if (status == PL_OK || (status < 0 && pl_file_exists(path))) return status;
    /* Others who open it too, to make it anew, have it for some milliseconds; its users stay. */
    bool is_of_others = fit == IS_OTHER_LAYOUT || fit == IS_OTHER_NAMESPACE;
    if (waited >= (is_of_others ? OTHERS_MS : WAIT_MS)) return in_use(out, fit);
    pl_sleep_ms(1);
  }
}

/* The lock that is asked for replaces the one that is held, and when it is not given that is gone
 * as well (flock(2)): in between another may remove the file. */
pl_status pl_shared_remove(pl_shared *self) {
  pl_file_info info;
  PL_TRY(pl_file_ask(self->fd, self->path, &info));
  pl_status status = pl_file_lock(self->fd, self->path, true, 0);
  if (status == PL_OK) status = check_name(self->path, &info);
  if (status == PL_OK) status = pl_file_remove(self->path);
  if (status == PL_OK) return PL_OK;
  pl_status again = pl_file_lock(self->fd, self->path, false, WAIT_MS);
  if (again == PL_OK) again = check_name(self->path, &info);
  if (again == PL_BUSY)
    return pl_fail(PL_ERR_TIMEOUT, self->path, "another process has been removing %s for %d ms; "
                   "continue or kill it, then try again", self->kind->noun, WAIT_MS);
  if (again < 0) return again;
  return again == PL_NOT_READY ? PL_OK : status;
}

void pl_shared_let_go(pl_shared *self) {
  /* The mapping keeps the open file, and with it the flock, which a forked child shares. The
   * descriptor stays: another thread may be about to use it, and its number would be reused. */
  if (self->fd >= 0 && self->fork_generation == pl_forks) pl_file_unlock(self->fd);
}

void pl_shared_close(pl_shared *self) {
  if (self->data) pl_file_unmap(self->data, self->kind->bytes_max);
  pl_shared_let_go(self);
  pl_file_close(self->fd);
  self->data = NULL;
  self->fd = -1;
}
