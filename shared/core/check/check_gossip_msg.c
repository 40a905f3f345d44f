/* Gossip: messages as bytes. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/gossip.h"

static struct wvm_gossip_entry entry(uint32_t node)
{
	return (struct wvm_gossip_entry){.node = node,
					 .incarnation = 0x10001,
					 .ip = 0x0a000001,
					 .port = 9001,
					 .status = WVM_GOSSIP_ALIVE,
					 .life = WVM_NODE_ACTIVE};
}

/* Of each kind, with a few entries. */
static struct wvm_gossip_msg sample(uint8_t kind)
{
	struct wvm_gossip_msg m = {.kind = kind,
				   .tier = 1,
				   .top = 2,
				   .life = WVM_NODE_DRAINING,
				   .health = 3,
				   .busy = 1,
				   .count = 3,
				   .port = 0x2329,
				   .ip = 0x7f000001,
				   .epoch = 0x01020304,
				   .incarnation = 0x05060708};

	if (kind != WVM_GOSSIP_NEWS && kind != WVM_GOSSIP_ANNOUNCE)
		m.seq = 0x090a0b0c;
	if (m.seq && kind != WVM_GOSSIP_PROBE)
		m.target = 0xfffff;
	for (uint32_t i = 0; i < m.count; i++)
		m.entry[i] = entry(0x12345 + i);
	m.entry[1].status = WVM_GOSSIP_SUSPECT;
	m.entry[2].status = WVM_GOSSIP_DEAD;
	m.entry[2].life = WVM_NODE_OFFLINE;
	return m;
}

START_TEST(messages_come_back_from_their_bytes_and_wrong_bytes_do_not)
{
	struct wvm_gossip_msg m = sample((uint8_t)_i), back;
	uint8_t bytes[WVM_GOSSIP_BYTES_MAX], again[WVM_GOSSIP_BYTES_MAX];
	size_t len = wvm_gossip_encode(bytes, &m);
	unsigned taken = 0;

	ck_assert_uint_eq(len, WVM_GOSSIP_HEAD_BYTES + 3 * WVM_GOSSIP_ENTRY_BYTES);
	memset(&back, 0, sizeof(back));
	ck_assert(wvm_gossip_decode(&back, bytes, len));
	ck_assert(!memcmp(&m, &back, sizeof(m)));
	for (size_t n = 0; n < len; n++)
		ck_assert(!wvm_gossip_decode(&back, bytes, n));
	ck_assert(!wvm_gossip_decode(&back, bytes, len + 1));
	/* Whatever is taken is the bytes that it came from: nothing is looked past. */
	for (size_t at = 0; at < len; at++) {
		for (unsigned v = 0; v < 256; v++) {
			uint8_t was = bytes[at];

			bytes[at] = (uint8_t)v;
			if (wvm_gossip_decode(&back, bytes, len)) {
				ck_assert_uint_eq(wvm_gossip_encode(again, &back), len);
				ck_assert(!memcmp(bytes, again, len));
				taken += v != was;
			}
			bytes[at] = was;
		}
	}
	ck_assert_uint_gt(taken, 0);
}
END_TEST

START_TEST(bytes_lie_where_the_header_says)
{
	struct wvm_gossip_msg m = sample(WVM_GOSSIP_PROBE_FOR);
	uint8_t bytes[WVM_GOSSIP_BYTES_MAX];

	wvm_gossip_encode(bytes, &m);
	ck_assert(!memcmp(bytes,
			  "\3\1\2\3\3\1\0\3\x23\x29\0\0\x7f\0\0\1\1\2\3\4\5\6\7\x8\x9\xa\xb\xc"
			  "\0\xf\xff\xff"
			  "\0\1\x23\x45\0\1\0\1\xa\0\0\1\x23\x29\1\2\0\0\0\0\0\1\x23\x46",
			  56));
}
END_TEST

START_TEST(each_kind_travels_as_the_protocol_says)
{
	ck_assert_int_eq(wvm_gossip_type(WVM_GOSSIP_PROBE), WVM_MSG_HEARTBEAT);
	ck_assert_int_eq(wvm_gossip_type(WVM_GOSSIP_NACK), WVM_MSG_HEARTBEAT);
	ck_assert_int_eq(wvm_gossip_type(WVM_GOSSIP_ANNOUNCE), WVM_MSG_NODE_ANNOUNCE);
	ck_assert_int_eq(wvm_gossip_type(WVM_GOSSIP_PULL), WVM_MSG_VIEW_PULL);
	ck_assert_int_eq(wvm_gossip_type(WVM_GOSSIP_VIEW), WVM_MSG_VIEW_ACK);
}
END_TEST

START_TEST(what_is_not_well_formed_is_refused)
{
	struct wvm_gossip_msg good, m;

#define BAD(of, change)                                 \
	do {                                            \
		good = m = sample(of);                  \
		ck_assert(wvm_gossip_msg_check(&good)); \
		change;                                 \
		ck_assert(!wvm_gossip_msg_check(&m));   \
	} while (0)
	BAD(WVM_GOSSIP_PROBE, m.kind = 0);
	BAD(WVM_GOSSIP_PROBE, m.kind = WVM_GOSSIP_KINDS);
	BAD(WVM_GOSSIP_PROBE, m.tier = WVM_GOSSIP_TIERS);
	BAD(WVM_GOSSIP_PROBE, m.top = 0); /* below the tier that it speaks in */
	BAD(WVM_GOSSIP_PROBE, m.top = WVM_GOSSIP_TIERS);
	BAD(WVM_GOSSIP_PROBE, m.life = WVM_NODE_STATES);
	BAD(WVM_GOSSIP_PROBE, m.life = WVM_NODE_LOST); /* nobody is that who speaks */
	BAD(WVM_GOSSIP_PROBE, m.health = WVM_GOSSIP_HEALTH + 1);
	BAD(WVM_GOSSIP_PROBE, m.busy = 2);
	BAD(WVM_GOSSIP_PROBE, m.zero2 = 1);
	BAD(WVM_GOSSIP_PROBE, m.count = WVM_GOSSIP_ENTRIES + 1);
	BAD(WVM_GOSSIP_PROBE, m.port = 0);
	BAD(WVM_GOSSIP_PROBE, m.ip = 0x00ffffff);
	BAD(WVM_GOSSIP_PROBE, m.ip = 0xe0000001); /* multicast */
	BAD(WVM_GOSSIP_PROBE, m.incarnation = 0);
	BAD(WVM_GOSSIP_PROBE, m.incarnation = WVM_GOSSIP_INCARNATION_MAX + 1);
	BAD(WVM_GOSSIP_PROBE, m.seq = 0);
	BAD(WVM_GOSSIP_PROBE, m.target = 1);
	BAD(WVM_GOSSIP_ACK, m.target = WVM_NODE_MAX);
	BAD(WVM_GOSSIP_PULL, m.target = WVM_NODE_MAX);
	BAD(WVM_GOSSIP_PULL, m.seq = 0);
	BAD(WVM_GOSSIP_VIEW, m.target = WVM_NODE_MAX + 1);
	BAD(WVM_GOSSIP_VIEW, m.target = m.entry[2].node); /* it would come again, for ever */
	BAD(WVM_GOSSIP_VIEW, m.entry[1].node = m.entry[0].node);
	BAD(WVM_GOSSIP_NEWS, m.seq = 1);
	BAD(WVM_GOSSIP_NEWS, m.target = 1);
	BAD(WVM_GOSSIP_NEWS, m.entry[2].node = WVM_NODE_MAX);
	BAD(WVM_GOSSIP_NEWS, m.entry[2].incarnation = 0);
	BAD(WVM_GOSSIP_NEWS, m.entry[2].ip = 0);
	BAD(WVM_GOSSIP_NEWS, m.entry[2].port = 0);
	BAD(WVM_GOSSIP_NEWS, m.entry[2].status = 0);
	BAD(WVM_GOSSIP_NEWS, m.entry[2].status = WVM_GOSSIP_STATUSES);
	BAD(WVM_GOSSIP_NEWS, m.entry[2].status = WVM_GOSSIP_ALIVE); /* and OFFLINE */
	BAD(WVM_GOSSIP_NEWS, m.entry[2].life = WVM_NODE_STATES);
	BAD(WVM_GOSSIP_NEWS, m.entry[2].life = WVM_NODE_LOST); /* a record says so, not gossip */
	BAD(WVM_GOSSIP_NEWS, m.entry[2].top = WVM_GOSSIP_TIERS);
	BAD(WVM_GOSSIP_NEWS, m.entry[2].zero[2] = 1);
	m = sample(WVM_GOSSIP_VIEW);
	m.target = WVM_NODE_MAX;
	ck_assert(wvm_gossip_msg_check(&m));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gossip_msg");
	TCase *tc = tcase_create("gossip_msg");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tc, messages_come_back_from_their_bytes_and_wrong_bytes_do_not,
			    WVM_GOSSIP_PROBE, WVM_GOSSIP_KINDS);
	tcase_add_test(tc, bytes_lie_where_the_header_says);
	tcase_add_test(tc, each_kind_travels_as_the_protocol_says);
	tcase_add_test(tc, what_is_not_well_formed_is_refused);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
