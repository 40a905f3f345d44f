/* wavevm_node_master: one node's share of the cluster. */
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "roles/master/node.h"

int main(int argc, char **argv)
{
	static struct wvm_master_options options;
	static struct wvm_node node;
	char err[1024] = "";
	sigset_t set;
	int status;

	wvm_master_options(&options, argc, argv);
	wvm_daemon_files();
	wvm_daemon_signals(&set); /* before the shards, which inherit the mask */
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
