/* wavevm_gateway: passes messages on by the vnode that they are for. */
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "roles/gateway/gateway.h"

int main(int argc, char **argv)
{
	static struct wvm_gateway_options options;
	static struct wvm_gateway gateway;
	char err[1024] = "";
	sigset_t set;

	wvm_gateway_options(&options, argc, argv);
	wvm_daemon_signals(&set); /* before the shard, which inherits the mask */
	if (wvm_gateway_start(&gateway, &options, err, sizeof(err))) {
		wvm_log("%s", err);
		return EXIT_FAILURE;
	}
	printf("wavevm_gateway: ready, port %u, %u routes of %s, mtu %u\n", options.port,
	       gateway.routes.list[WVM_ROUTE_STATIC].count, options.routes, gateway.mtu);
	fflush(stdout);
	sd_notify(0, "READY=1");
	while (sigwaitinfo(&set, NULL) < 0)
		;
	sd_notify(0, "STOPPING=1");
	wvm_gateway_stop(&gateway);
	return gateway.exit_status;
}
