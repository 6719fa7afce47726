/* The sentry: looks at all posts, announces itself at their bells, looks again, sleeps. Its lock is
 * held for a look, never in a sleep. */
#include "pl_sentry.h"

#include <pthread.h>
#include <string.h>

#include "pl_thread.h"

/* A look a second costs next to nothing; at posts that share no bells it has to be often. */
enum { SLEEP_MS = 1000, POLL_POSTS_MS = 20, IDLE_MS = 3600 * 1000 };

static struct sentry {
  pthread_mutex_t lock;
  pl_post *posts;
  pl_bells *asleep_on; /* bells that wake it; what is set meanwhile rings them */
  _Atomic uint32_t orders; /* futex it sleeps on while there is no post */
  bool is_running, has_handler;
} sentry = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void take_out(pl_post *post) {
  for (pl_post **link = &sentry.posts; *link; link = &(*link)->next)
    if (*link == post) {
      *link = post->next;
      break;
    }
  post->is_set = false;
}

static void ring_ready(void) {
  pl_post *next;
  for (pl_post *post = sentry.posts; post; post = next) {
    next = post->next;
    if (pl_wait_find(&post->wait) < 0) continue;
    take_out(post);
    pl_file_signal(post->event_fd);
  }
}

/* Announces at all of them. Returns the bells to sleep on, as they were `seen` before; NULL where
 * there are several. */
static pl_bells *announce(uint32_t *seen) {
  pl_bells *bells = NULL;
  uint64_t inode = 0, of_post;
  for (pl_post *post = sentry.posts; post; post = post->next) {
    pl_wait_let_go(&post->wait);
    pl_bells *its = pl_wait_bells(&post->wait, &of_post);
    if (!its || (bells && of_post != inode)) return NULL;
    uint32_t before = pl_wait_announce(&post->wait, its);
    if (!bells) *seen = before;
    bells = its;
    inode = of_post;
  }
  return bells;
}

static void *run(void *unused) {
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&sentry.lock);
    uint32_t orders = atomic_load(&sentry.orders), seen = 0;
    ring_ready();
    sentry.asleep_on = announce(&seen);
    ring_ready();
    if (!sentry.posts) sentry.asleep_on = NULL;
    pl_bells *bells = sentry.asleep_on;
    int sleep_ms = sentry.posts ? POLL_POSTS_MS : IDLE_MS;
    pthread_mutex_unlock(&sentry.lock);
    if (bells) pl_bells_sleep(bells, seen, SLEEP_MS);
    else pl_futex_wait(&sentry.orders, orders, sleep_ms);
  }
  return NULL;
}

static void before_fork(void) { pthread_mutex_lock(&sentry.lock); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&sentry.lock); }

static void after_fork_in_child(void) {
  pthread_mutex_init(&sentry.lock, NULL);
  sentry.posts = NULL;
  sentry.asleep_on = NULL;
  sentry.is_running = false;
}

static int start(void) {
  if (!sentry.has_handler)
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  sentry.has_handler = true;
  int error = sentry.is_running ? 0 : pl_thread_start(run, NULL, NULL);
  sentry.is_running = error == 0;
  return error;
}

pl_status pl_post_set(pl_post *post) {
  pthread_mutex_lock(&sentry.lock);
  int error = start();
  if (!error) {
    post->next = sentry.posts;
    sentry.posts = post;
    post->is_set = true;
    atomic_fetch_add(&sentry.orders, 1);
    if (sentry.asleep_on) pl_bells_ring_own(sentry.asleep_on);
    else pl_futex_wake_all(&sentry.orders);
  }
  pthread_mutex_unlock(&sentry.lock);
  if (!error) return PL_OK;
  pl_fail(PL_ERR_LIMIT, "", "the thread that waits for event loops cannot be started: %s; raise "
          "the limit of threads (ulimit -u)", strerror(error));
  pl_error_last()->os_errno = error;
  return PL_ERR_LIMIT;
}

void pl_post_withdraw(pl_post *post) {
  pthread_mutex_lock(&sentry.lock);
  if (post->is_set) take_out(post);
  pthread_mutex_unlock(&sentry.lock);
}

void pl_bells_close(pl_bells *bells) {
  if (!bells) return;
  pthread_mutex_lock(&sentry.lock);
  if (sentry.asleep_on == bells) {
    sentry.asleep_on = NULL;
    pl_bells_ring_own(bells);
  }
  pthread_mutex_unlock(&sentry.lock);
  pl_file_unmap((uint8_t *)bells, sizeof *bells);
}

void pl_post_ring(pl_post *post) {
  pthread_mutex_lock(&sentry.lock);
  if (post->is_set) {
    take_out(post);
    pl_file_signal(post->event_fd);
  }
  pthread_mutex_unlock(&sentry.lock);
}
