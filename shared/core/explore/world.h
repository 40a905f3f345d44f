/*
 * One state of the explored cluster, and the steps between states.
 */
#ifndef WVM_EXPLORE_WORLD_H
#define WVM_EXPLORE_WORLD_H

#include <setjmp.h>

#include "shared/core/core_int.h"
#include "shared/core/explore/explore.h"

#define EX_HOME     0u
#define EX_MESSAGES 24u /* under way at once; more is a violation */
#define EX_EVENTS   512u
#define EX_PACKED   256u /* bytes of a packed state, at most */
#define EX_EPOCH    1u
#define EX_TEXT     256u

/*
 * What a page holds, told by one word of it. Stores never write a value twice,
 * so all that a check can ask of bytes is whether they are the last written
 * ones; besides that the core and its driver only ask whether they are zeros.
 */
enum ex_value {
	EX_ZERO = 0,    /* as at first: the last written only while truth is EX_ZERO */
	EX_CURRENT = 1, /* last written */
	EX_STALE = 2,   /* written, and overwritten elsewhere since */
};

enum ex_thread { EX_IDLE, EX_READS, EX_WRITES };

/* A message under way, its page as one value. */
struct ex_msg {
	struct wvm_msg msg;
	uint8_t value; /* enum ex_value, when msg carries a page */
	uint8_t paged;
};

struct ex_node {
	struct wvm_held_page held;
	struct wvm_held_unit unit;
	struct wvm_request request; /* with held.request; else unused */
	struct wvm_demand demand;   /* with held.demand */
	struct wvm_merge merge;     /* with unit.merge */
	uint64_t counter;           /* of the last request id */
	uint8_t present, ram;       /* the RAM file has the page; enum ex_value */
	uint8_t outbox;             /* enum ex_value */
	uint8_t thread[EX_PROGRAMS_MAX];
	uint8_t stores[EX_PROGRAMS_MAX]; /* a store does not trap */
};

struct ex_world {
	struct ex_node node[EX_NODES_MAX];
	/* The home's part, node 0's. */
	struct wvm_home_page home;
	struct wvm_home_unit unit;
	struct wvm_txn txn;                     /* with home.txn */
	struct wvm_asked waiting[EX_NODES_MAX]; /* behind txn, in order */
	uint8_t waiting_count;
	uint8_t store; /* enum ex_value, with WVM_HOME_WRITTEN */
	uint8_t truth; /* EX_ZERO until the first store, then EX_CURRENT */
	uint8_t accesses, losses, duplicates, retries, deadlines, evictions; /* that may happen */
	uint8_t messages;
	struct ex_msg msg[EX_MESSAGES];
};

enum ex_kind {
	EX_ACCESS,  /* `index`: program; `write` */
	EX_DELIVER, /* `index`: message */
	EX_COPY,    /* the same, and it stays under way */
	EX_LOSE,
	EX_TIMER,    /* `index`: enum wvm_core_timer_kind */
	EX_DEADLINE, /* the same, so late that it is given up */
	EX_EVICT,
};

struct ex_event {
	uint8_t kind, node, index;
	bool write;
	bool late; /* the hold time or the wait for a grant, if looked at, is over */
};

/* The cores and what they work on; one per exploration. */
struct ex_rig {
	struct explore_config config;
	struct wvm_member members[EX_NODES_MAX];
	struct wvm_members list;
	struct wvm_slices slices;
	struct wvm_core *core[EX_NODES_MAX];
	void *memory[EX_NODES_MAX];
	uint16_t vm_id;
	/* Pages as the core sees them: first word as enum ex_value. */
	_Alignas(64) uint8_t page[3][WVM_PAGE_BYTES];
	_Alignas(64) uint8_t store[WVM_PAGE_BYTES], outbox[WVM_PAGE_BYTES];
	struct wvm_home_page no_home;
	struct wvm_home_unit no_unit;
	bool live; /* the cores keep their state from step to step */
	char failure[EX_TEXT];
};

/* Renames that a packing made: original -> packed. */
struct ex_names {
	uint8_t node[EX_NODES_MAX];
	uint8_t program[EX_NODES_MAX][EX_PROGRAMS_MAX]; /* by original node */
	uint8_t message[EX_MESSAGES];                   /* original index -> packed */
};

/* world.c */
int ex_rig_init(struct ex_rig *rig, const struct explore_config *config);
void ex_rig_done(struct ex_rig *rig);
void ex_first(const struct ex_rig *rig, struct ex_world *w);
uint32_t ex_events(const struct ex_rig *rig, const struct ex_world *w, struct ex_event *list);
/* Makes the step. False: a violation, rig->failure says which. */
bool ex_step(struct ex_rig *rig, struct ex_world *w, const struct ex_event *e);
__attribute__((format(printf, 2, 3))) void ex_failed(struct ex_rig *rig, const char *format, ...);
/* Whether e leads towards the end of what has begun: no access, loss, copy or deadline. */
static inline bool ex_progress(const struct ex_event *e)
{
	return e->kind == EX_DELIVER || e->kind == EX_TIMER;
}

/* check.c */
bool ex_check(struct ex_rig *rig, const struct ex_world *w);
/* Nothing waits, nothing is under way, no timer is armed. */
bool ex_complete(const struct ex_rig *rig, const struct ex_world *w);

/* What a node and the home say of the page, the units' entries looked through. */
struct wvm_held_page ex_held(const struct ex_node *node);
struct wvm_home_page ex_home(const struct ex_world *w);

/* pack.c */
uint32_t ex_pack(const struct ex_rig *rig, const struct ex_world *w, uint8_t *bytes,
		 struct ex_names *names);
void ex_unpack(const struct ex_rig *rig, struct ex_world *w, const uint8_t *bytes, uint32_t size);

/* print.c */
void ex_print_event(FILE *to, const struct ex_world *w, const struct ex_event *e,
		    const struct ex_names *names);
void ex_print_state(FILE *to, const struct ex_rig *rig, const struct ex_world *w,
		    const struct ex_names *names);

#endif
