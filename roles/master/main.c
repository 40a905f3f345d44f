/* wavevm_node_master: one node's share of the cluster. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "roles/master/node.h"

/*
 * SIGUSR1 ends it as a kill would, which is how a master is restarted: all that it knows is in its
 * files, and the next one goes on with them. After the others it takes its pages along.
 */
static void signals(sigset_t *set)
{
	wvm_daemon_signals(set);
	sigaddset(set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, set, NULL);
}

int main(int argc, char **argv)
{
	static struct wvm_master_options options;
	static struct wvm_node node;
	char err[1024] = "";
	sigset_t set;
	int number, status;

	wvm_master_options(&options, argc, argv);
	wvm_daemon_files();
	signals(&set); /* before the shards, which inherit the mask */
	if (wvm_node_start(&node, &options, err, sizeof(err))) {
		wvm_log("%s", err);
		return EXIT_FAILURE;
	}
	while ((number = sigwaitinfo(&set, NULL)) < 0)
		;
	if (number == SIGUSR1) {
		wvm_log("ended for the next master, which finds all of its pages in %s.*",
			options.shm_file);
		_exit(EXIT_SUCCESS);
	}
	sd_notify(0, "STOPPING=1");
	wvm_node_stop(&node);
	status = node.exit_status;
	return status;
}
