/* wavevm_node_master: one node's share of the cluster. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

#include "roles/master/node.h"

static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* Clients and their processors come with more descriptors than 1024 (io_uring's table, too). */
static void raise_files(void)
{
	struct rlimit files;

	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

int main(int argc, char **argv)
{
	static struct wvm_master_options options;
	static struct wvm_node node;
	char err[1024] = "";
	sigset_t set;
	int status;

	wvm_master_options(&options, argc, argv);
	raise_files();
	block_signals(&set); /* before the shards, which inherit the mask */
	if (wvm_node_start(&node, &options, err, sizeof(err))) {
		wvm_log("%s", err);
		return EXIT_FAILURE;
	}
	while (sigwaitinfo(&set, NULL) < 0)
		;
	sd_notify(0, "STOPPING=1");
	wvm_node_stop(&node);
	status = node.exit_status;
	return status;
}
