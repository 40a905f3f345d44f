#include "roles/check/litmus/cell.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "roles/check/litmus/worker.h"

#define LOOK_US 2000u

struct run {
	struct board *b;
	pid_t pid[LITMUS_WORKERS];
	char *err;
	size_t err_len;
};

const char *litmus_placement_name(enum litmus_placement p)
{
	static const char *const names[] = {"one page", "one home", "homes"};

	return names[p];
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void end_all(struct run *run)
{
	for (unsigned i = 0; i < LITMUS_WORKERS; i++) {
		if (run->pid[i] <= 0)
			continue;
		kill(run->pid[i], SIGKILL);
		waitpid(run->pid[i], NULL, 0);
		run->pid[i] = 0;
	}
}

/* Who is where in the batch: what a hang is to be understood by. */
static void describe(struct run *run, const char *what)
{
	static const char *const phases[] = {"attaching", "resetting or collecting", "waiting",
					     "running", "ended"};
	const struct litmus_cell *c = run->b->cell;
	struct plan plan;
	size_t len;

	plan_make(c, atomic_load(&run->b->batch), &plan);
	len = (size_t)snprintf(run->err, run->err_len, "%s, %s: %s; batch %llu of %llu",
			       c->test->name, litmus_placement_name(c->placement), what,
			       (unsigned long long)plan.batch, (unsigned long long)run->b->batches);
	for (unsigned i = 0; i < c->workers && len < run->err_len; i++) {
		unsigned phase = atomic_load(&run->b->place[i].phase);

		len += (size_t)snprintf(run->err + len, run->err_len - len, "; node %u ",
					c->node[i]);
		if (plan.part[i] == PLAN_NOBODY && len < run->err_len)
			len += (size_t)snprintf(run->err + len, run->err_len - len, "bystander: ");
		else if (len < run->err_len)
			len += (size_t)snprintf(run->err + len, run->err_len - len,
						"P%u: ", plan.part[i]);
		if (len < run->err_len)
			len += (size_t)snprintf(run->err + len, run->err_len - len,
						"%s, %u of %u instances", phases[phase],
						atomic_load(&run->b->place[i].visited),
						plan.instances);
	}
}

static int start(struct run *run)
{
	pid_t parent = getpid();

	fflush(NULL);
	for (unsigned i = 0; i < run->b->cell->workers; i++) {
		run->pid[i] = fork();
		if (run->pid[i] < 0) {
			describe(run, "cannot fork");
			return -errno;
		}
		if (!run->pid[i])
			worker_main(run->b, i, parent);
	}
	return 0;
}

/* Whether worker i has ended; *failed: badly, and err says how. */
static bool has_ended(struct run *run, unsigned i, bool *failed)
{
	int status;
	char what[320];

	if (waitpid(run->pid[i], &status, WNOHANG) != run->pid[i])
		return false;
	run->pid[i] = 0;
	if (!status)
		return true;
	*failed = true;
	if (WIFSIGNALED(status))
		snprintf(what, sizeof(what), "the program on node %u got '%s'",
			 run->b->cell->node[i], strsignal(WTERMSIG(status)));
	else
		snprintf(what, sizeof(what), "%s", run->b->text);
	describe(run, what);
	return true;
}

static int await(struct run *run)
{
	unsigned left = run->b->cell->workers, turns = 0;
	uint64_t looked = now_ms();
	uint64_t since = now_ms();
	bool failed = false;

	while (left) {
		for (unsigned i = 0; i < run->b->cell->workers; i++)
			if (run->pid[i] > 0 && has_ended(run, i, &failed))
				left--;
		if (failed)
			return -EIO;
		if (atomic_load(&run->b->turns) != turns) {
			turns = atomic_load(&run->b->turns);
			since = now_ms();
		}
		if (now_ms() - since > run->b->cell->hang_s * 1000ull) {
			describe(run, "hangs");
			return -ETIMEDOUT;
		}
		usleep(LOOK_US);
		if (now_ms() - looked > atomic_load(&run->b->late_ms))
			atomic_store(&run->b->late_ms, (unsigned)(now_ms() - looked));
		looked = now_ms();
	}
	return 0;
}

static void sum_up(const struct board *b, struct litmus_result *r)
{
	const struct litmus_test *t = b->cell->test;

	r->batches = b->batches;
	memcpy(r->count, b->count, sizeof(r->count));
	memcpy(r->note, b->note, sizeof(r->note));
	r->notes = b->notes;
	if (atomic_load(&b->late_ms) > r->late_ms)
		r->late_ms = atomic_load(&b->late_ms);
	for (unsigned o = 0; o < LITMUS_OUTCOMES; o++) {
		if (!r->count[o])
			continue;
		r->runs += r->count[o];
		if ((o & t->asked_mask) == t->asked)
			r->asked += r->count[o];
		if (!litmus_has(&r->allowed, o)) {
			r->forbidden += r->count[o];
			continue;
		}
		r->seen++;
		if (!litmus_has(&r->serial, o))
			r->raced += r->count[o];
		if (!litmus_has(&r->sequential, o))
			r->relaxed += r->count[o];
	}
}

int litmus_run(const struct litmus_cell *c, struct litmus_result *r, char *err, size_t err_len)
{
	struct run run = {.err = err, .err_len = err_len};
	unsigned instances = plan_instances(c);
	int rc;

	memset(r, 0, sizeof(*r));
	litmus_model(c->test, LITMUS_TSO, &r->allowed);
	litmus_model(c->test, LITMUS_SEQUENTIAL, &r->sequential);
	litmus_model(c->test, LITMUS_SERIAL, &r->serial);
	litmus_ticks_per_us();
	run.b = mmap(NULL, sizeof(*run.b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (run.b == MAP_FAILED) {
		snprintf(err, err_len, "no memory");
		return -ENOMEM;
	}
	run.b->cell = c;
	run.b->allowed = r->allowed;
	run.b->batches = (c->runs + instances - 1) / instances;
	rc = start(&run);
	if (!rc)
		rc = await(&run);
	end_all(&run);
	sum_up(run.b, r);
	munmap(run.b, sizeof(*run.b));
	return rc;
}
