/*
 * A home in the place of one that has died: what becomes of each page, whoever tells of it, in
 * which order and how often, and whatever ends this home meanwhile. Whatever else is said to it
 * changes nothing.
 */
#include "shared/core/check/dead.h"

#define PAGE 3u
#define SHD  WVM_HOLDING_SHARED
#define MOD  WVM_HOLDING_MODIFIED
#define WRI  WVM_HOLDING_WRITTEN
#define KPT  WVM_HOLDING_WRITTEN_KEPT

/* What a reader gets, or who is asked for it. */
enum outcome {
	ZEROS,
	BYTES,
	LOST,
	OWNED,  /* by `member` */
	WAITED, /* until `member` has written it back */
};

struct row {
	const char *name;
	bool incomplete, stolen;
	/* The copy, if there is a version. */
	uint64_t copy;
	uint8_t fill, flags;
	struct told told[3];
	enum outcome is;
	uint32_t member;
	uint64_t version; /* BYTES, ZEROS; WAITED: of what is waited for; OWNED: that it has */
};

#define COPY(v)   .copy = V(v), .fill = 0x55
#define TOLD(...) .told = {__VA_ARGS__}
#define BY(m, k, v)                       \
	{                                 \
		m, k, V(v), ID(100 + (m)) \
	}

static const struct row rows[] = {
	{"nothing", .is = ZEROS},
	{"nothing, and the copies are not complete", .incomplete = true, .is = LOST},
	{"nothing, and a dead one may have had it", .stolen = true, .is = LOST},
	{"a copy", COPY(5), .is = BYTES, .version = V(5)},
	{"a copy of zeros", .copy = V(5), .flags = WVM_MSG_ZERO, .is = ZEROS, .version = V(5)},
	{"a lost copy", .copy = V(5), .flags = WVM_MSG_ERROR, .is = LOST},
	{"a copy, and others may be missing", COPY(5), .incomplete = true, .is = LOST},
	{"a copy, and a dead one may have had it", COPY(5), .stolen = true, .is = LOST},
	{"Shared in the version of the copy", COPY(5), TOLD(BY(A, SHD, 5)), .is = BYTES,
	 .version = V(5)},
	{"the same, and other copies may be missing", COPY(5), .incomplete = true,
	 TOLD(BY(A, SHD, 5)), .is = BYTES, .version = V(5)},
	{"the same, and a dead one may have had others", COPY(5), .stolen = true,
	 TOLD(BY(A, SHD, 5)), .is = BYTES, .version = V(5)},
	{"Shared by many", COPY(5), TOLD(BY(A, SHD, 5), BY(B, SHD, 5), BY(C, SHD, 5)), .is = BYTES,
	 .version = V(5)},
	{"Shared above the copy, and nobody has the bytes", COPY(5), TOLD(BY(A, SHD, 7)),
	 .is = LOST},
	{"Shared, and there never was a copy", TOLD(BY(A, SHD, 4)), .is = ZEROS, .version = V(4)},
	{"the same, and copies may be missing", .incomplete = true, TOLD(BY(A, SHD, 4)),
	 .is = LOST},
	{"the same, and a dead one may have written it", .stolen = true, TOLD(BY(A, SHD, 4)),
	 .is = LOST},
	{"Shared below the copy: of a copy that was to be given up", COPY(5), TOLD(BY(A, SHD, 4)),
	 .is = BYTES, .version = V(5)},
	{"Modified", TOLD(BY(A, MOD, 8)), .is = OWNED, .member = A, .version = V(8)},
	{"Modified above a copy", COPY(5), TOLD(BY(A, MOD, 8)), .is = OWNED, .member = A,
	 .version = V(8)},
	{"Modified, whatever else may be missing", COPY(5), .incomplete = true, .stolen = true,
	 TOLD(BY(A, MOD, 8)), .is = OWNED, .member = A, .version = V(8)},
	{"Modified, and others have older ones", COPY(5),
	 TOLD(BY(B, SHD, 5), BY(A, MOD, 8), BY(C, WRI, 6)), .is = OWNED, .member = A,
	 .version = V(8)},
	{"Modified by two: the higher version", TOLD(BY(A, MOD, 8), BY(B, MOD, 6)), .is = OWNED,
	 .member = A, .version = V(8)},
	{"Modified below what was written back since", COPY(9), TOLD(BY(A, MOD, 8)), .is = BYTES,
	 .version = V(9)},
	{"Shared above what another one had Modified", TOLD(BY(A, MOD, 6), BY(B, KPT, 8)),
	 .is = WAITED, .member = B, .version = V(8)},
	{"written back above the copy", COPY(5), TOLD(BY(A, WRI, 7)), .is = WAITED, .member = A,
	 .version = V(7)},
	{"written back without a copy", TOLD(BY(A, WRI, 7)), .is = WAITED, .member = A,
	 .version = V(7)},
	{"written back, and kept Shared", COPY(5), TOLD(BY(A, KPT, 7)), .is = WAITED, .member = A,
	 .version = V(7)},
	{"written back, and Shared by another one", TOLD(BY(A, WRI, 7), BY(B, SHD, 7)),
	 .is = WAITED, .member = A, .version = V(7)},
	{"the same where copies may be missing", .incomplete = true, COPY(5),
	 TOLD(BY(A, WRI, 7), BY(B, SHD, 7)), .is = WAITED, .member = A, .version = V(7)},
	{"written back twice", TOLD(BY(A, WRI, 7), BY(B, WRI, 9)), .is = WAITED, .member = B,
	 .version = V(9)},
	{"written back in the version of the copy", COPY(7), TOLD(BY(A, WRI, 7)), .is = BYTES,
	 .version = V(7)},
	{"written back below the copy", COPY(7), TOLD(BY(A, WRI, 6)), .is = BYTES, .version = V(7)},
	{"written back, and later ones may be missing", .incomplete = true, COPY(5),
	 TOLD(BY(A, WRI, 7)), .is = LOST},
	{"written back, and a dead one may have had it since", .stolen = true, COPY(5),
	 TOLD(BY(A, WRI, 7)), .is = LOST},
};

#define ROWS ((int)(sizeof(rows) / sizeof(rows[0])))

/* How it is told. */
enum order { FORWARD, BACKWARD, TWICE, KILLED_BETWEEN, KILLED_AFTER, ORDERS };

static void tell_row(struct house *h, const struct row *row, enum order order)
{
	uint32_t count = 0, times = order == TWICE ? 2 : 1;

	while (count < 3 && row->told[count].member)
		count++;
	for (uint32_t i = 0; i < times * count; i++) {
		const struct told *t = &row->told[order == BACKWARD ? count - 1 - i : i % count];

		ck_assert_int_eq(tell_page(h, PAGE, t), WVM_DROP_NONE);
		ck_assert_int_eq(only_sent(h, WVM_MSG_HOLDING, t->member)->msg.flags,
				 WVM_MSG_ANSWER);
		h->sent_count = 0;
		if (order == KILLED_BETWEEN)
			kill_house(h, NULL);
	}
}

static void check_row(struct house *h, const struct row *row)
{
	enum wvm_drop drop = SAY(h, MEM_READ, C, PAGE, .request = ID(500));
	const struct sent *s = h->sent;

	if (row->is == WAITED) {
		ck_assert_int_eq(drop, WVM_DROP_ROOM);
		ck_assert_uint_eq(h->sent_count, 0);
		/* The bytes of another version, or from another one, are not those. */
		(void)SAY_BYTES(h, WRITE_BACK, row->member == A ? B : A, PAGE, 0x66,
				.request = ID(60), .grant = ID(100), .version = row->version);
		(void)SAY_BYTES(h, WRITE_BACK, row->member, PAGE, 0x66, .request = ID(60),
				.grant = ID(100), .version = row->version - 1);
		(void)SAY(h, WRITE_BACK, row->member, PAGE, .request = ID(60), .grant = ID(100),
			  .version = row->version);
		ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 1);
		h->sent_count = 0;
		ck_assert_int_eq(SAY_BYTES(h, WRITE_BACK, row->member, PAGE, 0x77,
					   .request = ID(60), .grant = ID(100),
					   .version = row->version),
				 WVM_DROP_NONE);
		only_sent(h, WVM_MSG_WRITE_BACK_ACK, row->member);
		h->sent_count = 0;
		drop = SAY(h, MEM_READ, C, PAGE, .request = ID(501));
	}
	ck_assert_int_eq(drop, WVM_DROP_NONE);
	if (row->is == OWNED) {
		only_sent(h, WVM_MSG_DOWNGRADE, row->member);
		ck_assert_uint_eq(s->msg.version, row->version);
		ck_assert_uint_eq(s->msg.grant, ID(100 + row->member));
		return;
	}
	only_sent(h, WVM_MSG_MEM_ACK, C);
	ck_assert_int_eq(s->msg.flags & WVM_MSG_ERROR ? LOST : BYTES,
			 row->is == LOST ? LOST : BYTES);
	if (row->is == LOST)
		return;
	ck_assert_uint_eq(s->fill, row->is == ZEROS ? 0 : row->is == WAITED ? 0x77 : row->fill);
	ck_assert_int_eq(s->msg.flags & WVM_MSG_ZERO, row->is == ZEROS ? WVM_MSG_ZERO : 0);
	if (row->version)
		ck_assert_uint_eq(s->msg.version, row->version);
}

/* Whoever told of a Shared copy of what is served is asked to give it up for a writer. */
static void check_sharers(struct house *h, const struct row *row)
{
	uint32_t sharers = 0;

	for (uint32_t i = 0; i < 3 && row->told[i].member; i++)
		sharers += (row->told[i].kind == SHD || row->told[i].kind == KPT) &&
			   row->told[i].version == h->r.home[PAGE].version;
	if (row->is == LOST || row->is == OWNED)
		sharers = 0;
	ck_assert_uint_eq(h->r.home[PAGE].holders, sharers + (row->is == OWNED));
}

START_TEST(a_page_becomes_what_is_known_of_it_when_all_have_told)
{
	const struct row *row = &rows[_i / ORDERS];
	enum order order = _i % ORDERS;
	struct wvm_home_page before;
	struct wvm_home_unit unit;
	struct house *h = calloc(1, sizeof(*h));

	h->r.name = row->name;
	house_open(h, NULL, RIG_SELF, 0);
	if (row->copy)
		give_copy(h, PAGE, row->copy, row->fill, row->flags);
	if (!row->incomplete)
		say_complete(h, PAGE);
	die(h, row->stolen ? WVM_LOST_HOLDER : WVM_LOST_EMPTY, RIG_SELF);
	/* Nobody is served before all have told. */
	h->silent[B] = true;
	all_tell(h);
	ck_assert_int_eq(SAY(h, MEM_READ, C, PAGE, .request = ID(40)), WVM_DROP_ROOM);
	tell_row(h, row, order);
	ck_assert_int_eq(SAY(h, MEM_READ, C, PAGE, .request = ID(41)), WVM_DROP_ROOM);
	ck_assert_uint_eq(h->sent_count, 0);
	h->silent[B] = false;
	all_tell(h);
	if (order == KILLED_AFTER)
		kill_house(h, NULL);
	all_tell(h);
	check_sharers(h, row);
	/* What comes late is acknowledged, and changes nothing. */
	before = h->r.home[PAGE];
	unit = h->r.units[0];
	tell_row(h, row, FORWARD);
	ck_assert(!memcmp(&before, &h->r.home[PAGE], sizeof(before)));
	ck_assert(!memcmp(&unit, &h->r.units[0], sizeof(unit)));
	check_row(h, row);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	house_close(h);
	free(h);
}
END_TEST

/* ---- units that were granted whole ----------------------------------------------------- */

/* In any order: A has 0 to 99 of the whole; 100 is B's; 101 was written back; of 102 nobody tells.
 */
static void tell_part(struct house *h, uint32_t part)
{
	static const struct told taken = {B, MOD, V(12), ID(7)}, written = {C, WRI, V(11), ID(8)};

	switch (part) {
	case 0: ck_assert_int_eq(tell_unit(h, A, V(10), ID(5), 0, 100), WVM_DROP_NONE); return;
	case 1: ck_assert_int_eq(tell_page(h, 100, &taken), WVM_DROP_NONE); return;
	case 2: ck_assert_int_eq(tell_page(h, 101, &written), WVM_DROP_NONE); return;
	/* What was granted whole before that: nothing of it counts. */
	default: ck_assert_int_eq(tell_unit(h, B, V(3), ID(9), 0, 512), WVM_DROP_NONE); return;
	}
}

START_TEST(what_is_left_of_a_whole_unit_is_its_owners_and_nothing_else_is)
{
	static const uint8_t orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}, {2, 3, 0, 1}};
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	/* Copies of before it was granted: of pages that its owner has, and of one that it has not.
	 */
	give_copy(h, 4, V(2), 0x44, 0);
	give_copy(h, 102, V(2), 0x44, 0);
	give_copy(h, 103, V(11), 0x33, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	for (uint32_t i = 0; i < 4; i++) {
		tell_part(h, orders[_i / 2][i]);
		if (_i % 2)
			kill_house(h, NULL);
	}
	h->sent_count = 0;
	all_tell(h);
	if (_i % 2)
		kill_house(h, NULL);
	all_tell(h);
	check_page(h, 0, A, 50);
	check_page(h, 4, A, 51);
	check_page(h, 99, A, 52);
	check_page(h, 100, B, 53);
	check_page(h, 110, 0, 54);
	check_page(h, 102, 0, 55);
	/* Written back since, and the copy is there. */
	h->sent_count = 0;
	ck_assert_int_eq(SAY(h, MEM_READ, C, 103, .request = ID(56)), WVM_DROP_NONE);
	ck_assert_uint_eq(only_sent(h, WVM_MSG_MEM_ACK, C)->fill, 0x33);
	/* It is on its way. */
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 1);
	ck_assert_int_eq(SAY(h, MEM_READ, B, 101, .request = ID(57)), WVM_DROP_ROOM);
	/* A merge is not granted before. */
	ck_assert_int_eq(SAY(h, MEM_ACQUIRE, A, 0, .request = ID(58),
			     .flags = WVM_MSG_UNIT | WVM_MSG_HELD, .version = V(10)),
			 WVM_DROP_ROOM);
	h->sent_count = 0;
	ck_assert_int_eq(SAY_BYTES(h, WRITE_BACK, C, 101, 0x22, .request = ID(8), .grant = ID(8),
				   .version = V(11)),
			 WVM_DROP_NONE);
	only_sent(h, WVM_MSG_WRITE_BACK_ACK, C);
	h->sent_count = 0;
	ck_assert_int_eq(SAY(h, MEM_READ, B, 101, .request = ID(59)), WVM_DROP_NONE);
	ck_assert_uint_eq(only_sent(h, WVM_MSG_MEM_ACK, B)->fill, 0x22);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	house_close(h);
	free(h);
}
END_TEST

/* The counter goes on above all that was told, and above all of the dead home's epochs. */
START_TEST(no_version_is_given_out_twice)
{
	static const struct told high = {A, WRI, ((uint64_t)(NEXT + 3) << 32) + 9, ID(4)};
	static const struct told low = {A, MOD, V(9), ID(4)};
	struct house *h = calloc(1, sizeof(*h));
	uint64_t above = _i ? high.version : (uint64_t)NEXT << 32;

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(tell_page(h, PAGE, _i ? &high : &low), WVM_DROP_NONE);
	h->sent_count = 0;
	all_tell(h);
	ck_assert_int_eq(SAY(h, MEM_ACQUIRE, C, PAGE + 1, .request = ID(50)), WVM_DROP_NONE);
	ck_assert_uint_gt(only_sent(h, WVM_MSG_MEM_ACK, C)->msg.version, above);
	house_close(h);
	free(h);
}
END_TEST

/* Of an earlier pair of homes: as if it were not there. */
START_TEST(a_copy_of_an_earlier_time_says_nothing)
{
	const struct told t = {A, SHD, V(4), ID(3)};
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	give_copy(h, PAGE, V(9), 0x55, 0);
	give_copy(h, PAGE + 1, V(9), 0x55, 0);
	say_complete(h, 0);
	h->r.units[0].era += 7;
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(tell_page(h, PAGE, &t), WVM_DROP_NONE);
	h->sent_count = 0;
	all_tell(h);
	for (uint32_t i = 0; i < 2; i++) {
		const struct sent *s;

		h->sent_count = 0;
		ck_assert_int_eq(SAY(h, MEM_READ, C, PAGE + i, .request = ID(50 + i)),
				 WVM_DROP_NONE);
		s = only_sent(h, WVM_MSG_MEM_ACK, C);
		ck_assert_int_eq(s->msg.flags & (WVM_MSG_ZERO | WVM_MSG_ERROR), WVM_MSG_ZERO);
		if (!i)
			ck_assert_uint_eq(s->msg.version, V(4));
	}
	house_close(h);
	free(h);
}
END_TEST

/* ---- units that were on their way ------------------------------------------------------ */

/* HOME hands all over to this node, and is well so far. */
static void move_here(struct house *h)
{
	struct wvm_core_params *p = &h->r.params;

	all_slices(&h->slices[1], RIG_SELF);
	all_slices(&h->second[1], WVM_SLICE_NIL);
	wvm_core_backup_next(h->r.core, &h->second[1]);
	ck_assert_int_eq(wvm_core_epoch(h->r.core, h->r.now_ns, NEXT, &h->slices[1]),
			 WVM_EPOCH_TAKEN);
	*p = h->r.core->params;
	drain(h);
}

/* The answer to the walk's question about a unit: this page, of zeros, or none further. */
static void hand_over(struct house *h, uint64_t unit, uint64_t page, uint64_t version)
{
	struct wvm_shipped s = {.unit.version = V(20), .version = version};
	struct wvm_msg m = message(WVM_MSG_HANDOVER, HOME, NEXT, 0);
	uint8_t bytes[WVM_SHIP_BYTES];

	for (uint32_t n = 0; !m.request; n++) {
		for (uint32_t i = 0; i < h->sent_count; i++)
			if (h->sent[i].msg.type == WVM_MSG_HANDOVER &&
			    h->sent[i].msg.gpa >> WVM_UNIT_SHIFT == unit)
				m.request = h->sent[i].msg.request;
		h->sent_count = 0;
		ck_assert_uint_lt(n, 50);
		if (!m.request)
			pass_time(h, 5 * MS, false);
	}
	m.gpa = page << WVM_PAGE_SHIFT;
	m.flags = WVM_MSG_ANSWER;
	m.payload_len = (uint16_t)wvm_shipped_encode(bytes, &s);
	m.seg_total = (m.payload_len + WVM_SEGMENT_UNIT - 1u) & ~(WVM_SEGMENT_UNIT - 1u);
	ck_assert_int_eq(say(h, m, bytes), WVM_DROP_NONE);
}

/* A part of it has come: what nobody holds is not known. What somebody holds is, by telling. */
START_TEST(of_a_unit_that_has_come_in_part_only_what_is_held_is_known)
{
	const struct told t = {A, MOD, V(8), ID(3)};
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	move_here(h);
	hand_over(h, 0, 1, V(5));
	ck_assert_int_eq(h->r.units[0].phase, WVM_MOVED_COMING);
	plan_death(h, 2, NEXT, HOME, WVM_LOST_EMPTY, RIG_SELF);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	if (_i)
		kill_house(h, NULL);
	ck_assert_int_eq(tell_page(h, PAGE, &t), WVM_DROP_NONE);
	h->sent_count = 0;
	all_tell(h);
	check_page(h, PAGE, A, 50);
	check_page(h, PAGE + 1, 0, 51);
	check_page(h, 1, 0, 52);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	house_close(h);
	free(h);
}
END_TEST

/* All of it has come, and the former home dies before it has heard so. */
START_TEST(a_unit_that_has_come_is_served_on_when_its_former_home_dies)
{
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	move_here(h);
	hand_over(h, 0, 1, V(5));
	hand_over(h, 0, 2, 0);
	ck_assert_int_eq(h->r.units[0].phase, WVM_MOVED_CAME);
	plan_death(h, 2, NEXT, HOME, WVM_LOST_HOLDER, RIG_SELF);
	ck_assert_int_eq(learn_death(h, 2), WVM_EPOCH_TAKEN);
	if (_i)
		kill_house(h, NULL);
	/* Its pages wait for nobody's word, and none of them is lost. */
	h->sent_count = 0;
	for (uint64_t page = 1; page < 3; page++) {
		const struct sent *s;

		h->sent_count = 0;
		ck_assert_int_eq(SAY(h, MEM_READ, C, page, .request = ID(50 + page)),
				 WVM_DROP_NONE);
		s = only_sent(h, WVM_MSG_MEM_ACK, C);
		ck_assert_int_eq(s->msg.flags & (WVM_MSG_ZERO | WVM_MSG_ERROR), WVM_MSG_ZERO);
		ck_assert(page != 1 || s->msg.version == V(5));
	}
	/* Of the other unit nothing had come. */
	ck_assert_int_eq(SAY(h, MEM_READ, C, RIG_OTHER, .request = ID(60)), WVM_DROP_ROOM);
	all_tell(h);
	check_page(h, RIG_OTHER, 0, 61);
	ck_assert_uint_eq(wvm_core_handover(h->r.core).in, 0);
	house_close(h);
	free(h);
}
END_TEST

/* ---- what is refused ------------------------------------------------------------------- */

struct bad {
	const char *name;
	uint16_t count; /* of pages, one index after the other from `index` on */
	uint16_t index, step, kind;
	int16_t more; /* bytes */
	uint64_t version, grant;
	uint64_t unit, unit_version; /* of the grant of the whole */
	uint64_t mine;
	enum wvm_drop drop;
};

/* Pages: count, the first index, the step to the next, and what is said of each. */
#define PAGES(count_, index_, step_, kind_, version_, grant_)                                \
	.count = count_, .index = index_, .step = step_, .kind = kind_, .version = version_, \
	.grant = grant_
#define TWO            PAGES(2, 7, 1, SHD, V(5), ID(3))
#define UNIT(v, mine_) .unit = ID(4), .unit_version = v, .mine = mine_
#define NO             .drop = WVM_DROP_SEGMENT

static const struct bad bads[] = {
	{"none of these", TWO},
	{"and with a unit", TWO, UNIT(V(6), 1)},
	{"a unit alone", UNIT(V(6), 3)},
	{"as many pages as there may be", PAGES(18, 7, 1, SHD, V(5), ID(3))},
	{"nothing at all", NO},
	{"a byte less", TWO, .more = -1, NO},
	{"a byte more", TWO, .more = 1, NO},
	{"less than one page", PAGES(1, 7, 1, SHD, V(5), ID(3)), .more = -19, NO},
	{"more pages than there may be", PAGES(19, 7, 1, SHD, V(5), ID(3)), NO},
	{"a unit cut short", UNIT(V(6), 1), .more = -8, NO},
	{"half a unit", UNIT(V(6), 1), .more = -32, NO},
	{"a page twice", PAGES(2, 7, 0, SHD, V(5), ID(3)), NO},
	{"pages in falling order", PAGES(2, 7, UINT16_MAX, SHD, V(5), ID(3)), NO},
	{"an index beyond the unit", PAGES(2, 511, 1, SHD, V(5), ID(3)), NO},
	{"a large index", PAGES(2, UINT16_MAX - 1, 1, SHD, V(5), ID(3)), NO},
	{"no kind", PAGES(2, 7, 1, 0, V(5), ID(3)), NO},
	{"a kind that there is not", PAGES(2, 7, 1, WVM_HOLDING_KINDS, V(5), ID(3)), NO},
	{"a kind that looks like one", PAGES(2, 7, 1, 0x101, V(5), ID(3)), NO},
	{"no version", PAGES(2, 7, 1, SHD, 0, ID(3)), NO},
	{"the version before all others", PAGES(2, 7, 1, SHD, 1, ID(3)), NO},
	{"no grant", PAGES(2, 7, 1, SHD, V(5), 0), NO},
	{"a page of the whole by itself, too", TWO, UNIT(V(6), 1u << 8), NO},
	{"a unit without a version", TWO, UNIT(0, 1), NO},
	{"a unit in a version that nobody grants", UNIT(1, 1), NO},
};

static uint32_t put_bad(uint8_t *at, const struct bad *b)
{
	uint32_t len = 0;

	for (uint32_t i = 0; b->unit && i < WVM_UNIT_WORDS; i++, len += 8)
		wvm_store64(at + len, i ? 0 : b->mine);
	for (uint16_t i = 0; i < b->count; i++)
		len += put_told(at + len, (uint16_t)(b->index + i * b->step), b->kind, b->version,
				b->grant);
	return (uint32_t)((int)len + b->more);
}

START_TEST(what_no_holder_says_is_refused_and_changes_nothing)
{
	const struct bad *b = &bads[_i];
	uint8_t bytes[1000] = {0};
	struct wvm_home_page *pages = calloc(RIG_PAGES, sizeof(*pages));
	struct house *h = calloc(1, sizeof(*h));
	struct wvm_home_unit unit;

	house_open(h, NULL, RIG_SELF, 0);
	give_copy(h, PAGE, V(5), 0x55, 0);
	say_complete(h, 0);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	memcpy(pages, h->r.home, RIG_PAGES * sizeof(*pages));
	unit = h->r.units[0];
	h->r.name = b->name;
	ck_assert_msg(say_holding(h, A, 0, b->unit_version, b->unit, bytes, put_bad(bytes, b)) ==
			      b->drop,
		      "%s", b->name);
	ck_assert_msg(h->sent_count == !b->drop, "%s", b->name);
	ck_assert_msg(!memcmp(pages, h->r.home, RIG_PAGES * sizeof(*pages)) == !!b->drop, "%s",
		      b->name);
	ck_assert(!b->drop || !memcmp(&unit, &h->r.units[0], sizeof(unit)));
	house_close(h);
	free(pages);
	free(h);
}
END_TEST

/* The last unit of a VM may be a short one. */
START_TEST(a_page_behind_the_end_of_the_memory_is_refused)
{
	const struct told t = {A, SHD, V(5), ID(3)};
	struct house *h = calloc(1, sizeof(*h));

	house_open(h, NULL, RIG_SELF, 0);
	h->r.core->vms[0].pages = RIG_PAGES - 10;
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	for (uint64_t page = RIG_PAGES - 11; page < RIG_PAGES; page++) {
		uint8_t bytes[WVM_HOLDING_PAGE];

		put_told(bytes, (uint16_t)(page % WVM_UNIT_PAGES), t.kind, t.version, t.grant);
		ck_assert_int_eq(say_holding(h, A, RIG_OTHER, 0, 0, bytes, sizeof(bytes)),
				 page < RIG_PAGES - 10 ? WVM_DROP_NONE : WVM_DROP_SEGMENT);
	}
	/* What is left of the whole of it: of the pages behind the end nothing is looked at. */
	{
		uint8_t bytes[8 * WVM_UNIT_WORDS];

		memset(bytes, 0xff, sizeof(bytes));
		ck_assert_int_eq(say_holding(h, A, RIG_OTHER, V(6), ID(4), bytes, sizeof(bytes)),
				 WVM_DROP_NONE);
	}
	for (uint64_t page = RIG_PAGES - 10; page < RIG_PAGES; page++)
		ck_assert_uint_eq(h->r.home[page].version, 0);
	house_close(h);
	free(h);
}
END_TEST

/* Who is none of the cluster, is dead, or lives in another epoch is not heard. */
START_TEST(only_members_that_live_in_this_epoch_are_heard)
{
	const struct told t = {A, MOD, V(8), ID(3)};
	struct house *h = calloc(1, sizeof(*h));
	struct wvm_msg m;
	uint8_t bytes[WVM_HOLDING_PAGE];
	uint32_t len = put_told(bytes, PAGE, t.kind, t.version, t.grant);

	house_open(h, NULL, RIG_SELF, 0);
	say_complete(h, 0);
	/* Nobody has died yet. */
	ck_assert_int_eq(tell_page(h, PAGE, &t), WVM_DROP_NODE);
	die(h, WVM_LOST_EMPTY, RIG_SELF);
	m = message(WVM_MSG_HOLDING, A, NEXT, ID(900));
	m.gpa = PAGE << WVM_PAGE_SHIFT;
	m.payload_len = (uint16_t)len;
	m.seg_total = 32;
	m.src = 1; /* no vnode of anybody */
	ck_assert_int_eq(say(h, m, bytes), WVM_DROP_NODE);
	m.src = RIG_VNODE(HOME);
	ck_assert_int_eq(say(h, m, bytes), WVM_DROP_NODE);
	m.src = RIG_VNODE(A);
	m.epoch = RIG_EPOCH;
	ck_assert_int_eq(say(h, m, bytes), WVM_DROP_EPOCH);
	m.epoch = NEXT + 1;
	ck_assert_int_eq(say(h, m, bytes), WVM_DROP_EPOCH);
	m.epoch = NEXT;
	m.seg_offset = 32;
	ck_assert_int_eq(say(h, m, bytes), WVM_DROP_SEGMENT);
	m.seg_offset = 0;
	wvm_core_serve(h->r.core, false);
	ck_assert_int_eq(say(h, m, bytes), WVM_DROP_ROOM);
	wvm_core_serve(h->r.core, true);
	ck_assert_uint_eq(h->sent_count, 0);
	ck_assert_uint_eq(h->r.home[PAGE].version, 0);
	ck_assert_int_eq(say(h, m, bytes), WVM_DROP_NONE);
	ck_assert_uint_eq(h->r.home[PAGE].granted, t.version);
	/* The dead are not served, whatever they send. */
	h->sent_count = 0;
	all_tell(h);
	ck_assert_int_eq(SAY(h, MEM_READ, HOME, PAGE, .request = ID(1)), WVM_DROP_NODE);
	ck_assert_int_eq(SAY_BYTES(h, BACKUP, HOME, PAGE, 0x11, .request = ID(1), .version = V(99)),
			 WVM_DROP_NODE);
	ck_assert_uint_eq(h->sent_count, 0);
	house_close(h);
	free(h);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_page_becomes_what_is_known_of_it_when_all_have_told, 0,
			    ROWS * ORDERS);
	tcase_add_loop_test(tc, what_is_left_of_a_whole_unit_is_its_owners_and_nothing_else_is, 0,
			    8);
	tcase_add_loop_test(tc, no_version_is_given_out_twice, 0, 2);
	tcase_add_test(tc, a_copy_of_an_earlier_time_says_nothing);
	tcase_add_loop_test(tc, of_a_unit_that_has_come_in_part_only_what_is_held_is_known, 0, 2);
	tcase_add_loop_test(tc, a_unit_that_has_come_is_served_on_when_its_former_home_dies, 0, 2);
	tcase_add_loop_test(tc, what_no_holder_says_is_refused_and_changes_nothing, 0,
			    (int)(sizeof(bads) / sizeof(bads[0])));
	tcase_add_test(tc, a_page_behind_the_end_of_the_memory_is_refused);
	tcase_add_test(tc, only_members_that_live_in_this_epoch_are_heard);
}

int main(void)
{
	return rig_main("rebuild", add);
}
