/* A mapped file that the processes of one boot share, as a control page is: made by whoever comes
 * first, believed only while it is what was made, made anew after a reboot or a copy.
 *
 * It begins with an identity (pl_page.h). The mapping reaches beyond the file's end, so the file
 * may grow under it and no pointer into it ever moves. While it is open its descriptor holds a
 * shared flock: who gets the exclusive one knows that nobody else has it.
 */
#ifndef PL_SHARED_H
#define PL_SHARED_H

#include "pl_file.h"
#include "pl_page.h"

typedef struct pl_shared_kind {
  const char *noun;   /* what the file is, for messages */
  uint64_t magic;
  uint32_t layout;
  size_t bytes;       /* of a new file; of one that replaces another, at least that one's size */
  size_t bytes_max;   /* of the mapping */
  bool is_kept;       /* it holds what must not be lost: another version's is left alone */
  /* Fills a new, zeroed file. `old` is the one that it replaces, `old_size` of its bytes can be
   * read, and none of them is to be trusted; NULL: there is none. */
  void (*fill)(uint8_t *data, size_t size, const uint8_t *old, size_t old_size, void *context);
} pl_shared_kind;

typedef struct pl_shared {
  uint8_t *data;
  int fd;
  unsigned fork_generation;
  const pl_shared_kind *kind;
  char path[PL_PATH_MAX];
} pl_shared;

/* PL_ERR_FORMAT: of another layout, and in use. PL_ERR_ENVIRONMENT: in use in another PID
 * namespace, where the kernel's robust locks do not reach. PL_ERR_TIMEOUT: another process has been
 * making it anew for 10 s. What nobody has open is made anew, whoever it was of, unless it is kept:
 * then PL_ERR_FORMAT. */
pl_status pl_shared_open(const char *path, const pl_shared_kind *kind, void *context,
                         pl_shared *out);
/* Removes the file, if nobody else has it open (PL_BUSY). PL_OK too when another did: either way it
 * is of no more use. */
pl_status pl_shared_remove(pl_shared *self);
/* Others may remove the file or make it anew from then on; it stays mapped. Idempotent. */
void pl_shared_let_go(pl_shared *self);
void pl_shared_close(pl_shared *self);

#endif
