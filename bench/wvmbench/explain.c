#include "bench/wvmbench/explain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/wvmbench/bars.h"
#include "bench/wvmbench/tracer.h"

/*
 * Faults between two looks at the traces. Their stamps, some 10 of a fault, fit into a
 * trace many times; and the answer to the control port that begins and ends
 * the count of system calls is one in so many faults.
 */
#define BATCH      500u
#define CTRL_FIRST 9001u /* and so on, as the nodes of one host are numbered */
#define CTRL_STEP  10u

struct explain {
	struct bench *b;
	struct tracer requester, home, owner;
	uint32_t *order;
	struct access access[BATCH];
};

static int fail(const char *what, int rc)
{
	fprintf(stderr, "wvmbench: %s: %s\n", what, strerror(-rc));
	return rc;
}

static int refuse(const char *why)
{
	fprintf(stderr, "wvmbench: --explain: %s\n", why);
	return -EINVAL;
}

/* A file that cannot be written is better known before than after the measurement. */
static int check_file(const char *path)
{
	bool there = !access(path, F_OK);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		return fail(path, -errno);
	close(fd);
	if (!there)
		unlink(path);
	return 0;
}

int explain_check(const struct fault_options *o)
{
	if (o->n_peer_rings == 0)
		return refuse("a remote fault needs another node: --peer-ring of its master");
	if (o->peers > o->n_peer_rings)
		return refuse("clocks of two hosts cannot be compared: all masters must be on this "
			      "host, each named by --peer-ring");
	if (o->floor)
		return refuse("it measures with traces on, which is not to be compared with a "
			      "floor: leave --floor out");
	if (o->n_control && o->n_control <= o->n_peer_rings)
		return refuse("--control needs a port of this node's master, then one of each "
			      "--peer-ring's");
	return o->explain_svg ? check_file(o->explain_svg) : 0;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* ---- faults ---------------------------------------------------------------------------- */

static int read_pages(struct explain *x, const struct plan_set *set, uint64_t from, unsigned n)
{
	uint64_t wrong = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t page = plan_page(set, x->order[from + i]);
		unsigned word = plan_word(page);
		const volatile uint64_t *at = attached_page(&x->b->a, page) + word;
		uint64_t must = plan_expected(set, page, word), seen;

		x->access[i].page = page;
		x->access[i].before_ns = now_ns();
		seen = *at;
		x->access[i].after_ns = now_ns();
		wrong += seen != must;
	}
	if (wrong == 0)
		return 0;
	fprintf(stderr, "wvmbench: %llu pages hold a wrong word\n", (unsigned long long)wrong);
	return -EBADMSG;
}

/* The masters of one kind of fault; the requester's is the last to begin, the first to end. */
static int switch_on(struct tracer *const side[], struct call_counts before[])
{
	int rc = 0;

	for (unsigned i = BAR_SIDES; i-- > 0 && rc == 0;)
		if (side[i])
			rc = tracer_begin(side[i], &before[i]);
	return rc;
}

static int switch_off(struct tracer *const side[], struct call_counts after[])
{
	int rc = 0;

	for (unsigned i = 0; i < BAR_SIDES && rc == 0; i++)
		if (side[i])
			rc = tracer_end(side[i], &after[i]);
	for (unsigned i = 0; i < BAR_SIDES && rc == 0; i++)
		if (side[i])
			rc = tracer_collect(side[i]);
	return rc;
}

/* owner: whose trace has the owner's part, if the page comes from one. */
static int explain_batch(struct explain *x, struct tracer *const side[], const struct tracer *owner,
			 const struct plan_set *set, uint64_t from, unsigned n,
			 struct explain_samples *samples, struct explained *e)
{
	struct call_counts before[BAR_SIDES], after[BAR_SIDES], made;
	int rc = switch_on(side, before);

	if (rc == 0)
		rc = read_pages(x, set, from, n);
	if (rc == 0)
		rc = switch_off(side, after);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < BAR_SIDES && side[i]; i++) {
		call_counts_between(&before[i], &after[i], &made);
		call_counts_add(&e->calls[i], &made);
	}
	for (unsigned i = 0; i < n; i++) {
		struct joined j;
		enum join_result r = join_fault(&x->access[i], &side[0]->trace, &side[1]->trace,
						owner ? &owner->trace : NULL, &j);

		explain_samples_add(samples, &x->access[i], r, &j);
	}
	return 0;
}

static int explain_set(struct explain *x, struct tracer *const side[], const struct tracer *owner,
		       const struct plan_set *set, struct explain_samples *samples,
		       struct explained *e)
{
	int rc = 0;

	/* Out of order, so that nothing is read ahead. */
	free(x->order);
	x->order = plan_order(set->pages, x->b->generation);
	if (!x->order)
		return fail("order of the pages", -ENOMEM);
	for (uint64_t at = 0; at < set->pages && rc == 0; at += BATCH) {
		uint64_t left = set->pages - at;

		rc = explain_batch(x, side, owner, set, at, left < BATCH ? (unsigned)left : BATCH,
				   samples, e);
	}
	return rc;
}

/* Written on the node of peer `writer`; read at the home then, or not: its owner has it. */
static int explain_kind(struct explain *x, const char *name, unsigned writer, bool read_at_home,
			struct explained *e)
{
	bool apart = writer != 1;
	struct tracer *side[BAR_SIDES] = {&x->requester, &x->home};
	struct tracer *owner = read_at_home ? NULL : apart ? &x->owner : &x->home;
	struct explain_samples samples;
	struct bench *b = x->b;
	int rc = explain_samples_init(&samples, (size_t)b->o->pages * b->o->rounds);

	if (rc < 0)
		return fail(name, rc);
	snprintf(e->name, sizeof(e->name), "%s", name);
	e->side[0] = "requester";
	e->side[1] = owner == &x->home ? "home+owner" : "home";
	if (owner == &x->owner) {
		side[2] = owner;
		e->side[2] = "owner";
	}
	for (unsigned round = 0; round < b->o->rounds && rc == 0; round++) {
		struct plan_set set;

		rc = fault_take(b, &set, b->peer_node[1]);
		if (rc == 0)
			rc = fault_call(b, writer, MAILBOX_WRITE, &set);
		if (rc == 0 && read_at_home)
			rc = fault_call(b, 1, MAILBOX_READ, &set);
		if (rc == 0)
			rc = explain_set(x, side, owner, &set, &samples, e);
	}
	explain_finish(e, &samples);
	explain_samples_fini(&samples);
	if (rc == 0 && e->joined == 0) {
		fprintf(stderr,
			"wvmbench: %s: of %llu faults the traces explain none: %llu were asked "
			"again, of %llu stamps are missing\n",
			name, (unsigned long long)e->faults, (unsigned long long)e->again,
			(unsigned long long)e->missing);
		rc = -ENODATA;
	}
	return rc;
}

/* ---- report ---------------------------------------------------------------------------- */

static int finish_file(FILE *f, const char *path)
{
	int bad = ferror(f);

	if ((f == stdout ? fflush(f) : fclose(f)) != 0 || bad)
		return fail(path, -EIO);
	return 0;
}

static int write_json(const struct fault_options *o, const struct explained *list, unsigned n)
{
	FILE *f = !strcmp(o->json, "-") ? stdout : fopen(o->json, "we");

	if (!f)
		return fail(o->json, -errno);
	fprintf(f, "{\"program\": \"wvmbench fault --explain\", \"layout\": \"%s\", \"faults\": [",
		o->layout);
	for (unsigned i = 0; i < n; i++) {
		fprintf(f, "%s\n", i ? "," : "");
		explain_json(f, &list[i]);
	}
	fprintf(f, "],\n\"counts\": {");
	for (unsigned i = 0; i < n; i++)
		explain_counts(f, &list[i], i == 0);
	fprintf(f, "}}\n");
	return finish_file(f, o->json);
}

static int report(const struct explain *x, const struct explained *list, unsigned n)
{
	const struct fault_options *o = x->b->o;
	int rc = 0;

	if (o->explain_svg) {
		FILE *f = fopen(o->explain_svg, "we");

		if (!f)
			return fail(o->explain_svg, -errno);
		explain_svg(f, list, n, o->layout);
		rc = finish_file(f, o->explain_svg);
	}
	if (rc == 0 && o->json)
		rc = write_json(o, list, n);
	if (rc < 0 || (o->json && !strcmp(o->json, "-")))
		return rc;
	for (unsigned i = 0; i < n; i++) {
		if (i)
			putchar('\n');
		explain_print(stdout, &list[i]);
	}
	if (!x->b->third)
		printf("skipped: remote-read, which needs peers on two nodes\n");
	if (x->requester.lost || x->home.lost || x->owner.lost)
		printf("some stamps were overwritten before they were read\n");
	return 0;
}

/* ---- masters --------------------------------------------------------------------------- */

static int open_master(struct explain *x, struct tracer *t, unsigned slot)
{
	const struct fault_options *o = x->b->o;
	int port = o->n_control ? o->control[slot] : (int)(CTRL_FIRST + slot * CTRL_STEP);
	const char *ring = slot ? o->peer_ring[slot - 1] : o->ring;

	return tracer_open(t, (uint16_t)port, o->vm_id, slot ? x->b->peer_node[slot] : x->b->a.node,
			   ring);
}

int explain_run(struct bench *b)
{
	static struct explain x;
	struct explained list[2];
	unsigned n = 0;
	int rc;

	memset(list, 0, sizeof(list));
	x.b = b;
	rc = open_master(&x, &x.requester, 0);
	if (rc == 0)
		rc = open_master(&x, &x.home, 1);
	if (rc == 0 && b->third)
		rc = open_master(&x, &x.owner, b->third);
	if (rc == 0)
		rc = pin_to_core(b->o->n_cores ? b->o->core[0] : -1);
	if (rc == 0 && b->third)
		rc = explain_kind(&x, "remote-read", b->third, true, &list[n++]);
	if (rc == 0)
		rc = explain_kind(&x, "remote-read-modified", b->third ? b->third : 1, false,
				  &list[n++]);
	if (rc == 0)
		rc = report(&x, list, n);
	free(x.order);
	tracer_close(&x.requester);
	tracer_close(&x.home);
	tracer_close(&x.owner);
	return rc;
}
