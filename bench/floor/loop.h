/*
 * io_uring as WaveVM's runtime uses it: SINGLE_ISSUER, DEFER_TASKRUN and
 * COOP_TASKRUN, registered files, multishot operations into provided buffers,
 * one io_uring_enter per turn.
 */
#ifndef WVM_FLOOR_LOOP_H
#define WVM_FLOOR_LOOP_H

#include <liburing.h>
#include <linux/userfaultfd.h>
#include <sys/socket.h>

#include "floor.h"

#define LOOP_BUFFERS 64u /* of FLOOR_BUFFER bytes, for datagrams */
#define LOOP_SENDS   256u

enum loop_event { LOOP_DATAGRAMS = 1, LOOP_FAULTS, LOOP_SENT };

/* One sendmsg in flight. */
struct loop_send {
	struct msghdr msg;
	struct iovec iov[2 * FLOOR_SEGMENTS];
	struct sockaddr_in to;
	uint64_t control[CMSG_SPACE(sizeof(uint16_t)) / sizeof(uint64_t)]; /* aligned for cmsghdr */
	struct floor_header header[FLOOR_UFFD_BATCH];
};

struct loop {
	struct io_uring ring;
	struct io_uring_buf_ring *udp_ring, *uffd_ring;
	uint8_t *udp_mem;
	struct uffd_msg *uffd_mem; /* [FLOOR_UFFD_BATCH][FLOOR_UFFD_BATCH] */
	struct msghdr receive;     /* what the multishot receive asks for */
	bool with_uffd, udp_armed, uffd_armed, spin, yield;
	bool poll_uffd; /* the kernel has no READ_MULTISHOT: poll and read */
	int uffd;
	struct loop_send send[LOOP_SENDS]; /* used round robin: far more than can be in flight */
	unsigned next_send;
};

/* udp and uffd (-1: none) are registered as files 0 and 1. */
void loop_init(struct loop *l, int udp, int uffd, bool spin, bool yield);
void loop_fini(struct loop *l);

/* Arms what is not armed, submits, and waits (or spins) for at least one completion. */
void loop_wait(struct loop *l);

/* A free send. */
struct loop_send *loop_send_get(struct loop *l);

/* Makes send a message to `to` of iov[0 .. n_iov), cut into segments of that size (0: not cut). */
void loop_send_fill(struct loop_send *send, const struct sockaddr_in *to, unsigned n_iov,
		    uint16_t segment);

/* Makes send a message of its first n headers, each a datagram of its own. */
void loop_send_headers(struct loop_send *send, const struct sockaddr_in *to, unsigned n);

/* Queues a filled send: it leaves with the next loop_wait(). */
void loop_submit(struct loop *l, struct loop_send *send);

/* The two for messages that the caller keeps: until they have left, at the earliest. */
void loop_message(struct msghdr *msg, struct sockaddr_in *to, struct iovec *iov, unsigned n_iov,
		  uint64_t *control, uint16_t segment);
void loop_submit_message(struct loop *l, struct msghdr *msg);

/* Queues a ring of an eventfd. */
void loop_ring_bell(struct loop *l, int fd);

/* A GRO batch: the bytes, and the size of each datagram but the last. */
struct loop_batch {
	const uint8_t *data;
	size_t len, segment;
	struct sockaddr_in from;
};

/* Takes apart a completion of LOOP_DATAGRAMS. False: it brought none (the receive has to be
 * armed again). Ends the program on an error. */
bool loop_datagrams(struct loop *l, const struct io_uring_cqe *cqe, struct loop_batch *out);

/* The same for LOOP_FAULTS: returns the number of messages at *out. */
unsigned loop_faults(struct loop *l, const struct io_uring_cqe *cqe, const struct uffd_msg **out);

/* Gives the buffer of a completion back. */
void loop_recycle(struct loop *l, const struct io_uring_cqe *cqe);

#endif
