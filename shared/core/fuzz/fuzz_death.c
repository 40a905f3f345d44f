/*
 * One core among hostile members of which some die: it is their second home, their next one, or
 * holds what was theirs. They say what copies they send, what they hold and that they have told
 * all, true or not; the deaths are true. No assertion is reached, every action fits the state of
 * the node, all pools stay whole, and whoever waits is answered when all have fallen silent.
 */
#include "shared/core/fuzz/hostile.h"

#define OPS_MAX    400u
#define DEATHS_MAX 4u

/* As of epoch EPOCH + n. */
static struct {
	struct wvm_slices slices, second;
	struct wvm_core_lost lost;
	uint8_t member[MEMBERS];
} plans[DEATHS_MAX + 1];
static uint32_t deaths;

static const uint8_t types[] = {
	WVM_MSG_MEM_READ,       WVM_MSG_MEM_ACQUIRE, WVM_MSG_MEM_ACK,
	WVM_MSG_INVALIDATE,     WVM_MSG_DOWNGRADE,   WVM_MSG_FETCH_AND_INVALIDATE,
	WVM_MSG_WRITE_BACK,     WVM_MSG_NOT_HELD,    WVM_MSG_HOLDING,
	WVM_MSG_WRITE_BACK_ACK, WVM_MSG_LOST,        WVM_MSG_BACKUP,
	WVM_MSG_BACKUP_DONE,    WVM_MSG_HOLDING,     WVM_MSG_HOLDING_DONE,
	WVM_MSG_HOLDING,
};

FUZZ_UNWATCHED_BEGIN

/* A home's second home is another one: of whoever is SELF's neighbour it is SELF. */
static void make_seconds(uint32_t n)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t home = wvm_member_of(&members, plans[n].slices.home_vnode[i]);
		uint32_t second = home == SELF ? 2 : SELF;

		if (plans[n].member[second] != WVM_LOST_NOT)
			second = 3;
		plans[n].second.home_vnode[i] = plans[n].member[second] == WVM_LOST_NOT
							? member_list[second].first_vnode
							: WVM_SLICE_NIL;
	}
}

static void make_first(void)
{
	memset(plans, 0, sizeof(plans));
	deaths = 0;
	plans[0].slices = slices;
	memset(plans[0].member, WVM_LOST_NOT, MEMBERS);
	make_seconds(0);
}

/* The member's slices go to SELF or to a member that lives; as a part of the present move or not.
 */
static void die(uint8_t how)
{
	uint32_t dead = how % MEMBERS, n = deaths + 1, to = how & 64 ? SELF : (dead + 1) % MEMBERS;
	const struct wvm_core_params *p = &node.core->params;
	bool joins = how & 128 && p->moved;
	struct wvm_core_lost *lost;

	if (dead == SELF || deaths == DEATHS_MAX || plans[deaths].member[dead] != WVM_LOST_NOT)
		return;
	if (plans[deaths].member[to] != WVM_LOST_NOT)
		to = SELF;
	plans[n] = plans[deaths];
	lost = &plans[n].lost;
	if (!joins)
		memset(lost->slices, 0, sizeof(lost->slices));
	for (uint32_t i = 0; !joins && i < MEMBERS; i++)
		if (plans[n].member[i] != WVM_LOST_NOT)
			plans[n].member[i] = WVM_LOST_ABSENT;
	plans[n].member[dead] = how & 32 ? WVM_LOST_HOLDER : WVM_LOST_EMPTY;
	lost->epoch = p->epoch + 1;
	lost->moved = joins ? p->moved : lost->epoch;
	lost->member = plans[n].member;
	wvm_core_lost_slices(lost, &members, &plans[deaths].slices, joins ? p->before : NULL, dead);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (wvm_member_of(&members, plans[n].slices.home_vnode[i]) == dead)
			plans[n].slices.home_vnode[i] = member_list[to].first_vnode;
	make_seconds(n);
	wvm_core_backup_next(node.core, &plans[n].second);
	switch (wvm_core_epoch_lost(node.core, node.now_ns, lost->epoch, &plans[n].slices, lost)) {
	case WVM_EPOCH_TAKEN: deaths = n; break;
	case WVM_EPOCH_BUSY: FUZZ_CHECK(!joins, "a death that joins a move is refused"); break;
	case WVM_EPOCH_OLD: FUZZ_CHECK(false, "a later epoch is old"); break;
	}
	node_drain(&node);
}

FUZZ_UNWATCHED_END

static void step(struct fuzz_in *in)
{
	uint8_t op = fuzz_u8(in), arg;

	if (op < 176) {
		message(in, types, sizeof(types));
		return;
	}
	arg = fuzz_u8(in);
	switch ((op - 176) / 8) {
	case 0:
	case 1: node_fault(&node, arg % PAGES, arg / 64 % 2, arg >> 3 & 1); break;
	case 2: node_pin(&node, arg % PAGES); break;
	case 3: node_unpin(&node, arg % PAGES); break;
	case 4: node_gone(&node, arg % CLIENTS); break;
	case 5:
		if (arg < 32)
			wvm_core_serve(node.core, arg & 1);
		else if (arg < 64)
			node.fail_installs = arg & 3;
		else if (arg < 128)
			wvm_core_renewed(node.core, arg % MEMBERS, 2 + (arg >> 4 & 3));
		else
			(void)wvm_core_evict(node.core, node.now_ns, 0, core_page(arg % PAGES));
		node_drain(&node);
		break;
	case 6: die(arg); break;
	default: pass_by(arg); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	uint8_t how = fuzz_u8(&in);

	if (!member_list[1].vnodes)
		cluster_init();
	make_first();
	node_open_backed(&node, SELF, how & 2 ? &tight : &roomy, how, &plans[0].second);
	/* Each pass over all slices takes its time, and so does waiting for the end. */
	node.params.times.deadline_ns = node.core->params.times.deadline_ns = 1000 * MS;
	node.params.times.deadline_lost_ns = node.core->params.times.deadline_lost_ns = 1000 * MS;
	node.core->params.times.rto_max_ns = 1000 * MS;
	ids = grants = versions = (struct pool){.next = 1};
	counter = 0;
	for (unsigned i = 0; i < OPS_MAX && in.left; i++)
		step(&in);
	settle();
	node_close(&node);
	return 0;
}

/* ---- seeds ------------------------------------------------------------------------------- */

static uint8_t script[1024];
static size_t script_len;

#define BYTES(...)                                                   \
	do {                                                         \
		const uint8_t bytes_[] = {__VA_ARGS__};              \
		memcpy(script + script_len, bytes_, sizeof(bytes_)); \
		script_len += sizeof(bytes_);                        \
	} while (0)

/* How pick() and the others read it: see hostile.h. */
#define OP_MESSAGE         0
#define OP_FAULT           176
#define OP_OTHER           216
#define OP_DIE             224
#define OP_PASS            232
#define FROM(member)       ((member) - ((member) > SELF)) /* of one vnode */
#define WITH_FLAGS(member) (128 + (FROM(member) + 2) % (MEMBERS - 1))
#define IT(type, page)     ((type) | (page) << 4)
#define KNOWN(n)           (n)         /* the last number but n */
#define VERSION(n)         (176 + (n)) /* EPOCH << 32 | n */
#define SMALL(n)           (192 + (n))
#define OF_ITS_OWN         243, 0, 200 /* a request id */
#define IN_FULL            224         /* 8 bytes follow */
#define BOOT               2           /* node_open() */
#define WHOLE              0           /* a page in one piece */
#define EMPTY              13          /* flags follow */

enum {
	T_READ = 0,
	T_ACQUIRE = 1,
	T_GRANT = 2,
	T_FETCH = 5,
	T_WRITE_BACK = 6,
	T_BACKUP = 11,
	T_BACKUP_DONE = 12,
	T_HOLDING = 13,
	T_DONE = 14
};

static void put_copy(uint8_t from, uint8_t page, uint8_t n)
{
	BYTES(OP_MESSAGE, FROM(from), IT(T_BACKUP, page), 0, SMALL(9), WHOLE, VERSION(n), KNOWN(0),
	      0x55);
}

static void put_complete(uint8_t from, uint8_t page)
{
	BYTES(OP_MESSAGE, FROM(from), IT(T_BACKUP_DONE, page), 0, SMALL(9), VERSION(0), SMALL(2),
	      0);
}

/* One page: its index in the unit, and what is held of it. */
static void put_holding(uint8_t from, uint8_t page, uint8_t kind, uint8_t n)
{
	BYTES(OP_MESSAGE, FROM(from), IT(T_HOLDING, page), 0, SMALL(9), 1,
	      (uint8_t)((page % 2) << 4 | kind), VERSION(n), SMALL(7), VERSION(0), 0);
}

/* What is left of the whole: page 0 of the unit, and all from page 64 on. */
static void put_unit(uint8_t from, uint8_t page, uint8_t n)
{
	BYTES(OP_MESSAGE, FROM(from), IT(T_HOLDING, page), 0, SMALL(9), 8 | 1, 1 | 8,
	      1 << 4 | WVM_HOLDING_MODIFIED, VERSION(n + 1), SMALL(7), VERSION(n), SMALL(7), 0);
}

/* It has told all: an answer in the node's own life. */
static void put_done(uint8_t from)
{
	BYTES(OP_MESSAGE, WITH_FLAGS(from), IT(T_DONE, 0), 0);
	BYTES(IN_FULL, 1, 0, 0, 0, 0, 0, BOOT, 0, WVM_MSG_ANSWER, VERSION(0));
	BYTES(IN_FULL, 0, 0, 1, 0, 0, 0, 0, 0, 0);
}

static void put_answer(uint8_t from, uint8_t page, uint8_t flags)
{
	BYTES(OP_MESSAGE, WITH_FLAGS(from), IT(T_HOLDING, page), 0, KNOWN(0),
	      WVM_MSG_ANSWER | flags, VERSION(0), 0);
}

static void put_read(uint8_t from, uint8_t page)
{
	BYTES(OP_MESSAGE, FROM(from), IT(T_READ, page), 0, 0, VERSION(0), 0);
}

static void pass_some(uint8_t times)
{
	while (times--)
		BYTES(OP_PASS, 5);
}

static void put_question(uint8_t from)
{
	BYTES(OP_MESSAGE, FROM(from), IT(T_DONE, 0), 0, SMALL(9), VERSION(0), KNOWN(0), 0);
}

/* A page of this node's own. */
static void put_acquire(uint8_t from, uint8_t page)
{
	BYTES(OP_MESSAGE, FROM(from), IT(T_ACQUIRE, page), 0, 0, VERSION(0), 0);
}

static void put_written(uint8_t from, uint8_t page)
{
	BYTES(OP_MESSAGE, FROM(from), IT(T_WRITE_BACK, page), 0, SMALL(9), WHOLE, KNOWN(0),
	      KNOWN(0), 0x66);
}

/* What the core has sent last is answered by its second home, in the life that it begins in. */
static void put_copied(uint8_t from, uint8_t page)
{
	BYTES(OP_MESSAGE, FROM(from), IT(T_BACKUP, page), 0, KNOWN(0), EMPTY, WVM_MSG_ANSWER,
	      KNOWN(0), SMALL(BOOT), 0);
}

static void put_made(uint8_t from, uint8_t page)
{
	BYTES(OP_MESSAGE, WITH_FLAGS(from), IT(T_BACKUP_DONE, page), 0, KNOWN(0), WVM_MSG_ANSWER,
	      KNOWN(0), SMALL(BOOT), 0);
}

/* A program asks for the page, and its home, member 2, grants it. */
static void put_grant(uint8_t page, bool write, uint8_t n)
{
	BYTES(OP_FAULT, (uint8_t)(page + (write ? 66 : 0)));
	BYTES(OP_MESSAGE, FROM(2), IT(T_GRANT, page), 0, KNOWN(0), WHOLE, VERSION(n), KNOWN(0),
	      0x55);
}

static void put_fetch(uint8_t page, uint8_t n)
{
	pass_some(1);
	BYTES(OP_MESSAGE, FROM(2), IT(T_FETCH, page), 0, OF_ITS_OWN, VERSION(n), KNOWN(0), 0);
}

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	/* A new home: copies, then all kinds of holdings, then everybody has told all. */
	for (uint8_t n = 0; n < 4; n++) {
		char name[] = "new-home-0";

		script_len = 0;
		BYTES(n);
		put_copy(0, 0, 5);
		put_copy(0, 1, 5);
		if (n % 2)
			put_complete(0, 0);
		BYTES(OP_DIE, 64 | (n / 2 ? 32 : 0));
		put_holding(2, 0, WVM_HOLDING_SHARED, 5);
		put_holding(3, 1, n % 2 ? WVM_HOLDING_WRITTEN : WVM_HOLDING_MODIFIED, 7);
		if (n % 2 == 0)
			put_unit(4, 0, 9);
		pass_some(2);
		for (uint8_t member = 2; member < MEMBERS; member++)
			put_done(member);
		BYTES(OP_DIE, 128 | 64 | 32 | 3);
		pass_some(2);
		for (uint8_t member = 2; member < MEMBERS; member++)
			put_done(member);
		pass_some(1);
		put_read(2, 0);
		put_read(4, 1);
		name[9] = (char)('0' + n);
		put(name, script, script_len);
	}
	/* A home whose second home answers, and an owner that dies. */
	for (uint8_t n = 0; n < 2; n++) {
		char name[] = "home-0";

		script_len = 0;
		BYTES(n);
		pass_some(1);
		put_acquire(3, 2);
		put_written(3, 2);
		put_copied(2, 2);
		put_acquire(3, 3);
		pass_some(2);
		put_copied(2, 2);
		put_made(2, 2);
		BYTES(OP_DIE, 32 | 3);
		put_read(4, 3);
		put_read(4, 2);
		BYTES(OP_OTHER, 64 + 2);
		pass_some(1);
		put_copied(2, 2);
		name[5] = (char)('0' + n);
		put(name, script, script_len);
	}
	/* A holder: of pages Shared, Modified and written back, whose home dies, and the next. */
	for (uint8_t n = 0; n < 4; n++) {
		char name[] = "holder-0";

		script_len = 0;
		BYTES(n);
		put_grant(4, false, 5);
		put_grant(5, true, 6);
		if (n / 2)
			put_fetch(5, 6);
		BYTES(OP_DIE, 2);
		pass_some(1);
		put_answer(3, 4, n % 2 ? WVM_MSG_ERROR : 0);
		pass_some(1);
		put_answer(3, 4, 0);
		put_question(3);
		BYTES(OP_DIE, 128 | 3);
		pass_some(2);
		put_answer(4, 4, 0);
		put_question(4);
		name[7] = (char)('0' + n);
		put(name, script, script_len);
	}
}
