/*
 * Gossip at scale: the objects of shared/core/gossip.h, and of shared/core/epoch.h where an epoch
 * spreads, in as many nodes as memory holds, under virtual time, over a network that loses and
 * delays datagrams. Everything follows from a seed.
 *
 * Hosts are a tree: pods of hosts, zones of pods. The first two hosts of a pod are its gateways
 * (tier 1), the first host of each of the first two pods of a zone the zone's (tier 2). A host has
 * one object for each tier up to its own. One pod alone is a full mesh.
 *
 * A world that does not fit into memory is run in parts, each node of each part real. No message
 * passes between tiers, and none between pods if views of tier 0 hold no more than their pod
 * (room < pod: then there are no others, see gossip.h). So what a pod and the groups above it have
 * in common is what one host carries between its objects: its epoch, and whether it is up, which
 * gateways always are. The parts are
 *
 *	the upper tiers  all objects of tiers 1 and 2, with the pod in which the epoch begins,
 *			 which says when each gateway learns of it there
 *	each other pod   its objects of tier 0, for the same time. Its gateways learn the epoch when
 *			 the upper tiers say so, or in the pod if that is earlier; the deaths that
 *			 are planned at its hosts happen in it
 *
 * and each object is in exactly one of them. Neglected is that a pod tells its second gateway of
 * the epoch, and so the groups above, before these do it themselves: an epoch can only be known
 * later than it would. A part has a seed of its own, so all figures follow from the world's seed,
 * however many processes run parts at a time. In a part ids are those of the whole world.
 *
 * Messages travel as bytes. A host's learner of epochs lives while it pulls a record; before and
 * after, its durable state (which all hosts in one epoch have in common) is all that there is of
 * it, as if the process had started anew. Times are whole milliseconds. One thread, one world or
 * part at a time for each struct scale.
 */
#ifndef WVM_CORE_SCALE_H
#define WVM_CORE_SCALE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shared/core/epoch.h"
#include "shared/core/gossip.h"

#define SCALE_GATEWAYS  2u  /* of a pod, and of a zone */
#define SCALE_DEATHS    64u /* that are watched */
#define SCALE_CURVE     101u
#define SCALE_NEVER     UINT32_MAX
#define SCALE_PROCESSES 64u
#define SCALE_FRAME     28u /* IPv4 and UDP around a datagram */

struct scale_config {
	struct wvm_gossip_config gossip;
	uint32_t pod, pods, zones; /* hosts of a pod, pods of a zone, zones; at least 2, 1, 1 */
	uint32_t room;             /* of each view of tier 0 */
	uint32_t room_up;          /* of the others, at least room; 0: the same */
	uint32_t seeds;            /* members that each knows at first; 0: all of its groups */
	uint32_t loss_ppm;         /* of datagrams */
	uint32_t delay_min_ms, delay_max_ms; /* one way; at least 1 */
	uint64_t seed;
};

enum scale_part_kind {
	SCALE_WHOLE, /* all tiers of all hosts */
	SCALE_UPPER, /* all above tier 0, and tier 0 of that pod */
	SCALE_POD,   /* tier 0 of that pod */
};

struct scale_part {
	enum scale_part_kind kind;
	uint32_t pod; /* of all zones' */
};

struct scale_host {
	uint32_t epoch;
	uint32_t learnt_ms; /* when it came to that */
	uint32_t stall_ms,
		every_ms; /* it stands still for the first stall_ms of every_ms; 0: never */
	struct scale_learner *learner;
	uint16_t boot; /* 0: not in this part */
	uint8_t side;  /* of a split network */
	bool up;
};

struct scale_agent {
	struct wvm_gossip *g; /* NULL: not in this part */
	uint32_t host;
	uint32_t armed_ms; /* its timer; SCALE_NEVER: none */
	uint8_t tier;
};

struct scale_death {
	uint32_t host, at_ms;
	uint32_t first_ms, last_ms; /* from then to a verdict; the last so far */
	uint32_t told, group;       /* of the objects of its groups that live */
};

struct scale_counts {
	uint64_t messages, bytes; /* sent; bytes with the header of each and SCALE_FRAME */
	uint64_t lost;
	uint64_t suspected;  /* notes about hosts that are up */
	uint64_t false_dead; /* likewise */
	uint64_t true_dead;  /* about hosts that are not */
	uint64_t refused;    /* what objects dropped as not for them: NODE, SOURCE */
};

struct scale_event;

struct scale {
	struct scale_config c;
	struct scale_part part;
	uint32_t hosts, agents, now_ms; /* of the whole world */
	struct scale_host *host;        /* of all; what is not in this part is never touched */
	struct scale_agent *agent;
	uint8_t *objects; /* scale_object_bytes() for each agent of this part */
	uint64_t objects_used;
	struct scale_event **slot; /* a ring of milliseconds */
	struct scale_event **slot_end;
	uint64_t random;
	struct scale_counts n;
	struct scale_death death[SCALE_DEATHS];
	uint32_t deaths;
	uint32_t *told_ms; /* from a death to each verdict on it */
	uint32_t told, told_room;
	/* NULL, or called for each note. */
	void (*on_note)(struct scale *s, const struct scale_agent *a,
			const struct wvm_gossip_action *note);
	void *user;
};

/* ours: design.md's numbers. Else memberlist's defaults for a LAN, as far as they have a place. */
void scale_gossip(struct wvm_gossip_config *c, bool ours, uint32_t hosts);

/* Bytes that a world or a part of it will take, without its messages. */
uint64_t scale_bytes(const struct scale_config *c);
uint64_t scale_part_bytes(const struct scale_config *c, const struct scale_part *p);
uint32_t scale_agents(const struct scale_config *c);
/* Of a view in that tier, and the bytes of an object there. */
uint32_t scale_room(const struct scale_config *c, uint32_t tier);
size_t scale_object_bytes(const struct scale_config *c, uint32_t tier);
uint32_t scale_hosts(const struct scale_config *c);
/* The object of a host in a tier, which is not above its top; the ids of its group there. */
uint32_t scale_agent_of(const struct scale_config *c, uint32_t host, uint32_t tier);
void scale_group_of(const struct scale_config *c, uint32_t host, uint32_t tier, uint32_t *first,
		    uint32_t *count);
/* The highest tier of a host. */
uint32_t scale_top(const struct scale_config *c, uint32_t host);
/* Gateways of a pod, of tier 1 or higher: its first hosts. */
uint32_t scale_pod_gateways(const struct scale_config *c);

/* Whether it may be run in parts: a tree whose pods speak with nobody outside. */
bool scale_divisible(const struct scale_config *c);
/* How many hosts have an object in a part, the i-th of them, and whether it has one of that tier.
 */
uint32_t scale_part_hosts(const struct scale_config *c, const struct scale_part *p);
uint32_t scale_part_host(const struct scale_config *c, const struct scale_part *p, uint32_t i);
bool scale_part_has(const struct scale_config *c, const struct scale_part *p, uint32_t host,
		    uint32_t tier);

/* All hosts start within the first period. False: there is no memory. */
bool scale_init(struct scale *s, const struct scale_config *c);
/* kind not WHOLE: c must be divisible. */
bool scale_init_part(struct scale *s, const struct scale_config *c, const struct scale_part *p);
void scale_free(struct scale *s);

void scale_run(struct scale *s, uint32_t until_ms);
/* A host learns of the next epoch, as if it had voted. */
void scale_epoch(struct scale *s, uint32_t host);
/* Its life changes; OFFLINE: it leaves. */
void scale_announce(struct scale *s, uint32_t host, enum wvm_node_state life);
/* It stands still for good. Watched, if there is room. */
void scale_kill(struct scale *s, uint32_t host);
/* With the next boot. */
void scale_start(struct scale *s, uint32_t host);

struct wvm_gossip *scale_object(struct scale *s, uint32_t host, uint32_t tier);
/* What host thinks of another, in the group of a tier; 0: nothing. */
uint8_t scale_opinion(struct scale *s, uint32_t host, uint32_t tier, uint32_t of);
uint32_t scale_below(struct scale *s, uint32_t n);

/* ---- one run, measured (measure.c) ------------------------------------------------------ */

struct scale_spread {
	uint32_t reached, of; /* nodes */
	uint32_t median_ms, p99_ms, max_ms;
	uint32_t *curve_ms; /* SCALE_CURVE points: when n % of those were */
};

struct scale_plan {
	const char *name, *note;
	struct scale_config c;
	uint32_t warm_s, quiet_s,
		after_s;    /* before anything is counted; counted; after the events */
	uint32_t deaths;    /* fewer than hosts that are no gateways */
	uint32_t processes; /* 0: the whole world at once; else so many parts at a time */
};

/* Of a world or a part of it; sums. */
struct scale_figures {
	uint64_t messages, bytes; /* sent in the time that is counted */
	uint64_t suspected;       /* until then */
	uint64_t false_dead;      /* until the end */
	uint32_t agents;
};

struct scale_result {
	struct scale_plan plan;
	uint32_t hosts, agents;
	uint64_t memory;        /* of all that is there at a time */
	double state_bytes;     /* of a host, on average */
	double messages, bytes; /* sent by a host in a second, while nothing happens */
	struct scale_spread epoch;
	struct scale_spread first; /* from a death to the first verdict on it */
	struct scale_spread all;   /* to those of all of its groups */
	double node_hours;
	double suspected;  /* by a node in an hour of quiet: all of them live */
	double false_dead; /* notes that a live node is dead, of all observers, by node and hour */
	double seconds;    /* of real time */
};

/* What a run takes at a time. */
uint64_t scale_plan_bytes(const struct scale_plan *plan);
/* False, with a line on stderr: there is no memory, or a process for parts has failed. */
bool scale_measure(const struct scale_plan *plan, struct scale_result *r);
void scale_result_free(struct scale_result *r);

/* Warms up, and is counted while nothing happens. */
void scale_quiet(struct scale *s, const struct scale_plan *plan, struct scale_figures *f);
/* The figures of all, which ran until end_ms, in a result. */
void scale_sum(struct scale_result *r, const struct scale_figures *f, uint32_t end_ms);
/* ms: of those that were reached; sorted here. False: no memory. */
bool scale_spread(struct scale_spread *s, uint32_t *ms, uint32_t reached, uint32_t of);
/* In parts (parts.c); fills what comes of the run, and says what failed. */
bool scale_measure_parts(const struct scale_plan *plan, struct scale_result *r);

/* ---- output (plot.c, table.c) ----------------------------------------------------------- */

void scale_table(FILE *f, const struct scale_result *r, uint32_t count);
/* -errno. */
int scale_plot(const char *path, const struct scale_result *r, uint32_t count);
int scale_json(const char *path, const struct scale_result *r, uint32_t count);

#endif
