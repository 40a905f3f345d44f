/*
 * Who has no business in the runs of processors is not heard: owners that put on their channels
 * what is not theirs to say, damage them or do not read them, members and strangers in an owner's
 * or a slave's name. Each datagram is dropped and counted, and runs go on.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "roles/check/owner.h"
#include "roles/check/stranger.h"
#include "shared/client_vcpu_priv.h"
#include "shared/wire.h"

#define OWNER 0u
#define SLAVE 1u
#define LIFE  UINT64_C(0x5110e0001)

static struct cluster cluster;
static struct echo slave;

/* ---- hostile owners ---------------------------------------------------------------------- */

static void put_raw(struct wvm_vcpu_link *l, uint32_t type, const void *a, uint32_t a_len,
		    const void *b, uint32_t b_len)
{
	while (wvm_spsc_push2(&l->tx, type, a, a_len, b, b_len) == -EAGAIN)
		cluster_sleep_ms(1);
	ck_assert_int_eq(eventfd_write(l->to_master_fd, 1), 0);
}

static uint64_t dropped(const char *reason)
{
	char name[32];

	snprintf(name, sizeof(name), "dropped_%s", reason);
	return cluster_stat(&cluster, OWNER, "vcpus", name);
}

static void expect_drop(const char *reason, uint64_t before)
{
	uint64_t end = cluster_now_ms() + 5000;

	while (dropped(reason) == before && cluster_now_ms() < end)
		cluster_sleep_ms(5);
	ck_assert_msg(dropped(reason) == before + 1, "%s: %lu, before %lu", reason, dropped(reason),
		      before);
}

/* A good one of processor 2, to be made a bad one. */
static struct wvm_msg good(uint8_t type)
{
	bool run = type == WVM_MSG_VCPU_RUN;

	return (struct wvm_msg){.type = type,
				.vm_id = CLUSTER_VM,
				.dst = SLAVE,
				.request = 1,
				.gpa = 2,
				.version = 1,
				.grant = LIFE,
				.payload_len = run ? 64 : 0,
				.seg_total = run ? 64 : 0};
}

START_TEST(records_that_are_not_this_owners_are_dropped)
{
	static const uint8_t bytes[65000];
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 2);
	struct {
		const char *reason;
		uint32_t type, len, payload;
		struct wvm_msg m;
	} cases[] = {
		{"short", WVM_RING_DATAGRAM, 0, 0, good(WVM_MSG_VCPU_KICK)},
		{"short", WVM_RING_DATAGRAM, 71, 0, good(WVM_MSG_VCPU_KICK)},
		{"short", WVM_RING_MAP, 72, 0, good(WVM_MSG_VCPU_KICK)},
		{"short", 4711, 72, 64, good(WVM_MSG_VCPU_RUN)},
		{"length", WVM_RING_DATAGRAM, 72, 8, good(WVM_MSG_VCPU_KICK)},
		{"length", WVM_RING_DATAGRAM, 72, 63, good(WVM_MSG_VCPU_RUN)},
		{"type", WVM_RING_DATAGRAM, 72, 0, good(WVM_MSG_VCPU_TAKEN)},
		{"type", WVM_RING_DATAGRAM, 72, 0, good(WVM_MSG_MEM_READ)},
		{"type", WVM_RING_DATAGRAM, 72, 0, good(WVM_MSG_VCPU_HELLO)},
		{"vm", WVM_RING_DATAGRAM, 72, 64, good(WVM_MSG_VCPU_RUN)},
		{"gpa", WVM_RING_DATAGRAM, 72, 64, good(WVM_MSG_VCPU_RUN)},
		{"node", WVM_RING_DATAGRAM, 72, 64, good(WVM_MSG_VCPU_RUN)},
		{"node", WVM_RING_DATAGRAM, 72, 64, good(WVM_MSG_VCPU_RUN)},
		{"qos", WVM_RING_DATAGRAM, 72, 64, good(WVM_MSG_VCPU_RUN)},
		{"flags", WVM_RING_DATAGRAM, 72, 64, good(WVM_MSG_VCPU_RUN)},
		{"auth", WVM_RING_DATAGRAM, 72, 64, good(WVM_MSG_VCPU_RUN)},
		{"segment", WVM_RING_DATAGRAM, 72, 64, good(WVM_MSG_VCPU_RUN)},
		{"request", WVM_RING_DATAGRAM, 72, 0, good(WVM_MSG_VCPU_KICK)},
		{"grant", WVM_RING_DATAGRAM, 72, 0, good(WVM_MSG_VCPU_KICK)},
		{"long", WVM_RING_DATAGRAM, 72, 64000, good(WVM_MSG_VCPU_RUN)},
	};
	unsigned i = 8;

	cases[i++].m.flags = WVM_MSG_ANSWER;
	cases[i++].m.vm_id = CLUSTER_VM + 1;
	cases[i++].m.gpa = 3;
	cases[i++].m.dst = 2;
	cases[i++].m.dst = UINT32_MAX;
	cases[i++].m.qos = 2;
	cases[i++].m.flags = WVM_MSG_ERROR;
	cases[i++].m.flags = WVM_MSG_AUTH;
	cases[i++].m.seg_offset = 7;
	cases[i++].m.request = 0;
	cases[i++].m.grant = 0;
	cases[i].m.payload_len = cases[i].m.seg_total = 64000;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t before = dropped(cases[i].reason);

		put_raw(l, cases[i].type, &cases[i].m, cases[i].len, bytes, cases[i].payload);
		expect_drop(cases[i].reason, before);
	}
	/* And after all that it works. */
	echo_start(&slave, &cluster, SLAVE, LIFE);
	ck_assert_uint_eq(owner_learn(l, SLAVE), LIFE);
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

START_TEST(a_damaged_ring_harms_its_own_program_alone)
{
	struct wvm *w = owner_attach(&cluster, OWNER), *bad = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 0), *broken = owner_open(bad, 1);
	uint64_t before = cluster_stat(&cluster, OWNER, "vcpus", "channels");
	uint64_t end = cluster_now_ms() + 5000;
	struct wvm_vcpu_answer a;
	uint64_t life;

	echo_start(&slave, &cluster, SLAVE, LIFE);
	memset(broken->mem, 0xff, WVM_VCPU_CHANNEL_BYTES);
	ck_assert_int_eq(eventfd_write(broken->to_master_fd, 1), 0);
	while (cluster_stat(&cluster, OWNER, "vcpus", "channels") == before &&
	       cluster_now_ms() < end)
		cluster_sleep_ms(5);
	ck_assert_uint_eq(cluster_stat(&cluster, OWNER, "vcpus", "channels"), before - 1);
	life = owner_learn(l, SLAVE);
	ck_assert_int_eq(wvm_vcpu_run(l, SLAVE, life, "a", 1, &a), 0);
	ck_assert(owner_is_echo("a", 1, &a));
	/* It is not heard any more; its requests end by themselves. */
	ck_assert_int_eq(wvm_vcpu_open(&broken, bad, CLUSTER_VM, 9), -ETIMEDOUT);
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

/* One that does not read what comes finds the rest dropped, and goes on when it does. */
START_TEST(a_full_channel_drops_what_comes)
{
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 0);
	uint64_t before = dropped("room"), end = cluster_now_ms() + 20000;
	struct wvm_msg m = good(WVM_MSG_VCPU_HELLO);

	echo_start(&slave, &cluster, SLAVE, LIFE);
	m.gpa = 0;
	m.grant = 0;
	while (dropped("room") == before && cluster_now_ms() < end)
		for (unsigned i = 0; i < 256; i++)
			put_raw(l, WVM_RING_DATAGRAM, &m, sizeof(m), NULL, 0);
	ck_assert_uint_gt(dropped("room"), before);
	ck_assert_uint_eq(owner_learn(l, SLAVE), LIFE);
	wvm_vcpu_close(l);
	wvm_detach(w);
	echo_stop(&slave);
}
END_TEST

/* ---- strangers ---------------------------------------------------------------------------- */

static uint64_t wire_drops(const char *reason)
{
	return cluster_stat(&cluster, OWNER, "drops", reason);
}

static void expect_wire_drop(const char *reason, uint64_t before, uint8_t type)
{
	uint64_t end = cluster_now_ms() + 5000;

	while (wire_drops(reason) == before && cluster_now_ms() < end)
		cluster_sleep_ms(5);
	ck_assert_msg(wire_drops(reason) == before + 1, "%s: %s: %lu, before %lu",
		      wvm_msg_name(type), reason, wire_drops(reason), before);
}

static size_t encode(uint8_t out[STRANGER_MTU], uint8_t type, uint32_t src, uint32_t dst,
		     uint8_t flags)
{
	static const uint8_t payload[64];
	struct wvm_msg m = good(type);
	size_t len;

	if (type == WVM_MSG_VCPU_EXIT)
		m.payload_len = m.seg_total = 64;
	m.src = src;
	m.dst = dst;
	m.epoch = 1;
	m.flags = flags;
	m.hops = WVM_HOPS_MAX;
	m.gpa = 0;
	len = wvm_wire_encode(out, STRANGER_MTU, &m, payload);
	ck_assert_uint_gt(len, 0);
	return len;
}

START_TEST(strangers_have_no_say)
{
	static const struct {
		uint8_t type, flags;
		bool to_owner;
	} all[] = {{WVM_MSG_VCPU_RUN, 0, false},
		   {WVM_MSG_VCPU_EXIT, 0, true},
		   {WVM_MSG_VCPU_KICK, 0, false},
		   {WVM_MSG_VCPU_TAKEN, 0, true},
		   {WVM_MSG_VCPU_DONE, 0, false},
		   {WVM_MSG_VCPU_HELLO, 0, false},
		   {WVM_MSG_VCPU_HELLO, WVM_MSG_ANSWER, true}};
	static const struct {
		uint32_t src, dst;
		const char *from_stranger, *from_member;
	} who[] = {{1, 0, "source", NULL},     /* as a member says it */
		   {0, 1, "source", "source"}, /* as our slave would */
		   {0, 0, "source", "source"},
		   {1, 1, "source", "node"}, /* for another node */
		   {2, 0, "node", "node"}};
	struct wvm *w = owner_attach(&cluster, OWNER);
	struct wvm_vcpu_link *l = owner_open(w, 0);
	uint64_t relayed = cluster_stat(&cluster, OWNER, "vcpus", "to_slave") +
			   cluster_stat(&cluster, OWNER, "vcpus", "from_slave");
	uint8_t out[STRANGER_MTU];

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (unsigned k = 0; k < sizeof(who) / sizeof(who[0]); k++) {
			size_t len = encode(out, all[i].type, who[k].src, who[k].dst, all[i].flags);
			uint64_t before = wire_drops(who[k].from_stranger);

			stranger_send(&cluster, OWNER, out, len);
			expect_wire_drop(who[k].from_stranger, before, all[i].type);
			if (!who[k].from_member)
				continue;
			before = wire_drops(who[k].from_member);
			stranger_send_as(&cluster, SLAVE, OWNER, out, len);
			expect_wire_drop(who[k].from_member, before, all[i].type);
		}
	ck_assert_uint_eq(cluster_stat(&cluster, OWNER, "vcpus", "to_slave") +
				  cluster_stat(&cluster, OWNER, "vcpus", "from_slave"),
			  relayed);
	wvm_vcpu_close(l);
	wvm_detach(w);
}
END_TEST

/* At the slave's address: it may answer, in this node's name, and nothing else. */
START_TEST(a_slave_may_answer_and_nothing_else)
{
	static const uint8_t to_slave[] = {WVM_MSG_VCPU_RUN, WVM_MSG_VCPU_KICK, WVM_MSG_VCPU_DONE,
					   WVM_MSG_VCPU_HELLO};
	struct sockaddr_in at, to;
	uint8_t out[STRANGER_MTU];
	uint64_t before;
	size_t len;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	at = stranger_address("127.0.0.1", cluster.node[OWNER].slave_port);
	to = stranger_address(cluster.node[OWNER].ip, cluster.node[OWNER].port);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	for (unsigned i = 0; i < sizeof(to_slave); i++) {
		before = wire_drops("type");
		len = encode(out, to_slave[i], 0, 1, 0);
		ck_assert_int_eq(send(fd, out, len, 0), (int)len);
		expect_wire_drop("type", before, to_slave[i]);
	}
	before = wire_drops("node");
	len = encode(out, WVM_MSG_VCPU_EXIT, 0, 2, 0);
	ck_assert_int_eq(send(fd, out, len, 0), (int)len);
	expect_wire_drop("node", before, WVM_MSG_VCPU_EXIT);
	before = wire_drops("source");
	len = encode(out, WVM_MSG_VCPU_EXIT, 1, 0, 0);
	ck_assert_int_eq(send(fd, out, len, 0), (int)len);
	expect_wire_drop("source", before, WVM_MSG_VCPU_EXIT);
	/* Nobody here owns that processor; there, neither. */
	before = wire_drops("vm");
	len = encode(out, WVM_MSG_VCPU_TAKEN, 0, 0, 0);
	ck_assert_int_eq(send(fd, out, len, 0), (int)len);
	expect_wire_drop("vm", before, WVM_MSG_VCPU_TAKEN);
	before = cluster_stat(&cluster, SLAVE, "drops", "vm");
	len = encode(out, WVM_MSG_VCPU_TAKEN, 0, 1, 0);
	ck_assert_int_eq(send(fd, out, len, 0), (int)len);
	while (cluster_stat(&cluster, SLAVE, "drops", "vm") == before)
		cluster_sleep_ms(5);
	close(fd);
}
END_TEST

/* ---- suites ------------------------------------------------------------------------------- */

static void on_loopback(void)
{
	cluster_start(&cluster, &(struct cluster_opts){.nodes = 2});
}

static void stop(void)
{
	cluster_stop(&cluster);
}

static Suite *hostile_suite(void)
{
	Suite *s = suite_create("vcpus_hostile");
	TCase *t = cluster_tcase(s, "on loopback", 120);

	tcase_add_unchecked_fixture(t, on_loopback, stop);
	tcase_add_test(t, records_that_are_not_this_owners_are_dropped);
	tcase_add_test(t, a_damaged_ring_harms_its_own_program_alone);
	tcase_add_test(t, a_full_channel_drops_what_comes);
	tcase_add_test(t, strangers_have_no_say);
	tcase_add_test(t, a_slave_may_answer_and_nothing_else);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {hostile_suite};

	return cluster_main(argv, suites, 1);
}
