/* Tests of pl_spin, by a clock that moves 1 us a look. Prints what does not hold. */
#include <stdio.h>

#include "pl_spin.h"

enum { US = 1000, MS = 1000000, LOOKS_MIN = 30, LOOKS_MAX = 60 };

static uint64_t now_ns = 10 * MS;
static int failures, looks, there_at; /* so many looks later it is there; 0: never */

uint64_t pl_monotonic_ns(void) { return now_ns; }

static bool is_there(const void *what) {
  (void)what;
  now_ns += US;
  return ++looks == there_at;
}

static void check(bool holds, const char *what) {
  if (holds) return;
  printf("%s\n", what);
  failures++;
}

/* A wait in which it is there after so many looks, or else after a sleep of so long. */
static bool wait_for(int at, uint64_t asleep_ns) {
  uint64_t start_ns = now_ns;
  looks = 0;
  there_at = at;
  if (pl_spin(start_ns, is_there, NULL)) return true;
  now_ns += asleep_ns;
  pl_spin_learn(start_ns, true);
  return false;
}

int main(void) {
  wait_for(0, 10 * MS);
  wait_for(1, 10 * US);
  check(looks == 0, "a thread looked though its last wait was long");
  check(wait_for(5, 0) && looks == 5, "a thread did not look though its last wait was short");
  check(wait_for(5, 0), "a thread did not look though it had looked with success");

  wait_for(0, 5 * US);
  check(looks >= LOOKS_MIN && looks <= LOOKS_MAX, "a look in vain did not take 50 us");
  wait_for(1, 10 * US);
  check(looks == 0, "a thread did not rest though it had looked in vain");
  now_ns += 45 * US;
  check(wait_for(1, 0), "a thread rested for longer than it had looked");

  uint64_t began_ns = now_ns, looked = 0;
  while (now_ns - began_ns < 1000 * (uint64_t)MS) {
    wait_for(0, 5 * US);
    looked += (uint64_t)looks;
  }
  check(looked * 50 < 1000 * 1000, "looking in vain took more than a fiftieth of the time");
  now_ns += 4 * MS;
  check(wait_for(1, 0), "a thread was not given another chance after 4 ms");
  wait_for(0, 5 * US);
  now_ns += 55 * US;
  check(wait_for(1, 0), "success did not shorten the rest");

  wait_for(0, 10 * MS);
  now_ns += 10 * MS;
  uint64_t start_ns = now_ns;
  pl_spin_learn(start_ns, false);
  wait_for(1, 0);
  check(looks == 0, "a wait in vain was taken for a short one");
  return failures != 0;
}
