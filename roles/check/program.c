#include "roles/check/program.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARENA_BYTES(words) (sizeof(struct arena) + (words) * sizeof(uint64_t))

struct arena *arena_new(size_t model_words)
{
	size_t bytes = ARENA_BYTES(model_words);
	struct arena *a;

	a = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(a, MAP_FAILED);
	a->bytes = bytes;
	return a;
}

void arena_free(struct arena *a)
{
	munmap(a, a->bytes);
}

void program_fail(struct program *p, const char *file, int line, const char *cond,
		  const char *format, ...)
{
	struct arena *a = p->arena;
	char text[256];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (!atomic_exchange(&a->failed, 1))
		snprintf(a->text, sizeof(a->text), "program %u on node %u, %s:%d: %s: %s", p->index,
			 p->node, file, line, cond, text);
	_exit(1);
}

/* ---- the test's side ------------------------------------------------------------------- */

static void run(struct program *p, program_fn *fn)
{
	const char *ring = p->cluster->node[p->node].ring;
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	ret = wvm_attach(&p->wvm, ring);
	NEED(p, !ret, "attach: %s: %s", strerror(-ret), wvm_attach_error());
	fn(p);
	wvm_detach(p->wvm);
	_exit(0);
}

void program_start(struct program *p, program_fn *fn)
{
	fflush(NULL);
	p->seed = UINT64_C(0x2545f4914f6cdd1d) * (p->index + 1);
	p->pid = fork();
	ck_assert_int_ge(p->pid, 0);
	if (!p->pid)
		run(p, fn);
}

static struct program *find(struct program *const list[], unsigned count, pid_t pid)
{
	for (unsigned i = 0; i < count; i++)
		if (list[i]->pid == pid)
			return list[i];
	return NULL;
}

void programs_await(struct program *const list[], unsigned count)
{
	unsigned left = count;

	while (left) {
		siginfo_t info;
		struct program *p;
		int status;

		ck_assert_int_eq(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);
		p = find(list, count, info.si_pid);
		if (!p) {
			ck_abort_msg("process %d ended (%d) that was to live", (int)info.si_pid,
				     info.si_status);
		}
		ck_assert_int_eq(waitpid(p->pid, &status, 0), p->pid);
		p->pid = 0;
		left--;
		if (!status)
			continue;
		for (unsigned i = 0; i < count; i++)
			if (list[i]->pid)
				program_kill(list[i]);
		ck_abort_msg("%s", p->arena->failed      ? p->arena->text
				   : WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
							 : "a program ended by itself");
	}
}

void program_kill(struct program *p)
{
	kill(p->pid, SIGKILL);
	waitpid(p->pid, NULL, 0);
	p->pid = 0;
}

void programs_run(const struct cluster *c, struct arena *a, const unsigned *nodes, unsigned count,
		  program_fn *fn, const void *arg)
{
	static struct program programs[PROGRAMS_MAX];
	struct program *list[PROGRAMS_MAX];

	ck_assert_uint_le(count, PROGRAMS_MAX);
	a->arrived = a->left = 0;
	for (unsigned i = 0; i < count; i++) {
		programs[i] = (struct program){.cluster = c,
					       .arena = a,
					       .node = nodes[i],
					       .index = i,
					       .count = count,
					       .arg = arg};
		list[i] = &programs[i];
		program_start(&programs[i], fn);
	}
	programs_await(list, count);
}

/* ---- in a program ---------------------------------------------------------------------- */

void *program_map(struct program *p, uint64_t gpa, size_t len)
{
	void *at = wvm_map(p->wvm, CLUSTER_VM, gpa, len, WVM_STRICT);

	NEED(p, at, "map: %s: %s", strerror(errno), wvm_attach_error());
	return at;
}

/* A failure elsewhere ends the test; nobody needs to wait for it. */
static void give_way(struct program *p, unsigned tries)
{
	if (atomic_load(&p->arena->failed))
		_exit(1);
	if (tries < 64)
		sched_yield();
	else
		usleep(100);
}

void program_meet(struct program *p)
{
	unsigned round = atomic_fetch_add(&p->arena->arrived, 1) / p->count;

	for (unsigned i = 0; atomic_load(&p->arena->arrived) < (round + 1) * p->count; i++)
		give_way(p, i);
}

void program_await_word(struct program *p, unsigned i, uint64_t value)
{
	for (unsigned k = 0; atomic_load(&p->arena->word[i]) < value; k++)
		give_way(p, k);
}

/* xorshift64* */
uint64_t program_random(struct program *p)
{
	p->seed ^= p->seed >> 12;
	p->seed ^= p->seed << 25;
	p->seed ^= p->seed >> 27;
	return p->seed * UINT64_C(0x2545f4914f6cdd1d);
}

void pattern_fill(uint64_t *page, uint64_t number, uint64_t generation)
{
	for (unsigned i = 0; i < PAGE_WORDS; i++)
		page[i] = pattern(number, i, generation);
}

int pattern_differs(const uint64_t *page, uint64_t number, uint64_t generation)
{
	for (unsigned i = 0; i < PAGE_WORDS; i++)
		if (page[i] != pattern(number, i, generation))
			return (int)i;
	return -1;
}
