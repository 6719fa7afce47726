/* Looking again and again before a sleep: who is answered at once needs no wake-up. */
#ifndef PL_SPIN_H
#define PL_SPIN_H

#include <stdbool.h>
#include <stdint.h>

/* Tells the processor that this thread only looks. */
static inline void pl_spin_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/* Looks, for as long as going to sleep and being woken may take: so it costs at most twice what who
 * knows the future pays (Karlin and others, Competitive snoopy caching, 1988). True: it is there.
 * False, mostly at once, for a thread whose last wait was long, as its next will be; and for one
 * that has looked in vain, for the next 1, 2, 4 .. 64 times as long: where there are fewer cores
 * than who want them, looking takes a hundredth of the time. start_ns: when the wait began, by
 * pl_monotonic_ns. */
bool pl_spin(uint64_t start_ns, bool (*is_there)(const void *what), const void *what);

/* After the sleep of a wait: how long it was in all decides about the next. */
void pl_spin_learn(uint64_t start_ns, bool is_there);

#endif
