/* wavevm_node_slave: runs processors of other nodes' VMs. */
#include <signal.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "roles/slave/slave.h"

/* SIGUSR1 kicks a processor that KVM runs, whose thread lets it in. */
static void block_signals(sigset_t *set)
{
	sigset_t kick;

	sigemptyset(&kick);
	sigaddset(&kick, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &kick, NULL);
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	static struct wvm_slave_options options;
	static struct wvm_slave slave;
	char err[1024] = "";
	sigset_t set;

	wvm_slave_options(&options, argc, argv);
	block_signals(&set); /* before the threads, which inherit the mask */
	if (wvm_slave_start(&slave, &options, err, sizeof(err))) {
		wvm_slave_log("%s", err);
		return EXIT_FAILURE;
	}
	sd_notify(0, "READY=1");
	while (sigwaitinfo(&set, NULL) < 0)
		;
	sd_notify(0, "STOPPING=1");
	wvm_slave_stop(&slave);
	return slave.exit_status;
}
