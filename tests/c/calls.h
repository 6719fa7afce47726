/* Every call of the core that the operating system may refuse, behind a door that a test holds.
 *
 * The linker leads each name of CALLS to __wrap_NAME (see Makefile), so the core is as it is
 * delivered: nothing in it knows of this. A door counts the calls while it is armed, refuses the
 * one that was asked for, and keeps the balance of descriptors, mappings and blocks of memory.
 */
#ifndef CALLS_H
#define CALLS_H

#include <stdbool.h>
#include <stdint.h>

enum { ANSWERS_MAX = 6, ANSWER_SHORT = -1 };

typedef enum call {
  CALL_OPEN,
  CALL_FSTAT,
  CALL_STAT,
  CALL_ACCESS,
  CALL_STATFS,
  CALL_FSTATVFS,
  CALL_FALLOCATE,
  CALL_FTRUNCATE,
  CALL_MMAP,
  CALL_MADVISE,
  CALL_FDATASYNC,
  CALL_FSYNC,
  CALL_RENAME,
  CALL_LINK,
  CALL_UNLINK,
  CALL_READ,
  CALL_WRITE,
  CALL_FLOCK,
  CALL_OPENDIR,
  CALL_READDIR,
  CALL_MALLOC,
  CALL_CALLOC,
  CALL_REALLOC,
  CALL_POSIX_MEMALIGN,
  CALL_PTHREAD_CREATE,
  CALL_GETRANDOM,
  CALLS,
} call;

extern const char *const call_names[CALLS];
extern const int call_answers[CALLS][ANSWERS_MAX]; /* errnos, or ANSWER_SHORT; 0 ends */

/* The `at`-th armed call is refused with its `choice`-th answer; with `for_good` all later ones
 * of its kind too, until `is_lifted`; an interruption or a short answer cannot last. */
extern struct refusal {
  long at;
  int choice;
  bool for_good;
  bool is_armed, is_lifted;
  long calls;  /* made while armed */
  int kind;    /* of the refused call; -1: not reached */
  int answer;  /* 0: that kind has no `choice`-th one */
  bool for_write; /* madvise's advice */
} refusal;

extern struct balance {
  long descriptors, mappings, blocks;
} balance;

/* The driver's, told at the first refusal. */
void note_refusal(void);

/* Whether threads run; else a script calls what they would do, so that the calls have one order. */
extern bool threads_run;

/* What statfs is to call the file system; 0: the truth. */
extern long filesystem_magic;

#endif
