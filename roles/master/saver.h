/*
 * Stores ballots (shared/ballots.h) and views (shared/view.h) in a thread of its own, since a disk
 * may take as long as it likes, and a shard waits for none. One store at a time.
 */
#ifndef WVM_MASTER_SAVER_H
#define WVM_MASTER_SAVER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

#include "ring/post.h"
#include "shared/ballots.h"
#include "shared/view.h"

/* Stores a view, as wvm_ballots_store() does ballots. The saver's thread. 0 or -errno. */
typedef int wvm_saver_view_fn(const void *ctx, const struct wvm_view *view);

struct wvm_saver {
	const struct wvm_ballots *ballots;
	wvm_saver_view_fn *view_store;
	const void *view_ctx;
	struct wvm_shard *shard;
	wvm_post_fn done;
	void *ctx;
	pthread_t thread;
	sem_t work;
	bool started, ending;       /* ending: atomic */
	struct wvm_epoch_durable d; /* the thread's from wvm_saver_save() to done */
	struct wvm_view view;       /* likewise; stored before them */
	bool with_view;             /* it is new */
	uint64_t failed;            /* stores that did not succeed at once; atomic */
};

/*
 * Starts the thread. done runs in the shard's thread after each store, which is tried each second
 * until it succeeds; the first failure of each is logged. 0 or -errno.
 */
int wvm_saver_open(struct wvm_saver *s, const struct wvm_ballots *ballots,
		   wvm_saver_view_fn *view_store, const void *view_ctx, struct wvm_shard *shard,
		   wvm_post_fn done, void *ctx);

/* Begins to store *view (NULL: it is the last one still), and then *d. The shard's thread; not
 * again before done. */
void wvm_saver_save(struct wvm_saver *s, const struct wvm_epoch_durable *d,
		    const struct wvm_view *view);

/* Waits for a store under way, and ends the thread. The shard exists, and need not run any more. */
void wvm_saver_close(struct wvm_saver *s);

#endif
