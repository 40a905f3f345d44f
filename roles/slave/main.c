/* wavevm_node_slave: runs processors of other nodes' VMs. */
#include <signal.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "roles/slave/slave.h"

/* SIGUSR1 kicks a processor that KVM runs, whose thread lets it in. */
static void block_kicks(void)
{
	sigset_t kick;

	sigemptyset(&kick);
	sigaddset(&kick, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &kick, NULL);
}

int main(int argc, char **argv)
{
	static struct wvm_slave_options options;
	static struct wvm_slave slave;
	char err[1024] = "";
	sigset_t set;

	wvm_slave_options(&options, argc, argv);
	block_kicks(); /* both before the threads, which inherit the mask */
	wvm_daemon_signals(&set);
	if (wvm_slave_start(&slave, &options, err, sizeof(err))) {
		wvm_log("%s", err);
		return EXIT_FAILURE;
	}
	sd_notify(0, "READY=1");
	while (sigwaitinfo(&set, NULL) < 0)
		;
	sd_notify(0, "STOPPING=1");
	wvm_slave_stop(&slave);
	return slave.exit_status;
}
