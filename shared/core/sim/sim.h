/* What the rooms of the simulator share. */
#ifndef WVM_SIM_SIM_H
#define WVM_SIM_SIM_H

#include "shared/core/core_int.h"
#include "shared/core/sim/cluster.h"

#define SIM_VM_ID   7
#define SIM_SEGMENT 1408u /* three to a page, as on Ethernet */
#define SIM_SMALL   WVM_HEADER_BYTES
#define SIM_LARGE   (WVM_HEADER_BYTES + SIM_SEGMENT)

/* A wait may exceed the deadline by this much: nothing in virtual time is late by itself. */
#define SIM_MARGIN_NS UINT64_C(1000000)

enum sim_event_kind {
	SIM_EV_MESSAGE, /* a datagram arrives */
	SIM_EV_FAULT,   /* a thread's fault, in the inbox of a busy master only */
	SIM_EV_TICK,
	SIM_EV_THREAD,
	SIM_EV_SERVE, /* a busy master takes the next input from its inbox */
	SIM_EV_PROGRAM,
	SIM_EV_MAP,     /* a program maps a page again, in two steps */
	SIM_EV_TROUBLE, /* one begins */
	SIM_EV_RELIEF,  /* one ends */
	SIM_EV_DECIDE,  /* a change of members, if the last one is done */
	SIM_EV_LEARN,   /* a node hears of the present epoch */
	SIM_EV_REVIVE,  /* a master that was killed while it took over is followed by another */
	SIM_EV_DEATH,   /* a node dies for good */
	SIM_EV_BURY,    /* the others agree on it */
	SIM_EV_RETIRE,  /* a node is emptied, to come back without its files */
	SIM_EV_REBOOT,  /* one loses its files as it is */
};

/* Kept in pools by size, since there are millions of them. */
struct sim_event {
	struct sim_event *next; /* inbox or free list */
	uint8_t kind;           /* enum sim_event_kind */
	bool large;             /* room for SIM_LARGE bytes, else for SIM_SMALL */
	uint8_t trouble;        /* SIM_EV_RELIEF: enum sim_trouble */
	uint32_t node;          /* or the first of a trouble's two */
	uint32_t index;         /* thread, program, the second node of a trouble, or the sender */
	uint32_t life;          /* of the thread or trouble: a later one ignores the event */
	bool grants;     /* SIM_EV_MESSAGE: a request, or a grant: somebody will have a page */
	bool write;      /* SIM_EV_FAULT; SIM_EV_MAP: the second step */
	uint32_t page;   /* SIM_EV_FAULT, SIM_EV_MAP */
	uint32_t bytes;  /* SIM_EV_MESSAGE */
	uint64_t number; /* of the message, in the chart; or of the thread's fault */
	struct sim_event *original; /* of a corrupted datagram: as it was sent */
	uint8_t datagram[];
};

struct sim_entry {
	uint64_t at_ns;
	uint64_t order; /* ties: first made, first run */
	struct sim_event *event;
};

struct sim_events {
	struct sim_entry *heap;
	size_t count, room;
	uint64_t order;
	struct sim_event *free[2]; /* small, large */
	struct sim_chunk *chunks;
};

/*
 * A node in two parts: what outlives its master (files, and what the kernel
 * and the programs keep), and what the master has in its own memory. A later
 * life is a new master over the same files: sim_node_start() again.
 */
struct sim_node {
	/* Durable. */
	uint32_t epoch, table; /* that it has learnt */
	uint32_t serves_from;  /* what others took was said to this life in that epoch */
	uint16_t boot;         /* of the present or last master */
	uint16_t boot_first;   /* of those that took each other over */
	struct wvm_home_page *home;
	struct wvm_home_unit *units;
	struct wvm_held_page *held;
	struct wvm_held_unit *held_units;
	uint8_t *store, *ram, *outbox;
	bool stored[SIM_PAGES_MAX]; /* the store may have room for it: no WVM_ACT_FORGET since */
	void *durable;              /* of the core */
	bool present[SIM_PAGES_MAX];
	bool data[SIM_PAGES_MAX]; /* present, and not only room that nobody has touched */
	/* Programs for which a store to the page, once it is present, does not trap. */
	uint8_t untrapped[SIM_PAGES_MAX];
	uint8_t usable;                  /* programs that run */
	uint8_t unmapped[SIM_PAGES_MAX]; /* programs that have no mapping of it just now */
	/* Of the master. */
	struct wvm_core *core;
	void *memory;
	uint8_t known;                   /* programs that it protects */
	uint16_t orphans[SIM_PAGES_MAX]; /* pins that were asked for by programs that are gone */
	uint64_t tick_ns;                /* the next tick event that counts */
	struct sim_event *inbox, **inbox_end;
	uint32_t inbox_bytes;
	uint64_t busy_until_ns;
	uint64_t service_ns; /* per input */
	uint32_t stops;      /* reasons for which it is stopped */
	bool serving;        /* a SIM_EV_SERVE is under way */
	bool looks;          /* after its timers: from the first input on */
	bool down;           /* killed, and not followed by another yet */
	bool dying;          /* about to be killed, in the middle of something */
	bool dead;           /* for good */
	uint32_t buried;     /* in that table; 0: not yet */
	bool empty;          /* it has lost its files, and is down */
	bool retiring;       /* its programs are away, and it gives up its pages */
	uint32_t tries;      /* since then */
	uint32_t asked;      /* nodes that have answered it since it lost its files, a bit each */
	/* Time that it was stopped or slow: until now, and since when it is. */
	uint64_t stalled_ns, stalled_since_ns;
	bool cut; /* by the caller: from all, and towards some */
	bool cut_to[SIM_NODES_MAX];
};

enum sim_thread_state {
	SIM_TH_IDLE, /* has no event: the cluster is quiet, or its program is away */
	SIM_TH_THINK,
	SIM_TH_ACCESS,
	SIM_TH_WAIT,
	SIM_TH_WAIT_PIN,
};

struct sim_thread {
	uint32_t node, client;
	uint32_t life;
	uint8_t state; /* enum sim_thread_state */
	bool write, modify;
	bool pins, pinned;
	bool queued; /* its fault has not reached the core */
	uint32_t word;
	uint64_t page;
	uint64_t value;
	uint64_t since_ns; /* the access was begun */
	uint64_t fault;    /* number of the present or last wait */
	uint64_t fault_ns; /* the present wait was */
	uint64_t stalled_ns;
	uint64_t accesses;
};

enum sim_program_state { SIM_PROGRAM_RUNS, SIM_PROGRAM_AWAY, SIM_PROGRAM_MAPS };

struct sim_program {
	enum sim_program_state state;
	bool idle;     /* stays until the cluster is no longer quiet */
	uint32_t life; /* of all that it maps: a later one ignores the event */
};

/* One access, as its thread saw it. 40 bytes. */
struct sim_access {
	uint64_t begun_ns, done_ns;
	uint64_t read, wrote; /* values; wrote 0: nothing */
	uint32_t at;          /* page * SIM_WORDS + word */
	bool reads;
};

struct sim_history {
	struct sim_access *list;
	size_t count, room;
};

/* The bytes of a version that was written back: every copy of it has to be the same. */
struct sim_version {
	uint64_t version;
	uint64_t words[SIM_WORDS];
};
#define SIM_VERSIONS 4u /* the last ones of a page; retries of older ones are late indeed */

/* A table of who is home, and how it came about. */
struct sim_move {
	struct wvm_slices slices;
	struct wvm_slices seconds; /* their second homes */
	struct wvm_slices second;  /* those that are told: of nodes that may die */
	uint32_t node;             /* who joined or drained, or died */
	uint32_t epoch;
	uint32_t moved, base; /* the move that it is a part of, and the table before that */
	bool deadly;
	struct wvm_core_lost lost; /* where it is */
	uint8_t member[SIM_NODES_MAX];
};
#define SIM_MOVES 16u /* a table stays until so many later ones */

/* Three pages to a unit: different homes, and versions from a shared counter. */
#define SIM_UNIT_PAGES 3u

struct sim {
	struct sim_config config;
	struct wvm_member members[SIM_NODES_MAX];
	struct wvm_members list;
	uint64_t acknowledged[SIM_PAGES_MAX]; /* highest version, to whoever wrote it back */
	struct sim_move moves[SIM_MOVES];     /* table t, counted from 1: [t % SIM_MOVES] */
	uint32_t epoch, table;
	uint32_t unmoved; /* epochs since that one */
	bool moving;      /* not all have learnt it, and handed over */
	uint8_t active[SIM_NODES_MAX];
	struct wvm_layout_range placed[SIM_PAGES_MAX / SIM_UNIT_PAGES / 2 + 1];
	struct wvm_layout layout;
	struct sim_node nodes[SIM_NODES_MAX];
	struct sim_thread threads[SIM_THREADS_MAX];
	struct sim_program programs[SIM_NODES_MAX * SIM_CLIENTS_MAX];
	uint32_t thread_count, node_threads;
	uint64_t page_count; /* of the VM: sim_core_page() of the last one + 1 */
	uint64_t truth[SIM_PAGES_MAX][SIM_WORDS];
	struct sim_version versions[SIM_PAGES_MAX][SIM_VERSIONS];
	struct sim_history history;
	struct sim_events events;
	uint8_t cuts[SIM_NODES_MAX][SIM_NODES_MAX]; /* reasons, from and to */
	uint64_t random, value;
	uint64_t message; /* number of the last one */
	uint64_t still;   /* events since time moved on */
	uint64_t rested;  /* step at which a core had carried out all, the last one */
	uint64_t swept;   /* step of the last full check */
	uint32_t trouble_life;
	bool trouble_idle;
	bool death_due; /* as soon as nothing moves */
	bool settled;   /* had a minute without troubles */
	bool quiet;     /* threads begin nothing new */
	bool legend;
	/* Pages that the present input touched. */
	uint16_t touched[64];
	uint32_t touched_count;
	struct sim_report report;
	char text[SIM_TEXT];
};

/* cluster.c */
__attribute__((format(printf, 2, 3))) void sim_failed(struct sim *s, const char *format, ...);
void *sim_zeroed(size_t size);

static inline uint64_t sim_rnd(struct sim *s)
{
	s->random ^= s->random >> 12;
	s->random ^= s->random << 25;
	s->random ^= s->random >> 27;
	return s->random * UINT64_C(0x2545f4914f6cdd1d) >> 11;
}

static inline bool sim_chance(struct sim *s, uint32_t ppm)
{
	return ppm && sim_rnd(s) % 1000000 < ppm;
}

/* Of requests, at most. */
static inline uint64_t sim_deadline_ns(const struct sim *s)
{
	return s->config.backup ? s->config.times.deadline_lost_ns : s->config.times.deadline_ns;
}

static inline const struct wvm_slices *sim_table(const struct sim *s, uint32_t table)
{
	return &s->moves[table % SIM_MOVES].slices;
}

static inline struct sim_move *sim_move(struct sim *s, uint32_t table)
{
	return &s->moves[table % SIM_MOVES];
}

static inline const struct wvm_slices *sim_backup_table(const struct sim *s, uint32_t table)
{
	return s->config.backup ? &s->moves[table % SIM_MOVES].second : NULL;
}

/* In the place of a home: a page of a home that died is not served yet. */
#define SIM_NOBODY UINT32_MAX

static inline uint64_t sim_core_page(uint64_t page)
{
	return page / SIM_UNIT_PAGES * WVM_UNIT_PAGES + page % SIM_UNIT_PAGES;
}

static inline uint64_t sim_page_of(uint64_t core_page)
{
	return core_page / WVM_UNIT_PAGES * SIM_UNIT_PAGES + core_page % WVM_UNIT_PAGES;
}

static inline uint32_t sim_word_offset(uint32_t word)
{
	return word * 1360 / 8 * 8;
}

static inline uint8_t *sim_ram(struct sim_node *n, uint64_t page)
{
	return n->ram + page * WVM_PAGE_BYTES;
}

static inline void sim_touch(struct sim *s, uint64_t page)
{
	for (uint32_t i = 0; i < s->touched_count; i++)
		if (s->touched[i] == page)
			return;
	/* Of the core's unit only the first pages are used: one beyond is no page. */
	if (page < s->config.pages && s->touched_count < 64)
		s->touched[s->touched_count++] = (uint16_t)page;
}

/* events.c */
struct sim_event *sim_event_new(struct sim *s, enum sim_event_kind kind, bool large);
void sim_event_free(struct sim *s, struct sim_event *e);
void sim_event_post(struct sim *s, struct sim_event *e, uint64_t at_ns);
struct sim_event *sim_post(struct sim *s, uint64_t at_ns, enum sim_event_kind kind);
struct sim_event *sim_event_next(struct sim *s, uint64_t *at_ns);
void sim_events_free(struct sim *s);

/* network.c: what leaves, what may happen to it, and what a receiver makes of it */
void sim_send(struct sim *s, uint32_t from, uint32_t to, struct wvm_msg *msg, const uint8_t *page);
void sim_send_bytes(struct sim *s, uint32_t from, uint32_t to, const struct wvm_msg *msg,
		    const uint8_t *bytes);
void sim_receive(struct sim *s, uint32_t node, struct sim_event *e);

/* node.c: a master carries out what its core says */
void sim_node_drain(struct sim *s, uint32_t node);
void sim_node_start(struct sim *s, uint32_t node);
void sim_node_free(struct sim_node *n);

/* life.c: masters that are killed, and those that follow them */
void sim_kill(struct sim *s, uint32_t node);
void sim_revive(struct sim *s, uint32_t node);
bool sim_life_ends(struct sim *s, uint32_t node);
void sim_look_undone(struct sim *s);

/* renew.c: nodes that come back without their files */
void sim_retire(struct sim *s, uint32_t node);
void sim_retire_some(struct sim *s);
void sim_renew(struct sim *s, uint32_t node);
void sim_reboots_start(struct sim *s);
void sim_reboot(struct sim *s);
void sim_reboot_soon(struct sim *s, uint64_t ns);
bool sim_may_reboot(const struct sim *s, uint32_t node);
bool sim_may_lose(const struct sim *s);

/* inbox.c: masters that stop or are slow */
void sim_note_stall(struct sim *s, struct sim_node *n);
void sim_inbox_resume(struct sim *s, uint32_t node);
void sim_arrive(struct sim *s, struct sim_event *e);
void sim_serve(struct sim *s, uint32_t node);
void sim_tick(struct sim *s, uint32_t node, uint64_t at_ns);
void sim_slow(struct sim *s, uint32_t node, uint64_t service_ns);
void sim_rearm(struct sim *s, uint32_t node);
uint64_t sim_stalled(const struct sim *s, const struct sim_node *n);

/* programs.c */
void sim_think(struct sim *s, uint32_t index);
void sim_thread_run(struct sim *s, uint32_t index);
void sim_thread_fault(struct sim *s, const struct sim_event *e);
void sim_wake(struct sim *s, uint32_t node, uint64_t page, uint64_t clients);
void sim_wake_failed(struct sim *s, uint32_t node, uint64_t page, uint64_t clients);
void sim_pins_done(struct sim *s, uint32_t node, uint64_t page);
void sim_pins_lost(struct sim *s, uint32_t node, uint64_t page);
void sim_program_event(struct sim *s, uint32_t index);
/* The program's mapping of the page is gone: who waits there does not any more. */
void sim_let_go(struct sim *s, uint32_t node, uint32_t client, uint64_t page);

/* maps.c. The two steps of a new mapping: the master knows it; what is there is protected in it. */
void sim_map_known(struct sim_node *n, uint32_t client, uint32_t page);
void sim_map_protected(struct sim_node *n, uint32_t client, uint32_t page);
void sim_unmap(struct sim *s, uint32_t node, uint32_t client, uint32_t page);
void sim_map_event(struct sim *s, const struct sim_event *e);
/* The program has mapped all anew, or is gone. */
void sim_maps_all(struct sim *s, uint32_t node, uint32_t client);
void sim_programs_start(struct sim *s);
void sim_programs_leave(struct sim *s, uint32_t node);
void sim_programs_end(struct sim *s, uint32_t node);

/* moves.c: who is home changes */
void sim_moves_start(struct sim *s);
void sim_move_decide(struct sim *s);
void sim_move_learn(struct sim *s, uint32_t node);
void sim_move_end(struct sim *s);
uint32_t sim_home_of(const struct sim *s, uint64_t page);

/*
 * tables.c: who is home while those nodes are that active[] says, and who would be the home of a
 * slice without one of them, or WVM_SLICE_NIL: nobody. Valid until sim_tables_begin().
 */
void sim_tables_begin(void);
const struct wvm_slices *sim_slices(const struct sim *s);
uint32_t sim_second(const struct sim *s, uint32_t slice, uint32_t home);

/* death.c: nodes that die for good */
void sim_deaths_start(struct sim *s);
void sim_build_seconds(struct sim *s, struct sim_move *m, const struct sim_move *was);
bool sim_runs_nothing(const struct sim *s, uint32_t node);
void sim_death(struct sim *s);
void sim_bury(struct sim *s, uint32_t node);
bool sim_unburied(const struct sim *s);
void sim_tell_all(struct sim *s);

/* trouble.c */
void sim_trouble_begin(struct sim *s);
void sim_trouble_end(struct sim *s, const struct sim_event *e);
void sim_trouble_start(struct sim *s);
void sim_trouble_heal(struct sim *s);

/* invariants.c */
void sim_check_touched(struct sim *s, uint32_t node);
void sim_check_all(struct sim *s);
void sim_check_rest(struct sim *s);
void sim_check_acknowledged(struct sim *s, uint32_t node, const struct wvm_msg *msg);
void sim_check_written_back(struct sim *s, uint32_t node, uint64_t page, uint64_t version,
			    const uint8_t *data);
void sim_check_wait(struct sim *s, const struct sim_thread *t);

/* backups.c: what second homes have */
void sim_check_backup(struct sim *s, uint64_t page);
void sim_backup_written_back(struct sim *s, uint32_t node, const struct wvm_msg *msg);
void sim_note_acknowledged(struct sim *s, uint32_t node, const struct wvm_msg *msg);
void sim_check_degraded(struct sim *s);

/* history.c */
void sim_history_add(struct sim *s, const struct sim_thread *t, uint64_t read);

/* chart.c: by the environment, and what is drawn; call through sim_note(), which costs nothing
 * without a trace */
void sim_trace_seed(struct sim_config *c);
void sim_chart_send(struct sim *s, uint64_t number, uint32_t from, uint32_t to,
		    const struct wvm_msg *m, const char *fate);
__attribute__((format(printf, 4, 5))) void sim_chart_local(struct sim *s, uint32_t node,
							   uint64_t page, const char *format, ...);
#define SIM_NO_PAGE UINT64_MAX
#define sim_note(s, ...)                                   \
	do {                                               \
		if ((s)->config.trace)                     \
			sim_chart_local((s), __VA_ARGS__); \
	} while (0)

#endif
