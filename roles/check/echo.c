#include "roles/check/echo.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "roles/check/stranger.h"
#include "shared/vcpu.h"
#include "shared/wire.h"

#define MTU   1472u
#define NEVER UINT64_MAX
#define BURST 64u /* datagrams before it looks at its clock again */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct sockaddr_in master_of(const struct echo *e)
{
	const struct cluster_node *n = &e->cluster->node[e->node];

	return stranger_address(n->ip, n->port);
}

/* To any shard of the master: it hands them over to the one that has the channels. */
static void emit(struct echo *e, const struct wvm_msg *m, const void *payload)
{
	struct sockaddr_in to = master_of(e);
	struct wvm_msg msg = *m;
	uint8_t out[MTU];
	size_t len;

	msg.steer = (uint16_t)m->request;
	len = wvm_wire_encode(out, sizeof(out), &msg, payload);

	if (len)
		(void)sendto(e->fd, out, len, 0, (struct sockaddr *)&to, sizeof(to));
}

static void flush(struct echo *e, struct echo_vcpu *v)
{
	const uint8_t *payload;
	struct wvm_msg m;

	while (wvm_run_slave_next(&v->run, &m, &payload))
		emit(e, &m, payload);
}

static void answer(struct echo_vcpu *v)
{
	v->answer_at = NEVER;
	for (uint32_t i = 0; i < v->run.in.len; i++)
		v->out[i] = echo_of(v->in[i], i);
	wvm_run_slave_answer(&v->run, v->out, v->run.in.len, now_ns());
}

static void begin(struct echo *e, struct echo_vcpu *v)
{
	uint64_t delay = atomic_load(&e->delay_ns);
	unsigned refuse = atomic_load(&e->refuse);

	if (refuse) {
		wvm_run_slave_refuse(&v->run, refuse);
		return;
	}
	if (v->run.seq <= ECHO_RUNS)
		atomic_fetch_add(&v->executed[v->run.seq], 1);
	v->answer_at = wvm_run_slave_kicked(&v->run) ? 0 : now_ns() + delay;
	if (v->answer_at <= now_ns())
		answer(v);
}

static void hello(struct echo *e, const struct wvm_msg *m)
{
	struct wvm_vcpu_hello h = {.engines = 1u << WVM_VCPU_ENGINE_KVM, .cores = ECHO_CORES};
	struct wvm_msg reply = *m;
	uint8_t body[WVM_VCPU_HELLO_BYTES];

	wvm_vcpu_hello_encode(body, &h);
	reply.flags = WVM_MSG_ANSWER;
	reply.src = m->dst;
	reply.dst = m->src;
	reply.grant = e->life;
	reply.payload_len = sizeof(body);
	reply.seg_total = wvm_wire_total(sizeof(body));
	emit(e, &reply, body);
}

static void take(struct echo *e, const struct wvm_msg *m, const uint8_t *payload)
{
	unsigned index = wvm_run_vcpu(m);
	struct echo_vcpu *v = &e->vcpu[index % ECHO_VCPUS];

	if (m->type == WVM_MSG_VCPU_HELLO) {
		hello(e, m);
		return;
	}
	if (index >= ECHO_VCPUS)
		return;
	if (!v->known)
		wvm_run_slave_init(&v->run, m->vm_id, (uint16_t)index, m->dst, e->life,
				   wvm_wire_segment(MTU), v->in);
	v->known = true;
	switch (wvm_run_slave_message(&v->run, m, payload, now_ns())) {
	case WVM_RUN_START: begin(e, v); break;
	case WVM_RUN_ABORT: atomic_fetch_add(&v->aborts, 1); /* fall through */
	case WVM_RUN_KICK:
		if (v->answer_at != NEVER)
			answer(v);
		break;
	default: break;
	}
	flush(e, v);
}

static void receive(struct echo *e)
{
	struct sockaddr_in master = master_of(e), from;
	static _Thread_local uint8_t data[65536];

	for (unsigned i = 0; i < BURST; i++) {
		socklen_t from_len = sizeof(from);
		ssize_t n = recvfrom(e->fd, data, sizeof(data), MSG_DONTWAIT,
				     (struct sockaddr *)&from, &from_len);
		const uint8_t *at = data, *payload;
		size_t consumed;

		if (n < 0)
			return;
		if (from.sin_addr.s_addr != master.sin_addr.s_addr ||
		    from.sin_port != master.sin_port) {
			atomic_fetch_add(&e->strangers, 1);
			continue;
		}
		for (size_t left = (size_t)n; left; left -= consumed, at += consumed) {
			struct wvm_msg m;

			if (!wvm_wire_decode(at, left, &m, &payload, &consumed))
				take(e, &m, payload);
		}
	}
}

/* What is due now; when the next is. */
static uint64_t clock_work(struct echo *e)
{
	uint64_t next = NEVER;

	for (unsigned i = 0; i < ECHO_VCPUS; i++) {
		struct echo_vcpu *v = &e->vcpu[i];
		uint64_t due;

		if (!v->known)
			continue;
		if (v->answer_at <= now_ns())
			answer(v);
		(void)wvm_run_slave_tick(&v->run, now_ns());
		flush(e, v);
		due = wvm_run_slave_deadline(&v->run);
		due = v->answer_at < due ? v->answer_at : due;
		next = due < next ? due : next;
	}
	return next;
}

static void *serve(void *arg)
{
	struct echo *e = arg;
	struct pollfd p[2] = {{.fd = e->fd, .events = POLLIN},
			      {.fd = e->stop_fd, .events = POLLIN}};

	while (!p[1].revents) {
		uint64_t next = clock_work(e), now = now_ns(), wait = next > now ? next - now : 0;
		struct timespec t = {.tv_sec = (time_t)(wait / 1000000000u),
				     .tv_nsec = (long)(wait % 1000000000u)};

		if (ppoll(p, 2, next == NEVER ? NULL : &t, NULL) > 0 && p[0].revents)
			receive(e);
	}
	return NULL;
}

/* The socket of a thread that is in the node's namespace stays there. */
static void *open_there(void *arg)
{
	struct echo *e = arg;
	const struct cluster_node *n = &e->cluster->node[e->node];
	struct sockaddr_in at = stranger_address("127.0.0.1", n->slave_port);
	int ns = n->netns[0] ? open(n->netns, O_RDONLY | O_CLOEXEC) : -1;
	int bytes = 4 << 20;

	e->fd = -1;
	if (n->netns[0] && (ns < 0 || setns(ns, CLONE_NEWNET)))
		return NULL;
	if (ns >= 0)
		close(ns);
	e->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	setsockopt(e->fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	if (bind(e->fd, (struct sockaddr *)&at, sizeof(at))) {
		close(e->fd);
		e->fd = -1;
	}
	return NULL;
}

void echo_start(struct echo *e, const struct cluster *c, unsigned node, uint64_t life)
{
	pthread_t opener;

	memset(e, 0, sizeof(*e));
	e->cluster = c;
	e->node = node;
	e->life = life;
	for (unsigned i = 0; i < ECHO_VCPUS; i++)
		e->vcpu[i].answer_at = NEVER;
	ck_assert_int_eq(pthread_create(&opener, NULL, open_there, e), 0);
	pthread_join(opener, NULL);
	ck_assert_int_ge(e->fd, 0);
	e->stop_fd = eventfd(0, EFD_CLOEXEC);
	ck_assert_int_ge(e->stop_fd, 0);
	ck_assert_int_eq(pthread_create(&e->thread, NULL, serve, e), 0);
}

void echo_stop(struct echo *e)
{
	ck_assert_int_eq(eventfd_write(e->stop_fd, 1), 0);
	pthread_join(e->thread, NULL);
	close(e->fd);
	close(e->stop_fd);
}
