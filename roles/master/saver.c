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

/* The view first: one that is a record ahead of the ballots is right, one behind is not. */
static int store_both(struct wvm_saver *s)
{
	int r = s->with_view ? s->view_store(s->view_ctx, &s->view) : 0;

	if (r)
		return r;
	s->with_view = false;
	return wvm_ballots_store(s->ballots, &s->d);
}

static bool store(struct wvm_saver *s)
{
	bool said = false;
	int r;

	while ((r = store_both(s))) {
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

int wvm_saver_open(struct wvm_saver *s, const struct wvm_ballots *ballots,
		   wvm_saver_view_fn *view_store, const void *view_ctx, struct wvm_shard *shard,
		   wvm_post_fn done, void *ctx)
{
	pthread_attr_t attr;
	int r;

	*s = (struct wvm_saver){.ballots = ballots,
				.view_store = view_store,
				.view_ctx = view_ctx,
				.shard = shard,
				.done = done,
				.ctx = ctx};
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

void wvm_saver_save(struct wvm_saver *s, const struct wvm_epoch_durable *d,
		    const struct wvm_view *view)
{
	s->d = *d;
	s->with_view = view;
	if (view)
		s->view = *view;
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
