/* How long to look, and when not to. What is learnt is a thread's own. */
#include "pl_spin.h"

#include "pl_clock.h"

enum {
  SPIN_NS = 50000,
  SHORT_NS = 60000, /* of a wait with a sleep: had both sides looked, there had been none */
  REST_MAX_NS = 64 * SPIN_NS,
  PAUSES_MAX = 16, /* between two looks: each takes the cache line from who writes it */
};

static _Thread_local bool was_short;
static _Thread_local uint64_t rest_ns = SPIN_NS, resting_until_ns;

bool pl_spin(uint64_t start_ns, bool (*is_there)(const void *what), const void *what) {
  if (!was_short || start_ns < resting_until_ns) return false;
  uint64_t now_ns = start_ns;
  for (int pauses = 1; now_ns - start_ns < SPIN_NS; now_ns = pl_monotonic_ns()) {
    for (int i = 0; i < pauses; i++) pl_spin_pause();
    if (is_there(what)) {
      rest_ns = SPIN_NS;
      return true;
    }
    if (pauses < PAUSES_MAX) pauses *= 2;
  }
  resting_until_ns = now_ns + rest_ns;
  if (rest_ns < REST_MAX_NS) rest_ns *= 2;
  return false;
}

void pl_spin_learn(uint64_t start_ns, bool is_there) {
  was_short = is_there && pl_monotonic_ns() - start_ns < SHORT_NS;
}
