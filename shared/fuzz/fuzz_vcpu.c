/*
 * Remote processors: what runs, answers and setups carry, differences of states, and messages of
 * any kind to both sides of the run protocol. Decoding is total and what it takes encodes
 * again to the same; a state changes by a good difference only; and whatever
 * comes, both sides stay within their bounds.
 */
#include "shared/core/run.h"
#include "shared/fuzz/fuzz.h"
#include "shared/vcpu.h"
#include "shared/vcpu_state.h"
#include "shared/wire.h"

#define ROOM 8192u

static uint8_t again[WVM_RUN_MAX];

static void within(const uint8_t *part, uint32_t len, const uint8_t *in, size_t in_len)
{
	FUZZ_CHECK(!len == !part, "%u bytes at %p", len, (const void *)part);
	FUZZ_CHECK(!len || (part >= in && part + len <= in + in_len), "%u bytes", len);
}

static void decode_run(struct fuzz_in *in)
{
	size_t len = in->left;
	uint8_t *bytes = fuzz_copy(in->at, len);
	struct wvm_vcpu_run r;

	if (len <= sizeof(again) && !wvm_vcpu_run_decode(bytes, len, &r)) {
		within(r.setup, r.setup_len, bytes, len);
		within(r.state, r.state_len, bytes, len);
		within(r.data, r.data_len, bytes, len);
		FUZZ_CHECK(wvm_vcpu_run_encode(again, sizeof(again), &r) == len, "%zu", len);
		FUZZ_CHECK(!memcmp(again, bytes, WVM_VCPU_RUN_HEAD), "the head");
	}
	free(bytes);
}

static void decode_exit(struct fuzz_in *in)
{
	size_t len = in->left;
	uint8_t *bytes = fuzz_copy(in->at, len);
	struct wvm_vcpu_exit e;

	if (len <= sizeof(again) && !wvm_vcpu_exit_decode(bytes, len, &e)) {
		within(e.state, e.state_len, bytes, len);
		within(e.data, e.data_len, bytes, len);
		FUZZ_CHECK(wvm_vcpu_exit_encode(again, sizeof(again), &e) == len, "%zu", len);
		FUZZ_CHECK(!memcmp(again, bytes, WVM_VCPU_EXIT_HEAD), "the head");
		FUZZ_CHECK(strcmp(wvm_vcpu_exit_name(e.kind), "unknown"), "kind %u", e.kind);
	}
	free(bytes);
}

/* What is taken prints as text that means the same. */
static void parse_setup(struct fuzz_in *in)
{
	static struct wvm_vcpu_setup s, t;
	size_t len = in->left, printed;
	uint8_t *bytes = fuzz_copy(in->at, len);
	char err[160] = "";

	if (wvm_vcpu_setup_parse(bytes, len, &s, err, sizeof(err))) {
		FUZZ_CHECK(err[0], "no reason");
	} else {
		printed = wvm_vcpu_setup_print(&s, (char *)again, sizeof(again));
		FUZZ_CHECK(printed, "printing");
		FUZZ_CHECK(!wvm_vcpu_setup_parse(again, printed, &t, err, sizeof(err)), "%s", err);
		FUZZ_CHECK(s.vcpus == t.vcpus && s.maps == t.maps && !strcmp(s.cpu, t.cpu) &&
				   !memcmp(s.map, t.map, sizeof(s.map)),
			   "it means something else");
	}
	free(bytes);
}

static void apply(struct fuzz_in *in)
{
	static uint64_t state[ROOM / 8], before[ROOM / 8];
	struct wvm_vcpu_layout layout = {0};
	uint32_t changed = 0, sections = 1 + fuzz_u8(in) % 4;
	uint8_t *bytes;

	for (uint32_t i = 0; i < sections; i++)
		wvm_vcpu_layout_add(&layout, 1 + fuzz_u16(in) % 1500);
	for (uint32_t i = 0; i <= layout.bytes / 8; i++)
		before[i] = state[i] = i * UINT64_C(0x9e3779b97f4a7c15);
	bytes = fuzz_copy(in->at, in->left);
	if (wvm_vcpu_apply(&layout, state, bytes, in->left, &changed))
		FUZZ_CHECK(!memcmp(state, before, layout.bytes), "a bad difference changed it");
	else
		FUZZ_CHECK(!(changed >> sections), "sections %#x of %u", changed, sections);
	FUZZ_CHECK(state[layout.bytes / 8] == before[layout.bytes / 8], "beyond the state");
	free(bytes);
}

static struct wvm_msg any_message(struct fuzz_in *in)
{
	static const uint8_t types[] = {WVM_MSG_VCPU_RUN,  WVM_MSG_VCPU_EXIT, WVM_MSG_VCPU_TAKEN,
					WVM_MSG_VCPU_DONE, WVM_MSG_VCPU_KICK, WVM_MSG_PING};
	struct wvm_msg m = {.type = types[fuzz_u8(in) % sizeof(types)]};
	uint8_t bits = fuzz_u8(in);

	m.flags = bits & 1 ? WVM_MSG_ERROR : 0;
	m.vm_id = bits >> 1 & 1;
	m.src = bits >> 2 & 3;
	m.dst = bits >> 4 & 3;
	m.request = fuzz_u8(in) % 8;
	m.version = fuzz_u8(in) % 4;
	m.grant = fuzz_u8(in) % 4;
	m.gpa = wvm_run_operand(bits >> 6 & 1, fuzz_u8(in) % 10);
	m.seg_total = fuzz_u16(in) % 1100 * WVM_SEGMENT_UNIT;
	m.seg_offset = fuzz_u16(in) % 1100 * (bits & 128 ? 32 : WVM_SEGMENT_UNIT);
	m.payload_len = fuzz_u16(in) % 1500;
	return m;
}

/* Both sides, each told anything at all by the other. */
static void converse(struct fuzz_in *in)
{
	static uint8_t payload[1500], run[ROOM], owner_in[WVM_RUN_MAX], slave_in[WVM_RUN_MAX];
	static struct wvm_run_owner o;
	static struct wvm_run_slave s;
	const uint8_t *bytes;
	uint64_t now = 1;
	struct wvm_msg m;

	wvm_run_owner_init(&o, 1, 1, 0, 2, 1344, owner_in);
	wvm_run_slave_init(&s, 1, 1, 1, 2, 1344, slave_in);
	while (in->left) {
		enum wvm_run_event event = WVM_RUN_NOTHING;
		uint8_t what = fuzz_u8(in);
		unsigned sent = 0;

		now += (uint64_t)fuzz_u8(in) << (what >> 4);
		m = any_message(in);
		switch (what % 8) {
		case 0: wvm_run_owner_message(&o, &m, payload, now); break;
		case 1: event = wvm_run_slave_message(&s, &m, payload, now); break;
		case 2: wvm_run_owner_tick(&o, now); break;
		case 3: wvm_run_slave_tick(&s, now); break;
		case 4:
			if (o.state == WVM_RUN_IDLE)
				wvm_run_begin(&o, m.src, m.grant, run, 1 + m.payload_len % ROOM,
					      now);
			break;
		case 5: wvm_run_owner_kick(&o, now); break;
		case 6:
			if (s.state == WVM_RUN_RUNNING)
				wvm_run_slave_answer(&s, run, 1 + m.payload_len, now);
			break;
		default:
			if (s.state == WVM_RUN_RUNNING)
				wvm_run_slave_refuse(&s, WVM_RUN_BASE);
		}
		FUZZ_CHECK(event != WVM_RUN_START || (s.in.len && s.in.len <= WVM_RUN_MAX), "%u",
			   s.in.len);
		while (wvm_run_owner_next(&o, &m, &bytes) || wvm_run_slave_next(&s, &m, &bytes)) {
			FUZZ_CHECK(++sent < 64, "no end of messages");
			FUZZ_CHECK(m.payload_len <= 1344 && !m.payload_len == !bytes, "a segment");
			if (bytes)
				memcpy(again, bytes, m.payload_len);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};

	switch (fuzz_u8(&in) % 5) {
	case 0: decode_run(&in); break;
	case 1: decode_exit(&in); break;
	case 2: parse_setup(&in); break;
	case 3: apply(&in); break;
	default: converse(&in); break;
	}
	return 0;
}

/* ---- seeds ---------------------------------------------------------------------------------- */

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	static const char setup[] =
		"\2vcpus 2\ncpu qemu64,+ssse3\nmap 0 a0000 0\nmap c0000 20000 c0000 ro\n";
	static const uint8_t part[40] = {1, 2, 3};
	struct wvm_vcpu_run r = {.engine = WVM_VCPU_ENGINE_TCG,
				 .flags = WVM_VCPU_RUN_WHOLE | WVM_VCPU_RUN_INJECT,
				 .vector = 32,
				 .setup = part,
				 .setup_len = 40,
				 .state = part,
				 .state_len = 33};
	struct wvm_vcpu_exit e = {.kind = WVM_VCPU_EXIT_PIO,
				  .flags = WVM_VCPU_EXIT_WRITE | WVM_VCPU_EXIT_STATE,
				  .size = 4,
				  .count = 2,
				  .at = 0x3f8,
				  .state = part,
				  .state_len = 12,
				  .data = part,
				  .data_len = 8};
	/* A run is sent and taken, asked about, and answered. */
	static const uint8_t talk[] = {4, 4, 1,    0,    0x12, 0, 0, 2, 0, 0, 0, 0,  0,  64, 0,
				       1, 1, 0,    0x52, 1,    2, 2, 0, 1, 0, 0, 0,  64, 0,  6,
				       1, 0, 0x52, 1,    2,    2, 0, 1, 0, 0, 0, 64, 0};
	uint8_t out[256];

	out[0] = 0;
	put("run", out, 1 + wvm_vcpu_run_encode(out + 1, sizeof(out) - 1, &r));
	out[0] = 1;
	put("answer", out, 1 + wvm_vcpu_exit_encode(out + 1, sizeof(out) - 1, &e));
	put("setup", setup, sizeof(setup) - 1);
	put("talk", talk, sizeof(talk));
}
