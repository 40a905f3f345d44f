#include "roles/ctl/top_poll.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRY_NS    UINT64_C(200000000) /* doubled each time */
#define PARTS_MAX 4096u               /* an answer of 4 MiB: of more than 10,000 members */
#define DRAIN_MAX 64u                 /* datagrams at once; the others wait for the next time */

static const struct {
	enum wvm_control_op op;
	bool optional; /* older masters do not know it */
	int (*read)(struct wvm_top_sample *s, const json_t *o);
} steps[] = {
	{WVM_CONTROL_STATUS, false, wvm_top_read_status},
	{WVM_CONTROL_STATS, false, wvm_top_read_stats},
	{WVM_CONTROL_MEMBERS, true, wvm_top_read_members}, /* from here on: masters */
	{WVM_CONTROL_VCPUS, true, wvm_top_read_vcpus},
};

#define STEPS         (sizeof(steps) / sizeof(steps[0]))
#define GATEWAY_STEPS 2u

int wvm_top_open(struct wvm_top_target *t, uint32_t ip, uint16_t port, uint64_t now_ns)
{
	*t = (struct wvm_top_target){.ip = ip, .port = port, .heard_ns = now_ns, .fd = -1};
	t->next = calloc(1, sizeof(*t->next));
	return t->next ? 0 : -ENOMEM;
}

static void end_round(struct wvm_top_target *t, int failed)
{
	t->failed = failed;
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
	free(t->text);
	t->text = NULL;
}

void wvm_top_close(struct wvm_top_target *t)
{
	end_round(t, 0);
	free(t->next);
	free(t->now);
	free(t->before);
	t->next = t->now = t->before = NULL;
}

static struct wvm_ask question(const struct wvm_top_target *t)
{
	return (struct wvm_ask){.ip = t->ip, .port = t->port, .op = steps[t->step].op};
}

static void request(struct wvm_top_target *t, uint64_t now_ns)
{
	uint8_t out[WVM_CONTROL_REQUEST_BYTES];
	struct wvm_ask ask = question(t);

	t->again_ns = now_ns + t->try_ns;
	wvm_ask_encode(out, &ask, t->part, t->snapshot);
	/* EAGAIN: as if it had been lost. */
	if (send(t->fd, out, sizeof(out), MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != ENOBUFS)
		end_round(t, -errno);
}

/*
 * The present step from its first part on, with a socket of its own: an answer to an earlier
 * request that was given up would pass for one to this one.
 */
static void ask_anew(struct wvm_top_target *t, uint64_t now_ns)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(t->port), .sin_addr.s_addr = htonl(t->ip)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (t->fd >= 0)
		close(t->fd);
	t->fd = fd;
	t->part = 0;
	t->parts = 1;
	t->snapshot = 0;
	t->len = 0;
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		end_round(t, -errno);
	else
		request(t, now_ns);
}

void wvm_top_begin(struct wvm_top_target *t, uint64_t now_ns, uint64_t limit_ns)
{
	if (t->fd >= 0)
		return;
	t->next = t->next ? t->next : calloc(1, sizeof(*t->next));
	if (!t->next) {
		t->failed = -ENOMEM;
		return;
	}
	t->step = 0;
	t->try_ns = TRY_NS;
	t->until_ns = now_ns + limit_ns;
	ask_anew(t, now_ns);
}

/* The samples move on by one. */
static void complete(struct wvm_top_target *t, uint64_t now_ns)
{
	struct wvm_top_sample *oldest = t->before;

	t->before = t->now;
	t->now = t->next;
	t->heard_ns = now_ns;
	t->rates = (struct wvm_top_rates){0};
	if (t->before)
		wvm_top_rates(t->before, t->now, &t->rates);
	t->next = oldest; /* NULL: the next round makes one */
	end_round(t, 0);
}

/* What the answers say of themselves is not believed: -EPROTO. */
static int read_answer(struct wvm_top_target *t)
{
	json_t *o = json_loadb(t->text ? t->text : "", t->len, 0, NULL);
	int r = o ? steps[t->step].read(t->next, o) : -EPROTO;

	json_decref(o);
	return r;
}

static void next_step(struct wvm_top_target *t, uint64_t now_ns)
{
	t->step++;
	if (t->step == (t->next->gateway ? GATEWAY_STEPS : STEPS)) {
		complete(t, now_ns);
		return;
	}
	t->part = 0;
	t->parts = 1;
	t->snapshot = 0;
	t->len = 0;
	request(t, now_ns);
}

static int append(struct wvm_top_target *t, const struct wvm_ask_part *a)
{
	char *more;

	if (!a->parts || a->parts > PARTS_MAX || (t->part && a->parts != t->parts))
		return -EPROTO;
	more = realloc(t->text, t->len + a->len + 1);
	if (!more)
		return -ENOMEM;
	memcpy(more + t->len, a->text, a->len);
	t->text = more;
	t->len += a->len;
	t->parts = a->parts;
	t->snapshot = a->snapshot;
	t->part++;
	return 0;
}

static void on_part(struct wvm_top_target *t, const struct wvm_ask_part *a, uint64_t now_ns)
{
	int r;

	if (a->status == WVM_CONTROL_EXPIRED && t->part) {
		ask_anew(t, now_ns);
		return;
	}
	if (a->status == WVM_CONTROL_UNKNOWN && steps[t->step].optional) {
		next_step(t, now_ns);
		return;
	}
	r = a->status ? -EPROTO : append(t, a);
	if (!r && t->part < t->parts) {
		request(t, now_ns);
		return;
	}
	r = r ? r : read_answer(t);
	if (r)
		end_round(t, r);
	else
		next_step(t, now_ns);
}

static void receive(struct wvm_top_target *t, uint64_t now_ns)
{
	uint8_t in[WVM_CONTROL_HEADER_BYTES + WVM_CONTROL_PART +
		   1]; /* longer ones are seen to be */
	struct wvm_ask_part a;

	for (unsigned i = 0; t->fd >= 0 && i < DRAIN_MAX; i++) {
		struct wvm_ask ask = question(t);
		ssize_t n = recv(t->fd, in, sizeof(in), MSG_DONTWAIT);

		if (n < 0) {
			if (errno != EAGAIN && errno != EINTR)
				end_round(t, -errno);
			return;
		}
		if (!wvm_ask_decode(in, (size_t)n, &ask, t->part, &a))
			on_part(t, &a, now_ns);
	}
}

void wvm_top_go_on(struct wvm_top_target *t, uint64_t now_ns)
{
	if (t->fd >= 0)
		receive(t, now_ns);
	if (t->fd < 0)
		return;
	if (now_ns >= t->until_ns) {
		end_round(t, -ETIMEDOUT);
	} else if (now_ns >= t->again_ns) {
		t->try_ns *= 2;
		if (t->part)
			request(t, now_ns);
		else
			ask_anew(t, now_ns);
	}
}

uint64_t wvm_top_due(const struct wvm_top_target *t)
{
	if (t->fd < 0)
		return UINT64_MAX;
	return t->again_ns < t->until_ns ? t->again_ns : t->until_ns;
}
