/* A word that moves 50 ms after somebody asked it to: what a loop compares once a record, where a
 * clock would cost as much as the record. Nobody asks, nothing moves. */
#ifndef PL_TICK_H
#define PL_TICK_H

#include <stdatomic.h>
#include <stdint.h>

enum { PL_TICK_MS = 50 };

extern _Atomic uint64_t pl_ticks;

/* The next tick comes within PL_TICK_MS; at once where no thread is to be had for it. Cost: a load,
 * and a system call once a tick. */
void pl_tick_order(void);

#endif
