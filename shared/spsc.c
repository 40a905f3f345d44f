#include "shared/spsc.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define ALIGN 8u

static uint32_t align_up(uint32_t n)
{
	return (n + ALIGN - 1) & ~(ALIGN - 1);
}

size_t wvm_spsc_bytes(uint32_t capacity)
{
	if (capacity < 64 || capacity > 1u << 30 || (capacity & (capacity - 1)))
		return 0;
	return sizeof(struct wvm_spsc_mem) + capacity;
}

/* A record and the padding before it fit together into an empty ring. */
uint32_t wvm_spsc_body_max(uint32_t capacity)
{
	return capacity / 2 - WVM_SPSC_HDR;
}

int wvm_spsc_init(void *mem, uint32_t capacity)
{
	size_t bytes = wvm_spsc_bytes(capacity);

	if (!bytes || !mem || (uintptr_t)mem % WVM_SPSC_LINE)
		return -EINVAL;
	memset(mem, 0, bytes);
	return 0;
}

static uint32_t load_length(const struct wvm_spsc_mem *m, uint32_t at)
{
	return __atomic_load_n((const uint32_t *)(const void *)(m->data + at), __ATOMIC_ACQUIRE);
}

static void store_length(struct wvm_spsc_mem *m, uint32_t at, uint32_t length)
{
	__atomic_store_n((uint32_t *)(void *)(m->data + at), length, __ATOMIC_RELEASE);
}

static bool positions_ok(uint64_t head, uint64_t tail, uint32_t capacity)
{
	return head <= tail && tail - head <= capacity && head % ALIGN == 0 && tail % ALIGN == 0;
}

/*
 * The length of the record at a position, 0 when none is committed there;
 * -EPROTO when it cannot be one.
 */
static int64_t record_at(const struct wvm_spsc_mem *m, uint32_t capacity, uint64_t pos,
			 uint32_t *type)
{
	uint32_t at = (uint32_t)(pos & (capacity - 1)), left = capacity - at;
	uint32_t length = load_length(m, at);

	if (!length)
		return 0;
	memcpy(type, m->data + at + 4, sizeof(*type));
	if (*type == WVM_SPSC_PAD)
		return length == left && at ? (int64_t)length : -EPROTO;
	if (length < WVM_SPSC_HDR || length > WVM_SPSC_HDR + wvm_spsc_body_max(capacity) ||
	    align_up(length) > left)
		return -EPROTO;
	return length;
}

int wvm_spsc_open_tx(struct wvm_spsc_tx *tx, void *mem, uint32_t capacity)
{
	struct wvm_spsc_mem *m = mem;
	uint64_t head, tail;
	uint32_t type;
	int64_t length;

	if (!wvm_spsc_bytes(capacity) || !mem || (uintptr_t)mem % WVM_SPSC_LINE)
		return -EINVAL;
	head = __atomic_load_n(&m->head, __ATOMIC_ACQUIRE);
	tail = __atomic_load_n(&m->tail, __ATOMIC_ACQUIRE);
	if (!positions_ok(head, tail, capacity))
		return -EPROTO;
	/* A producer that died between length and tail left records that stand. */
	while (tail - head < capacity && (length = record_at(m, capacity, tail, &type)) != 0) {
		if (length < 0)
			return -EPROTO;
		tail += align_up((uint32_t)length);
	}
	if (!positions_ok(head, tail, capacity))
		return -EPROTO;
	*tx = (struct wvm_spsc_tx){
		.mem = m, .capacity = capacity, .tail = tail, .head_cached = head};
	return 0;
}

int wvm_spsc_open_rx(struct wvm_spsc_rx *rx, void *mem, uint32_t capacity)
{
	struct wvm_spsc_mem *m = mem;
	uint64_t head;

	if (!wvm_spsc_bytes(capacity) || !mem || (uintptr_t)mem % WVM_SPSC_LINE)
		return -EINVAL;
	head = __atomic_load_n(&m->head, __ATOMIC_ACQUIRE);
	if (head % ALIGN)
		return -EPROTO;
	*rx = (struct wvm_spsc_rx){.mem = m, .capacity = capacity, .head = head};
	return 0;
}

/* Takes the consumer's head over, if it is one that can be. */
static int refresh_head(struct wvm_spsc_tx *tx)
{
	uint64_t head = __atomic_load_n(&tx->mem->head, __ATOMIC_ACQUIRE);

	if (!positions_ok(head, tx->tail, tx->capacity) || head < tx->head_cached)
		return -EPROTO;
	tx->head_cached = head;
	return 0;
}

uint32_t wvm_spsc_room(struct wvm_spsc_tx *tx)
{
	if (refresh_head(tx))
		return 0;
	return tx->capacity - (uint32_t)(tx->tail - tx->head_cached);
}

static void put_header(struct wvm_spsc_tx *tx, uint32_t length, uint32_t type)
{
	uint32_t at = (uint32_t)(tx->tail & (tx->capacity - 1));

	memcpy(tx->mem->data + at + 4, &type, sizeof(type));
	store_length(tx->mem, at, length);
	tx->tail += align_up(length);
	__atomic_store_n(&tx->mem->tail, tx->tail, __ATOMIC_RELEASE);
}

int wvm_spsc_push2(struct wvm_spsc_tx *tx, uint32_t type, const void *a, uint32_t a_len,
		   const void *b, uint32_t b_len)
{
	uint32_t max = wvm_spsc_body_max(tx->capacity);
	uint32_t length, need, at, left, pad;

	assert(type != WVM_SPSC_PAD);
	if (a_len > max || b_len > max - a_len)
		return -EMSGSIZE;
	length = WVM_SPSC_HDR + a_len + b_len;
	need = align_up(length);
	at = (uint32_t)(tx->tail & (tx->capacity - 1));
	left = tx->capacity - at;
	pad = need > left ? left : 0;
	if (tx->tail + pad + need - tx->head_cached > tx->capacity) {
		int ret = refresh_head(tx);

		if (ret)
			return ret;
		if (tx->tail + pad + need - tx->head_cached > tx->capacity)
			return -EAGAIN;
	}
	if (pad)
		put_header(tx, pad, WVM_SPSC_PAD);
	at = (uint32_t)(tx->tail & (tx->capacity - 1));
	if (a_len)
		memcpy(tx->mem->data + at + WVM_SPSC_HDR, a, a_len);
	if (b_len)
		memcpy(tx->mem->data + at + WVM_SPSC_HDR + a_len, b, b_len);
	put_header(tx, length, type);
	return 0;
}

int wvm_spsc_push(struct wvm_spsc_tx *tx, uint32_t type, const void *body, uint32_t len)
{
	return wvm_spsc_push2(tx, type, body, len, NULL, 0);
}

static void consume(struct wvm_spsc_rx *rx, uint32_t length)
{
	uint32_t at = (uint32_t)(rx->head & (rx->capacity - 1));

	memset(rx->mem->data + at, 0, length);
	rx->head += length;
	__atomic_store_n(&rx->mem->head, rx->head, __ATOMIC_RELEASE);
}

int wvm_spsc_pop(struct wvm_spsc_rx *rx, uint32_t *type, void *buf, uint32_t room)
{
	int64_t length = record_at(rx->mem, rx->capacity, rx->head, type);
	uint32_t body, at;

	if (length > 0 && *type == WVM_SPSC_PAD) {
		consume(rx, (uint32_t)length);
		length = record_at(rx->mem, rx->capacity, rx->head, type);
	}
	if (length <= 0)
		return length ? (int)length : -EAGAIN;
	body = (uint32_t)length - WVM_SPSC_HDR;
	at = (uint32_t)(rx->head & (rx->capacity - 1));
	if (body && body <= room)
		memcpy(buf, rx->mem->data + at + WVM_SPSC_HDR, body);
	consume(rx, align_up((uint32_t)length));
	return body <= room ? (int)body : -EMSGSIZE;
}
