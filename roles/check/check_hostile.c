/*
 * A storm of hostile datagrams on every UDP port of every master, while programs
 * verify their memory: noise, mutated copies of messages captured from this very
 * cluster, replays, wrong sources. No byte changes, every program goes on, nobody is
 * called dead, and each datagram is counted: in the masters' drop counters, under the
 * reason that it has, or by the kernel.
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
 *    address that is none; of gossip those of the nodes it tells about, and their
 *    addresses, for epoch and VM. Not: another page, version, id, ballot or payload;
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
#include "roles/check/orders.h"
#include "shared/control.h"
#include "shared/core/epoch.h"
#include "shared/core/gossip.h"
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

#define SLOWER   10u   /* times, at most: work is usable meanwhile */
#define PAUSE_MS 4000u /* less than the 5 s after which an access is an error */

#define DATA_QUEUE   (1u << 20) /* in a data port's sockets: an eighth of what fits */
#define GOSSIP_QUEUE (1u << 17) /* in a gossip port's socket: a quarter */

static struct cluster cluster;
static struct capture captures[NODES];
static struct churn work;
static uint64_t sent_sum, replays_sum, dropped_sum, kernel_sum;

static uint64_t chance(uint64_t below)
{
	return stranger_chance() % below;
}

/* ---- ports of masters -------------------------------------------------------------------- */

/* A reason as a bit. */
#define WHY(name) (1u << WVM_DROP_##name)
#define NOISE \
	(WHY(SHORT) | WHY(MAGIC) | WHY(VERSION) | WHY(LENGTH) | WHY(CRC) | WHY(TYPE) | WHY(FLAGS))
#define MUTANTS                                                                             \
	(NOISE | WHY(AUTH) | WHY(QOS) | WHY(STATE) | WHY(HOPS) | WHY(SEGMENT) | WHY(NODE) | \
	 WHY(SOURCE))

struct port {
	const char *name;
	bool of_gossip;
	const char *section, *received; /* the counter of all that came */
	uint64_t queue_bytes;           /* a part of what fits: the masters' own find room, too */
	unsigned look;                  /* at the queue after so many */
	uint32_t noise, mutants;        /* why they are dropped: all of these occur */
	struct harm_port (*kernel)(const struct cluster *c, unsigned node);
	void (*drops)(const struct cluster *c, unsigned node, uint64_t drops[WVM_DROP_REASONS]);
	void (*send)(const struct cluster *c, unsigned to, const void *data, size_t len);
	void (*send_as)(const struct cluster *c, unsigned from, unsigned to, const void *data,
			size_t len);
	enum wvm_drop (*misstate)(uint8_t *data, size_t *len, unsigned node);
};

static const struct capture_port *captured_at(const struct port *p, unsigned node)
{
	return p->of_gossip ? &captures[node].gossip : &captures[node].data;
}

/* ---- accounts ---------------------------------------------------------------------------- */

/* Datagrams to one port that all have to be dropped. All nodes have theirs at the same time. */
struct storm {
	const struct port *port;
	unsigned node;
	uint64_t sent, due[WVM_DROP_REASONS]; /* of those where one reason is known for sure */
	uint64_t before[WVM_DROP_REASONS], kernel;
};

static void begin(struct storm list[NODES], const struct port *p)
{
	for (unsigned i = 0; i < NODES; i++) {
		list[i] = (struct storm){
			.port = p, .node = i, .kernel = p->kernel(&cluster, i).drops};
		p->drops(&cluster, i, list[i].before);
	}
}

/* Not faster than the master reads. */
static void pace(const struct port *p, unsigned node, uint64_t i)
{
	if (i % p->look == 0)
		while (p->kernel(&cluster, node).queued > p->queue_bytes)
			cluster_sleep_ms(1);
}

#define STRANGER NODES

/* From a member's address or a stranger's. why: of one that is well-formed; NONE: any reason. */
static void hit(struct storm *s, unsigned from, const uint8_t *data, size_t len, enum wvm_drop why)
{
	const uint8_t *payload;
	struct wvm_msg m;
	size_t consumed;
	enum wvm_drop malformed = wvm_wire_decode(data, len, &m, &payload, &consumed);

	ck_assert_msg(!why || !malformed || malformed == why, "'%s' is found to be '%s'",
		      wvm_drop_name(why), wvm_drop_name(malformed));
	s->due[malformed ? malformed : why]++;
	if (from == STRANGER)
		s->port->send(&cluster, s->node, data, len);
	else
		s->port->send_as(&cluster, from, s->node, data, len);
	pace(s->port, s->node, ++s->sent);
}

static void expect_reasons(const struct storm *s, const uint64_t now[WVM_DROP_REASONS],
			   uint64_t kernel, uint32_t all, const char *what)
{
	for (unsigned i = 1; i < WVM_DROP_REASONS; i++) {
		uint64_t counted = now[i] - s->before[i];

		ck_assert_msg(counted + kernel >= s->due[i],
			      "%s at the %s port of node %u: of %lu with the reason '%s' %lu were "
			      "counted, and the kernel dropped %lu of all",
			      what, s->port->name, s->node, s->due[i], wvm_drop_name(i), counted,
			      kernel);
		ck_assert_msg(!(all >> i & 1) || counted,
			      "%s at the %s port of node %u: none was counted with the reason '%s'",
			      what, s->port->name, s->node, wvm_drop_name(i));
	}
}

/*
 * All were dropped, for the reasons that are due, which work does not cause, but those that the
 * kernel dropped, which are less than half; all: reasons of which each was seen.
 */
static void expect_all_dropped(const struct storm *s, uint32_t all, const char *what)
{
	uint64_t end = cluster_now_ms() + COUNT_MS, counted, kernel;
	uint64_t now[WVM_DROP_REASONS];

	do {
		s->port->drops(&cluster, s->node, now);
		counted = now[0] - s->before[0];
		kernel = s->port->kernel(&cluster, s->node).drops - s->kernel;
	} while (counted + kernel < s->sent && cluster_now_ms() < end);
	ck_assert_msg(counted <= s->sent && counted + kernel >= s->sent && counted >= s->sent / 2,
		      "%s at the %s port of node %u: of %lu sent %lu were counted, and the kernel "
		      "dropped %lu",
		      what, s->port->name, s->node, s->sent, counted, kernel);
	expect_reasons(s, now, kernel, all, what);
	sent_sum += s->sent;
	dropped_sum += counted;
	kernel_sum += s->sent - counted;
}

/* ---- noise and mutants ------------------------------------------------------------------- */

static void expect_all_of(const struct storm list[NODES], uint32_t all, const char *what)
{
	for (unsigned i = 0; i < NODES; i++)
		expect_all_dropped(&list[i], all, what);
	ck_assert(churn_goes_on(&work, 10));
}

static void storm_noise(const struct port *p)
{
	static uint8_t data[2 * STRANGER_MTU];
	struct storm s[NODES];

	begin(s, p);
	for (unsigned i = 0; i < NODES * EACH; i++) {
		unsigned node = i % NODES, from = (node + 1 + (unsigned)chance(2)) % NODES;
		size_t len = stranger_noise(data);

		if (chance(2) || len > STRANGER_MTU)
			from = STRANGER;
		hit(&s[node], from, data, len, WVM_DROP_NONE);
	}
	expect_all_of(s, p->noise, "noise");
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

static const uint8_t no_type[] = {2, 24, WVM_MSG_TYPES, 200};

/* A field that cannot be, and nothing else, under a right checksum; why it is dropped. */
static enum wvm_drop misstate_any(uint8_t *data, size_t *len)
{
	static const enum wvm_drop whys[] = {WVM_DROP_MAGIC, WVM_DROP_VERSION, WVM_DROP_TYPE,
					     WVM_DROP_FLAGS, WVM_DROP_AUTH,    WVM_DROP_QOS,
					     WVM_DROP_STATE, WVM_DROP_HOPS};
	enum wvm_drop why = whys[chance(sizeof(whys) / sizeof(*whys))];
	size_t tag = 0;

	if (why == WVM_DROP_AUTH && *len + WVM_TAG_BYTES > STRANGER_MTU)
		why = WVM_DROP_TYPE;
	switch (why) {
	case WVM_DROP_MAGIC: data[chance(4)] ^= (uint8_t)(1 + chance(255)); break;
	case WVM_DROP_VERSION: data[4] ^= (uint8_t)(1 + chance(255)); break;
	case WVM_DROP_TYPE: data[5] = no_type[chance(sizeof(no_type))]; break;
	case WVM_DROP_FLAGS: data[6] |= WVM_MSG_ZERO | WVM_MSG_ERROR; break;
	case WVM_DROP_AUTH:
		data[6] |= WVM_MSG_AUTH;
		tag = WVM_TAG_BYTES;
		break;
	case WVM_DROP_QOS: data[7] = (uint8_t)((data[7] & 0xf) | (2 + chance(14)) << 4); break;
	case WVM_DROP_STATE: data[7] = (uint8_t)((data[7] & 0xf0) | (5 + chance(11))); break;
	default: data[63] = (uint8_t)(WVM_HOPS_MAX + 1 + chance(200)); break;
	}
	wvm_wire_seal(data, *len);
	memset(data + *len, 0x5a, tag);
	*len += tag;
	return why;
}

/* With these fields, and the payload behind it as it is. */
static void encode_again(uint8_t *data, size_t *len, const struct wvm_msg *m)
{
	uint8_t copy[STRANGER_MTU];

	memcpy(copy, data, *len);
	*len = wvm_wire_encode(data, STRANGER_MTU, m, copy + WVM_HEADER_BYTES);
	ck_assert_uint_gt(*len, 0);
}

static struct wvm_msg decode(const uint8_t *data, size_t len)
{
	const uint8_t *payload;
	size_t consumed;
	struct wvm_msg m;

	ck_assert_int_eq(wvm_wire_decode(data, len, &m, &payload, &consumed), WVM_DROP_NONE);
	return m;
}

static enum wvm_drop misstate_nodes(struct wvm_msg *m, unsigned node)
{
	if (chance(2)) {
		m->dst = node + 1 + (uint32_t)chance(1000);
		return WVM_DROP_NODE;
	}
	m->src = NODES - node - m->src; /* the third member's */
	return WVM_DROP_SOURCE;
}

static enum wvm_drop misstate_data(uint8_t *data, size_t *len, unsigned node)
{
	uint32_t other = (uint32_t)(1 + chance(255)) << 8 * chance(4);
	struct wvm_msg m = decode(data, *len);
	enum wvm_drop why;

	switch (chance(13)) {
	case 0:
	case 1: why = misstate_nodes(&m, node); break;
	case 2:
		m.vm_id = (uint16_t)(CLUSTER_VM + 1 + chance(1000));
		why = WVM_DROP_NONE; /* VM, or GPA: there it is another shard's */
		break;
	case 3:
		/* A question of an earlier one would be answered: its asker has a record to learn.
		 */
		if (m.type == WVM_MSG_MEM_READ || m.type == WVM_MSG_MEM_ACQUIRE)
			m.epoch += other;
		else
			m.epoch ^= other;
		why = WVM_DROP_EPOCH;
		break;
	case 4:
		m.gpa += 3 * GIB + chance(1 << 20) * PAGE;
		why = WVM_DROP_GPA;
		break;
	case 5:
		data[62] |= (uint8_t)(1 + chance(15));
		wvm_wire_seal(data, *len);
		return WVM_DROP_GPA;
	default: return misstate_any(data, len);
	}
	encode_again(data, len, &m);
	return why;
}

/*
 * As above, but of gossip the epoch and the VM may be any. Instead what it is about: its sender is
 * elsewhere, one who is in it is elsewhere, or it is no gossip.
 */
static enum wvm_drop misstate_gossip(uint8_t *data, size_t *len, unsigned node)
{
	struct wvm_msg m = decode(data, *len);
	uint8_t *payload = data + WVM_HEADER_BYTES, *entry = payload + WVM_GOSSIP_HEAD_BYTES;
	bool ballot = m.type == WVM_MSG_BALLOT;
	enum wvm_drop why = WVM_DROP_SOURCE;

	switch (chance(13)) {
	case 0:
	case 1: why = misstate_nodes(&m, node); break;
	case 2:
		m.type = WVM_MSG_REPORT;
		m.request = 1;
		why = WVM_DROP_TYPE;
		break;
	case 3:
		m.payload_len -= (uint16_t)(1 + chance(8));
		m.seg_total = wvm_wire_total(m.payload_len);
		why = WVM_DROP_SEGMENT;
		break;
	case 4:
		payload[0] = (uint8_t)(ballot ? WVM_EPOCH_KINDS : WVM_GOSSIP_KINDS);
		why = WVM_DROP_SEGMENT;
		break;
	case 5:
		if (ballot || m.payload_len == WVM_GOSSIP_HEAD_BYTES)
			return misstate_any(data, len);
		entry[11] ^= (uint8_t)(1 + chance(255)); /* its address */
		break;
	case 6:
		if (ballot)
			return misstate_any(data, len);
		payload[15] ^= (uint8_t)(1 + chance(255)); /* the sender's */
		break;
	default: return misstate_any(data, len);
	}
	encode_again(data, len, &m);
	return why;
}

/* Cut, with other bits under a right and a wrong checksum, or with fields that cannot be. */
static void storm_mutants(const struct port *p)
{
	struct storm s[NODES];

	begin(s, p);
	for (unsigned i = 0; i < NODES * EACH; i++) {
		unsigned node = i % NODES, from;
		const struct captured *real = capture_any(captured_at(p, node));
		enum wvm_drop why = WVM_DROP_NONE;
		uint8_t data[STRANGER_MTU];
		size_t len = real->len;

		from = real->from;
		memcpy(data, real->data, len);
		switch (i / NODES % 4) {
		case 0:
		case 1: len = spoil(data, len); break;
		case 2: why = p->misstate(data, &len, node); break;
		default:
			flip_bits(data, len);
			wvm_wire_seal(data, len);
			from = STRANGER;
			break;
		}
		hit(&s[node], from, data, len, why);
	}
	expect_all_of(s, p->mutants, "a mutant");
}

/* ---- the truth, from the wrong address and at the wrong time ----------------------------- */

static void storm_wrong_sources(const struct port *p)
{
	struct storm s[NODES];

	begin(s, p);
	for (unsigned i = 0; i < NODES * WRONG; i++) {
		unsigned node = i % NODES;
		const struct captured *real = capture_any(captured_at(p, node));

		hit(&s[node], chance(2) ? STRANGER : NODES - node - real->from, real->data,
		    real->len, WVM_DROP_SOURCE);
	}
	expect_all_of(s, WHY(SOURCE), "a real message from another address");
}

static uint64_t figure(const json_t *o, const char *section, const char *name)
{
	const json_t *value = json_object_get(json_object_get(o, section), name);

	ck_assert_msg(json_is_integer(value), "no counter '%s' in '%s'", name, section);
	return (uint64_t)json_integer_value(value);
}

static uint64_t received_at(const struct port *p, unsigned node)
{
	json_t *o = stranger_stats(&cluster, node);
	uint64_t n = figure(o, p->section, p->received);

	json_decref(o);
	return n;
}

/* They came, but those that the kernel dropped; expect_balance() says what became of them. */
static void expect_received(const struct storm *s, uint64_t before)
{
	uint64_t end = cluster_now_ms() + COUNT_MS, kernel, received;

	do {
		received = received_at(s->port, s->node) - before;
		kernel = s->port->kernel(&cluster, s->node).drops - s->kernel;
	} while (received + kernel < s->sent && cluster_now_ms() < end);
	ck_assert_msg(received + kernel >= s->sent && kernel <= s->sent / 2,
		      "replays at the %s port of node %u: of %lu sent %lu came, and the kernel "
		      "dropped %lu",
		      s->port->name, s->node, s->sent, received, kernel);
	replays_sum += s->sent;
}

/* Of the time before the storm, and of just now: some are still under way. */
static void storm_replays(const struct port *p)
{
	uint64_t received[NODES];
	struct storm s[NODES];

	begin(s, p);
	for (unsigned i = 0; i < NODES; i++)
		received[i] = received_at(p, i);
	for (unsigned i = 0; i < NODES * REPLAYS; i++) {
		unsigned node = i % NODES;
		const struct captured *real = capture_any(captured_at(p, node));

		if (i == NODES * REPLAYS / 2)
			capture_run(&cluster, captures, RECAPTURE_MS);
		for (unsigned times = 1 + (unsigned)chance(3); times; times--) {
			p->send_as(&cluster, real->from, node, real->data, real->len);
			pace(p, node, ++s[node].sent);
		}
	}
	for (unsigned i = 0; i < NODES; i++)
		expect_received(&s[i], received[i]);
	ck_assert(churn_goes_on(&work, 10));
}

/* Accepted or dropped and counted: that is every message that came. */
static void expect_gossip_balance(unsigned node)
{
	json_t *o = stranger_stats(&cluster, node);
	uint64_t received = figure(o, "membership", "received");
	uint64_t sum = figure(o, "membership", "gossip_received") +
		       figure(o, "membership", "ballots_received");
	const json_t *value;
	const char *name;

	json_object_foreach(json_object_get(o, "membership"), name, value)
	{
		if (!strncmp(name, "dropped_", 8))
			sum += (uint64_t)json_integer_value(value);
	}
	json_decref(o);
	ck_assert_msg(received == sum, "node %u: %lu of gossip came, %lu are accounted for", node,
		      received, sum);
}

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

/* ---- the control port -------------------------------------------------------------------- */

struct control_account {
	uint64_t bad_length, bad_magic, requests, kernel;
};

static struct control_account control_account(unsigned node)
{
	json_t *o = stranger_stats(&cluster, node);
	struct control_account a = {.bad_length = figure(o, "control", "bad_length"),
				    .bad_magic = figure(o, "control", "bad_magic"),
				    .requests = figure(o, "control", "requests"),
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

/* Each as what it is, but those that the kernel dropped. */
static void expect_control(unsigned node, struct control_account before, struct control_account due)
{
	uint64_t end = cluster_now_ms() + COUNT_MS, length, magic, requests, kernel;

	do {
		struct control_account now = control_account(node);

		length = now.bad_length - before.bad_length;
		magic = now.bad_magic - before.bad_magic;
		requests = now.requests - before.requests;
		kernel = now.kernel - before.kernel;
	} while (length + magic + kernel < due.bad_length + due.bad_magic &&
		 cluster_now_ms() < end);
	ck_assert_msg(length && length <= due.bad_length && length + kernel >= due.bad_length &&
			      magic && magic <= due.bad_magic && magic + kernel >= due.bad_magic &&
			      length + magic + requests + kernel >= EACH && kernel <= EACH / 2,
		      "control port of node %u: of %lu bad lengths %lu were counted, of %lu that "
		      "begin with something else %lu, of %lu requests %lu, and the kernel dropped "
		      "%lu",
		      node, due.bad_length, length, due.bad_magic, magic, due.requests, requests,
		      kernel);
	sent_sum += EACH;
	dropped_sum += length + magic;
	kernel_sum += kernel;
}

/* Noise, or requests with other bits, the first of them as they were; returns the length. */
static size_t control_bytes(uint8_t *data, const struct capture *k, bool noise, bool replay)
{
	unsigned kept = k->control < CAPTURE_CONTROL ? k->control : CAPTURE_CONTROL;
	unsigned slot = (unsigned)chance(kept);

	if (noise)
		return stranger_noise(data);
	memcpy(data, k->request[slot], sizeof(k->request[slot]));
	return replay ? k->request_len[slot] : mutate_request(data, k->request_len[slot]);
}

static void storm_control(bool noise)
{
	static uint8_t data[2 * STRANGER_MTU];
	struct control_account before[NODES], due[NODES] = {0};

	for (unsigned node = 0; node < NODES; node++)
		before[node] = control_account(node);
	for (unsigned i = 0; i < EACH; i++) {
		for (unsigned node = 0; node < NODES; node++) {
			size_t len = control_bytes(data, &captures[node], noise, i < QUESTION);

			*(len != WVM_CONTROL_REQUEST_BYTES ? &due[node].bad_length
			  : memcmp(data, "WVMC", 4)        ? &due[node].bad_magic
							   : &due[node].requests) += 1;
			stranger_send_control(&cluster, node, data, len);
		}
		pace_control(i);
	}
	for (unsigned node = 0; node < NODES; node++)
		expect_control(node, before[node], due[node]);
	ck_assert(churn_goes_on(&work, 10));
}

/* ---- who is a member --------------------------------------------------------------------- */

/* In the end all hear each other, nobody was ever called dead, and nothing was decided. */
static void expect_members(uint64_t epoch)
{
	static char log[CLUSTER_OUT_BYTES];

	for (unsigned node = 0; node < NODES; node++) {
		json_t *o;

		await_alive(&cluster, node);
		ck_assert_uint_eq(epoch_of(&cluster, node), epoch);
		o = stranger_stats(&cluster, node);
		ck_assert_uint_eq(figure(o, "membership", "dead"), 0);
		ck_assert_uint_eq(figure(o, "membership", "id_conflicts"), 0);
		ck_assert_uint_eq(figure(o, "membership", "epoch_conflicts"), 0);
		json_decref(o);
		cluster_read(cluster.node[node].log, log, sizeof(log));
		ck_assert_msg(!strstr(log, "is DEAD"), "node %u: %s", node, log);
		expect_gossip_balance(node);
	}
}

/* ---- the storm --------------------------------------------------------------------------- */

static uint64_t rounds_per_s(uint64_t rounds, uint64_t since_ms)
{
	uint64_t ms = cluster_now_ms() - since_ms;

	return (churn_rounds(&work) - rounds) * 1000 / (ms ? ms : 1);
}

/* A node joins, which its members vote on, while nobody uses memory yet. */
static void capture_ballots(void)
{
	pid_t waits;

	for (unsigned i = 0; i < NODES; i++)
		await_alive(&cluster, i);
	order_meanwhile(&cluster, &waits, 0, "join", "2");
	capture_run(&cluster, captures, CAPTURE_MS);
	await_order(waits);
	for (unsigned i = 0; i < NODES; i++)
		await_epoch(&cluster, i, epoch_of(&cluster, 0));
}

/* While an operator asks each of them, so that there are requests, too. */
static void capture_work(void)
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
}

static bool captured_enough(unsigned node)
{
	const struct capture *k = &captures[node];

	return capture_types(&k->data) >= 8 && k->gossip.seen[WVM_MSG_HEARTBEAT] &&
	       k->gossip.seen[WVM_MSG_BALLOT] && k->control;
}

static void capture_all(void)
{
	for (unsigned i = 0; i < NODES; i++) /* it was of another epoch */
		memset(&captures[i].data, 0, sizeof(captures[i].data));
	capture_work();
	for (unsigned i = 0; i < NODES; i++) {
		const struct capture *k = &captures[i];

		/* Where the processors are busy the questions may have come before or after it. */
		for (unsigned tries = 0; tries < 5 && !captured_enough(i); tries++)
			capture_work();
		ck_assert_msg(captured_enough(i),
			      "to node %u came %u types of messages, %lu of gossip, %lu ballots, "
			      "%u requests",
			      i, capture_types(&k->data), k->gossip.seen[WVM_MSG_HEARTBEAT],
			      k->gossip.seen[WVM_MSG_BALLOT], k->control);
	}
}

static void storm_all(void)
{
	static const struct port ports[] = {
		{.name = "data",
		 .section = "node",
		 .received = "messages_received",
		 .queue_bytes = DATA_QUEUE,
		 .look = 256,
		 .noise = NOISE,
		 .mutants = MUTANTS | WHY(VM) | WHY(EPOCH) | WHY(GPA),
		 .kernel = harm_data_port,
		 .drops = stranger_drops,
		 .send = stranger_send,
		 .send_as = stranger_send_as,
		 .misstate = misstate_data},
		{.name = "gossip",
		 .of_gossip = true,
		 .section = "membership",
		 .received = "received",
		 .queue_bytes = GOSSIP_QUEUE,
		 .look = 64,
		 .noise = NOISE,
		 .mutants = MUTANTS,
		 .kernel = harm_gossip_port,
		 .drops = stranger_gossip_drops,
		 .send = stranger_gossip,
		 .send_as = stranger_gossip_as,
		 .misstate = misstate_gossip},
	};

	for (unsigned i = 0; i < 2; i++) {
		storm_noise(&ports[i]);
		storm_mutants(&ports[i]);
		storm_wrong_sources(&ports[i]);
		storm_replays(&ports[i]);
	}
	storm_control(true);
	storm_control(false);
}

START_TEST(a_storm_on_every_port_changes_no_byte_and_every_datagram_is_counted)
{
	static const unsigned nodes[NODES] = {0, 1, 2};
	static const struct churn_plan plan = {.homes = 7, .first = 480, .ranges = 12};
	uint64_t calm, stormy, rounds, start, pause, epoch;

	cluster_start(&cluster, &(struct cluster_opts){.shards = "2", .place = "SPARE 2\n"});
	capture_ballots();
	epoch = epoch_of(&cluster, 0);
	churn_start(&work, &cluster, &plan, nodes, NODES);
	capture_all();
	rounds = churn_rounds(&work);
	start = cluster_now_ms();
	cluster_sleep_ms(BASELINE_MS);
	calm = rounds_per_s(rounds, start);
	rounds = churn_rounds(&work);
	work.arena->word[CHURN_PAUSE_MS_MAX] = 0;
	start = cluster_now_ms();
	storm_all();
	stormy = rounds_per_s(rounds, start);
	pause = work.arena->word[CHURN_PAUSE_MS_MAX];
	ck_assert_msg(stormy * SLOWER >= calm, "%lu instead of %lu rounds/s", stormy, calm);
	ck_assert_msg(pause <= PAUSE_MS, "an access took %lu ms", pause);
	ck_assert(churn_goes_on(&work, 100));
	expect_members(epoch);
	churn_stop(&work);
	churn_verify(&work);
	for (unsigned node = 0; node < NODES; node++)
		expect_balance(node);
	printf("proof: hostile datagrams: %lu to %u ports of masters: to each %u random and %u "
	       "mutated, to each port of data and of gossip %u from wrong sources; %lu of those "
	       "dropped and counted by reason, %lu by the kernel, the rest questions that were "
	       "answered; and %lu replays; 0 bytes changed, nobody was called dead, the work went "
	       "on at %lu instead of %lu rounds/s, the longest access took %lu ms\n",
	       sent_sum + replays_sum, 3 * NODES, EACH, EACH, WRONG, dropped_sum, kernel_sum,
	       replays_sum, stormy, calm, pause);
	cluster_stop(&cluster);
}
END_TEST

static Suite *hostile_suite(void)
{
	Suite *s = suite_create("hostile");
	TCase *t = cluster_tcase(s, "hostile", 300);

	tcase_add_test(t, a_storm_on_every_port_changes_no_byte_and_every_datagram_is_counted);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {hostile_suite};

	return cluster_main(argv, suites, 1);
}
