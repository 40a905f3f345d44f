/* The link of a processor: its channel to the present master, and its acknowledger. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "shared/client_vcpu_priv.h"

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

#define CALL_NS     (1000 * NS_PER_MS) /* for a master that takes its former life's pages over */
#define AGAIN_NS    NS_PER_MS          /* it closes other channels just now */
#define ACK_STACK   (256u * 1024)      /* thread-local memory of the program is in it, too */
#define ACK_WAIT_MS ((int)(WVM_RUN_DONE_NS / NS_PER_MS))

uint64_t wvm_vcpu_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* --- the channel ------------------------------------------------------------- */

static void drop_channel(struct wvm_vcpu_link *l)
{
	l->open = false;
	if (l->mem)
		munmap(l->mem, WVM_VCPU_CHANNEL_BYTES);
	l->mem = NULL;
	if (l->mem_fd >= 0)
		close(l->mem_fd);
	l->mem_fd = -1;
}

static int make_channel(struct wvm_vcpu_link *l)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	uint8_t *mem;
	int ret;

	l->mem_fd = memfd_create("wvm-vcpu", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (l->mem_fd < 0 || ftruncate(l->mem_fd, WVM_VCPU_CHANNEL_BYTES) ||
	    fcntl(l->mem_fd, F_ADD_SEALS, seals))
		return -errno;
	mem = mmap(NULL, WVM_VCPU_CHANNEL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, l->mem_fd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	l->mem = mem;
	/* A new memfd is zeros, which is what an empty ring is. */
	ret = wvm_spsc_open_tx(&l->tx, mem, WVM_VCPU_CAPACITY);
	return ret ? ret : wvm_spsc_open_rx(&l->rx, mem + WVM_VCPU_RING_BYTES, WVM_VCPU_CAPACITY);
}

bool wvm_vcpu_ready(struct wvm_vcpu_link *l)
{
	bool same;

	pthread_mutex_lock(&l->w->lock);
	same = !l->w->gone && l->w->lives == l->lives;
	pthread_mutex_unlock(&l->w->lock);
	return l->open && same;
}

static int call_open(struct wvm_vcpu_link *l, int timeout_ms)
{
	struct wvm_ring_req req = {.vm_id = l->vm_id,
				   .mode = l->vcpu,
				   .gpa = (uint64_t)l->mem_fd,
				   .len = (uint64_t)l->to_master_fd,
				   .addr = (uint64_t)l->bell_fd};
	struct wvm_ring_vcpu info;
	struct wvm_stats data = {0}; /* the reply's, whatever it is */
	int ret = (int)wvm_call(l->w, WVM_RING_VCPU_OPEN, &req, &data, timeout_ms);

	_Static_assert(sizeof(info) <= sizeof(data), "the reply fits");
	memcpy(&info, &data, sizeof(info));
	if (ret)
		return ret;
	if (info.segment < WVM_MTU_MIN - WVM_HEADER_BYTES || info.segment % WVM_SEGMENT_UNIT ||
	    info.segment > WVM_DATAGRAM_MAX)
		return -EPROTO;
	l->run.self = info.vnode;
	l->run.segment = info.segment;
	return 0;
}

static int open_failed(const struct wvm_vcpu_link *l, int err)
{
	switch (err) {
	case -EBUSY:
		return wvm_client_fail(err, "processor %u of VM %u is another program's", l->vcpu,
				       l->vm_id);
	case -ENXIO:
		return wvm_client_fail(err, "the master of this node does not serve VM %u",
				       l->vm_id);
	case -EUSERS:
		return wvm_client_fail(err,
				       "the master of this node has no room for the channel of one "
				       "more processor");
	case -ECONNREFUSED: return wvm_client_fail(err, "the master of this node is gone");
	default:
		return wvm_client_fail(err, "cannot open the channel of processor %u: %s", l->vcpu,
				       strerror(-err));
	}
}

/*
 * A memfd of its own for each try: the former master may still be writing into the last one. The
 * eventfds stay, since who kicks uses them at any time; a bell too many does no harm.
 */
int wvm_vcpu_meet(struct wvm_vcpu_link *l, int timeout_ms)
{
	unsigned lives;
	bool gone;
	int ret;

	if (wvm_vcpu_ready(l))
		return 0;
	drop_channel(l);
	pthread_mutex_lock(&l->w->lock);
	lives = l->w->lives;
	gone = l->w->gone;
	pthread_mutex_unlock(&l->w->lock);
	ret = gone ? -ECONNREFUSED : make_channel(l);
	if (!ret)
		ret = call_open(l, timeout_ms);
	if (ret) {
		drop_channel(l);
		return open_failed(l, ret);
	}
	l->lives = lives;
	l->open = true;
	/* This one has given no order yet. */
	l->report.answered = l->report.outcome = 0;
	wvm_vcpu_publish(l);
	return 0;
}

int wvm_vcpu_await(struct wvm_vcpu_link *l, uint64_t end_ns)
{
	for (;;) {
		uint64_t now = wvm_vcpu_now_ns(), left = end_ns > now ? end_ns - now : 0;
		int ret = wvm_vcpu_meet(l,
					(int)((left < CALL_NS ? left : CALL_NS) / NS_PER_MS) + 1);

		if (!ret || !left || (ret != -ECONNREFUSED && ret != -ETIMEDOUT && ret != -EAGAIN))
			return ret;
		/* The helper thread rings when it has found a master. */
		wvm_vcpu_sleep(l, ret == -EAGAIN ? now + AGAIN_NS : end_ns);
	}
}

void wvm_vcpu_sleep(struct wvm_vcpu_link *l, uint64_t until_ns)
{
	uint64_t now = wvm_vcpu_now_ns(), wait = until_ns > now ? until_ns - now : 0;
	struct timespec t = {.tv_sec = (time_t)(wait / NS_PER_S),
			     .tv_nsec = (long)(wait % NS_PER_S)};
	struct pollfd bell = {.fd = l->bell_fd, .events = POLLIN};
	eventfd_t rings;

	if (ppoll(&bell, 1, until_ns == UINT64_MAX ? NULL : &t, NULL) > 0)
		(void)eventfd_read(l->bell_fd, &rings);
}

bool wvm_vcpu_put(struct wvm_vcpu_link *l, const struct wvm_msg *m, const uint8_t *payload)
{
	int ret;

	if (!l->open)
		return false;
	ret = wvm_spsc_push2(&l->tx, WVM_RING_DATAGRAM, m, sizeof(*m), payload, m->payload_len);
	if (ret == -EPROTO)
		drop_channel(l); /* the next one is made when something is due again */
	l->counters.bytes_sent += ret ? 0 : m->payload_len;
	return !ret;
}

void wvm_vcpu_flush(struct wvm_vcpu_link *l)
{
	const uint8_t *payload;
	struct wvm_msg m;
	bool any = false;

	while (wvm_run_owner_next(&l->run, &m, &payload))
		any |= wvm_vcpu_put(l, &m, payload);
	if (any)
		(void)eventfd_write(l->to_master_fd, 1);
}

/* --- the acknowledger ----------------------------------------------------------- */

/*
 * A slave keeps its answer, and sends it again, until it knows that it has come. The next run
 * tells it, as a rule at once. Where none follows (the guest has halted), somebody else must.
 */
static bool acknowledge(struct wvm *w)
{
	bool due = false;

	pthread_mutex_lock(&w->lock);
	for (struct wvm_vcpu_link *l = w->vcpus; l; l = l->next) {
		if (pthread_mutex_trylock(&l->lock))
			continue; /* in a call, which sees to it itself */
		(void)wvm_run_owner_tick(&l->run, wvm_vcpu_now_ns());
		wvm_vcpu_flush(l);
		due |= wvm_run_owner_deadline(&l->run) != UINT64_MAX;
		pthread_mutex_unlock(&l->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return due;
}

static void *acknowledger(void *arg)
{
	struct wvm *w = arg;
	struct pollfd bell = {.fd = w->ack_fd, .events = POLLIN};
	bool due = false;

	while (!__atomic_load_n(&w->ack_stop, __ATOMIC_ACQUIRE)) {
		eventfd_t rings;

		if (poll(&bell, 1, due ? ACK_WAIT_MS : -1) > 0) {
			(void)eventfd_read(w->ack_fd, &rings);
			due = true;
			continue;
		}
		/* Whoever has something to be acknowledged from here on rings again. */
		__atomic_store_n(&w->ack_armed, false, __ATOMIC_SEQ_CST);
		due = acknowledge(w);
	}
	return NULL;
}

void wvm_vcpu_acknowledge_later(struct wvm_vcpu_link *l)
{
	if (!__atomic_exchange_n(&l->w->ack_armed, true, __ATOMIC_SEQ_CST))
		(void)eventfd_write(l->w->ack_fd, 1);
}

/* w->lock is not held; nobody opens or closes another link meanwhile (w->vcpu_lock). */
static int start_acknowledger(struct wvm *w)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int ret;

	w->ack_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->ack_fd < 0)
		return -errno;
	w->ack_stop = w->ack_armed = false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, ACK_STACK);
	ret = pthread_create(&w->ack_thread, &attr, acknowledger, w);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret) {
		close(w->ack_fd);
		return -ret;
	}
	(void)pthread_setname_np(w->ack_thread, "wvm-vcpu-ack");
	return 0;
}

static void stop_acknowledger(struct wvm *w)
{
	__atomic_store_n(&w->ack_stop, true, __ATOMIC_RELEASE);
	(void)eventfd_write(w->ack_fd, 1);
	pthread_join(w->ack_thread, NULL);
	close(w->ack_fd);
}

/* --- life ------------------------------------------------------------------------ */

/* Later lives of an owner have higher numbers, also those of one process in one instant. */
static uint64_t new_life(void)
{
	static uint64_t last;
	uint64_t before = __atomic_load_n(&last, __ATOMIC_RELAXED), life;
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	do {
		life = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
		if (life <= before)
			life = before + 1;
	} while (!__atomic_compare_exchange_n(&last, &before, life, false, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return life;
}

/*
 * A slave takes the life for that of the VM's owner: all links that are open at a time are of one,
 * and one that is opened again in it goes on counting.
 */
static void end_in_life(struct wvm_vcpu_link *l)
{
	uint64_t *seq = &l->w->vcpu_seq[l->vcpu];

	if (l->run.life == l->w->vcpu_life && l->run.seq > *seq)
		*seq = l->run.seq;
}

static void free_link(struct wvm_vcpu_link *l)
{
	drop_channel(l);
	if (l->bell_fd >= 0)
		close(l->bell_fd);
	if (l->to_master_fd >= 0)
		close(l->to_master_fd);
	if (l->order_fd >= 0)
		close(l->order_fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static struct wvm_vcpu_link *new_link(struct wvm *w, uint16_t vm_id, unsigned vcpu)
{
	struct wvm_vcpu_link *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->w = w;
	l->vm_id = vm_id;
	l->vcpu = vcpu;
	l->mem_fd = -1;
	pthread_mutex_init(&l->lock, NULL);
	l->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->to_master_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->order_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!w->vcpus) {
		w->vcpu_life = new_life();
		memset(w->vcpu_seq, 0, sizeof(w->vcpu_seq));
	}
	wvm_run_owner_init(&l->run, vm_id, (uint16_t)vcpu, 0, w->vcpu_life, 0, l->answer);
	l->run.seq = w->vcpu_seq[vcpu];
	l->nonce = (uint64_t)vcpu << 32 ^ new_life();
	if (l->bell_fd >= 0 && l->to_master_fd >= 0 && l->order_fd >= 0)
		return l;
	free_link(l);
	return NULL;
}

static bool is_open(struct wvm *w, uint16_t vm_id, unsigned vcpu)
{
	for (struct wvm_vcpu_link *l = w->vcpus; l; l = l->next)
		if (l->vm_id == vm_id && l->vcpu == vcpu)
			return true;
	return false;
}

/* Links open and close one by one: the first and the last start and stop the acknowledger. */
static pthread_mutex_t life_lock = PTHREAD_MUTEX_INITIALIZER;

static int add_link(struct wvm_vcpu_link *l)
{
	struct wvm *w = l->w;
	int ret = w->vcpus ? 0 : start_acknowledger(w);

	if (ret)
		return wvm_client_fail(ret, "cannot start a thread: %s", strerror(-ret));
	pthread_mutex_lock(&w->lock);
	l->next = w->vcpus;
	w->vcpus = l;
	pthread_mutex_unlock(&w->lock);
	return 0;
}

static void remove_link(struct wvm_vcpu_link *l)
{
	struct wvm *w = l->w;
	struct wvm_vcpu_link **at = &w->vcpus;

	pthread_mutex_lock(&w->lock);
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	pthread_mutex_unlock(&w->lock);
	if (!w->vcpus)
		stop_acknowledger(w);
}

static int open_link(struct wvm_vcpu_link **out, struct wvm *w, uint16_t vm_id, unsigned vcpu)
{
	struct wvm_vcpu_link *l;
	int ret;

	if (is_open(w, vm_id, vcpu))
		return wvm_client_fail(-EBUSY, "processor %u of VM %u is open already", vcpu,
				       vm_id);
	l = new_link(w, vm_id, vcpu);
	if (!l)
		return wvm_client_fail(-ENOMEM, "out of memory or descriptors");
	ret = wvm_vcpu_meet(l, WVM_CALL_MS);
	if (!ret)
		ret = add_link(l);
	if (ret) {
		free_link(l);
		return ret;
	}
	*out = l;
	return 0;
}

int wvm_vcpu_open(struct wvm_vcpu_link **out, struct wvm *w, uint16_t vm_id, unsigned vcpu)
{
	int ret;

	if (!out || !w || vcpu >= WVM_VCPU_MAX)
		return wvm_client_fail(-EINVAL, "a VM has processors 0 to %u", WVM_VCPU_MAX - 1);
	if (w->owner != getpid())
		return wvm_client_fail(-ECONNREFUSED, "a forked child is not attached");
	pthread_mutex_lock(&life_lock);
	ret = open_link(out, w, vm_id, vcpu);
	pthread_mutex_unlock(&life_lock);
	return ret;
}

void wvm_vcpu_close(struct wvm_vcpu_link *l)
{
	struct wvm_ring_req req;

	if (!l)
		return;
	if (l->w->owner != getpid()) {
		free(l); /* a child's copy */
		return;
	}
	pthread_mutex_lock(&l->lock);
	if (wvm_run_owner_deadline(&l->run) != UINT64_MAX)
		(void)wvm_run_owner_tick(&l->run, wvm_run_owner_deadline(&l->run));
	wvm_vcpu_flush(l);
	pthread_mutex_unlock(&l->lock);
	pthread_mutex_lock(&life_lock);
	end_in_life(l);
	remove_link(l);
	pthread_mutex_unlock(&life_lock);
	req = (struct wvm_ring_req){.vm_id = l->vm_id, .mode = l->vcpu};
	if (l->open)
		(void)wvm_call(l->w, WVM_RING_VCPU_CLOSE, &req, NULL, WVM_CALL_MS);
	free_link(l);
}

void wvm_vcpus_wake(struct wvm *w)
{
	for (struct wvm_vcpu_link *l = w->vcpus; l; l = l->next)
		(void)eventfd_write(l->bell_fd, 1);
}
