/*
 * Stores ballots (shared/ballots.h) in a thread of its own, since a disk may take as long as it
 * likes, and a shard waits for none. One store at a time.
 */
#ifndef WVM_MASTER_SAVER_H
#define WVM_MASTER_SAVER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

#include "ring/post.h"
#include "shared/ballots.h"

struct wvm_saver {
	const struct wvm_ballots *ballots;
	struct wvm_shard *shard;
	wvm_post_fn done;
	void *ctx;
	pthread_t thread;
	sem_t work;
	bool started, ending;       /* ending: atomic */
	struct wvm_epoch_durable d; /* the thread's from wvm_saver_save() to done */
	uint64_t failed;            /* stores that did not succeed at once; atomic */
};

/*
 * Starts the thread. done runs in the shard's thread after each store, which is tried each second
 * until it succeeds; the first failure of each is logged. 0 or -errno.
 */
int wvm_saver_open(struct wvm_saver *s, const struct wvm_ballots *ballots, struct wvm_shard *shard,
		   wvm_post_fn done, void *ctx);

/* Begins to store *d. The shard's thread; not again before done. */
void wvm_saver_save(struct wvm_saver *s, const struct wvm_epoch_durable *d);

/* Waits for a store under way, and ends the thread. The shard exists, and need not run any more. */
void wvm_saver_close(struct wvm_saver *s);

#endif
