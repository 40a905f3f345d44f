/*
 * A master whose node leaves when it is told to: SIGUSR1 begins, SIGUSR2 takes it back.
 * For check_leave, which is about the emptying and not about who decides on it.
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

int main(int argc, char **argv)
{
	char err[1024] = "";
	sigset_t set;
	int number;

	wvm_master_options(&options, argc, argv);
	wvm_daemon_files();
	wvm_daemon_signals(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (wvm_node_start(&node, &options, err, sizeof(err))) {
		wvm_log("%s", err);
		return EXIT_FAILURE;
	}
	while ((number = sigwaitinfo(&set, NULL)) < 0 || number == SIGUSR1 || number == SIGUSR2) {
		bool leaving = number == SIGUSR1;

		if (number > 0 && wvm_post_outside(node.shards[0].shard, on_leave, NULL, &leaving,
						   sizeof(leaving)))
			wvm_log("the inbox is full");
	}
	wvm_node_stop(&node);
	return node.exit_status;
}
