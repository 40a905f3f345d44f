/*
 * A master whose node leaves when it is told to: SIGUSR1 begins, SIGUSR2 takes it back. SIGRTMIN
 * tells it that the topology's first node has left and is gone. For check_leave, which is about
 * the emptying and not about who decides on it.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "ring/post.h"
#include "roles/master/node.h"

static struct wvm_master_options options;
static struct wvm_node node;

static void on_leave(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	wvm_reclaim_leave(&node, *(const bool *)data);
}

static void on_gone(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	const struct wvm_node_shard *s = ctx;

	wvm_core_gone(s->core, 0, true);
}

static void tell_gone(void)
{
	for (unsigned i = 0; i < node.shard_count; i++)
		if (wvm_post_outside(node.shards[i].shard, on_gone, &node.shards[i], NULL, 0))
			wvm_log("the inbox of shard %u is full", i);
	wvm_log("knows that node 0 is gone");
}

static void tell_leave(bool leaving)
{
	if (wvm_post_outside(node.shards[0].shard, on_leave, NULL, &leaving, sizeof(leaving)))
		wvm_log("the inbox is full");
}

/* False: it is to end. */
static bool act(int number)
{
	if (number == SIGUSR1 || number == SIGUSR2)
		tell_leave(number == SIGUSR1);
	else if (number == SIGRTMIN)
		tell_gone();
	else
		return number < 0;
	return true;
}

int main(int argc, char **argv)
{
	char err[1024] = "";
	sigset_t set;

	wvm_master_options(&options, argc, argv);
	wvm_daemon_files();
	wvm_daemon_signals(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (wvm_node_start(&node, &options, err, sizeof(err))) {
		wvm_log("%s", err);
		return EXIT_FAILURE;
	}
	while (act(sigwaitinfo(&set, NULL)))
		;
	wvm_node_stop(&node);
	return node.exit_status;
}
