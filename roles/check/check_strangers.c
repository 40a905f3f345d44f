/*
 * Datagrams that are nobody's, damaged, or not what their sender may say, sent
 * to every port of every master while programs verify their memory: dropped,
 * counted by their reason, and nothing changes.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "roles/check/program.h"
#include "roles/check/stranger.h"
#include "shared/control.h"
#include "shared/core/slices.h"
#include "shared/wire.h"

#define NODES    3u
#define BOOT     6u /* of every master here: older ones exist */
#define OLD_BOOT 3u
#define EPOCH    1u
#define MTU      STRANGER_MTU
#define EACH     300u /* datagrams of one kind to one master */
#define MANY     1200u
#define UNITS    64u /* of 2 MiB, half of them on each side of the border between two shards */
#define UNIT     (2 * MIB)
#define AREA_GPA (GIB - UNITS / 2 * UNIT)
#define AREA_LEN (UNITS * UNIT)

/* Pages of every unit: one that all programs increment, one for each program's patterns. */
#define COUNTER_PAGE 7u
#define PATTERN_PAGE 8u
#define USED_PAGES   4u

/* Words of the arena. */
enum { READY = 10, STOP, ADDED };

static struct cluster cluster;
static uint8_t home_of[UNITS];
/* ---- the cluster and its verifying programs ------------------------------------------------ */

static void start(void)
{
	cluster_prepare(&cluster, &(struct cluster_opts){.shards = "2"});
	for (unsigned i = 0; i < NODES; i++) {
		char path[256];
		FILE *f;

		ck_assert_int_eq(mkdir(cluster.node[i].state, 0755), 0);
		snprintf(path, sizeof(path), "%s/boot.%u", cluster.node[i].state, i);
		f = fopen(path, "we");
		fprintf(f, "%u\n", BOOT - 1);
		ck_assert_int_eq(fclose(f), 0);
		cluster_node_start(&cluster, i, NULL);
	}
	for (unsigned i = 0; i < NODES; i++)
		cluster_node_await(&cluster, i);
}

static void stop(void)
{
	cluster_stop(&cluster);
}

static uint64_t *page_in(uint64_t *base, unsigned unit, unsigned page)
{
	return base + (unit * UNIT + page * PAGE) / sizeof(*base);
}

/* Finds out which units are whose, and lets every home hear from this node. */
static void look_around(struct program *p, uint64_t *base)
{
	for (unsigned i = 0; i < UNITS; i++) {
		int home = wvm_where(p->wvm, CLUSTER_VM, AREA_GPA + i * UNIT);

		NEED(p, home >= 0 && home < (int)NODES, "home %d", home);
		p->arena->model[i] = (uint64_t)home;
		__atomic_fetch_add(page_in(base, i, 0), 1, __ATOMIC_SEQ_CST);
	}
}

static void verify_own(struct program *p, uint64_t *base, unsigned unit, uint64_t generation)
{
	int at = pattern_differs(page_in(base, unit, PATTERN_PAGE + p->index), unit, generation);

	NEED(p, at < 0, "unit %u word %d in generation %lu", unit, at, generation);
}

static void work(struct program *p)
{
	uint64_t *base = program_map(p, AREA_GPA, AREA_LEN), added = 0;

	look_around(p, base);
	for (uint64_t round = 1; !atomic_load(&p->arena->word[STOP]); round++) {
		for (unsigned i = 0; i < UNITS; i++) {
			unsigned unit = (unsigned)(program_random(p) % UNITS);

			if (round > 1)
				verify_own(p, base, i, round - 1);
			pattern_fill(page_in(base, i, PATTERN_PAGE + p->index), i, round);
			__atomic_fetch_add(page_in(base, unit, COUNTER_PAGE), 1, __ATOMIC_SEQ_CST);
			added++;
			usleep(50);
		}
		for (unsigned i = 0; i < UNITS; i++)
			verify_own(p, base, i, round);
		if (round == 1)
			atomic_fetch_add(&p->arena->word[READY], 1);
	}
	atomic_fetch_add(&p->arena->word[ADDED], added);
}

static void verify(struct program *p)
{
	uint64_t *base = program_map(p, AREA_GPA, AREA_LEN), sum = 0;

	for (unsigned i = 0; i < UNITS; i++)
		sum += load(page_in(base, i, COUNTER_PAGE));
	NEED(p, sum == p->arena->word[ADDED], "%lu of %llu", sum, p->arena->word[ADDED]);
}

/* Puts the counters back, for the next test. */
static void clear(struct program *p)
{
	uint64_t *base = program_map(p, AREA_GPA, AREA_LEN);

	for (unsigned i = 0; i < UNITS; i++)
		store(page_in(base, i, COUNTER_PAGE), 0);
}

static void at_work(void (*storm)(void))
{
	struct arena *a = arena_new(UNITS);
	struct program programs[NODES], *list[NODES];

	programs_run(&cluster, a, (const unsigned[]){0}, 1, clear, NULL);
	for (unsigned i = 0; i < NODES; i++) {
		programs[i] = (struct program){
			.cluster = &cluster, .arena = a, .node = i, .index = i, .count = NODES};
		list[i] = &programs[i];
		program_start(list[i], work);
	}
	while (a->word[READY] < NODES && !a->failed)
		cluster_sleep_ms(1);
	for (unsigned i = 0; i < UNITS; i++)
		home_of[i] = (uint8_t)a->model[i];
	storm();
	a->word[STOP] = 1;
	programs_await(list, NODES);
	programs_run(&cluster, a, (const unsigned[]){0, 1, 2}, NODES, verify, NULL);
	for (unsigned i = 0; i < NODES; i++) {
		json_t *o = cluster_json(&cluster, i, "status");

		ck_assert_str_eq(json_string_value(json_object_get(o, "state")), "serving");
		json_decref(o);
	}
	arena_free(a);
}

/* ---- sending --------------------------------------------------------------------------- */

/* Not faster than a busy master reads. */
static void pace(unsigned i)
{
	if (i % 50 == 49)
		cluster_sleep_ms(2);
}

/* ---- counters -------------------------------------------------------------------------- */

/* Every one of n datagrams is dropped for this reason (0: for some), and none for another. */
static void expect_drops(unsigned node, const uint64_t before[WVM_DROP_REASONS], unsigned reason,
			 unsigned n, const char *what)
{
	uint64_t now[WVM_DROP_REASONS], end = cluster_now_ms() + 10000;
	bool work_causes_it = reason >= WVM_DROP_STALE;

	do
		stranger_drops(&cluster, node, now);
	while (now[reason] < before[reason] + n && cluster_now_ms() < end);
	ck_assert_msg(now[reason] - before[reason] == n ||
			      (work_causes_it && now[reason] - before[reason] > n),
		      "%s at node %u: %lu of %u counted as '%s'", what, node,
		      now[reason] - before[reason], n, reason ? wvm_drop_name(reason) : "any");
	ck_assert_msg(now[0] - before[0] == (work_causes_it ? 0 : n),
		      "%s at node %u: %lu drops for other reasons than '%s'", what, node,
		      now[0] - before[0] - (work_causes_it ? 0 : n), wvm_drop_name(reason));
}

/* ---- messages -------------------------------------------------------------------------- */

/* A page whose home is `home`; most are in use. */
static uint64_t page_of(unsigned home)
{
	unsigned unit;

	do
		unit = (unsigned)(stranger_chance() % UNITS);
	while (home_of[unit] != home);
	if (stranger_chance() % 4)
		return AREA_GPA + unit * UNIT +
		       (COUNTER_PAGE + stranger_chance() % USED_PAGES) * PAGE;
	return AREA_GPA + unit * UNIT + stranger_chance() % WVM_UNIT_PAGES * PAGE;
}

/* An id of the boot: the counter is of no request that is under way. */
static uint64_t request_id(const struct wvm_msg *m, uint16_t boot, bool by_home)
{
	unsigned shard = by_home ? wvm_slice_of(m->vm_id, m->gpa) % 2 : (m->gpa >> 30) % 2;

	return wvm_request_id(boot, (uint8_t)shard, stranger_chance() >> 30);
}

/* What member `from` could say to member `to`, in the boot that is. */
static struct wvm_msg message(unsigned type, unsigned from, unsigned to)
{
	bool to_home = type != WVM_MSG_MEM_ACK && type != WVM_MSG_INVALIDATE &&
		       type != WVM_MSG_WRITE_BACK_ACK;
	bool by_home = type != WVM_MSG_MEM_READ && type != WVM_MSG_MEM_ACQUIRE &&
		       type != WVM_MSG_MEM_ACK;
	uint64_t gpa = page_of(to_home ? to : from);
	struct wvm_msg m = {.type = (uint8_t)type,
			    .node_state = WVM_NODE_ACTIVE,
			    .hops = WVM_HOPS_MAX,
			    .vm_id = CLUSTER_VM,
			    .epoch = EPOCH,
			    .src = from,
			    .dst = to,
			    .gpa = gpa,
			    .version = 12};

	m.request = request_id(&m, BOOT, by_home);
	m.grant = request_id(&m, BOOT, false);
	m.steer = (uint16_t)(to_home ? wvm_slice_of(CLUSTER_VM, gpa) : gpa >> WVM_RANGE_SHIFT);
	if (type == WVM_MSG_MEM_ACK || type == WVM_MSG_WRITE_BACK)
		m.flags = WVM_MSG_ZERO;
	return m;
}

static size_t encode(uint8_t out[MTU], const struct wvm_msg *m, const void *payload)
{
	size_t len = wvm_wire_encode(out, MTU, m, payload);

	ck_assert_uint_ge(len, WVM_HEADER_BYTES);
	return len;
}

/* ---- what is wrong with a header ------------------------------------------------------- */

/* One field of a good message, made wrong, under a good checksum unless that is what is wrong. */
static const struct poke {
	const char *what;
	enum wvm_drop reason;
	uint8_t type, at, bytes, value;
} pokes[] = {
	{"another magic", WVM_DROP_MAGIC, WVM_MSG_MEM_READ, 0, 1, 'w'},
	{"an older version", WVM_DROP_VERSION, WVM_MSG_MEM_READ, 4, 1, 30},
	{"a newer version", WVM_DROP_VERSION, WVM_MSG_MEM_READ, 4, 1, 32},
	{"the retired type", WVM_DROP_TYPE, WVM_MSG_MEM_READ, 5, 1, 2},
	{"a type that there is not", WVM_DROP_TYPE, WVM_MSG_MEM_READ, 5, 1, 200},
	{"a tag", WVM_DROP_AUTH, WVM_MSG_MEM_READ, 6, 1, 0x80},
	{"a flag of another type", WVM_DROP_FLAGS, WVM_MSG_MEM_READ, 6, 1, 0x20},
	{"a flag of other types", WVM_DROP_FLAGS, WVM_MSG_INVALIDATE, 6, 1, WVM_MSG_ZERO},
	{"a lane that there is not", WVM_DROP_QOS, WVM_MSG_MEM_READ, 7, 1, 0x52},
	{"a state that there is not", WVM_DROP_STATE, WVM_MSG_MEM_READ, 7, 1, 0x09},
	{"a length beyond the datagram", WVM_DROP_LENGTH, WVM_MSG_MEM_READ, 10, 1, 4},
	{"a segment of nothing", WVM_DROP_SEGMENT, WVM_MSG_MEM_READ, 23, 1, 1},
	{"no request id", WVM_DROP_REQUEST, WVM_MSG_MEM_READ, 32, 8, 0},
	{"no grant id", WVM_DROP_GRANT, WVM_MSG_INVALIDATE, 48, 8, 0},
	{"an address within a page", WVM_DROP_GPA, WVM_MSG_MEM_READ, 62, 1, 1},
	{"an address beyond any guest", WVM_DROP_GPA, WVM_MSG_MEM_READ, 56, 1, 0xff},
	{"too many hops", WVM_DROP_HOPS, WVM_MSG_MEM_READ, 63, 1, 33},
	{"a sender that is no member", WVM_DROP_NODE, WVM_MSG_MEM_READ, 16, 1, 0x11},
	{"a bad checksum", WVM_DROP_CRC, WVM_MSG_MEM_READ, 47, 1, 0x77},
};

static void poked_to(unsigned node, const struct poke *k)
{
	uint64_t before[WVM_DROP_REASONS];

	stranger_drops(&cluster, node, before);
	for (unsigned i = 0; i < EACH; i++) {
		unsigned from = (node + 1 + i % 2) % NODES;
		struct wvm_msg m = message(k->type, from, node);
		uint8_t data[MTU] = {0};
		size_t len = encode(data, &m, NULL);

		memset(data + k->at, k->value, k->bytes);
		if (k->reason != WVM_DROP_CRC)
			wvm_wire_seal(data, len);
		if (k->reason == WVM_DROP_AUTH)
			len += WVM_TAG_BYTES;
		/* Even from the right address. */
		if (i % 2)
			stranger_send_as(&cluster, from, node, data, len);
		else
			stranger_send(&cluster, node, data, len);
		pace(i);
	}
	expect_drops(node, before, k->reason, EACH, k->what);
}

static void poked(void)
{
	for (unsigned k = 0; k < sizeof(pokes) / sizeof(pokes[0]); k++)
		poked_to(k % NODES, &pokes[k]);
}

START_TEST(a_header_with_one_wrong_field_is_dropped_for_that_field)
{
	at_work(poked);
}
END_TEST

/* ---- what is wrong only here and now --------------------------------------------------- */

/* A field of a message from the right address that cannot be. */
struct claim {
	const char *what;
	enum wvm_drop reason;
	enum wvm_msg_type type;
	void (*change)(struct wvm_msg *m);
};

static void other_epoch(struct wvm_msg *m)
{
	m->epoch++;
}

/* Of a member that begins, and has not learnt this node's epoch, or has learnt a later one. */
static void ask_in_another_epoch(struct wvm_msg *m)
{
	m->epoch += 1 - stranger_chance() % 2 * 2;
	m->vm_id = m->steer = 0;
	m->gpa = m->grant = m->version = 0;
}

static void other_vm(struct wvm_msg *m)
{
	m->vm_id = 77;
	m->steer = (uint16_t)wvm_slice_of(m->vm_id, m->gpa);
}

static void beyond_the_guest(struct wvm_msg *m)
{
	m->gpa = 3 * GIB + stranger_chance() % 4096 * PAGE;
	m->steer = (uint16_t)wvm_slice_of(m->vm_id, m->gpa);
}

static void to_another(struct wvm_msg *m)
{
	m->dst = 3 - m->src - m->dst;
}

static void of_an_older_boot(struct wvm_msg *m)
{
	m->request = request_id(m, OLD_BOOT, m->type == WVM_MSG_INVALIDATE);
	m->grant = request_id(m, OLD_BOOT, false);
}

static void of_a_boot_to_come(struct wvm_msg *m)
{
	m->request = request_id(m, OLD_BOOT, true);
	m->grant = request_id(m, BOOT + 9, false);
}

static void of_no_grant(struct wvm_msg *m)
{
}

static void of_a_version_to_come(struct wvm_msg *m)
{
	m->version = UINT64_C(1) << 60;
}

static const struct claim claims[] = {
	{"another epoch", WVM_DROP_EPOCH, WVM_MSG_MEM_READ, other_epoch},
	{"an unknown VM", WVM_DROP_VM, WVM_MSG_MEM_READ, other_vm},
	{"an address beyond the guest", WVM_DROP_GPA, WVM_MSG_MEM_READ, beyond_the_guest},
	{"another receiver", WVM_DROP_NODE, WVM_MSG_MEM_ACQUIRE, to_another},
	{"a read of an older boot", WVM_DROP_STALE, WVM_MSG_MEM_READ, of_an_older_boot},
	{"a write of an older boot", WVM_DROP_STALE, WVM_MSG_MEM_ACQUIRE, of_an_older_boot},
	{"an invalidation of an older boot", WVM_DROP_STALE, WVM_MSG_INVALIDATE, of_an_older_boot},
	{"an invalidation of a boot to come", WVM_DROP_STALE, WVM_MSG_INVALIDATE,
	 of_a_boot_to_come},
	{"a grant that nobody asked for", WVM_DROP_STALE, WVM_MSG_MEM_ACK, of_no_grant},
	{"a write-back of a version to come", WVM_DROP_STALE, WVM_MSG_WRITE_BACK,
	 of_a_version_to_come},
	{"a question of another epoch", WVM_DROP_NONE, WVM_MSG_REPORT, ask_in_another_epoch},
	/* Stored long ago, for all that the home knows: acknowledged, and nothing else. */
	{"a write-back of an older version", WVM_DROP_NONE, WVM_MSG_WRITE_BACK, of_no_grant},
	{"an acknowledgement of nothing", WVM_DROP_STALE, WVM_MSG_INVALIDATE_ACK, of_no_grant},
	{"an acknowledged write-back of nobody", WVM_DROP_STALE, WVM_MSG_WRITE_BACK_ACK,
	 of_no_grant},
	{"a loss of what was never granted", WVM_DROP_STALE, WVM_MSG_LOST, of_no_grant},
	{"a refusal of what was never granted", WVM_DROP_STALE, WVM_MSG_NOT_HELD, of_no_grant},
};

static void claimed_to(unsigned node, const struct claim *k)
{
	uint64_t before[WVM_DROP_REASONS];

	stranger_drops(&cluster, node, before);
	for (unsigned i = 0; i < EACH; i++) {
		unsigned from = (node + 1 + i % 2) % NODES;
		struct wvm_msg m = message(k->type, from, node);
		uint8_t data[MTU];

		k->change(&m);
		stranger_send_as(&cluster, from, node, data, encode(data, &m, NULL));
		pace(i);
	}
	expect_drops(node, before, k->reason, k->reason ? EACH : 0, k->what);
}

static void claimed(void)
{
	for (unsigned k = 0; k < sizeof(claims) / sizeof(claims[0]); k++)
		claimed_to(k % NODES, &claims[k]);
}

START_TEST(a_message_that_cannot_be_meant_is_dropped_for_its_reason)
{
	at_work(claimed);
}
END_TEST

static void good_from_a_stranger(void)
{
	static const uint8_t types[] = {WVM_MSG_MEM_READ,   WVM_MSG_MEM_ACQUIRE, WVM_MSG_MEM_ACK,
					WVM_MSG_INVALIDATE, WVM_MSG_WRITE_BACK,  WVM_MSG_LOST,
					WVM_MSG_NOT_HELD,   WVM_MSG_PING};

	for (unsigned node = 0; node < NODES; node++) {
		uint64_t before[WVM_DROP_REASONS];

		stranger_drops(&cluster, node, before);
		for (unsigned i = 0; i < MANY; i++) {
			struct wvm_msg m = message(types[i % 8], (node + 1) % NODES, node);
			uint8_t data[MTU];

			stranger_send(&cluster, node, data, encode(data, &m, NULL));
			pace(i);
		}
		expect_drops(node, before, WVM_DROP_SOURCE, MANY, "a good message");
	}
}

START_TEST(a_good_message_from_an_address_that_is_not_its_senders_is_dropped)
{
	at_work(good_from_a_stranger);
}
END_TEST

/* ---- noise ----------------------------------------------------------------------------- */

static void random_noise(void)
{
	static uint8_t data[2 * MTU];

	for (unsigned node = 0; node < NODES; node++) {
		uint64_t before[WVM_DROP_REASONS];

		stranger_drops(&cluster, node, before);
		for (unsigned i = 0; i < MANY; i++) {
			stranger_send(&cluster, node, data, stranger_noise(data));
			pace(i);
		}
		expect_drops(node, before, 0, MANY, "noise");
	}
}

START_TEST(noise_is_dropped_and_each_datagram_counted_once)
{
	at_work(random_noise);
}
END_TEST

/* A page segment or a bare header, as masters send them. */
static size_t real_one(unsigned node, uint8_t data[MTU])
{
	uint8_t page[WVM_PAGE_BYTES];
	struct wvm_msg m;

	if (stranger_chance() % 2) {
		m = message(WVM_MSG_MEM_ACQUIRE, (node + 1) % NODES, node);
		return encode(data, &m, NULL);
	}
	memset(page, 0x5a, sizeof(page));
	m = message(WVM_MSG_WRITE_BACK, (node + 1) % NODES, node);
	m.flags = 0;
	m.qos = WVM_QOS_BULK;
	m.seg_total = WVM_PAGE_BYTES;
	m.payload_len = (uint16_t)wvm_wire_page_segment(MTU);
	return encode(data, &m, page);
}

/* Cut, or with some bytes changed under a good or bad checksum. */
static size_t mutate(uint8_t *data, size_t len)
{
	if (stranger_chance() % 3 == 0)
		return stranger_chance() % len;
	for (unsigned n = 1 + stranger_chance() % 4; n; n--)
		data[stranger_chance() % (stranger_chance() % 2 ? WVM_HEADER_BYTES : len)] ^=
			1u << stranger_chance() % 8;
	if (stranger_chance() % 2)
		wvm_wire_seal(data, len);
	return len;
}

static void mutants(void)
{
	for (unsigned node = 0; node < NODES; node++) {
		uint64_t before[WVM_DROP_REASONS];

		stranger_drops(&cluster, node, before);
		for (unsigned i = 0; i < MANY; i++) {
			uint8_t data[MTU];

			stranger_send(&cluster, node, data, mutate(data, real_one(node, data)));
			pace(i);
		}
		expect_drops(node, before, 0, MANY, "a mutant");
	}
}

START_TEST(cut_and_mutated_copies_of_real_messages_are_dropped_and_counted_once)
{
	at_work(mutants);
}
END_TEST

/* A good message, then a bad one, in one datagram: each counts by itself. */
static void two_in_one(void)
{
	uint64_t before[WVM_DROP_REASONS], now[WVM_DROP_REASONS];
	uint8_t data[2 * MTU];

	stranger_drops(&cluster, 0, before);
	for (unsigned i = 0; i < EACH; i++) {
		struct wvm_msg m = message(WVM_MSG_MEM_READ, 1, 0);
		size_t len = encode(data, &m, NULL);

		len += encode(data + len, &m, NULL);
		data[len - 20] ^= 1;
		stranger_send(&cluster, 0, data, len);
		pace(i);
	}
	expect_drops(0, before, 0, 2 * EACH, "two messages in one datagram");
	stranger_drops(&cluster, 0, now);
	ck_assert_uint_eq(now[WVM_DROP_SOURCE] - before[WVM_DROP_SOURCE], EACH);
	ck_assert_uint_eq(now[WVM_DROP_CRC] - before[WVM_DROP_CRC], EACH);
}

START_TEST(a_bad_message_behind_a_good_one_in_a_datagram_is_counted_by_itself)
{
	at_work(two_in_one);
}
END_TEST

/* ---- the control port ------------------------------------------------------------------ */

static void noise_to_control(void)
{
	static uint8_t data[2 * MTU];

	for (unsigned node = 0; node < NODES; node++) {
		for (unsigned i = 0; i < MANY; i++) {
			size_t len = stranger_noise(data);

			if (i % 3 == 0) { /* the right length and magic: any op, part, VM, gpa */
				len = WVM_CONTROL_REQUEST_BYTES;
				for (size_t k = 0; k < len; k++)
					data[k] = (uint8_t)stranger_chance();
				memcpy(data, "WVMC", 4);
				data[4] = 0;
				data[5] = (uint8_t)(62 + stranger_chance() % 8);
			}
			stranger_send_control(&cluster, node, data, len);
			pace(i);
		}
		ck_assert_uint_eq(cluster_status(&cluster, node, "node"), node);
	}
}

START_TEST(noise_on_the_control_port_changes_nothing_and_the_operator_is_answered)
{
	at_work(noise_to_control);
}
END_TEST

static Suite *strangers_suite(void)
{
	Suite *s = suite_create("strangers");
	TCase *t = cluster_tcase(s, "strangers", 60);

	tcase_add_unchecked_fixture(t, start, stop);
	tcase_add_test(t, a_header_with_one_wrong_field_is_dropped_for_that_field);
	tcase_add_test(t, a_message_that_cannot_be_meant_is_dropped_for_its_reason);
	tcase_add_test(t, a_good_message_from_an_address_that_is_not_its_senders_is_dropped);
	tcase_add_test(t, noise_is_dropped_and_each_datagram_counted_once);
	tcase_add_test(t, cut_and_mutated_copies_of_real_messages_are_dropped_and_counted_once);
	tcase_add_test(t, a_bad_message_behind_a_good_one_in_a_datagram_is_counted_by_itself);
	tcase_add_test(t, noise_on_the_control_port_changes_nothing_and_the_operator_is_answered);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {strangers_suite};

	return cluster_main(argv, suites, 1);
}
