/*
 * The channels of processors that run on other nodes: each a memfd with two
 * rings, a page of reports and orders, and two doorbells of the program that
 * owns the VM. What is in the records is the relay's to judge (vcpus.c).
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "roles/master/clients_priv.h"

/* Records of one channel per turn of the shard: a state in its segments, and the kick behind it. */
#define SERVE_BATCH 64u

static const struct channel_shape shape = {WVM_VCPU_RING_BYTES, WVM_VCPU_CAPACITY,
					   WVM_VCPU_REPORT_BYTES};
_Static_assert(sizeof(struct wvm_spsc_mem) + WVM_VCPU_CAPACITY <= WVM_VCPU_RING_BYTES, "ring fits");
_Static_assert(WVM_VCPU_RING_BYTES % WVM_PAGE_SIZE == 0, "the second ring begins on a page");

/* --- life ---------------------------------------------------------------------- */

static void settle(struct vcpu_channel *ch)
{
	if (ch->state == VCPU_CLOSING && !ch->in_open && !ch->out_open)
		ch->state = VCPU_FREE;
}

static void in_closed(struct wvm_doorbell *d)
{
	struct vcpu_channel *ch = d->ctx;

	ch->in_open = false;
	settle(ch);
}

static void out_closed(struct wvm_doorbell *d)
{
	struct vcpu_channel *ch = d->ctx;

	ch->out_open = false;
	settle(ch);
}

/* Nothing goes through it from now on; its place is free when the doorbells are closed. */
static void close_channel(struct vcpu_channel *ch)
{
	struct vcpu_channels *vcpus = &ch->all->vcpus;
	unsigned index = (unsigned)(ch - vcpus->list);

	assert(ch->state == VCPU_OPEN && vcpus->at[ch->vm_index][ch->vcpu] == index + 1);
	vcpus->at[ch->vm_index][ch->vcpu] = 0;
	vcpus->again[index / 64] &= ~(1ull << index % 64);
	vcpus->open--;
	ch->state = VCPU_CLOSING;
	munmap(ch->mem, WVM_VCPU_CHANNEL_BYTES);
	ch->mem = NULL;
	wvm_doorbell_close(&ch->in);
	wvm_doorbell_close(&ch->out);
}

void wvm_client_vcpus_close(struct client *cl)
{
	for (unsigned i = 0; i < VCPU_CHANNELS; i++) {
		struct vcpu_channel *ch = &cl->all->vcpus.list[i];

		if (ch->state == VCPU_OPEN && ch->client == cl->index)
			close_channel(ch);
	}
}

void wvm_clients_vcpus_free(struct wvm_clients *all)
{
	for (unsigned i = 0; i < VCPU_CHANNELS; i++) {
		struct vcpu_channel *ch = &all->vcpus.list[i];

		if (ch->in_open)
			close(ch->in.fd);
		if (ch->out_open)
			close(ch->out.fd);
		if (ch->mem)
			munmap(ch->mem, WVM_VCPU_CHANNEL_BYTES);
	}
}

/* --- from the owner ---------------------------------------------------------------- */

static void serve_later(struct vcpu_channel *ch)
{
	struct vcpu_channels *vcpus = &ch->all->vcpus;
	unsigned index = (unsigned)(ch - vcpus->list);

	vcpus->again[index / 64] |= 1ull << index % 64;
	wvm_shard_defer(ch->all->shard0, &vcpus->task);
}

/* Taken only while there is room to send it on: what comes more waits in its ring. */
static void serve(struct vcpu_channel *ch)
{
	struct wvm_clients *all = ch->all;
	const struct wvm_clients_ops *ops = all->conf.ops;
	uint8_t *record = all->vcpus.record;

	for (unsigned i = 0; i < SERVE_BATCH; i++) {
		uint32_t type;
		int len;

		if (ch->state != VCPU_OPEN)
			return;
		if (!ops->vcpu_room(all->conf.ctx))
			break;
		len = wvm_spsc_pop(&ch->rx, &type, record, sizeof(all->vcpus.record));
		if (len == -EAGAIN)
			return;
		if (len == -EMSGSIZE || (len >= 0 && type != WVM_RING_DATAGRAM))
			len = 0;
		if (len < 0) {
			wvm_client_break(&all->client[ch->client],
					 "the ring of a processor is damaged");
			return;
		}
		ops->vcpu_record(all->conf.ctx, ch->vm_id, ch->vcpu, record, (size_t)len);
	}
	serve_later(ch);
}

static void on_bell(struct wvm_doorbell *d)
{
	serve(d->ctx);
}

/* Each turn begins with another one: room that comes bit by bit is for all of them. */
static void run_task(struct wvm_task *t)
{
	struct vcpu_channels *vcpus =
		(struct vcpu_channels *)((char *)t - offsetof(struct vcpu_channels, task));
	unsigned first = vcpus->first++ % VCPU_CHANNELS;
	uint64_t again[sizeof(vcpus->again) / sizeof(vcpus->again[0])];

	memcpy(again, vcpus->again, sizeof(again));
	memset(vcpus->again, 0, sizeof(vcpus->again));
	for (unsigned k = 0; k < VCPU_CHANNELS; k++) {
		unsigned i = (first + k) % VCPU_CHANNELS;

		if (again[i / 64] & 1ull << i % 64)
			serve(&vcpus->list[i]);
	}
}

/* --- opening --------------------------------------------------------------------- */

void wvm_clients_vcpus_init(struct wvm_clients *all)
{
	all->vcpus.task.run = run_task;
	for (unsigned i = 0; i < VCPU_CHANNELS; i++)
		all->vcpus.list[i].all = all;
}

static struct vcpu_channel *find(struct wvm_clients *all, uint16_t vm_id, unsigned vcpu)
{
	for (uint32_t i = 0; i < all->header.vm_count && vcpu < WVM_VCPU_MAX; i++)
		if (all->header.vms[i].vm_id == vm_id)
			return all->vcpus.at[i][vcpu] ? &all->vcpus.list[all->vcpus.at[i][vcpu] - 1]
						      : NULL;
	return NULL;
}

static struct vcpu_channel *find_free(struct wvm_clients *all)
{
	for (unsigned i = 0; i < VCPU_CHANNELS; i++)
		if (all->vcpus.list[i].state == VCPU_FREE)
			return &all->vcpus.list[i];
	return NULL;
}

/* Everything taken from the client; the order is that of taking. */
struct taken {
	int channel, in, out;
};

static int take_fd(struct client *cl, uint64_t theirs, int *fd)
{
	if (theirs > INT32_MAX)
		return -EBADF;
	return wvm_client_take_fd(cl, cl->watch.pidfd, (int)theirs, fd);
}

static int take(struct client *cl, const struct wvm_ring_req *r, struct vcpu_channel *ch,
		struct taken *t)
{
	int ret = take_fd(cl, r->gpa, &t->channel);

	if (!ret)
		ret = take_fd(cl, r->len, &t->in);
	if (!ret)
		ret = take_fd(cl, r->addr, &t->out);
	if (ret)
		return ret;
	if (!wvm_fd_is_eventfd(t->in) || !wvm_fd_is_eventfd(t->out))
		return -EPROTO;
	ret = wvm_channel_map(t->channel, &shape, &ch->mem, &ch->rx, &ch->tx);
	if (ret)
		return ret;
	ch->in = (struct wvm_doorbell){.ctx = ch, .ring = on_bell, .closed = in_closed};
	ch->out = (struct wvm_doorbell){.ctx = ch, .closed = out_closed};
	ret = wvm_doorbell_open(&ch->in, cl->all->shard0, t->in, true);
	if (ret)
		return ret;
	ch->in_open = true;
	t->in = -1;
	ret = wvm_doorbell_open(&ch->out, cl->all->shard0, t->out, false);
	if (ret)
		return ret;
	ch->out_open = true;
	t->out = -1;
	return 0;
}

static int open_channel(struct client *cl, const struct wvm_ring_req *r, struct vcpu_channel *ch)
{
	struct taken t = {.channel = -1, .in = -1, .out = -1};
	int ret;

	ch->mem = NULL;
	ret = take(cl, r, ch, &t);
	wvm_client_discard(cl, &t.channel);
	wvm_client_discard(cl, &t.in);
	wvm_client_discard(cl, &t.out);
	if (!ret) {
		ch->state = VCPU_OPEN;
		return 0;
	}
	if (ch->mem)
		munmap(ch->mem, WVM_VCPU_CHANNEL_BYTES);
	ch->mem = NULL;
	if (ch->in_open) {
		ch->state = VCPU_CLOSING;
		wvm_doorbell_close(&ch->in);
	}
	return ret;
}

/*
 * Who has a processor's channel and opens it again has not heard that it is open, or its master
 * has begun another life: the new one takes the place of the old.
 */
int wvm_client_vcpu_open(struct client *cl, const struct wvm_ring_req *r,
			 struct wvm_ring_vcpu *info)
{
	struct wvm_clients *all = cl->all;
	struct vcpu_channel *ch;
	uint16_t index = 0;
	int ret;

	if (!all->conf.ops->vcpu_record || !all->conf.ops->vcpu_room)
		return -ENOTSUP;
	while (index < all->header.vm_count && all->header.vms[index].vm_id != r->vm_id)
		index++;
	if (index == all->header.vm_count)
		return -ENXIO;
	if (r->mode >= WVM_VCPU_MAX)
		return -EINVAL;
	ch = find(all, r->vm_id, r->mode);
	if (ch && ch->client != cl->index)
		return -EBUSY;
	if (ch)
		close_channel(ch);
	if (all->vcpus.open == WVM_CLIENTS_VCPUS)
		return -EUSERS;
	ch = find_free(all);
	if (!ch)
		return -EAGAIN;
	ret = open_channel(cl, r, ch);
	if (ret)
		return ret;
	ch->client = cl->index;
	ch->vm_index = index;
	ch->vm_id = r->vm_id;
	ch->vcpu = (uint16_t)r->mode;
	all->vcpus.at[index][ch->vcpu] = (uint16_t)(ch - all->vcpus.list + 1);
	all->vcpus.open++;
	*info = (struct wvm_ring_vcpu){.vnode = all->conf.relay.vnode,
				       .segment = all->conf.relay.segment};
	serve_later(ch); /* what it wrote before its doorbell was ours */
	return 0;
}

int wvm_client_vcpu_close(struct client *cl, const struct wvm_ring_req *r)
{
	struct vcpu_channel *ch = find(cl->all, r->vm_id, r->mode);

	if (!ch || ch->client != cl->index)
		return -EINVAL;
	close_channel(ch);
	return 0;
}

unsigned wvm_clients_vcpu_count(const struct wvm_clients *all)
{
	return all->vcpus.open;
}

/* --- to the owner ---------------------------------------------------------------- */

enum wvm_drop wvm_clients_vcpu_push(struct wvm_clients *all, const struct wvm_msg *m,
				    const uint8_t *payload)
{
	struct vcpu_channel *ch = find(all, m->vm_id, (unsigned)(m->gpa & UINT16_MAX));
	int ret;

	if (!ch)
		return WVM_DROP_VM;
	ret = wvm_spsc_push2(&ch->tx, WVM_RING_DATAGRAM, m, sizeof(*m), payload, m->payload_len);
	if (ret == -EPROTO)
		wvm_client_break(&all->client[ch->client], "the ring of a processor is damaged");
	if (ret)
		return WVM_DROP_ROOM;
	wvm_doorbell_ring(&ch->out);
	return WVM_DROP_NONE;
}

/* --- reports and orders ------------------------------------------------------------ */

static struct wvm_vcpu_order *order_of(const struct vcpu_channel *ch)
{
	return (struct wvm_vcpu_order *)(void *)(ch->mem + 2 * WVM_VCPU_RING_BYTES +
						 WVM_VCPU_ORDER_OFFSET);
}

static void read_report(const struct vcpu_channel *ch, struct wvm_vcpu_report *out)
{
	const uint8_t *at = ch->mem + 2 * WVM_VCPU_RING_BYTES;

	wvm_vcpu_report_read(out, (const struct wvm_vcpu_report *)(const void *)at);
}

void wvm_clients_vcpu_each(const struct wvm_clients *all, wvm_clients_vcpu_fn *fn, void *ctx)
{
	struct wvm_vcpu_report report;

	for (uint32_t i = 0; i < all->header.vm_count; i++)
		for (unsigned k = 0; k < WVM_VCPU_MAX; k++) {
			unsigned index = all->vcpus.at[i][k];

			if (!index)
				continue;
			read_report(&all->vcpus.list[index - 1], &report);
			fn(ctx, all->header.vms[i].vm_id, k, &report);
		}
}

bool wvm_clients_vcpu_order(struct wvm_clients *all, uint16_t vm_id, unsigned vcpu, uint64_t wanted,
			    struct wvm_vcpu_report *out)
{
	struct vcpu_channel *ch = find(all, vm_id, vcpu);
	struct wvm_ring_order o = {.vm_id = vm_id, .vcpu = (uint16_t)vcpu};

	if (!ch)
		return false;
	read_report(ch, out);
	if (out->answered == wanted)
		return true;
	__atomic_store_n(&order_of(ch)->wanted, wanted, __ATOMIC_RELEASE);
	wvm_client_send_order(&all->client[ch->client], &o);
	return true;
}
