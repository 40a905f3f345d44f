/*
 * The wire: bytes as they come, segments whose lengths and checksums are right,
 * and messages of any field values. Decoding is total, reads nothing outside
 * of the datagram, and what it takes encodes to the same bytes again.
 */
#include "shared/fuzz/fuzz.h"
#include "shared/wire.h"

/* From the table in wire.h. */
#define AT_LENGTH 10u
#define AT_HOPS   63u
#define PARTS_MAX 6u

static void same_message(const struct wvm_msg *a, const struct wvm_msg *b)
{
	/* No padding is compared: there is none in front of seg_offset's neighbours but bytes. */
	FUZZ_CHECK(a->type == b->type && a->flags == b->flags && a->qos == b->qos &&
			   a->node_state == b->node_state && a->hops == b->hops &&
			   a->vm_id == b->vm_id && a->payload_len == b->payload_len &&
			   a->steer == b->steer && a->reply_steer == b->reply_steer &&
			   a->epoch == b->epoch && a->src == b->src && a->dst == b->dst &&
			   a->seg_offset == b->seg_offset && a->seg_total == b->seg_total &&
			   a->request == b->request && a->gpa == b->gpa &&
			   a->version == b->version && a->grant == b->grant,
		   "type %u", a->type);
}

/* What was taken gives the same bytes again, by every way to encode. */
static void encodes_again(const struct wvm_msg *m, const uint8_t *payload, const uint8_t *segment)
{
	size_t bytes = WVM_HEADER_BYTES + m->payload_len;
	uint8_t *again = malloc(bytes), header[WVM_HEADER_BYTES];

	FUZZ_CHECK(again, "memory");
	FUZZ_CHECK(wvm_wire_encode(again, bytes - 1, m, payload) == 0, "room");
	FUZZ_CHECK(wvm_wire_encode(again, bytes, m, payload) == bytes, "type %u", m->type);
	FUZZ_CHECK(!memcmp(again, segment, bytes), "type %u", m->type);
	memset(again, 0xee, WVM_HEADER_BYTES);
	FUZZ_CHECK(wvm_wire_encode(again, bytes, m, again + WVM_HEADER_BYTES) == bytes, "in place");
	FUZZ_CHECK(!memcmp(again, segment, bytes), "type %u, in place", m->type);
	FUZZ_CHECK(wvm_wire_encode_header(header, m, payload) == WVM_HEADER_BYTES, "header");
	FUZZ_CHECK(!memcmp(header, segment, sizeof(header)), "header");
	free(again);
}

/* One wrong bit is noticed wherever it is but in the hops, which forwarders change. */
static void notices_bit(const uint8_t *segment, size_t bytes, uint32_t bit)
{
	uint8_t *copy = fuzz_copy(segment, bytes);
	const uint8_t *payload;
	struct wvm_msg m;
	size_t consumed;

	bit %= (uint32_t)bytes * 8;
	copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
	FUZZ_CHECK(bit / 8 == AT_HOPS || wvm_wire_decode(copy, bytes, &m, &payload, &consumed),
		   "bit %u of byte %u", bit % 8, bit / 8);
	free(copy);
}

/* At its end, or if only zeros follow at theirs. */
static void ends_where_it_says(const uint8_t *data, size_t len, const struct wvm_msg *m,
			       size_t consumed)
{
	size_t bytes = WVM_HEADER_BYTES + m->payload_len, zeros = bytes;

	while (zeros < len && !data[zeros])
		zeros++;
	FUZZ_CHECK(consumed == (zeros == len ? len : bytes), "consumed %zu", consumed);
}

/*
 * Who passes a segment on reads the same as who takes it, and never goes beyond what there is. What
 * it tells the sender of is a message that this one takes.
 */
static void forwarder_agrees(const uint8_t *at, size_t len, const struct wvm_msg *m,
			     size_t consumed)
{
	uint8_t back[WVM_HEADER_BYTES];
	const uint8_t *payload;
	struct wvm_wire_hop h;
	struct wvm_msg told;
	size_t segment, used, all;
	enum wvm_drop drop = wvm_wire_peek(at, len, &h, &segment, &used);

	FUZZ_CHECK(used > 0 && used <= len && segment <= used, "%zu, %zu of %zu", segment, used,
		   len);
	if (m)
		FUZZ_CHECK(!drop && h.src == m->src && h.dst == m->dst && h.steer == m->steer &&
				   h.type == m->type && h.qos == m->qos && h.hops == m->hops &&
				   used == consumed && segment == WVM_HEADER_BYTES + m->payload_len,
			   "type %u", m->type);
	if (drop)
		return;
	FUZZ_CHECK(wvm_wire_push_back(back, at) == sizeof(back), "a push-back");
	FUZZ_CHECK(!wvm_wire_decode(back, sizeof(back), &told, &payload, &all), "of type %u",
		   h.type);
	FUZZ_CHECK(told.type == WVM_MSG_PUSH_BACK && told.src == h.dst && told.dst == h.src &&
			   told.reply_steer == h.steer && told.gpa == h.type,
		   "of type %u", h.type);
}

static void decode_all(const uint8_t *data, size_t len, uint32_t bit)
{
	uint8_t *datagram = fuzz_copy(data, len);
	size_t at = 0;

	while (at < len) {
		const uint8_t *payload;
		struct wvm_msg m;
		size_t consumed = 0;
		enum wvm_drop drop = wvm_wire_decode(datagram + at, len - at, &m, &payload,
						     &consumed);

		FUZZ_CHECK(consumed > 0 && consumed <= len - at, "consumed %zu", consumed);
		FUZZ_CHECK(drop < WVM_DROP_REASONS && strcmp(wvm_drop_name(drop), "unknown"),
			   "reason %d", drop);
		if (!drop) {
			ends_where_it_says(datagram + at, len - at, &m, consumed);
			FUZZ_CHECK(payload == datagram + at + WVM_HEADER_BYTES, "payload");
			FUZZ_CHECK(!wvm_wire_check(&m) && wvm_msg_name(m.type), "type %u", m.type);
			encodes_again(&m, payload, datagram + at);
			notices_bit(datagram + at, WVM_HEADER_BYTES + m.payload_len, bit);
		}
		forwarder_agrees(datagram + at, len - at, drop ? NULL : &m, consumed);
		at += consumed;
	}
	free(datagram);
}

/* Segments whose magic, version, length and checksum are right; the rest is the fuzzer's. */
static void structured(struct fuzz_in *in)
{
	static uint8_t datagram[PARTS_MAX * (WVM_HEADER_BYTES + 4096u) + 256u];
	const struct wvm_msg ping = {.type = WVM_MSG_PING, .request = 1};
	uint32_t bit = fuzz_u32(in), parts = 1 + fuzz_u8(in) % PARTS_MAX;
	uint8_t start[WVM_HEADER_BYTES];
	size_t len = 0, tail;

	wvm_wire_encode(start, sizeof(start), &ping, NULL);
	for (uint32_t i = 0; i < parts && in->left; i++) {
		uint16_t payload = fuzz_u16(in) % 4097;
		uint8_t *segment = datagram + len;

		fuzz_bytes(in, segment, WVM_HEADER_BYTES);
		memcpy(segment, start, 5);
		segment[AT_LENGTH] = (uint8_t)(payload >> 8);
		segment[AT_LENGTH + 1] = (uint8_t)payload;
		memset(segment + WVM_HEADER_BYTES, fuzz_u8(in), payload);
		wvm_wire_seal(segment, WVM_HEADER_BYTES + payload);
		len += WVM_HEADER_BYTES + payload;
	}
	tail = in->left < 256 ? in->left : 256;
	fuzz_bytes(in, datagram + len, tail);
	decode_all(datagram, len + tail, bit);
}

/* Any field values: encoded if and only if the check takes them, and then decoded as they were. */
static void fields(struct fuzz_in *in)
{
	static uint8_t payload[UINT16_MAX];
	uint8_t *out = malloc(WVM_HEADER_BYTES + UINT16_MAX);
	const uint8_t *where;
	struct wvm_msg m, back;
	enum wvm_drop drop;
	size_t len, consumed;

	FUZZ_CHECK(out, "memory");
	fuzz_bytes(in, &m, sizeof(m));
	drop = wvm_wire_check(&m);
	len = wvm_wire_encode(out, WVM_HEADER_BYTES + UINT16_MAX, &m, payload);
	FUZZ_CHECK(!len == !!drop, "%s, but %zu bytes", wvm_drop_name(drop), len);
	if (len && len <= WVM_DATAGRAM_MAX) {
		FUZZ_CHECK(!wvm_wire_decode(out, len, &back, &where, &consumed), "type %u", m.type);
		same_message(&m, &back);
	}
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	uint32_t bit;

	switch (fuzz_u8(&in) % 3) {
	case 0:
		bit = fuzz_u32(&in);
		decode_all(in.at, in.left, bit);
		break;
	case 1: structured(&in); break;
	default: fields(&in); break;
	}
	return 0;
}

/* ---- seeds: one datagram of each kind of message, and the fields of each ----------------- */

static struct wvm_msg sample(uint8_t type)
{
	struct wvm_msg m = {.type = type,
			    .node_state = WVM_NODE_ACTIVE,
			    .hops = WVM_HOPS_MAX,
			    .vm_id = 7,
			    .steer = 11,
			    .reply_steer = 12,
			    .epoch = 1,
			    .src = 0x12345,
			    .dst = 0x54321,
			    .request = wvm_request_id(3, 1, 77),
			    .gpa = 0x40201000,
			    .version = UINT64_C(1) << 32 | 5,
			    .grant = wvm_request_id(3, 1, 76)};

	if (wvm_wire_check(&m) == WVM_DROP_SEGMENT) {
		m.payload_len = 1408;
		m.seg_offset = 1408;
		m.seg_total = WVM_PAGE_BYTES;
	}
	return m;
}

static void put_fields(wvm_fuzz_put *put, const char *name, const struct wvm_msg *m)
{
	uint8_t seed[1 + sizeof(*m)] = {2};

	memcpy(seed + 1, m, sizeof(*m));
	put(name, seed, sizeof(seed));
}

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	static const uint8_t page[WVM_PAGE_BYTES] = {1, 2, 3};
	static uint8_t seed[16384];
	size_t len = 5;

	for (unsigned type = 0; type < WVM_MSG_TYPES; type++) {
		struct wvm_msg m = sample((uint8_t)type);
		char name[64];

		if (!wvm_msg_name(m.type) || wvm_wire_check(&m))
			continue;
		snprintf(name, sizeof(name), "fields-%s", wvm_msg_name(m.type));
		if (m.payload_len || m.type == WVM_MSG_MEM_ACQUIRE)
			put_fields(put, name, &m);
		if (m.payload_len)
			continue;
		len += wvm_wire_encode(seed + len, sizeof(seed) - len, &m, NULL);
	}
	put("datagram-small", seed, len);
	len = 5;
	for (uint32_t at = 0; at < WVM_PAGE_BYTES; at += 1408) {
		struct wvm_msg m = sample(WVM_MSG_MEM_ACK);

		m.seg_offset = at;
		m.payload_len = WVM_PAGE_BYTES - at < 1408 ? WVM_PAGE_BYTES - at : 1408;
		len += wvm_wire_encode(seed + len, sizeof(seed) - len, &m, page + at);
	}
	put("datagram-page", seed, len);
}
