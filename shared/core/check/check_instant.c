/*
 * Killed at any instruction: a process of its own runs one input of a core, one
 * instruction at a time (ptrace). After each of them its files are looked at as
 * the next life would: what the undo log brings back has to be all that was
 * there before the input, or, from the moment on when the first action is taken,
 * all that is there after it. Never a part, and never the former again.
 */
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/core/check/rig.h"

#define H         3u
#define ZERO      WVM_MSG_ZERO
#define KEEP      WVM_MSG_KEEP
#define HELD      WVM_MSG_HELD
#define PAGES     2u /* that cases use */
#define BLOCKS    16u
#define SLOTS     4u
#define STEPS_MAX 200000u

/* What outlives a process, as far as cases use it. */
struct files {
	struct wvm_home_page home[PAGES];
	struct wvm_held_page held[PAGES];
	struct wvm_kept kept[SLOTS];
	struct wvm_holder_block blocks[BLOCKS];
	struct wvm_home_unit unit;
	struct wvm_held_unit held_unit;
};

static void *shared_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	return p;
}

static struct wvm_home_unit *units;
static struct wvm_held_unit *held_units;

/* rig_open() with everything that outlives the process in memory that two processes share. */
static void open_shared(struct rig *r, uint32_t home)
{
	struct wvm_core_limits limits;
	struct wvm_core_vm vm;

	wvm_core_default_limits(&limits);
	limits.holder_blocks = BLOCKS;
	limits.demands = SLOTS;
	rig_open(r, home, &limits);
	vm = *wvm_core_vm_at(r->core, 0);
	rig_close(r);
	r->outbox = r->params.outbox = shared_memory(SLOTS * WVM_PAGE_BYTES);
	r->durable = r->params.durable = shared_memory(wvm_core_durable_bytes(&r->params));
	r->memory = shared_memory(wvm_core_bytes(&r->params));
	r->core = wvm_core_init(r->memory, &r->params);
	vm.home = r->home = shared_memory(sizeof(*vm.home) * RIG_PAGES);
	vm.held = r->held = shared_memory(sizeof(*vm.held) * RIG_PAGES);
	vm.units = units = shared_memory(sizeof(*units) * (RIG_PAGES / WVM_UNIT_PAGES));
	vm.held_units = held_units =
		shared_memory(sizeof(*held_units) * (RIG_PAGES / WVM_UNIT_PAGES));
	vm.store = r->store = shared_memory((size_t)RIG_PAGES * WVM_PAGE_BYTES);
	wvm_core_add_vm(r->core, &vm);
	wvm_core_serve(r->core, true);
}

static void close_shared(struct rig *r)
{
	munmap(r->outbox, SLOTS * WVM_PAGE_BYTES);
	munmap(r->durable, wvm_core_durable_bytes(&r->params));
	munmap(r->memory, wvm_core_bytes(&r->params));
	munmap(r->home, sizeof(*r->home) * RIG_PAGES);
	munmap(r->held, sizeof(*r->held) * RIG_PAGES);
	munmap(units, sizeof(*units) * (RIG_PAGES / WVM_UNIT_PAGES));
	munmap(held_units, sizeof(*held_units) * (RIG_PAGES / WVM_UNIT_PAGES));
	munmap(r->store, (size_t)RIG_PAGES * WVM_PAGE_BYTES);
}

/* Of before the unit was merged they do not count. */
static bool any_entry(const struct files *f)
{
	for (uint32_t p = 0; p < PAGES; p++)
		if (f->home[p].version && !wvm_merge_outdated(&f->unit, &f->home[p]))
			return true;
	return false;
}

/* What the next life does not take from an entry, it may find in any state. */
static void mask(struct files *f)
{
	bool used[BLOCKS] = {0};

	for (uint32_t p = 0; p < PAGES; p++) {
		struct wvm_held_page *h = &f->held[p];
		struct wvm_home_page *e = &f->home[p];

		e->txn = 0;
		h->request = h->demand = 0;
		h->hold_until_ns = h->lost_ns = 0;
		h->pins = 0;
		h->hold_shift = 0;
		/* A record that does not count may hold anything. */
		for (uint32_t i = e->holders; i < WVM_HOLDERS_INLINE; i++) {
			e->grant[i] = 0;
			e->member[i] = 0;
		}
		for (uint32_t b = e->more, n = 0; b && n < BLOCKS; b = f->blocks[b - 1].next, n++)
			used[b - 1] = true;
	}
	/* Versions only grow; of what is not mine nobody asks whether it is filled. */
	f->unit.version = 0;
	/* That there may be entries is said before the first, and not taken back without one. */
	ck_assert_msg(f->unit.entries || !any_entry(f), "an entry in a unit that tells of none");
	f->unit.entries = 0;
	f->held_unit.hold_until_ns = 0;
	f->held_unit.requests = f->held_unit.first = 0;
	f->held_unit.merge = 0;
	f->held_unit.modified = f->held_unit.shared = 0;
	for (uint32_t i = 0; i < WVM_UNIT_WORDS; i++)
		f->held_unit.filled[i] = 0;
	for (uint32_t b = 0; b < BLOCKS; b++)
		if (!used[b])
			memset(&f->blocks[b], 0, sizeof(f->blocks[b]));
	for (uint32_t i = 0; i < SLOTS; i++)
		if (!f->kept[i].used)
			memset(&f->kept[i], 0, sizeof(f->kept[i]));
}

/* The files as a life that begins now has them after wvm_undo_roll_back(). */
static void look(const struct rig *r, struct files *f)
{
	static struct wvm_core next;
	static struct wvm_durable durable;

	memcpy(f->home, r->home, sizeof(f->home));
	memcpy(f->held, r->held, sizeof(f->held));
	memcpy(f->kept, r->core->kept, sizeof(f->kept));
	memcpy(f->blocks, r->core->blocks, sizeof(f->blocks));
	durable = *r->core->durable;
	next.params.limits = r->params.limits;
	next.durable = &durable;
	next.kept = f->kept;
	next.blocks = f->blocks;
	next.vm_count = 1;
	next.vms[0] = (struct wvm_core_vm){.pages = PAGES, .home = f->home, .held = f->held};
	f->unit = units[0];
	f->held_unit = held_units[0];
	next.vms[0].units = &f->unit;
	next.vms[0].held_units = &f->held_unit;
	wvm_undo_roll_back(&next);
	mask(f);
}

/* In the traced process: the input, the first of its actions, and what the next input begins with.
 */
static void run_input(struct rig *r, const struct rig_step *input)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	rig_input(r, input);
	(void)wvm_core_action(r->core);
	wvm_undo_commit(r->core);
	raise(SIGSTOP);
	_exit(0);
}

static void same_processor(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* True until the traced process stops by itself. */
static bool one_instruction(pid_t pid)
{
	int status;

	ck_assert_int_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSTOPPED(status));
	ck_assert(WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == SIGSTOP);
	return WSTOPSIG(status) == SIGTRAP;
}

static unsigned *instants; /* looked at by all tests */

struct seen {
	unsigned instructions, before, after, within; /* within: the log was in use */
};

static void trace(struct rig *r, const struct rig_step *input, struct seen *seen)
{
	static struct files before, now, last;
	bool final = false;
	int status;
	pid_t pid;

	wvm_undo_commit(r->core);
	look(r, &before);
	last = before;
	same_processor();
	pid = fork();
	if (!pid)
		run_input(r, input);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	while (one_instruction(pid) && seen->instructions++ < STEPS_MAX) {
		seen->within += r->core->durable->undos != 0;
		look(r, &now);
		if (!memcmp(&now, &before, sizeof(now)) && !final) {
			seen->before++;
			continue;
		}
		/* The first time that it is another: it stays so. INSTALL is taken right after. */
		for (uint32_t p = 0; p < PAGES; p++)
			now.held[p].coming = 0;
		if (!final)
			last = now;
		final = true;
		seen->after++;
		ck_assert_msg(!memcmp(&now, &last, sizeof(now)),
			      "case '%s': a part of the input is there after %u instructions",
			      r->name, seen->instructions);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ck_assert_uint_lt(seen->instructions, STEPS_MAX);
}

#define GRANT(n, v, ...) IN(MEM_ACK, H, .request = OWN(n), .version = v, __VA_ARGS__)
#define ASK(type_, n, v) IN(type_, H, .request = ID(1), .grant = OWN(n), .version = v)
#define ANSWER(type_, n, v, ...) \
	SENT(type_, H, .request = ID(1), .grant = OWN(n), .version = v, __VA_ARGS__)
#define ASKED_S DO(FAULT, .slot = 0), SENT(MEM_READ, H, .request = OWN(1))
#define ASKED_M DO(FAULT, .slot = 0, .flags = 1), SENT(MEM_ACQUIRE, H, .request = OWN(1))
#define HAS_S   ASKED_S, GRANT(1, V(5), .fill = 0x55), ACT(INSTALL, .waiters = 1, .fill = 0x55)
#define HAS_M                                  \
	ASKED_M, GRANT(1, V(5), .fill = 0x55), \
		ACT(INSTALL, .waiters = 1, .fill = 0x55, .writable = true)
#define AFTER_HOLD DO(PASS, .ns = 0), DO(CALL, .call = let_hold_end)
#define SAVED                                                                           \
	HAS_M, AFTER_HOLD, ASK(FETCH_AND_INVALIDATE, 1, V(5)), ACT(PROTECT), ACT(SAVE), \
		ACT(PUNCH), ANSWER(WRITE_BACK, 1, V(5), .source = WVM_DATA_OUTBOX)

static void let_hold_end(struct rig *r)
{
	r->now_ns += r->params.times.hold_max_ns;
}

/* The last step of a case is the input that is traced. */
static const struct rig_case holder[] = {
	CASE("a Shared grant", ASKED_S, GRANT(1, V(5), .fill = 0x55)),
	CASE("a Modified grant", ASKED_M, GRANT(1, V(5), .fill = 0x55)),
	CASE("an upgrade without data", HAS_S, DO(FAULT, .slot = 1, .flags = 1),
	     SENT(MEM_ACQUIRE, H, .request = OWN(2), .flags = HELD, .version = V(5)),
	     GRANT(2, V(6), .flags = HELD)),
	CASE("an upgrade with data", HAS_S, DO(FAULT, .slot = 1, .flags = 1),
	     SENT(MEM_ACQUIRE, H, .request = OWN(2), .flags = HELD, .version = V(5)),
	     GRANT(2, V(6), .fill = 0x66)),
	CASE("an INVALIDATE", HAS_S, AFTER_HOLD, ASK(INVALIDATE, 1, V(5))),
	CASE("a DOWNGRADE", HAS_M, AFTER_HOLD, ASK(DOWNGRADE, 1, V(5))),
	CASE("a FETCH", HAS_M, AFTER_HOLD, ASK(FETCH_AND_INVALIDATE, 1, V(5))),
	CASE("a FETCH of what is written back and kept", HAS_M, AFTER_HOLD, ASK(DOWNGRADE, 1, V(5)),
	     ACT(PROTECT), ANSWER(WRITE_BACK, 1, V(5), .flags = KEEP, .source = WVM_DATA_RAM),
	     ASK(FETCH_AND_INVALIDATE, 1, V(5))),
	CASE("an acknowledgement that lets a request go", SAVED, DO(FAULT, .slot = 0),
	     IN(WRITE_BACK_ACK, H, .request = ID(1), .grant = OWN(1), .version = V(5))),
	CASE("a demand for a newer copy", HAS_S, AFTER_HOLD, ASK(INVALIDATE, 7, V(6))),
	CASE("a Shared page given up unasked", HAS_S, AFTER_HOLD, DO(EVICT)),
	CASE("a Modified page given up unasked", HAS_M, AFTER_HOLD, DO(EVICT)),
	CASE("the last try of an upgrade", HAS_S, DO(FAULT, .slot = 1, .flags = 1),
	     SENT(MEM_ACQUIRE, H, .request = OWN(2), .flags = HELD, .version = V(5)),
	     GRANT(2, 0, .flags = WVM_MSG_ERROR)),
};

#define READ(from, id, ...)    IN(MEM_READ, from, .request = id, __VA_ARGS__)
#define ACQUIRE(from, id, ...) IN(MEM_ACQUIRE, from, .request = id, __VA_ARGS__)
#define GIVES(to, id, v, ...)  SENT(MEM_ACK, to, .request = id, .version = v, __VA_ARGS__)
#define SHARER(m)              READ(m, ID(1)), GIVES(m, ID(1), V(1), .flags = ZERO)
#define OWNER(m)               ACQUIRE(m, ID(1)), GIVES(m, ID(1), V(2), .flags = ZERO)
#define INVALIDATES(m)         SENT(INVALIDATE, m, .request = OWN(1), .grant = ID(1), .version = V(1))
#define GONE(m)                IN(INVALIDATE_ACK, m, .request = OWN(1), .grant = ID(1), .version = V(1))
#define WROTE(m, ...) \
	IN(WRITE_BACK, m, .request = OWN(1), .grant = ID(1), .version = V(2), __VA_ARGS__)
#define SHARERS_8                                                                           \
	SHARER(10), SHARER(11), SHARER(12), SHARER(13), SHARER(14), SHARER(15), SHARER(16), \
		SHARER(17)
#define INVALIDATES_8                                                                        \
	INVALIDATES(10), INVALIDATES(11), INVALIDATES(12), INVALIDATES(13), INVALIDATES(14), \
		INVALIDATES(15), INVALIDATES(16), INVALIDATES(17)

static const struct rig_case home[] = {
	CASE("a first read", READ(10, ID(1))),
	CASE("a first acquire", ACQUIRE(10, ID(1))),
	CASE("a sharer that needs a block", SHARER(10), SHARER(11), SHARER(12), READ(13, ID(1))),
	CASE("a sharer in a block", SHARERS_8, READ(18, ID(1))),
	CASE("a sharer in a second block", SHARERS_8, READ(13, ID(2))),
	CASE("one of nine sharers is gone", SHARERS_8, SHARER(18), ACQUIRE(9, ID(1)), INVALIDATES_8,
	     INVALIDATES(18), GONE(12)),
	CASE("one of eight sharers is gone, and a block with it", SHARERS_8, SHARER(18),
	     ACQUIRE(9, ID(1)), INVALIDATES_8, INVALIDATES(18), GONE(11), GONE(13)),
	CASE("the last sharer is gone", SHARER(10), ACQUIRE(9, ID(1)), INVALIDATES(10), GONE(10)),
	CASE("bytes that nobody waits for", OWNER(10), WROTE(10, .fill = 0xa1)),
	CASE("bytes that a reader waits for, zeros", OWNER(10), READ(9, ID(1)),
	     SENT(DOWNGRADE, 10, .request = OWN(1), .grant = ID(1), .version = V(2)),
	     WROTE(10, .flags = ZERO | KEEP)),
	CASE("bytes that a writer waits for", OWNER(10), ACQUIRE(9, ID(1)),
	     SENT(FETCH_AND_INVALIDATE, 10, .request = OWN(1), .grant = ID(1), .version = V(2)),
	     WROTE(10, .fill = 0xa1)),
	CASE("a grant that was never taken", OWNER(10), ACQUIRE(9, ID(1)),
	     SENT(FETCH_AND_INVALIDATE, 10, .request = OWN(1), .grant = ID(1), .version = V(2)),
	     IN(NOT_HELD, 10, .request = OWN(1), .grant = ID(1), .version = V(2))),
	CASE("bytes that are lost", OWNER(10), ACQUIRE(9, ID(1)),
	     SENT(FETCH_AND_INVALIDATE, 10, .request = OWN(1), .grant = ID(1), .version = V(2)),
	     IN(LOST, 10, .request = OWN(1), .grant = ID(1), .version = V(2))),
	CASE("bytes that were never asked for", OWNER(10),
	     IN(WRITE_BACK, 10, .request = ID(1), .grant = ID(1), .version = V(2), .fill = 0xa1)),
	CASE("the owner asks anew", OWNER(10), ACQUIRE(10, ID(2))),
};

#define UNIT WVM_MSG_UNIT
#define MINE                                                                                      \
	DO(FAULT, .slot = 0, .flags = 1), SENT(MEM_ACQUIRE, H, .request = OWN(1), .flags = UNIT), \
		GRANT(1, V(2), .flags = ZERO | UNIT), ACT(FILL, .count = 8, .waiters = 1)
/* Page 0 was elsewhere, and is back. */
#define ALL_BACK                                                                                   \
	MINE, AFTER_HOLD, ASK(FETCH_AND_INVALIDATE, 1, V(2)), ACT(PROTECT), ACT(SAVE), ACT(PUNCH), \
		ANSWER(WRITE_BACK, 1, V(2), .source = WVM_DATA_OUTBOX),                            \
		ASK(WRITE_BACK_ACK, 1, V(2)), DO(FAULT, .slot = 0, .flags = 1),                    \
		SENT(MEM_ACQUIRE, H, .request = OWN(2)), GRANT(2, V(4), .fill = 0x66),             \
		ACT(INSTALL, .fill = 0x66, .writable = true, .waiters = 1)
#define MERGES                                                                              \
	DO(TICK), SENT(MEM_ACQUIRE, H, .request = OWN(4), .grant = OWN(3), .version = V(4), \
		       .flags = UNIT | HELD)
#define MERGE_SAYS(flag) \
	IN(MEM_ACK, H, .request = OWN(4), .grant = OWN(3), .version = V(5), .flags = UNIT | (flag))

static const struct rig_case holder_units[] = {
	CASE("a unit granted whole", DO(FAULT, .slot = 0, .flags = 1),
	     SENT(MEM_ACQUIRE, H, .request = OWN(1), .flags = UNIT),
	     GRANT(1, V(2), .flags = ZERO | UNIT)),
	CASE("a page of a unit alone", DO(FAULT, .slot = 0, .flags = 1),
	     SENT(MEM_ACQUIRE, H, .request = OWN(1), .flags = UNIT), GRANT(1, V(2), .flags = ZERO)),
	CASE("a FETCH of a page of a unit", MINE, AFTER_HOLD, ASK(FETCH_AND_INVALIDATE, 1, V(2))),
	CASE("a DOWNGRADE of a page of a unit", MINE, AFTER_HOLD, ASK(DOWNGRADE, 1, V(2))),
	CASE("a page of a unit given up unasked", MINE, AFTER_HOLD, DO(EVICT)),
	CASE("a page of a unit pinned", MINE, DO(PIN)),
	CASE("a merge that is asked for", ALL_BACK, DO(TICK)),
	CASE("a merge that is granted", ALL_BACK, MERGES, MERGE_SAYS(HELD)),
	CASE("a merge that is refused", ALL_BACK, MERGES, MERGE_SAYS(WVM_MSG_ERROR)),
	CASE("a demand that tells of the merge", ALL_BACK, MERGES, ASK(DOWNGRADE, 3, V(5))),
};

/* Member 10 has the unit, by its request 1, in version 2. */
#define WHOLE READ(10, ID(1), .flags = UNIT), GIVES(10, ID(1), V(2), .flags = ZERO | UNIT)
#define ALL_OF_10                                                                                  \
	WHOLE, ACQUIRE(9, ID(1)),                                                                  \
		SENT(FETCH_AND_INVALIDATE, 10, .request = OWN(1), .grant = ID(1),                  \
		     .version = V(2)),                                                             \
		WROTE(10, .flags = ZERO),                                                          \
		SENT(WRITE_BACK_ACK, 10, .request = OWN(1), .grant = ID(1), .version = V(2)),      \
		GIVES(9, ID(1), V(3), .flags = ZERO), ACQUIRE(10, ID(2)),                          \
		SENT(FETCH_AND_INVALIDATE, 9, .request = OWN(2), .grant = ID(1), .version = V(3)), \
		IN(WRITE_BACK, 9, .request = OWN(2), .grant = ID(1), .version = V(3),              \
		   .flags = ZERO),                                                                 \
		SENT(WRITE_BACK_ACK, 9, .request = OWN(2), .grant = ID(1), .version = V(3)),       \
		GIVES(10, ID(2), V(4), .flags = ZERO)
#define MERGE \
	IN(MEM_ACQUIRE, 10, .request = ID(4), .grant = ID(3), .version = V(4), .flags = UNIT | HELD)

static const struct rig_case home_units[] = {
	CASE("a first read, of the whole", READ(10, ID(1), .flags = UNIT)),
	CASE("a page of a whole unit is asked for", WHOLE, ACQUIRE(9, ID(1))),
	CASE("a whole unit that was never taken", WHOLE, ACQUIRE(9, ID(1)),
	     SENT(FETCH_AND_INVALIDATE, 10, .request = OWN(1), .grant = ID(1), .version = V(2)),
	     IN(NOT_HELD, 10, .request = OWN(1), .grant = ID(1), .version = V(2))),
	CASE("bytes of a unit that were never asked for", WHOLE,
	     IN(WRITE_BACK, 10, .request = ID(1), .grant = ID(1), .version = V(2), .fill = 0xa1)),
	CASE("all pages become one grant", ALL_OF_10, MERGE),
	CASE("a page that was merged is asked for", ALL_OF_10, MERGE, ACT(FORGET, .flags = 1),
	     GIVES(10, ID(4), V(5), .grant = ID(3), .flags = UNIT | HELD), ACQUIRE(9, ID(2))),
};

static void trace_case(uint32_t home_member, const struct rig_case *c, bool whole)
{
	const struct rig_step *s = c->steps;
	struct seen seen = {0};
	struct rig r;

	open_shared(&r, home_member);
	r.core->params.units = r.core->params.merge = whole;
	r.name = c->name;
	for (; s[1].op != RIG_END; s++)
		rig_do(&r, *s);
	rig_quiet(&r);
	trace(&r, s, &seen);
	*instants += seen.instructions;
	printf("  %-46s %5u instructions, %5u before, %4u after, %4u with undo log in use\n",
	       c->name, seen.instructions, seen.before, seen.after, seen.within);
	/* It was caught in the middle, and it came to be final. */
	ck_assert_uint_gt(seen.within, 10);
	ck_assert_uint_gt(seen.before, 10);
	ck_assert_uint_gt(seen.after, 0);
	close_shared(&r);
}

START_TEST(a_holder_killed_at_any_instruction_leaves_the_old_or_the_new)
{
	trace_case(H, &holder[_i], false);
}
END_TEST

START_TEST(a_home_killed_at_any_instruction_leaves_the_old_or_the_new)
{
	trace_case(RIG_SELF, &home[_i], false);
}
END_TEST

START_TEST(nor_is_there_anything_between_with_whole_units)
{
	if (_i < CASES(holder_units))
		trace_case(H, &holder_units[_i], true);
	else
		trace_case(RIG_SELF, &home_units[_i - CASES(holder_units)], true);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_holder_killed_at_any_instruction_leaves_the_old_or_the_new, 0,
			    CASES(holder));
	tcase_add_loop_test(tc, a_home_killed_at_any_instruction_leaves_the_old_or_the_new, 0,
			    CASES(home));
	tcase_add_loop_test(tc, nor_is_there_anything_between_with_whole_units, 0,
			    CASES(holder_units) + CASES(home_units));
}

int main(void)
{
	int status;

	instants = mmap(NULL, sizeof(*instants), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (instants == MAP_FAILED)
		return 1;
	status = rig_main("instant", add);
	printf("proof: killed at any instruction: %u instants of %d inputs: the old or the new\n",
	       *instants, CASES(holder) + CASES(home) + CASES(holder_units) + CASES(home_units));
	return status;
}
