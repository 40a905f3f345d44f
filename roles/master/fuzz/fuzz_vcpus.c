/*
 * The relay of runs between hostile owners, a hostile slave and hostile members: what owners
 * write into their channels, also between two reads of the master, the descriptors that they
 * name, and messages of any fields that the codec lets through. The channels (clients_vcpu.c with
 * reports and orders, spsc.c, over real memfds and eventfds) and the relay (vcpus.c) run on it; the
 * loop is loop.h, the socket a model that checks what leaves: whole messages that the codec takes,
 * in this node's name, each only where its kind may go. No memory is touched that is not the
 * master's, no descriptor is lost, and once the owners are gone nothing of them is left.
 */
#include <dirent.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "roles/master/fuzz/loop.h"
#include "roles/master/node.h"
#include "shared/fuzz/torn.h"
#include "shared/wire.h"

#include "roles/master/clients_priv.h"

#define OWNERS  2u
#define VCPUS   6u /* that they open, and one more that there is not */
#define VM      5u
#define MEMBERS 3u
#define SELF    1u
#define MTU     1472u
#define OPS_MAX 400u
#define WRITES  8u
#define THINGS  16u /* descriptors that an owner can name: 0 to 3 channels, 4 to 7 eventfds */
#define SLAVE   9005u

static const struct wvm_member list[MEMBERS] = {{0, 2}, {2, 3}, {5, 1}};
static struct sockaddr_in addresses[MEMBERS];
static const struct wvm_master_options options = {.slave_port = SLAVE};
static struct wvm_node node;
static struct wvm_clients *all;
static struct fuzz_in *input;

static struct bed {
	int things[THINGS];
	uint8_t *channel[4];
	struct wvm_spsc_tx to_master[4];
	unsigned torn, wait;
	unsigned buffers; /* of the socket, that are free */
	bool from_slave;  /* a message of the slave's is being relayed; else an owner's, of: */
	uint16_t vm_id;
	unsigned vcpu;
	uint8_t *buf;
	uint64_t sent;
} bed;

/* ---- the socket ----------------------------------------------------------------------------- */

uint8_t *wvm_udp_reserve(struct wvm_udp *u, enum wvm_lane lane)
{
	if (!bed.buffers)
		return NULL;
	bed.buffers--;
	FUZZ_CHECK(!bed.buf, "two buffers at a time");
	bed.buf = malloc(MTU);
	return bed.buf;
}

unsigned wvm_udp_free(struct wvm_udp *u, enum wvm_lane lane)
{
	return bed.buffers;
}

static bool to_slave(const struct wvm_msg *m)
{
	return m->type == WVM_MSG_VCPU_RUN || m->type == WVM_MSG_VCPU_KICK ||
	       m->type == WVM_MSG_VCPU_DONE ||
	       (m->type == WVM_MSG_VCPU_HELLO && !(m->flags & WVM_MSG_ANSWER));
}

void wvm_udp_commit(struct wvm_udp *u, enum wvm_lane lane, const struct sockaddr_in *peer,
		    uint16_t steer, uint8_t *buf, size_t len)
{
	const uint8_t *payload;
	struct wvm_msg m;
	uint32_t member;
	size_t used;

	FUZZ_CHECK(buf == bed.buf && len && len <= MTU, "%zu bytes", len);
	FUZZ_CHECK(!wvm_wire_decode(buf, len, &m, &payload, &used) && used == len,
		   "what leaves is no message");
	member = wvm_member_of(&node.members, m.dst);
	FUZZ_CHECK(member < MEMBERS && !steer && lane == (m.qos ? WVM_LANE_BULK : WVM_LANE_CONTROL),
		   "to vnode %u", m.dst);
	FUZZ_CHECK(bed.from_slave || (m.vm_id == bed.vm_id && (m.gpa & UINT16_MAX) == bed.vcpu),
		   "for another owner's processor");
	if (peer->sin_port == htons(SLAVE)) {
		FUZZ_CHECK(peer->sin_addr.s_addr == htonl(INADDR_LOOPBACK) && member == SELF &&
				   to_slave(&m),
			   "%s to the slave", wvm_msg_name(m.type));
	} else {
		FUZZ_CHECK(member != SELF && peer->sin_port == addresses[member].sin_port,
			   "to another's address");
		FUZZ_CHECK(m.src == list[SELF].first_vnode, "in the name of vnode %u", m.src);
		FUZZ_CHECK(to_slave(&m) != bed.from_slave && !m.steer, "%s", wvm_msg_name(m.type));
	}
	free(bed.buf);
	bed.buf = NULL;
	bed.sent++;
}

/* ---- the owners ----------------------------------------------------------------------------- */

int wvm_pidfd_open(pid_t pid)
{
	return -ESRCH;
}

int wvm_pidfd_getfd(int pidfd, int fd)
{
	int copy;

	FUZZ_CHECK(fd >= 0, "descriptor %d is asked for", fd);
	copy = (unsigned)fd < THINGS ? fcntl(bed.things[fd], F_DUPFD_CLOEXEC, 0) : -1;
	return copy < 0 ? -EBADF : copy;
}

static int make_memfd(size_t bytes, int seals)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	FUZZ_CHECK(fd >= 0 && !ftruncate(fd, (off_t)bytes) && !fcntl(fd, F_ADD_SEALS, seals),
		   "memfd");
	return fd;
}

static void make_things(void)
{
	for (unsigned i = 0; i < 4; i++) {
		bed.things[i] = make_memfd(WVM_VCPU_CHANNEL_BYTES, F_SEAL_SHRINK);
		bed.channel[i] = mmap(NULL, WVM_VCPU_CHANNEL_BYTES, PROT_READ | PROT_WRITE,
				      MAP_SHARED, bed.things[i], 0);
		FUZZ_CHECK(bed.channel[i] != MAP_FAILED, "memory");
		bed.things[4 + i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	bed.things[8] = make_memfd(WVM_VCPU_CHANNEL_BYTES, 0);
	bed.things[9] = make_memfd(WVM_CHANNEL_BYTES, F_SEAL_SHRINK);
	bed.things[10] = make_memfd(2 * WVM_VCPU_CHANNEL_BYTES, F_SEAL_SHRINK);
	bed.things[11] = make_memfd(0, F_SEAL_SHRINK);
	bed.things[12] = open("/dev/zero", O_RDWR | O_CLOEXEC);
	bed.things[13] = make_memfd(WVM_VCPU_CHANNEL_BYTES, F_SEAL_SHRINK | F_SEAL_WRITE);
	bed.things[14] = bed.things[15] = -1;
}

static void scribble(struct fuzz_in *in)
{
	static const uint32_t marks[] = {
		0, 64, 128, 132, 136, WVM_VCPU_RING_BYTES, WVM_VCPU_RING_BYTES + 64, 208};
	uint8_t where = fuzz_u8(in);
	uint32_t at = fuzz_u32(in);
	uint64_t value = fuzz_u8(in);

	value = value & 1 ? fuzz_u64(in) : value & 2 ? UINT64_MAX - value : value / 4 * 8;
	at = where & 4 ? at % (WVM_VCPU_CHANNEL_BYTES - 7) & ~7u : marks[where >> 3 & 7];
	(memcpy)(bed.channel[where % 4] + at, &value, sizeof(value));
}

static void fuzz_torn(void)
{
	if (!bed.torn || bed.wait-- > 0)
		return;
	bed.torn--;
	bed.wait = fuzz_u8(input) % 8;
	scribble(input);
}

static void open_one(struct fuzz_in *in)
{
	uint8_t who = fuzz_u8(in), lie = fuzz_u8(in), with = lie ? fuzz_u8(in) : 0;
	unsigned channel = who >> 4 & 3;
	struct client *cl = &all->client[who % OWNERS];
	struct wvm_ring_req r = {.vm_id = VM,
				 .mode = (who >> 1 & 7) % VCPUS,
				 .gpa = channel,
				 .len = 4,
				 .addr = 5 + (who & 1)};
	struct wvm_ring_vcpu info;
	int ret;

	switch (lie % 8) {
	case 1: r.gpa = with; break;
	case 2: r.len = with; break;
	case 3: r.addr = with; break;
	case 4: r.gpa = fuzz_u64(in); break;
	case 5: r.mode = fuzz_u32(in); break;
	case 6: r.vm_id = with; break;
	case 7: r.len = r.gpa = r.addr = with; break;
	}
	if (cl->state != CLIENT_LIVE)
		return;
	if (!(who & 0x80)) {
		(memset)(bed.channel[channel], 0, WVM_VCPU_CHANNEL_BYTES);
		wvm_spsc_open_tx(&bed.to_master[channel], bed.channel[channel], WVM_VCPU_CAPACITY);
	}
	ret = wvm_client_vcpu_open(cl, &r, &info);
	FUZZ_CHECK(ret <= 0, "%d", ret);
	FUZZ_CHECK(ret || (r.vm_id == VM && r.mode < WVM_VCPU_MAX && info.segment % 64 == 0 &&
			   info.vnode == list[SELF].first_vnode),
		   "opened");
}

/* A message as owners, slaves and members send them, its fields near what is right. */
static struct wvm_msg make_message(struct fuzz_in *in)
{
	static const uint8_t types[] = {WVM_MSG_VCPU_RUN,   WVM_MSG_VCPU_EXIT, WVM_MSG_VCPU_KICK,
					WVM_MSG_VCPU_TAKEN, WVM_MSG_VCPU_DONE, WVM_MSG_VCPU_HELLO,
					WVM_MSG_VCPU_HELLO, WVM_MSG_MEM_READ};
	uint8_t what = fuzz_u8(in), odd = fuzz_u8(in);
	struct wvm_msg m = {.type = types[what % 8],
			    .flags = what % 8 == 6 ? WVM_MSG_ANSWER : 0,
			    .hops = what >> 3 & 1 ? WVM_HOPS_MAX : 0,
			    .qos = what >> 4 & 1,
			    .vm_id = VM,
			    .dst = odd >> 4 & 7,
			    .src = what >> 5,
			    .epoch = WVM_STATIC_EPOCH,
			    .request = 7,
			    .gpa = (odd & 7) % VCPUS,
			    .version = 1,
			    .grant = 3};

	if (m.type == WVM_MSG_VCPU_RUN || m.type == WVM_MSG_VCPU_EXIT || what % 8 == 6) {
		m.payload_len = odd & 0x80 ? fuzz_u16(in) : 64;
		m.seg_total = wvm_wire_total(m.payload_len);
	}
	switch (odd % 16) {
	case 8: m.vm_id = fuzz_u8(in); break;
	case 9: m.gpa = fuzz_u64(in); break;
	case 10: m.flags = fuzz_u8(in); break;
	case 11: m.seg_offset = fuzz_u16(in); break;
	case 12: m.seg_total = fuzz_u32(in); break;
	case 13: m.dst = fuzz_u32(in); break;
	case 14: m.epoch = fuzz_u8(in); break;
	case 15: m.request = fuzz_u8(in); break;
	}
	return m;
}

static void record(struct fuzz_in *in)
{
	static const uint8_t bytes[UINT16_MAX + 1];
	uint8_t who = fuzz_u8(in);
	struct wvm_spsc_tx *tx = &bed.to_master[who % 4];
	struct wvm_msg m = make_message(in);
	uint32_t len = sizeof(m), payload = m.payload_len, type = WVM_RING_DATAGRAM;

	if (who & 4)
		len = fuzz_u8(in) % sizeof(m);
	if (who & 8)
		payload = fuzz_u16(in) % sizeof(bytes);
	if (who & 16)
		type = fuzz_u8(in);
	if (tx->mem)
		wvm_spsc_push2(tx, type, &m, len, bytes, payload);
}

/* From the wire: what the codec has let through, from a member's address, the slave's, or none. */
static void message(struct fuzz_in *in)
{
	static uint8_t data[WVM_HEADER_BYTES + WVM_DATAGRAM_MAX];
	uint8_t from = fuzz_u8(in);
	struct wvm_msg m = make_message(in), got;
	struct sockaddr_in at = addresses[from % MEMBERS];
	size_t len, used;
	const uint8_t *payload;
	enum wvm_drop reason;

	if (from & 4)
		at = node.vcpus.slave;
	if (from & 8)
		at.sin_addr = addresses[SELF].sin_addr;
	if (from & 16)
		at.sin_port ^= 1;
	len = wvm_wire_encode(data, sizeof(data), &m, data + WVM_HEADER_BYTES);
	if (!len || wvm_wire_decode(data, len, &got, &payload, &used) || !wvm_vcpus_takes(&got))
		return;
	bed.from_slave = true;
	reason = wvm_vcpus_message(&node.shards[0], &at, &got, payload);
	bed.from_slave = false;
	FUZZ_CHECK(reason < WVM_DROP_REASONS, "reason %d", reason);
	FUZZ_CHECK(reason || !(from & 16), "a stranger was heard");
}

/* The owner reads: the master's ring to it has room again. */
static void take_datagrams(unsigned i)
{
	static uint8_t body[sizeof(struct wvm_msg) + WVM_DATAGRAM_MAX];
	struct wvm_spsc_rx rx;
	uint32_t type;
	int len;

	if (wvm_spsc_open_rx(&rx, bed.channel[i] + WVM_VCPU_RING_BYTES, WVM_VCPU_CAPACITY))
		return;
	do {
		len = wvm_spsc_pop(&rx, &type, body, sizeof(body));
	} while (len >= 0);
}

/* ---- one input ----------------------------------------------------------------------------- */

static void check_channels(void)
{
	unsigned open = 0, at = 0;

	for (unsigned i = 0; i < VCPU_CHANNELS; i++) {
		const struct vcpu_channel *ch = &all->vcpus.list[i];

		open += ch->state == VCPU_OPEN;
		FUZZ_CHECK(ch->state != VCPU_OPEN || (ch->mem && ch->in_open && ch->out_open &&
						      all->vcpus.at[0][ch->vcpu] == i + 1),
			   "channel %u", i);
		FUZZ_CHECK(ch->state == VCPU_OPEN || !ch->mem, "channel %u", i);
	}
	for (unsigned i = 0; i < WVM_VCPU_MAX; i++)
		at += !!all->vcpus.at[0][i];
	FUZZ_CHECK(open == at && open == wvm_clients_vcpu_count(all), "%u open", open);
	FUZZ_CHECK(!bed.buf, "a buffer is lost");
}

static bool turn(void)
{
	bool any = run_tasks();

	for (unsigned k = 0; k < SHARDS; k++)
		while (run_letter(k))
			any = true;
	for (unsigned i = 0; i < loop.bell_count; i++)
		any |= run_closed(&loop.bells[i]);
	sweep_bells();
	return any;
}

/* Any words; only that it is a processor of this node. */
static void on_report(void *ctx, uint16_t vm_id, unsigned vcpu, const struct wvm_vcpu_report *r)
{
	unsigned *count = ctx;

	FUZZ_CHECK(vm_id == VM && vcpu < WVM_VCPU_MAX, "processor %u of VM %u", vcpu, vm_id);
	++*count;
}

static void operate(struct fuzz_in *in)
{
	uint8_t which = fuzz_u8(in);
	struct wvm_vcpu_report r;
	unsigned count = 0;

	wvm_clients_vcpu_each(all, on_report, &count);
	FUZZ_CHECK(count == all->vcpus.open, "%u reports of %u", count, all->vcpus.open);
	(void)wvm_clients_vcpu_order(all, which & 8 ? VM + 1 : VM, which & 7,
				     which & 16 ? UINT64_MAX : which, &r);
}

static void step(struct fuzz_in *in)
{
	uint8_t op = fuzz_u8(in);
	struct bell *b;

	switch (op % 13) {
	case 0: open_one(in); return;
	case 1:
	case 2: record(in); return;
	case 3:
	case 4: message(in); return;
	case 5: scribble(in); return;
	case 6:
		b = live_bell(fuzz_u8(in));
		if (b)
			b->d->ring(b->d);
		return;
	case 7:
		op = fuzz_u8(in);
		bed.torn = op % WRITES;
		bed.wait = op / WRITES % 8;
		return;
	case 8: bed.buffers = fuzz_u8(in) % 8 ? 1000 : fuzz_u8(in) % 4; return;
	case 9: take_datagrams(fuzz_u8(in) % 4); return;
	case 10:
		op = fuzz_u8(in);
		if (op & 8)
			loop.refuse_files = op & 3;
		else
			(void)wvm_client_vcpu_close(
				&all->client[op % OWNERS],
				&(struct wvm_ring_req){.vm_id = VM, .mode = op / 16});
		return;
	case 11: turn(); return;
	default: operate(in); return;
	}
}

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* As long as it is, so that a sanitizer sees who reads on. */
static void on_record(void *ctx, uint16_t vm_id, unsigned vcpu, const uint8_t *data, size_t len)
{
	uint8_t *copy = len ? fuzz_copy(data, len) : NULL;

	bed.vm_id = vm_id;
	bed.vcpu = vcpu;
	wvm_vcpus_record(ctx, vm_id, vcpu, copy, len);
	free(copy);
}

static void on_log(void *ctx, const char *line)
{
	FUZZ_CHECK(*line && !strchr(line, '\n'), "'%s'", line);
}

static const struct wvm_clients_ops ops = {
	.vcpu_record = on_record, .vcpu_room = wvm_vcpus_room, .log = on_log};

/* A node of three with clients that have joined, made by hand. */
static void make_node(void)
{
	static struct wvm_shard *shards[SHARDS] = {&loop.shard[0], &loop.shard[1]};
	static uint8_t own[OWNERS][WVM_CHANNEL_RING_BYTES] __attribute__((aligned(4096)));

	for (unsigned i = 0; i < MEMBERS; i++)
		addresses[i] = (struct sockaddr_in){.sin_family = AF_INET,
						    .sin_port = htons((uint16_t)(9000 + 10 * i)),
						    .sin_addr.s_addr = htonl(0x0a000001 + i)};
	node.options = &options;
	node.members = (struct wvm_members){list, MEMBERS};
	node.addresses = addresses;
	node.self = SELF;
	node.mtu = MTU;
	node.shard_count = SHARDS;
	node.shards[0].node = &node;
	wvm_vcpus_init(&node);
	all = node.clients = calloc(1, sizeof(*all));
	all->conf.ops = &ops;
	all->conf.ctx = &node;
	all->conf.shards = shards;
	all->conf.relay.vnode = list[SELF].first_vnode;
	all->conf.relay.segment = wvm_wire_segment(MTU);
	all->shards = SHARDS;
	all->shard0 = &loop.shard[0];
	all->header.vm_count = 1;
	all->header.vms[0].vm_id = VM;
	wvm_clients_vcpus_init(all);
	for (unsigned k = 0; k < SHARDS; k++)
		FUZZ_CHECK(!wvm_side_new(all, k), "memory");
	for (unsigned i = 0; i < OWNERS; i++) {
		all->client[i].all = all;
		all->client[i].index = i;
		all->client[i].state = CLIENT_LIVE;
		(memset)(own[i], 0, sizeof(own[i]));
		FUZZ_CHECK(!wvm_spsc_open_tx(&all->client[i].tx, own[i], WVM_CHANNEL_CAPACITY),
			   "the channel");
	}
}

static void end_node(void)
{
	for (unsigned i = 0; i < OWNERS; i++)
		wvm_client_vcpus_close(&all->client[i]);
	for (unsigned rounds = 0; turn(); rounds++)
		FUZZ_CHECK(rounds < 200, "the master's work has no end");
	for (unsigned i = 0; i < VCPU_CHANNELS; i++)
		FUZZ_CHECK(all->vcpus.list[i].state == VCPU_FREE, "channel %u is in state %d", i,
			   all->vcpus.list[i].state);
	check_channels();
	wvm_clients_vcpus_free(all);
	for (unsigned k = 0; k < SHARDS; k++)
		wvm_side_free(all->side[k]);
	free(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	unsigned before;

	if (!bed.channel[0])
		make_things();
	input = &in;
	loop = (struct loop){.task_count = 0};
	for (unsigned i = 0; i < 4; i++) {
		(memset)(bed.channel[i], 0, WVM_VCPU_CHANNEL_BYTES);
		bed.to_master[i].mem = NULL;
	}
	bed.torn = bed.wait = 0;
	bed.buffers = 1000;
	before = count_fds();
	make_node();
	for (unsigned i = 0; i < OPS_MAX && in.left; i++) {
		step(&in);
		check_channels();
	}
	bed.torn = loop.refuse_files = 0;
	end_node();
	FUZZ_CHECK(count_fds() == before, "%u descriptors, not %u", count_fds(), before);
	return 0;
}

/* ---- seeds --------------------------------------------------------------------------------- */

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	/* open 0 and 1, each kind of record, the bell; then messages of all, turns, a close */
	static const uint8_t honest[] = {0,  0,    0, 0,  18, 0, 1, 0,  8,  0x20, 1, 0,
					 10, 0x20, 1, 0,  12, 0, 1, 0,  13, 0x20, 6, 0,
					 11, 3,    0, 9,  32, 3, 4, 1,  32, 3,    4, 3,
					 32, 3,    2, 14, 48, 9, 0, 11, 10, 0,    11};
	static const uint8_t torn[] = {0, 0, 0, 1, 0, 8, 0x20, 7, 3, 6, 0,   0,  0, 0,
				       0, 0, 0, 1, 1, 0, 0,    0, 0, 0, 255, 11, 11};
	static const uint8_t lies[] = {0, 0, 1, 8,  0, 0, 1, 9,  0, 0, 1, 10, 0, 0, 1, 11,
				       0, 0, 1, 12, 0, 0, 1, 13, 0, 0, 1, 14, 0, 0, 2, 0,
				       0, 0, 3, 12, 0, 0, 6, 1,  0, 1, 0, 0,  0, 0, 11};

	/* Processor 0 is open: reports, also of a liar; orders for it and for one that is not. */
	static const uint8_t orders[] = {0,  0, 0,   12,  0,   5,   4,   0,   1,   16,
					 8,  1, 255, 255, 255, 255, 255, 255, 255, 255,
					 12, 0, 12,  16,  12,  9,   12,  1};

	put("orders", orders, sizeof(orders));
	put("honest", honest, sizeof(honest));
	put("torn", torn, sizeof(torn));
	put("lies", lies, sizeof(lies));
}
