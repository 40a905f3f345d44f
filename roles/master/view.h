/*
 * The view (shared/view.h) in a master: the tables of slices that follow from it, the epochs that
 * the shards' cores are given, and the records that this node wishes for. On shard 0, but where
 * said otherwise.
 *
 *	record decided -> view.<phys_id> and ballots stored -> learnt: in force
 *	   -> <prefix>.state knows the epoch -> each shard's core, when its actions are done
 *	-> every shard counts nothing to move -> gossip says so (busy no more)
 *	-> all that take part say so: the member that was on its way (or, where nobody is any
 *	   more, the first home) wishes for the record that completes it
 */
#ifndef WVM_MASTER_VIEW_H
#define WVM_MASTER_VIEW_H

#include <pthread.h>
#include <stdbool.h>

#include "ring/wheel.h"
#include "shared/core/core.h"
#include "shared/replace_file.h"
#include "shared/view.h"

struct wvm_node;
struct wvm_node_shard;
struct wvm_core;
struct wvm_core_params;

#define WVM_FIRST_EPOCH 1u /* the topology */

/* What a core goes by in one epoch. seconds: of no meaning where there are no second homes. */
struct wvm_node_tables {
	struct wvm_slices slices, seconds;
};

struct wvm_node_view {
	struct wvm_node *node;
	struct wvm_view now;  /* in force */
	struct wvm_view next; /* with the record that is being stored; else as now */
	/* What shards copy, since they may lag behind by any number of moves; under the lock. */
	pthread_mutex_t lock;
	uint32_t epoch;                    /* of what follows; atomic */
	uint32_t moved;                    /* as now.moved */
	struct wvm_node_tables is, before; /* as now's */
	struct wvm_core_lost lost;         /* of the move under way; epoch 0: nobody died in it */
	uint8_t *lost_member;              /* its list, by member */
	/* Members that lend memory only may be lost: their slices have second homes. By member. */
	uint8_t *mortal;
	bool backups;   /* there is one */
	uint8_t *homes; /* scratch, by member */
	uint8_t *gone;  /* by member, atomic: enum wvm_node_gone */
	struct wvm_slices_scratch scratch;
	struct wvm_timer deaths; /* deaths.c: while somebody is dead who can be taken out */
	struct wvm_timer timer;  /* while there is a move, and so long as shards lag */
	bool busy;               /* as gossip was told */
	bool retired;            /* this node was taken out, and ends */
};

/* What cores are told of a member. */
enum wvm_node_gone {
	WVM_NODE_STAYS,
	WVM_NODE_GONE, /* it takes no part, and has nothing of anybody */
	WVM_NODE_DEAD, /* likewise, and what it homed is being made anew */
};

/* What one shard's core has, and is to be given. Its thread's; what is atomic is read by shard 0.
 */
struct wvm_node_epoch {
	uint32_t epoch;                    /* the latest seen in the view, with what follows */
	uint32_t moving;                   /* the move under way there, or 0 */
	struct wvm_node_tables is, before; /* there */
	struct wvm_core_lost lost;         /* there */
	/* The core's: in force, before the move that it is in or had last, and a free one. */
	struct wvm_node_tables tables[3];
	uint32_t table, base; /* in force; before that move, the same where there was none */
	/* Its list of the dead, and a free one, with their lists by member. */
	struct wvm_core_lost losts[2];
	uint8_t *lost_member[3]; /* of losts, and of lost; one block */
	uint32_t lost_at;
	uint32_t moved; /* the epoch in which the core took that move; 0: it began with it */
	bool told;      /* that it cannot be taken yet */
	struct wvm_timer timer;
	uint16_t *renewed; /* by member, atomic: the boot of it that the core knows began empty */
	uint32_t taken;    /* atomic: the epoch that it is in */
	uint32_t settled;  /* atomic: the same where it counts nothing to move; else 0 */
};

/*
 * Reads the file in the state directory. After the members are known.
 * 0, or -errno with one line in err.
 */
int wvm_node_view_open(struct wvm_node *node, char *err, size_t err_len);
void wvm_node_view_close(struct wvm_node *node);
/* The file as it stands fits what the node has voted (voted: the epoch of its ballots). */
int wvm_node_view_check(const struct wvm_node *node, uint32_t voted, char *err, size_t err_len);

/* Replaces the file; the saver's thread. 0 or -errno. */
int wvm_node_view_store(const struct wvm_node *node, const struct wvm_view *v);
void wvm_node_view_path(const struct wvm_node *node, char path[WVM_REPLACE_PATH]);
/* The record of epoch 1, which all nodes make of their topology. 0 or -ENOMEM. */
int wvm_node_first_record(const struct wvm_node *node, struct wvm_epoch_record *first);

/* Epoch and tables of a core that begins. */
void wvm_node_view_params(const struct wvm_node *node, struct wvm_core_params *p);
/* The same tables as the shard's own, which its core may keep. Before it runs. 0 or -ENOMEM. */
int wvm_node_view_own(struct wvm_node_shard *s, struct wvm_core_params *p);
/* The view in force is what shards are to take. */
void wvm_node_view_publish(struct wvm_node *node);
void wvm_node_view_disown(struct wvm_node_shard *s);
/* The table in force. On shard 0. */
const struct wvm_slices *wvm_node_slices(const struct wvm_node *node);
/* One byte per member: whom a node that begins has to ask. The caller's, members.count bytes. */
void wvm_node_view_asked(const struct wvm_node *node, uint8_t *asked);

/* What is about to be stored: `next` has the record of d now; false: it had it before. */
bool wvm_node_view_next(struct wvm_node *node, const struct wvm_epoch_durable *d);
/* The record is decided and stored: shards get it. */
void wvm_node_view_learnt(struct wvm_node *node, const struct wvm_epoch_record *record);
/* Shards run: what the former life left undone goes on. */
void wvm_node_view_begin(struct wvm_node *node);

/*
 * deaths.c, on shard 0: somebody is dead, as gossip has it. Of those that lend memory only this
 * node, or another one, wishes for the record that takes it out.
 */
void wvm_node_deaths_look(struct wvm_node *node);
/*
 * What to do about this node, others of which have memory of a life whose files are gone: who lends
 * memory only is replaced, once it has been away for long enough to be called dead.
 */
const char *wvm_node_refused_do(const struct wvm_node *node);

/*
 * A life of a member asks what others have of its earlier ones (REPORT), which are gone. Whether
 * all shards' cores know; if not, they are told, and it is to ask again. On shard 0.
 */
bool wvm_node_view_renewed(struct wvm_node *node, uint32_t member, uint16_t boot);

/* A shard's turn: takes what it was given, as soon as it can. On that shard. */
void wvm_node_view_turn(struct wvm_node_shard *s);

/* Notes it for the shards, when the view has changed. */
void wvm_node_view_note_gone(const struct wvm_node *node);
/* Whether from that record on a member is not asked any more what it took: OFFLINE, LOST. */
bool wvm_node_view_ends(const struct wvm_epoch_record *record);
/* Of an adopted life: what it had not heard of, since the view was stored. Before shards run. */
void wvm_node_view_left(const struct wvm_node *node);
/* Tells a core which members have nothing of anybody; its shard's thread, or before that runs. */
void wvm_node_view_gone(const struct wvm_node *node, struct wvm_core *core);

/* Whether this node itself was taken out as dead: what it has of a former life is void. */
bool wvm_node_view_lost(const struct wvm_node *node);
/* Whether a member that dies is taken out, and loses nothing. */
bool wvm_node_view_mortal(const struct wvm_node *node, uint32_t member);

/* Whether programs may come that were not here before. */
bool wvm_node_view_admits(const struct wvm_node *node);

/* The first member from `from` on that takes part and is not done with the move; or members.count.
 */
uint32_t wvm_node_view_unsettled(const struct wvm_node *node, uint32_t from);
/* One member's state in the view, or NULL where the view does not know it. */
const char *wvm_node_view_state(const struct wvm_node *node, uint32_t member);

#endif
