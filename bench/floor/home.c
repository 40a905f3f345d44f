/* H: answers every request at once. It keeps no state about who has what. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "floor.h"
#include "loop.h"

static uint64_t *store; /* [pages][512] */

static void fill_store(uint64_t pages)
{
	store = mmap(NULL, pages * FLOOR_PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (store == MAP_FAILED)
		floor_die("no memory for the home's pages");
	for (uint64_t page = 0; page < pages; page++)
		for (unsigned word = 0; word < 512; word++)
			store[page * 512 + word] = floor_pattern(page, word);
}

/* Makes send the answer that carries a page: three segments, two of them full. */
static void answer_page(struct loop_send *send, const struct sockaddr_in *to,
			const struct floor_header *request)
{
	uint8_t *page = (uint8_t *)(store + request->page * 512);

	for (uint32_t i = 0; i < FLOOR_SEGMENTS; i++) {
		uint32_t offset = i * FLOOR_SEGMENT, left = FLOOR_PAGE - offset;
		struct floor_header *header = &send->header[i];

		*header = (struct floor_header){.op = request->op,
						.length = left < FLOOR_SEGMENT ? left
									       : FLOOR_SEGMENT,
						.offset = offset,
						.total = FLOOR_PAGE,
						.page = request->page};
		floor_seal(header, page + offset);
		send->iov[2 * i] = (struct iovec){header, FLOOR_HEADER};
		send->iov[2 * i + 1] = (struct iovec){page + offset, header->length};
	}
	loop_send_fill(send, to, 2 * FLOOR_SEGMENTS, FLOOR_HEADER + FLOOR_SEGMENT);
}

static void answer_header(struct floor_header *header, const struct floor_header *request)
{
	*header = (struct floor_header){.op = request->op, .page = request->page};
	floor_seal(header, NULL);
}

static bool wants_page(const struct floor_header *request)
{
	return request->op == FLOOR_READ || request->op == FLOOR_WRITE;
}

/* Checks a request; the page number must be one the store has. */
static const struct floor_header *request_of(const struct floor_options *o, const uint8_t *data,
					     size_t len)
{
	const struct floor_header *request = floor_open(data, len, NULL);

	if (!request || request->length != 0 || request->page >= o->pages) {
		errno = EBADMSG;
		floor_die("home: damaged request");
	}
	return request;
}

/* Answers all requests of a GRO batch; headers of one batch leave together. */
static void serve_batch(struct loop *l, const struct floor_options *o, const struct loop_batch *b)
{
	struct loop_send *headers = NULL;
	unsigned n = 0;

	for (size_t at = 0; at < b->len; at += b->segment) {
		size_t len = b->len - at < b->segment ? b->len - at : b->segment;
		const struct floor_header *request = request_of(o, b->data + at, len);

		if (wants_page(request)) {
			struct loop_send *send = loop_send_get(l);

			answer_page(send, &b->from, request);
			loop_submit(l, send);
			continue;
		}
		if (n == 0)
			headers = loop_send_get(l);
		answer_header(&headers->header[n++], request);
		if (n == FLOOR_UFFD_BATCH) {
			loop_send_headers(headers, &b->from, n);
			loop_submit(l, headers);
			n = 0;
		}
	}
	if (n > 0) {
		loop_send_headers(headers, &b->from, n);
		loop_submit(l, headers);
	}
}

static void serve_by_ring(const struct floor_options *o, int fd)
{
	static struct loop loop;

	loop_init(&loop, fd, -1, o->spin, floor_must_yield(o->core_h, o->core_a, o->core_m));
	for (;;) {
		struct io_uring_cqe *cqe;
		struct loop_batch batch;
		unsigned head, n = 0;

		loop_wait(&loop);
		io_uring_for_each_cqe (&loop.ring, head, cqe) {
			n++;
			if (cqe->user_data == LOOP_DATAGRAMS && loop_datagrams(&loop, cqe, &batch))
				serve_batch(&loop, o, &batch);
			else if (cqe->user_data == LOOP_SENT && cqe->res < 0) {
				errno = -cqe->res;
				floor_die("home: sendmsg");
			}
			loop_recycle(&loop, cqe);
		}
		io_uring_cq_advance(&loop.ring, n);
	}
}

static void serve_by_blocking(const struct floor_options *o, int fd)
{
	static struct loop_send send;
	static uint8_t data[FLOOR_BUFFER];

	for (;;) {
		struct sockaddr_in from;
		socklen_t from_len = sizeof(from);
		ssize_t n = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from,
				     &from_len);

		if (n < 0)
			floor_die("home: recvfrom");
		/* Requests are all of one size: a merged batch needs no control message. */
		for (ssize_t at = 0; at < n; at += FLOOR_HEADER) {
			const struct floor_header *request = request_of(o, data + at, FLOOR_HEADER);

			if (wants_page(request)) {
				answer_page(&send, &from, request);
			} else {
				answer_header(&send.header[0], request);
				loop_send_headers(&send, &from, 1);
			}
			if (sendmsg(fd, &send.msg, 0) < 0)
				floor_die("home: sendmsg");
		}
	}
}

void floor_home(const struct floor_options *o, const struct floor_shared *shared, int fd)
{
	floor_pin(o->core_h);
	fill_store(o->pages);
	if (o->blocking)
		serve_by_blocking(o, fd);
	serve_by_ring(o, fd);
	_exit(0);
}
