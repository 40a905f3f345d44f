#include "roles/master/clients.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "roles/master/clients_priv.h"

#define OPEN_TRIES 8u /* a file that another master unlinks between our open and our lock */

#define COUNT(all, field)                                                                     \
	__atomic_store_n(&(all)->side[0]->counters.field, (all)->side[0]->counters.field + 1, \
			 __ATOMIC_RELAXED)

void wvm_clients_log(struct wvm_clients *all, const char *format, ...)
{
	char line[384];
	va_list args;

	if (!all->conf.ops->log)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	all->conf.ops->log(all->conf.ctx, line);
}

/* --- orders to the shards -------------------------------------------------- */

static void post_order(struct client *cl)
{
	for (unsigned k = 0; k < cl->all->shards; k++) {
		if (!(cl->run.unposted & 1ull << k))
			continue;
		if (wvm_side_post(cl, k)) {
			cl->all->retry_orders |= 1ull << cl->index;
			wvm_shard_defer(cl->all->shard0, &cl->all->task);
			return;
		}
		cl->run.unposted &= ~(1ull << k);
	}
}

void wvm_client_order(struct client *cl, enum order_kind kind, const struct wvm_mem_map *map,
		      uint64_t token)
{
	uint64_t every = ~0ull >> (64 - cl->all->shards);

	assert(cl->run.order.kind == ORDER_NONE && kind != ORDER_NONE);
	cl->run = (struct order_run){
		.order = {.kind = kind, .client = cl->index, .uffd = -1, .keep = -1},
		.unposted = every,
		.unacked = every,
		.token = token};
	if (map)
		cl->run.order.map = *map;
	if (kind == ORDER_LEAVE)
		cl->state = CLIENT_LEAVING;
	post_order(cl);
}

/* --- leaving ----------------------------------------------------------------- */

static void scan_later(struct wvm_clients *all)
{
	all->retry_scan = true;
	wvm_shard_defer(all->shard0, &all->task);
}

void wvm_client_serve_later(struct client *cl)
{
	cl->all->retry_serve |= 1ull << cl->index;
	wvm_shard_defer(cl->all->shard0, &cl->all->task);
}

/* Its objects are closed, its pins are answered: the slot may be taken again. */
void wvm_client_settle(struct client *cl)
{
	if (cl->state != CLIENT_LEAVING || cl->run.order.kind != ORDER_NONE || cl->watch_open ||
	    cl->in_open || cl->out_open || cl->owed_count)
		return;
	cl->state = CLIENT_FREE;
	cl->pid = 0;
	wvm_clients_others(cl->all);
	if (cl->attached)
		COUNT(cl->all, gone);
	cl->attached = false;
	scan_later(cl->all);
}

/* Every shard has forgotten it. */
static void finish_leave(struct client *cl)
{
	wvm_client_drop_pins(cl);
	wvm_client_vcpus_close(cl);
	wvm_client_code_drop(cl);
	if (cl->watch_open)
		wvm_pidwatch_close(&cl->watch);
	if (cl->in_open)
		wvm_doorbell_close(&cl->in);
	if (cl->out_open)
		wvm_doorbell_close(&cl->out);
	if (cl->channel)
		munmap(cl->channel, WVM_CHANNEL_BYTES);
	cl->channel = NULL;
	wvm_client_settle(cl);
}

void wvm_client_leave(struct client *cl)
{
	if (cl->state == CLIENT_FREE || cl->state == CLIENT_LEAVING)
		return;
	if (cl->run.order.kind != ORDER_NONE)
		cl->want_leave = true;
	else
		wvm_client_order(cl, ORDER_LEAVE, NULL, 0);
}

/* Its process may live on and store through what it has mapped: only its death ends that. */
void wvm_client_break(struct client *cl, const char *why)
{
	if (cl->state != CLIENT_LIVE)
		return;
	COUNT(cl->all, broken);
	wvm_clients_log(cl->all, "client pid %d is not served any more: %s", (int)cl->pid, why);
	cl->state = CLIENT_MUTE;
	wvm_client_vcpus_close(cl);
	if (cl->run.order.kind == ORDER_NONE) {
		cl->muted = true;
		wvm_client_order(cl, ORDER_MUTE, NULL, 0);
	}
}

/* --- joining ----------------------------------------------------------------- */

static void answer_slot(struct wvm_clients *all, unsigned slot, uint64_t claim, int result)
{
	struct wvm_ring_answer a = {.answered = claim, .result = result};
	int64_t at = wvm_ring_slot_offset(slot) + (int64_t)offsetof(struct wvm_ring_slot, master);

	if (pwrite(all->fd, &a, sizeof(a), at) != (ssize_t)sizeof(a))
		wvm_clients_log(all, "%s: cannot write: %s", all->path, strerror(errno));
}

void wvm_client_answer(struct client *cl, int result)
{
	answer_slot(cl->all, cl->index, cl->claim, result);
	if (cl->out_open)
		wvm_doorbell_ring(&cl->out);
}

static void finish_join(struct client *cl, int64_t result)
{
	wvm_client_answer(cl, (int)result);
	if (result) {
		COUNT(cl->all, refused);
		wvm_clients_log(cl->all, "client pid %d refused: %s", (int)cl->pid,
				strerror((int)-result));
		wvm_client_order(cl, ORDER_LEAVE, NULL, 0);
		return;
	}
	COUNT(cl->all, attached);
	cl->attached = true;
	cl->state = CLIENT_LIVE;
}

static void order_done(struct client *cl)
{
	struct order_run run = cl->run;

	cl->run = (struct order_run){0};
	switch (run.order.kind) {
	case ORDER_JOIN: finish_join(cl, run.result); break;
	case ORDER_MAP:
	case ORDER_UNMAP:
	case ORDER_CODE: wvm_client_reply(cl, run.token, run.result, NULL, 0); break;
	case ORDER_LEAVE:
		if (run.token)
			wvm_client_reply(cl, run.token, 0, NULL, 0);
		finish_leave(cl);
		return;
	case ORDER_MUTE:
	case ORDER_NONE: break;
	}
	if (cl->run.order.kind != ORDER_NONE)
		return;
	if (cl->want_leave) {
		cl->want_leave = false;
		wvm_client_leave(cl);
	} else if (cl->state == CLIENT_MUTE && !cl->muted) {
		cl->muted = true;
		wvm_client_order(cl, ORDER_MUTE, NULL, 0);
	} else {
		wvm_client_serve(cl);
	}
}

static void on_ack(struct client *cl, unsigned shard, int64_t result)
{
	assert(cl->run.unacked & 1ull << shard);
	cl->run.unacked &= ~(1ull << shard);
	if (!cl->run.result)
		cl->run.result = result;
	if (!cl->run.unacked)
		order_done(cl);
}

void wvm_clients_note(struct wvm_clients *all, unsigned shard, const struct note *n)
{
	struct client *cl = &all->client[n->client];

	switch (n->kind) {
	case NOTE_ACK: on_ack(cl, shard, n->result); break;
	case NOTE_DYING: wvm_client_leave(cl); break;
	case NOTE_BROKEN: wvm_client_break(cl, "it faults where another shard serves"); break;
	case NOTE_REPLY: wvm_client_glue_replied(cl, n->token, n->result); break;
	case NOTE_ERROR: wvm_client_send_error(cl, &n->error); break;
	case NOTE_CODE: wvm_client_code_raised(cl, shard); break;
	case NOTE_CODE_LATE: wvm_client_code_late(cl); break;
	}
}

/* Nothing of it is taken: without its userfaultfd there is no fault, and no page comes here. */
static void refuse_program(struct wvm_clients *all, unsigned slot, uint64_t claim, pid_t pid)
{
	COUNT(all, refused);
	wvm_clients_log(
		all,
		"program pid %d refused: this node (%u) lends memory only, with 0 cores in "
		"its NODE line of the topology: start it on a node with cores, or give this "
		"one cores in the topology of all nodes",
		(int)pid, all->conf.node_id);
	answer_slot(all, slot, claim, -WVM_RING_MEMORY_ONLY);
}

static void attach(struct client *cl, const struct wvm_ring_claim *claim)
{
	struct wvm_clients *all = cl->all;
	pid_t pid = wvm_slot_owner(all, cl->index);
	int ret;

	if (all->adopting && pid && pid != cl->awaited)
		return; /* wvm_clients_adopted() scans again */
	cl->claim = claim->claim;
	if (!pid)
		return; /* nobody holds the slot: what a dead client left */
	if (claim->boot_id != all->conf.boot_id) {
		answer_slot(all, cl->index, claim->claim, -ECONNREFUSED); /* to a former life */
		return;
	}
	if (all->conf.memory_only) {
		refuse_program(all, cl->index, claim->claim, pid);
		return;
	}
	cl->pid = pid;
	cl->want_leave = cl->muted = false;
	cl->state = CLIENT_JOINING;
	wvm_clients_others(all);
	ret = wvm_client_take(cl, claim);
	if (!ret) {
		wvm_client_order(cl, ORDER_JOIN, NULL, 0);
		return;
	}
	COUNT(all, refused);
	wvm_clients_log(all, "client pid %d refused: %s", (int)pid, strerror(-ret));
	wvm_client_answer(cl, ret);
	cl->state = CLIENT_LEAVING;
	finish_leave(cl);
}

/*
 * A new claim on a slot whose client we still serve: either that one is gone (a
 * process that called exec has given its lock up) or it lies.
 */
static void reclaim(struct client *cl, uint64_t claim)
{
	if (cl->state == CLIENT_LEAVING || cl->want_leave)
		return; /* settle() scans again */
	if (cl->state == CLIENT_JOINING || !wvm_mm_alive(cl->all->side[0]->keep[cl->index])) {
		wvm_client_leave(cl);
		return;
	}
	if (wvm_slot_owner(cl->all, cl->index) == cl->pid) {
		cl->claim = claim;
		answer_slot(cl->all, cl->index, claim, -EBUSY);
		wvm_client_break(cl, "it claimed its slot a second time");
	}
}

static void scan(struct wvm_clients *all)
{
	ssize_t n = pread(all->fd, all->slots, sizeof(all->slots), wvm_ring_slot_offset(0));
	unsigned whole = n < 0 ? 0 : (unsigned)((size_t)n / sizeof(all->slots[0]));

	for (unsigned i = 0; i < whole; i++) {
		struct client *cl = &all->client[i];
		uint64_t claim = all->slots[i].client.claim;
		struct wvm_ring_claim body;

		if (!claim || claim == cl->claim)
			continue;
		if (cl->state != CLIENT_FREE) {
			reclaim(cl, claim);
			continue;
		}
		/* Read after the claim was seen: so the body is at least that claim's. */
		if (pread(all->fd, &body, sizeof(body), wvm_ring_slot_offset(i)) !=
			    (ssize_t)sizeof(body) ||
		    !body.claim)
			continue;
		attach(cl, &body);
	}
}

/* A write to the ring file; what it was is in the file. */
static void on_knock(struct wvm_doorbell *d)
{
	struct wvm_clients *all = d->ctx;
	uint8_t events[4096];

	while (read(d->fd, events, sizeof(events)) > 0)
		;
	scan(all);
}

static void run_task(struct wvm_task *t)
{
	struct wvm_clients *all =
		(struct wvm_clients *)((char *)t - offsetof(struct wvm_clients, task));
	uint64_t orders = all->retry_orders, serve = all->retry_serve, code = all->retry_code;
	bool rescan = all->retry_scan;

	all->retry_orders = all->retry_serve = all->retry_code = 0;
	all->retry_scan = false;
	for (; orders; orders &= orders - 1)
		post_order(&all->client[__builtin_ctzll(orders)]);
	for (; serve; serve &= serve - 1)
		wvm_client_serve(&all->client[__builtin_ctzll(serve)]);
	for (; code; code &= code - 1)
		wvm_client_code_bell(&all->client[__builtin_ctzll(code)]);
	if (rescan)
		scan(all);
}

/* --- the ring file ------------------------------------------------------------ */

struct why {
	char *text;
	size_t len;
};

static int fail(const struct why *why, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(const struct why *why, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->text, why->len, format, args);
	va_end(args);
	return err;
}

static int lock_header(struct wvm_clients *all, int fd, const struct why *why)
{
	pid_t owner = 0;
	int ret = wvm_header_lock(&all->lock, fd, &owner);

	if (ret == -EADDRINUSE)
		return fail(
			why, ret,
			"%s belongs to a master that is running (pid %d): stop it, or set another "
			"WVM_RING_PATH",
			all->path, (int)owner);
	return ret ? fail(why, ret, "%s: cannot lock: %s", all->path, strerror(-ret)) : 0;
}

/* A ring file of a dead master, or an empty one, may be used; anything else is not ours. */
static int check_old(int fd, const char *path, const struct why *why)
{
	struct wvm_ring_header h;
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return fail(why, -EPROTO, "%s is not a regular file", path);
	if (!st.st_size)
		return 0;
	if (pread(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || h.magic != WVM_RING_MAGIC)
		return fail(
			why, -EPROTO,
			"%s exists and is not a ring file: set another WVM_RING_PATH, or remove "
			"it",
			path);
	if (h.layout != WVM_RING_LAYOUT)
		return fail(why, -EPROTO,
			    "%s was left by another version (layout %u, this is %u): remove it",
			    path, h.layout, WVM_RING_LAYOUT);
	return 0;
}

static void close_file(struct wvm_clients *all)
{
	if (all->lock)
		wvm_header_unlock(all->lock);
	all->lock = NULL;
	close(all->fd);
	all->fd = -1;
}

/* 1: the name went away between open and lock. */
static int open_once(struct wvm_clients *all, const struct why *why)
{
	struct stat a, b;
	int ret;

	all->fd = open(all->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (all->fd < 0)
		return fail(why, -errno, "cannot open the ring file %s: %s", all->path,
			    strerror(errno));
	ret = lock_header(all, all->fd, why);
	if (!ret)
		ret = check_old(all->fd, all->path, why);
	if (!ret && (fstat(all->fd, &a) || stat(all->path, &b) || a.st_ino != b.st_ino ||
		     a.st_dev != b.st_dev))
		ret = 1;
	if (ret)
		close_file(all);
	return ret;
}

static int open_file(struct wvm_clients *all, const struct why *why)
{
	int ret = 1;

	for (unsigned i = 0; ret == 1 && i < OPEN_TRIES; i++)
		ret = open_once(all, why);
	if (ret == 1)
		return fail(why, -EADDRINUSE, "%s is removed and made again by another master",
			    all->path);
	if (!ret && ftruncate(all->fd, WVM_RING_FILE_BYTES)) {
		ret = fail(why, -errno, "%s: %s", all->path, strerror(errno));
		close_file(all);
	}
	return ret;
}

static void fill_header(struct wvm_clients *all)
{
	struct wvm_ring_header *h = &all->header;
	struct wvm_mem *vm;

	*h = (struct wvm_ring_header){.magic = WVM_RING_MAGIC,
				      .layout = WVM_RING_LAYOUT,
				      .slot_count = WVM_CLIENTS_MAX,
				      .shard_count = all->shards,
				      .node_id = all->conf.node_id,
				      .udp_ip = all->conf.relay.ip,
				      .udp_port = all->conf.relay.port,
				      .slave_port = all->conf.relay.slave_port,
				      .vnode = all->conf.relay.vnode,
				      .segment = all->conf.relay.segment,
				      .memory_only = all->conf.memory_only};
	memcpy(h->adopts, all->conf.adopts, sizeof(h->adopts));
	while ((vm = wvm_memory_vm_at(all->conf.memory, h->vm_count)) != NULL) {
		struct wvm_ring_vm *v = &h->vms[h->vm_count++];

		v->size = wvm_mem_size(vm);
		v->vm_id = wvm_mem_vm_id(vm);
		snprintf(v->ram_path, sizeof(v->ram_path), "%s", wvm_mem_path(vm));
	}
}

static int write_header(struct wvm_clients *all)
{
	struct wvm_ring_header h = all->header;
	ssize_t n = pwrite(all->fd, &h, sizeof(h), 0);

	if (n == (ssize_t)sizeof(h))
		return 0;
	return n < 0 ? -errno : -EIO;
}

static void init_client(struct wvm_clients *all, unsigned i)
{
	struct client *cl = &all->client[i];

	cl->all = all;
	cl->index = i;
	for (unsigned k = 0; k < WVM_RING_SHARDS_MAX; k++)
		cl->uffd[k] = cl->keep[k] = -1;
}

int wvm_clients_open(struct wvm_clients **out, const struct wvm_clients_conf *conf, char *err,
		     size_t err_len)
{
	struct why why = {.text = err, .len = err_len};
	struct wvm_clients *all;
	int ret;

	assert(conf->boot_id && conf->ops && conf->ops->fault && conf->memory);
	if (strlen(conf->path) >= sizeof(all->path))
		return fail(&why, -ENAMETOOLONG, "the ring file's path is too long");
	all = calloc(1, sizeof(*all));
	if (!all)
		return fail(&why, -ENOMEM, "out of memory");
	all->conf = *conf;
	strcpy(all->path, conf->path);
	all->shards = wvm_memory_shards(conf->memory);
	all->shard0 = conf->shards[0];
	all->task.run = run_task;
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		init_client(all, i);
	wvm_clients_vcpus_init(all);
	ret = open_file(all, &why);
	if (ret)
		goto err_free;
	ret = -ENOMEM;
	for (unsigned k = 0; k < all->shards; k++)
		if (wvm_side_new(all, k)) {
			fail(&why, ret, "out of memory");
			goto err_sides;
		}
	/* Without a boot id: clients see a master that has not started yet. */
	fill_header(all);
	ret = write_header(all);
	if (ret) {
		fail(&why, ret, "%s: %s", all->path, strerror(-ret));
		goto err_sides;
	}
	all->conf.shards = NULL;
	*out = all;
	return 0;

err_sides:
	for (unsigned k = 0; k < all->shards; k++)
		wvm_side_free(all->side[k]);
	close_file(all);
err_free:
	free(all);
	return ret;
}

static int watch_file(struct wvm_clients *all)
{
	char name[64];
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int ret;

	if (fd < 0)
		return -errno;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", all->fd);
	if (inotify_add_watch(fd, name, IN_MODIFY) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	all->knock = (struct wvm_doorbell){.ctx = all, .ring = on_knock};
	ret = wvm_doorbell_open(&all->knock, all->shard0, fd, true);
	if (ret)
		close(fd);
	else
		all->knock_open = true;
	return ret;
}

int wvm_clients_start(struct wvm_clients *all)
{
	int ret = watch_file(all);

	if (ret)
		return ret;
	all->adopting = all->conf.adopts[0];
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		all->client[i].awaited = wvm_slot_owner(all, i);
	all->header.boot_id = all->conf.boot_id;
	ret = write_header(all);
	if (!ret)
		scan_later(all);
	return ret;
}

unsigned wvm_clients_count(const struct wvm_clients *all)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		n += all->client[i].state == CLIENT_LIVE;
	return n;
}

bool wvm_clients_none(const struct wvm_clients *all)
{
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		if (all->client[i].state != CLIENT_FREE)
			return false;
	return true;
}

unsigned wvm_clients_awaited(struct wvm_clients *all, int *pid)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++) {
		struct client *cl = &all->client[i];

		if (!cl->awaited || cl->back)
			continue;
		if (cl->state == CLIENT_FREE && wvm_slot_owner(all, i) != cl->awaited) {
			cl->awaited = 0; /* it died, or detached */
			continue;
		}
		if (pid)
			*pid = (int)cl->awaited;
		n++;
	}
	return n;
}

void wvm_clients_each_pin(struct wvm_clients *all, wvm_clients_pin_fn *fn, void *ctx)
{
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		for (unsigned k = 0; k < PINS_MAX; k++) {
			const struct pin *p = &all->client[i].pins[k];

			if (p->state == PIN_HELD)
				fn(ctx, wvm_memory_vm_at(all->conf.memory, p->vm_index), p->first,
				   p->count);
		}
}

void wvm_clients_adopted(struct wvm_clients *all)
{
	all->adopting = false;
	wvm_clients_others(all);
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++) {
		struct client *cl = &all->client[i];

		cl->awaited = 0;
		cl->back = false;
		if (cl->state == CLIENT_LIVE)
			wvm_client_serve_later(cl);
	}
	scan_later(all);
}

int wvm_clients_pid(const struct wvm_clients *all, unsigned client)
{
	return client < WVM_CLIENTS_MAX ? (int)all->client[client].pid : 0;
}

void wvm_clients_counters(const struct wvm_clients *all, struct wvm_clients_counters *out)
{
	uint64_t *to = (uint64_t *)out;

	memset(out, 0, sizeof(*out));
	for (unsigned k = 0; k < all->shards; k++) {
		const uint64_t *from = (const uint64_t *)&all->side[k]->counters;

		for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
			to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	}
}

static void close_client(struct client *cl)
{
	if (cl->watch_open)
		close(cl->watch.pidfd);
	if (cl->in_open)
		close(cl->in.fd);
	if (cl->out_open)
		close(cl->out.fd);
	if (cl->channel)
		munmap(cl->channel, WVM_CHANNEL_BYTES);
	wvm_area_unmap(cl->code);
	for (unsigned k = 0; k < cl->all->shards; k++) {
		if (cl->uffd[k] >= 0)
			close(cl->uffd[k]);
		if (cl->keep[k] >= 0)
			close(cl->keep[k]);
	}
}

void wvm_clients_close(struct wvm_clients *all, bool unlink_file)
{
	if (!all)
		return;
	if (unlink_file)
		unlink(all->path);
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		close_client(&all->client[i]);
	wvm_clients_vcpus_free(all);
	for (unsigned k = 0; k < all->shards; k++)
		wvm_side_free(all->side[k]);
	if (all->knock_open)
		close(all->knock.fd);
	close_file(all);
	free(all);
}
