/*
 * Clients that translate code, on shard 0: taking their areas, ringing for the
 * shards that have put pages into one (stale.h), and telling these when the client has
 * answered.
 *
 * A client that does not answer cannot be left alone: it might run on code that is not
 * there any more, and store through what it has mapped. So it is ended, and what waits
 * for it goes on when its process is gone, not before.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "roles/master/clients_priv.h"

static uint64_t bit(unsigned n)
{
	return UINT64_C(1) << n;
}

/* Whether there is anybody but this client who has mapped memory, or may before he is heard. */
static bool has_others(const struct client *cl)
{
	const struct wvm_clients *all = cl->all;

	if (all->adopting)
		return true; /* they come back one by one */
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		if (i != cl->index && all->client[i].state != CLIENT_FREE)
			return true;
	return false;
}

void wvm_clients_others(struct wvm_clients *all)
{
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		if (all->client[i].code)
			wvm_area_others(all->client[i].code, has_others(&all->client[i]));
}

/* 0, then ORDER_CODE is on its way and answers; or -errno. */
static int take(struct client *cl, const struct wvm_ring_req *r)
{
	int fd, ret;

	if (cl->code)
		return -EALREADY;
	if (!cl->watch_open || r->addr > INT32_MAX)
		return -EBADF;
	fd = wvm_pidfd_getfd(cl->watch.pidfd, (int)r->addr);
	if (fd < 0)
		return fd;
	ret = wvm_area_map(&cl->code, fd, &cl->all->header);
	wvm_client_discard(cl, &fd);
	if (ret)
		return ret;
	wvm_area_others(cl->code, has_others(cl));
	return 0;
}

void wvm_client_code(struct client *cl, const struct wvm_ring_req *r)
{
	int ret = cl->all->conf.ops->code ? take(cl, r) : -ENOTSUP;

	if (ret)
		wvm_client_reply(cl, r->token, ret, NULL, 0);
	else
		wvm_client_order(cl, ORDER_CODE, NULL, r->token);
}

/* Every shard has forgotten it. */
void wvm_client_code_drop(struct client *cl)
{
	wvm_area_unmap(cl->code);
	cl->code = NULL;
	cl->code_waits = 0;
	cl->code_late = false;
}

/* ---- between the client and the shards --------------------------------------------------- */

static void run_told(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct side *s = ctx;
	unsigned client;

	assert(len == sizeof(client));
	memcpy(&client, data, sizeof(client));
	s->all->conf.ops->code_told(s->all->conf.ctx, s->index, client);
}

/* The client has answered, for some or all that the shards wait for: they look. */
void wvm_client_code_bell(struct client *cl)
{
	struct wvm_clients *all = cl->all;

	for (uint64_t left = cl->code_waits; left; left &= left - 1) {
		unsigned k = (unsigned)__builtin_ctzll(left);

		if (wvm_post(all->shard0, all->side[k]->shard, run_told, all->side[k], &cl->index,
			     sizeof(cl->index))) {
			all->retry_code |= bit(cl->index);
			wvm_shard_defer(all->shard0, &all->task);
			return;
		}
		cl->code_waits &= ~bit(k);
	}
}

/* A shard has put pages into the ring, or still waits. */
void wvm_client_code_raised(struct client *cl, unsigned shard)
{
	if (!cl->code || !cl->out_open)
		return; /* it is leaving, which every shard will be told */
	cl->code_waits |= bit(shard);
	/* It may have answered before this was said, with the answer to another shard. */
	if (wvm_area_told_all(cl->code))
		wvm_client_code_bell(cl);
	else
		wvm_doorbell_ring(&cl->out);
}

void wvm_client_code_late(struct client *cl)
{
	if (!cl->code || cl->code_late || cl->state == CLIENT_LEAVING || !cl->watch_open)
		return;
	cl->code_late = true;
	if (!wvm_mm_alive(cl->all->side[0]->keep[cl->index])) {
		wvm_client_leave(cl); /* it has called exec: what it had translated is gone */
		return;
	}
	wvm_client_break(cl, "it does not answer that code which it has translated is changed");
	if (syscall(SYS_pidfd_send_signal, cl->watch.pidfd, SIGKILL, NULL, 0))
		wvm_clients_log(cl->all,
				"client pid %d cannot be ended: %s; who writes its translated code "
				"gets errors until it ends",
				(int)cl->pid, strerror(errno));
	else
		wvm_clients_log(cl->all,
				"client pid %d was ended: it could have run on code that others "
				"have changed",
				(int)cl->pid);
}

/* ---- from the shards --------------------------------------------------------------------- */

void wvm_clients_code_raised(struct wvm_clients *all, unsigned shard, unsigned client)
{
	struct side *s = all->side[shard];

	if (s->code_noted & bit(client))
		return;
	s->code_noted |= bit(client);
	wvm_side_note(s, &(struct note){.kind = NOTE_CODE, .client = client});
}

void wvm_clients_code_late(struct wvm_clients *all, unsigned shard, unsigned client)
{
	wvm_side_note(all->side[shard], &(struct note){.kind = NOTE_CODE_LATE, .client = client});
}
