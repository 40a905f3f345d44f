/*
 * The floor of a bulk transfer: the home sends memory of its own as one stream of
 * datagrams, each with a header and its checksum, cut by UDP_SEGMENT as long as an IP
 * datagram can be; the receiver takes GRO batches, checks each segment and copies it to its place.
 * No page, no directory, no loss: a window keeps the stream within the socket's buffer.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "floor.h"
#include "loop.h"
#include "place.h"
#include "shared/crc32c.h"
#include "stream.h"

#define BATCH_SEGMENTS 44u /* of FLOOR_HEADER + FLOOR_SEGMENT bytes: 64,768 of 65,507 */
#define BATCH_BYTES    (BATCH_SEGMENTS * FLOOR_SEGMENT)
#define WINDOW         (32u * BATCH_BYTES) /* bytes that are not acknowledged */
#define ACK_EVERY      (WINDOW / 4)
#define BATCHES        64u /* more than the window: what is reused has arrived */
#define SOCKET_BYTES   (16 << 20)

struct batch {
	struct msghdr msg;
	struct iovec iov[2 * BATCH_SEGMENTS];
	struct floor_header header[BATCH_SEGMENTS];
	uint64_t control[CMSG_SPACE(sizeof(uint16_t)) / sizeof(uint64_t)];
};

struct sender {
	const struct floor_options *o;
	struct loop loop;
	struct batch batch[BATCHES];
	unsigned next;
	uint8_t *memory;
	uint64_t bytes, sent, acked;
	struct sockaddr_in to;
	bool started;
};

static uint8_t *stream_memory(uint64_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		floor_die("no memory for the stream");
	madvise(at, bytes, MADV_NOHUGEPAGE);
	madvise(at, bytes, MADV_DONTFORK);
	for (uint64_t i = 0; i < bytes; i += FLOOR_PAGE)
		((volatile uint8_t *)at)[i] = 0;
	return at;
}

static void make_room(int fd)
{
	int room = SOCKET_BYTES;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0)
		floor_die("socket buffers (needs root)");
}

/* Fills b with the next bytes of the stream, and its message with b. */
static void fill(struct sender *s, struct batch *b)
{
	unsigned n = 0;

	for (; n < BATCH_SEGMENTS && s->sent < s->bytes; n++) {
		uint64_t left = s->bytes - s->sent;
		struct floor_header *header = &b->header[n];

		*header = (struct floor_header){.op = FLOOR_READ,
						.length = left < FLOOR_SEGMENT ? (uint16_t)left
									       : FLOOR_SEGMENT,
						.page = s->sent};
		if (!s->o->raw)
			floor_seal(header, s->memory + s->sent);
		b->iov[2 * n] = (struct iovec){header, FLOOR_HEADER};
		b->iov[2 * n + 1] = (struct iovec){s->memory + s->sent, header->length};
		s->sent += header->length;
	}
	loop_message(&b->msg, &s->to, b->iov, 2 * n, b->control, FLOOR_HEADER + FLOOR_SEGMENT);
}

static void send_what_the_window_takes(struct sender *s)
{
	while (s->started && s->sent < s->bytes && s->sent + BATCH_BYTES <= s->acked + WINDOW) {
		struct batch *b = &s->batch[s->next++ % BATCHES];

		fill(s, b);
		loop_submit_message(&s->loop, &b->msg);
	}
}

static void say_ready(struct sender *s)
{
	struct loop_send *send = loop_send_get(&s->loop);

	send->header[0] = (struct floor_header){.op = FLOOR_ZERO};
	floor_seal(&send->header[0], NULL);
	loop_send_headers(send, &s->to, 1);
	loop_submit(&s->loop, send);
}

static void on_ack(struct sender *s, const struct loop_batch *b)
{
	for (size_t at = 0; at < b->len; at += FLOOR_HEADER) {
		const struct floor_header *ack = floor_open(b->data + at, FLOOR_HEADER, NULL);

		if (!ack || ack->page > s->sent) {
			errno = EBADMSG;
			floor_die("stream: damaged acknowledgement");
		}
		s->to = b->from;
		if (ack->op == FLOOR_ZERO)
			say_ready(s);
		else
			s->started = true;
		s->acked = ack->page > s->acked ? ack->page : s->acked;
	}
}

static void stream_home(const struct floor_options *o, int fd)
{
	static struct sender s;

	floor_pin(o->core_h);
	make_room(fd);
	s.o = o;
	s.bytes = o->stream_bytes;
	s.memory = stream_memory(s.bytes);
	for (uint64_t i = 0; i < s.bytes / 8; i++)
		((uint64_t *)s.memory)[i] = floor_pattern(i / 512, i % 512);
	loop_init(&s.loop, fd, -1, o->spin, floor_must_yield(o->core_h, o->core_m, -1));
	for (;;) {
		struct io_uring_cqe *cqe;
		struct loop_batch batch;
		unsigned head, n = 0;

		send_what_the_window_takes(&s);
		loop_wait(&s.loop);
		io_uring_for_each_cqe (&s.loop.ring, head, cqe) {
			n++;
			if (cqe->user_data == LOOP_DATAGRAMS &&
			    loop_datagrams(&s.loop, cqe, &batch))
				on_ack(&s, &batch);
			else if (cqe->user_data == LOOP_SENT && cqe->res < 0) {
				errno = -cqe->res;
				floor_die("stream: sendmsg");
			}
			loop_recycle(&s.loop, cqe);
		}
		io_uring_cq_advance(&s.loop.ring, n);
	}
}

struct receiver {
	const struct floor_options *o;
	struct loop loop;
	uint8_t *memory; /* but where o->place says to which file */
	struct place place;
	uint64_t bytes, have, acked;
	bool ready; /* the home's memory is filled */
	struct sockaddr_in home;
};

static uint8_t *destination(struct receiver *r)
{
	return r->o->place ? place_for(&r->place, r->have) : r->memory + r->have;
}

static void take(struct receiver *r, const uint8_t *data, size_t len)
{
	struct floor_header header;
	uint32_t crc;

	errno = EBADMSG;
	if (len < sizeof(header))
		floor_die("stream: short datagram");
	memcpy(&header, data, sizeof(header));
	if (len != sizeof(header) + header.length || header.page != r->have ||
	    header.length > r->bytes - r->have)
		floor_die("stream: a datagram is missing or damaged");
	r->ready |= header.op == FLOOR_ZERO;
	if (!r->o->raw) {
		crc = header.crc;
		header.crc = 0;
		if (wvm_crc32c_copy(wvm_crc32c(0, &header, sizeof(header)), destination(r),
				    data + sizeof(header), header.length) != crc)
			floor_die("stream: damaged datagram");
	}
	r->have += header.length;
	if (r->o->place)
		place_have(&r->place, r->have);
}

static void acknowledge(struct receiver *r, enum floor_op op)
{
	struct loop_send *send = loop_send_get(&r->loop);

	send->header[0] = (struct floor_header){.op = (uint16_t)op, .page = r->have};
	floor_seal(&send->header[0], NULL);
	loop_send_headers(send, &r->home, 1);
	loop_submit(&r->loop, send);
	r->acked = r->have;
}

static void receive(struct receiver *r)
{
	struct io_uring_cqe *cqe;
	struct loop_batch b;
	unsigned head, n = 0;

	loop_wait(&r->loop);
	io_uring_for_each_cqe (&r->loop.ring, head, cqe) {
		n++;
		if (cqe->user_data == LOOP_DATAGRAMS && loop_datagrams(&r->loop, cqe, &b))
			for (size_t at = 0; at < b.len; at += b.segment)
				take(r, b.data + at,
				     b.len - at < b.segment ? b.len - at : b.segment);
		else if (cqe->user_data == LOOP_SENT && cqe->res < 0) {
			errno = -cqe->res;
			floor_die("stream: sendmsg");
		}
		loop_recycle(&r->loop, cqe);
	}
	io_uring_cq_advance(&r->loop.ring, n);
	if (r->have - r->acked >= ACK_EVERY)
		acknowledge(r, FLOOR_READ);
}

static void verify(const struct receiver *r)
{
	const uint64_t *words = (const void *)(r->o->place ? r->place.mapping : r->memory);

	errno = EBADMSG;
	for (uint64_t i = 0; !r->o->raw && i < r->bytes / 8; i++)
		if (words[i] != floor_pattern(i / 512, i % 512))
			floor_die("stream: a word is wrong");
}

void floor_stream(const struct floor_options *o)
{
	const char *kind = o->raw     ? "raw"
			   : o->huge  ? "placed huge"
			   : o->place ? "placed"
				      : "checked";
	static struct receiver r = {.o = NULL};
	uint64_t began, ended;
	pid_t home;
	int fd;

	fd = floor_socket(&r.home);
	home = floor_spawn();
	if (home == 0)
		stream_home(o, fd);
	close(fd);
	floor_pin(o->core_m);
	r.o = o;
	r.bytes = o->stream_bytes;
	if (o->place)
		place_open(&r.place, r.bytes, o->huge);
	else
		r.memory = stream_memory(r.bytes);
	fd = floor_socket(&(struct sockaddr_in){0});
	make_room(fd);
	loop_init(&r.loop, fd, -1, o->spin, floor_must_yield(o->core_m, o->core_h, -1));
	acknowledge(&r, FLOOR_ZERO);
	while (!r.ready)
		receive(&r);
	began = floor_now();
	acknowledge(&r, FLOOR_READ);
	while (r.have < r.bytes)
		receive(&r);
	ended = floor_now();
	verify(&r);
	signal(SIGCHLD, SIG_DFL);
	kill(home, SIGKILL);
	waitpid(home, NULL, 0);
	if (o->json)
		printf("{\"program\": \"wvm_floor\", \"stream\": \"%s\", \"bytes\": %llu, "
		       "\"seconds\": %.9f}\n",
		       kind, (unsigned long long)r.bytes, (double)(ended - began) / 1e9);
	else
		printf("stream (%s) %llu MiB in %.3f s: %.1f MiB/s\n", kind,
		       (unsigned long long)(r.bytes >> 20), (double)(ended - began) / 1e9,
		       (double)(r.bytes >> 20) / ((double)(ended - began) / 1e9));
}
