/* M: turns page faults into requests and answers into pages. */
#include <errno.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "floor.h"
#include "loop.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif

/* A page whose segments are coming in. */
struct assembly {
	uint64_t page;
	uint32_t have; /* bytes; 0: free */
};

struct master {
	const struct floor_options *o;
	struct floor_shared *shared;
	int udp, uffd;
	struct sockaddr_in own;
	bool ended;
	struct loop_send *requests; /* being filled, NULL: none */
	unsigned n_requests;
	struct assembly assembly[FLOOR_THREADS]; /* every thread waits for one page at most */
};

static uint8_t page_buffer[FLOOR_THREADS][FLOOR_PAGE] __attribute__((aligned(FLOOR_PAGE)));
static const uint8_t zero_page[FLOOR_PAGE] __attribute__((aligned(FLOOR_PAGE)));

static void install(struct master *m, uint64_t page, const uint8_t *data, bool write_protect)
{
	struct uffdio_copy copy = {.dst = m->shared->base + page * FLOOR_PAGE,
				   .src = (uintptr_t)data,
				   .len = FLOOR_PAGE,
				   .mode = write_protect ? UFFDIO_COPY_MODE_WP : 0};

	while (ioctl(m->uffd, UFFDIO_COPY, &copy) < 0)
		if (errno != EAGAIN)
			floor_die("UFFDIO_COPY");
}

static void unprotect(struct master *m, uint64_t page)
{
	struct uffdio_writeprotect wp = {
		.range = {m->shared->base + page * FLOOR_PAGE, FLOOR_PAGE}};

	while (ioctl(m->uffd, UFFDIO_WRITEPROTECT, &wp) < 0)
		if (errno != EAGAIN)
			floor_die("UFFDIO_WRITEPROTECT");
}

/* What a fault asks the home for; FLOOR_LOCAL: nothing, it is dealt with. */
static enum floor_op on_fault(struct master *m, const struct uffd_msg *msg, uint64_t *page)
{
	uint64_t flags = msg->arg.pagefault.flags;

	if (msg->event != UFFD_EVENT_PAGEFAULT) {
		errno = EPROTO;
		floor_die("an event that is no page fault");
	}
	*page = (msg->arg.pagefault.address - m->shared->base) / FLOOR_PAGE;
	if (*page == m->shared->pages) {
		install(m, *page, zero_page, false);
		m->ended = true;
		return FLOOR_LOCAL;
	}
	if (flags & UFFD_PAGEFAULT_FLAG_WP)
		return FLOOR_UPGRADE;
	if (flags & UFFD_PAGEFAULT_FLAG_WRITE)
		return FLOOR_WRITE;
	if (m->shared->op == FLOOR_LOCAL)
		install(m, *page, zero_page, true);
	return (enum floor_op)m->shared->op;
}

static struct assembly *assembly_of(struct master *m, uint64_t page)
{
	struct assembly *idle = NULL;

	for (unsigned i = 0; i < m->o->threads; i++) {
		struct assembly *a = &m->assembly[i];

		if (a->have > 0 && a->page == page)
			return a;
		if (a->have == 0 && !idle)
			idle = a;
	}
	if (!idle) {
		errno = EPROTO;
		floor_die("more pages under way than threads");
	}
	idle->page = page;
	return idle;
}

static void on_segment(struct master *m, const uint8_t *data, size_t len)
{
	const struct floor_header *header;
	struct assembly *a = NULL;
	uint8_t *buffer = NULL;
	uint64_t page;

	/* Where the payload goes is read before the checksum is known; a wrong one ends the run. */
	if (len > FLOOR_HEADER) {
		memcpy(&page, data + offsetof(struct floor_header, page), sizeof(page));
		a = assembly_of(m, page);
		buffer = page_buffer[a - m->assembly];
	}
	header = floor_open(data, len, buffer);
	if (!header) {
		errno = EBADMSG;
		floor_die("damaged answer");
	}
	if (header->op == FLOOR_STOP) {
		m->ended = true;
	} else if (header->op == FLOOR_ZERO) {
		install(m, header->page, zero_page, true);
	} else if (header->op == FLOOR_UPGRADE) {
		unprotect(m, header->page);
	} else if (a && (a->have += header->length) == header->total) {
		a->have = 0;
		install(m, header->page, buffer, header->op == FLOOR_READ);
	}
}

static void request(struct floor_header *header, enum floor_op op, uint64_t page)
{
	*header = (struct floor_header){.op = (uint16_t)op, .page = page};
	floor_seal(header, NULL);
}

static void flush_requests(struct master *m, struct loop *l)
{
	if (m->n_requests == 0)
		return;
	loop_send_headers(m->requests, &m->shared->home, m->n_requests);
	loop_submit(l, m->requests);
	m->n_requests = 0;
}

static void on_faults(struct master *m, struct loop *l, const struct io_uring_cqe *cqe)
{
	const struct uffd_msg *msg;
	unsigned n = loop_faults(l, cqe, &msg);

	for (unsigned i = 0; i < n; i++) {
		uint64_t page;
		enum floor_op op = on_fault(m, &msg[i], &page);

		if (op == FLOOR_LOCAL)
			continue;
		if (m->n_requests == 0)
			m->requests = loop_send_get(l);
		request(&m->requests->header[m->n_requests++], op, page);
		if (m->n_requests == FLOOR_UFFD_BATCH)
			flush_requests(m, l);
	}
}

static void on_completion(struct master *m, struct loop *l, const struct io_uring_cqe *cqe)
{
	struct loop_batch b;

	if (cqe->user_data == LOOP_FAULTS) {
		on_faults(m, l, cqe);
	} else if (cqe->user_data == LOOP_SENT && cqe->res < 0) {
		errno = -cqe->res;
		floor_die("sendmsg");
	} else if (cqe->user_data == LOOP_DATAGRAMS && loop_datagrams(l, cqe, &b)) {
		for (size_t at = 0; at < b.len; at += b.segment)
			on_segment(m, b.data + at, b.len - at < b.segment ? b.len - at : b.segment);
	}
	loop_recycle(l, cqe);
}

static void serve_by_ring(struct master *m)
{
	static struct loop loop;
	const struct floor_options *o = m->o;

	loop_init(&loop, m->udp, m->uffd, o->spin,
		  floor_must_yield(o->core_m, o->core_a, o->core_h));
	m->shared->stage = STAGE_SERVING;
	while (!m->ended) {
		struct io_uring_cqe *cqe;
		unsigned head, n = 0;

		loop_wait(&loop);
		io_uring_for_each_cqe (&loop.ring, head, cqe) {
			n++;
			on_completion(m, &loop, cqe);
		}
		io_uring_cq_advance(&loop.ring, n);
		flush_requests(m, &loop);
	}
	loop_fini(&loop);
}

/* The size of the datagrams in a received batch of n bytes. */
static size_t segment_of(struct msghdr *msg, size_t n)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
			int segment;

			memcpy(&segment, CMSG_DATA(c), sizeof(segment));
			return (size_t)segment;
		}
	return n;
}

static void *receive_blocking(void *opaque)
{
	static uint8_t data[FLOOR_BUFFER];
	struct master *m = opaque;
	uint8_t control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));

	floor_pin(m->o->core_m);
	while (!m->ended) {
		struct iovec iov = {data, sizeof(data)};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control,
				     .msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(m->udp, &msg, 0);
		size_t segment, len = (size_t)n;

		if (n < 0)
			floor_die("recvmsg");
		segment = segment_of(&msg, len);
		for (size_t at = 0; at < len; at += segment)
			on_segment(m, data + at, len - at < segment ? len - at : segment);
	}
	return NULL;
}

static void send_request(struct master *m, enum floor_op op, uint64_t page,
			 const struct sockaddr_in *to)
{
	struct floor_header header;

	request(&header, op, page);
	if (sendto(m->udp, &header, sizeof(header), 0, (const struct sockaddr *)to, sizeof(*to)) <
	    0)
		floor_die("sendto");
}

/* Two threads, plain system calls: what a program without io_uring would do. */
static void serve_by_blocking(struct master *m)
{
	struct master receiver = *m;
	struct uffd_msg msg[FLOOR_UFFD_BATCH];
	pthread_t thread;

	if (pthread_create(&thread, NULL, receive_blocking, &receiver) != 0)
		floor_die("pthread_create");
	m->shared->stage = STAGE_SERVING;
	while (!m->ended) {
		ssize_t n = read(m->uffd, msg, sizeof(msg));

		if (n < 0 && errno != EAGAIN)
			floor_die("userfaultfd");
		for (ssize_t i = 0; i < n / (ssize_t)sizeof(msg[0]); i++) {
			uint64_t page;
			enum floor_op op = on_fault(m, &msg[i], &page);

			if (op != FLOOR_LOCAL)
				send_request(m, op, page, &m->shared->home);
		}
	}
	send_request(m, FLOOR_STOP, 0, &m->own);
	pthread_join(thread, NULL);
}

static void serve_region(const struct floor_options *o, struct floor_shared *shared, int a)
{
	static struct master m;

	memset(&m, 0, sizeof(m));
	m.o = o;
	m.shared = shared;
	m.uffd = shared->uffd;
	if (a >= 0) {
		m.uffd = (int)syscall(SYS_pidfd_getfd, a, shared->uffd, 0);
		if (m.uffd < 0)
			floor_die("pidfd_getfd");
	}
	/* A socket per region: the kernel takes an exiting ring's receive away only in time. */
	m.udp = floor_socket(&m.own);
	if (o->blocking)
		serve_by_blocking(&m);
	else
		serve_by_ring(&m);
	close(m.udp);
	if (a >= 0)
		close(m.uffd);
	shared->stage = STAGE_ENDED;
}

void floor_master(const struct floor_options *o, struct floor_shared *shared, int a)
{
	floor_pin(o->core_m);
	for (;;) {
		while (shared->stage != STAGE_REGION && shared->stage != STAGE_QUIT)
			usleep(200);
		if (shared->stage == STAGE_QUIT)
			return;
		serve_region(o, shared, a);
	}
}
