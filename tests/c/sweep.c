/* The loop of a sweep, and what every judge asks. */
#define _GNU_SOURCE
#include "sweep.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_S = 20, FAILURES_MAX = 20 };

static const char *const outcome_names[OUTCOMES] = {"", "", "absorbed", "refused", "poisoned"};

report *the_report;
static const sweep *all;
static char what[80]; /* the words of main, for messages */
static int failures;

/* ---- judgement -------------------------------------------------------------------------- */

bool is_sync(void) { return refusal.kind == CALL_FDATASYNC || refusal.kind == CALL_FSYNC; }

/* Does the status say what happened? */
static bool fits(pl_status status, int answer) {
  if (status == PL_ERR_DURABILITY) return is_sync();
  switch (answer) {
    case ENOSPC:
    case EFBIG: return status == PL_ERR_DISK_FULL;
    case EMFILE: return status == PL_ERR_LIMIT;
    case ENOMEM: return status == PL_ERR_LIMIT || status == PL_ERR_NO_MEMORY;
    case EAGAIN: return status == PL_ERR_LIMIT;
    case EFAULT: return status == (refusal.for_write ? PL_ERR_DISK_FULL : PL_ERR_CORRUPT);
    case EINTR:
    case ANSWER_SHORT: return false;
    default: return status == PL_ERR_IO;
  }
}

void must_fit(pl_status status) {
  const pl_error *error = pl_error_last();
  if (!fits(status, refusal.answer) || !*error->text || error->status != status)
    die("status %d, errno %d, '%s' [%s] does not fit", (int)status, error->os_errno, error->text,
        error->path);
}

void must_balance(void) {
  if (balance.descriptors || balance.mappings || balance.blocks)
    die("left: %ld descriptors, %ld mappings, %ld blocks", balance.descriptors, balance.mappings,
        balance.blocks);
}

void in_child(void (*act)(void)) {
  int status;
  pid_t pid = fork();
  if (pid == 0) {
    act();
    fflush(NULL);
    _exit(0);
  }
  if (waitpid(pid, &status, 0) != pid || status != 0) die("another process: status %x", status);
}

/* ---- one run ---------------------------------------------------------------------------- */

void note_refusal(void) {
  the_report->kind = refusal.kind;
  the_report->outcome = refusal.answer ? REFUSED : NO_SUCH_ANSWER;
  snprintf(the_context + strlen(the_context), sizeof the_context - strlen(the_context),
           " meets %s: %s", call_names[refusal.kind],
           refusal.answer > 0 ? strerrorname_np(refusal.answer) : "short");
}

static void play(void) {
  for (int i = 0; i < all->steps; i++) {
    const step *s = &all->script[i];
    bool was_met = refusal.kind >= 0;
    snprintf(the_context, sizeof the_context, "%s, call %ld%s%s, step '%s'", what, refusal.at,
             was_met ? " was " : "", was_met ? call_names[refusal.kind] : "", s->name);
    refusal.is_armed = !s->is_faultless;
    pl_status status = s->act();
    refusal.is_armed = false;
    refusal.is_lifted = refusal.kind >= 0;
    if (was_met || refusal.kind < 0) {
      must(status, s->name);
      continue;
    }
    if (status > 0) die("status %d is not an answer", (int)status);
    if (status < 0) must_fit(status);
    if (status == PL_OK && refusal.answer) the_report->outcome = ABSORBED;
    all->judge(status);
    if (status < 0) must(s->act(), "the same again, without the fault");
  }
}

static void fall(int number) {
  static const char *const names[] = {[SIGSEGV] = "SIGSEGV", [SIGBUS] = "SIGBUS",
                                      [SIGALRM] = "hangs", [SIGABRT] = "SIGABRT"};
  die("%s", names[number]);
}

static _Noreturn void play_alone(const struct refusal *wanted) {
  const int signals[] = {SIGSEGV, SIGBUS, SIGALRM, SIGABRT};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], fall);
  alarm(PATIENCE_S);
  refusal = *wanted;
  memset(&balance, 0, sizeof balance);
  play();
  the_report->calls = refusal.calls;
  must_balance();
  _exit(0);
}

static outcome play_with(const struct refusal *wanted) {
  int status;
  remove_tree(all->directory); /* of a run that failed */
  mkdir(all->directory, 0700);
  all->begin();
  memset(the_report, 0, sizeof *the_report);
  pid_t pid = fork();
  if (pid == 0) play_alone(wanted);
  if (waitpid(pid, &status, 0) != pid) die("waitpid: %s", strerror(errno));
  snprintf(the_context, sizeof the_context, "%s, call %ld was %s", what, wanted->at,
           call_names[the_report->kind]);
  if (status == 0) in_child(all->verify_afresh);
  else failures++;
  remove_tree(all->directory);
  if (failures == FAILURES_MAX) die("too many have failed");
  return the_report->outcome;
}

/* ---- all of them ------------------------------------------------------------------------ */

static long counts[CALLS][ANSWERS_MAX][OUTCOMES];

static void print_counts(long calls, long runs) {
  for (int kind = 0; kind < CALLS; kind++)
    for (int i = 0; i < ANSWERS_MAX && call_answers[kind][i]; i++)
      for (int o = ABSORBED; o < OUTCOMES; o++)
        if (counts[kind][i][o])
          printf("run %s %s %s %ld\n", call_names[kind],
                 call_answers[kind][i] > 0 ? strerrorname_np(call_answers[kind][i]) : "short",
                 outcome_names[o], counts[kind][i][o]);
  printf("calls %ld\nruns %ld\n", calls, runs);
}

int sweep_all(const sweep *wanted_all, char **words) {
  struct refusal wanted = {.kind = -1, .for_good = strcmp(words[0], "for-good") == 0};
  long runs = 0, stride = atol(words[2]);
  all = wanted_all;
  snprintf(what, sizeof what, "%s %s", strrchr(all->directory, '/') + 1, words[0]);
  the_report = mmap(NULL, sizeof *the_report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                    -1, 0);
  for (wanted.at = atol(words[1]);; wanted.at += stride)
    for (wanted.choice = 0; wanted.choice < ANSWERS_MAX; wanted.choice++) {
      outcome o = play_with(&wanted);
      if (o == UNREACHED) {
        print_counts(the_report->calls, runs);
        return failures != 0;
      }
      if (o == NO_SUCH_ANSWER) break;
      counts[the_report->kind][wanted.choice][o]++;
      runs++;
    }
}
