/*
 * A cluster in one thread: N nodes of the real core, virtual time, a network
 * that loses, doubles, reorders, delays, corrupts and is cut, nodes that stop
 * and run slow, programs that come, read, write, pin and go. One seed decides
 * everything, so a failure is replayed by its seed.
 *
 * The memory of a node is modelled as the kernel keeps it: pages that are in
 * the RAM file, and for each program whether a store to the page traps. There
 * is one true value per word, written by every store at its instant; a load
 * that returns anything else is a failure. That is per-page linearizability,
 * and stronger than what the guest is promised. After every input to a core
 * the invariants are checked for the pages that it touched (invariants.c), now
 * and then for all, or every time (sweep); what the programs saw is checked once
 * more at the end, from their own records alone (history.c).
 */
#ifndef WVM_SIM_CLUSTER_H
#define WVM_SIM_CLUSTER_H

#include <stdio.h>

#include "shared/core/core.h"

#define SIM_NODES_MAX   16u
#define SIM_CLIENTS_MAX 4u
#define SIM_THREADS_MAX 64u
#define SIM_PAGES_MAX   1024u
#define SIM_WORDS       4u /* of a page that programs use, one in each segment of it */

/* What happens to nodes and wires at random times, and is over some time later. */
enum sim_trouble {
	SIM_CUT_NODE = 1, /* nothing to or from a node arrives */
	SIM_CUT_WAY = 2,  /* nothing from one node to one other arrives */
	SIM_CUT_PAIR = 4, /* nothing between two nodes arrives */
	SIM_STOP = 8,     /* a master stops, as by SIGSTOP; its programs go on */
	SIM_SLOW = 16,    /* a master takes a while for every input */
	SIM_KILL = 32,    /* a master ends without warning; the next takes its pages over */
	SIM_TROUBLES = 63,
};

struct sim_config {
	uint64_t seed;
	uint32_t nodes;
	uint32_t clients; /* programs per node */
	uint32_t threads; /* per program */
	uint32_t pages;
	uint32_t loss_ppm, duplicate_ppm, reorder_ppm;
	uint64_t delay_ns;   /* of every message, at least */
	uint64_t reorder_ns; /* more for those that are overtaken */
	uint64_t think_ns;   /* mean time between two accesses of a thread */
	uint32_t write_ppm;  /* accesses that store; half of them read first */
	uint32_t pin_ppm;    /* accesses that pin the page for a while */
	uint32_t unmap_ppm;  /* accesses after which some page is not mapped for a while */
	uint32_t pages_hot;  /* most accesses go to this many pages; 0: all alike */
	struct wvm_core_limits limits;
	struct wvm_core_times times;
	FILE *trace; /* a message sequence chart (chart.c), or NULL */

	/* All of these may be 0: none. */
	uint32_t corrupt_ppm; /* datagrams that arrive with other bytes than were sent */
	uint32_t ancient_ppm; /* messages that turn up again after up to ancient_ns */
	uint64_t ancient_ns;
	uint32_t socket_bytes; /* queued for a busy master; more is lost. 0: no bound */
	uint32_t troubles;     /* enum sim_trouble, or'ed: those that happen */
	uint64_t trouble_gap_ns, trouble_ns; /* mean time between two, and of one */
	uint64_t program_gap_ns;             /* mean time that a program stays */
	uint64_t program_away_ns;            /* and until it is there again */
	bool units;                          /* nodes ask for whole units */
	bool placed;                         /* every other unit has a home by PLACE lines */
	uint32_t evict_ppm;   /* inputs of a node after which it gives some page up */
	uint32_t full_ppm;    /* installs that fail: the RAM file has no room */
	uint32_t read_ahead;  /* guesses at what is read next, with every fault */
	uint32_t wander;      /* as in wvm_core_params */
	uint64_t move_gap_ns; /* mean time between two changes of who is home; 0: none */
	uint64_t learn_ns;    /* a quarter of the nodes learns of one by then, the others in 2 ms */
	bool backup;          /* homes have second homes; always so where there are deaths */
	/*
	 * Of the last nodes, which run no programs, so many die for good; one after the other, each
	 * when what the last has left is made anew and copied, unless `deaths_meet`: then at any
	 * time.
	 */
	uint32_t deaths;
	uint64_t death_gap_ns;   /* mean time between two */
	uint64_t death_known_ns; /* and until the others agree that it is gone */
	bool deaths_meet;        /* pages may be LOST then, and are errors */
	bool deaths_joining;     /* each while it joins: nothing is lost then, either */
	bool mortal_only;        /* others have no second homes */
	bool deaths_all;         /* of all nodes, with their programs: likewise */
	/*
	 * So many times the host of one of the first nodes, half of all, is rebooted, and what the
	 * programs there have stored to is gone. They home nothing; the others hear of it by and
	 * by, before the node serves. Pages may be LOST then, and are errors. Not along with
	 * changes of who is home.
	 */
	uint32_t reboots;
	uint64_t reboot_gap_ns; /* mean time between two */
	bool renew;       /* nodes that nobody has anything of come back without their files */
	bool unprotected; /* a broken node: installs leave other programs' stores untrapped */
	uint32_t sweep;   /* steps between two checks of all pages and pools; 0: a few thousand */
	uint64_t trace_from, trace_to; /* steps; trace_to 0: to the end */
	uint32_t trace_page;           /* page + 1: nothing else is traced */
};

struct sim;

/* A configuration that works, with mild disorder. */
void sim_default(struct sim_config *config, uint64_t seed);

/* A configuration that follows from the seed: any size, any disorder. */
void sim_random(struct sim_config *config, uint64_t seed);

/*
 * Where the environment has WVM_SIM_TRACE=SEED[:FROM-TO], runs of that seed that say nothing of a
 * chart are drawn to stdout, at these steps: those of a test, whose configuration is its own.
 */
struct sim *sim_create(const struct sim_config *config);
/* Of the last one that this process has made; 0: none. */
uint64_t sim_last_seed(void);
void sim_destroy(struct sim *sim);

/* Ends the process with a message and status 2 if WVM_SIM_TRACE says something else. */
void sim_trace_check(void);

/* What is drawn of a run that failed: so many steps before. */
#define SIM_TRACE_STEPS 2000u

/* Runs until `accesses` were made or the first failure. Returns the core inputs made. */
uint64_t sim_run(struct sim *sim, uint64_t accesses);

/*
 * Ends all random troubles and lets all threads finish what they wait for,
 * without new accesses, for up to ns of virtual time. Then all is checked.
 */
void sim_settle(struct sim *sim, uint64_t ns);

/*
 * Checks what the programs saw, for linearizability, from their records alone.
 * O(n); the first SIM_HISTORY_MAX accesses are recorded, 40 bytes each.
 */
#define SIM_HISTORY_MAX (1u << 21)
void sim_check_history(struct sim *sim);

/* Cuts or restores all traffic of a node. */
void sim_partition(struct sim *sim, uint32_t node, bool cut);

/* Cuts or restores what one node sends to another. */
void sim_cut(struct sim *sim, uint32_t from, uint32_t to, bool cut);

/* Stops a node's master, or lets it go on. Datagrams for it queue up as far as there is room. */
void sim_stop(struct sim *sim, uint32_t node, bool stop);

struct sim_report {
	const char *failure; /* NULL: none; else one line */
	uint64_t now_ns;
	uint64_t steps;  /* inputs to cores */
	uint64_t joined; /* of those that came before the last one's actions were carried out */
	uint64_t accesses, faults, failed_faults;
	uint64_t messages, lost, doubled, overtaken;
	uint64_t accesses_min, accesses_max; /* of any one thread */
	uint64_t wait_ns_max;                /* the longest that a thread waited for a page */
	uint32_t waiting;                    /* threads that wait now */
	uint64_t corrupted, corrupted_caught, corrupted_hops; /* hops lie outside the checksum */
	uint64_t overflowed;                                  /* lost in full socket buffers */
	uint64_t cuts, stops, slowed;
	uint64_t kills, kills_undone;      /* masters killed; of those within an input */
	uint64_t evicted;                  /* pages given up for lack of memory */
	uint64_t merges;                   /* units that a holder put together again */
	uint64_t left, installs_failed;    /* programs that went; pages that had no room */
	uint64_t unmapped, let_go;         /* mappings given up; threads that waited there */
	uint64_t joins, drains;            /* nodes that became homes, and that ceased to be */
	uint64_t units_moved;              /* units handed over */
	uint64_t renewed;                  /* nodes that came back without their files */
	uint64_t reboots, reboots_dead;    /* of those with all they had; while a dead one's place
					    * was free */
	uint64_t deaths, deaths_between;   /* nodes that died for good; of those during a move */
	uint64_t rebuilt;                  /* units that were made anew then */
	uint64_t lost_pages;               /* that nobody can have any more now */
	uint64_t unmoved, unmoved_between; /* epochs that moved none; of those during a hand-over */
	uint64_t backup_copied, backup_waited; /* pages that second homes got; of those, for
						* write-backs that were acknowledged then */
	uint64_t backup_checked; /* acknowledged pages looked for, and found, at second homes */
	uint64_t sweeps;         /* times that all pages and pools were checked */
	uint64_t history;        /* accesses that sim_check_history() went through */
};
void sim_report(const struct sim *sim, struct sim_report *report);

/*
 * A whole run: at least `steps` inputs, then everything settles and is checked;
 * a thread that still waits is a failure, too. The failure is in text.
 */
#define SIM_TEXT       240
#define SIM_SEED_STEPS 400000u /* of a seed, if nothing else is said */
void sim_exercise(const struct sim_config *config, uint64_t steps, struct sim_report *report,
		  char text[SIM_TEXT]);

/* Adds the figures of another run, failure and waiting apart. */
void sim_report_add(struct sim_report *sum, const struct sim_report *r);

/* Writes what was simulated: some lines of figures. */
void sim_report_print(const struct sim_report *r, FILE *out);

/* The run that is in progress, for an assertion that fails in a core: seed and step. */
void sim_where(uint64_t *seed, uint64_t *step);

const struct wvm_core_stats *sim_stats(const struct sim *sim, uint32_t node);

#endif
