#include "roles/master/saver.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "ring/daemon.h"

#define AGAIN_S      1
#define POST_WAIT_NS 1000000L
#define STACK_BYTES  (128u << 10)

static bool ending(struct wvm_saver *s)
{
	return __atomic_load_n(&s->ending, __ATOMIC_ACQUIRE);
}

/* False: it is to end first. Whoever ends it posts, too, so a wait is no longer than it has to be.
 */
static bool pause_before_next(struct wvm_saver *s)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += AGAIN_S;
	while (!ending(s) && (!sem_clockwait(&s->work, CLOCK_MONOTONIC, &t) || errno == EINTR))
		;
	return !ending(s);
}

static bool store(struct wvm_saver *s)
{
	bool said = false;
	int r;

	while ((r = wvm_ballots_store(s->ballots, &s->d))) {
		if (!said)
			wvm_log("%s: cannot store ballots: %s; this node takes no part in votes "
				"until it can, and tries each second: free room there",
				s->ballots->path, strerror(-r));
		said = true;
		__atomic_fetch_add(&s->failed, 1, __ATOMIC_RELAXED);
		if (!pause_before_next(s))
			return false;
	}
	if (said)
		wvm_log("%s: ballots are stored again", s->ballots->path);
	return true;
}

static void *run(void *arg)
{
	struct wvm_saver *s = arg;

	for (;;) {
		while (sem_wait(&s->work))
			;
		if (ending(s) || !store(s))
			return NULL;
		while (wvm_post_outside(s->shard, s->done, s->ctx, NULL, 0) == -EAGAIN &&
		       !ending(s))
			nanosleep(&(struct timespec){.tv_nsec = POST_WAIT_NS}, NULL);
	}
}

int wvm_saver_open(struct wvm_saver *s, const struct wvm_ballots *ballots, struct wvm_shard *shard,
		   wvm_post_fn done, void *ctx)
{
	pthread_attr_t attr;
	int r;

	*s = (struct wvm_saver){.ballots = ballots, .shard = shard, .done = done, .ctx = ctx};
	sem_init(&s->work, 0, 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	r = pthread_create(&s->thread, &attr, run, s);
	pthread_attr_destroy(&attr);
	s->started = !r;
	if (!r)
		pthread_setname_np(s->thread, "wvm-ballots");
	return -r;
}

void wvm_saver_save(struct wvm_saver *s, const struct wvm_epoch_durable *d)
{
	s->d = *d;
	sem_post(&s->work);
}

void wvm_saver_close(struct wvm_saver *s)
{
	if (!s->started)
		return;
	__atomic_store_n(&s->ending, true, __ATOMIC_RELEASE);
	sem_post(&s->work);
	pthread_join(s->thread, NULL);
	sem_destroy(&s->work);
	s->started = false;
}
