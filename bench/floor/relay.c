#include "relay.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/wvmbench/hist.h"
#include "loop.h"

#define DATAGRAM       (FLOOR_HEADER + FLOOR_SEGMENT)
#define BATCH_SEGMENTS 44u /* 64,768 bytes of 65,507 */
#define SEGMENTS_MAX   ((RELAY_BYTES_MAX + FLOOR_SEGMENT - 1) / FLOOR_SEGMENT)
#define BATCHES        ((SEGMENTS_MAX + BATCH_SEGMENTS - 1) / BATCH_SEGMENTS)
#define WARM           200u /* runs that do not count */

/* Between the owner and relay A. */
struct channel {
	_Atomic uint64_t asked, answered; /* runs */
	uint32_t bytes;
	uint8_t run[RELAY_BYTES_MAX], answer[RELAY_BYTES_MAX];
};

/* A run or an answer as it leaves: one sendmsg for each 44 segments. */
struct parcel {
	struct msghdr msg[BATCHES];
	struct iovec iov[2 * SEGMENTS_MAX];
	struct floor_header header[SEGMENTS_MAX];
	uint64_t control[BATCHES][CMSG_SPACE(sizeof(uint16_t)) / sizeof(uint64_t)];
	struct sockaddr_in to;
};

static struct channel *channel;
static struct sockaddr_in address_a, address_b, address_echo;
static int run_bell, answer_bell; /* eventfds: to relay A, to the owner */

static void send_parcel(struct loop *l, struct parcel *p, const struct sockaddr_in *to,
			const uint8_t *data, uint32_t bytes)
{
	uint32_t at = 0;
	unsigned n = 0;

	p->to = *to;
	for (unsigned batch = 0; at < bytes; batch++) {
		unsigned first = n;

		for (; at < bytes && n - first < BATCH_SEGMENTS; n++) {
			uint32_t left = bytes - at;

			p->header[n] = (struct floor_header){
				.length = (uint16_t)(left < FLOOR_SEGMENT ? left : FLOOR_SEGMENT),
				.offset = at,
				.total = bytes};
			p->iov[2 * n] = (struct iovec){&p->header[n], FLOOR_HEADER};
			p->iov[2 * n + 1] = (struct iovec){(void *)(data + at),
							   p->header[n].length};
			at += p->header[n].length;
		}
		loop_message(&p->msg[batch], &p->to, &p->iov[2 * first], 2 * (n - first),
			     p->control[batch], n - first > 1 ? DATAGRAM : 0);
		loop_submit_message(l, &p->msg[batch]);
	}
}

/* Puts the segments of a batch where they belong. True: all of it is there. */
static bool collect(const struct loop_batch *b, uint8_t *to, uint32_t *have)
{
	bool all = false;

	for (size_t at = 0; at < b->len; at += b->segment) {
		size_t len = b->len - at < b->segment ? b->len - at : b->segment;
		struct floor_header header;

		errno = EBADMSG;
		if (len < sizeof(header))
			floor_die("relay: short datagram");
		memcpy(&header, b->data + at, sizeof(header));
		if (len != sizeof(header) + header.length || header.total > RELAY_BYTES_MAX ||
		    header.offset + header.length > header.total)
			floor_die("relay: damaged datagram");
		memcpy(to + header.offset, b->data + at + sizeof(header), header.length);
		*have += header.length;
		all = *have == header.total;
		if (all)
			*have = 0;
	}
	return all;
}

/* Whatever has come in one turn; on_batch of each. Never returns. */
static void serve(struct loop *l, void (*on_batch)(struct loop *l, const struct loop_batch *b),
		  void (*on_bell)(struct loop *l)) __attribute__((noreturn));

static void serve(struct loop *l, void (*on_batch)(struct loop *l, const struct loop_batch *b),
		  void (*on_bell)(struct loop *l))
{
	for (;;) {
		struct io_uring_cqe *cqe;
		struct loop_batch batch;
		unsigned head, n = 0;

		loop_wait(l);
		io_uring_for_each_cqe (&l->ring, head, cqe) {
			n++;
			if (cqe->user_data == LOOP_DATAGRAMS) {
				if (loop_datagrams(l, cqe, &batch))
					on_batch(l, &batch);
			} else if (cqe->user_data == LOOP_FAULTS) {
				l->uffd_armed = cqe->flags & IORING_CQE_F_MORE;
				on_bell(l);
			} else if (cqe->res < 0) {
				errno = -cqe->res;
				floor_die("relay: sendmsg");
			}
			/* What is sent from it is copied before the kernel receives into it again:
			 * both happen in the next enter, in that order. */
			loop_recycle(l, cqe);
		}
		io_uring_cq_advance(&l->ring, n);
	}
}

/* ---- A: between the owner and the network ------------------------------------------------ */

static void a_from_owner(struct loop *l)
{
	static struct parcel parcel;
	static uint64_t sent;

	if (channel->asked == sent)
		return;
	sent = channel->asked;
	send_parcel(l, &parcel, &address_b, channel->run, channel->bytes);
}

static void a_from_network(struct loop *l, const struct loop_batch *b)
{
	static uint32_t have;

	if (!collect(b, channel->answer, &have))
		return;
	channel->answered++;
	loop_ring_bell(l, answer_bell);
}

/* ---- B: between the network and the echo -------------------------------------------------- */

static void b_from_anywhere(struct loop *l, const struct loop_batch *b)
{
	struct loop_send *send = loop_send_get(l);
	const struct sockaddr_in *to = b->from.sin_port == address_a.sin_port ? &address_echo
									      : &address_a;

	send->iov[0] = (struct iovec){(void *)b->data, b->len};
	loop_send_fill(send, to, 1, b->len > b->segment ? (uint16_t)b->segment : 0);
	loop_submit(l, send);
}

/* ---- the echo: two threads, as a slave has one for the network and one for a processor --------
 */

static struct {
	uint8_t run[RELAY_BYTES_MAX], answer[RELAY_BYTES_MAX];
	sem_t asked;
	int bell; /* eventfd: there is an answer */
} echo;

static void *echo_processor(void *unused)
{
	for (;;) {
		while (sem_wait(&echo.asked))
			;
		memcpy(echo.answer, echo.run, channel->bytes);
		eventfd_write(echo.bell, 1);
	}
	return unused;
}

static void echo_from_network(struct loop *l, const struct loop_batch *b)
{
	static uint32_t have;

	(void)l;
	if (collect(b, echo.run, &have))
		sem_post(&echo.asked);
}

static void echo_from_processor(struct loop *l)
{
	static struct parcel parcel;

	send_parcel(l, &parcel, &address_b, echo.answer, channel->bytes);
}

static void echo_begin(void)
{
	pthread_t thread;
	int error;

	echo.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (echo.bell < 0 || sem_init(&echo.asked, 0, 0))
		floor_die("relay: echo");
	error = pthread_create(&thread, NULL, echo_processor, NULL);
	if (error) {
		errno = error;
		floor_die("relay: thread of the echo");
	}
}

/* ---- the owner ----------------------------------------------------------------------------- */

enum who { RELAY_A, RELAY_B, ECHO, PROCESSES };

static pid_t start(const struct floor_options *o, enum who who, int fd)
{
	static struct loop loop;
	const int core[PROCESSES] = {o->core_m, o->core_h, o->core_h};
	pid_t pid = floor_spawn();

	if (pid)
		return pid;
	floor_pin(core[who]);
	if (who == ECHO)
		echo_begin(); /* its thread is on the same core */
	loop_init(&loop, fd,
		  who == RELAY_A ? run_bell
		  : who == ECHO  ? echo.bell
				 : -1,
		  o->spin,
		  floor_must_yield(core[who], o->core_a, who == RELAY_A ? o->core_h : core[who]));
	loop.poll_uffd = true;
	serve(&loop,
	      who == RELAY_A   ? a_from_network
	      : who == RELAY_B ? b_from_anywhere
			       : echo_from_network,
	      who == RELAY_A ? a_from_owner : echo_from_processor);
}

static uint64_t run_once(uint64_t number)
{
	struct pollfd bell = {.fd = answer_bell, .events = POLLIN};
	uint64_t from = floor_now();
	eventfd_t rings;

	channel->run[number % channel->bytes]++;
	channel->asked = number;
	eventfd_write(run_bell, 1);
	while (channel->answered < number)
		if (poll(&bell, 1, -1) > 0)
			(void)eventfd_read(answer_bell, &rings);
	return floor_now() - from;
}

static void print(const struct floor_options *o, const struct wvm_summary *s)
{
	if (!o->json) {
		wvm_summary_head(stdout);
		wvm_summary_row(stdout, "relay", 1, s);
		if (o->histogram)
			wvm_hist_print(stdout, s);
		return;
	}
	printf("{\"program\": \"wvm_floor\", \"bytes\": %u, \"cores\": [%d, %d, %d], "
	       "\"waiting\": \"%s\", \"results\": [\n",
	       channel->bytes, o->core_a, o->core_m, o->core_h, o->spin ? "spinning" : "sleeping");
	wvm_summary_json(stdout, "relay", 1, s);
	printf("]}\n");
}

void floor_relay(const struct floor_options *o)
{
	struct sockaddr_in *const addresses[PROCESSES] = {&address_a, &address_b, &address_echo};
	struct wvm_samples samples;
	struct wvm_summary summary;
	pid_t pids[PROCESSES];
	int fds[PROCESSES];
	uint64_t from = 0;

	channel = mmap(NULL, sizeof(*channel), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (channel == MAP_FAILED || wvm_samples_init(&samples, o->relay_runs))
		floor_die("no memory");
	channel->bytes = o->relay_bytes;
	run_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	answer_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < PROCESSES; i++)
		fds[i] = floor_socket(addresses[i]);
	for (unsigned i = 0; i < PROCESSES; i++)
		pids[i] = start(o, i, fds[i]);
	floor_pin(o->core_a);
	for (uint64_t i = 1; i <= WARM + o->relay_runs; i++) {
		uint64_t ns = run_once(i);

		if (i == WARM)
			from = floor_now();
		if (i > WARM)
			wvm_samples_add(&samples, ns);
	}
	wvm_summarize(&samples, floor_now() - from, &summary);
	errno = EBADMSG;
	if (memcmp(channel->run, channel->answer, channel->bytes))
		floor_die("relay: a byte is wrong");
	signal(SIGCHLD, SIG_DFL);
	for (unsigned i = 0; i < PROCESSES; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	print(o, &summary);
	wvm_samples_fini(&samples);
}
