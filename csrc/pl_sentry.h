/* Waiting without a thread of one's own: posts are watched by one thread of the process, which
 * writes to a descriptor when what a post waits for is there. For event loops.
 */
#ifndef PL_SENTRY_H
#define PL_SENTRY_H

#include "pl_wait.h"

typedef struct pl_post {
  pl_wait wait;       /* all that it points to is left alone while the post is set */
  int event_fd;       /* an eventfd that does not block; written to once, by then it is not set */
  bool is_set;        /* guarded by the sentry's lock, as is `next` */
  struct pl_post *next;
} pl_post;

/* Sets a post: once it is there already, the descriptor is written to at once. PL_ERR_LIMIT: there
 * can be no more threads. */
pl_status pl_post_set(pl_post *post);
/* Nothing of it is looked at any more, and the descriptor not written to, on return. */
void pl_post_withdraw(pl_post *post);
/* Withdraws it, if it is set, and writes to the descriptor. */
void pl_post_ring(pl_post *post);
/* Unmaps bells, on which the sentry may be asleep; NULL: there are none. */
void pl_bells_close(pl_bells *bells);

#endif
