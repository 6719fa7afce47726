/* How a log dies while others have it open.
 *
 * The state in the page comes first, and the doorbells with it: whoever appends, reads or sleeps in
 * any process is told. Then the locks, so that nobody is inside of what goes by the directory's
 * name; then the name. Files that are mapped live on until their last holder lets go of them.
 *
 * The flock is held: nobody can be recovering the log, or make a new page for it. Who gets it
 * exclusively has nobody to tell.
 */
#include <errno.h>
#include <fcntl.h>

#include "pl_fault.h"
#include "pl_log.h"

static pl_status map_file(const char *directory, const char *name, size_t size, uint8_t **data,
                          pl_file_info *info) {
  char path[PL_PATH_MAX];
  int fd;
  PL_TRY(pl_file_path(directory, name, path));
  PL_TRY(pl_file_open(path, O_RDWR, &fd));
  pl_status status = pl_file_ask(fd, path, info);
  if (status == PL_OK && info->size < size)
    status = pl_fail(PL_ERR_FORMAT, path, "the file is too short");
  if (status == PL_OK) status = pl_file_map(fd, path, size, true, data);
  pl_file_close(fd);
  return status;
}

/* May somebody have the log open by this page? Of any incarnation: all that is here goes. */
static bool is_in_use(const pl_page *page, const pl_file_info *file) {
  pl_meta meta;
  meta.incarnation = page->identity.incarnation;
  return pl_page_trust(page, file, &meta) == PL_TRUST_ALL;
}

static pl_status set_aside(const char *directory, const char *aside) {
  pl_status status = pl_file_rename(directory, aside);
  PL_POINT("erase-renamed");
  return status == PL_ERR_IO && pl_error_last()->os_errno == ENOENT ? PL_OK : status;
}

static void tell_all(const char *directory, pl_page *page) {
  uint8_t *bells;
  pl_file_info info;
  atomic_store(&page->state, PL_LOG_DELETED);
  PL_POINT("erase-marked");
  if (map_file(directory, "doorbells", sizeof(pl_bells), &bells, &info) != PL_OK) return;
  pl_bells_ring((pl_bells *)(void *)bells, &page->bells);
  pl_file_unmap(bells, sizeof(pl_bells));
}

/* A lock whose owner died is as good as any: what it guards is not used again. */
static pl_status delete_in_use(const char *directory, const char *aside, pl_page *page,
                               int wait_ms) {
  if (page->identity.pid_namespace != pl_pid_namespace())
    return pl_fail(PL_ERR_ENVIRONMENT, directory,
                   "processes of another PID namespace have the log open; delete it from there");
  tell_all(directory, page);
  PL_POINT("erase-told");
  pl_lock_result locked = pl_lock_wait(&page->maintenance_lock, wait_ms);
  if (locked == PL_LOCK_BUSY) return PL_BUSY;
  if (locked == PL_LOCKED_DEAD) pl_lock_adopt(&page->maintenance_lock);
  pl_status status = PL_BUSY;
  if (pl_slot_wait(&page->append_lock, wait_ms) != PL_LOCK_BUSY) {
    PL_POINT("erase-locked");
    status = set_aside(directory, aside);
    pl_slot_release(&page->append_lock);
  }
  if (locked != PL_LOCK_BROKEN) pl_lock_release(&page->maintenance_lock);
  return status;
}

static pl_status delete_locked(const char *directory, const char *aside, int wait_ms) {
  uint8_t *data;
  pl_file_info info;
  pl_status status = map_file(directory, "control", PL_PAGE_BYTES, &data, &info);
  if (status != PL_OK) return pl_is_evidence(status) ? set_aside(directory, aside) : status;
  pl_page *page = (pl_page *)(void *)data;
  status = is_in_use(page, &info) ? delete_in_use(directory, aside, page, wait_ms)
                                  : set_aside(directory, aside);
  pl_file_unmap(data, PL_PAGE_BYTES);
  return status;
}

pl_status pl_delete(const char *directory, const char *aside, int wait_ms) {
  char path[PL_PATH_MAX];
  int fd;
  PL_TRY(pl_host_learn());
  PL_TRY(pl_file_path(directory, "lock", path));
  pl_status status = pl_file_open(path, O_RDWR, &fd);
  if (status != PL_OK) return pl_is_evidence(status) ? set_aside(directory, aside) : status;
  status = pl_file_lock(fd, path, true, 0); /* alone: the page is of processes that are gone */
  if (status == PL_OK) {
    status = set_aside(directory, aside);
  } else if (status == PL_BUSY) {
    status = pl_file_lock(fd, path, false, wait_ms);
    if (status == PL_OK) status = delete_locked(directory, aside, wait_ms);
  }
  pl_file_close(fd);
  return status;
}
