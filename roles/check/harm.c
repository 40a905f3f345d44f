#include "roles/check/harm.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LOG_MS 20000u /* a hang, not a measure */

/* ---- masters that stand ------------------------------------------------------------------ */

static bool thread_stands(pid_t pid, const char *thread)
{
	char path[300], text[512], *state;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", (int)pid, thread);
	f = fopen(path, "r");
	if (!f)
		return true; /* gone */
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	state = strrchr(text, ')');
	return state && state[1] && state[2] == 'T';
}

static bool all_stand(pid_t pid)
{
	char path[64];
	struct dirent *e;
	bool all = true;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	tasks = opendir(path);
	ck_assert_ptr_nonnull(tasks);
	while ((e = readdir(tasks)))
		all &= e->d_name[0] == '.' || thread_stands(pid, e->d_name);
	closedir(tasks);
	return all;
}

void harm_freeze(const struct cluster *c, unsigned node)
{
	pid_t pid = c->node[node].pid;
	int tries = 2000;

	ck_assert_int_eq(kill(pid, SIGSTOP), 0);
	while (!all_stand(pid) && tries--)
		cluster_sleep_ms(5);
	ck_assert_msg(tries >= 0, "master %u does not stop", node);
}

void harm_thaw(const struct cluster *c, unsigned node)
{
	ck_assert_int_eq(kill(c->node[node].pid, SIGCONT), 0);
}

void harm_await(struct arena *a, unsigned word, uint64_t value)
{
	while (a->word[word] < value && !a->failed)
		cluster_sleep_ms(1);
}

void harm_await_log(const struct cluster *c, unsigned node, const char *text)
{
	static char log[CLUSTER_OUT_BYTES];
	uint64_t end = cluster_now_ms() + LOG_MS;

	do {
		cluster_read(c->node[node].log, log, sizeof(log));
		if (strstr(log, text))
			return;
		cluster_sleep_ms(10);
	} while (cluster_now_ms() < end);
	ck_abort_msg("node %u does not say '%s': %s", node, text, log);
}

/* ---- what the kernel dropped --------------------------------------------------------------- */

/* ip: only sockets at that address; NULL: at any. */
static struct harm_port port_at(pid_t pid, const char *ip, unsigned port)
{
	unsigned of = ip ? inet_addr(ip) : 0; /* as the kernel shows it: the bytes as a number */
	struct harm_port sum = {0};
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/net/udp", (int)pid);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned address, at, queued;
		char *last = strrchr(line, '\n');

		if (sscanf(line, " %*d: %x:%x %*x:%*x %*x %*x:%x", &address, &at, &queued) != 3 ||
		    at != port || (ip && address != of))
			continue;
		/* The last column, and padding. */
		while (last > line && (*last == '\n' || *last == ' '))
			*last-- = 0;
		last = strrchr(line, ' ');
		sum.drops += strtoull(last ? last : line, NULL, 10);
		sum.queued += queued;
	}
	fclose(f);
	return sum;
}

static struct harm_port port_of(const struct cluster *c, unsigned node, const char *ip,
				unsigned port)
{
	return port_at(c->node[node].pid, c->opts.net == CLUSTER_LOOPBACK ? ip : NULL, port);
}

struct harm_port harm_port_of(pid_t pid, unsigned port)
{
	return port_at(pid, NULL, port);
}

struct harm_port harm_data_port(const struct cluster *c, unsigned node)
{
	return port_of(c, node, c->node[node].ip, c->node[node].port);
}

struct harm_port harm_control_port(const struct cluster *c, unsigned node)
{
	return port_of(c, node, "127.0.0.1", c->node[node].ctrl_port);
}

struct harm_port harm_gossip_port(const struct cluster *c, unsigned node)
{
	return port_of(c, node, c->node[node].ip, c->node[node].ctrl_port);
}

/* ---- small tmpfs ------------------------------------------------------------------------- */

static void mount_path(const struct cluster *c, unsigned i, char path[128])
{
	snprintf(path, 128, "%s/small.%u", c->dir, i);
}

void harm_small_tmpfs(struct cluster *c, unsigned i, unsigned kib)
{
	static bool separate;
	char path[128], options[64];

	if (!separate) {
		ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
		ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
		separate = true;
	}
	mount_path(c, i, path);
	ck_assert_int_eq(mkdir(path, 0755), 0);
	snprintf(options, sizeof(options), "size=%uk,huge=never", kib);
	ck_assert_int_eq(mount("wvm-small", path, "tmpfs", 0, options), 0);
	snprintf(c->node[i].shm, sizeof(c->node[i].shm), "%s/shm", path);
}

void harm_fill(const struct cluster *c, unsigned i, unsigned kib_left)
{
	char path[128], ballast[144];
	struct statfs fs;
	off_t free_bytes;
	int fd;

	mount_path(c, i, path);
	snprintf(ballast, sizeof(ballast), "%s/ballast", path);
	fd = open(ballast, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	/* The master may take or give some meanwhile: until exactly this much is left. */
	do {
		struct stat st;

		ck_assert_int_eq(fstatfs(fd, &fs), 0);
		ck_assert_int_eq(fstat(fd, &st), 0);
		free_bytes = (off_t)(fs.f_bfree * (uint64_t)fs.f_bsize) - (off_t)kib_left * 1024;
		if (free_bytes > 0)
			ck_assert(!fallocate(fd, 0, st.st_size, free_bytes) || errno == ENOSPC);
	} while (free_bytes > 0);
	close(fd);
}

void harm_empty(const struct cluster *c, unsigned i)
{
	char path[128], ballast[144];

	mount_path(c, i, path);
	snprintf(ballast, sizeof(ballast), "%s/ballast", path);
	ck_assert_int_eq(unlink(ballast), 0);
}

/* ---- what was rehearsed ------------------------------------------------------------------ */

static struct rehearsed {
	atomic_uint count;
	char name[64][64];
} * rehearsed;

void harm_rehearsed(const char *name)
{
	unsigned i = atomic_fetch_add(&rehearsed->count, 1);

	ck_assert_uint_lt(i, 64);
	snprintf(rehearsed->name[i], sizeof(rehearsed->name[i]), "%s", name);
}

int harm_main(char **argv, Suite *(*const make[])(void), unsigned count)
{
	int status;

	rehearsed = mmap(NULL, sizeof(*rehearsed), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (rehearsed == MAP_FAILED)
		return 1;
	status = cluster_main(argv, make, count);
	if (status || !rehearsed->count)
		return status;
	printf("proof: deaths rehearsed: %u (", rehearsed->count);
	for (unsigned i = 0; i < rehearsed->count; i++)
		printf("%s%s", i ? ", " : "", rehearsed->name[i]);
	printf(")\n");
	return 0;
}

/* ---- in a program ------------------------------------------------------------------------ */

uint64_t harm_gpa(struct program *p, unsigned node, unsigned n)
{
	for (unsigned i = 0; i < HARM_UNITS; i++)
		if (wvm_where(p->wvm, CLUSTER_VM, i * 2 * MIB) == (int)node && !n--)
			return i * 2 * MIB;
	NEED(p, false, "no such unit of node %u", node);
	return 0;
}

static void touch_units(struct program *p)
{
	uint64_t *base = program_map(p, 0, HARM_UNITS * 2 * MIB);
	unsigned home = *(const unsigned *)p->arg;

	/* Of each the last page, which no test looks at. */
	for (unsigned i = 0; i < HARM_UNITS; i++)
		if (home == HARM_ANY || wvm_where(p->wvm, CLUSTER_VM, i * 2 * MIB) == (int)home)
			(void)load(base + ((i + 1) * (2 * MIB / PAGE) - 1) * PAGE_WORDS);
}

void harm_touch_units(const struct cluster *c, struct arena *a, unsigned node, unsigned home)
{
	programs_run(c, a, &node, 1, touch_units, &home);
}

void harm_tell(struct program *p, unsigned word)
{
	atomic_fetch_add(&p->arena->word[word], 1);
}

static sigjmp_buf escape;
static void *volatile bus_address;

static void on_bus(int signal, siginfo_t *info, void *context)
{
	bus_address = info->si_addr;
	siglongjmp(escape, 1);
}

void harm_catch_bus(void)
{
	struct sigaction bus = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};

	sigaction(SIGBUS, &bus, NULL);
}

static void check_address(struct program *p, const uint64_t *at)
{
	NEED(p, (uintptr_t)bus_address / PAGE == (uintptr_t)at / PAGE, "SIGBUS at %p, not %p",
	     bus_address, (const void *)at);
}

bool harm_load(struct program *p, uint64_t *at, uint64_t *value)
{
	if (sigsetjmp(escape, 1)) {
		check_address(p, at);
		return false;
	}
	*value = load(at);
	return true;
}

bool harm_store(struct program *p, uint64_t *at, uint64_t value)
{
	if (sigsetjmp(escape, 1)) {
		check_address(p, at);
		return false;
	}
	store(at, value);
	return true;
}

bool harm_fails(struct program *p, uint64_t *at, bool write)
{
	uint64_t value;

	return write ? !harm_store(p, at, 1) : !harm_load(p, at, &value);
}

uint64_t *harm_remap(struct program *p, uint64_t *at, uint64_t gpa, size_t len)
{
	NEED(p, !wvm_unmap(p->wvm, at, len), "unmap");
	return program_map(p, gpa, len);
}
