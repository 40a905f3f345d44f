#include "bench/wvmbench/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/wvmbench/explain.h"
#include "bench/wvmbench/fault_int.h"
#include "bench/wvmbench/floor.h"
#include "bench/wvmbench/peer.h"
#include "bench/wvmbench/touch.h"

#define CALL_MS  120000 /* a peer writes or reads thousands of pages */
#define HELLO_MS 500
#define HELLOS   40 /* a peer that has just been started needs time to attach */

static int fail(const char *what, int rc)
{
	fprintf(stderr, "wvmbench: %s: %s\n", what, strerror(-rc));
	return rc;
}

int fault_call(struct bench *b, unsigned slot, enum mailbox_op op, struct plan_set *set)
{
	struct mailbox_reply reply;
	int rc;

	if (op == MAILBOX_WRITE) {
		set->generation = ++b->generation;
		set->own_word = false;
	}
	rc = mailbox_call(&b->a.mailbox, slot, op, set->generation, set->span, set->n_spans,
			  CALL_MS, &reply);
	if (rc < 0) {
		fprintf(stderr, "wvmbench: peer %u: %s\n", slot, strerror(-rc));
		return rc;
	}
	if (reply.errors > 0) {
		fprintf(stderr, "wvmbench: peer %u read %llu wrong words\n", slot,
			(unsigned long long)reply.errors);
		return -EBADMSG;
	}
	return 0;
}

#define ASKED_PERCENT_MIN 90u

int fault_expect_asked(const char *name, bool write, uint64_t pages, const struct wvm_stats *from,
		       const struct wvm_stats *to)
{
	uint64_t faults = write ? to->faults_write - from->faults_write
				: to->faults_read - from->faults_read;
	uint64_t local = to->faults_local - from->faults_local;
	uint64_t asked = faults > local ? faults - local : 0;

	if (asked * 100 >= pages * ASKED_PERCENT_MIN)
		return 0;
	fprintf(stderr,
		"wvmbench: %s: %llu %s faults, %llu of them answered without a home, at %llu pages: "
		"they were not in the state that is to be measured\n",
		name, (unsigned long long)faults, write ? "write" : "read",
		(unsigned long long)local, (unsigned long long)pages);
	return -EBADMSG;
}

/* Measures one access to each page of the set; `asks`: each is a fault that asks a home. */
static int measure(struct bench *b, const char *name, unsigned threads, bool write, bool asks,
		   struct plan_set *set)
{
	struct touch_options t = {.threads = threads,
				  .core = b->o->core,
				  .n_cores = b->o->n_cores,
				  .write = write,
				  .seed = b->generation * 1000 + threads};
	struct result *r = result_get(&b->ours, name, threads);
	struct wvm_stats before, after;
	struct wvm_samples samples;
	uint64_t elapsed;
	int rc;

	if (!r)
		return fail(name, -ENOSPC);
	rc = wvm_samples_init(&samples, set->pages);
	if (rc < 0)
		return fail(name, rc);
	rc = wvm_stats(b->a.wvm, &before);
	if (rc == 0)
		rc = touch_set(&b->a, set, &t, &samples, &elapsed);
	if (rc == 0)
		rc = wvm_stats(b->a.wvm, &after);
	if (rc == 0 && asks)
		rc = fault_expect_asked(name, write, set->pages, &before, &after);
	if (rc == 0)
		rc = result_add_samples(r, &samples, elapsed);
	wvm_samples_fini(&samples);
	return rc < 0 ? fail(name, rc) : 0;
}

static int phase(struct bench *b, const char *name, unsigned threads, bool write,
		 struct plan_set *set)
{
	return measure(b, name, threads, write, true, set);
}

static int where(void *opaque, uint64_t unit)
{
	struct bench *b = opaque;

	return wvm_where(b->a.wvm, b->o->vm_id, unit * PLAN_UNIT_PAGES * WVM_PAGE_SIZE);
}

int fault_take(struct bench *b, struct plan_set *set, int node)
{
	uint64_t *next = mailbox_next_unit(&b->a.mailbox, (unsigned)node);
	int rc = next ? plan_take(set, next, b->a.units, b->o->pages, node, where, b) : -ENOSPC;

	if (rc == -ENOSPC)
		fprintf(stderr,
			"wvmbench: node %d is home to too few pages that no run has used yet; "
			"start the cluster anew, give the VM more memory, or ask for fewer --pages\n",
			node);
	else if (rc < 0)
		fail("cannot find out homes", rc);
	return rc;
}

/* Peer 1 is granted every unit of the set whole, and uses none of the set's pages. */
static int open_units(struct bench *b, const struct plan_set *set)
{
	struct plan_set openers;

	plan_openers(set, &openers);
	return fault_call(b, 1, MAILBOX_WRITE, &openers);
}

/* Pages homed at peer 1, through the states that each measurement starts from. */
static int remote_phases(struct bench *b, unsigned threads)
{
	unsigned third = b->third;
	struct plan_set set;
	int rc = fault_take(b, &set, b->peer_node[1]);

	/* Untouched, in units of the home's own node; then Shared by it and us. */
	if (rc == 0)
		rc = open_units(b, &set);
	if (rc == 0)
		rc = phase(b, "zero-page", threads, false, &set);
	if (rc == 0)
		rc = phase(b, "remote-write-upgrade", threads, true, &set);
	/* Modified on the home's own node. */
	if (rc == 0)
		rc = fault_call(b, 1, MAILBOX_WRITE, &set);
	if (rc == 0)
		rc = phase(b, "remote-write", threads, true, &set);
	if (rc < 0)
		return rc;
	if (third == 0) {
		rc = fault_call(b, 1, MAILBOX_WRITE, &set);
		return rc < 0 ? rc : phase(b, "remote-read-modified", threads, false, &set);
	}
	/* Written on a third node, then read at the home: its stored copy is the newest. */
	rc = fault_call(b, third, MAILBOX_WRITE, &set);
	if (rc == 0)
		rc = fault_call(b, 1, MAILBOX_READ, &set);
	if (rc == 0)
		rc = phase(b, "remote-read", threads, false, &set);
	/* Modified on a third node: the home has to fetch it first. */
	if (rc == 0)
		rc = fault_call(b, third, MAILBOX_WRITE, &set);
	if (rc == 0)
		rc = phase(b, "remote-read-modified", threads, false, &set);
	if (rc == 0)
		rc = fault_call(b, third, MAILBOX_WRITE, &set);
	return rc < 0 ? rc : phase(b, "remote-write-third", threads, true, &set);
}

/* Pages homed here: memory that nobody has touched, and what two others share. */
static int local_phases(struct bench *b, unsigned threads)
{
	struct plan_set set;
	int rc = fault_take(b, &set, b->a.node);

	if (rc == 0)
		rc = measure(b, "first-touch", threads, false, false, &set);
	if (rc < 0 || b->third == 0)
		return rc;
	/* Written on one node, then read on another one: our stored copy is the newest. */
	rc = fault_take(b, &set, b->a.node);
	if (rc == 0)
		rc = fault_call(b, 1, MAILBOX_WRITE, &set);
	if (rc == 0)
		rc = fault_call(b, b->third, MAILBOX_READ, &set);
	return rc < 0 ? rc : phase(b, "local-miss", threads, false, &set);
}

static int cluster_round(struct bench *b, unsigned threads)
{
	int rc = local_phases(b, threads);

	if (rc == 0 && b->o->peers > 0)
		rc = remote_phases(b, threads);
	return rc;
}

static int floor_turn(struct bench *b, unsigned threads)
{
	struct floor_run run = {.program = b->o->floor_program,
				.arguments = b->o->floor_arguments,
				.threads = threads,
				.pages = b->o->pages};

	return floor_round(&run, &b->floor);
}

/* Cluster and floor take turns, and who begins changes, so that a slow minute hits both. */
static int run_rounds(struct bench *b)
{
	for (unsigned round = 0; round < b->o->rounds; round++)
		for (unsigned i = 0; i < b->o->n_threads; i++) {
			unsigned threads = b->o->threads[i];
			int rc = 0;

			if (b->o->floor && round % 2 == 0)
				rc = floor_turn(b, threads);
			if (rc == 0)
				rc = cluster_round(b, threads);
			if (rc == 0 && b->o->floor && round % 2 == 1)
				rc = floor_turn(b, threads);
			if (rc < 0)
				return rc;
		}
	return 0;
}

static int greet(struct bench *b, unsigned slot)
{
	struct mailbox_reply reply;
	int rc = -ETIMEDOUT;

	for (unsigned i = 0; i < HELLOS && rc == -ETIMEDOUT; i++) {
		if (b->child[slot] > 0 &&
		    waitpid(b->child[slot], NULL, WNOHANG) == b->child[slot]) {
			b->child[slot] = 0;
			return fail("a peer ended at once", -ECHILD);
		}
		rc = mailbox_call(&b->a.mailbox, slot, MAILBOX_HELLO, 0, NULL, 0, HELLO_MS, &reply);
	}
	if (rc < 0) {
		fprintf(stderr,
			"wvmbench: no peer answers in slot %u; start `wvmbench peer --slot %u` "
			"on another node\n",
			slot, slot);
		return rc;
	}
	b->peer_node[slot] = (int)reply.node;
	if (b->peer_node[slot] == b->a.node) {
		fprintf(stderr, "wvmbench: peer %u is on this node, not on another one\n", slot);
		return -EINVAL;
	}
	return 0;
}

static int start_peers(struct bench *b)
{
	const struct fault_options *o = b->o;

	for (unsigned i = 0; i < o->n_peer_rings; i++) {
		struct peer_options p = {.ring = o->peer_ring[i],
					 .slot = i + 1,
					 .vm_id = o->vm_id,
					 .core = o->n_peer_cores ? o->peer_core[i % o->n_peer_cores]
								 : -1};
		pid_t pid = peer_spawn(&p);

		if (pid < 0)
			return fail("cannot start a peer", pid);
		b->child[i + 1] = pid;
	}
	for (unsigned slot = 1; slot <= o->peers; slot++) {
		int rc = greet(b, slot);

		if (rc < 0)
			return rc;
		if (b->third == 0 && b->peer_node[slot] != b->peer_node[1])
			b->third = slot;
	}
	return 0;
}

/* Peers end by command, wherever they run; a child that does not is ended. */
static void stop_peers(struct bench *b, bool ask)
{
	struct mailbox_reply reply;

	for (unsigned slot = 1; slot <= b->o->peers; slot++) {
		if (ask && b->peer_node[slot] >= 0)
			mailbox_call(&b->a.mailbox, slot, MAILBOX_QUIT, 0, NULL, 0, 5000, &reply);
		else if (b->child[slot] > 0)
			kill(b->child[slot], SIGTERM);
		if (b->child[slot] > 0)
			waitpid(b->child[slot], NULL, 0);
	}
}

static void print_json(FILE *out, const struct bench *b, const struct ratio *ratio, unsigned n)
{
	fprintf(out, "{\"program\": \"wvmbench fault\", \"layout\": \"%s\", \"rounds\": %u,\n",
		b->o->layout, b->o->rounds);
	fprintf(out, "\"cluster\": ");
	results_json(out, &b->ours);
	fprintf(out, ",\n\"floor\": ");
	results_json(out, &b->floor);
	fprintf(out, ",\n\"ratios\": [");
	for (unsigned i = 0; i < n; i++) {
		fprintf(out, "%s\n{\"name\": \"%s\", \"value\": %.4f, \"rounds\": [", i ? "," : "",
			ratio[i].name, ratio[i].value);
		for (unsigned k = 0; k < ratio[i].rounds; k++)
			fprintf(out, "%s%.4f", k ? ", " : "", ratio[i].round[k]);
		fprintf(out, "]}");
	}
	fprintf(out, "],\n\"series\": ");
	ratios_json(out, ratio, n);
	fprintf(out, "}\n");
}

static int write_json(const struct bench *b, const struct ratio *ratio, unsigned n)
{
	bool to_stdout = !strcmp(b->o->json, "-");
	FILE *out = to_stdout ? stdout : fopen(b->o->json, "w");
	int bad;

	if (!out)
		return fail(b->o->json, -errno);
	print_json(out, b, ratio, n);
	bad = ferror(out);
	if ((to_stdout ? fflush(out) : fclose(out)) != 0 || bad)
		return fail(b->o->json, -EIO);
	return 0;
}

static int report(struct bench *b)
{
	static struct ratio ratio[RESULT_MAX];
	unsigned n = 0;

	results_finish(&b->ours);
	results_finish(&b->floor);
	if (b->o->floor)
		n = results_compare(&b->ours, &b->floor, ratio, RESULT_MAX);
	if (b->o->json && write_json(b, ratio, n) < 0)
		return -EIO;
	if (b->o->json && !strcmp(b->o->json, "-"))
		return 0;
	results_print(stdout, "cluster", &b->ours, b->o->histogram);
	if (b->o->peers == 0)
		printf("skipped: all but first-touch, since no peer was named\n");
	else if (b->third == 0)
		printf("skipped: local-miss, remote-read, remote-write-third: they need peers on "
		       "two nodes\n");
	if (b->o->floor)
		results_print(stdout, "floor (median of the rounds)", &b->floor, b->o->histogram);
	for (unsigned i = 0; i < n; i++)
		printf("ratio %s %s %.3f\n", ratio[i].name, b->o->layout, ratio[i].value);
	return 0;
}

int fault_main(const struct fault_options *o)
{
	static struct bench b;
	uint64_t session = 0;
	int rc;

	b.o = o;
	memset(b.peer_node, 0xff, sizeof(b.peer_node));
	if (o->explain && explain_check(o) < 0)
		return 1;
	if (attach_vm(&b.a, o->ring, o->vm_id) < 0)
		return 1;
	while (session == 0)
		if (getrandom(&session, sizeof(session), 0) != (ssize_t)sizeof(session))
			session = (uint64_t)getpid();
	mailbox_begin(&b.a.mailbox, session);
	/* Patterns of an earlier session must not pass for ours. */
	b.generation = session >> 32 << 16;
	rc = start_peers(&b);
	if (rc == 0)
		rc = o->explain ? explain_run(&b) : run_rounds(&b);
	stop_peers(&b, rc != -ETIMEDOUT);
	if (rc == 0 && !o->explain)
		rc = report(&b);
	results_fini(&b.ours);
	results_fini(&b.floor);
	detach_vm(&b.a);
	return rc < 0;
}
