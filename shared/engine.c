/* The engine's side of its channel to the slave. */
#include "shared/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared/engine_priv.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* The thread of the processor writes it, but for `woken`. */
struct channel {
	struct wvm_spsc_rx runs;
	struct wvm_spsc_tx answers;
	const uint64_t *kick; /* in shared memory */
	uint64_t seq;         /* of the present run */
	uint64_t kick_seen;   /* the helper's */
	int bell;
	bool woken; /* atomic */
	uint8_t record[sizeof(uint64_t) + WVM_RUN_MAX];
};

struct wvm_engine {
	struct engine_head *head;
	size_t bytes;
	unsigned vcpus;
	int mem_fd, to_slave, kicks, stop, slave; /* slave: its pidfd */
	bool gone;                                /* atomic: the slave is */
	wvm_engine_kick_fn *on_kick;
	void *opaque;
	bool helping;
	pthread_t helper;
	struct channel channel[];
};

__attribute__((format(printf, 4, 5))) static int failed(char *err, size_t err_len, int error,
							const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(err, err_len, format, ap);
	va_end(ap);
	return error;
}

/* ---- kicks ----------------------------------------------------------------------------- */

static void look_for_kicks(struct wvm_engine *e)
{
	for (unsigned i = 0; i < e->vcpus; i++) {
		struct channel *c = &e->channel[i];
		uint64_t seq = __atomic_load_n(c->kick, __ATOMIC_ACQUIRE);

		if (seq != c->kick_seen)
			e->on_kick(e->opaque, i);
		c->kick_seen = seq;
	}
}

static void slave_gone(struct wvm_engine *e)
{
	__atomic_store_n(&e->gone, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < e->vcpus; i++) {
		e->on_kick(e->opaque, i);
		(void)eventfd_write(e->channel[i].bell, 1);
	}
}

static void *help(void *arg)
{
	struct wvm_engine *e = arg;
	struct pollfd p[3] = {{.fd = e->kicks, .events = POLLIN},
			      {.fd = e->stop, .events = POLLIN},
			      {.fd = e->slave, .events = POLLIN}};
	eventfd_t count;

	for (;;) {
		if (poll(p, 3, -1) < 0)
			continue;
		if (p[1].revents)
			return NULL;
		if (p[0].revents) {
			(void)eventfd_read(e->kicks, &count);
			look_for_kicks(e);
		}
		if (p[2].revents || __atomic_load_n(&e->head->ended, __ATOMIC_ACQUIRE)) {
			slave_gone(e);
			p[0].fd = p[2].fd = -1; /* nothing more can come */
		}
	}
}

/* It takes no signals: they are the program's. */
static int start_helper(struct wvm_engine *e)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&e->helper, NULL, help, e);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	e->helping = !r;
	return -r;
}

/* ---- taking the channel up ------------------------------------------------------------- */

struct names {
	int mem_fd, vcpus, to_slave, kicks, bells, slave;
};

static int read_names(struct names *n, char *err, size_t err_len)
{
	const char *text = getenv(WVM_ENGINE_ENV);
	int used = 0;

	if (!text || !*text)
		return failed(err, err_len, -ENOENT,
			      WVM_ENGINE_ENV " is not set: wavevm_node_slave starts this program");
	if (sscanf(text, "%d,%d,%d,%d,%d,%d%n", &n->mem_fd, &n->vcpus, &n->to_slave, &n->kicks,
		   &n->bells, &n->slave, &used) != 6 ||
	    text[used] || n->vcpus < 1 || n->vcpus > (int)WVM_VCPU_MAX || n->mem_fd < 0 ||
	    n->to_slave < 0 || n->kicks < 0 || n->bells < 0 || n->slave <= 0)
		return failed(err, err_len, -EINVAL,
			      WVM_ENGINE_ENV "='%.64s' names no channel of a slave", text);
	return 0;
}

/* A slave that has ended already has left this process to another parent. */
static int find_slave(struct wvm_engine *e, const struct names *n, char *err, size_t err_len)
{
	e->slave = (int)syscall(SYS_pidfd_open, n->slave, 0);
	if (e->slave < 0 || getppid() != n->slave)
		return failed(err, err_len, -ECONNRESET, "the slave (process %d) is gone",
			      n->slave);
	return 0;
}

static int map_channel(struct wvm_engine *e, char *err, size_t err_len)
{
	struct stat st;
	void *mem;
	int seals = fcntl(e->mem_fd, F_GET_SEALS);

	e->bytes = engine_bytes(e->vcpus);
	if (fstat(e->mem_fd, &st) || st.st_size != (off_t)e->bytes || (seals & SEALS) != SEALS)
		return failed(err, err_len, -EPROTO,
			      "the memory that " WVM_ENGINE_ENV
			      " names is no channel of %u processors",
			      e->vcpus);
	mem = mmap(NULL, e->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, e->mem_fd, 0);
	if (mem == MAP_FAILED)
		return failed(err, err_len, -errno, "the channel cannot be mapped: %s",
			      strerror(errno));
	e->head = mem;
	/* A fork would have two processes write the same rings. */
	(void)madvise(mem, e->bytes, MADV_DONTFORK);
	if (e->head->magic != ENGINE_MAGIC || e->head->vcpus != e->vcpus)
		return failed(err, err_len, -EPROTO, "the channel is one of another version");
	return 0;
}

static int open_channel(struct wvm_engine *e, unsigned i, int bell)
{
	uint8_t *base = (uint8_t *)e->head;
	struct channel *c = &e->channel[i];
	int r;

	c->kick = (const uint64_t *)(const void *)(base + engine_kicks_at() + i * ENGINE_LINE);
	c->bell = bell;
	/* The program's own children must not have it. */
	if (fcntl(bell, F_SETFD, FD_CLOEXEC))
		return -errno;
	r = wvm_spsc_open_rx(&c->runs, base + engine_ring_at(e->vcpus, i, 0), WVM_ENGINE_CAPACITY);
	return r ? r
		 : wvm_spsc_open_tx(&c->answers, base + engine_ring_at(e->vcpus, i, 1),
				    WVM_ENGINE_CAPACITY);
}

static int take_up(struct wvm_engine *e, const struct names *n, char *err, size_t err_len)
{
	int fds[] = {n->mem_fd, n->to_slave, n->kicks};
	int r = find_slave(e, n, err, err_len);

	if (r)
		return r;
	for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fcntl(fds[i], F_SETFD, FD_CLOEXEC))
			return failed(err, err_len, -errno,
				      "descriptor %d, named by " WVM_ENGINE_ENV ": %s", fds[i],
				      strerror(errno));
	r = map_channel(e, err, err_len);
	for (unsigned i = 0; !r && i < e->vcpus; i++) {
		r = open_channel(e, i, n->bells + (int)i);
		if (r)
			failed(err, err_len, r, "the channel of processor %u: %s", i, strerror(-r));
	}
	if (r)
		return r;
	e->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = e->stop < 0 ? -errno : start_helper(e);
	if (r)
		return failed(err, err_len, r, "no thread for kicks: %s", strerror(-r));
	__atomic_store_n(&e->head->opened, 1, __ATOMIC_SEQ_CST);
	(void)eventfd_write(e->to_slave, 1);
	return 0;
}

int wvm_engine_open(struct wvm_engine **out, wvm_engine_kick_fn *on_kick, void *opaque, char *err,
		    size_t err_len)
{
	struct wvm_engine *e;
	struct names n;
	int r = read_names(&n, err, err_len);

	if (r)
		return r;
	e = calloc(1, sizeof(*e) + (size_t)n.vcpus * sizeof(e->channel[0]));
	if (!e)
		return failed(err, err_len, -ENOMEM, "no memory for %d processors", n.vcpus);
	e->vcpus = (unsigned)n.vcpus;
	e->mem_fd = n.mem_fd;
	e->to_slave = n.to_slave;
	e->kicks = n.kicks;
	e->stop = e->slave = -1;
	e->on_kick = on_kick;
	e->opaque = opaque;
	r = take_up(e, &n, err, err_len);
	if (r)
		wvm_engine_close(e);
	else
		*out = e;
	return r;
}

void wvm_engine_close(struct wvm_engine *e)
{
	int fds[] = {e->mem_fd, e->to_slave, e->kicks, e->stop, e->slave};

	if (e->helping) {
		(void)eventfd_write(e->stop, 1);
		pthread_join(e->helper, NULL);
	}
	if (e->head)
		munmap(e->head, e->bytes);
	for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	for (unsigned i = 0; i < e->vcpus; i++)
		if (e->channel[i].bell > 0)
			close(e->channel[i].bell);
	free(e);
}

unsigned wvm_engine_vcpus(const struct wvm_engine *e)
{
	return e->vcpus;
}

/* ---- runs ------------------------------------------------------------------------------ */

static int pop(struct channel *c, void *buf, size_t room, uint64_t *seq)
{
	uint32_t type;
	int len = wvm_spsc_pop(&c->runs, &type, c->record, sizeof(c->record));

	if (len == -EAGAIN)
		return len;
	if (len < (int)sizeof(*seq) || type != WVM_ENGINE_RUN)
		return -EPROTO;
	len -= (int)sizeof(*seq);
	if ((size_t)len > room)
		return -EMSGSIZE;
	memcpy(seq, c->record, sizeof(*seq));
	memcpy(buf, c->record + sizeof(*seq), (size_t)len);
	c->seq = *seq;
	return len;
}

int wvm_engine_wait(struct wvm_engine *e, unsigned vcpu, void *buf, size_t room, uint64_t *seq)
{
	struct channel *c = &e->channel[vcpu];
	struct pollfd p = {.fd = c->bell, .events = POLLIN};
	eventfd_t count;

	for (;;) {
		int len;

		if (__atomic_load_n(&e->gone, __ATOMIC_ACQUIRE))
			return -ECONNRESET;
		if (__atomic_exchange_n(&c->woken, false, __ATOMIC_ACQ_REL))
			return -EINTR;
		len = pop(c, buf, room, seq);
		if (len != -EAGAIN)
			return len;
		/* What comes after the look has rung, or will: the bell keeps count. */
		if (poll(&p, 1, -1) > 0)
			(void)eventfd_read(c->bell, &count);
	}
}

void wvm_engine_wake(struct wvm_engine *e, unsigned vcpu)
{
	__atomic_store_n(&e->channel[vcpu].woken, true, __ATOMIC_RELEASE);
	(void)eventfd_write(e->channel[vcpu].bell, 1);
}

bool wvm_engine_kicked(const struct wvm_engine *e, unsigned vcpu)
{
	const struct channel *c = &e->channel[vcpu];

	return __atomic_load_n(c->kick, __ATOMIC_ACQUIRE) == c->seq ||
	       __atomic_load_n(&e->gone, __ATOMIC_ACQUIRE);
}

static int push(struct wvm_engine *e, unsigned vcpu, enum wvm_engine_msg type, uint64_t seq,
		const void *body, size_t len)
{
	int r;

	if (len > WVM_RUN_MAX)
		return -EMSGSIZE;
	r = wvm_spsc_push2(&e->channel[vcpu].answers, type, &seq, sizeof(seq), body, (uint32_t)len);
	if (!r)
		(void)eventfd_write(e->to_slave, 1);
	return r;
}

int wvm_engine_exit(struct wvm_engine *e, unsigned vcpu, uint64_t seq, const void *answer,
		    size_t len)
{
	return push(e, vcpu, WVM_ENGINE_EXIT, seq, answer, len);
}

int wvm_engine_refuse(struct wvm_engine *e, unsigned vcpu, uint64_t seq, unsigned reason)
{
	uint64_t why = reason;

	return push(e, vcpu, WVM_ENGINE_REFUSE, seq, &why, sizeof(why));
}
