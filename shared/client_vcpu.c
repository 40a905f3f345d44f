/* Running a processor elsewhere: the owner's side of the run protocol over its link. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "shared/client_vcpu_priv.h"

#define HELLO_NS UINT64_C(2000000000)
/* While a master takes its former life's pages over, the run's clock goes on. */
#define MEET_MS  1000
#define NO_VNODE UINT32_MAX

const char *wvm_vcpu_error(void)
{
	return wvm_attach_error();
}

/* --- what comes from the master ------------------------------------------------ */

enum came { CAME_NOTHING, CAME_MESSAGE, CAME_TROUBLE };

static enum came take_one(struct wvm_vcpu_link *l, struct wvm_msg *m, const uint8_t **payload)
{
	for (;;) {
		uint32_t type;
		int len = l->open ? wvm_spsc_pop(&l->rx, &type, l->record, sizeof(l->record))
				  : -EAGAIN;

		if (len == -EAGAIN)
			return CAME_NOTHING;
		if (len == -EPROTO)
			return CAME_TROUBLE;
		if (len < (int)sizeof(*m) || type != WVM_RING_DATAGRAM)
			continue;
		memcpy(m, l->record, sizeof(*m));
		*payload = l->record + sizeof(*m);
		if (m->payload_len != (size_t)len - sizeof(*m))
			continue;
		l->counters.bytes_received += m->payload_len;
		return CAME_MESSAGE;
	}
}

/* Until something has come of the run: what its answer is in must not be written any more. */
static enum wvm_run_event take_all(struct wvm_vcpu_link *l)
{
	enum wvm_run_event event = WVM_RUN_NOTHING;
	const uint8_t *payload;
	struct wvm_msg m;

	while (event == WVM_RUN_NOTHING) {
		enum came came = take_one(l, &m, &payload);

		if (came == CAME_TROUBLE)
			l->open = false; /* another channel is made for the same master */
		if (came != CAME_MESSAGE)
			break;
		event = wvm_run_owner_message(&l->run, &m, payload, wvm_vcpu_now_ns());
	}
	return event;
}

/* --- nodes ----------------------------------------------------------------------- */

static int vnode_of(struct wvm_vcpu_link *l, unsigned node, uint32_t *vnode)
{
	struct wvm_ring_req req = {.mode = node};
	struct wvm_stats data = {0}; /* the reply's, whatever it is */
	struct wvm_ring_node what;
	int64_t ret;

	for (unsigned i = 0; i < WVM_VCPU_NODES; i++)
		if (l->nodes[i].known && l->nodes[i].node == node) {
			*vnode = l->nodes[i].vnode;
			return 0;
		}
	ret = wvm_call(l->w, WVM_RING_NODE, &req, &data, WVM_CALL_MS);
	if (ret == -ENXIO)
		return wvm_client_fail(-ENXIO, "the cluster has no node %u", node);
	if (ret < 0)
		return wvm_client_fail((int)ret, "the master of this node does not answer: %s",
				       strerror((int)-ret));
	_Static_assert(sizeof(what) <= sizeof(data), "the reply fits");
	memcpy(&what, &data, sizeof(what));
	/* A master of an older version says nothing of cores. */
	if (what.nodes && !what.cores)
		return wvm_client_fail(
			-WVM_RING_MEMORY_ONLY,
			"node %u lends memory only (0 cores in its NODE line of the topology): "
			"name a node with cores, or give it cores in the topology of all nodes",
			node);
	*vnode = (uint32_t)ret;
	l->nodes[l->next_node].known = true;
	l->nodes[l->next_node].node = node;
	l->nodes[l->next_node].vnode = *vnode;
	l->next_node = (l->next_node + 1) % WVM_VCPU_NODES;
	return 0;
}

/* --- hello ------------------------------------------------------------------------- */

static void say_hello(struct wvm_vcpu_link *l, uint32_t vnode)
{
	struct wvm_msg m = {.type = WVM_MSG_VCPU_HELLO,
			    .qos = WVM_QOS_CONTROL,
			    .hops = WVM_HOPS_MAX,
			    .vm_id = l->vm_id,
			    .src = l->run.self,
			    .dst = vnode,
			    .request = l->nonce,
			    .gpa = wvm_run_operand(l->vcpu, WVM_RUN_NO_REASON),
			    .version = l->run.life};

	if (wvm_vcpu_put(l, &m, NULL))
		(void)eventfd_write(l->to_master_fd, 1);
}

/* Those that are asked, and where: no vnode where there is no such node, or it has no cores. */
struct asked {
	struct wvm_vcpu_met *met;
	uint32_t *vnode;
	unsigned count, silent;
};

static void say_hellos(struct wvm_vcpu_link *l, const struct asked *a)
{
	for (unsigned i = 0; i < a->count; i++)
		if (!a->met[i].life && a->vnode[i] != NO_VNODE)
			say_hello(l, a->vnode[i]);
}

/* True when it is an answer that was awaited. */
static bool take_hello(struct asked *a, const struct wvm_msg *m, const uint8_t *payload)
{
	for (unsigned i = 0; i < a->count; i++)
		if (m->src == a->vnode[i] && !a->met[i].life &&
		    !wvm_vcpu_hello_decode(payload, m->payload_len, &a->met[i].hello)) {
			a->met[i].life = m->grant;
			a->silent--;
			return true;
		}
	return false;
}

/* Until all have answered; what is no answer is of former runs. */
static void take_hellos(struct wvm_vcpu_link *l, struct asked *a)
{
	const uint8_t *payload;
	struct wvm_msg m;
	enum came came;

	while ((came = take_one(l, &m, &payload)) == CAME_MESSAGE) {
		if (m.type == WVM_MSG_VCPU_HELLO && m.flags & WVM_MSG_ANSWER &&
		    m.request == l->nonce && m.grant && take_hello(a, &m, payload)) {
			if (!a->silent)
				return;
			continue;
		}
		(void)wvm_run_owner_message(&l->run, &m, payload, wvm_vcpu_now_ns());
	}
	if (came == CAME_TROUBLE)
		l->open = false;
}

/* Says hello until all have answered, or for as long as none is waited for. */
static void ask_slaves(struct wvm_vcpu_link *l, struct asked *a, uint64_t end)
{
	uint64_t now = wvm_vcpu_now_ns(), wait = WVM_RUN_RETRY_NS, say_at = now;

	l->nonce++;
	for (; a->silent && now < end; now = wvm_vcpu_now_ns()) {
		if (now >= say_at) {
			(void)wvm_vcpu_meet(l, MEET_MS);
			say_hellos(l, a);
			say_at = now + wait;
			wait = 2 * wait < WVM_RUN_RETRY_MAX_NS ? 2 * wait : WVM_RUN_RETRY_MAX_NS;
		}
		wvm_vcpu_sleep(l, say_at < end ? say_at : end);
		take_hellos(l, a);
		wvm_vcpu_flush(l);
	}
}

static int hello_locked(struct wvm_vcpu_link *l, unsigned node, uint64_t *life,
			struct wvm_vcpu_hello *hello)
{
	struct wvm_vcpu_met met = {.node = node};
	uint32_t vnode;
	struct asked a = {.met = &met, .vnode = &vnode, .count = 1, .silent = 1};
	uint64_t end = wvm_vcpu_now_ns() + HELLO_NS;
	int ret = wvm_vcpu_await(l, end);

	if (!ret)
		ret = vnode_of(l, node, &vnode);
	if (ret)
		return ret;
	ask_slaves(l, &a, end);
	if (!met.life)
		return wvm_client_fail(
			-ETIMEDOUT, "the slave of node %u does not answer (is it running there?)",
			node);
	*life = met.life;
	*hello = met.hello;
	return 0;
}

int wvm_vcpu_hello(struct wvm_vcpu_link *l, unsigned node, uint64_t *life,
		   struct wvm_vcpu_hello *hello)
{
	int ret;

	pthread_mutex_lock(&l->lock);
	ret = hello_locked(l, node, life, hello);
	pthread_mutex_unlock(&l->lock);
	return ret;
}

static int meet_locked(struct wvm_vcpu_link *l, struct asked *a)
{
	int ret = wvm_vcpu_await(l, wvm_vcpu_now_ns() + HELLO_NS);
	int answers = 0;

	if (ret)
		return ret;
	for (unsigned i = 0; i < a->count; i++) {
		a->met[i].life = 0;
		ret = vnode_of(l, a->met[i].node, &a->vnode[i]);
		if (ret == -ENXIO || ret == -WVM_RING_MEMORY_ONLY)
			a->vnode[i] = NO_VNODE;
		else if (ret)
			return ret;
		else
			a->silent++;
	}
	/* Asking the master of many nodes has taken its time, which is not the slaves'. */
	ask_slaves(l, a, wvm_vcpu_now_ns() + HELLO_NS);
	for (unsigned i = 0; i < a->count; i++)
		answers += a->met[i].life != 0;
	return answers;
}

int wvm_vcpu_meet_slaves(struct wvm_vcpu_link *l, struct wvm_vcpu_met *met, unsigned count)
{
	struct asked a = {.met = met, .count = count};
	int ret;

	a.vnode = calloc(count + 1, sizeof(*a.vnode));
	if (!a.vnode)
		return wvm_client_fail(-ENOMEM, "out of memory");
	pthread_mutex_lock(&l->lock);
	ret = meet_locked(l, &a);
	pthread_mutex_unlock(&l->lock);
	free(a.vnode);
	return ret;
}

/* --- runs -------------------------------------------------------------------------- */

/* Waits for the end of the run that has begun. */
static enum wvm_run_event await_end(struct wvm_vcpu_link *l)
{
	enum wvm_run_event event;

	for (;;) {
		event = take_all(l);
		if (event != WVM_RUN_NOTHING)
			return event;
		if (__atomic_exchange_n(&l->kicked, false, __ATOMIC_ACQ_REL))
			wvm_run_owner_kick(&l->run, wvm_vcpu_now_ns());
		event = wvm_run_owner_tick(&l->run, wvm_vcpu_now_ns());
		if (event != WVM_RUN_NOTHING)
			return event;
		/* Without a master what is sent now is lost like on the wire, and retried. */
		if (!wvm_vcpu_ready(l))
			(void)wvm_vcpu_meet(l, MEET_MS);
		wvm_vcpu_flush(l);
		wvm_vcpu_sleep(l, wvm_run_owner_deadline(&l->run));
	}
}

static void tell(struct wvm_vcpu_link *l, enum wvm_run_event event, unsigned node,
		 struct wvm_vcpu_answer *a)
{
	switch (event) {
	case WVM_RUN_ANSWERED:
		a->outcome = WVM_VCPU_ANSWERED;
		a->data = l->answer;
		a->len = l->run.answer_len;
		return;
	case WVM_RUN_REFUSED:
		a->outcome = WVM_VCPU_REFUSED;
		a->reason = l->run.reason;
		wvm_client_fail(0, "node %u has refused processor %u: %s", node, l->vcpu,
				wvm_run_reason_text(a->reason));
		return;
	case WVM_RUN_LOST:
		wvm_client_fail(0, "processor %u is lost: the slave of node %u was started again",
				l->vcpu, node);
		break;
	default:
		wvm_client_fail(0, "processor %u is lost: nothing was heard of node %u for %u s",
				l->vcpu, node, (unsigned)(WVM_RUN_DEADLINE_NS / 1000000000));
		break;
	}
	a->outcome = WVM_VCPU_LOST;
}

static int run_locked(struct wvm_vcpu_link *l, unsigned node, uint64_t life, const void *run,
		      size_t len, struct wvm_vcpu_answer *a)
{
	uint64_t from = wvm_vcpu_now_ns();
	enum wvm_run_event event;
	uint32_t vnode;
	int ret = wvm_vcpu_await(l, from + WVM_VCPU_MEET_NS);

	if (!ret)
		ret = vnode_of(l, node, &vnode);
	if (ret)
		return ret;
	/* What is left of former runs; a message of theirs must not stand before the answer. */
	(void)take_all(l);
	from = wvm_vcpu_now_ns();
	wvm_run_begin(&l->run, vnode, life, run, (uint32_t)len, from);
	event = await_end(l);
	*a = (struct wvm_vcpu_answer){
		.seq = l->run.seq, .ran_from_ns = from, .took_ns = wvm_vcpu_now_ns() - from};
	tell(l, event, node, a);
	l->counters.runs++;
	wvm_vcpu_publish(l);
	if (event == WVM_RUN_ANSWERED)
		wvm_vcpu_acknowledge_later(l);
	return 0;
}

int wvm_vcpu_run(struct wvm_vcpu_link *l, unsigned node, uint64_t life, const void *run, size_t len,
		 struct wvm_vcpu_answer *answer)
{
	int ret;

	if (!len || len > WVM_RUN_MAX || !life)
		return wvm_client_fail(-EINVAL, "a run has 1 to %u bytes, and a slave's life",
				       WVM_RUN_MAX);
	pthread_mutex_lock(&l->lock);
	ret = run_locked(l, node, life, run, len, answer);
	pthread_mutex_unlock(&l->lock);
	return ret;
}

void wvm_vcpu_kick(struct wvm_vcpu_link *l)
{
	int before = errno;

	__atomic_store_n(&l->kicked, true, __ATOMIC_RELEASE);
	__atomic_fetch_add(&l->kicks, 1, __ATOMIC_RELAXED);
	(void)eventfd_write(l->bell_fd, 1);
	errno = before;
}

void wvm_vcpu_counters(const struct wvm_vcpu_link *l, struct wvm_vcpu_counters *out)
{
	*out = l->counters;
	out->retries = l->run.retries;
	out->kicks = __atomic_load_n(&l->kicks, __ATOMIC_RELAXED);
}
