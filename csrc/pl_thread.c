/* Starting a thread that gets no signals. */
#include "pl_thread.h"

#include <signal.h>
#include <stddef.h>

int pl_thread_start(void *(*run)(void *), void *argument, pthread_t *thread) {
  pthread_t unused;
  pthread_attr_t attributes;
  sigset_t all, old;
  sigfillset(&all);
  pthread_attr_init(&attributes);
  if (!thread) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 256 * 1024);
  pthread_sigmask(SIG_BLOCK, &all, &old);
  int error = pthread_create(thread ? thread : &unused, &attributes, run, argument);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attributes);
  return error;
}
