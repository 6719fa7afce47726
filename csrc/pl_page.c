/* Making a control page, its locks and its doorbells. */
#define _GNU_SOURCE
#include "pl_page.h"

#include <fcntl.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pl_crc32c.h"
#include "pl_file.h"

void pl_page_identify(pl_page_identity *identity, uint64_t incarnation) {
  identity->magic = PL_PAGE_MAGIC;
  identity->layout = PL_PAGE_LAYOUT;
  identity->mutex_abi = pl_lock_abi();
  pl_boot_id(identity->boot_id);
  identity->incarnation = incarnation;
  identity->pid_namespace = pl_pid_namespace();
}

void pl_page_init(pl_page *page, uint64_t incarnation) {
  pl_page_identify(&page->identity, incarnation);
  atomic_store(&page->edition, 1);
  pl_lock_init(&page->flush_lock);
  pl_lock_init(&page->maintenance_lock);
}

void pl_page_put_options(pl_page *page, uint32_t edition, const pl_options *options) {
  page->options[edition & 1] = *options;
  page->options_check[edition & 1] = pl_crc32c(options, sizeof *options);
}

bool pl_page_get_options(const pl_page *page, pl_options *out) {
  uint32_t edition = atomic_load(&page->edition);
  pl_options found = page->options[edition & 1];
  if (pl_crc32c(&found, sizeof found) != page->options_check[edition & 1]) return false;
  *out = found;
  return true;
}

uint64_t pl_floor_check(int64_t floor, uint64_t incarnation) {
  /* splitmix64's finaliser (Steele, Lea, Flood 2014): any odd bit in either input shows. */
  uint64_t x = (uint64_t)floor * 0x9e3779b97f4a7c15u ^ incarnation;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

pl_status pl_bells_open(const char *path, pl_bells **out, uint64_t *inode) {
  uint8_t *data = NULL;
  int fd;
  PL_TRY(pl_file_open(path, O_RDWR, &fd));
  pl_file_info info;
  pl_status status = pl_file_ask(fd, path, &info);
  if (status == PL_OK && info.size < sizeof(pl_bells))
    status = pl_fail(PL_ERR_FORMAT, path, "this is no file of doorbells; remove it");
  if (status == PL_OK) status = pl_file_map(fd, path, sizeof(pl_bells), true, &data);
  pl_file_close(fd);
  *out = (pl_bells *)(void *)data;
  *inode = status == PL_OK ? info.inode : 0;
  return status;
}

static void ring(pl_bells *bells, uint64_t which) {
  for (; which; which &= which - 1) {
    _Atomic uint32_t *word = &bells->bell[__builtin_ctzll(which)].word;
    atomic_fetch_add(word, 1);
    pl_futex_wake_all(word);
  }
}

void pl_bells_ring(pl_bells *bells, _Atomic uint64_t *map) { ring(bells, atomic_exchange(map, 0)); }

void pl_bells_ring_all(pl_bells *bells) { ring(bells, ~(uint64_t)0); }

_Atomic bool pl_bells_must_fence = true;

void pl_bells_register(void) {
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0)
    atomic_store(&pl_bells_must_fence, false);
}

static _Thread_local int bell_of_thread = -1;
static _Atomic uint64_t bells_of_process; /* what its threads ever waited on */

static int own_bell(void) {
  if (bell_of_thread < 0) {
    bell_of_thread = (int)((uint32_t)syscall(SYS_gettid) * 2654435761u >> 26);
    atomic_fetch_or(&bells_of_process, (uint64_t)1 << bell_of_thread);
  }
  return bell_of_thread;
}

void pl_bells_ring_own(pl_bells *bells) { ring(bells, atomic_load(&bells_of_process)); }

uint32_t pl_bells_announce(pl_bells *bells, _Atomic uint64_t *const *maps, int count) {
  int bell = own_bell();
  uint32_t seen = atomic_load(&bells->bell[bell].word);
  for (int i = 0; i < count; i++) atomic_fetch_or(maps[i], (uint64_t)1 << bell);
  syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
  return seen;
}

bool pl_bells_sleep(pl_bells *bells, uint32_t seen, int timeout_ms) {
  return pl_futex_wait(&bells->bell[own_bell()].word, seen, timeout_ms);
}
