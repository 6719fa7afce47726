/* Time: the wall clock of record timestamps, and the clock of waits and periods. */
#ifndef PL_CLOCK_H
#define PL_CLOCK_H

#include <stdint.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

/* The last look at the wall clock, and for how many ticks of the processor's counter its answer,
 * in whole milliseconds, stands. A thread's own. */
typedef struct pl_clock_look {
  uint64_t tick, good_for;
  int64_t ms;
} pl_clock_look;
extern _Thread_local pl_clock_look pl_clock_last __attribute__((tls_model("initial-exec")));
int64_t pl_clock_look_anew(uint64_t tick);

/* Wall clock, ms since the epoch, rounded down; never late, so that who takes the time and then
 * appends finds the record by that time. Asking the kernel costs 25 ns, its coarse clock 6 but is
 * up to 7 ms late; so the answer is kept until the millisecond is over by the counter: 10 ns. */
static inline int64_t pl_clock_ms(void) {
#if defined(__x86_64__)
  uint64_t tick = __rdtsc();
#else
  uint64_t tick = 0; /* good_for stays 0 */
#endif
  if (__builtin_expect(tick - pl_clock_last.tick < pl_clock_last.good_for, 1))
    return pl_clock_last.ms;
  return pl_clock_look_anew(tick);
}

int64_t pl_monotonic_ms(void);  /* coarse: up to one kernel tick late; survives clock changes */
uint64_t pl_monotonic_ns(void); /* precise */
void pl_sleep_ms(int ms);
struct timespec pl_deadline(int wait_ms); /* so far from now, for the calls that want a moment */

#endif
