#include "bench/wvmbench/join.h"

#include <stdlib.h>
#include <string.h>

#define LATE_NS 100000000u /* so long after the access a waking may still be stamped */

static int by_time(const void *a, const void *b)
{
	const struct stamp *x = a, *y = b;

	return (x->ns > y->ns) - (x->ns < y->ns);
}

void join_sort(struct trace *t)
{
	qsort(t->at, t->n, sizeof(*t->at), by_time);
}

/* The first stamp at ns or later. */
static size_t first_from(const struct trace *t, uint64_t ns)
{
	size_t low = 0, high = t->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (t->at[mid].ns < ns)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* What is looked for. */
struct sought {
	enum stamp_kind kind;
	enum stamp_what what;
	uint64_t page;
	uint64_t request; /* 0: any */
	uint64_t from_ns, to_ns;
};

static bool fits(const struct stamp *s, const struct sought *q)
{
	return s->kind == q->kind && s->page == q->page &&
	       (s->kind == STAMP_FAULT || s->kind == STAMP_DONE || s->what == q->what) &&
	       (!q->request || s->request == q->request);
}

/* The first that fits, or the last; NULL: none. *count (may be NULL): how many there are. */
static const struct stamp *find(const struct trace *t, const struct sought *q, bool last,
				unsigned *count)
{
	const struct stamp *found = NULL;
	unsigned n = 0;

	for (size_t i = first_from(t, q->from_ns); i < t->n && t->at[i].ns <= q->to_ns; i++)
		if (fits(&t->at[i], q)) {
			if (!found || last)
				found = &t->at[i];
			n++;
		}
	if (count)
		*count = n;
	return found;
}

/* When the batch that a message was given to went to the kernel; the message had come by then_ns.
 */
static uint64_t submitted(const struct trace *t, const struct stamp *send, uint64_t then_ns)
{
	for (size_t i = first_from(t, send->ns); i < t->n && t->at[i].ns < then_ns; i++)
		if (t->at[i].kind == STAMP_SUBMIT && t->at[i].shard == send->shard)
			return t->at[i].ns;
	/* A full batch goes at once, and what a node sends to itself goes through no kernel. */
	return send->ns;
}

/* A message on its way: given to the batch, to the kernel, received. */
struct leg {
	uint64_t send_ns, submit_ns, receive_ns;
};

/* Finds the first sending of a message in a time, and where it arrived: of several pieces the last.
 */
static bool find_leg(const struct trace *from, const struct trace *to, const struct sought *q,
		     struct leg *out, uint64_t *request)
{
	struct sought there = *q;
	const struct stamp *send, *receive;

	send = find(from, q, false, NULL);
	if (!send)
		return false;
	there.kind = STAMP_RECEIVE;
	there.request = send->request;
	there.from_ns = send->ns;
	receive = find(to, &there, true, NULL);
	if (!receive)
		return false;
	*out = (struct leg){send->ns, submitted(from, send, receive->ns), receive->ns};
	if (request)
		*request = send->request;
	return true;
}

/* What the owner did while the home had the request. False: nothing, or it cannot be told. */
static bool find_owner(const struct trace *home, const struct trace *owner, uint64_t page,
		       uint64_t from_ns, uint64_t to_ns, struct joined *out)
{
	struct sought q = {STAMP_SEND, STAMP_DEMAND, page, 0, from_ns, to_ns};
	struct leg demand, give;

	if (!find_leg(home, owner, &q, &demand, NULL))
		return false;
	q = (struct sought){STAMP_SEND, STAMP_GIVE, page, 0, demand.receive_ns, to_ns};
	if (!find_leg(owner, home, &q, &give, NULL))
		return false;
	out->ns[PART_DEMAND] = demand.receive_ns - demand.submit_ns;
	out->ns[PART_OWNER] = give.submit_ns - demand.receive_ns;
	out->ns[PART_GIVE] = give.receive_ns - give.submit_ns;
	out->ns[PART_HOME] -= give.receive_ns - demand.submit_ns;
	return true;
}

enum join_result join_fault(const struct access *a, const struct trace *requester,
			    const struct trace *home, const struct trace *owner, struct joined *out)
{
	struct sought q = {STAMP_FAULT, 0, a->page, 0, a->before_ns, a->after_ns};
	const struct stamp *fault = find(requester, &q, false, NULL), *done;
	uint64_t request, done_ns;
	struct leg ask, answer;
	unsigned asked;

	memset(out, 0, sizeof(*out));
	if (!fault)
		return JOIN_NO_FAULT;
	q = (struct sought){STAMP_SEND, STAMP_ASK, a->page, 0, fault->ns, a->after_ns};
	find(requester, &q, false, &asked);
	if (asked == 0) {
		q.from_ns = 0;
		return find(requester, &q, false, NULL) ? JOIN_AHEAD : JOIN_MISSING;
	}
	if (asked > 1)
		return JOIN_AGAIN;
	if (!find_leg(requester, home, &q, &ask, &request))
		return JOIN_MISSING;
	q = (struct sought){STAMP_SEND, STAMP_ANSWER,   a->page,
			    request,    ask.receive_ns, a->after_ns};
	if (!find_leg(home, requester, &q, &answer, NULL))
		return JOIN_MISSING;
	q = (struct sought){STAMP_DONE, 0, a->page, 0, answer.receive_ns, a->after_ns + LATE_NS};
	done = find(requester, &q, false, NULL);
	if (!done)
		return JOIN_MISSING;
	done_ns = done->ns < a->after_ns ? done->ns : a->after_ns;
	out->ns[PART_DELIVERY] = fault->ns - a->before_ns;
	out->ns[PART_QUEUE] = ask.submit_ns - fault->ns;
	out->ns[PART_THERE] = ask.receive_ns - ask.submit_ns;
	out->ns[PART_HOME] = answer.submit_ns - ask.receive_ns;
	out->ns[PART_BACK] = answer.receive_ns - answer.submit_ns;
	out->ns[PART_COPY] = done_ns - answer.receive_ns;
	out->ns[PART_WAKE] = a->after_ns - done_ns;
	if (owner)
		out->owner = find_owner(home, owner, a->page, ask.receive_ns, answer.submit_ns,
					out);
	return JOIN_WHOLE;
}
