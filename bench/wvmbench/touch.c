#include "bench/wvmbench/touch.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct toucher {
	pthread_t thread;
	pthread_barrier_t *start;
	const struct attached *a;
	const struct plan_set *set;
	const struct touch_options *o;
	unsigned index;
	uint64_t first, n; /* its part of the set */
	uint32_t *order;
	struct wvm_samples samples;
	uint64_t began_ns, ended_ns;
	uint64_t wrong_page; /* + 1; 0: none */
	int error;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void touch_one(struct toucher *t, uint64_t page)
{
	unsigned word = plan_word(page);
	volatile uint64_t *at = attached_page(t->a, page) + word;
	uint64_t before = plan_expected(t->set, page, word), seen = before, began, ended;

	began = now_ns();
	if (t->o->write)
		*at = ~plan_pattern(page, word, t->set->generation);
	else
		seen = *at;
	ended = now_ns();
	if (seen != before)
		t->wrong_page = page + 1;
	wvm_samples_add(&t->samples, ended - began);
}

static void *touch_part(void *opaque)
{
	struct toucher *t = opaque;

	if (t->o->n_cores > 0)
		t->error = pin_to_core(t->o->core[t->index % t->o->n_cores]);
	pthread_barrier_wait(t->start);
	t->began_ns = now_ns();
	for (uint64_t i = 0; i < t->n && t->error == 0; i++)
		touch_one(t, plan_page(t->set, t->first + t->order[i]));
	t->ended_ns = now_ns();
	return NULL;
}

static int prepare(struct toucher *t, unsigned i)
{
	uint64_t share = t->set->pages / t->o->threads;

	t->index = i;
	t->first = i * share;
	t->n = i == t->o->threads - 1 ? t->set->pages - t->first : share;
	t->order = plan_order(t->n, t->o->seed + i);
	return t->order ? wvm_samples_init(&t->samples, t->n) : -ENOMEM;
}

static int run(struct toucher *t, unsigned n)
{
	pthread_barrier_t start;
	int rc = -pthread_barrier_init(&start, NULL, n);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < n; i++) {
		t[i].start = &start;
		/* Those that run already wait at the barrier for ever: nothing to go on with. */
		if (pthread_create(&t[i].thread, NULL, touch_part, &t[i]) != 0) {
			fprintf(stderr, "wvmbench: cannot start %u threads\n", n);
			exit(1);
		}
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(t[i].thread, NULL);
	pthread_barrier_destroy(&start);
	return 0;
}

static int complain(uint64_t page)
{
	fprintf(stderr, "wvmbench: page %" PRIu64 " (offset %#" PRIx64 ") holds a wrong word\n",
		page, page * WVM_PAGE_SIZE);
	return -EBADMSG;
}

static int verify(const struct attached *a, const struct plan_set *set)
{
	for (uint64_t i = 0; i < set->pages; i++) {
		uint64_t page = plan_page(set, i);

		for (unsigned word = 0; word < PLAN_WORDS; word++)
			if (attached_page(a, page)[word] != plan_expected(set, page, word))
				return complain(page);
	}
	return 0;
}

static int collect(const struct toucher *t, unsigned n, struct wvm_samples *all,
		   uint64_t *elapsed_ns)
{
	uint64_t began = UINT64_MAX, ended = 0;

	for (unsigned i = 0; i < n; i++) {
		if (t[i].error < 0)
			return t[i].error;
		if (t[i].wrong_page > 0)
			return complain(t[i].wrong_page - 1);
		began = t[i].began_ns < began ? t[i].began_ns : began;
		ended = t[i].ended_ns > ended ? t[i].ended_ns : ended;
		wvm_samples_append(all, &t[i].samples);
	}
	*elapsed_ns = ended - began;
	return 0;
}

int touch_set(const struct attached *a, struct plan_set *set, const struct touch_options *o,
	      struct wvm_samples *all, uint64_t *elapsed_ns)
{
	struct toucher *t = calloc(o->threads, sizeof(*t));
	int rc = t ? 0 : -ENOMEM;

	for (unsigned i = 0; t && i < o->threads && rc == 0; i++) {
		t[i].a = a;
		t[i].set = set;
		t[i].o = o;
		rc = prepare(&t[i], i);
	}
	if (rc == 0)
		rc = run(t, o->threads);
	if (rc == 0)
		rc = collect(t, o->threads, all, elapsed_ns);
	if (rc == 0 && o->write)
		set->own_word = true;
	if (rc == 0)
		rc = verify(a, set);
	for (unsigned i = 0; t && i < o->threads; i++) {
		wvm_samples_fini(&t[i].samples);
		free(t[i].order);
	}
	free(t);
	return rc;
}
