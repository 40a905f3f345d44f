/* The wire format: its bytes, round trips, and every way in which a message can be wrong. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/wire.h"

/* What each type may be, stated a second time: see shared/PROTOCOL.md, Messages. */
enum {
	NOTHING,
	PAGE,
	BYTES,
	SOME,
};
enum {
	REQUEST = 1,
	GRANT = 2,
	GPA = 4,
};
enum {
	Z = WVM_MSG_ZERO,
	E = WVM_MSG_ERROR,
	M = WVM_MSG_MORE,
	K = WVM_MSG_KEEP,
	H = WVM_MSG_HELD,
	U = WVM_MSG_UNIT,
	A = WVM_MSG_ANSWER,
};

static const struct kind {
	uint8_t type;
	uint8_t flags;
	uint8_t payload;
	uint8_t needs;
} kinds[] = {
	{0, A, NOTHING, REQUEST},
	{1, H | U, NOTHING, REQUEST | GPA},
	{3, Z | E | H | U, PAGE, REQUEST | GPA},
	{4, H | U, NOTHING, REQUEST | GPA},
	{5, 0, SOME, REQUEST | GRANT},
	{6, E, SOME, REQUEST | GRANT},
	{7, A | E, BYTES, 0},
	{8, 0, NOTHING, REQUEST | GRANT},
	{9, M | A | E, SOME, REQUEST},
	{10, 0, NOTHING, REQUEST | GRANT | GPA},
	{11, 0, NOTHING, REQUEST | GRANT | GPA},
	{12, 0, NOTHING, REQUEST | GRANT | GPA},
	{13, Z | K, PAGE, REQUEST | GRANT | GPA},
	{14, 0, NOTHING, REQUEST | GRANT | GPA},
	{15, 0, NOTHING, REQUEST | GRANT | GPA},
	{16, E, NOTHING, REQUEST | GRANT | GPA},
	{17, 0, NOTHING, REQUEST | GPA},
	{18, 0, NOTHING, REQUEST | GRANT | GPA},
	{19, 0, NOTHING, REQUEST | GRANT},
	{20, 0, NOTHING, REQUEST | GRANT},
	{21, A, BYTES, REQUEST},
	{25, A | E, NOTHING, REQUEST | GPA},
	{26, Z, PAGE, GPA},
	{27, 0, SOME, GPA},
	{28, A | E, SOME, REQUEST | GPA},
	{29, Z, PAGE, REQUEST | GPA},
	{31, M | A | E, SOME, REQUEST},
	{40, A, BYTES, 0},
	{41, M, BYTES, 0},
	{42, M, BYTES, 0},
	{43, M, BYTES, 0},
	{44, M | A | E, BYTES, 0},
	{45, M | A | E, BYTES, REQUEST},
	{46, M | A | E, BYTES, REQUEST},
	{47, 0, NOTHING, 0},
	{48, Z, PAGE, REQUEST | GPA},
	{49, A, NOTHING, REQUEST | GPA},
	{50, 0, BYTES, REQUEST},
	{51, M, SOME, REQUEST},
	{52, Z | M | E, BYTES, REQUEST},
	{53, 0, BYTES, REQUEST},
	{54, 0, BYTES, REQUEST},
	{55, 0, BYTES, REQUEST},
	{56, Z | E | A, PAGE, REQUEST | GPA},
	{57, A | E, NOTHING, REQUEST | GPA},
	{58, A | E, SOME, REQUEST | GPA},
	{59, A, NOTHING, REQUEST | GPA},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* Where fields lie, by the table in wire.h, for those tests that corrupt them. */
enum {
	AT_VERSION = 4,
	AT_TYPE = 5,
	AT_FLAGS = 6,
	AT_QOS_STATE = 7,
	AT_PAYLOAD_LEN = 10,
	AT_SEGMENT = 21, /* offset and total, 12 bits each */
	AT_CRC = 28,
	AT_REQUEST = 32,
	AT_GRANT = 48,
	AT_GPA = 56,
	AT_HOPS = 63,
};

static uint8_t bytes[WVM_DATAGRAM_MAX + 64]; /* random */
static uint64_t random_state;

static uint64_t random64(void) /* splitmix64 */
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void setup(void)
{
	random_state = 31;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)random64();
}

static const struct kind *kind_of(uint8_t type)
{
	for (size_t i = 0; i < KINDS; i++) {
		if (kinds[i].type == type)
			return &kinds[i];
	}
	return NULL;
}

/* Flags that stand for the payload: at most one of them at a time. */
static uint8_t random_flags(const struct kind *kind)
{
	uint8_t flags = (uint8_t)random64() & kind->flags;
	uint8_t instead = flags & (Z | E | (kind->payload == PAGE ? H | A : 0));

	if (instead & (instead - 1))
		flags &= (uint8_t)~instead;
	/* A whole unit is granted as zeros. */
	return kind->payload == PAGE && !(flags & Z) ? flags & (uint8_t)~U : flags;
}

static void random_payload(struct wvm_msg *m, const struct kind *kind)
{
	uint32_t total, segment, count, index;

	if (kind->payload == NOTHING || (m->flags & (Z | E)) ||
	    (kind->payload == PAGE && (m->flags & (H | A))))
		return;
	if (kind->payload == PAGE) {
		total = WVM_PAGE_BYTES;
		segment = wvm_wire_page_segment(576 + random64() % 5000);
	} else {
		total = random64() % 8 ? random64() % 3000 : random64() % WVM_SEGMENT_TOTAL_MAX;
		total += kind->payload == SOME;
		segment = wvm_wire_segment(576 + random64() % 5000);
	}
	if (!total)
		return;
	count = (total + segment - 1) / segment;
	index = (uint32_t)random64() % count;
	m->seg_total = wvm_wire_total(total);
	m->seg_offset = index * segment;
	m->payload_len = (uint16_t)(index == count - 1 ? total - m->seg_offset : segment);
}

static struct wvm_msg random_msg(const struct kind *kind)
{
	struct wvm_msg m = {
		.type = kind->type,
		.flags = random_flags(kind),
		.qos = random64() % WVM_QOS_COUNT,
		.node_state = random64() % WVM_NODE_LIVES,
		.hops = random64() % (WVM_HOPS_MAX + 1),
		.vm_id = (uint16_t)random64(),
		.steer = (uint16_t)random64(),
		.reply_steer = (uint16_t)random64(),
		.epoch = (uint32_t)random64(),
		.src = random64() % WVM_NODE_MAX,
		.dst = random64() % WVM_NODE_MAX,
		.request = random64() | 1,
		.gpa = random64() % WVM_OPERAND_MAX,
		.version = random64(),
		.grant = random64() | 1,
	};

	if (kind->needs & GPA)
		m.gpa = m.gpa % WVM_GPA_MAX & ~(uint64_t)(WVM_PAGE_BYTES - 1);
	if (!(kind->needs & REQUEST) && random64() % 2)
		m.request = 0;
	if (!(kind->needs & GRANT) && random64() % 2)
		m.grant = 0;
	random_payload(&m, kind);
	return m;
}

/* A MEM_ACK with the middle segment of a page: most fields mean something in it. */
static struct wvm_msg sample_msg(void)
{
	return (struct wvm_msg){
		.type = WVM_MSG_MEM_ACK,
		.qos = WVM_QOS_BULK,
		.node_state = WVM_NODE_ACTIVE,
		.hops = 5,
		.vm_id = 0x1234,
		.payload_len = 1408,
		.steer = 0xabcd,
		.reply_steer = 0x0123,
		.epoch = 0xdeadbeef,
		.src = 0xfedcb,
		.dst = 0x12345,
		.seg_offset = 1408,
		.seg_total = 4096,
		.request = UINT64_C(0x1122334455667788),
		.gpa = UINT64_C(0x0009abcdef012000),
		.version = UINT64_C(0x99aabbccddeeff00),
		.grant = UINT64_C(0x0102030405060708),
	};
}

static void expect_equal(const struct wvm_msg *a, const struct wvm_msg *b)
{
	ck_assert_uint_eq(a->type, b->type);
	ck_assert_uint_eq(a->flags, b->flags);
	ck_assert_uint_eq(a->qos, b->qos);
	ck_assert_uint_eq(a->node_state, b->node_state);
	ck_assert_uint_eq(a->hops, b->hops);
	ck_assert_uint_eq(a->vm_id, b->vm_id);
	ck_assert_uint_eq(a->payload_len, b->payload_len);
	ck_assert_uint_eq(a->steer, b->steer);
	ck_assert_uint_eq(a->reply_steer, b->reply_steer);
	ck_assert_uint_eq(a->epoch, b->epoch);
	ck_assert_uint_eq(a->src, b->src);
	ck_assert_uint_eq(a->dst, b->dst);
	ck_assert_uint_eq(a->seg_offset, b->seg_offset);
	ck_assert_uint_eq(a->seg_total, b->seg_total);
	ck_assert_uint_eq(a->request, b->request);
	ck_assert_uint_eq(a->gpa, b->gpa);
	ck_assert_uint_eq(a->version, b->version);
	ck_assert_uint_eq(a->grant, b->grant);
}

static size_t encode(uint8_t *out, const struct wvm_msg *m)
{
	size_t len = wvm_wire_encode(out, WVM_DATAGRAM_MAX, m, bytes);

	ck_assert_msg(len == WVM_HEADER_BYTES + (size_t)m->payload_len,
		      "type %u flags %#x: encoded as %zu bytes, dropped for %s", m->type, m->flags,
		      len, wvm_drop_name(wvm_wire_check(m)));
	return len;
}

/* Decodes a copy that is exactly len bytes long, so that a sanitizer sees a byte too far. */
static enum wvm_drop decode(const uint8_t *data, size_t len, size_t *consumed)
{
	uint8_t *tight = malloc(len ? len : 1);
	const uint8_t *payload = NULL;
	struct wvm_msg m;
	enum wvm_drop drop;
	size_t used;

	ck_assert_ptr_nonnull(tight);
	memcpy(tight, data, len);
	drop = wvm_wire_decode(tight, len, &m, &payload, &used);
	ck_assert_uint_le(used, len);
	ck_assert(used || !len);
	if (!drop) {
		ck_assert_ptr_eq(payload, tight + WVM_HEADER_BYTES);
		ck_assert_uint_eq(used, WVM_HEADER_BYTES + (size_t)m.payload_len);
	}
	free(tight);
	if (consumed)
		*consumed = used;
	return drop;
}

static void expect_drop(const uint8_t *data, size_t len, enum wvm_drop want, const char *what)
{
	enum wvm_drop drop = decode(data, len, NULL);

	ck_assert_msg(drop == want, "%s: dropped for %s, not %s", what, wvm_drop_name(drop),
		      wvm_drop_name(want));
}

START_TEST(the_bytes_are_those_of_the_table)
{
	static const uint8_t want[WVM_HEADER_BYTES] = {
		'W',  'V',  'M',  'X',  31,   3,    0x00, 0x12, 0x12, 0x34, 0x05, 0x80, 0xab,
		0xcd, 0x01, 0x23, 0xfe, 0xdc, 0xb1, 0x23, 0x45, 0x01, 0x60, 0x40, 0xde, 0xad,
		0xbe, 0xef, 0,    0,    0,    0,    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
		0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, 0x01, 0x02, 0x03, 0x04,
		0x05, 0x06, 0x07, 0x08, 0x09, 0xab, 0xcd, 0xef, 0x01, 0x20, 0x00, 5,
	};
	struct wvm_msg m = sample_msg();
	uint8_t out[2048];

	encode(out, &m);
	memset(out + AT_CRC, 0, 4);
	ck_assert_mem_eq(out, want, sizeof(want));
	ck_assert_mem_eq(out + WVM_HEADER_BYTES, bytes, m.payload_len);
}
END_TEST

START_TEST(every_type_survives_the_round_trip)
{
	const struct kind *kind = &kinds[_i];
	static uint8_t out[WVM_DATAGRAM_MAX];

	for (int i = 0; i < 3000; i++) {
		struct wvm_msg m = random_msg(kind);
		struct wvm_msg back;
		const uint8_t *payload;
		size_t used, len = encode(out, &m);

		ck_assert_uint_eq(wvm_wire_decode(out, len, &back, &payload, &used), 0);
		ck_assert_uint_eq(used, len);
		ck_assert_ptr_eq(payload, out + WVM_HEADER_BYTES);
		ck_assert_int_eq(memcmp(payload, bytes, m.payload_len), 0);
		expect_equal(&m, &back);
	}
}
END_TEST

/* Every type number with every combination of flags, with a payload of its kind and without. */
START_TEST(types_take_their_flags_and_no_others)
{
	for (unsigned i = 0; i < 256 * 256 * 2; i++) {
		struct wvm_msg m = sample_msg();
		const struct kind *kind = kind_of((uint8_t)(i / 512));
		enum wvm_drop want = WVM_DROP_NONE;
		uint8_t instead;

		m.type = (uint8_t)(i / 512);
		m.flags = (uint8_t)(i / 2);
		if (i % 2)
			m.payload_len = m.seg_offset = m.seg_total = 0;
		instead = m.flags & (Z | E | (kind && kind->payload == PAGE ? H | A : 0));
		if (!kind)
			want = WVM_DROP_TYPE;
		else if (m.flags & WVM_MSG_AUTH)
			want = WVM_DROP_AUTH;
		else if (m.flags & ~kind->flags)
			want = WVM_DROP_FLAGS;
		else if (instead && (m.payload_len || instead & (instead - 1)))
			want = WVM_DROP_FLAGS;
		else if (kind->payload == PAGE && m.flags & U && !(m.flags & (Z | E | H)))
			want = WVM_DROP_FLAGS;
		else if (m.payload_len && kind->payload == NOTHING)
			want = WVM_DROP_SEGMENT;
		else if (!m.payload_len && !instead &&
			 (kind->payload == PAGE || (kind->payload == SOME && !(m.flags & A))))
			want = WVM_DROP_SEGMENT;
		ck_assert_msg(wvm_wire_check(&m) == want,
			      "type %u flags %#x payload %u: %s, not %s", m.type, m.flags,
			      m.payload_len, wvm_drop_name(wvm_wire_check(&m)),
			      wvm_drop_name(want));
	}
}
END_TEST

/* One field of the sample changed to a wrong value, the checksum put right. */
static const struct {
	const char *what;
	unsigned at, len;
	uint8_t value[8];
	enum wvm_drop want;
} corruptions[] = {
	{"magic of the control port", 0, 4, "WVMC", WVM_DROP_MAGIC},
	{"magic reversed", 0, 4, "XMVW", WVM_DROP_MAGIC},
	{"older protocol", AT_VERSION, 1, {30}, WVM_DROP_VERSION},
	{"newer protocol", AT_VERSION, 1, {32}, WVM_DROP_VERSION},
	{"retired type", AT_TYPE, 1, {2}, WVM_DROP_TYPE},
	{"first type beyond", AT_TYPE, 1, {WVM_MSG_TYPES}, WVM_DROP_TYPE},
	{"last type", AT_TYPE, 1, {255}, WVM_DROP_TYPE},
	{"a whole unit with payload", AT_FLAGS, 1, {0x40}, WVM_DROP_FLAGS},
	{"flag of another type", AT_FLAGS, 1, {K}, WVM_DROP_FLAGS},
	{"zero page with payload", AT_FLAGS, 1, {Z}, WVM_DROP_FLAGS},
	{"error with payload", AT_FLAGS, 1, {E}, WVM_DROP_FLAGS},
	{"held copy with payload", AT_FLAGS, 1, {H}, WVM_DROP_FLAGS},
	{"lane that is none", AT_QOS_STATE, 1, {0x22}, WVM_DROP_QOS},
	{"highest lane", AT_QOS_STATE, 1, {0xf2}, WVM_DROP_QOS},
	{"state that is none", AT_QOS_STATE, 1, {0x15}, WVM_DROP_STATE},
	{"highest state", AT_QOS_STATE, 1, {0x1f}, WVM_DROP_STATE},
	{"payload one longer", AT_PAYLOAD_LEN, 2, {0x05, 0x81}, WVM_DROP_LENGTH},
	{"payload of 65535", AT_PAYLOAD_LEN, 2, {0xff, 0xff}, WVM_DROP_LENGTH},
	{"total below the end", AT_SEGMENT, 3, {0x01, 0x60, 0x2b}, WVM_DROP_SEGMENT},
	{"total of no page", AT_SEGMENT, 3, {0x01, 0x60, 0x41}, WVM_DROP_SEGMENT},
	{"total of 0", AT_SEGMENT, 3, {0x01, 0x60, 0x00}, WVM_DROP_SEGMENT},
	{"highest total", AT_SEGMENT, 3, {0x01, 0x6f, 0xff}, WVM_DROP_SEGMENT},
	{"offset between segments", AT_SEGMENT, 3, {0x01, 0x50, 0x40}, WVM_DROP_SEGMENT},
	{"end beyond the page", AT_SEGMENT, 3, {0x02, 0xb0, 0x40}, WVM_DROP_SEGMENT},
	{"highest offset", AT_SEGMENT, 3, {0xff, 0xf0, 0x40}, WVM_DROP_SEGMENT},
	{"no request id", AT_REQUEST, 8, {0}, WVM_DROP_REQUEST},
	{"gpa inside a page", AT_GPA, 7, {0x09, 0xab, 0xcd, 0xef, 0x01, 0x20, 0x01}, WVM_DROP_GPA},
	{"gpa half a page off",
	 AT_GPA,
	 7,
	 {0x09, 0xab, 0xcd, 0xef, 0x01, 0x28, 0x00},
	 WVM_DROP_GPA},
	{"gpa beyond all nodes", AT_GPA, 7, {0x10}, WVM_DROP_GPA},
	{"highest gpa", AT_GPA, 7, {0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0x00}, WVM_DROP_GPA},
	{"too many hops", AT_HOPS, 1, {WVM_HOPS_MAX + 1}, WVM_DROP_HOPS},
	{"most hops", AT_HOPS, 1, {255}, WVM_DROP_HOPS},
};
#define CORRUPTIONS (sizeof(corruptions) / sizeof(corruptions[0]))

START_TEST(one_wrong_field_has_its_own_reason)
{
	struct wvm_msg m = sample_msg();
	uint8_t out[2048];
	size_t len = encode(out, &m);

	memcpy(out + corruptions[_i].at, corruptions[_i].value, corruptions[_i].len);
	wvm_wire_seal(out, len);
	expect_drop(out, len, corruptions[_i].want, corruptions[_i].what);
}
END_TEST

START_TEST(a_grant_is_named_where_one_is_due)
{
	for (size_t i = 0; i < KINDS; i++) {
		struct wvm_msg m = random_msg(&kinds[i]);
		static uint8_t out[WVM_DATAGRAM_MAX];
		size_t len;

		m.grant = 1;
		len = encode(out, &m);
		memset(out + AT_GRANT, 0, 8);
		wvm_wire_seal(out, len);
		expect_drop(out, len, kinds[i].needs & GRANT ? WVM_DROP_GRANT : WVM_DROP_NONE,
			    wvm_msg_name(kinds[i].type));
	}
}
END_TEST

START_TEST(a_request_is_named_where_one_is_due)
{
	for (size_t i = 0; i < KINDS; i++) {
		struct wvm_msg m = random_msg(&kinds[i]);

		m.request = 0;
		ck_assert_uint_eq(wvm_wire_check(&m),
				  kinds[i].needs & REQUEST ? WVM_DROP_REQUEST : WVM_DROP_NONE);
	}
}
END_TEST

START_TEST(an_address_is_that_of_a_page_where_one_is_due)
{
	for (size_t i = 0; i < KINDS; i++) {
		enum wvm_drop want = kinds[i].needs & GPA ? WVM_DROP_GPA : WVM_DROP_NONE;
		struct wvm_msg m = random_msg(&kinds[i]);

		m.gpa = WVM_GPA_MAX - WVM_PAGE_BYTES;
		ck_assert_uint_eq(wvm_wire_check(&m), WVM_DROP_NONE);
		m.gpa = WVM_GPA_MAX;
		ck_assert_uint_eq(wvm_wire_check(&m), want);
		m.gpa = WVM_PAGE_BYTES + 1;
		ck_assert_uint_eq(wvm_wire_check(&m), want);
		m.gpa = WVM_OPERAND_MAX;
		ck_assert_uint_eq(wvm_wire_check(&m), WVM_DROP_GPA);
	}
}
END_TEST

START_TEST(what_the_encoder_refuses)
{
	struct wvm_msg good = sample_msg(), m;
	uint8_t out[2048], header[WVM_HEADER_BYTES];
	size_t len = encode(out, &good);

	ck_assert_uint_eq(wvm_wire_encode(out, len - 1, &good, bytes), 0);
	ck_assert_uint_eq(wvm_wire_encode(out, WVM_HEADER_BYTES, &good, bytes), 0);
	ck_assert_uint_eq(wvm_wire_encode(out, 0, &good, bytes), 0);
	ck_assert_uint_eq(wvm_wire_encode(out, len, &good, bytes), len);
#define REFUSED(field, value, reason)                                               \
	do {                                                                        \
		m = good;                                                           \
		m.field = value;                                                    \
		ck_assert_uint_eq(wvm_wire_check(&m), reason);                      \
		ck_assert_uint_eq(wvm_wire_encode(out, sizeof(out), &m, bytes), 0); \
		ck_assert_uint_eq(wvm_wire_encode_header(header, &m, bytes), 0);    \
	} while (0)
	REFUSED(src, WVM_NODE_MAX, WVM_DROP_NODE);
	REFUSED(dst, UINT32_MAX, WVM_DROP_NODE);
	REFUSED(type, 2, WVM_DROP_TYPE);
	REFUSED(flags, WVM_MSG_AUTH, WVM_DROP_AUTH);
	REFUSED(qos, WVM_QOS_COUNT, WVM_DROP_QOS);
	REFUSED(node_state, WVM_NODE_STATES, WVM_DROP_STATE);
	REFUSED(node_state, WVM_NODE_LOST, WVM_DROP_STATE);
	REFUSED(hops, WVM_HOPS_MAX + 1, WVM_DROP_HOPS);
	REFUSED(gpa, WVM_OPERAND_MAX, WVM_DROP_GPA);
	REFUSED(request, 0, WVM_DROP_REQUEST);
	REFUSED(seg_offset, 1400, WVM_DROP_SEGMENT);
#undef REFUSED
}
END_TEST

START_TEST(a_datagram_cut_short_is_dropped)
{
	struct wvm_msg m = sample_msg();
	uint8_t out[2048];
	size_t used, len = encode(out, &m);

	for (size_t cut = 0; cut < len; cut++) {
		ck_assert_uint_eq(decode(out, cut, &used),
				  cut < WVM_HEADER_BYTES ? WVM_DROP_SHORT : WVM_DROP_LENGTH);
		ck_assert_uint_eq(used, cut);
	}
}
END_TEST

START_TEST(a_length_that_lies_is_dropped)
{
	struct wvm_msg m = sample_msg();
	uint8_t out[2048];
	size_t len = encode(out, &m);

	for (unsigned lie = 0; lie < 65536; lie++) {
		enum wvm_drop want = lie > m.payload_len ? WVM_DROP_LENGTH : WVM_DROP_CRC;

		out[AT_PAYLOAD_LEN] = (uint8_t)(lie >> 8);
		out[AT_PAYLOAD_LEN + 1] = (uint8_t)lie;
		expect_drop(out, len, lie == m.payload_len ? WVM_DROP_NONE : want, "as sent");
		if (lie >= m.payload_len)
			continue;
		wvm_wire_seal(out, WVM_HEADER_BYTES + lie);
		/* two segments of 704 bytes would lie before this one just as well */
		expect_drop(out, len, lie == 704 ? WVM_DROP_NONE : WVM_DROP_SEGMENT, "sealed");
		encode(out, &m);
	}
}
END_TEST

START_TEST(a_datagram_larger_than_udp_is_dropped)
{
	static uint8_t out[WVM_DATAGRAM_MAX + 1];
	struct wvm_msg m = {
		.type = WVM_MSG_REPORT,
		.request = 1,
		.payload_len = WVM_DATAGRAM_MAX - WVM_HEADER_BYTES,
		.seg_total = wvm_wire_total(WVM_DATAGRAM_MAX - WVM_HEADER_BYTES),
	};

	ck_assert_uint_eq(encode(out, &m), WVM_DATAGRAM_MAX);
	expect_drop(out, sizeof(out) - 1, WVM_DROP_NONE, "the largest");
	expect_drop(out, sizeof(out), WVM_DROP_LONG, "one byte more");
}
END_TEST

/* CRC-32C finds every one, two and three flipped bits at this length; hops are outside it. */
START_TEST(flipped_bits_are_found)
{
	struct wvm_msg m = sample_msg();
	uint8_t out[2048];
	size_t len = encode(out, &m);
	unsigned bits = (unsigned)len * 8;

	for (unsigned bit = 0; bit < bits; bit++) {
		out[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (bit / 8 == AT_HOPS)
			expect_drop(out, len, out[AT_HOPS] > WVM_HOPS_MAX ? WVM_DROP_HOPS : 0,
				    "hops");
		else
			ck_assert_uint_ne(decode(out, len, NULL), WVM_DROP_NONE);
		out[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (int i = 0; i < 100000; i++) {
		unsigned flips = 2 + i % 2, at[3];

		for (unsigned k = 0; k < flips; k++) {
			do
				at[k] = (unsigned)(random64() % bits);
			while (at[k] / 8 == AT_HOPS || (k && at[k] == at[0]) ||
			       (k > 1 && at[k] == at[1]));
			out[at[k] / 8] ^= (uint8_t)(1 << at[k] % 8);
		}
		ck_assert_uint_ne(decode(out, len, NULL), WVM_DROP_NONE);
		for (unsigned k = 0; k < flips; k++)
			out[at[k] / 8] ^= (uint8_t)(1 << at[k] % 8);
	}
	expect_drop(out, len, WVM_DROP_NONE, "put back");
}
END_TEST

START_TEST(a_forwarder_lowers_the_hops_without_a_new_checksum)
{
	struct wvm_msg m = sample_msg();
	uint8_t out[2048];
	size_t len = encode(out, &m);

	for (unsigned hops = 0; hops <= WVM_HOPS_MAX; hops++) {
		out[AT_HOPS] = (uint8_t)hops;
		expect_drop(out, len, WVM_DROP_NONE, "hops");
	}
}
END_TEST

/* A datagram of several segments, what is wrong with the second, and what the third still gets. */
static const struct {
	const char *what;
	unsigned at;
	uint8_t value;
	bool sealed;
	enum wvm_drop second, third;
} neighbours[] = {
	{"all good", AT_VERSION, WVM_PROTOCOL_VERSION, true, WVM_DROP_NONE, WVM_DROP_NONE},
	{"wrong type", AT_TYPE, 2, true, WVM_DROP_TYPE, WVM_DROP_NONE},
	{"wrong flags", AT_FLAGS, 0x40, true, WVM_DROP_FLAGS, WVM_DROP_NONE},
	{"wrong hops", AT_HOPS, 200, true, WVM_DROP_HOPS, WVM_DROP_NONE},
	{"wrong checksum", AT_CRC, 0, false, WVM_DROP_CRC, WVM_DROP_SHORT},
	{"wrong magic", 0, 'w', true, WVM_DROP_MAGIC, WVM_DROP_SHORT},
	{"wrong version", AT_VERSION, 30, true, WVM_DROP_VERSION, WVM_DROP_SHORT},
	{"wrong length", AT_PAYLOAD_LEN, 0xff, true, WVM_DROP_LENGTH, WVM_DROP_SHORT},
};
#define NEIGHBOURS (sizeof(neighbours) / sizeof(neighbours[0]))

START_TEST(a_bad_segment_costs_its_neighbours_only_if_it_has_no_end)
{
	struct wvm_msg m = sample_msg();
	uint8_t out[3 * 1472];
	size_t at = 0, used, len = encode(out, &m);

	encode(out + len, &m);
	encode(out + 2 * len, &m);
	out[len + neighbours[_i].at] = neighbours[_i].value;
	if (neighbours[_i].sealed)
		wvm_wire_seal(out + len, len);
	ck_assert_uint_eq(decode(out, 3 * len, &used), WVM_DROP_NONE);
	at += used;
	ck_assert_uint_eq(at, len);
	ck_assert_uint_eq(decode(out + at, 3 * len - at, &used), neighbours[_i].second);
	at += used;
	ck_assert_uint_eq(at, neighbours[_i].third ? 3 * len : 2 * len);
	ck_assert_uint_eq(decode(out + at, 3 * len - at, &used), neighbours[_i].third);
}
END_TEST

START_TEST(many_messages_share_a_datagram)
{
	for (int round = 0; round < 300; round++) {
		static uint8_t out[WVM_DATAGRAM_MAX];
		struct wvm_msg sent[64], m;
		const uint8_t *payload;
		size_t used, at = 0, len = 0, count = 0;

		while (count < 64 && len < 20000) {
			sent[count] = random_msg(&kinds[random64() % KINDS]);
			len += encode(out + len, &sent[count++]);
		}
		for (size_t i = 0; i < count; i++, at += used) {
			ck_assert_uint_eq(wvm_wire_decode(out + at, len - at, &m, &payload, &used),
					  0);
			expect_equal(&m, &sent[i]);
		}
		ck_assert_uint_eq(at, len);
	}
}
END_TEST

START_TEST(zeros_at_the_end_are_nothing_and_anything_else_is_a_segment)
{
	struct wvm_msg m = sample_msg();
	const uint8_t *payload;
	uint8_t out[4096];
	size_t used, len = encode(out, &m);

	for (size_t zeros = 1; zeros <= 2 * WVM_HEADER_BYTES; zeros++) {
		memset(out + len, 0, zeros);
		ck_assert_uint_eq(wvm_wire_decode(out, len + zeros, &m, &payload, &used),
				  WVM_DROP_NONE);
		ck_assert_uint_eq(used, len + zeros);
		out[len + random64() % zeros] = 1;
		ck_assert_uint_eq(wvm_wire_decode(out, len + zeros, &m, &payload, &used),
				  WVM_DROP_NONE);
		ck_assert_uint_eq(used, len);
		expect_drop(out + len, zeros,
			    zeros < WVM_HEADER_BYTES ? WVM_DROP_SHORT : WVM_DROP_MAGIC, "padding");
	}
	/* Alone they are no message. */
	memset(out, 0, sizeof(out));
	expect_drop(out, 2 * WVM_HEADER_BYTES, WVM_DROP_MAGIC, "zeros");
}
END_TEST

START_TEST(a_tag_is_stepped_over_and_its_message_dropped)
{
	struct wvm_msg m = sample_msg();
	uint8_t out[4096];
	size_t used, len = encode(out, &m);

	out[AT_FLAGS] |= WVM_MSG_AUTH;
	wvm_wire_seal(out, len);
	memset(out + len, 0x5a, WVM_TAG_BYTES);
	encode(out + len + WVM_TAG_BYTES, &m);
	ck_assert_uint_eq(decode(out, 2 * len + WVM_TAG_BYTES, &used), WVM_DROP_AUTH);
	ck_assert_uint_eq(used, len + WVM_TAG_BYTES);
	ck_assert_uint_eq(decode(out + used, len, &used), WVM_DROP_NONE);
	for (size_t cut = len; cut < len + WVM_TAG_BYTES; cut++)
		expect_drop(out, cut, WVM_DROP_LENGTH, "half a tag");
}
END_TEST

START_TEST(the_header_alone_and_the_payload_in_place_give_the_same_bytes)
{
	for (int i = 0; i < 20000; i++) {
		static uint8_t whole[WVM_DATAGRAM_MAX], place[WVM_DATAGRAM_MAX];
		struct wvm_msg m = random_msg(&kinds[random64() % KINDS]);
		uint8_t header[WVM_HEADER_BYTES];
		size_t len = encode(whole, &m);

		ck_assert_uint_eq(wvm_wire_encode_header(header, &m, bytes), WVM_HEADER_BYTES);
		ck_assert_int_eq(memcmp(header, whole, WVM_HEADER_BYTES), 0);
		memcpy(place + WVM_HEADER_BYTES, bytes, m.payload_len);
		ck_assert_uint_eq(wvm_wire_encode(place, len, &m, place + WVM_HEADER_BYTES), len);
		ck_assert_int_eq(memcmp(place, whole, len), 0);
	}
}
END_TEST

START_TEST(random_bytes_are_never_a_message)
{
	for (int i = 0; i < 200000; i++) {
		uint8_t data[512];
		size_t len = random64() % sizeof(data);

		for (size_t k = 0; k < len; k += 8) {
			uint64_t word = random64();

			memcpy(data + k, &word, len - k < 8 ? len - k : 8);
		}
		ck_assert_uint_ne(decode(data, len, NULL), WVM_DROP_NONE);
		if (len < WVM_HEADER_BYTES)
			continue;
		memcpy(data, "WVMX\x1f", 5);
		ck_assert_uint_ne(decode(data, len, NULL), WVM_DROP_NONE);
	}
}
END_TEST

/* A perfect forgery is one that keeps every rule: what it decodes to encodes to itself. */
START_TEST(mutations_with_a_good_checksum_are_dropped_or_keep_every_rule)
{
	unsigned kept = 0;

	for (int i = 0; i < 300000; i++) {
		static uint8_t out[WVM_DATAGRAM_MAX], again[WVM_DATAGRAM_MAX];
		struct wvm_msg m = random_msg(&kinds[random64() % KINDS]);
		const uint8_t *payload;
		size_t used, len = encode(out, &m);

		for (unsigned k = 1 + random64() % 3; k; k--)
			out[5 + random64() % 59] = (uint8_t)random64();
		wvm_wire_seal(out, len);
		if (wvm_wire_decode(out, len, &m, &payload, &used))
			continue;
		kept++;
		ck_assert_uint_eq(wvm_wire_encode(again, sizeof(again), &m, payload), used);
		ck_assert_int_eq(memcmp(again, out, used), 0);
	}
	ck_assert_uint_gt(kept, 1000);
}
END_TEST

START_TEST(every_reason_and_type_has_a_name_of_its_own)
{
	for (unsigned i = 0; i < WVM_DROP_REASONS; i++) {
		ck_assert_ptr_nonnull(wvm_drop_name(i));
		for (unsigned k = 0; k < i; k++)
			ck_assert_str_ne(wvm_drop_name(i), wvm_drop_name(k));
	}
	ck_assert_str_eq(wvm_drop_name(WVM_DROP_CRC), "crc");
	ck_assert_str_eq(wvm_drop_name(WVM_DROP_REASONS), "unknown");
	ck_assert_str_eq(wvm_drop_name((enum wvm_drop) - 1), "unknown");
	for (unsigned type = 0; type < 256; type++)
		ck_assert_int_eq(!wvm_msg_name((uint8_t)type), !kind_of((uint8_t)type));
	ck_assert_str_eq(wvm_msg_name(WVM_MSG_MEM_READ), "MEM_READ");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wire");
	TCase *tc = tcase_create("wire");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, the_bytes_are_those_of_the_table);
	tcase_add_loop_test(tc, every_type_survives_the_round_trip, 0, KINDS);
	tcase_add_test(tc, types_take_their_flags_and_no_others);
	tcase_add_loop_test(tc, one_wrong_field_has_its_own_reason, 0, CORRUPTIONS);
	tcase_add_test(tc, a_grant_is_named_where_one_is_due);
	tcase_add_test(tc, a_request_is_named_where_one_is_due);
	tcase_add_test(tc, an_address_is_that_of_a_page_where_one_is_due);
	tcase_add_test(tc, what_the_encoder_refuses);
	tcase_add_test(tc, a_datagram_cut_short_is_dropped);
	tcase_add_test(tc, a_length_that_lies_is_dropped);
	tcase_add_test(tc, a_datagram_larger_than_udp_is_dropped);
	tcase_add_test(tc, flipped_bits_are_found);
	tcase_add_test(tc, a_forwarder_lowers_the_hops_without_a_new_checksum);
	tcase_add_loop_test(tc, a_bad_segment_costs_its_neighbours_only_if_it_has_no_end, 0,
			    NEIGHBOURS);
	tcase_add_test(tc, many_messages_share_a_datagram);
	tcase_add_test(tc, zeros_at_the_end_are_nothing_and_anything_else_is_a_segment);
	tcase_add_test(tc, a_tag_is_stepped_over_and_its_message_dropped);
	tcase_add_test(tc, the_header_alone_and_the_payload_in_place_give_the_same_bytes);
	tcase_add_test(tc, random_bytes_are_never_a_message);
	tcase_add_test(tc, mutations_with_a_good_checksum_are_dropped_or_keep_every_rule);
	tcase_add_test(tc, every_reason_and_type_has_a_name_of_its_own);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
