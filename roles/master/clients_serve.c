#include <assert.h>
#include <errno.h>
#include <string.h>

#include "roles/master/clients_priv.h"

/* Requests of one client per turn of the shard. */
#define SERVE_BATCH 16u
/* A client that does not read its errors keeps this much room for answers. */
#define ANSWER_ROOM (WVM_CHANNEL_CAPACITY / 2)

void wvm_client_reply(struct client *cl, uint64_t token, int64_t result, const void *data,
		      uint32_t len)
{
	struct wvm_ring_reply r = {.token = token, .result = result};

	if (!cl->out_open || !cl->channel || cl->state == CLIENT_MUTE)
		return;
	/* It says again what it had: it has nobody who takes answers yet, and fewer of them fit. */
	if (cl->all->adopting && !token && !result)
		return;
	/* At most WVM_RING_CALLS_MAX answers are under way: a full ring is the client's fault. */
	if (wvm_spsc_push2(&cl->tx, WVM_RING_REPLY, &r, sizeof(r), data, len)) {
		wvm_client_break(cl, "it does not take its answers");
		return;
	}
	wvm_doorbell_ring(&cl->out);
}

void wvm_client_send_error(struct client *cl, const struct wvm_ring_error *e)
{
	struct side *s = cl->all->side[0];

	if (cl->state == CLIENT_LIVE && wvm_spsc_room(&cl->tx) > ANSWER_ROOM &&
	    !wvm_spsc_push(&cl->tx, WVM_RING_ERROR, e, sizeof(*e)))
		wvm_doorbell_ring(&cl->out);
	else
		__atomic_store_n(&s->counters.errors_lost, s->counters.errors_lost + 1,
				 __ATOMIC_RELAXED);
}

void wvm_client_send_order(struct client *cl, const struct wvm_ring_order *o)
{
	if (cl->state == CLIENT_LIVE && wvm_spsc_room(&cl->tx) > ANSWER_ROOM &&
	    !wvm_spsc_push(&cl->tx, WVM_RING_ORDER, o, sizeof(*o)))
		wvm_doorbell_ring(&cl->out);
}

/* --- requests that the glue answers later --------------------------------- */

static struct owed *owe(struct client *cl, uint64_t theirs, struct pin *pin)
{
	for (unsigned i = 0; i < WVM_RING_CALLS_MAX; i++) {
		struct owed *o = &cl->owed[i];

		if (o->token)
			continue;
		*o = (struct owed){
			.token = ++cl->all->serial << 8 | (i + 1), .theirs = theirs, .pin = pin};
		cl->owed_count++;
		return o;
	}
	return NULL;
}

static void unpin(struct client *cl, const struct pin *p, uint64_t token)
{
	struct wvm_clients *all = cl->all;

	all->conf.ops->unpin(all->conf.ctx, cl->index,
			     wvm_memory_vm_at(all->conf.memory, p->vm_index), p->first, p->count,
			     token);
}

/* The glue has answered: a pin is held now, unless nobody wants it any more. */
void wvm_client_glue_replied(struct client *cl, uint64_t token, int64_t result)
{
	unsigned i = (unsigned)(token & 0xff) - 1;
	struct owed *o = &cl->owed[i % WVM_RING_CALLS_MAX];
	struct pin *p = o->pin;
	uint64_t theirs = o->theirs;

	if (i >= WVM_RING_CALLS_MAX || o->token != token)
		return;
	*o = (struct owed){0};
	cl->owed_count--;
	if (p && !result && p->state == PIN_ASKED && cl->state != CLIENT_LEAVING) {
		p->state = PIN_HELD;
	} else if (p) {
		if (!result)
			unpin(cl, p, 0);
		p->state = PIN_FREE;
	}
	wvm_client_reply(cl, theirs, result, NULL, 0);
	if (cl->state == CLIENT_LEAVING)
		wvm_client_settle(cl);
	else
		wvm_client_serve_later(cl);
}

void wvm_client_drop_pins(struct client *cl)
{
	for (unsigned i = 0; i < PINS_MAX; i++) {
		struct pin *p = &cl->pins[i];

		if (p->state != PIN_HELD)
			continue; /* ASKED ones end when the glue answers */
		unpin(cl, p, 0);
		p->state = PIN_FREE;
	}
}

/* --- pins ------------------------------------------------------------------ */

static struct pin *find_pin(struct client *cl, enum pin_state state, const struct pin *like)
{
	for (unsigned i = 0; i < PINS_MAX; i++) {
		struct pin *p = &cl->pins[i];

		if (p->state == state &&
		    (state == PIN_FREE || (p->vm_index == like->vm_index &&
					   p->first == like->first && p->count == like->count)))
			return p;
	}
	return NULL;
}

/* The pages that a request names, if they are whole pages of that VM. */
static int pin_range(struct client *cl, const struct wvm_ring_req *r, struct wvm_mem **vm,
		     struct pin *out)
{
	struct wvm_memory *memory = cl->all->conf.memory;
	unsigned index = 0;

	*vm = wvm_memory_vm(memory, r->vm_id);
	if (!*vm)
		return -ENXIO;
	if (!r->len || (r->gpa | r->len) % WVM_PAGE_SIZE || r->gpa > wvm_mem_size(*vm) ||
	    r->len > wvm_mem_size(*vm) - r->gpa)
		return -EINVAL;
	while (wvm_memory_vm_at(memory, index) != *vm)
		index++;
	*out = (struct pin){.vm_index = (uint16_t)index,
			    .first = r->gpa / WVM_PAGE_SIZE,
			    .count = r->len / WVM_PAGE_SIZE};
	return 0;
}

/* Pinned in the former life: the shards are told before any page is acted on. */
static int64_t say_pinned(struct client *cl, const struct pin *want)
{
	struct pin *p = find_pin(cl, PIN_HELD, want);

	if (p)
		return p->nested == UINT16_MAX - 1 ? -EOVERFLOW : (p->nested++, 0);
	p = find_pin(cl, PIN_FREE, NULL);
	if (!p)
		return -EOVERFLOW;
	*p = *want;
	p->state = PIN_HELD;
	return 0;
}

static int64_t do_pin(struct client *cl, const struct wvm_ring_req *r, bool *later)
{
	struct wvm_clients *all = cl->all;
	struct wvm_mem *vm;
	struct pin want, *p;
	struct owed *o;
	int ret;

	ret = pin_range(cl, r, &vm, &want);
	if (ret)
		return ret;
	if (!all->conf.ops->pin || !all->conf.ops->unpin)
		return -ENOTSUP;
	if (all->adopting)
		return say_pinned(cl, &want);
	p = find_pin(cl, PIN_HELD, &want);
	if (p)
		return p->nested == UINT16_MAX - 1 ? -EOVERFLOW : (p->nested++, 0);
	p = find_pin(cl, PIN_FREE, NULL);
	if (!p)
		return -EOVERFLOW;
	o = owe(cl, r->token, p);
	assert(o); /* wvm_client_serve() stops before they run out */
	*p = want;
	p->state = PIN_ASKED;
	*later = true;
	all->conf.ops->pin(all->conf.ctx, cl->index, vm, p->first, p->count, o->token);
	return 0;
}

static int64_t do_unpin(struct client *cl, const struct wvm_ring_req *r, bool *later)
{
	struct wvm_mem *vm;
	struct pin want, *p;
	struct owed *o;
	int ret;

	ret = pin_range(cl, r, &vm, &want);
	if (ret)
		return ret;
	p = find_pin(cl, PIN_HELD, &want);
	if (!p) {
		/* The client has given up waiting for it. */
		p = find_pin(cl, PIN_ASKED, &want);
		if (p)
			p->state = PIN_CANCELLED;
		return p ? 0 : -EINVAL;
	}
	if (p->nested) {
		p->nested--;
		return 0;
	}
	o = owe(cl, r->token, NULL);
	assert(o);
	want = *p;
	p->state = PIN_FREE;
	*later = true;
	unpin(cl, &want, o->token);
	return 0;
}

/* --- the others --------------------------------------------------------------- */

static void do_stats(struct client *cl, uint64_t token)
{
	struct wvm_clients *all = cl->all;
	struct wvm_stats s = {0};

	for (unsigned k = 0; k < all->shards; k++) {
		const struct side *side = all->side[k];

		s.faults_read += __atomic_load_n(&side->faults_read[cl->index], __ATOMIC_RELAXED);
		s.faults_write += __atomic_load_n(&side->faults_write[cl->index], __ATOMIC_RELAXED);
		s.faults_failed += __atomic_load_n(&side->faults_failed[cl->index],
						   __ATOMIC_RELAXED);
	}
	if (all->conf.ops->stats)
		all->conf.ops->stats(all->conf.ctx, cl->index, &s);
	wvm_client_reply(cl, token, 0, &s, sizeof(s));
}

static int64_t do_where(struct client *cl, const struct wvm_ring_req *r)
{
	struct wvm_clients *all = cl->all;
	struct wvm_mem *vm = wvm_memory_vm(all->conf.memory, r->vm_id);

	if (!vm)
		return -ENXIO;
	if (r->gpa >= wvm_mem_size(vm))
		return -ERANGE;
	return all->conf.ops->where ? all->conf.ops->where(all->conf.ctx, vm, r->gpa) : -ENOTSUP;
}

static void do_node(struct client *cl, const struct wvm_ring_req *r)
{
	struct wvm_clients *all = cl->all;
	struct wvm_ring_node node = {0};
	int ret = all->conf.ops->node ? all->conf.ops->node(all->conf.ctx, r->mode, &node)
				      : -ENOTSUP;

	wvm_client_reply(cl, r->token, ret, &node, ret < 0 ? 0 : sizeof(node));
}

static void do_vcpu_open(struct client *cl, const struct wvm_ring_req *r)
{
	struct wvm_ring_vcpu info;
	int ret = wvm_client_vcpu_open(cl, r, &info);

	wvm_client_reply(cl, r->token, ret, &info, ret ? 0 : sizeof(info));
}

static void do_map(struct client *cl, enum order_kind kind, const struct wvm_ring_req *r)
{
	struct wvm_clients *all = cl->all;
	struct wvm_mem_map map = {
		.base = r->addr, .gpa = r->gpa, .len = r->len, .mode = r->mode, .vm_id = r->vm_id};

	/* Who comes back to a new life of this master was admitted long ago. */
	if (kind == ORDER_MAP && !all->adopting && all->conf.ops->admits &&
	    !all->conf.ops->admits(all->conf.ctx))
		wvm_client_reply(cl, r->token, -ESHUTDOWN, NULL, 0);
	else
		wvm_client_order(cl, kind, &map, r->token);
}

/* By the page's shard: no other program stores to it from then on without the master. */
static int64_t do_code_mark(struct client *cl, const struct wvm_ring_req *r, bool *later)
{
	struct wvm_clients *all = cl->all;
	struct wvm_mem *vm;
	struct pin page;
	struct owed *o;
	int ret = pin_range(cl, r, &vm, &page);

	if (ret)
		return ret;
	if (!cl->code || page.count != 1)
		return -EINVAL;
	o = owe(cl, r->token, NULL);
	assert(o);
	*later = true;
	all->conf.ops->code_mark(all->conf.ctx, cl->index, vm, page.first, o->token);
	return 0;
}

static void serve_one(struct client *cl, uint32_t type, const struct wvm_ring_req *r)
{
	bool later = false;
	int64_t result;

	switch (type) {
	case WVM_RING_MAP: do_map(cl, ORDER_MAP, r); return;
	case WVM_RING_UNMAP: do_map(cl, ORDER_UNMAP, r); return;
	case WVM_RING_DETACH: wvm_client_order(cl, ORDER_LEAVE, NULL, r->token); return;
	case WVM_RING_STATS: do_stats(cl, r->token); return;
	case WVM_RING_CODE: wvm_client_code(cl, r); return;
	case WVM_RING_BACK: cl->back = cl->all->adopting; return;
	case WVM_RING_PIN: result = do_pin(cl, r, &later); break;
	case WVM_RING_UNPIN: result = do_unpin(cl, r, &later); break;
	case WVM_RING_WHERE: result = do_where(cl, r); break;
	case WVM_RING_VCPU_OPEN: do_vcpu_open(cl, r); return;
	case WVM_RING_VCPU_CLOSE: result = wvm_client_vcpu_close(cl, r); break;
	case WVM_RING_NODE: do_node(cl, r); return;
	case WVM_RING_CODE_MARK: result = do_code_mark(cl, r, &later); break;
	default: wvm_client_break(cl, "it sent an unknown request"); return;
	}
	if (!later)
		wvm_client_reply(cl, r->token, result, NULL, 0);
}

/* One order at a time, a bounded number of answers owed: what comes more waits in its ring. */
void wvm_client_serve(struct client *cl)
{
	for (unsigned i = 0; i < SERVE_BATCH; i++) {
		struct wvm_ring_req r;
		uint32_t type;
		int len;

		if (cl->state != CLIENT_LIVE || cl->run.order.kind != ORDER_NONE ||
		    cl->owed_count == WVM_RING_CALLS_MAX || cl->back)
			return;
		len = wvm_spsc_pop(&cl->rx, &type, cl->all->body, sizeof(cl->all->body));
		if (len == -EAGAIN)
			return;
		if (len < (int)sizeof(r)) {
			wvm_client_break(cl, "its ring is damaged");
			return;
		}
		memcpy(&r, cl->all->body, sizeof(r));
		serve_one(cl, type, &r);
	}
	wvm_client_serve_later(cl);
}
