/*
 * What the parts of the core share among themselves: the slots of its pools
 * and the calls between core.c, home.c, request.c and holder.c.
 */
#ifndef WVM_CORE_INT_H
#define WVM_CORE_INT_H

#include "shared/core/ahead.h"
#include "shared/core/assert.h"
#include "shared/core/backup.h"
#include "shared/core/core.h"
#include "shared/core/partial.h"
#include "shared/core/peer.h"
#include "shared/core/renewed.h"

enum wvm_core_timer_kind {
	WVM_TIMER_REQUEST,
	WVM_TIMER_DEMAND,
	WVM_TIMER_TXN,
	WVM_TIMER_MERGE,
	WVM_TIMER_PULL,
	WVM_TIMER_WALK,
	WVM_TIMER_COPY,
	WVM_TIMER_BACKUP,
	WVM_TIMER_REBUILD,
	WVM_TIMER_TELL,
	WVM_TIMER_TELLS,
};

enum wvm_request_state {
	WVM_REQUEST_WINDOW,  /* waits for the peer's window */
	WVM_REQUEST_SENT,    /* the timer is the retry */
	WVM_REQUEST_UNIT,    /* waits a while for the one that asks for the whole unit; not sent */
	WVM_REQUEST_BLOCKED, /* the page's write-back is not acknowledged: a request that overtook
			      * it would tell the home that the grant was never taken */
	WVM_REQUEST_MOVED,   /* its home has changed: sent when the timer says so */
};

/* An own request for a page: one per page at most. */
struct wvm_request {
	struct wvm_core_timer timer; /* first member: see wvm_core_tick() */
	uint64_t id;                 /* 0: not sent yet */
	uint64_t page;
	uint64_t waiters_read; /* clients */
	uint64_t waiters_write;
	uint64_t started_ns; /* the deadline runs from here */
	uint64_t write_ns;   /* when the first came that waits for Modified */
	uint64_t sent_ns;
	uint32_t vm;
	uint32_t member; /* the home's node; dst is the vnode that the slice names */
	uint32_t home_vnode;
	uint32_t next;      /* window queue or free list; slot + 1 */
	uint32_t unit_next; /* while listed: wvm_held_unit.requests; slot + 1 */
	bool listed;
	uint16_t tries;
	uint8_t refusals;
	uint8_t state;  /* enum wvm_request_state */
	uint8_t type;   /* WVM_MSG_MEM_READ or WVM_MSG_MEM_ACQUIRE */
	bool ahead;     /* nobody ever waited for it: read ahead */
	bool pin;       /* somebody waits for WVM_ACT_PINNED */
	bool in_window; /* counted in the peer's in_flight */
	/*
	 * What the home asked of the grant before it came: small messages overtake
	 * pages. It waits for the grant; asked again after the time of a retry,
	 * doubled with the first refusals, the grant is refused.
	 */
	struct wvm_msg early;    /* type 0 (PING): none */
	uint64_t early_until_ns; /* so long the grant may take after it */
};

enum wvm_demand_state {
	WVM_DEMAND_HELD,       /* the page's hold time runs, or it is pinned */
	WVM_DEMAND_WRITE_BACK, /* written back, not acknowledged; the timer is the retry */
};

/* What the home of a held page asked for: one per page at most. Owns the outbox buffer of its
 * index. */
struct wvm_demand {
	struct wvm_core_timer timer;
	uint64_t page;
	uint64_t txn;   /* of the home; echoed */
	uint64_t grant; /* names the copy that is meant, with version */
	uint64_t version;
	uint32_t vm;
	uint32_t member; /* the home's node, and the vnode that asked */
	uint32_t home_vnode;
	uint32_t next;  /* free list; slot + 1 */
	uint16_t steer; /* of the answer */
	uint16_t tries;
	uint8_t type;  /* the home's message */
	uint8_t state; /* enum wvm_demand_state */
	bool keep;     /* written back keeping a Shared copy: the RAM file has the bytes */
	bool used;     /* not in the free list */
	bool parked;   /* waits for wvm_core_unpin() */
};

/* A request at its home. 40 bytes. */
struct wvm_asked {
	uint64_t id;
	uint64_t version; /* that the requester holds, with HELD */
	uint32_t member;
	uint32_t vnode; /* of the requester, as in its src */
	uint32_t next;  /* queue or free list; slot + 1 */
	uint16_t reply_steer;
	uint8_t type;
	uint8_t flags;
};

static inline struct wvm_asked wvm_asked_by(uint32_t member, const struct wvm_msg *msg)
{
	return (struct wvm_asked){.id = msg->request,
				  .version = msg->version,
				  .member = member,
				  .vnode = msg->src,
				  .reply_steer = msg->reply_steer,
				  .type = msg->type,
				  .flags = msg->flags};
}

enum wvm_txn_state {
	WVM_TXN_INVALIDATE, /* until no holder but the requester is left */
	WVM_TXN_DOWNGRADE,  /* until the owner has written back */
	WVM_TXN_FETCH,
	WVM_TXN_DRAIN, /* done; more requests were queued than one step may answer */
};

/* A transaction at a home: one per page at most. */
struct wvm_txn {
	struct wvm_core_timer timer;
	struct wvm_asked asked;
	uint64_t id;
	uint64_t page;
	uint64_t started_ns;
	uint32_t vm;
	uint32_t cursor;     /* next holder to send INVALIDATE to in this round */
	uint32_t queue_head; /* requests that came later, oldest first; slot + 1 */
	uint32_t queue_tail;
	uint32_t next; /* free list; slot + 1 */
	uint16_t tries;
	uint8_t state; /* enum wvm_txn_state */
};

/* A unit that is to be put together again: merge.c. */
struct wvm_merge {
	struct wvm_core_timer timer;
	uint64_t first; /* page */
	uint32_t vm;
	uint16_t tries;
	uint8_t attempts; /* times that it was looked at */
	bool used;
};
#define WVM_MERGES 32u

/* Pages that were filled with zeros one after the other. 24 bytes. */
struct wvm_fill {
	uint64_t first; /* page */
	uint64_t next;  /* page after the last one */
	uint32_t vm;
	uint32_t count; /* filled at once, the last time */
};
#define WVM_FILLS 8u

/* A unit that is being handed over: at the new home, but for the last. */
enum wvm_moved_phase {
	WVM_MOVED_UNKNOWN = 0,
	WVM_MOVED_COMING, /* its own entry is here; pages below `next`, and those that have one */
	WVM_MOVED_CAME,   /* all is here */
	WVM_MOVED_DONE,   /* and the former home knows */
	/* At the former home: */
	WVM_MOVED_ASKED,   /* something of it was asked for */
	WVM_MOVED_GIVEN,   /* it may forget */
	WVM_MOVED_NOTHING, /* it began without files, and says so to whoever asks */
	/* At the new home again: */
	WVM_MOVED_TELLING, /* its home died, and others tell what they hold: rebuild.c */
};

#define WVM_SHIP_HOLDERS 32u
#define WVM_SHIP_BYTES   (56u + 12u * WVM_SHIP_HOLDERS)

/* What a former home says of a unit and one page of it. */
struct wvm_shipped {
	struct wvm_home_unit unit;
	uint64_t version, granted; /* version 0: there is no entry */
	uint16_t total, first, count;
	uint8_t state, flags;
	uint64_t grant[WVM_SHIP_HOLDERS];
	uint32_t member[WVM_SHIP_HOLDERS];
};

enum wvm_pull_state {
	WVM_PULL_FREE,
	WVM_PULL_PAGE, /* this page: somebody waits for it */
	WVM_PULL_WALK, /* the next page of the unit that has an entry */
	WVM_PULL_DONE, /* all of it is here: the former home may forget it */
};

/* One question to a former home. */
struct wvm_pull {
	struct wvm_core_timer timer;
	uint64_t id;
	uint64_t page; /* or the first that it may be */
	uint64_t data; /* the page whose bytes have come + 1, or 0 */
	uint64_t asked_ns;
	uint64_t started_ns;
	uint64_t found;                          /* the page that `entry` is about + 1, or 0 */
	uint32_t vm, member;                     /* who is asked */
	uint32_t queue_head, queue_tail, queued; /* requests for it; slot + 1 */
	uint16_t tries;
	uint8_t state;   /* enum wvm_pull_state */
	uint8_t unheard; /* of the walk: times that it was asked since the last answer */
	bool silent;     /* of the walk: the one that goes on asking a home that is silent */
	struct wvm_shipped entry;
};
#define WVM_PULLS        64u
#define WVM_PULLS_WALK   16u /* the first of them, for what nobody waits for */
#define WVM_PULLS_PAGE   (WVM_PULLS - WVM_PULLS_WALK)
#define WVM_PULL_UNHEARD 3u    /* questions without an answer: the former home is silent */
#define WVM_PULL_QUEUE   64u   /* requests that wait for one page; then dropped (retry) */
#define WVM_WALK_BATCH   4096u /* units looked at in one step */

/* A unit of which a new home is being told what is held here. */
struct wvm_tell {
	struct wvm_core_timer timer;
	uint64_t id;
	uint64_t page, end; /* what the message is about: pages from `page` on, below `end` */
	uint64_t asked_ns;
	uint32_t vm, member;
	uint16_t tries;
	bool used;
};
#define WVM_TELLS         16u
#define WVM_HOLDING_PAGES 18u
#define WVM_HOLDING_PAGE  20u /* bytes */
#define WVM_HOLDING_BYTES (8u * WVM_UNIT_WORDS + WVM_HOLDING_PAGE * WVM_HOLDING_PAGES)

/* What is held of one page; at a holder, and as it tells it. */
enum wvm_holding_kind {
	WVM_HOLDING_SHARED = 1,
	WVM_HOLDING_MODIFIED,
	WVM_HOLDING_WRITTEN,      /* written back, and not acknowledged; nothing is kept */
	WVM_HOLDING_WRITTEN_KEPT, /* a Shared copy is */
	WVM_HOLDING_KINDS,
};

struct wvm_holding {
	uint64_t version, grant;
	uint16_t index; /* of the page in its unit */
	uint8_t kind;   /* enum wvm_holding_kind */
};

struct wvm_core {
	struct wvm_core_params params;
	struct wvm_core_stats stats;
	struct wvm_core_vm vms[WVM_CORE_VMS_MAX];
	uint32_t vm_count;
	bool serving;
	bool adopting;    /* the holder's part of a former life is not taken over yet */
	uint64_t counter; /* of the last id given out */
	uint64_t random;  /* xorshift64* */
	uint64_t now_ns;  /* of the present input */
	struct wvm_core_timers timers;
	struct wvm_partials partials;
	struct wvm_peer *peers; /* members */
	uint32_t peers_gone;
	struct wvm_seen *seen; /* members × peer_shards */
	struct wvm_durable *durable;
	uint64_t *taken;       /* durable: members; grants taken from each home */
	struct wvm_kept *kept; /* durable: what demands[i] has written back */
	struct wvm_request *requests;
	struct wvm_demand *demands;
	struct wvm_txn *txns;
	struct wvm_asked *waiting;
	struct wvm_holder_block *blocks; /* durable */
	struct wvm_seconds *seconds;     /* durable; NULL: no backups */
	struct wvm_backup *backup;       /* NULL: none */
	uint16_t *renewed;    /* durable: of each member the first life that may hold anything */
	uint64_t renewed_sum; /* of all of that */
	uint32_t renewed_next;
	uint64_t *block_used; /* a bit each, while adopting */
	uint32_t free_request, free_demand, free_txn, free_waiting, free_block; /* slot + 1 */
	uint32_t requests_free, demands_free, demands_parked;                   /* how many */
	struct wvm_fill fills[WVM_FILLS]; /* the last runs of local zero-fill */
	uint32_t fill_next, fill_most;
	struct wvm_merge merges[WVM_MERGES];
	struct wvm_ahead ahead;
	struct wvm_pull pulls[WVM_PULLS];
	struct wvm_core_timer walk;
	uint32_t pulls_page, pulls_silent; /* how many */
	uint64_t walk_unit;
	uint32_t walk_vm;
	bool walk_began;     /* something, since the first unit */
	uint32_t walk_waits; /* of those that write-backs wait for: see wvm_backup_waits() */
	uint32_t epoch_seen;
	struct wvm_handover_left left;
	uint8_t ship[WVM_SHIP_BYTES];
	struct wvm_tell tells[WVM_TELLS];
	struct wvm_core_timer tell; /* of the walk over what is held */
	uint64_t tell_unit;
	uint32_t tell_vm;
	uint32_t tells_used;
	bool telling, told; /* the walk is not at its end; all is told, and answered */
	uint8_t holding[WVM_HOLDING_BYTES];
	struct wvm_core_timer rebuild; /* members are asked, then units are settled */
	uint64_t rebuild_unit;
	uint32_t rebuild_vm;
	uint32_t untold;     /* members that have not told all */
	uint32_t ask_member; /* the next one that is asked, of this round */
	uint16_t rounds;
	struct wvm_action *actions; /* ring of WVM_ACTIONS */
	uint32_t action_head, action_tail;
};

/*
 * Room for the actions of one input, its messages to this node included. A
 * tick handles one timer (at most 64 INVALIDATEs), a message at most
 * WVM_TXN_BATCH queued requests.
 */
#define WVM_ACTIONS   1024u
#define WVM_TXN_BATCH 64u

/* core.c */
struct wvm_action *wvm_core_emit(struct wvm_core *core, enum wvm_action_kind kind, uint32_t vm,
				 uint64_t page);
struct wvm_action *wvm_core_send(struct wvm_core *core, uint8_t type, uint32_t vm, uint64_t page,
				 uint32_t member, uint32_t vnode);
uint64_t wvm_core_next_id(struct wvm_core *core);
bool wvm_core_id_old(const struct wvm_core *core, uint64_t id);
uint64_t wvm_core_jitter(struct wvm_core *core, uint64_t ns);
uint64_t wvm_core_backoff(struct wvm_core *core, uint32_t member, unsigned int tries);

static inline struct wvm_home_page *wvm_home_of(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return &core->vms[vm].home[page];
}

static inline struct wvm_held_page *wvm_held_of(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	return &core->vms[vm].held[page];
}

static inline uint16_t wvm_holder_steer(uint64_t page)
{
	return (uint16_t)(page >> (WVM_RANGE_SHIFT - WVM_PAGE_SHIFT));
}

static inline void wvm_note_home(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	wvm_undo_note(core, WVM_UNDO_HOME, vm, page);
}

static inline void wvm_note_held(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	wvm_undo_note(core, WVM_UNDO_HELD, vm, page);
}

static inline uint64_t wvm_unit_index(uint64_t page)
{
	return page >> (WVM_UNIT_SHIFT - WVM_PAGE_SHIFT);
}

/* The unit's first page; and behind its last one, where the VM may end before the unit. */
static inline uint64_t wvm_unit_first(uint64_t page)
{
	return page - page % WVM_UNIT_PAGES;
}

static inline uint64_t wvm_unit_end(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	uint64_t end = wvm_unit_first(page) + WVM_UNIT_PAGES, pages = core->vms[vm].pages;

	return end < pages ? end : pages;
}

static inline struct wvm_home_unit *wvm_home_unit_of(struct wvm_core *core, uint32_t vm,
						     uint64_t page)
{
	return &core->vms[vm].units[wvm_unit_index(page)];
}

/* Before a page of the unit gets one. Not undone: without any it does no harm. */
static inline void wvm_home_unit_has_entries(struct wvm_core *core, uint32_t vm, uint64_t page)
{
	wvm_home_unit_of(core, vm, page)->entries = 1;
}

static inline struct wvm_held_unit *wvm_held_unit_of(const struct wvm_core *core, uint32_t vm,
						     uint64_t page)
{
	return &core->vms[vm].held_units[wvm_unit_index(page)];
}

/* Whether pages without an entry are LOST, unless they are of a grant of the whole. */
static inline bool wvm_unit_rest_lost(const struct wvm_home_unit *u)
{
	return u->lost & WVM_UNIT_REBUILT && u->lost & (WVM_UNIT_UNKNOWN | WVM_UNIT_STOLEN);
}

/* Whether what was granted by that id was granted to a life that is gone with its files. */
static inline bool wvm_renewed_before(const struct wvm_core *core, uint32_t member, uint64_t id)
{
	return wvm_request_boot(id) < core->renewed[member];
}

static inline bool wvm_unit_mine(const struct wvm_held_unit *u, uint64_t page)
{
	return u->mine[page % WVM_UNIT_PAGES / 64] >> page % 64 & 1;
}

/* unit.c: units held whole */
bool wvm_unit_room(const struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_unit_begin(struct wvm_core *core, struct wvm_request *r);
bool wvm_unit_waits(const struct wvm_core *core, const struct wvm_request *r);
bool wvm_unit_asks(const struct wvm_core *core, const struct wvm_request *r);
void wvm_unit_forget(struct wvm_core *core, struct wvm_request *r);
void wvm_unit_touched(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_unit_give_up(struct wvm_core *core, const struct wvm_request *r);
void wvm_unit_take(struct wvm_core *core, struct wvm_request *r, const struct wvm_msg *msg);
void wvm_unit_fill(struct wvm_core *core, uint32_t vm, uint64_t page, uint64_t waiters);
void wvm_unit_split(struct wvm_core *core, uint32_t vm, uint64_t page);
struct wvm_request *wvm_unit_asked(struct wvm_core *core, uint32_t vm, uint64_t page, uint64_t id);

/* request.c */
void wvm_request_submit(struct wvm_core *core, struct wvm_request *r);
void wvm_request_finish(struct wvm_core *core, struct wvm_request *r);
void wvm_request_latency(struct wvm_core *core, const struct wvm_request *r);
bool wvm_request_early(struct wvm_core *core, struct wvm_request *r, const struct wvm_msg *msg);
bool wvm_request_fault(struct wvm_core *core, uint32_t vm, uint64_t page, bool write,
		       uint64_t waiters, bool pin);
void wvm_request_ahead(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_request_renew(struct wvm_core *core, struct wvm_request *r);
void wvm_request_unblock(struct wvm_core *core, uint32_t slot);
void wvm_request_timer(struct wvm_core *core, struct wvm_request *r);
enum wvm_drop wvm_request_grant(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg, const uint8_t *data);

/* ahead.c: asks for the page unless it is there or on its way. False: no room for guesses. */
bool wvm_ahead_page(struct wvm_core *core, uint32_t vm, uint64_t page);

/* holder.c */
enum wvm_drop wvm_holder_demand(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg);
enum wvm_drop wvm_holder_acknowledged(struct wvm_core *core, uint32_t vm, uint64_t page,
				      uint32_t member, const struct wvm_msg *msg);
void wvm_holder_timer(struct wvm_core *core, struct wvm_demand *d);
void wvm_holder_saved(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_holder_set(struct wvm_core *core, uint32_t vm, uint64_t page, enum wvm_held_state state);
void wvm_holder_drop_shared(struct wvm_core *core, uint32_t vm, uint64_t page);
bool wvm_holder_leave(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_holder_superseded(struct wvm_core *core, uint32_t vm, uint64_t page);

/* unit.c: units granted whole */
bool wvm_unit_grant(struct wvm_core *core, uint32_t vm, uint64_t page, const struct wvm_asked *q);
void wvm_unit_track(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_unit_written(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
		      const struct wvm_msg *msg);
bool wvm_unit_owns(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_unit_refused(struct wvm_core *core, uint32_t vm, uint64_t page);

/* merge.c: a unit of which one node has all pages becomes one grant again */
void wvm_merge_look(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_merge_timer(struct wvm_core *core, struct wvm_merge *m);
enum wvm_drop wvm_merge_answer(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			       const struct wvm_msg *msg);
/* Before a demand is looked at: it may be the first to tell that the merge was granted. */
void wvm_merge_demanded(struct wvm_core *core, uint32_t vm, uint64_t page,
			const struct wvm_msg *msg);
void wvm_merge_adopt(struct wvm_core *core, uint32_t vm, uint64_t unit);
void wvm_merge_adopted(struct wvm_core *core, uint64_t now_ns);
/* Whether the home has granted the merge that member asks for: it will take it, whatever comes. */
static inline bool wvm_merge_granted(const struct wvm_home_unit *home,
				     const struct wvm_held_unit *held, uint32_t member)
{
	return home->granted && home->owner == member && held->merging &&
	       home->grant == held->merging;
}
/* Whether a WVM_ACT_FORGET is still to be carried out. */
bool wvm_merge_forgotten(const struct wvm_core *core, const struct wvm_action *a);
bool wvm_merge_outdated(const struct wvm_home_unit *u, const struct wvm_home_page *e);
/* Before a page's entry is looked at: one of before the merge is made zeros. */
void wvm_merge_renew(struct wvm_core *core, uint32_t vm, uint64_t page);
/* Whether a home has to look at all entries for a message that asks it to merge. */
bool wvm_merge_looks(const struct wvm_core *core, uint32_t vm, uint64_t page,
		     const struct wvm_msg *msg);
enum wvm_drop wvm_merge_request(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg);

/* home.c */
uint64_t wvm_home_version(struct wvm_core *core, uint32_t vm, uint64_t page);
struct wvm_action *wvm_home_reply(struct wvm_core *core, uint32_t vm, uint64_t page,
				  const struct wvm_asked *q);
enum wvm_drop wvm_home_request(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			       const struct wvm_msg *msg);
enum wvm_drop wvm_home_invalidated(struct wvm_core *core, uint32_t vm, uint64_t page,
				   uint32_t member, const struct wvm_msg *msg);
enum wvm_drop wvm_home_refused(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			       const struct wvm_msg *msg);
bool wvm_home_wants(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
		    const struct wvm_msg *msg);
enum wvm_drop wvm_home_write_back(struct wvm_core *core, uint32_t vm, uint64_t page,
				  uint32_t member, const struct wvm_msg *msg, const uint8_t *data);
void wvm_home_timer(struct wvm_core *core, struct wvm_txn *t);

/* What the owner is to be told of it. */
void wvm_home_acknowledge(struct wvm_core *core, uint32_t vm, uint64_t page,
			  const struct wvm_written *w);
/* Whether the page has an entry that counts: not one of before its unit was merged. */
static inline bool wvm_home_tracks(const struct wvm_core *core, uint32_t vm, uint64_t page)
{
	const struct wvm_home_page *e = &core->vms[vm].home[page];

	return e->version && !(e->flags & WVM_HOME_BACKUP) &&
	       !wvm_merge_outdated(&core->vms[vm].units[wvm_unit_index(page)], e);
}

/* shipped.c: out has WVM_SHIP_BYTES. Returns the bytes. */
uint32_t wvm_shipped_encode(uint8_t *out, const struct wvm_shipped *s);
/* False: no home says so. */
bool wvm_shipped_decode(const struct wvm_core *core, const uint8_t *at, uint32_t len,
			struct wvm_shipped *s);

/* handover.c */
bool wvm_handover_ready(const struct wvm_core *core, uint32_t vm, uint64_t page,
			const struct wvm_msg *msg);
enum wvm_drop wvm_handover_want(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
				const struct wvm_msg *msg);
enum wvm_drop wvm_handover_message(struct wvm_core *core, uint32_t vm, uint64_t page,
				   uint32_t member, const struct wvm_msg *msg, const uint8_t *data);
bool wvm_handover_wants(const struct wvm_core *core, const struct wvm_msg *msg);
void wvm_handover_timer(struct wvm_core *core, struct wvm_pull *p);
void wvm_handover_walk(struct wvm_core *core);
void wvm_handover_add_vm(struct wvm_core *core, uint32_t vm);
void wvm_handover_without_files(struct wvm_core *core, uint32_t vm);
void wvm_handover_begin(struct wvm_core *core);
bool wvm_handover_adopt(struct wvm_core *core, uint32_t vm, uint64_t page);
/* Whether the page's home is another one than before the present epoch's table. */
bool wvm_handover_moved(const struct wvm_core *core, uint32_t vm, uint64_t page);

/* rebuild.c */
/* Whether the page is of those that are made anew, wherever its home is. */
bool wvm_rebuild_of(const struct wvm_core *core, uint32_t vm, uint64_t page);
/* And this is its home. */
bool wvm_rebuild_here(const struct wvm_core *core, uint32_t vm, uint64_t page);
/* A message to the home of a page: NONE: it may be carried out, as far as this is concerned. */
enum wvm_drop wvm_rebuild_ready(struct wvm_core *core, uint32_t vm, uint64_t page,
				const struct wvm_msg *msg);
enum wvm_drop wvm_rebuild_holding(struct wvm_core *core, uint32_t vm, uint64_t page,
				  uint32_t member, const struct wvm_msg *msg, const uint8_t *data);
enum wvm_drop wvm_rebuild_done(struct wvm_core *core, uint32_t member, const struct wvm_msg *msg);
void wvm_rebuild_timer(struct wvm_core *core);
void wvm_rebuild_begin(struct wvm_core *core);
/* Takes over who is dead by params.lost. */
void wvm_rebuild_lost(struct wvm_core *core);
/* The bytes of an UNSTORED page come from who has them. */
bool wvm_rebuild_awaits(const struct wvm_home_page *e, uint32_t member, const struct wvm_msg *msg);
void wvm_rebuild_stored(struct wvm_core *core, uint32_t vm, uint64_t page);
/* The member has lost bytes that may be waited for. Whether the page is LOST by that; telling: it
 * is when all have told. Final. */
bool wvm_rebuild_in_vain(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			 bool telling);

/* rebuild_tell.c */
void wvm_tell_begin(struct wvm_core *core);
void wvm_tell_walk(struct wvm_core *core);
void wvm_tell_timer(struct wvm_core *core, struct wvm_tell *t);
enum wvm_drop wvm_tell_answer(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			      const struct wvm_msg *msg);
enum wvm_drop wvm_tell_done(struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t member,
			    const struct wvm_msg *msg);
/* False: no holder says so. `mine` may be NULL. */
bool wvm_holding_decode(const uint8_t *at, uint32_t len, bool unit, uint64_t *mine,
			struct wvm_holding *list, uint32_t *count);

/* The parts of a change of epoch. */
void wvm_request_rehome(struct wvm_core *core);
/*
 * The member has lost its files. A grant of its earlier life that is still on its way would be of
 * a page of which its next life, as a home, knows nothing.
 */
void wvm_request_renewed(struct wvm_core *core, uint32_t member);
void wvm_holder_rehome(struct wvm_core *core);
void wvm_merge_rehome(struct wvm_core *core);
void wvm_home_rehome(struct wvm_core *core);
/* The queue of requests that waits, and a free slot of it: see home.c. */
uint32_t wvm_home_take_waiting(struct wvm_core *core, const struct wvm_asked *q);
void wvm_home_drop_waiting(struct wvm_core *core, uint32_t slot);
enum wvm_drop wvm_home_asked(struct wvm_core *core, uint32_t vm, uint64_t page,
			     const struct wvm_asked *q);

/* holders.c: the records of who holds a page */
struct wvm_holder {
	uint64_t *grant;
	uint32_t *member;
};
struct wvm_holder wvm_holders_at(struct wvm_core *core, struct wvm_home_page *e, uint32_t index);
uint32_t wvm_holders_find(struct wvm_core *core, struct wvm_home_page *e, uint32_t member);
bool wvm_holders_add(struct wvm_core *core, struct wvm_home_page *e, uint32_t member,
		     uint64_t grant);
void wvm_holders_set(struct wvm_core *core, struct wvm_home_page *e, uint32_t index,
		     uint64_t grant);
void wvm_holders_remove(struct wvm_core *core, struct wvm_home_page *e, uint32_t index);
void wvm_holders_clear(struct wvm_core *core, struct wvm_home_page *e);

#endif
