#include "loop.h"

#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#define OP_READ_MULTISHOT 49 /* include/uapi/linux/io_uring.h, Linux 6.7; liburing 2.3 lacks it */

enum { GROUP_UDP = 1, GROUP_UFFD };

static void *pages(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		floor_die("mmap");
	return p;
}

static struct io_uring_buf_ring *buffer_ring(struct loop *l, uint8_t *mem, unsigned n,
					     unsigned size, int group)
{
	struct io_uring_buf_ring *ring = pages(n * sizeof(struct io_uring_buf));
	struct io_uring_buf_reg reg = {
		.ring_addr = (uintptr_t)ring, .ring_entries = n, .bgid = (uint16_t)group};
	int rc = io_uring_register_buf_ring(&l->ring, &reg, 0);

	if (rc < 0) {
		errno = -rc;
		floor_die("io_uring_register_buf_ring");
	}
	io_uring_buf_ring_init(ring);
	for (unsigned i = 0; i < n; i++)
		io_uring_buf_ring_add(ring, mem + (size_t)i * size, size, (uint16_t)i,
				      io_uring_buf_ring_mask(n), (int)i);
	io_uring_buf_ring_advance(ring, (int)n);
	return ring;
}

static bool has_read_multishot(struct loop *l)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&l->ring);
	bool has = probe && io_uring_opcode_supported(probe, OP_READ_MULTISHOT);

	io_uring_free_probe(probe);
	return has;
}

void loop_init(struct loop *l, int udp, int uffd, bool spin, bool yield)
{
	struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER |
					     IORING_SETUP_DEFER_TASKRUN |
					     IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
					     IORING_SETUP_CQSIZE,
				    .cq_entries = 2048};
	int fds[2] = {udp, uffd}, rc;

	memset(l, 0, sizeof(*l));
	l->spin = spin;
	l->yield = yield;
	l->uffd = uffd;
	l->with_uffd = uffd >= 0;
	rc = io_uring_queue_init_params(LOOP_SENDS, &l->ring, &p);
	if (rc == 0)
		rc = io_uring_register_files(&l->ring, fds, l->with_uffd ? 2 : 1);
	if (rc < 0) {
		errno = -rc;
		floor_die("io_uring");
	}
	io_uring_register_ring_fd(&l->ring);
	l->udp_mem = pages((size_t)LOOP_BUFFERS * FLOOR_BUFFER);
	l->udp_ring = buffer_ring(l, l->udp_mem, LOOP_BUFFERS, FLOOR_BUFFER, GROUP_UDP);
	l->receive.msg_namelen = sizeof(struct sockaddr_in);
	l->receive.msg_controllen = CMSG_SPACE(sizeof(int));
	if (!l->with_uffd)
		return;
	l->poll_uffd = !has_read_multishot(l);
	l->uffd_mem = pages(FLOOR_UFFD_BATCH * FLOOR_UFFD_BATCH * sizeof(struct uffd_msg));
	l->uffd_ring = buffer_ring(l, (uint8_t *)l->uffd_mem, FLOOR_UFFD_BATCH,
				   FLOOR_UFFD_BATCH * sizeof(struct uffd_msg), GROUP_UFFD);
}

void loop_fini(struct loop *l)
{
	io_uring_queue_exit(&l->ring);
	munmap(l->udp_mem, (size_t)LOOP_BUFFERS * FLOOR_BUFFER);
	munmap(l->udp_ring, LOOP_BUFFERS * sizeof(struct io_uring_buf));
	if (l->with_uffd) {
		munmap(l->uffd_mem, FLOOR_UFFD_BATCH * FLOOR_UFFD_BATCH * sizeof(struct uffd_msg));
		munmap(l->uffd_ring, FLOOR_UFFD_BATCH * sizeof(struct io_uring_buf));
	}
}

static struct io_uring_sqe *sqe(struct loop *l)
{
	struct io_uring_sqe *s = io_uring_get_sqe(&l->ring);

	if (!s) {
		io_uring_submit(&l->ring);
		s = io_uring_get_sqe(&l->ring);
	}
	if (!s)
		floor_die("io_uring: no submission entry");
	return s;
}

static void arm(struct loop *l)
{
	struct io_uring_sqe *s;

	if (!l->udp_armed) {
		s = sqe(l);
		io_uring_prep_recvmsg_multishot(s, 0, &l->receive, 0);
		s->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
		s->buf_group = GROUP_UDP;
		s->user_data = LOOP_DATAGRAMS;
		l->udp_armed = true;
	}
	if (l->with_uffd && !l->uffd_armed) {
		s = sqe(l);
		if (l->poll_uffd) {
			io_uring_prep_poll_multishot(s, 1, POLLIN);
			s->flags |= IOSQE_FIXED_FILE;
		} else {
			io_uring_prep_rw(OP_READ_MULTISHOT, s, 1, NULL, 0, 0);
			s->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
			s->buf_group = GROUP_UFFD;
		}
		s->user_data = LOOP_FAULTS;
		l->uffd_armed = true;
	}
}

void loop_wait(struct loop *l)
{
	int rc;

	arm(l);
	if (!l->spin) {
		rc = io_uring_submit_and_wait(&l->ring, 1);
		if (rc < 0 && rc != -EINTR) {
			errno = -rc;
			floor_die("io_uring_enter");
		}
		return;
	}
	if (io_uring_sq_ready(&l->ring) > 0)
		io_uring_submit_and_get_events(&l->ring);
	while (io_uring_cq_ready(&l->ring) == 0) {
		if (__atomic_load_n(l->ring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN)
			io_uring_get_events(&l->ring);
		else if (l->yield)
			sched_yield();
		else
			__builtin_ia32_pause();
	}
}

struct loop_send *loop_send_get(struct loop *l)
{
	return &l->send[l->next_send++ % LOOP_SENDS];
}

void loop_message(struct msghdr *msg, struct sockaddr_in *to, struct iovec *iov, unsigned n_iov,
		  uint64_t *control, uint16_t segment)
{
	struct cmsghdr *c;

	*msg = (struct msghdr){
		.msg_name = to, .msg_namelen = sizeof(*to), .msg_iov = iov, .msg_iovlen = n_iov};
	if (segment == 0)
		return;
	msg->msg_control = control;
	msg->msg_controllen = CMSG_SPACE(sizeof(segment));
	c = CMSG_FIRSTHDR(msg);
	c->cmsg_level = SOL_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof(segment));
	memcpy(CMSG_DATA(c), &segment, sizeof(segment));
}

void loop_send_fill(struct loop_send *send, const struct sockaddr_in *to, unsigned n_iov,
		    uint16_t segment)
{
	send->to = *to;
	loop_message(&send->msg, &send->to, send->iov, n_iov, send->control, segment);
}

void loop_send_headers(struct loop_send *send, const struct sockaddr_in *to, unsigned n)
{
	send->iov[0] = (struct iovec){send->header, n * FLOOR_HEADER};
	loop_send_fill(send, to, 1, n > 1 ? FLOOR_HEADER : 0);
}

void loop_submit(struct loop *l, struct loop_send *send)
{
	loop_submit_message(l, &send->msg);
}

void loop_submit_message(struct loop *l, struct msghdr *msg)
{
	struct io_uring_sqe *s = sqe(l);

	io_uring_prep_sendmsg(s, 0, msg, 0);
	s->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	s->user_data = LOOP_SENT;
}

void loop_ring_bell(struct loop *l, int fd)
{
	static const uint64_t one = 1;
	struct io_uring_sqe *s = sqe(l);

	io_uring_prep_write(s, fd, &one, sizeof(one), 0);
	s->flags |= IOSQE_CQE_SKIP_SUCCESS;
	s->user_data = LOOP_SENT;
}

bool loop_datagrams(struct loop *l, const struct io_uring_cqe *cqe, struct loop_batch *out)
{
	struct io_uring_recvmsg_out *o;
	struct cmsghdr *c;

	if (!(cqe->flags & IORING_CQE_F_MORE))
		l->udp_armed = false;
	if (cqe->res == -ENOBUFS)
		return false;
	if (cqe->res < 0) {
		errno = -cqe->res;
		floor_die("recvmsg");
	}
	o = io_uring_recvmsg_validate(l->udp_mem + (size_t)(cqe->flags >> 16) * FLOOR_BUFFER,
				      cqe->res, &l->receive);
	if (!o)
		floor_die("recvmsg: malformed");
	out->data = io_uring_recvmsg_payload(o, &l->receive);
	out->len = io_uring_recvmsg_payload_length(o, cqe->res, &l->receive);
	out->segment = out->len;
	memcpy(&out->from, io_uring_recvmsg_name(o), sizeof(out->from));
	for (c = io_uring_recvmsg_cmsg_firsthdr(o, &l->receive); c;
	     c = io_uring_recvmsg_cmsg_nexthdr(o, &l->receive, c))
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
			int segment;

			memcpy(&segment, CMSG_DATA(c), sizeof(segment));
			out->segment = (size_t)segment;
		}
	return true;
}

unsigned loop_faults(struct loop *l, const struct io_uring_cqe *cqe, const struct uffd_msg **out)
{
	ssize_t n = cqe->res;

	if (!(cqe->flags & IORING_CQE_F_MORE))
		l->uffd_armed = false;
	if (n == -ENOBUFS)
		return 0;
	*out = l->uffd_mem;
	if (n >= 0 && l->poll_uffd)
		n = read(l->uffd, l->uffd_mem, FLOOR_UFFD_BATCH * sizeof(struct uffd_msg));
	else
		*out += (cqe->flags >> 16) * FLOOR_UFFD_BATCH;
	if (n < 0 && l->poll_uffd && errno == EAGAIN)
		return 0;
	if (n < 0) {
		errno = cqe->res < 0 ? -cqe->res : errno;
		floor_die("userfaultfd");
	}
	return (unsigned)((size_t)n / sizeof(struct uffd_msg));
}

void loop_recycle(struct loop *l, const struct io_uring_cqe *cqe)
{
	uint16_t id = (uint16_t)(cqe->flags >> 16);

	if (!(cqe->flags & IORING_CQE_F_BUFFER))
		return;
	if (cqe->user_data == LOOP_DATAGRAMS) {
		io_uring_buf_ring_add(l->udp_ring, l->udp_mem + (size_t)id * FLOOR_BUFFER,
				      FLOOR_BUFFER, id, io_uring_buf_ring_mask(LOOP_BUFFERS), 0);
		io_uring_buf_ring_advance(l->udp_ring, 1);
	} else {
		io_uring_buf_ring_add(l->uffd_ring, l->uffd_mem + id * FLOOR_UFFD_BATCH,
				      FLOOR_UFFD_BATCH * sizeof(struct uffd_msg), id,
				      io_uring_buf_ring_mask(FLOOR_UFFD_BATCH), 0);
		io_uring_buf_ring_advance(l->uffd_ring, 1);
	}
}
