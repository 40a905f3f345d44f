/*
 * A ring of variable-length records between one producer and one consumer,
 * in memory that two processes share (shared/PROTOCOL.md, Clients).
 *
 * A record is an 8-byte header {int32 length including the header, uint32
 * type} and its body, padded to 8 bytes. The producer writes the body first
 * and the length last (release); a length of 0 means "not yet". The consumer
 * zeroes what it consumed before it moves head, so the producer always writes
 * into zeros. A record never wraps: what is left at the end of the ring is
 * filled with one record of type WVM_SPSC_PAD.
 *
 * Neither side trusts the other. Each works with its own copy of the geometry
 * and of its own position; every value read from the shared memory is read
 * once and checked. A peer that breaks the rules costs -EPROTO and nothing
 * else. (The memory itself must not shrink: use a memfd with F_SEAL_SHRINK.)
 *
 * Nothing here blocks, allocates or makes a system call; who sleeps until a
 * record comes is the caller's business. A producer handle belongs to one
 * thread at a time, a consumer handle likewise.
 */
#ifndef WVM_SHARED_SPSC_H
#define WVM_SHARED_SPSC_H

#include <stddef.h>
#include <stdint.h>

#define WVM_SPSC_LINE 64u /* cache line: head and tail live on one each */
#define WVM_SPSC_HDR  8u
#define WVM_SPSC_PAD  0xffffffffu

/* Shared, 128 bytes, followed by the data area. Cached copies live in the handles. */
struct wvm_spsc_mem {
	uint64_t tail; /* producer: bytes ever committed, padding included */
	uint8_t pad0[WVM_SPSC_LINE - 8];
	uint64_t head; /* consumer: bytes ever consumed */
	uint8_t pad1[WVM_SPSC_LINE - 8];
	uint8_t data[];
};
_Static_assert(sizeof(struct wvm_spsc_mem) == 2 * WVM_SPSC_LINE, "spsc header");

struct wvm_spsc_tx {
	struct wvm_spsc_mem *mem;
	uint32_t capacity;
	uint64_t tail;
	uint64_t head_cached;
};

struct wvm_spsc_rx {
	struct wvm_spsc_mem *mem;
	uint32_t capacity;
	uint64_t head;
};

/* Bytes of shared memory for a ring of this capacity (a power of two, 64 to 2^30), 0 if invalid. */
size_t wvm_spsc_bytes(uint32_t capacity);

/* The longest body a ring of this capacity takes. Longer ones could never fit beside padding. */
uint32_t wvm_spsc_body_max(uint32_t capacity);

/*
 * Empties the ring: whoever owns the memory, before either side opens it.
 * 0, -EINVAL (capacity, or mem not aligned to 64).
 */
int wvm_spsc_init(void *mem, uint32_t capacity);

/*
 * Take up one end where the shared positions say it stands (0 after init).
 * mem spans wvm_spsc_bytes(capacity). 0, -EINVAL, -EPROTO (positions that
 * cannot be).
 */
int wvm_spsc_open_tx(struct wvm_spsc_tx *tx, void *mem, uint32_t capacity);
int wvm_spsc_open_rx(struct wvm_spsc_rx *rx, void *mem, uint32_t capacity);

/*
 * Appends one record whose body is a, then b (either may be empty).
 * type is anything but WVM_SPSC_PAD. 0; -EAGAIN: no room now;
 * -EMSGSIZE: never fits; -EPROTO: the consumer's head is impossible.
 */
int wvm_spsc_push2(struct wvm_spsc_tx *tx, uint32_t type, const void *a, uint32_t a_len,
		   const void *b, uint32_t b_len);
int wvm_spsc_push(struct wvm_spsc_tx *tx, uint32_t type, const void *body, uint32_t len);

/* Bytes that are free now, headers and padding not counted. 0 after a consumer's lie. */
uint32_t wvm_spsc_room(struct wvm_spsc_tx *tx);

/*
 * Takes the oldest record: copies its body (at most room bytes) to buf and
 * its type to *type. Returns the body's length; -EAGAIN: empty; -EMSGSIZE: the
 * body is longer than room (the record is consumed); -EPROTO: not a record.
 * After -EPROTO the ring is unusable.
 */
int wvm_spsc_pop(struct wvm_spsc_rx *rx, uint32_t *type, void *buf, uint32_t room);

#endif
