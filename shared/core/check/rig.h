/*
 * One core driven by hand. A case is a table of steps: what goes in, and every
 * action that comes out, in order and in full. An input finds no action left
 * over, so an action that a case does not name fails it.
 */
#ifndef WVM_CORE_CHECK_RIG_H
#define WVM_CORE_CHECK_RIG_H

#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/core_int.h"

#define RIG_EPOCH 1u
#define RIG_VM    7u
#define RIG_BOOT  3u
#define RIG_SHARD 1u
#define RIG_PAGES 1024u /* two units */
#define RIG_OTHER 512u  /* first page of the unit whose home is RIG_ELSEWHERE */

/* Members: vnode ids are not member indices, so that one taken for the other is noticed. */
#define RIG_SELF      1u
#define RIG_ELSEWHERE 2u
#define RIG_VNODE(m)  (100u + 2u * (m))
#define RIG_MEMBERS   201u

/* wvm_request_id(), constant. */
#define RIG_ID(boot, shard, n) ((uint64_t)(boot) << 48 | (uint64_t)(shard) << 40 | (n))

/* Versions of the home's counter; request ids of this core, of a peer, and of other boots. */
#define V(n)     (((uint64_t)RIG_EPOCH << 32) + (n))
#define OWN(n)   RIG_ID(RIG_BOOT, RIG_SHARD, n)
#define ID(n)    RIG_ID(9, 2, n)
#define LATER(n) RIG_ID(10, 2, n)

enum rig_op {
	RIG_END,
	RIG_IN,      /* a message: `drop` is what the core says to it */
	RIG_OUT,     /* the next action */
	RIG_FAULT,   /* `flags`: write; `drop`: refused */
	RIG_PIN,     /* `drop`: enum wvm_pin_result */
	RIG_UNPIN,   /* */
	RIG_TICK,    /* time goes to the next deadline, which comes by at most `ns` (0: any) */
	RIG_PASS,    /* ns go by, which is short of the next deadline */
	RIG_HOME,    /* the directory entry: state, holders, version, flags, grant of holder 0 */
	RIG_HELD,    /* the holder's: state, version, grant */
	RIG_SERVE,   /* `flags` */
	RIG_GONE,    /* a client */
	RIG_FAILED,  /* wvm_core_not_installed() */
	RIG_IDLE,    /* no timer runs */
	RIG_TIMED,   /* a timer runs */
	RIG_STORED,  /* the home's copy is filled with `fill`; written with RIG_FILL */
	RIG_FILL,    /* */
	RIG_COUNTER, /* of the statistics: byte offset `offset` has value `version` */
	RIG_CALL,    /* a function of the test */
	RIG_KILL,    /* the process ends, whatever actions are left; the next one begins to adopt */
	RIG_ADOPT,   /* the page's entries are taken over; `flags`: it is in the RAM file */
	RIG_EVICT,   /* `drop`: enum wvm_evict */
	RIG_ADOPTED, /* the holder's part is done: home and holder serve */
};

struct rig;

struct rig_step {
	enum rig_op op;
	uint8_t type; /* of a message */
	uint8_t kind; /* of an action */
	uint8_t flags;
	uint8_t source;
	uint8_t state;
	uint8_t fill; /* each byte of a page payload; 0: none */
	bool writable;
	int drop;
	uint32_t member;
	uint32_t slot;
	uint32_t holders;
	uint32_t count, below;
	uint64_t page;
	uint64_t request, version, grant;
	uint64_t waiters;
	uint64_t ns;
	size_t offset;
	void (*call)(struct rig *);
};

struct rig_case {
	const char *name;
	const struct rig_step *steps;
};

struct rig {
	struct wvm_member list[RIG_MEMBERS];
	struct wvm_members members;
	struct wvm_slices slices;
	struct wvm_core_params params;
	struct wvm_core *core;
	void *memory, *durable;
	struct wvm_home_page *home;
	struct wvm_home_unit units[RIG_PAGES / WVM_UNIT_PAGES];
	struct wvm_held_page *held;
	struct wvm_held_unit held_units[RIG_PAGES / WVM_UNIT_PAGES];
	uint8_t *store, *outbox;
	uint64_t now_ns;
	const char *name; /* of the case, and its step */
	uint32_t step;
};

#define rig_assert(r, cond, ...)                          \
	do {                                              \
		if (!(cond))                              \
			rig_abort(r, #cond, __VA_ARGS__); \
	} while (0)

__attribute__((format(printf, 3, 4))) static inline void rig_abort(const struct rig *r,
								   const char *cond,
								   const char *format, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	ck_abort_msg("case '%s', step %u: %s (%s)", r->name, r->step, text, cond);
}

static inline void *rig_memory(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);

	ck_assert_ptr_nonnull(p);
	memset(p, 0, bytes);
	return p;
}

/*
 * All of unit 0 is homed at `home`, unit 1 at RIG_ELSEWHERE, unless `layout` (NULL: nothing)
 * says otherwise.
 */
static inline void rig_open_all(struct rig *r, uint32_t home, const struct wvm_core_limits *limits,
				const struct wvm_layout *layout)
{
	struct wvm_core_vm vm = {.id = RIG_VM, .pages = RIG_PAGES};

	ck_assert_uint_eq(OWN(5), wvm_request_id(RIG_BOOT, RIG_SHARD, 5));
	memset(r, 0, sizeof(*r));
	r->name = "";
	for (uint32_t i = 0; i < RIG_MEMBERS; i++)
		r->list[i] = (struct wvm_member){.first_vnode = RIG_VNODE(i), .vnodes = 1};
	r->members = (struct wvm_members){r->list, RIG_MEMBERS};
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		r->slices.home_vnode[i] = RIG_VNODE(RIG_ELSEWHERE);
	r->slices.home_vnode[wvm_slice_of(RIG_VM, 0)] = RIG_VNODE(home);
	r->params = (struct wvm_core_params){.members = &r->members,
					     .slices = &r->slices,
					     .layout = layout,
					     .self = RIG_SELF,
					     .epoch = RIG_EPOCH,
					     .boot = RIG_BOOT,
					     .shard = RIG_SHARD,
					     .seed = 1};
	wvm_core_default_limits(&r->params.limits);
	wvm_core_default_times(&r->params.times);
	if (limits)
		r->params.limits = *limits;
	r->outbox = r->params.outbox =
		rig_memory((size_t)r->params.limits.demands * WVM_PAGE_BYTES);
	r->durable = r->params.durable = rig_memory(wvm_core_durable_bytes(&r->params));
	r->memory = rig_memory(wvm_core_bytes(&r->params));
	r->core = wvm_core_init(r->memory, &r->params);
	vm.home = r->home = rig_memory(sizeof(*vm.home) * RIG_PAGES);
	vm.units = r->units;
	vm.held_units = r->held_units;
	vm.store = r->store = rig_memory((size_t)RIG_PAGES * WVM_PAGE_BYTES);
	vm.held = r->held = rig_memory(sizeof(*vm.held) * RIG_PAGES);
	ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
	wvm_core_serve(r->core, true);
	r->now_ns = UINT64_C(1000000000);
}

static inline void rig_open(struct rig *r, uint32_t home, const struct wvm_core_limits *limits)
{
	rig_open_all(r, home, limits, NULL);
}

static inline void rig_open_placed(struct rig *r, uint32_t home, const struct wvm_layout *layout)
{
	rig_open_all(r, home, NULL, layout);
}

static inline void rig_close(struct rig *r)
{
	free(r->memory);
	free(r->durable);
	free(r->outbox);
	free(r->home);
	free(r->store);
	free(r->held);
}

static inline struct wvm_msg rig_msg(const struct rig_step *s)
{
	return (struct wvm_msg){
		.type = s->type,
		.flags = s->flags,
		.node_state = WVM_NODE_ACTIVE,
		.hops = WVM_HOPS_MAX,
		.vm_id = RIG_VM,
		.epoch = RIG_EPOCH,
		.src = RIG_VNODE(s->member),
		.dst = RIG_VNODE(RIG_SELF),
		.steer = 11,
		.reply_steer = (uint16_t)(20 + s->member),
		.request = s->request,
		.gpa = s->page << WVM_PAGE_SHIFT,
		.version = s->version,
		.grant = s->grant,
	};
}

static inline void rig_in(struct rig *r, const struct rig_step *s)
{
	static uint8_t payload[WVM_PAGE_BYTES];
	struct wvm_msg msg = rig_msg(s);
	enum wvm_drop drop;
	uint64_t counted = wvm_core_stats(r->core)->drops[s->drop];

	if (s->fill) {
		memset(payload, s->fill, sizeof(payload));
		msg.payload_len = msg.seg_total = WVM_PAGE_BYTES;
	}
	drop = wvm_core_message(r->core, r->now_ns, &msg, s->fill ? payload : NULL);
	rig_assert(r, drop == (enum wvm_drop)s->drop, "%s came to %s", wvm_msg_name(s->type),
		   wvm_drop_name(drop));
	rig_assert(r, wvm_core_stats(r->core)->drops[s->drop] == counted + !!s->drop,
		   "%s is not counted", wvm_drop_name(drop));
}

/* Where an answer goes: to the shard that the asker named, or to that of the page's range. */
static inline void rig_check_steer(struct rig *r, const struct rig_step *s, const struct wvm_msg *m)
{
	bool to_home = m->type == WVM_MSG_MEM_READ || m->type == WVM_MSG_MEM_ACQUIRE;
	bool begun = m->type == WVM_MSG_INVALIDATE || m->type == WVM_MSG_DOWNGRADE ||
		     m->type == WVM_MSG_FETCH_AND_INVALIDATE;
	uint16_t slice = wvm_slice_of(RIG_VM, m->gpa);
	/* A write-back that nobody asked for names its grant: nobody named a shard. */
	bool unasked = m->type == WVM_MSG_WRITE_BACK && m->request == m->grant;
	uint16_t want = to_home || unasked ? slice : begun ? 0 : (uint16_t)(20 + s->member);

	rig_assert(r, m->steer == want, "steer is %u, not %u", m->steer, want);
	if (begun || m->type == WVM_MSG_MEM_ACK)
		rig_assert(r, m->reply_steer == slice, "reply_steer is %u", m->reply_steer);
}

static inline void rig_check_msg(struct rig *r, const struct rig_step *s,
				 const struct wvm_action *a)
{
	const struct wvm_msg *m = &a->msg;

	rig_assert(r, m->type == s->type, "%s and not %s is sent", wvm_msg_name(m->type),
		   wvm_msg_name(s->type));
	rig_assert(r, a->member == s->member && m->dst == RIG_VNODE(s->member),
		   "sent to member %u, vnode %u", a->member, m->dst);
	rig_assert(r, m->src == RIG_VNODE(RIG_SELF), "src is %u", m->src);
	rig_assert(r,
		   m->vm_id == RIG_VM && m->epoch == RIG_EPOCH && m->hops == WVM_HOPS_MAX &&
			   m->node_state == WVM_NODE_ACTIVE,
		   "header fields");
	rig_assert(r, m->gpa == s->page << WVM_PAGE_SHIFT, "gpa is %lx", m->gpa);
	rig_assert(r, m->request == s->request, "request is %lx", m->request);
	rig_assert(r, m->version == s->version, "version is %lx", m->version);
	rig_assert(r, m->grant == s->grant, "grant is %lx", m->grant);
	rig_assert(r, m->flags == s->flags, "flags are %x", m->flags);
	rig_assert(r, a->source == s->source, "data source is %u", a->source);
	rig_assert(r, (m->qos == WVM_QOS_BULK) == (s->source != WVM_DATA_NONE), "qos is %u",
		   m->qos);
	rig_assert(r, !m->payload_len && !m->seg_total && !m->seg_offset, "the payload is none");
	rig_check_steer(r, s, m);
}

static inline void rig_out(struct rig *r, const struct rig_step *s)
{
	static const char *const names[] = {"SEND",    "INSTALL", "LIFT",   "WAKE",
					    "PROTECT", "SAVE",    "PUNCH",  "FAIL",
					    "PINNED",  "FILL",    "SETTLE", "FORGET"};
	const struct wvm_action *a = wvm_core_action(r->core);

	rig_assert(r, a, "no action, where %s was due", names[s->kind]);
	rig_assert(r, a->kind == s->kind, "%s and not %s", names[a->kind], names[s->kind]);
	rig_assert(r, a->vm == 0 && a->page == s->page, "page is %lu", a->page);
	rig_assert(r, a->waiters == s->waiters, "waiters are %lx", a->waiters);
	rig_assert(r, a->slot == s->slot, "slot is %u", a->slot);
	if (a->kind == WVM_ACT_SEND)
		rig_check_msg(r, s, a);
	if (a->kind == WVM_ACT_FILL)
		rig_assert(r, a->count == s->count && a->below == s->below,
			   "%u pages are filled, and %u before it", a->count, a->below);
	if (a->kind == WVM_ACT_FORGET)
		rig_assert(r, a->home == !!s->flags, "home is %d", a->home);
	if (a->kind == WVM_ACT_FAIL)
		rig_assert(r, a->reason == s->state, "reason is %u", a->reason);
	rig_assert(r, a->writable == s->writable, "writable is %u", a->writable);
	rig_assert(r, !a->data == !s->fill, "data is %p", (const void *)a->data);
	for (uint32_t i = 0; a->data && i < WVM_PAGE_BYTES; i++)
		rig_assert(r, a->data[i] == s->fill, "byte %u is %x", i, a->data[i]);
}

static inline void rig_check_home(struct rig *r, const struct rig_step *s)
{
	struct wvm_home_page *e = &r->home[s->page];

	rig_assert(r, e->state == s->state, "home state is %u", e->state);
	rig_assert(r, e->holders == s->holders, "%u holders", e->holders);
	rig_assert(r, e->version == s->version, "stored version is %lx", e->version);
	rig_assert(r, (e->flags & ~WVM_HOME_ASKED) == s->flags, "home flags are %x", e->flags);
	rig_assert(r, !e->txn == !s->slot, "transaction %u", e->txn);
	if (s->grant)
		rig_assert(r, e->grant[0] == s->grant, "first grant is %lx", e->grant[0]);
}

static inline void rig_check_held(struct rig *r, const struct rig_step *s)
{
	const struct wvm_held_page *h = &r->held[s->page];

	rig_assert(r, h->state == s->state, "held state is %u", h->state);
	if (s->state)
		rig_assert(r, h->version == s->version && h->grant == s->grant,
			   "held version %lx, grant %lx", h->version, h->grant);
}

static inline void rig_time(struct rig *r, const struct rig_step *s)
{
	uint64_t due = wvm_core_deadline(r->core);

	if (s->op == RIG_PASS) {
		rig_assert(r, r->now_ns + s->ns < due, "the next deadline is in %ld ns",
			   (long)(due - r->now_ns));
		r->now_ns += s->ns;
		return;
	}
	rig_assert(r, due != WVM_CORE_NEVER, "no timer runs");
	rig_assert(r, !s->ns || due <= r->now_ns + s->ns, "the next deadline is in %ld ns",
		   (long)(due - r->now_ns));
	if (due > r->now_ns)
		r->now_ns = due;
	wvm_core_tick(r->core, r->now_ns);
}

/* kill -9, and the next process of this node: a new boot, the same files. */
static inline void rig_kill(struct rig *r)
{
	struct wvm_core_vm vm = *wvm_core_vm_at(r->core, 0);

	if (!r->params.boot_first)
		r->params.boot_first = r->params.boot;
	r->params.boot++;
	r->params.adopt = true;
	memset(r->memory, 0xee, wvm_core_bytes(&r->params));
	r->core = wvm_core_init(r->memory, &r->params);
	ck_assert_uint_eq(wvm_core_add_vm(r->core, &vm), 0);
	wvm_core_adopt(r->core);
	for (uint64_t page = 0; page < RIG_PAGES; page++)
		wvm_core_adopt_home(r->core, 0, page);
	wvm_core_adopt_home_end(r->core);
	for (uint64_t unit = 0; unit < RIG_PAGES / WVM_UNIT_PAGES; unit++)
		wvm_core_adopt_unit(r->core, 0, unit);
	wvm_core_serve(r->core, true);
}

static inline void rig_input(struct rig *r, const struct rig_step *s)
{
	uint64_t counter;

	switch (s->op) {
	case RIG_IN: rig_in(r, s); return;
	case RIG_FAULT:
		rig_assert(r,
			   wvm_core_fault(r->core, r->now_ns, 0, s->page, s->flags,
					  (unsigned int)s->slot) == !s->drop,
			   "the fault was %s", s->drop ? "taken" : "refused");
		return;
	case RIG_PIN:
		rig_assert(r, (int)wvm_core_pin(r->core, r->now_ns, 0, s->page) == s->drop,
			   "another answer to the pin");
		return;
	case RIG_EVICT:
		rig_assert(r, (int)wvm_core_evict(r->core, r->now_ns, 0, s->page) == s->drop,
			   "another answer to the eviction");
		return;
	case RIG_UNPIN: wvm_core_unpin(r->core, r->now_ns, 0, s->page); return;
	case RIG_TICK:
	case RIG_PASS: rig_time(r, s); return;
	case RIG_SERVE: wvm_core_serve(r->core, s->flags); return;
	case RIG_GONE: wvm_core_client_gone(r->core, s->slot); return;
	case RIG_FAILED: wvm_core_not_installed(r->core, 0, s->page); return;
	case RIG_HOME: rig_check_home(r, s); return;
	case RIG_HELD: rig_check_held(r, s); return;
	case RIG_IDLE:
		rig_assert(r, wvm_core_deadline(r->core) == WVM_CORE_NEVER, "a timer runs");
		return;
	case RIG_TIMED:
		rig_assert(r, wvm_core_deadline(r->core) != WVM_CORE_NEVER, "no timer runs");
		return;
	case RIG_STORED:
		for (uint32_t i = 0; i < WVM_PAGE_BYTES; i++)
			rig_assert(r, r->store[s->page * WVM_PAGE_BYTES + i] == s->fill,
				   "stored byte %u", i);
		return;
	case RIG_FILL: memset(r->store + s->page * WVM_PAGE_BYTES, s->fill, WVM_PAGE_BYTES); return;
	case RIG_COUNTER:
		memcpy(&counter, (const char *)wvm_core_stats(r->core) + s->offset, 8);
		rig_assert(r, counter == s->version, "the counter is %lu", counter);
		return;
	case RIG_CALL: s->call(r); return;
	case RIG_KILL: rig_kill(r); return;
	case RIG_ADOPT: wvm_core_adopt_held(r->core, r->now_ns, 0, s->page, s->flags); return;
	case RIG_ADOPTED: wvm_core_adopt_held_end(r->core, r->now_ns); return;
	case RIG_OUT:
	case RIG_END: break;
	}
}

static inline void rig_quiet(struct rig *r)
{
	const struct wvm_action *a = wvm_core_action(r->core);

	rig_assert(r, !a, "an action of kind %u (%s) that no step names", a ? a->kind : 0u,
		   a && a->kind == WVM_ACT_SEND ? wvm_msg_name(a->msg.type) : "");
}

/* One step by itself, for tests that make theirs as they go. */
static inline void rig_do(struct rig *r, struct rig_step step)
{
	if (step.op == RIG_OUT) {
		rig_out(r, &step);
	} else {
		if (step.op != RIG_FAILED && step.op != RIG_KILL)
			rig_quiet(r);
		rig_input(r, &step);
	}
	r->step++;
}

static inline void rig_run(struct rig *r, const struct rig_case *c)
{
	r->name = c->name;
	r->step = 0;
	for (const struct rig_step *s = c->steps; s->op != RIG_END; s++)
		rig_do(r, *s);
	rig_quiet(r);
}

/* ---- how the tables write it ----------------------------------------------------------- */

#define CASE(name_, ...)                         \
	{                                        \
		name_, (const struct rig_step[]) \
		{                                \
			__VA_ARGS__,             \
			{                        \
				.op = RIG_END    \
			}                        \
		}                                \
	}
#define CASES(table) (int)(sizeof(table) / sizeof((table)[0]))

#define IN(type_, from, ...)                                                       \
	{                                                                          \
		.op = RIG_IN, .type = WVM_MSG_##type_, .member = from, __VA_ARGS__ \
	}
#define SENT(type_, to, ...)                                                                \
	{                                                                                   \
		.op = RIG_OUT, .kind = WVM_ACT_SEND, .type = WVM_MSG_##type_, .member = to, \
		__VA_ARGS__                                                                 \
	}
#define ACT(kind_, ...)                                             \
	{                                                           \
		.op = RIG_OUT, .kind = WVM_ACT_##kind_, __VA_ARGS__ \
	}
#define DO(op_, ...)                         \
	{                                    \
		.op = RIG_##op_, __VA_ARGS__ \
	}
#define COUNTED(name_, n)                                                                         \
	{                                                                                         \
		.op = RIG_COUNTER, .offset = offsetof(struct wvm_core_stats, name_), .version = n \
	}

#define LESS(why) .drop = WVM_DROP_##why

/* A case by itself, of a node that asks for whole units; and puts them together again. */
static inline void rig_run_units(uint32_t home, const struct rig_case *c, bool merge)
{
	struct rig r;

	rig_open(&r, home, NULL);
	r.core->params.units = r.params.units = true;
	r.core->params.merge = r.params.merge = merge;
	rig_run(&r, c);
	rig_close(&r);
}

static inline int rig_main(const char *name, void (*add)(TCase *))
{
	Suite *suite = suite_create(name);
	TCase *tc = tcase_create(name);
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	add(tc);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

#endif
