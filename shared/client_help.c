#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "shared/client_priv.h"

#define HELPER_STACK      (256u * 1024)
/* Messages per wakeup before the other descriptors are looked at again. */
#define MESSAGES_PER_TURN 64u
/* How long the master's next life may leave our ring full; its shard may be taking pages over. */
#define RETURN_TRIES      10000u
#define RETURN_PAUSE_US   1000u

void wvm_ring_bell(struct wvm *w)
{
	/* A full counter has rung already. */
	(void)eventfd_write(w->to_master_fd, 1);
}

static void report(struct wvm *w, void *addr, const char *text)
{
	wvm_error_fn *fn;
	void *opaque;

	pthread_mutex_lock(&w->lock);
	fn = w->error_fn;
	opaque = w->error_opaque;
	pthread_mutex_unlock(&w->lock);
	if (fn)
		fn(opaque, addr, text);
}

/* --- requests ------------------------------------------------------------ */

int wvm_send(struct wvm *w, enum wvm_ring_msg type, struct wvm_ring_req *req)
{
	int ret = wvm_spsc_push(&w->tx, type, req, sizeof(*req));

	if (!ret)
		wvm_ring_bell(w);
	return ret == -EAGAIN ? -EBUSY : ret;
}

static struct call *free_call(struct wvm *w)
{
	for (unsigned i = 0; i < WVM_RING_CALLS_MAX; i++)
		if (!w->calls[i].token)
			return &w->calls[i];
	return NULL;
}

static struct timespec deadline_in(int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000L;
	if (t.tv_nsec >= 1000000000L) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000L;
	}
	return t;
}

static int64_t await_call(struct wvm *w, struct call *c, struct wvm_stats *stats, int timeout_ms)
{
	struct timespec deadline = deadline_in(timeout_ms);
	int64_t result = -ETIMEDOUT;
	int ret = 0;

	while (!c->done && !w->gone && ret != ETIMEDOUT)
		ret = pthread_cond_timedwait(&w->answered, &w->lock, &deadline);
	if (c->done) {
		result = c->result;
		if (stats)
			*stats = c->stats;
	} else if (w->gone) {
		result = -ECONNREFUSED;
	}
	c->token = 0;
	return result;
}

int64_t wvm_call(struct wvm *w, enum wvm_ring_msg type, struct wvm_ring_req *req,
		 struct wvm_stats *stats, int timeout_ms)
{
	int64_t result = -ECONNREFUSED;
	struct call *c;

	if (w->owner != getpid())
		return result;
	pthread_mutex_lock(&w->lock);
	if (w->gone)
		goto out;
	c = free_call(w);
	result = -EBUSY;
	if (!c)
		goto out;
	*c = (struct call){.token = ++w->next_token};
	req->token = c->token;
	result = wvm_send(w, type, req);
	if (result)
		c->token = 0;
	else
		result = await_call(w, c, stats, timeout_ms);
out:
	pthread_mutex_unlock(&w->lock);
	return result;
}

/* --- messages of the master ---------------------------------------------- */

static void take_reply(struct wvm *w, const uint8_t *body, size_t len)
{
	struct wvm_ring_reply r;

	memcpy(&r, body, sizeof(r));
	pthread_mutex_lock(&w->lock);
	for (unsigned i = 0; r.token && i < WVM_RING_CALLS_MAX; i++) {
		struct call *c = &w->calls[i];

		if (c->token != r.token)
			continue;
		c->result = r.result;
		len -= sizeof(r);
		memcpy(&c->stats, body + sizeof(r),
		       len < sizeof(c->stats) ? len : sizeof(c->stats));
		c->done = true;
		pthread_cond_broadcast(&w->answered);
		break;
	}
	pthread_mutex_unlock(&w->lock);
	if (!r.token && r.result < 0)
		report(w, NULL,
		       "the new master did not take a mapping or a pin over; its accesses wait");
}

static const char *reason_text(int reason)
{
	switch (reason) {
	case ETIMEDOUT: return "its home did not answer in time";
	case EIO: return "its last copy is lost";
	default: return strerror(reason);
	}
}

static void take_error(struct wvm *w, const uint8_t *body)
{
	struct wvm_ring_error e;
	const char *then = "the access gets SIGBUS";
	char text[256];

	memcpy(&e, body, sizeof(e));
	if (e.how == WVM_ERROR_HOW_REPLACE) {
		pthread_mutex_lock(&w->lock);
		if (wvm_page_replace(w, e.addr))
			then = "the thread stays stopped";
		pthread_mutex_unlock(&w->lock);
	} else if (e.how == WVM_ERROR_HOW_PARKED) {
		then = "the thread stays stopped";
	}
	snprintf(text, sizeof(text), "page 0x%llx of VM %u cannot be had: %s; %s",
		 (unsigned long long)e.gpa, e.vm_id, reason_text(e.reason), then);
	report(w, (void *)(uintptr_t)e.addr, text);
}

static void take_order(struct wvm *w, const void *body)
{
	struct wvm_ring_order o;

	memcpy(&o, body, sizeof(o));
	pthread_mutex_lock(&w->lock);
	wvm_vcpus_ordered(w, &o);
	pthread_mutex_unlock(&w->lock);
}

/* False when the master's ring is damaged: it is as good as gone. */
static bool take_messages(struct wvm *w)
{
	uint8_t body[WVM_CHANNEL_CAPACITY / 2];

	for (unsigned i = 0; i < MESSAGES_PER_TURN; i++) {
		uint32_t type;
		int len = wvm_spsc_pop(&w->rx, &type, body, sizeof(body));

		if (len == -EAGAIN)
			return true;
		if (len < 0)
			return false;
		if (type == WVM_RING_REPLY && len >= (int)sizeof(struct wvm_ring_reply))
			take_reply(w, body, (size_t)len);
		else if (type == WVM_RING_ERROR && len >= (int)sizeof(struct wvm_ring_error))
			take_error(w, body);
		else if (type == WVM_RING_ORDER && len >= (int)sizeof(struct wvm_ring_order))
			take_order(w, body);
	}
	/* More may be there: look again at once. */
	(void)eventfd_write(w->to_client_fd, 1);
	return true;
}

/* --- a master's end, and the next one ------------------------------------- */

static void lose_master(struct wvm *w)
{
	pthread_mutex_lock(&w->lock);
	w->gone = true;
	w->lives++;
	pthread_cond_broadcast(&w->answered);
	wvm_vcpus_wake(w);
	pthread_mutex_unlock(&w->lock);
	report(w, NULL,
	       "the master of this node is gone; accesses to pages that are not here wait");
}

/* Writes to the ring file wake us: a new master's header is one. */
static int watch_file(struct wvm *w)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	char name[64];

	if (fd < 0)
		return -1;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", w->file->fd);
	if (inotify_add_watch(fd, name, IN_MODIFY) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Nobody else sends before we are back, so the ring empties as the master reads it. */
static void say(struct wvm *w, enum wvm_ring_msg type, struct wvm_ring_req *req)
{
	for (unsigned i = 0; wvm_send(w, type, req) == -EBUSY && i < RETURN_TRIES; i++)
		usleep(RETURN_PAUSE_US);
}

/*
 * The ranges as they are: this mm's page tables still say what the adopted
 * holder knows. Then the pins, and that this is all. The lock is held, since a
 * request in between would be about what the master does not know yet.
 */
static void come_back(struct wvm *w)
{
	struct wvm_ring_req code = {.addr = (uint64_t)wvm_code_fd(w)}, all_said = {0};

	wvm_code_lost(w);
	pthread_mutex_lock(&w->lock);
	if (w->code)
		say(w, WVM_RING_CODE, &code);
	for (unsigned i = 0; i < WVM_RING_MAPS_MAX; i++) {
		struct range *r = &w->ranges[i];
		struct wvm_ring_req req = {.vm_id = r->vm_id,
					   .mode = r->mode,
					   .gpa = r->gpa,
					   .len = r->len,
					   .addr = (uint64_t)(uintptr_t)r->addr};

		if (r->state == RANGE_LIVE)
			say(w, WVM_RING_MAP, &req);
	}
	for (unsigned i = 0; i < WVM_RING_PINS_MAX; i++) {
		struct pinned *p = &w->pins[i];
		struct wvm_ring_req req = {.vm_id = p->vm_id, .gpa = p->gpa, .len = p->len};

		for (uint32_t n = 0; n < p->times; n++)
			say(w, WVM_RING_PIN, &req);
	}
	say(w, WVM_RING_BACK, &all_said);
	w->gone = false;
	wvm_vcpus_wake(w);
	pthread_mutex_unlock(&w->lock);
}

static bool adopts(const struct wvm_ring_header *h, uint64_t boot_id)
{
	for (unsigned i = 0; i < WVM_RING_ADOPTS_MAX && h->adopts[i]; i++)
		if (h->adopts[i] == boot_id)
			return true;
	return false;
}

/*
 * True when a new master took this client over. Only one that has taken over
 * the pages of the life that we knew: any other would serve older bytes than
 * this program has written. Each life is tried once.
 */
static bool rejoin(struct wvm *w)
{
	struct wvm_ring_header h;
	uint64_t known = w->boot_id;

	if (!wvm_ring_file_master(w->file) || wvm_ring_file_header(w->file, &h) ||
	    h.boot_id == w->tried_boot_id || !adopts(&h, known) || h.shard_count != w->shards)
		return false;
	w->tried_boot_id = h.boot_id;
	if (wvm_link_meet(w, &h)) {
		w->boot_id = known; /* one that came to nothing changed no page either */
		return false;
	}
	come_back(w);
	return true;
}

static void drain(int fd)
{
	uint8_t buf[4096];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
}

enum { AT_STOP, AT_BELL, AT_MASTER, AT_FILE, AT_COUNT };

/* poll() passes over a negative descriptor. */
static void on_master_gone(struct wvm *w, struct pollfd *fds)
{
	lose_master(w);
	fds[AT_BELL].fd = -1;
	fds[AT_MASTER].fd = -1;
	fds[AT_FILE].fd = watch_file(w);
	/* A master that came before the watch. */
	if (fds[AT_FILE].fd >= 0)
		fds[AT_FILE].revents = POLLIN;
}

static void on_file(struct wvm *w, struct pollfd *fds)
{
	drain(fds[AT_FILE].fd);
	if (!rejoin(w))
		return;
	close(fds[AT_FILE].fd);
	fds[AT_FILE].fd = -1;
	fds[AT_BELL].fd = w->to_client_fd;
	fds[AT_MASTER].fd = w->master_pidfd;
}

static void *helper(void *arg)
{
	struct wvm *w = arg;
	struct pollfd fds[AT_COUNT] = {
		[AT_STOP] = {.fd = w->stop_fd, .events = POLLIN},
		[AT_BELL] = {.fd = w->to_client_fd, .events = POLLIN},
		[AT_MASTER] = {.fd = w->master_pidfd, .events = POLLIN},
		[AT_FILE] = {.fd = -1, .events = POLLIN},
	};

	for (;;) {
		bool lost;

		if (poll(fds, AT_COUNT, -1) < 0)
			continue;
		if (fds[AT_STOP].revents)
			break;
		lost = fds[AT_MASTER].revents;
		if (fds[AT_BELL].revents || lost) {
			drain(w->to_client_fd);
			wvm_code_look(w);
			lost = !take_messages(w) || lost;
		}
		if (lost)
			on_master_gone(w, fds);
		if (fds[AT_FILE].fd >= 0 && fds[AT_FILE].revents)
			on_file(w, fds);
	}
	if (fds[AT_FILE].fd >= 0)
		close(fds[AT_FILE].fd);
	return NULL;
}

int wvm_helper_start(struct wvm *w)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int ret;

	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, HELPER_STACK);
	ret = pthread_create(&w->helper, &attr, helper, w);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!ret)
		(void)pthread_setname_np(w->helper, "wvm-helper");
	return -ret;
}

void wvm_helper_stop(struct wvm *w)
{
	(void)eventfd_write(w->stop_fd, 1);
	pthread_join(w->helper, NULL);
}
