/* The slow half of the wall clock, and the other clocks. */
#include "pl_clock.h"

#include <stdbool.h>
#include <time.h>

enum { NS_A_MS = 1000000, NS_A_S = 1000000000, CALIBRATE_NS = 100000, SCALE = 1024 };

_Thread_local pl_clock_look pl_clock_last __attribute__((tls_model("initial-exec")));

static uint64_t read_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * NS_A_S + (uint64_t)now.tv_nsec;
}

#if defined(__x86_64__)
/* Ticks a nanosecond, times SCALE, from two looks at least CALIBRATE_NS apart. Measured ever anew:
 * the counter may run at another pace after a migration, and a clock that was set makes one wrong
 * measure, which is wrong for a millisecond at most. 0: not known, or not to be believed. */
static uint64_t rate(uint64_t tick, uint64_t ns) {
  static _Thread_local uint64_t from_tick, from_ns, found;
  if (from_ns && tick > from_tick && ns > from_ns && ns - from_ns < CALIBRATE_NS) return found;
  bool is_fair = from_ns && tick > from_tick && ns > from_ns && ns - from_ns < NS_A_S;
  found = is_fair ? (tick - from_tick) * SCALE / (ns - from_ns) : 0;
  if (found > 8 * SCALE) found = 0; /* no counter runs at 8 GHz: the clock was set back */
  from_tick = tick;
  from_ns = ns;
  return found;
}
#endif

int64_t pl_clock_look_anew(uint64_t tick) {
  uint64_t ns = read_ns(CLOCK_REALTIME), ms = ns / NS_A_MS;
#if defined(__x86_64__)
  uint64_t left = NS_A_MS - ns % NS_A_MS;
  left -= left / 16; /* rather too soon than late */
  pl_clock_last.good_for = left * rate(tick, ns) / SCALE;
#endif
  pl_clock_last.tick = tick;
  pl_clock_last.ms = (int64_t)ms;
  return (int64_t)ms;
}

int64_t pl_monotonic_ms(void) { return (int64_t)(read_ns(CLOCK_MONOTONIC_COARSE) / NS_A_MS); }
uint64_t pl_monotonic_ns(void) { return read_ns(CLOCK_MONOTONIC); }

void pl_sleep_ms(int ms) {
  struct timespec pause = {ms / 1000, (long)(ms % 1000) * NS_A_MS};
  nanosleep(&pause, NULL);
}

struct timespec pl_deadline(int wait_ms) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += wait_ms / 1000;
  until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000;
  }
  return until;
}
