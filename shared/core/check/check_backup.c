/* Second homes: what they have when a write-back is acknowledged, and that they say so honestly. */
#include "shared/core/check/pair.h"

#define FIRST  FORMER /* home of unit 0, which NEW is the second home of */
#define SECOND NEW
#define OWNER  9u

/* As the second home has it: 0, no copy. */
static uint64_t copied(const struct rig *r, uint64_t page)
{
	return wvm_backup_counts(r->core, 0, page) ? r->home[page].version : 0;
}

static void check_bytes(const struct rig *r, uint64_t page, uint8_t fill)
{
	for (uint32_t i = 0; i < WVM_PAGE_BYTES; i++)
		ck_assert_uint_eq(r->store[page * WVM_PAGE_BYTES + i], fill);
}

/* The page is granted Modified to the owner. Its write-back. */
static struct wvm_msg acquire(struct pair *p, uint32_t home, uint64_t page, uint64_t id)
{
	uint32_t epoch = p->homes[home].params.epoch;
	struct wvm_msg m = message(WVM_MSG_WRITE_BACK, OWNER, epoch, id);

	ck_assert_int_eq(tell(p, home, message(WVM_MSG_MEM_ACQUIRE, OWNER, epoch, id), page, 0),
			 WVM_DROP_NONE);
	m.grant = id;
	m.version = last_sent(p, WVM_MSG_MEM_ACK, OWNER)->msg.version;
	p->sent_count = 0;
	return m;
}

/* ---- before the acknowledgement -------------------------------------------------------- */

/* The copy, or its answer, is lost: not acknowledged until the home has sent it once more. */
START_TEST(a_write_back_is_acknowledged_when_the_second_home_has_it)
{
	uint32_t lost = (uint32_t)_i; /* of the messages from now on: none, the copy, its answer */
	struct wvm_msg m;
	struct pair p;

	pair_open_all(&p, NULL, true);
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), 0);
	m = acquire(&p, FIRST, 3, ID(1));
	p.lost = lost ? p.passed + lost - 1 : 0;
	if (lost && !p.lost)
		p.lost = 1;
	ck_assert_int_eq(tell(&p, FIRST, m, 3, 0x55), WVM_DROP_NONE);
	check_bytes(&p.homes[FIRST], 3, 0x55);
	if (lost) {
		ck_assert_uint_eq(p.sent_count, 0);
		/* Told of it again it has nothing new to say. */
		ck_assert_int_eq(tell(&p, FIRST, m, 3, 0x55), WVM_DROP_NONE);
		ck_assert_uint_eq(p.sent_count, 0);
		p.lost = 0;
		run_for(&p, A_WHILE);
	}
	ck_assert_uint_eq(p.sent_count, 1);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_WRITE_BACK_ACK, OWNER)->msg.version, m.version);
	ck_assert_uint_eq(p.sent[0].msg.grant, ID(1));
	ck_assert_uint_eq(copied(&p.homes[SECOND], 3), m.version);
	check_bytes(&p.homes[SECOND], 3, 0x55);
	ck_assert(p.homes[SECOND].home[3].flags == (WVM_HOME_BACKUP | WVM_HOME_WRITTEN));
	/* Without its files the home is not to serve, though nobody else may remember anything. */
	ck_assert_uint_eq(wvm_core_taken(p.homes[SECOND].core, RIG_ELSEWHERE), 1);
	pair_close(&p);
}
END_TEST

/* Others get the page meanwhile; only the acknowledgement waits. */
START_TEST(who_asks_for_the_page_does_not_wait_for_the_second_home)
{
	struct wvm_msg m, read = message(WVM_MSG_MEM_READ, 10, RIG_EPOCH, ID(2));
	struct pair p;

	pair_open_all(&p, NULL, true);
	run_for(&p, A_WHILE);
	m = acquire(&p, FIRST, 3, ID(1));
	p.lost = p.passed;
	ck_assert_int_eq(tell(&p, FIRST, m, 3, 0x55), WVM_DROP_NONE);
	ck_assert_uint_eq(p.sent_count, 0);
	ck_assert_int_eq(tell(&p, FIRST, read, 3, 0), WVM_DROP_NONE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, 10)->fill, 0x55);
	ck_assert_uint_eq(p.sent_count, 1);
	pair_close(&p);
}
END_TEST

START_TEST(a_page_of_zeros_takes_the_place_of_older_bytes)
{
	struct wvm_msg m;
	struct pair p;

	pair_open_all(&p, NULL, true);
	m = acquire(&p, FIRST, 0, ID(1));
	ck_assert_int_eq(tell(&p, FIRST, m, 0, 0x55), WVM_DROP_NONE);
	m = acquire(&p, FIRST, 0, ID(2));
	m.flags = WVM_MSG_ZERO;
	ck_assert_int_eq(tell(&p, FIRST, m, 0, 0), WVM_DROP_NONE);
	last_sent(&p, WVM_MSG_WRITE_BACK_ACK, OWNER);
	ck_assert_uint_eq(copied(&p.homes[SECOND], 0), m.version);
	ck_assert_uint_eq(p.homes[SECOND].home[0].flags, WVM_HOME_BACKUP);
	pair_close(&p);
}
END_TEST

START_TEST(the_only_home_acknowledges_at_once)
{
	struct wvm_msg m;
	struct pair p;

	pair_open_all(&p, NULL, true);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		backup.home_vnode[i] = WVM_SLICE_NIL;
	m = acquire(&p, FIRST, 0, ID(1));
	p.lost = p.passed ? p.passed : 1;
	ck_assert_int_eq(tell(&p, FIRST, m, 0, 0x55), WVM_DROP_NONE);
	last_sent(&p, WVM_MSG_WRITE_BACK_ACK, OWNER);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), 0);
	ck_assert(!wvm_backup_complete(p.homes[SECOND].core, 0, 0));
	pair_close(&p);
}
END_TEST

/* Each page's write-back would take a slot. Those without one are acknowledged when repeated. */
START_TEST(a_silent_second_home_takes_half_of_the_slots)
{
	const uint32_t pages = 200, slots = (WVM_COPIES - WVM_COPIES_WALK) / 2;
	struct wvm_msg m[200];
	struct pair p;

	pair_open_all(&p, NULL, true);
	run_for(&p, A_WHILE);
	for (uint32_t i = 0; i < pages; i++)
		m[i] = acquire(&p, FIRST, i, ID(1 + i));
	p.lost = p.passed;
	for (uint32_t i = 0; i < pages; i++)
		ck_assert_int_eq(tell(&p, FIRST, m[i], i, 0x55), WVM_DROP_NONE);
	ck_assert_uint_eq(p.sent_count, 0);
	ck_assert_uint_eq(wvm_core_stats(p.homes[FIRST].core)->backup_room, pages - slots);
	p.lost = 0;
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(p.sent_count, slots);
	for (uint32_t i = 0; i < pages; i++) {
		p.sent_count = 0;
		ck_assert_int_eq(tell(&p, FIRST, m[i], i, 0x66), WVM_DROP_NONE);
		ck_assert_uint_eq(last_sent(&p, WVM_MSG_WRITE_BACK_ACK, OWNER)->msg.version,
				  m[i].version);
		ck_assert_uint_eq(copied(&p.homes[SECOND], i), m[i].version);
		check_bytes(&p.homes[SECOND], i, 0x55);
	}
	pair_close(&p);
}
END_TEST

/* ---- the second home ------------------------------------------------------------------- */

static enum wvm_drop copy(struct pair *p, uint32_t from, uint64_t page, uint64_t version,
			  uint8_t fill, uint8_t flags)
{
	struct wvm_msg m = message(WVM_MSG_BACKUP, from, RIG_EPOCH, ID(50));

	m.version = version;
	m.flags = flags;
	return tell(p, SECOND, m, page, fill);
}

START_TEST(the_second_home_takes_higher_versions_alone_and_answers_in_any_case)
{
	static const struct {
		uint64_t version;
		uint8_t fill, flags, has;
		uint64_t is;
	} in[] = {
		{V(5), 0x55, 0, 0x55, V(5)}, {V(4), 0x44, 0, 0x55, V(5)},
		{V(5), 0x45, 0, 0x55, V(5)}, {V(4), 0, WVM_MSG_ZERO, 0x55, V(5)},
		{V(6), 0x66, 0, 0x66, V(6)}, {V(5), 0x55, 0, 0x66, V(6)},
	};
	struct pair p;
	struct rig *r = &p.homes[SECOND];

	pair_open_all(&p, NULL, true);
	for (uint32_t i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
		uint64_t answered = p.passed;

		ck_assert_int_eq(copy(&p, RIG_ELSEWHERE, 1, in[i].version, in[i].fill, in[i].flags),
				 WVM_DROP_NONE);
		ck_assert_uint_eq(p.passed, answered + 1);
		ck_assert_uint_eq(copied(r, 1), in[i].is);
		ck_assert_uint_eq(r->home[1].flags, WVM_HOME_BACKUP | WVM_HOME_WRITTEN);
		check_bytes(r, 1, in[i].has);
	}
	/* From nobody else, of no version, of a page that it is home of, without bytes. */
	ck_assert_int_eq(copy(&p, OWNER, 1, V(7), 0x77, 0), WVM_DROP_NODE);
	ck_assert_int_eq(copy(&p, RIG_ELSEWHERE, 1, 0, 0x77, 0), WVM_DROP_SEGMENT);
	ck_assert_int_eq(copy(&p, RIG_ELSEWHERE, RIG_OTHER, V(7), 0x77, 0), WVM_DROP_NODE);
	ck_assert_int_eq(copy(&p, RIG_ELSEWHERE, 1, V(7), 0, 0), WVM_DROP_SEGMENT);
	ck_assert_uint_eq(copied(r, 1), V(6));
	pair_close(&p);
}
END_TEST

START_TEST(a_lost_page_is_lost_at_the_second_home_whatever_comes_late)
{
	struct wvm_msg m, lost = message(WVM_MSG_LOST, OWNER, RIG_EPOCH, 0);
	struct pair p;
	struct rig *r = &p.homes[SECOND];

	pair_open_all(&p, NULL, true);
	m = acquire(&p, FIRST, 2, ID(1));
	ck_assert_int_eq(tell(&p, FIRST, m, 2, 0x55), WVM_DROP_NONE);
	m = acquire(&p, FIRST, 2, ID(2));
	/* Another one wants it, and the owner has begun anew without it. The first word is lost. */
	ck_assert_int_eq(tell(&p, FIRST, message(WVM_MSG_MEM_READ, 10, RIG_EPOCH, ID(3)), 2, 0),
			 WVM_DROP_NONE);
	lost.request = last_sent(&p, WVM_MSG_DOWNGRADE, OWNER)->msg.request;
	lost.grant = m.grant;
	lost.version = m.version;
	p.lost = p.passed;
	ck_assert_int_eq(tell(&p, FIRST, lost, 2, 0), WVM_DROP_NONE);
	ck_assert(!(r->home[2].flags & WVM_HOME_LOST));
	if (_i)
		kill_home(&p, FIRST);
	p.lost = 0;
	run_for(&p, A_WHILE);
	ck_assert(r->home[2].flags & WVM_HOME_LOST && r->home[2].flags & WVM_HOME_BACKUP);
	ck_assert_int_eq(copy(&p, RIG_ELSEWHERE, 2, r->home[2].version, 0x55, 0), WVM_DROP_NONE);
	ck_assert(r->home[2].flags & WVM_HOME_LOST);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), 0);
	pair_close(&p);
}
END_TEST

static uint64_t roll(uint64_t *x, uint64_t n)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x % n;
}

/* A core that is home of unit 1 and second home of unit 0, among members who say anything. */
#define HOSTILE 8
START_TEST(hostile_members_change_no_entry_and_reach_no_assertion)
{
	static const uint8_t flags[] = {
		0, 0, WVM_MSG_ZERO, WVM_MSG_ERROR, WVM_MSG_ANSWER, WVM_MSG_ANSWER | WVM_MSG_ERROR};
	uint64_t x = 88172645463325252u + (uint64_t)_i, known[8] = {ID(1)};
	struct pair p;
	struct rig *r = &p.homes[SECOND];

	pair_open_all(&p, NULL, true);
	for (uint32_t i = 0; i < 20000; i++) {
		bool copies = roll(&x, 3);
		struct wvm_msg m = message(copies ? WVM_MSG_BACKUP : WVM_MSG_BACKUP_DONE,
					   (uint32_t)roll(&x, 4), RIG_EPOCH, known[roll(&x, 8)]);
		const struct wvm_action *a;
		uint8_t bytes[WVM_PAGE_BYTES] = {1};
		enum wvm_drop drop;

		m.flags = flags[roll(&x, 6)];
		if (!copies)
			m.flags &= WVM_MSG_ANSWER | WVM_MSG_ERROR;
		m.version = roll(&x, 2) ? roll(&x, 20) : x;
		m.grant = roll(&x, 8) ? roll(&x, 6) : x;
		m.gpa = roll(&x, RIG_PAGES) << WVM_PAGE_SHIFT;
		if (roll(&x, 8) == 0)
			m.gpa = (roll(&x, 2) * RIG_OTHER + roll(&x, 2)) << WVM_PAGE_SHIFT;
		if (copies && !m.flags && roll(&x, 4))
			m.payload_len = m.seg_total = WVM_PAGE_BYTES;
		drop = in(r, m, m.payload_len ? bytes : NULL);
		/* Copies are its home's to change, and of unit 0. */
		if (!(m.flags & WVM_MSG_ANSWER) && !drop)
			ck_assert(m.src == RIG_VNODE(RIG_ELSEWHERE) &&
				  m.gpa < RIG_OTHER << WVM_PAGE_SHIFT);
		while ((a = wvm_core_action(r->core)))
			known[roll(&x, 8)] = a->msg.request;
		r->now_ns += roll(&x, 2000000);
		if (wvm_core_deadline(r->core) <= r->now_ns)
			wvm_core_tick(r->core, r->now_ns);
		while ((a = wvm_core_action(r->core)))
			known[roll(&x, 8)] = a->msg.request;
	}
	for (uint64_t page = 0; page < RIG_PAGES; page++)
		ck_assert_uint_eq(r->home[page].version != 0,
				  r->home[page].flags & WVM_HOME_BACKUP ? 1 : 0);
	for (uint64_t page = RIG_OTHER; page < RIG_PAGES; page++)
		ck_assert_uint_eq(r->home[page].version, 0);
	pair_close(&p);
}
END_TEST

/* ---- completeness ---------------------------------------------------------------------- */

/* What was stored before there was a second home that answers. */
static void store_alone(struct pair *p)
{
	p->lost = 1;
	for (uint32_t i = 0; i < 3; i++) {
		struct wvm_msg m = acquire(p, FIRST, i * 255, ID(1 + i));

		ck_assert_int_eq(tell(p, FIRST, m, i * 255, (uint8_t)(0x50 + i)), WVM_DROP_NONE);
	}
	p->sent_count = 0;
	p->lost = 0;
}

static void check_made(const struct pair *p)
{
	for (uint32_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(copied(&p->homes[SECOND], i * 255),
				  p->homes[FIRST].home[i * 255].version);
		check_bytes(&p->homes[SECOND], i * 255, (uint8_t)(0x50 + i));
	}
	ck_assert(wvm_backup_complete(p->homes[SECOND].core, 0, 0));
	ck_assert(wvm_backup_made(p->homes[FIRST].core, 0, 0));
}

#define MADE 18 /* messages, both ways and of both units, if nothing happens */

/* The receiver of each message in turn is killed, before what it makes of it is final or after. */
START_TEST(either_may_be_killed_at_any_message_of_the_making)
{
	struct pair p;

	pair_open_all(&p, NULL, true);
	store_alone(&p);
	ck_assert_uint_gt(wvm_core_degraded(p.homes[FIRST].core), 0);
	ck_assert(!wvm_backup_complete(p.homes[SECOND].core, 0, 0));
	p.passed = 0;
	p.cut = (uint32_t)_i / 2;
	p.acted = _i % 2;
	run_for(&p, 2 * A_WHILE);
	if (p.cut)
		ck_assert_uint_ge(p.passed, p.cut); /* it came so far */
	else
		ck_assert_uint_eq(p.passed, MADE);
	check_made(&p);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), 0);
	/* It is known for good. */
	kill_home(&p, SECOND);
	kill_home(&p, FIRST);
	check_made(&p);
	p.passed = 0;
	run_for(&p, A_WHILE);
	ck_assert_uint_eq(p.passed, 0);
	ck_assert_uint_eq(wvm_core_degraded(p.homes[FIRST].core), 0);
	pair_close(&p);
}
END_TEST

START_TEST(a_second_home_that_lost_its_files_gets_all_again)
{
	bool told = _i;
	struct pair p;
	struct rig *r = &p.homes[SECOND];
	struct wvm_core_vm vm;
	struct wvm_msg m, done = message(WVM_MSG_BACKUP_DONE, RIG_ELSEWHERE, RIG_EPOCH, ID(60));

	pair_open_all(&p, NULL, true);
	store_alone(&p);
	run_for(&p, 2 * A_WHILE);
	check_made(&p);
	/* Another life, over new files. */
	vm = *wvm_core_vm_at(r->core, 0);
	memset(r->home, 0, RIG_PAGES * sizeof(*r->home));
	memset(r->units, 0, sizeof(r->units));
	memset(r->store, 0, RIG_PAGES * (size_t)WVM_PAGE_BYTES);
	memset(r->durable, 0, wvm_core_durable_bytes(&r->params));
	r->params.boot++;
	r->core = wvm_core_init(r->memory, &r->params);
	ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
	wvm_core_serve(r->core, true);
	/* A late copy of what was said to the former life. */
	done.grant = RIG_BOOT;
	p.lost = p.passed;
	ck_assert_int_eq(tell(&p, SECOND, done, 0, 0), WVM_DROP_NONE);
	ck_assert(!wvm_backup_complete(r->core, 0, 0));
	p.lost = 0;
	if (told) {
		wvm_core_renewed(p.homes[FIRST].core, RIG_SELF, RIG_BOOT + 1);
	} else {
		/* It shows at the next answer. */
		m = acquire(&p, FIRST, 100, ID(9));
		ck_assert_int_eq(tell(&p, FIRST, m, 100, 0x99), WVM_DROP_NONE);
	}
	ck_assert_uint_gt(wvm_core_degraded(p.homes[FIRST].core), 0);
	run_for(&p, 2 * A_WHILE);
	check_made(&p);
	pair_close(&p);
}
END_TEST

static uint64_t copy_under_way(const struct rig *r, uint64_t page)
{
	for (uint32_t i = 0; i < WVM_COPIES; i++) {
		const struct wvm_copy *c = &r->core->backup->copies[i];

		if (c->state == WVM_COPY_WRITTEN && c->page == page)
			return c->id;
	}
	return 0;
}

/* The copy came, and the answer is late: by now all that is gone, and the home has been told so. */
START_TEST(what_a_second_home_says_late_that_lost_its_files_acknowledges_nothing)
{
	struct wvm_msg m, says = message(WVM_MSG_BACKUP, RIG_SELF, RIG_EPOCH, 0);
	struct pair p;

	pair_open_all(&p, NULL, true);
	run_for(&p, A_WHILE);
	m = acquire(&p, FIRST, 3, ID(1));
	p.lost = p.passed;
	ck_assert_int_eq(tell(&p, FIRST, m, 3, 0x55), WVM_DROP_NONE);
	wvm_core_renewed(p.homes[FIRST].core, RIG_SELF, RIG_BOOT + 1);
	settle(&p);
	says.request = copy_under_way(&p.homes[FIRST], 3);
	says.version = m.version;
	says.flags = WVM_MSG_ANSWER;
	says.grant = RIG_BOOT;
	ck_assert_int_eq(tell(&p, FIRST, says, 3, 0), WVM_DROP_STALE);
	ck_assert_uint_eq(p.sent_count, 0);
	says.grant = RIG_BOOT + 1;
	ck_assert_int_eq(tell(&p, FIRST, says, 3, 0), WVM_DROP_NONE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_WRITE_BACK_ACK, OWNER)->msg.version, m.version);
	pair_close(&p);
}
END_TEST

/* ---- moves ----------------------------------------------------------------------------- */

/* The unit's new home has copies of its pages, and takes none of them for an entry. */
START_TEST(copies_are_no_entries_when_their_second_home_becomes_the_home)
{
	struct wvm_msg read = message(WVM_MSG_MEM_READ, 10, NEXT, ID(7));
	struct pair p;
	struct rig *r = &p.homes[SECOND];
	uint64_t version;

	pair_open_all(&p, NULL, true);
	store_alone(&p);
	run_for(&p, 2 * A_WHILE);
	check_made(&p);
	/* A later version that its owner has not been told is stored: the copy is older. */
	p.lost = p.passed;
	ck_assert_int_eq(tell(&p, FIRST, acquire(&p, FIRST, 0, ID(5)), 0, 0x66), WVM_DROP_NONE);
	version = p.homes[FIRST].home[0].version;
	ck_assert_uint_lt(copied(r, 0), version);
	/* A copy that the home has no entry of. */
	r->home[77] = (struct wvm_home_page){.version = V(1),
					     .flags = WVM_HOME_BACKUP | WVM_HOME_WRITTEN};
	switch_over(&p, FIRST);
	switch_over(&p, SECOND);
	for (uint64_t page = 0; page < 80; page += 77) {
		ck_assert_int_eq(tell(&p, SECOND, read, page, 0), WVM_DROP_NONE);
		read.request++;
	}
	ck_assert_uint_eq(p.sent_count, 0);            /* not before they have come */
	ck_assert(wvm_backup_complete(r->core, 0, 0)); /* were the former home gone now */
	if (_i)
		kill_home(&p, SECOND);
	ck_assert(wvm_backup_counts(r->core, 0, 255) && wvm_backup_complete(r->core, 0, 255));
	p.lost = 0;
	run_for(&p, 2 * A_WHILE);
	read.request += 10;
	ck_assert_int_eq(tell(&p, SECOND, read, 0, 0), WVM_DROP_NONE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, 10)->msg.version, version);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, 10)->fill, 0x66);
	read.request++;
	ck_assert_int_eq(tell(&p, SECOND, read, 77, 0), WVM_DROP_NONE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_MEM_ACK, 10)->fill, 0); /* never written */
	for (uint64_t page = 0; page < WVM_UNIT_PAGES; page++)
		ck_assert(!(r->home[page].flags & WVM_HOME_BACKUP));
	pair_close(&p);
}
END_TEST

/* And the former home becomes the second one: it gets what it has just forgotten. */
START_TEST(a_former_home_has_copies_when_it_has_handed_over)
{
	struct pair p;
	struct rig *former = &p.homes[FIRST], *home = &p.homes[SECOND];
	struct wvm_msg m;

	pair_open_all(&p, NULL, true);
	store_alone(&p);
	if (_i)
		run_for(&p, 2 * A_WHILE);
	switch_over(&p, FIRST);
	/* Not known to be complete by what was said of the pair before. */
	ck_assert(!wvm_backup_complete(former->core, 0, 0));
	switch_over(&p, SECOND);
	run_for(&p, 2 * A_WHILE);
	ck_assert_uint_eq(wvm_core_handover(home->core).in, 0);
	ck_assert(wvm_backup_complete(former->core, 0, 0) && wvm_backup_made(home->core, 0, 0));
	for (uint32_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(copied(former, i * 255), home->home[i * 255].version);
		check_bytes(former, i * 255, (uint8_t)(0x50 + i));
	}
	m = acquire(&p, SECOND, 1, ID(20));
	ck_assert_int_eq(tell(&p, SECOND, m, 1, 0x11), WVM_DROP_NONE);
	last_sent(&p, WVM_MSG_WRITE_BACK_ACK, OWNER);
	ck_assert_uint_eq(copied(former, 1), m.version);
	/* A late answer of the hand-over takes nothing away. */
	m = message(WVM_MSG_HANDOVER_DONE, RIG_SELF, NEXT, ID(30));
	ck_assert_int_eq(tell(&p, FIRST, m, 0, 0), WVM_DROP_NONE);
	ck_assert_uint_gt(copied(former, 1), 0);
	check_bytes(former, 1, 0x11);
	pair_close(&p);
}
END_TEST

static void move_back(struct pair *p, uint32_t home, const struct wvm_slices *first)
{
	struct rig *r = &p->homes[home];

	wvm_core_backup_next(r->core, &backup);
	ck_assert_int_eq(wvm_core_epoch(r->core, r->now_ns, NEXT + 1, first), WVM_EPOCH_TAKEN);
	r->params.epoch = r->params.moved = NEXT + 1;
	r->params.before = &table;
	r->params.slices = first;
	r->params.backup = &backup;
	settle(p);
}

/* Home and second home of a unit are what they were before the last move but one. */
START_TEST(a_pair_that_comes_back_begins_anew)
{
	struct wvm_slices first;
	struct wvm_msg m;
	struct pair p;
	const struct rig *second = &p.homes[SECOND];

	pair_open_all(&p, NULL, true);
	first = p.homes[FIRST].slices;
	store_alone(&p);
	run_for(&p, 2 * A_WHILE);
	check_made(&p);
	switch_over(&p, FIRST);
	switch_over(&p, SECOND);
	run_for(&p, 2 * A_WHILE);
	m = acquire(&p, SECOND, 5, ID(40));
	ck_assert_int_eq(tell(&p, SECOND, m, 5, 0x05), WVM_DROP_NONE);
	move_back(&p, SECOND, &first);
	if (_i)
		kill_home(&p, SECOND);
	ck_assert(!wvm_backup_complete(second->core, 0, 0));
	move_back(&p, FIRST, &first);
	if (_i)
		kill_home(&p, FIRST);
	ck_assert(!wvm_backup_made(p.homes[FIRST].core, 0, 0));
	run_for(&p, 3 * A_WHILE);
	check_made(&p);
	ck_assert_uint_eq(copied(second, 5), m.version);
	check_bytes(second, 5, 0x05);
	pair_close(&p);
}
END_TEST

static unsigned sent_acks(const struct pair *p)
{
	unsigned count = 0;

	for (unsigned i = 0; i < p->sent_count; i++)
		count += p->sent[i].msg.type == WVM_MSG_WRITE_BACK_ACK;
	return count;
}

static uint32_t in_slots(const struct rig *r, bool sent)
{
	uint32_t count = 0;

	for (uint32_t i = WVM_COPIES_WALK; i < WVM_COPIES; i++) {
		const struct wvm_copy *c = &r->core->backup->copies[i];

		count += c->state == WVM_COPY_WRITTEN && !!c->id == sent;
	}
	return count;
}

/* Nor does anybody who has to wait take a slot from a write-back that could be copied. */
START_TEST(write_backs_that_wait_for_their_unit_keep_no_others_from_their_slots)
{
	const uint32_t half = (WVM_COPIES - WVM_COPIES_WALK) / 2;
	struct wvm_msg moved[WVM_COPIES_WAIT + 8], others[WVM_COPIES];
	struct pair p;
	struct rig *home = &p.homes[SECOND];

	pair_open_all(&p, NULL, true);
	for (uint32_t i = 0; i < CASES(moved); i++)
		moved[i] = acquire(&p, FIRST, i, ID(1 + i));
	for (uint32_t i = 0; i < half; i++)
		others[i] = acquire(&p, SECOND, RIG_OTHER + i, ID(100 + i));
	switch_over(&p, FIRST);
	switch_over(&p, SECOND);
	for (uint32_t i = 0; i < CASES(moved); i++) {
		moved[i].epoch = NEXT;
		ck_assert_int_eq(tell(&p, SECOND, moved[i], i, 0x33), WVM_DROP_ROOM);
	}
	p.lost = p.passed;
	for (uint32_t i = 0; i < CASES(moved); i++)
		ck_assert_int_eq(tell(&p, SECOND, moved[i], i, 0x33), WVM_DROP_NONE);
	ck_assert_uint_eq(in_slots(home, false), WVM_COPIES_WAIT);
	for (uint32_t i = 0; i < half; i++) {
		others[i].epoch = NEXT;
		ck_assert_int_eq(tell(&p, SECOND, others[i], RIG_OTHER + i, 0x44), WVM_DROP_NONE);
		ck_assert_uint_eq(in_slots(home, true), i + 1);
	}
	ck_assert_uint_eq(in_slots(home, false), 0);
	/* Those whose slots were taken are repeated, and wait no longer than the unit does. */
	p.lost = 0;
	p.sent_count = 0;
	run_for(&p, 2 * A_WHILE);
	ck_assert_uint_eq(sent_acks(&p), half);
	p.sent_count = 0;
	for (uint32_t i = 0; i < CASES(moved); i++)
		ck_assert_int_eq(tell(&p, SECOND, moved[i], i, 0x33), WVM_DROP_NONE);
	ck_assert_uint_eq(sent_acks(&p), CASES(moved));
	ck_assert_uint_eq(wvm_core_degraded(home->core), 0);
	pair_close(&p);
}
END_TEST

/* No slice moves: all is copied to another second home, and write-backs are. */
START_TEST(an_epoch_may_change_second_homes_alone)
{
	struct wvm_slices other;
	bool again = false;
	struct wvm_msg m;
	struct pair p;
	struct rig *home = &p.homes[FIRST];

	pair_open_all(&p, NULL, true);
	m = acquire(&p, FIRST, 3, ID(1));
	other = backup;
	other.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(5);
	ck_assert_int_eq(tell(&p, FIRST, acquire(&p, FIRST, 2, ID(2)), 2, 0x22), WVM_DROP_NONE);
	run_for(&p, 2 * A_WHILE);
	ck_assert_uint_eq(wvm_core_degraded(home->core), 0);
	wvm_core_backup_next(home->core, &other);
	ck_assert_int_eq(wvm_core_epoch(home->core, home->now_ns, NEXT, &home->slices),
			 WVM_EPOCH_TAKEN);
	ck_assert_uint_eq(wvm_core_degraded(home->core), 1);
	p.sent_count = 0;
	m.epoch = NEXT;
	ck_assert_int_eq(tell(&p, FIRST, m, 3, 0x33), WVM_DROP_NONE);
	ck_assert_uint_eq(last_sent(&p, WVM_MSG_BACKUP, 5)->fill, 0x33);
	ck_assert_uint_eq(sent_acks(&p), 0);
	p.sent_count = 0;
	run_for(&p, A_WHILE);
	for (unsigned i = 0; i < p.sent_count; i++)
		again |= p.sent[i].member == 5 && p.sent[i].fill == 0x22;
	ck_assert(again);
	pair_close(&p);
}
END_TEST

/*
 * Until the former home has let go of a unit its new one can copy nothing there. Then it does by
 * itself: an owner that repeats waits longer each time.
 */
START_TEST(a_write_back_within_a_hand_over_is_acknowledged_when_the_former_home_has_it)
{
	struct wvm_msg m;
	struct pair p;
	struct rig *former = &p.homes[FIRST], *home = &p.homes[SECOND];

	pair_open_all(&p, NULL, true);
	m = acquire(&p, FIRST, 3, ID(1));
	ck_assert_int_eq(tell(&p, FIRST, acquire(&p, FIRST, 4, ID(2)), 4, 0x44), WVM_DROP_NONE);
	switch_over(&p, FIRST);
	switch_over(&p, SECOND);
	m.epoch = NEXT;
	ck_assert_int_eq(tell(&p, SECOND, m, 3, 0x33), WVM_DROP_ROOM);
	/* The page has come, and not all of its unit. */
	ck_assert_int_eq(home->units[0].phase, WVM_MOVED_COMING);
	p.sent_count = 0;
	p.lost = p.passed;
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(tell(&p, SECOND, m, 3, 0x33), WVM_DROP_NONE);
	ck_assert_uint_eq(sent_acks(&p), 0);
	ck_assert_uint_gt(wvm_core_degraded(home->core), 0);
	p.lost = 0;
	run_for(&p, 2 * A_WHILE);
	ck_assert_uint_eq(home->units[0].phase, WVM_MOVED_DONE);
	ck_assert_uint_eq(sent_acks(&p), 1);
	ck_assert_uint_eq(wvm_core_degraded(home->core), 0);
	ck_assert_uint_eq(copied(former, 3), m.version);
	check_bytes(former, 3, 0x33);
	check_bytes(former, 4, 0x44);
	pair_close(&p);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_write_back_is_acknowledged_when_the_second_home_has_it, 0, 3);
	tcase_add_test(tc, who_asks_for_the_page_does_not_wait_for_the_second_home);
	tcase_add_test(tc, a_page_of_zeros_takes_the_place_of_older_bytes);
	tcase_add_test(tc, the_only_home_acknowledges_at_once);
	tcase_add_test(tc, a_silent_second_home_takes_half_of_the_slots);
	tcase_add_test(tc, the_second_home_takes_higher_versions_alone_and_answers_in_any_case);
	tcase_add_loop_test(tc, a_lost_page_is_lost_at_the_second_home_whatever_comes_late, 0, 2);
	tcase_add_loop_test(tc, hostile_members_change_no_entry_and_reach_no_assertion, 0, HOSTILE);
	tcase_add_loop_test(tc, either_may_be_killed_at_any_message_of_the_making, 0, 2 * MADE);
	tcase_add_loop_test(tc, a_second_home_that_lost_its_files_gets_all_again, 0, 2);
	tcase_add_test(tc, what_a_second_home_says_late_that_lost_its_files_acknowledges_nothing);
	tcase_add_loop_test(tc, copies_are_no_entries_when_their_second_home_becomes_the_home, 0,
			    2);
	tcase_add_loop_test(tc, a_pair_that_comes_back_begins_anew, 0, 2);
	tcase_add_loop_test(tc, a_former_home_has_copies_when_it_has_handed_over, 0, 2);
	tcase_add_test(tc, an_epoch_may_change_second_homes_alone);
	tcase_add_test(tc, write_backs_that_wait_for_their_unit_keep_no_others_from_their_slots);
	tcase_add_test(tc,
		       a_write_back_within_a_hand_over_is_acknowledged_when_the_former_home_has_it);
}

int main(void)
{
	return rig_main("backup", add);
}
