/*
 * The rings between two processes that do not trust each other: one end is
 * ours, the memory is the fuzzer's, and changes between any two of our accesses
 * to it. Nothing outside of the ring is touched, every result is a documented
 * one, and a ring whose memory nobody disturbs is a queue.
 */
#include <errno.h>

#include "shared/fuzz/fuzz.h"
#include "shared/fuzz/torn.h"

#define STEPS_MAX  256u
#define QUEUE_MAX  64u
#define WRITES_MAX 16u
#define LINE       WVM_SPSC_LINE

/* What the hostile side writes, and after how many of our accesses. */
static struct hostile {
	struct fuzz_in *in;
	uint8_t *mem;
	size_t bytes;
	unsigned left; /* writes; 0: it keeps still */
	unsigned wait; /* accesses until the next */
} hostile;

/* Values that mean something are more likely than others. */
static uint64_t some_value(struct fuzz_in *in)
{
	uint8_t how = fuzz_u8(in);

	switch (how % 8) {
	case 0: return UINT64_MAX;
	case 1: return (uint64_t)1 << (how >> 3);
	case 2: return UINT64_C(0xffffffff00000000) | how;
	case 3: return (uint64_t)(how >> 3) * 8;
	case 4: return fuzz_u64(in);
	case 5: return fuzz_u16(in);
	case 6: return (uint64_t)WVM_SPSC_PAD << 32 | (uint64_t)(how >> 3) * 8;
	default: return 0;
	}
}

static void hostile_write(struct hostile *h)
{
	uint16_t where = fuzz_u16(h->in);
	uint64_t value = some_value(h->in);
	size_t at = where % (h->bytes - 7);

	/* The positions, or a word of the data. */
	if (where % 5 == 0)
		at = 0;
	else if (where % 5 == 1)
		at = LINE;
	else
		at &= ~(size_t)7;
	(memcpy)(h->mem + at, &value, sizeof(value));
	h->wait = fuzz_u8(h->in) % 8;
}

static void fuzz_torn(void)
{
	if (!hostile.left || hostile.wait-- > 0)
		return;
	hostile.left--;
	hostile_write(&hostile);
}

/* 64-aligned memory of exactly the size, so that the sanitizer sees what lies beside it. */
static uint8_t *ring_memory(size_t bytes)
{
	void *p;

	FUZZ_CHECK(!posix_memalign(&p, LINE, bytes), "memory");
	memset(p, 0, bytes);
	return p;
}

/* ---- both ends ours: a queue ------------------------------------------------------------- */

struct model {
	struct {
		uint32_t type, len;
		uint8_t fill;
	} entry[QUEUE_MAX];
	unsigned head, tail;
};

static void model_push(struct model *q, struct wvm_spsc_tx *tx, struct fuzz_in *in, uint8_t *body)
{
	uint32_t len = fuzz_u16(in) % (wvm_spsc_body_max(tx->capacity) + 8), a;
	uint32_t type = fuzz_u8(in);
	uint8_t fill = (uint8_t)(q->tail + 1);
	int rc;

	if (q->tail - q->head == QUEUE_MAX)
		return;
	memset(body, fill, len);
	a = len ? fuzz_u8(in) % (len + 1) : 0;
	rc = wvm_spsc_push2(tx, type, body, a, body + a, len - a);
	if (len > wvm_spsc_body_max(tx->capacity)) {
		FUZZ_CHECK(rc == -EMSGSIZE, "%d", rc);
		return;
	}
	FUZZ_CHECK(rc == 0 || (rc == -EAGAIN && q->head != q->tail), "push: %d", rc);
	if (rc)
		return;
	q->entry[q->tail % QUEUE_MAX].type = type;
	q->entry[q->tail % QUEUE_MAX].len = len;
	q->entry[q->tail++ % QUEUE_MAX].fill = fill;
}

static void model_pop(struct model *q, struct wvm_spsc_rx *rx, struct fuzz_in *in)
{
	uint32_t room = fuzz_u16(in) % (wvm_spsc_body_max(rx->capacity) + 1), type = 0;
	uint8_t *buf = malloc(room);
	int rc = wvm_spsc_pop(rx, &type, buf, room);
	unsigned i = q->head % QUEUE_MAX;

	if (q->head == q->tail) {
		FUZZ_CHECK(rc == -EAGAIN, "empty, but %d", rc);
	} else {
		FUZZ_CHECK(rc == (q->entry[i].len > room ? -EMSGSIZE : (int)q->entry[i].len),
			   "pop: %d", rc);
		FUZZ_CHECK(type == q->entry[i].type, "type %u", type);
		for (int k = 0; k < rc; k++)
			FUZZ_CHECK(buf[k] == q->entry[i].fill, "byte %d", k);
		q->head++;
	}
	free(buf);
}

static void queue(struct fuzz_in *in, uint8_t *mem, uint32_t capacity)
{
	uint8_t *body = malloc(wvm_spsc_body_max(capacity) + 8);
	struct model q = {.head = 0};
	struct wvm_spsc_tx tx;
	struct wvm_spsc_rx rx;

	FUZZ_CHECK(!wvm_spsc_init(mem, capacity) && !wvm_spsc_open_tx(&tx, mem, capacity) &&
			   !wvm_spsc_open_rx(&rx, mem, capacity),
		   "capacity %u", capacity);
	for (unsigned i = 0; i < STEPS_MAX && in->left; i++) {
		switch (fuzz_u8(in) % 8) {
		case 0: /* either end dies and is opened again */
			FUZZ_CHECK(!wvm_spsc_open_tx(&tx, mem, capacity), "open again");
			break;
		case 1: FUZZ_CHECK(!wvm_spsc_open_rx(&rx, mem, capacity), "open again"); break;
		case 2:
		case 3:
		case 4: model_pop(&q, &rx, in); break;
		default: model_push(&q, &tx, in, body); break;
		}
		FUZZ_CHECK(wvm_spsc_room(&tx) <= capacity, "room");
	}
	while (q.head != q.tail)
		model_pop(&q, &rx, in);
	free(body);
}

/* ---- one end hostile --------------------------------------------------------------------- */

static void consume_hostile(struct fuzz_in *in, struct wvm_spsc_rx *rx)
{
	uint32_t room = fuzz_u16(in) % (rx->capacity + 1), type = 0;
	uint64_t before = rx->head;
	uint8_t *buf = malloc(room);
	int rc = wvm_spsc_pop(rx, &type, buf, room);

	FUZZ_CHECK(rc == -EAGAIN || rc == -EMSGSIZE || rc == -EPROTO ||
			   (rc >= 0 && (uint32_t)rc <= room &&
			    (uint32_t)rc <= wvm_spsc_body_max(rx->capacity)),
		   "pop: %d", rc);
	FUZZ_CHECK(rx->head >= before && rx->head - before <= 2 * (uint64_t)rx->capacity &&
			   rx->head % 8 == 0,
		   "head moved by %ld", (long)(rx->head - before));
	FUZZ_CHECK(rc < 0 || rx->head > before, "taken, but not consumed");
	free(buf);
}

static void produce_hostile(struct fuzz_in *in, struct wvm_spsc_tx *tx)
{
	uint32_t max = wvm_spsc_body_max(tx->capacity), len = fuzz_u16(in) % (max + 2);
	uint8_t *body = calloc(1, len ? len : 1);
	uint64_t before = tx->tail;
	uint32_t a;
	int rc;

	a = len ? fuzz_u8(in) % (len + 1) : 0;
	rc = wvm_spsc_push2(tx, fuzz_u8(in), body, a, body + a, len - a);
	FUZZ_CHECK(rc == 0 || rc == -EAGAIN || rc == -EPROTO || (rc == -EMSGSIZE && len > max),
		   "push: %d", rc);
	FUZZ_CHECK(tx->tail - before <= 2 * (uint64_t)tx->capacity && (rc || tx->tail > before),
		   "tail");
	FUZZ_CHECK(tx->tail - tx->head_cached <= tx->capacity, "never more than the ring");
	FUZZ_CHECK(wvm_spsc_room(tx) <= tx->capacity, "room");
	free(body);
}

static void disturbed(struct fuzz_in *in, uint8_t *mem, uint32_t capacity, bool consumer)
{
	struct wvm_spsc_tx tx;
	struct wvm_spsc_rx rx;
	bool open = false;

	fuzz_bytes(in, mem, fuzz_u8(in) % 2 ? wvm_spsc_bytes(capacity) / 2 : 0);
	for (unsigned i = 0; i < STEPS_MAX && in->left; i++) {
		hostile.left = fuzz_u8(in) % WRITES_MAX;
		hostile.wait = fuzz_u8(in) % 8;
		if (!open) {
			int rc = consumer ? wvm_spsc_open_rx(&rx, mem, capacity)
					  : wvm_spsc_open_tx(&tx, mem, capacity);

			FUZZ_CHECK(rc == 0 || rc == -EPROTO, "open: %d", rc);
			open = !rc;
		} else if (consumer) {
			consume_hostile(in, &rx);
		} else {
			produce_hostile(in, &tx);
		}
		open &= fuzz_u8(in) % 32 != 31;
	}
	hostile.left = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	uint8_t how = fuzz_u8(&in);
	uint32_t capacity = 64u << how / 4 % 5;
	size_t bytes = wvm_spsc_bytes(capacity);
	uint8_t *mem = ring_memory(bytes);

	hostile = (struct hostile){.in = &in, .mem = mem, .bytes = bytes};
	switch (how % 4) {
	case 0: queue(&in, mem, capacity); break;
	case 1: disturbed(&in, mem, capacity, false); break;
	default: disturbed(&in, mem, capacity, true); break;
	}
	free(mem);
	return 0;
}

/* ---- seeds ------------------------------------------------------------------------------- */

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	/* how, then per step: op and its numbers (see the functions above) */
	static const uint8_t queue_of_64[] = {0, 5, 10, 0, 1, 3, 5, 12, 0, 2, 0, 2,  20, 0,
					      2, 9, 0,  5, 8, 0, 5, 4,  0, 1, 2, 30, 0};
	static const uint8_t queue_of_1024[] = {16, 5, 200, 1, 7, 9,  5, 190, 1, 8, 0,   0,
						1,  2, 255, 1, 5, 40, 0, 1,   1, 2, 255, 1};
	static const uint8_t torn_length[] = {2, 0,    0, 0,  0, 4, 1, 130, 0, 0x83, 2, 130,
					      0, 0x8b, 1, 64, 0, 1, 0, 3,   2, 130,  0, 0};
	static const uint8_t torn_head[] = {1, 0, 0, 0, 0, 3, 2,    1, 0, 0, 1, 6, 0, 3, 24,
					    1, 0, 2, 1, 6, 0, 0x53, 1, 9, 0, 4, 2, 7, 7, 1};

	/* Ours is the consumer; its head stands 8 bytes before the end, and a record of 32 there.
	 */
	static uint8_t beyond[128] = {2, 1};
	static const uint8_t steps[] = {1, 0, 184, 0, 5, 32, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 64};

	beyond[2 + 64] = 56;
	memcpy(beyond + 2 + 96, steps, sizeof(steps));
	put("beyond-the-end", beyond, 2 + 96 + sizeof(steps));
	put("queue-64", queue_of_64, sizeof(queue_of_64));
	put("queue-1024", queue_of_1024, sizeof(queue_of_1024));
	put("torn-length", torn_length, sizeof(torn_length));
	put("torn-head", torn_head, sizeof(torn_head));
}
