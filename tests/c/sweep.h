/* Runs a script again and again, and each time another call into the operating system fails: the
 * 1st, the 2nd, ... until the script ends before that one; each with every errno that fits it.
 *
 * The words are MODE FIRST STRIDE. MODE is once, or for-good (all later calls of that kind fail
 * too, until the step has returned). Each run is a process with an empty directory.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "calls.h"
#include "driver.h"

typedef enum outcome { UNREACHED, NO_SUCH_ANSWER, ABSORBED, REFUSED, POISONED, OUTCOMES } outcome;

/* What a run tells its parent. */
typedef struct report {
  outcome outcome;
  int kind;
  long calls;
} report;
extern report *the_report;

typedef struct step {
  const char *name;
  pl_status (*act)(void); /* may be called again after it failed */
  bool is_faultless;      /* what the world does, not we */
} step;

typedef struct sweep {
  const char *directory;
  const step *script;
  int steps;
  void (*begin)(void);           /* before each run */
  void (*judge)(pl_status status); /* of the step that met the fault: what is there by now? */
  void (*verify_afresh)(void);   /* in another process, when the script is over */
} sweep;

/* Prints "run CALL ERRNO OUTCOME COUNT" lines and figures; what main is to return. */
int sweep_all(const sweep *all, char **words);

/* For judges. */
bool is_sync(void); /* the refused call */
void must_fit(pl_status status);
void must_balance(void);
void in_child(void (*act)(void));

#endif
