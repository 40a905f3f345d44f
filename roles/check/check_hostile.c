/*
 * A storm of hostile datagrams on every UDP port of every node, while programs
 * verify their memory: noise, mutated copies of messages captured from this very
 * cluster, replays, wrong sources. No byte changes, every program goes on, and
 * each datagram is counted: in one of the masters' drop counters, or by the kernel.
 *
 * What is not sent, since without keys nobody can tell it from the truth: a
 * message with a right checksum, from the right address, whose fields all fit
 * this cluster and moment, but that its sender never sent. So
 *  - under a wrong checksum anything is sent from the right address, mutated in
 *    at least one bit that the checksum covers (the count of hops is outside);
 *  - under a right checksum anything is sent from a stranger's address, which is
 *    an attacker who can send, but not as a member; and from the right address only
 *    those mutations that the receiver can know for what they are: magic, version,
 *    type, flags, lane, state, hops, epoch, VM, sender, receiver, and a memory
 *    address that is none. Not: another page, version, id or payload;
 *  - replays are byte-identical, from the right address, late, in any order, often.
 *    The protocol knows them for what they are; some are answered again, so that of
 *    them only the sum is checked: accepted, or dropped and counted.
 */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/capture.h"
#include "roles/check/churn.h"
#include "shared/control.h"
#include "shared/wire.h"

#define NODES    3u
#define EACH     100000u /* random ones, and mutated ones, to each port */
#define REPLAYS  6000u   /* one to three times each */
#define WRONG    20000u  /* real ones from addresses that are not their senders' */
#define QUESTION 500u    /* real requests to a control port again */

#define CAPTURE_MS   1500u
#define RECAPTURE_MS 200u
#define BASELINE_MS  1500u
#define COUNT_MS     20000u /* a hang, not a measure */

#define QUEUE_BYTES (1u << 20) /* in a data port's sockets: an eighth of what fits */

static struct cluster cluster;
static struct capture captures[NODES];
static struct churn work;
static uint64_t sent_sum, replays_sum, dropped_sum, kernel_sum;

static uint64_t chance(uint64_t below)
{
	return stranger_chance() % below;
}

/* ---- accounts ---------------------------------------------------------------------------- */

struct account {
	uint64_t drops, kernel;
};

static struct account data_account(unsigned node)
{
	uint64_t drops[WVM_DROP_REASONS];

	stranger_drops(&cluster, node, drops);
	return (struct account){drops[0], harm_data_port(&cluster, node).drops};
}

/* All n were dropped for reasons that work does not cause, but those that the kernel dropped. */
static void expect_all_dropped(unsigned node, struct account before, uint64_t n, const char *what)
{
	uint64_t end = cluster_now_ms() + COUNT_MS, counted, kernel;

	do {
		struct account now = data_account(node);

		counted = now.drops - before.drops;
		kernel = now.kernel - before.kernel;
	} while (counted + kernel < n && cluster_now_ms() < end);
	ck_assert_msg(counted <= n && counted + kernel >= n,
		      "%s at node %u: of %lu sent %lu were counted, and the kernel dropped %lu",
		      what, node, n, counted, kernel);
	sent_sum += n;
	dropped_sum += counted;
	kernel_sum += n - counted;
}

/* Not faster than the master reads; work's own datagrams are to find room, too. */
static void pace_data(unsigned node, unsigned i)
{
	if (i % 256 == 255)
		while (harm_data_port(&cluster, node).queued > QUEUE_BYTES)
			cluster_sleep_ms(1);
}

/* ---- noise and mutants ------------------------------------------------------------------- */

static void storm_noise(unsigned node)
{
	static uint8_t data[2 * STRANGER_MTU];
	struct account before = data_account(node);

	for (unsigned i = 0; i < EACH; i++) {
		size_t len = stranger_noise(data);

		if (i % 2 || len > STRANGER_MTU)
			stranger_send(&cluster, node, data, len);
		else
			stranger_send_as(&cluster, (node + 1 + i / 2 % 2) % NODES, node, data, len);
		pace_data(node, i);
	}
	expect_all_dropped(node, before, EACH, "noise");
}

static void flip_bits(uint8_t *data, size_t len)
{
	for (unsigned n = 1 + (unsigned)chance(4); n; n--)
		data[chance(chance(2) ? WVM_HEADER_BYTES : len)] ^= 1u << chance(8);
}

/* Cut, or with other bits, under the checksum of what it was. */
static size_t spoil(uint8_t *data, size_t len)
{
	uint8_t original[STRANGER_MTU];
	uint8_t hops = data[WVM_HEADER_BYTES - 1];

	if (chance(4) == 0)
		return chance(len);
	memcpy(original, data, len);
	do {
		memcpy(data, original, len);
		flip_bits(data, len);
		data[WVM_HEADER_BYTES - 1] = hops;
	} while (!memcmp(data, original, len));
	return len;
}

/* A field that cannot be, and nothing else, under a right checksum. */
static size_t misstate(uint8_t *data, size_t len, unsigned node)
{
	static const uint8_t no_type[] = {2, 19, WVM_MSG_TYPES, 200};
	uint8_t copy[STRANGER_MTU];
	const uint8_t *payload;
	size_t consumed;
	struct wvm_msg m;

	ck_assert_int_eq(wvm_wire_decode(data, len, &m, &payload, &consumed), WVM_DROP_NONE);
	switch (chance(13)) {
	case 0: data[chance(4)] ^= (uint8_t)(1 + chance(255)); break;
	case 1: data[4] ^= (uint8_t)(1 + chance(255)); break;
	case 2: data[5] = no_type[chance(sizeof(no_type))]; break;
	case 3: data[6] |= chance(2) ? WVM_MSG_ZERO | WVM_MSG_ERROR : WVM_MSG_AUTH; break;
	case 4: data[7] = (uint8_t)((data[7] & 0xf) | (2 + chance(14)) << 4); break;
	case 5: data[7] = (uint8_t)((data[7] & 0xf0) | (5 + chance(11))); break;
	case 6: data[24 + chance(4)] ^= (uint8_t)(1 + chance(255)); break;
	case 7: data[62] |= (uint8_t)(1 + chance(15)); break;
	case 8: data[63] = (uint8_t)(WVM_HOPS_MAX + 1 + chance(200)); break;
	case 9: m.dst = node + 1 + (uint32_t)chance(1000); goto again;
	case 10: m.src = NODES - node - m.src; goto again; /* the third member's */
	case 11: m.vm_id = (uint16_t)(CLUSTER_VM + 1 + chance(1000)); goto again;
	default: m.gpa += 3 * GIB + chance(1 << 20) * PAGE; goto again;
	}
	wvm_wire_seal(data, len);
	return len;
again:
	memcpy(copy, data, len);
	len = wvm_wire_encode(data, STRANGER_MTU, &m, copy + WVM_HEADER_BYTES);
	ck_assert_uint_gt(len, 0);
	return len;
}

static void storm_mutants(unsigned node)
{
	struct account before = data_account(node);

	for (unsigned i = 0; i < EACH; i++) {
		const struct captured *real = capture_any(&captures[node]);
		uint8_t data[STRANGER_MTU];
		size_t len = real->len;

		memcpy(data, real->data, len);
		switch (i % 4) {
		case 0:
		case 1: len = spoil(data, len); break;
		case 2: len = misstate(data, len, node); break;
		default: flip_bits(data, len); wvm_wire_seal(data, len);
		}
		if (i % 4 == 3)
			stranger_send(&cluster, node, data, len);
		else
			stranger_send_as(&cluster, real->from, node, data, len);
		pace_data(node, i);
	}
	expect_all_dropped(node, before, EACH, "a mutant");
}

/* ---- the truth, from the wrong address and at the wrong time ------------------------------- */

static void storm_wrong_sources(unsigned node)
{
	struct account before = data_account(node);

	for (unsigned i = 0; i < WRONG; i++) {
		const struct captured *real = capture_any(&captures[node]);

		if (i % 2)
			stranger_send(&cluster, node, real->data, real->len);
		else
			stranger_send_as(&cluster, NODES - node - real->from, node, real->data,
					 real->len);
		pace_data(node, i);
	}
	expect_all_dropped(node, before, WRONG, "a real message from another address");
}

/* Of the time before the storm, and of just now: some are still under way. */
static void storm_replays(unsigned node)
{
	for (unsigned i = 0; i < REPLAYS; i++) {
		const struct captured *real = capture_any(&captures[node]);

		if (i == REPLAYS / 2)
			capture_run(&cluster, captures, RECAPTURE_MS);
		for (unsigned times = 1 + (unsigned)chance(3); times; times--, replays_sum++)
			stranger_send_as(&cluster, real->from, node, real->data, real->len);
		pace_data(node, i);
	}
}

/* Accepted or dropped and counted: that is every message that came. */
static void expect_balance(unsigned node)
{
	uint64_t end = cluster_now_ms() + COUNT_MS, received, sum;

	do {
		json_t *o = stranger_stats(&cluster, node);
		const json_t *n = json_object_get(o, "node"), *value;
		const char *name;

		received = (uint64_t)json_integer_value(json_object_get(n, "messages_received"));
		sum = (uint64_t)json_integer_value(json_object_get(n, "messages_accepted")) -
		      (uint64_t)json_integer_value(json_object_get(n, "own_messages_dropped"));
		json_object_foreach(json_object_get(o, "drops"), name, value)
			sum += (uint64_t)json_integer_value(value);
		json_decref(o);
	} while (received != sum && cluster_now_ms() < end);
	ck_assert_msg(received == sum, "node %u: %lu messages came, %lu are accounted for", node,
		      received, sum);
}

/* ---- the control port ---------------------------------------------------------------------- */

struct control_account {
	uint64_t bad, requests, kernel;
};

static struct control_account control_account(unsigned node)
{
	json_t *o = stranger_stats(&cluster, node);
	const json_t *c = json_object_get(o, "control");
	struct control_account a = {
		.bad = (uint64_t)json_integer_value(json_object_get(c, "bad_length")) +
		       (uint64_t)json_integer_value(json_object_get(c, "bad_magic")),
		.requests = (uint64_t)json_integer_value(json_object_get(c, "requests")),
		.kernel = harm_control_port(&cluster, node).drops};

	json_decref(o);
	return a;
}

/* Its socket is small; what is too fast for it is dropped, and counted, by the kernel. */
static void pace_control(unsigned i)
{
	if (i % 16 == 15)
		usleep(150);
}

static bool is_request(const uint8_t *data, size_t len)
{
	return len == WVM_CONTROL_REQUEST_BYTES && !memcmp(data, "WVMC", 4);
}

/* Two in three are no requests any more; of the rest most ask for what there is not. */
static size_t mutate_request(uint8_t data[64], size_t len)
{
	switch (chance(3)) {
	case 0: return chance(2) ? chance(len) : len + 1 + chance(64 - len);
	case 1: data[chance(4)] ^= (uint8_t)(1 + chance(255)); return len;
	default:
		data[4] ^= (uint8_t)chance(256); /* the command */
		data[chance(len - 4) + 4] ^= (uint8_t)chance(256);
		return len;
	}
}

static void storm_control(unsigned node, bool noise)
{
	static uint8_t data[2 * STRANGER_MTU];
	struct control_account before = control_account(node), now;
	const struct capture *k = &captures[node];
	uint64_t bad = 0, good = 0, end = cluster_now_ms() + COUNT_MS;

	for (unsigned i = 0; i < EACH; i++) {
		unsigned slot = (unsigned)chance(k->control < CAPTURE_CONTROL ? k->control
									      : CAPTURE_CONTROL);
		size_t len = k->request_len[slot];

		if (noise) {
			len = stranger_noise(data);
		} else {
			memcpy(data, k->request[slot], sizeof(k->request[slot]));
			if (i >= QUESTION) /* the first ones are replays */
				len = mutate_request(data, len);
		}
		*(is_request(data, len) ? &good : &bad) += 1;
		stranger_send_control(&cluster, node, data, len);
		pace_control(i);
	}
	do
		now = control_account(node);
	while (now.bad - before.bad + now.kernel - before.kernel < bad && cluster_now_ms() < end);
	ck_assert_msg(now.bad - before.bad <= bad && now.bad - before.bad + now.requests -
								     before.requests + now.kernel -
								     before.kernel >=
							     bad + good,
		      "control port of node %u: of %lu bad ones %lu were counted, of %lu requests "
		      "%lu, and the kernel dropped %lu",
		      node, bad, now.bad - before.bad, good, now.requests - before.requests,
		      now.kernel - before.kernel);
	sent_sum += EACH;
	dropped_sum += now.bad - before.bad;
	kernel_sum += now.kernel - before.kernel;
}

/* ---- the storm ------------------------------------------------------------------------------ */

static uint64_t rounds_per_s(uint64_t rounds, uint64_t since_ms)
{
	uint64_t ms = cluster_now_ms() - since_ms;

	return (churn_rounds(&work) - rounds) * 1000 / (ms ? ms : 1);
}

static void capture_all(void)
{
	static const char *const commands[] = {"status", "stats"};
	pid_t asker = fork();

	ck_assert_int_ge(asker, 0);
	if (!asker) {
		for (unsigned i = 0; i < 2 * NODES; i++)
			json_decref(cluster_json(&cluster, i % NODES, commands[i / NODES]));
		_exit(0);
	}
	capture_run(&cluster, captures, CAPTURE_MS);
	ck_assert_int_eq(waitpid(asker, NULL, 0), asker);
	for (unsigned i = 0; i < NODES; i++) {
		ck_assert_msg(capture_types(&captures[i]) >= 8, "only %u types came to node %u",
			      capture_types(&captures[i]), i);
		ck_assert_uint_gt(captures[i].control, 0);
	}
}

START_TEST(a_storm_on_every_port_changes_no_byte_and_every_datagram_is_counted)
{
	static const unsigned nodes[] = {0, 1, 2, 0, 1, 2};
	static const struct churn_plan plan = {.homes = 7, .first = 480, .ranges = 12};
	uint64_t calm, stormy, rounds, begin;

	cluster_start(&cluster, &(struct cluster_opts){.shards = "2"});
	churn_start(&work, &cluster, &plan, nodes, 6);
	capture_all();
	rounds = churn_rounds(&work);
	begin = cluster_now_ms();
	cluster_sleep_ms(BASELINE_MS);
	calm = rounds_per_s(rounds, begin);
	rounds = churn_rounds(&work);
	begin = cluster_now_ms();
	for (unsigned node = 0; node < NODES; node++) {
		storm_noise(node);
		ck_assert(churn_goes_on(&work, 10));
		storm_mutants(node);
		ck_assert(churn_goes_on(&work, 10));
		storm_wrong_sources(node);
		storm_replays(node);
		ck_assert(churn_goes_on(&work, 10));
		storm_control(node, true);
		storm_control(node, false);
		ck_assert(churn_goes_on(&work, 10));
	}
	stormy = rounds_per_s(rounds, begin);
	ck_assert(churn_goes_on(&work, 100));
	churn_stop(&work);
	churn_verify(&work);
	for (unsigned node = 0; node < NODES; node++)
		expect_balance(node);
	printf("proof: hostile datagrams: %lu to %u ports: to each %u random and %u mutated, to each "
	       "data port %u from wrong sources; %lu of those dropped and counted by reason, %lu by "
	       "the kernel, the rest questions that were answered; and %lu replays; 0 bytes changed, "
	       "the work went on at %lu instead of %lu rounds/s\n",
	       sent_sum + replays_sum, 2 * NODES, EACH, EACH, WRONG, dropped_sum, kernel_sum,
	       replays_sum, stormy, calm);
	cluster_stop(&cluster);
}
END_TEST

static Suite *hostile_suite(void)
{
	Suite *s = suite_create("hostile");
	TCase *t = cluster_tcase(s, "hostile", 180);

	tcase_add_test(t, a_storm_on_every_port_changes_no_byte_and_every_datagram_is_counted);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {hostile_suite};

	return cluster_main(argv, suites, 1);
}
