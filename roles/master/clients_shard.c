#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "roles/master/clients_priv.h"

#define COUNT(s, field) \
	__atomic_store_n(&(s)->counters.field, (s)->counters.field + 1, __ATOMIC_RELAXED)

static uint64_t bit(unsigned client)
{
	return 1ull << client;
}

/* --- notes to shard 0 ------------------------------------------------------ */

static void run_note(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct side *from = ctx;
	struct note n;

	assert(len == sizeof(n));
	memcpy(&n, data, sizeof(n));
	wvm_clients_note(from->all, from->index, &n);
}

static void send_outbox(struct wvm_task *t)
{
	struct side *s = (struct side *)((char *)t - offsetof(struct side, task));

	while (s->head != s->tail) {
		struct note *n = &s->outbox[s->head % OUTBOX_MAX];

		if (wvm_post(s->shard, s->all->shard0, run_note, s, n, sizeof(*n))) {
			wvm_shard_defer(s->shard, &s->task);
			return;
		}
		s->errors -= n->kind == NOTE_ERROR;
		if (n->kind == NOTE_CODE)
			s->code_noted &= ~bit(n->client);
		s->head++;
	}
}

/* Always by way of the inbox: the caller may be in the middle of something. */
void wvm_side_note(struct side *s, const struct note *n)
{
	if (n->kind == NOTE_ERROR && s->errors == OUTBOX_ERRORS_MAX) {
		COUNT(s, errors_lost);
		return;
	}
	assert(s->tail - s->head < OUTBOX_MAX);
	s->outbox[s->tail++ % OUTBOX_MAX] = *n;
	s->errors += n->kind == NOTE_ERROR;
	send_outbox(&s->task);
}

static void ack(struct side *s, unsigned client, int64_t result)
{
	wvm_side_note(s, &(struct note){.kind = NOTE_ACK, .client = client, .result = result});
}

/* --- faults ---------------------------------------------------------------- */

static void on_fault(struct side *s, unsigned client, const struct uffd_msg *m)
{
	uint64_t flags = m->arg.pagefault.flags;
	bool write = flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	struct wvm_mem *vm;
	uint64_t page;

	/* Before its range is known, or after: wvm_mem_map_add() and _del() wake it. */
	if (wvm_mem_find(s->all->conf.memory, s->index, client, m->arg.pagefault.address, &vm,
			 &page)) {
		COUNT(s, faults_unknown);
		return;
	}
	if (wvm_mem_shard(vm, page) != s->index) {
		if (!(s->broken & bit(client)))
			wvm_side_note(s, &(struct note){.kind = NOTE_BROKEN, .client = client});
		s->broken |= bit(client);
		return;
	}
	if (write) {
		s->faults_write[client]++;
		COUNT(s, faults_write);
	} else {
		s->faults_read[client]++;
		COUNT(s, faults_read);
	}
	s->all->conf.ops->fault(s->all->conf.ctx, s->index, vm, page, write, client);
}

static void on_events(struct wvm_uffd *u, const struct uffd_msg *msgs, unsigned n)
{
	struct side *s = u->ctx;
	unsigned client = (unsigned)(u - s->uffd);

	for (unsigned i = 0; i < n; i++)
		if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
			on_fault(s, client, &msgs[i]);
}

static void on_failed(struct wvm_uffd *u, int err)
{
	struct side *s = u->ctx;

	wvm_side_note(s, &(struct note){.kind = NOTE_DYING, .client = (unsigned)(u - s->uffd)});
}

static void on_closed(struct wvm_uffd *u)
{
	struct side *s = u->ctx;
	unsigned client = (unsigned)(u - s->uffd);

	s->reading &= ~bit(client);
	if (s->leaving & bit(client))
		ack(s, client, 0);
	s->leaving &= ~bit(client);
}

static const struct wvm_uffd_ops uffd_ops = {
	.events = on_events, .failed = on_failed, .closed = on_closed};

/* --- orders of shard 0 ------------------------------------------------------ */

static int join(struct side *s, const struct order *o)
{
	unsigned c = o->client;
	int ret;

	assert(!(s->joined & bit(c)) && !(s->reading & bit(c)));
	ret = wvm_uffd_open(&s->uffd[c], s->shard, o->uffd, &uffd_ops, s);
	if (ret) {
		close(o->uffd);
		close(o->keep);
		return ret;
	}
	s->reading |= bit(c);
	s->joined |= bit(c);
	s->broken &= ~bit(c);
	s->keep[c] = o->keep;
	s->faults_read[c] = s->faults_write[c] = s->faults_failed[c] = 0;
	return wvm_mem_client_add(s->all->conf.memory, s->index, c, o->keep);
}

/* True when it is done; else on_closed() acknowledges. */
static bool leave(struct side *s, unsigned c)
{
	if (s->joined & bit(c)) {
		wvm_mem_client_del(s->all->conf.memory, s->index, c);
		if (s->all->conf.ops->client_gone)
			s->all->conf.ops->client_gone(s->all->conf.ctx, s->index, c);
		close(s->keep[c]);
		s->keep[c] = -1;
		s->joined &= ~bit(c);
	}
	if (!(s->reading & bit(c)))
		return true;
	s->leaving |= bit(c);
	wvm_uffd_close(&s->uffd[c]);
	return false;
}

static void run_order(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct side *s = ctx;
	struct wvm_memory *memory = s->all->conf.memory;
	struct order o;
	int ret = 0;

	assert(len == sizeof(o) && self == s->shard);
	memcpy(&o, data, sizeof(o));
	switch (o.kind) {
	case ORDER_JOIN: ret = join(s, &o); break;
	case ORDER_MAP: ret = wvm_mem_map_add(memory, s->index, o.client, &o.map); break;
	case ORDER_UNMAP:
		ret = wvm_mem_map_del(memory, s->index, o.client, o.map.vm_id, o.map.gpa,
				      o.map.len);
		break;
	case ORDER_CODE:
		s->all->conf.ops->code(s->all->conf.ctx, s->index, o.client, o.code);
		break;
	case ORDER_MUTE:
		if (s->reading & bit(o.client))
			wvm_uffd_close(&s->uffd[o.client]);
		break;
	case ORDER_LEAVE:
		if (!leave(s, o.client))
			return;
		break;
	case ORDER_NONE: assert(0);
	}
	ack(s, o.client, ret);
}

int wvm_side_post(struct client *cl, unsigned shard)
{
	struct wvm_clients *all = cl->all;
	struct order o = cl->run.order;

	o.code = cl->code;
	if (o.kind == ORDER_JOIN) {
		o.uffd = cl->uffd[shard];
		o.keep = cl->keep[shard];
	}
	if (wvm_post(all->shard0, all->side[shard]->shard, run_order, all->side[shard], &o,
		     sizeof(o)))
		return -EAGAIN;
	if (o.kind == ORDER_JOIN)
		cl->uffd[shard] = cl->keep[shard] = -1;
	return 0;
}

/* --- what mem.c reports ------------------------------------------------------ */

static void mem_dying(void *ctx, unsigned shard, unsigned client)
{
	struct wvm_clients *all = *(struct wvm_clients **)ctx;

	wvm_side_note(all->side[shard], &(struct note){.kind = NOTE_DYING, .client = client});
}

static void mem_failed(void *ctx, unsigned shard, unsigned client, const struct wvm_ring_error *err)
{
	struct wvm_clients *all = *(struct wvm_clients **)ctx;
	struct side *s = all->side[shard];

	s->faults_failed[client]++;
	wvm_side_note(s, &(struct note){.kind = NOTE_ERROR, .client = client, .error = *err});
}

const struct wvm_mem_ops wvm_clients_mem_ops = {.dying = mem_dying, .failed = mem_failed};

void wvm_clients_reply(struct wvm_clients *all, unsigned shard, unsigned client, uint64_t token,
		       int64_t result)
{
	if (!token)
		return;
	wvm_side_note(all->side[shard], &(struct note){.kind = NOTE_REPLY,
						       .client = client % WVM_CLIENTS_MAX,
						       .token = token,
						       .result = result});
}

int wvm_side_new(struct wvm_clients *all, unsigned index)
{
	struct side *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->all = all;
	s->index = index;
	s->shard = all->conf.shards[index];
	s->task.run = send_outbox;
	for (unsigned c = 0; c < WVM_CLIENTS_MAX; c++)
		s->keep[c] = -1;
	all->side[index] = s;
	return 0;
}

/* The shard has stopped: what its loop did not close any more is closed here. */
void wvm_side_free(struct side *s)
{
	if (!s)
		return;
	for (unsigned c = 0; c < WVM_CLIENTS_MAX; c++) {
		if (s->keep[c] >= 0)
			close(s->keep[c]);
		if (s->reading & bit(c))
			close(s->uffd[c].fd);
	}
	free(s);
}
