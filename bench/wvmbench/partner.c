#include "bench/wvmbench/partner.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/wvmbench/peer.h"
#include "bench/wvmbench/plan.h"

#define CALL_MS  600000 /* gigabytes, page by page */
#define HELLO_MS 500
#define HELLOS   40 /* it needs time to attach */

static int fail(const char *what, int rc)
{
	fprintf(stderr, "wvmbench: %s: %s\n", what, strerror(-rc));
	return rc;
}

static int greet(struct partner *p)
{
	struct mailbox_reply reply;
	int rc = -ETIMEDOUT;

	for (unsigned i = 0; i < HELLOS && rc == -ETIMEDOUT; i++) {
		if (waitpid(p->pid, NULL, WNOHANG) == p->pid) {
			p->pid = 0;
			return fail("the peer ended at once", -ECHILD);
		}
		rc = mailbox_call(&p->a->mailbox, 1, MAILBOX_HELLO, 0, NULL, 0, HELLO_MS, &reply);
	}
	if (rc < 0)
		return fail("the peer does not answer", rc);
	p->node = (int)reply.node;
	if (p->node == p->a->node)
		return fail("the peer is on this node, not on another one", -EINVAL);
	return 0;
}

int partner_start(struct partner *p, struct attached *a, const struct bulk_options *o)
{
	struct peer_options peer = {
		.ring = o->peer_ring, .slot = 1, .vm_id = o->vm_id, .core = o->peer_core};
	uint64_t session = 0;
	int rc;

	memset(p, 0, sizeof(*p));
	p->a = a;
	if (!o->peer_ring) {
		fprintf(stderr, "wvmbench: another node is needed: --peer-ring\n");
		return -EINVAL;
	}
	while (session == 0)
		if (getrandom(&session, sizeof(session), 0) != (ssize_t)sizeof(session))
			session = (uint64_t)getpid();
	mailbox_begin(&a->mailbox, session);
	/* Patterns of an earlier session must not pass for ours. */
	p->generation = session >> 32 << 16;
	p->pid = peer_spawn(&peer);
	if (p->pid < 0)
		return fail("cannot start a peer", p->pid);
	rc = greet(p);
	if (rc < 0)
		partner_stop(p);
	return rc;
}

void partner_stop(struct partner *p)
{
	if (p->pid <= 0)
		return;
	kill(p->pid, SIGTERM);
	waitpid(p->pid, NULL, 0);
	p->pid = 0;
}

static int call(struct partner *p, enum mailbox_op op, const struct mailbox_span *span, unsigned n)
{
	struct mailbox_reply reply;
	int rc = mailbox_call(&p->a->mailbox, 1, op, p->generation, span, n, CALL_MS, &reply);

	if (rc < 0)
		return fail("the peer", rc);
	if (reply.errors > 0) {
		fprintf(stderr, "wvmbench: the peer read %" PRIu64 " wrong words\n", reply.errors);
		return -EBADMSG;
	}
	return 0;
}

int partner_write_spans(struct partner *p, const struct mailbox_span *span, unsigned n)
{
	p->generation++;
	return call(p, MAILBOX_WRITE, span, n);
}

int partner_write(struct partner *p, uint64_t first, uint64_t pages)
{
	struct mailbox_span span = {first, pages};

	return partner_write_spans(p, &span, 1);
}

int partner_read(struct partner *p, uint64_t first, uint64_t pages)
{
	struct mailbox_span span = {first, pages};

	return call(p, MAILBOX_READ, &span, 1);
}

int partner_verify(const struct partner *p, uint64_t first, uint64_t pages)
{
	for (uint64_t page = first; page < first + pages; page++)
		for (unsigned word = 0; word < PLAN_WORDS; word++)
			if (attached_page(p->a, page)[word] !=
			    plan_pattern(page, word, p->generation)) {
				fprintf(stderr, "wvmbench: page %" PRIu64 " holds a wrong word\n",
					page);
				return -EBADMSG;
			}
	return 0;
}
