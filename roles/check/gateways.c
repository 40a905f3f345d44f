#include "roles/check/gateways.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_MS 10000u
#define END_MS   10000u

void gateway_prepare(struct gateway *g, const char *name, const char *netns, uint16_t port,
		     uint16_t ctrl_port, const char *upstream_ip, uint16_t upstream_port,
		     const char *routes)
{
	FILE *f;

	*g = (struct gateway){.port = port, .ctrl_port = ctrl_port, .upstream_port = upstream_port};
	snprintf(g->name, sizeof(g->name), "%s", name);
	snprintf(g->netns, sizeof(g->netns), "%s", netns);
	snprintf(g->upstream_ip, sizeof(g->upstream_ip), "%s", upstream_ip);
	snprintf(g->routes, sizeof(g->routes), "%s/routes.%d.%s", cluster_dir(), (int)getpid(),
		 name);
	snprintf(g->log, sizeof(g->log), "%s/gateway.%d.%s", cluster_dir(), (int)getpid(), name);
	f = fopen(g->routes, "we");
	ck_assert_ptr_nonnull(f);
	fputs(routes, f);
	ck_assert_int_eq(fclose(f), 0);
}

static void await_ready(const struct gateway *g)
{
	static char text[CLUSTER_OUT_BYTES];
	uint64_t end = cluster_now_ms() + READY_MS;
	siginfo_t info = {0};

	do {
		cluster_read(g->log, text, sizeof(text));
		if (strstr(text, ": ready"))
			return;
		if (!waitid(P_PID, (id_t)g->pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid)
			break;
		cluster_sleep_ms(5);
	} while (cluster_now_ms() < end);
	ck_abort_msg("gateway %s did not become ready: %s", g->name, text);
}

void gateway_start(struct gateway *g, const char *const more[])
{
	char program[4200], port[8], ctrl[8], upstream[8];
	const char *args[CLUSTER_ARGS_MAX] = {program,  port,      g->upstream_ip,
					      upstream, g->routes, ctrl};
	unsigned count = 6;

	snprintf(program, sizeof(program), "%s/wavevm_gateway", cluster_bin());
	snprintf(port, sizeof(port), "%u", g->port);
	snprintf(ctrl, sizeof(ctrl), "%u", g->ctrl_port);
	snprintf(upstream, sizeof(upstream), "%u", g->upstream_port);
	for (; more && *more; more++)
		args[count++] = *more;
	ck_assert_uint_lt(count, CLUSTER_ARGS_MAX);
	ck_assert_int_eq(g->pid, 0);
	unlink(g->log);
	fflush(NULL);
	g->pid = fork();
	ck_assert_int_ge(g->pid, 0);
	if (!g->pid) {
		int log = open(g->log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid(); /* as masters have, a share of the processor of its own */
		dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
		dup2(log, 1);
		dup2(log, 2);
		cluster_enter_net(g->netns);
		execv(args[0], (char *const *)args);
		fprintf(stderr, "%s: %s\n", args[0], strerror(errno));
		_exit(127);
	}
	await_ready(g);
}

int gateway_end(struct gateway *g, int signal)
{
	uint64_t end = cluster_now_ms() + END_MS;
	pid_t pid = g->pid;
	int status;

	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(kill(pid, signal), 0);
	g->pid = 0;
	do {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		cluster_sleep_ms(2);
	} while (cluster_now_ms() < end);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

void gateway_ctl(const struct gateway *g, struct cluster_result *r, const char *const args[])
{
	char tool[4200], port[8];
	const char *all[16] = {tool, "--port", port};
	unsigned count = 3;

	snprintf(tool, sizeof(tool), "%s/wvm_ctl", cluster_bin());
	snprintf(port, sizeof(port), "%u", g->ctrl_port);
	while (*args && count < 15)
		all[count++] = *args++;
	all[count] = NULL;
	cluster_run(r, all, g->netns, NULL);
}

json_t *gateway_json(const struct gateway *g, const char *command)
{
	static struct cluster_result r;
	json_t *o;

	gateway_ctl(g, &r, (const char *const[]){"--json", command, NULL});
	ck_assert_msg(r.status == 0, "wvm_ctl %s, gateway %s: %s", command, g->name, r.err);
	o = json_loads(r.out, 0, NULL);
	ck_assert_msg(o != NULL, "%s", r.out);
	return o;
}

uint64_t gateway_stat(const struct gateway *g, const char *section, const char *name)
{
	json_t *o = gateway_json(g, "stats");
	const json_t *value = json_object_get(json_object_get(o, section), name);
	uint64_t is;

	ck_assert_msg(json_is_integer(value), "no figure %s.%s", section, name);
	is = (uint64_t)json_integer_value(value);
	json_decref(o);
	return is;
}
