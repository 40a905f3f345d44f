#include "ring/daemon.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "ring/place.h"

void wvm_log(const char *format, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, line);
}

void wvm_daemon_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* Programs and processors come with more than 1024 (io_uring's table, too). */
void wvm_daemon_files(void)
{
	struct rlimit files;

	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

uint64_t wvm_arg_number(struct argp_state *state, const char *what, const char *text, uint64_t min,
			uint64_t max)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || errno || value < min || value > max)
		argp_failure(state, 1, 0, "%s '%s' is not a number from %llu to %llu", what, text,
			     (unsigned long long)min, (unsigned long long)max);
	return value;
}

void wvm_arg_text(struct argp_state *state, const char *what, char *to, size_t room,
		  const char *value)
{
	if ((size_t)snprintf(to, room, "%s", value) >= room)
		argp_failure(state, 1, 0, "%s '%s' is longer than %zu characters", what, value,
			     room - 1);
}

unsigned wvm_arg_cores(struct argp_state *state, const char *what, const char *text, unsigned most)
{
	const char *override = getenv("WVM_CORE_OVERRIDE");
	unsigned all;

	if (strcmp(text, "auto"))
		return (unsigned)wvm_arg_number(state, what, text, 1, most);
	if (override && *override && strcmp(override, "auto"))
		return (unsigned)wvm_arg_number(state, "WVM_CORE_OVERRIDE", override, 1, most);
	all = wvm_place_cores();
	return all < most ? all : most;
}

void wvm_arg_path(char *to, size_t room, const char *variable, uint32_t phys_id, const char *ending)
{
	const char *instance = getenv("WVM_INSTANCE_ID"), *path = getenv(variable);

	if (*to)
		return;
	if (path && *path)
		snprintf(to, room, "%s", path);
	else if (instance && *instance)
		snprintf(to, room, "/dev/shm/wavevm-%s%s", instance, ending);
	else
		snprintf(to, room, "/dev/shm/wavevm-%u%s", phys_id, ending);
}
