/* wavevm_node_slave: runs processors of VMs that other nodes own. */
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "ring/daemon.h"
#include "roles/slave/slave.h"

int main(int argc, char **argv)
{
	static struct wvm_slave_options options;
	static struct wvm_slave slave;
	char err[1024] = "";
	sigset_t set;

	wvm_slave_options(&options, argc, argv);
	wvm_daemon_files();
	wvm_daemon_signals(&set); /* before the threads, which inherit the mask */
	if (wvm_slave_start(&slave, &options, err, sizeof(err))) {
		wvm_log("%s", err);
		return EXIT_FAILURE;
	}
	wvm_log("ready: port %u, %u cores,%s%s", options.port, options.cores,
		slave.engines & 1u << WVM_VCPU_ENGINE_KVM ? " KVM" : "",
		slave.engines & 1u << WVM_VCPU_ENGINE_TCG ? " QEMU" : "");
	sd_notify(0, "READY=1");
	while (sigwaitinfo(&set, NULL) < 0)
		;
	sd_notify(0, "STOPPING=1");
	return wvm_slave_stop(&slave);
}
