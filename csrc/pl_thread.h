/* Threads of our own: small, and deaf to signals, which are the interpreter's. */
#ifndef PL_THREAD_H
#define PL_THREAD_H

#include <pthread.h>

/* Starts `run(argument)`; with `thread` NULL nobody will join it. Returns an errno. */
int pl_thread_start(void *(*run)(void *), void *argument, pthread_t *thread);

#endif
