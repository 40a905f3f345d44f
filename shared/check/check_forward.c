/* The forwarder: what leaves is what came, merged, in order, told of or counted when not. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/forward.h"
#include "shared/wire.h"

#define MTU     1472u
#define BUFFERS 64u

static struct wvm_routes_table routes;
static struct wvm_forward f;
static void *memory;
static uint8_t pool[BUFFERS][MTU];
static unsigned used[WVM_FORWARD_LANES], allowed[WVM_FORWARD_LANES];
static unsigned next_buffer;

static struct wvm_hop hop(unsigned n)
{
	return (struct wvm_hop){.ip = 0x7f000000 + n, .port = 8000};
}

/* vnode n is behind hop n, for 1 to 40; hop 50 is upstream. */
static void setup(void)
{
	struct wvm_route_limits limits = {{64, 64, 8, 8}};

	memory = malloc(wvm_route_bytes(&limits));
	wvm_route_init(&routes, &limits, memory);
	for (unsigned n = 1; n <= 40; n++)
		wvm_route_set(&routes, WVM_ROUTE_STATIC, n, 1, hop(n));
	wvm_route_set_upstream(&routes, hop(50));
	wvm_forward_init(&f, &routes, MTU);
	next_buffer = 0;
	for (unsigned i = 0; i < WVM_FORWARD_LANES; i++) {
		used[i] = 0;
		allowed[i] = BUFFERS;
	}
}

static void teardown(void)
{
	free(memory);
}

static void supply(void)
{
	for (unsigned i = 0; i < WVM_FORWARD_LANES; i++)
		if (wvm_forward_wants(&f, i) && used[i] < allowed[i]) {
			used[i]++;
			wvm_forward_supply(&f, i, pool[next_buffer++ % BUFFERS]);
		}
}

static size_t segment(uint8_t *out, uint32_t src, uint32_t dst, uint8_t qos, uint16_t len,
		      uint64_t number)
{
	static uint8_t payload[WVM_PAGE_BYTES];
	struct wvm_msg m = {.type = len ? WVM_MSG_HEARTBEAT : WVM_MSG_PING,
			    .qos = qos,
			    .hops = 3,
			    .src = src,
			    .dst = dst,
			    .steer = 7,
			    .reply_steer = 9,
			    .payload_len = len,
			    .seg_total = wvm_wire_total(len),
			    .request = number};
	size_t n = wvm_wire_encode(out, 65536, &m, payload);

	ck_assert_uint_gt(n, 0);
	return n;
}

static struct wvm_forward_out outs[BUFFERS];
static unsigned out_count;

static void take(const uint8_t *data, size_t len, struct wvm_hop from)
{
	if (!wvm_forward_begin(&f, from))
		return;
	while (len) {
		size_t n;

		supply();
		n = wvm_forward_segment(&f, from, data, len);
		data += n;
		len -= n;
		while (wvm_forward_next(&f, &outs[out_count]))
			out_count++;
	}
}

static void flush(void)
{
	while (wvm_forward_flush(&f, &outs[out_count]))
		out_count++;
}

static void send_one(uint32_t src, uint32_t dst, uint8_t qos, uint16_t len, uint64_t number)
{
	uint8_t buf[65536];

	take(buf, segment(buf, src, dst, qos, len, number), hop(src));
}

static struct wvm_msg first_of(unsigned out, size_t at)
{
	const uint8_t *payload;
	struct wvm_msg m;
	size_t consumed;

	ck_assert_int_eq(
		wvm_wire_decode(outs[out].buf + at, outs[out].len - at, &m, &payload, &consumed),
		WVM_DROP_NONE);
	return m;
}

START_TEST(a_lone_message_leaves_as_it_came_but_for_a_hop)
{
	out_count = 0;
	send_one(1, 2, WVM_QOS_CONTROL, 0, 77);
	ck_assert_uint_eq(out_count, 0);
	flush();
	ck_assert_uint_eq(out_count, 1);
	ck_assert(wvm_hop_same(outs[0].hop, hop(2)));
	ck_assert_uint_eq(outs[0].len, WVM_HEADER_BYTES);
	ck_assert_uint_eq(outs[0].steer, 7);
	ck_assert_uint_eq(first_of(0, 0).request, 77);
	ck_assert_uint_eq(first_of(0, 0).hops, 2);
}
END_TEST

START_TEST(messages_to_one_hop_share_datagrams_up_to_the_mtu_in_order)
{
	out_count = 0;
	for (unsigned i = 0; i < 50; i++)
		send_one(1, 2, WVM_QOS_CONTROL, 0, 1 + i);
	flush();
	ck_assert_uint_eq(out_count, 3); /* 23 to a datagram */
	for (unsigned i = 0; i < 50; i++)
		ck_assert_uint_eq(first_of(i / 23, i % 23 * WVM_HEADER_BYTES).request, 1 + i);
	ck_assert_uint_eq(outs[0].len, 23 * WVM_HEADER_BYTES);
	ck_assert_uint_eq(f.counters.forwarded, 50);
}
END_TEST

START_TEST(control_leaves_before_bulk_that_came_before_it)
{
	out_count = 0;
	send_one(1, 2, WVM_QOS_BULK, 1000, 1);
	send_one(1, 2, WVM_QOS_CONTROL, 0, 2);
	flush();
	ck_assert_uint_eq(out_count, 2);
	ck_assert_int_eq(outs[0].lane, WVM_FORWARD_CONTROL);
	ck_assert_int_eq(outs[1].lane, WVM_FORWARD_BULK);
}
END_TEST

START_TEST(more_hops_than_places_close_the_oldest)
{
	out_count = 0;
	for (unsigned n = 2; n <= 40; n++)
		send_one(1, n, WVM_QOS_CONTROL, 0, n);
	ck_assert_uint_eq(out_count, 39 - WVM_FORWARD_OPEN);
	ck_assert(wvm_hop_same(outs[0].hop, hop(2)));
	flush();
	ck_assert_uint_eq(out_count, 39);
}
END_TEST

START_TEST(padding_and_several_segments_of_one_datagram_are_understood)
{
	uint8_t buf[MTU] = {0};
	size_t len = segment(buf, 1, 2, WVM_QOS_CONTROL, 0, 5);

	out_count = 0;
	len += segment(buf + len, 1, 3, WVM_QOS_CONTROL, 100, 6);
	take(buf, len + 40, hop(1));
	flush();
	ck_assert_uint_eq(out_count, 2);
	ck_assert_uint_eq(outs[1].len, WVM_HEADER_BYTES + 100);
	ck_assert_uint_eq(f.counters.segments, 2);
}
END_TEST

START_TEST(hops_loops_and_lack_of_a_route_end_a_message)
{
	uint8_t buf[8192];
	size_t len = segment(buf, 1, 2, WVM_QOS_CONTROL, 0, 5);

	out_count = 0;
	buf[WVM_WIRE_HOPS_OFFSET] = 0;
	take(buf, len, hop(1));
	ck_assert_uint_eq(f.counters.hops_used_up, 1);
	buf[WVM_WIRE_HOPS_OFFSET] = WVM_HOPS_MAX + 1;
	take(buf, len, hop(1));
	ck_assert_uint_eq(f.counters.drops[WVM_DROP_HOPS], 1);
	take(buf, segment(buf, 1, 100, WVM_QOS_CONTROL, 0, 5), hop(50));
	ck_assert_uint_eq(f.counters.loops, 1);
	wvm_route_set_upstream(&routes, (struct wvm_hop){0});
	wvm_forward_routes_changed(&f);
	take(buf, segment(buf, 1, 100, WVM_QOS_CONTROL, 0, 5), hop(1));
	ck_assert_uint_eq(f.counters.no_route, 1);
	take(buf, segment(buf, 1, 2, WVM_QOS_BULK, 4096 - 64, 5), hop(1));
	ck_assert_uint_eq(f.counters.too_long, 1);
	flush();
	ck_assert_uint_eq(out_count, 0);
}
END_TEST

START_TEST(a_stranger_is_not_heard)
{
	out_count = 0;
	send_one(60, 2, WVM_QOS_CONTROL, 0, 1);
	flush();
	ck_assert_uint_eq(out_count, 0);
	ck_assert_uint_eq(f.counters.strangers, 1);
	ck_assert_uint_eq(routes.list[WVM_ROUTE_LEARNED].count, 0);
}
END_TEST

START_TEST(the_way_back_is_learned_from_a_neighbour)
{
	uint8_t buf[MTU];

	out_count = 0;
	take(buf, segment(buf, 200, 2, WVM_QOS_CONTROL, 0, 1), hop(3));
	take(buf, segment(buf, 2, 200, WVM_QOS_CONTROL, 0, 1), hop(2));
	flush();
	ck_assert_uint_eq(out_count, 2);
	ck_assert(wvm_hop_same(outs[1].hop, hop(3)));
	ck_assert_uint_eq(f.counters.learned, 1);
}
END_TEST

/* Any byte may be; of a vnode whose way is known it is passed on, for its receiver to see. */
START_TEST(nothing_is_learned_from_a_damaged_segment)
{
	uint8_t buf[MTU];
	size_t len = segment(buf, 200, 2, WVM_QOS_CONTROL, 80, 1);

	out_count = 0;
	for (size_t at = 0; at < len; at++) {
		if (at == WVM_WIRE_HOPS_OFFSET)
			continue; /* changes on the way, so the checksum is without it */
		buf[at] ^= 0x10;
		take(buf, len, hop(3));
		buf[at] ^= 0x10;
		ck_assert_uint_eq(routes.list[WVM_ROUTE_LEARNED].count, 0);
	}
	ck_assert_uint_eq(f.counters.learned, 0);
	ck_assert_uint_gt(f.counters.drops[WVM_DROP_CRC], 80);
	take(buf, len, hop(3));
	ck_assert_uint_eq(f.counters.learned, 1);
	out_count = 0;
	buf[len - 1] ^= 0x10;
	take(buf, len, hop(3));
	flush();
	ck_assert_uint_eq(out_count, 1);
}
END_TEST

START_TEST(a_full_lane_tells_the_sender_and_leaves_the_other_lane_alone)
{
	struct wvm_msg m;

	out_count = 0;
	allowed[WVM_FORWARD_BULK] = 1;
	send_one(1, 2, WVM_QOS_BULK, 1200, 70);
	send_one(1, 2, WVM_QOS_BULK, 1200, 71);
	send_one(1, 2, WVM_QOS_CONTROL, 0, 72);
	flush();
	ck_assert_uint_eq(out_count, 3);
	ck_assert_uint_eq(f.counters.pushed_back, 1);
	ck_assert_uint_eq(f.counters.forwarded, 2);
	ck_assert_int_eq(outs[0].lane, WVM_FORWARD_PUSH);
	ck_assert(wvm_hop_same(outs[0].hop, hop(1)));
	m = first_of(0, 0);
	ck_assert_int_eq(m.type, WVM_MSG_PUSH_BACK);
	ck_assert_uint_eq(m.request, 71);
	ck_assert_uint_eq(m.gpa, WVM_MSG_HEARTBEAT);
	ck_assert_uint_eq(m.src, 2);
	ck_assert_uint_eq(m.dst, 1);
	ck_assert_uint_eq(m.steer, 9);
}
END_TEST

START_TEST(what_nobody_can_be_told_of_is_counted_as_lost)
{
	uint8_t buf[MTU], push[WVM_HEADER_BYTES];

	out_count = 0;
	allowed[WVM_FORWARD_CONTROL] = allowed[WVM_FORWARD_PUSH] = 0;
	send_one(1, 2, WVM_QOS_CONTROL, 0, 1);
	ck_assert_uint_eq(f.counters.lost, 1);
	/* Of a push-back nobody is told: it would go round. */
	allowed[WVM_FORWARD_PUSH] = 1;
	segment(buf, 2, 1, WVM_QOS_CONTROL, 0, 1);
	ck_assert_uint_eq(wvm_wire_push_back(push, buf), WVM_HEADER_BYTES);
	take(push, sizeof(push), hop(1));
	ck_assert_uint_eq(f.counters.lost, 2);
	ck_assert_uint_eq(f.counters.pushed_back, 0);
	flush();
	ck_assert_uint_eq(out_count, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("forward");
	TCase *c = tcase_create("forward");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, a_lone_message_leaves_as_it_came_but_for_a_hop);
	tcase_add_test(c, messages_to_one_hop_share_datagrams_up_to_the_mtu_in_order);
	tcase_add_test(c, control_leaves_before_bulk_that_came_before_it);
	tcase_add_test(c, more_hops_than_places_close_the_oldest);
	tcase_add_test(c, padding_and_several_segments_of_one_datagram_are_understood);
	tcase_add_test(c, hops_loops_and_lack_of_a_route_end_a_message);
	tcase_add_test(c, a_stranger_is_not_heard);
	tcase_add_test(c, the_way_back_is_learned_from_a_neighbour);
	tcase_add_test(c, nothing_is_learned_from_a_damaged_segment);
	tcase_add_test(c, a_full_lane_tells_the_sender_and_leaves_the_other_lane_alone);
	tcase_add_test(c, what_nobody_can_be_told_of_is_counted_as_lost);
	suite_add_tcase(s, c);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
