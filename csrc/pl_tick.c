/* The thread that ticks: the first order starts it; without orders it sleeps. It is none of the
 * housekeeper's chores, who may sit in a sync for seconds. */
#include "pl_tick.h"

#include <pthread.h>
#include <stdalign.h>
#include <stdbool.h>

#include "pl_clock.h"
#include "pl_file.h"
#include "pl_thread.h"

enum { ASLEEP_MS = 3600 * 1000 };

alignas(128) _Atomic uint64_t pl_ticks; /* on lines of its own: it is read once a record */

static alignas(128) struct ticker {
  _Atomic uint32_t is_ordered;
  pthread_mutex_t lock; /* of what follows */
  bool is_running, has_handler;
} ticker = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *run(void *unused) {
  (void)unused;
  for (;;) {
    while (!atomic_load(&ticker.is_ordered)) pl_futex_wait(&ticker.is_ordered, 0, ASLEEP_MS);
    pl_sleep_ms(PL_TICK_MS);
    atomic_store(&ticker.is_ordered, 0); /* before the tick: who sees that orders the next */
    atomic_fetch_add(&pl_ticks, 1);
  }
  return NULL;
}

/* The child has no ticker. Its tick makes those who use what the parent opened look up. */
static void after_fork_in_child(void) {
  pthread_mutex_init(&ticker.lock, NULL);
  ticker.is_running = false;
  atomic_store(&ticker.is_ordered, 0);
  atomic_fetch_add(&pl_ticks, 1);
}

static bool has_thread(void) {
  pthread_mutex_lock(&ticker.lock);
  if (!ticker.has_handler) pthread_atfork(NULL, NULL, after_fork_in_child);
  ticker.has_handler = true;
  if (!ticker.is_running) ticker.is_running = pl_thread_start(run, NULL, NULL) == 0;
  bool is_running = ticker.is_running;
  pthread_mutex_unlock(&ticker.lock);
  return is_running;
}

void pl_tick_order(void) {
  if (atomic_load_explicit(&ticker.is_ordered, memory_order_relaxed)) return;
  if (atomic_exchange(&ticker.is_ordered, 1)) return;
  if (has_thread()) {
    pl_futex_wake_all(&ticker.is_ordered);
  } else {
    atomic_store(&ticker.is_ordered, 0);
    atomic_fetch_add(&pl_ticks, 1);
  }
}
