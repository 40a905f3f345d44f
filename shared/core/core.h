/*
 * The protocol core: one shard's share of the home, holder and request state
 * machines. It does no I/O: no sockets, clock, allocation, locks, globals.
 *
 *	inputs   a decoded message, a local fault, a pin, a tick with the time
 *	outputs  actions in a bounded queue, which the driver takes and carries out in order
 *
 * The same objects are linked into daemons, simulator, fuzzers, explorer and
 * kernel module. One thread at a time uses a core. Rules and the reason for
 * each: shared/PROTOCOL.md.
 *
 * Home, per page                          Holder, per page
 *
 *         READ          ACQUIRE                  fault, READ sent     grant
 *   HOME ------> SHARED ------+               I ---------------> I* --------> S
 *    ^ |            |         |               |                               |
 *    | | ACQUIRE    | INVALIDATE all,         | fault, ACQUIRE sent           | fault,
 *    | |            | wait for every ack      v            grant   ACQUIRE    v
 *    | +---> MODIFIED <-------+               I* ---------> M <----------- S*
 *    |        |   | DOWNGRADE / WRITE_BACK        DOWNGRADE: protect, write back, S until ack
 *    +--------+   +-----> SHARED                  FETCH: protect, save, punch, write back, I
 *      FETCH / WRITE_BACK                         INVALIDATE: protect, punch, ack, I
 */
#ifndef WVM_CORE_H
#define WVM_CORE_H

#include "shared/core/ahead.h"
#include "shared/core/durable.h"
#include "shared/core/layout.h"
#include "shared/core/msg.h"
#include "shared/core/slices.h"
#include "shared/core/timers.h"

#define WVM_CLIENTS_MAX    64u /* programs per node: one bit each in a waiter mask */
#define WVM_EPOCH_AHEAD    16u /* epochs beyond the own one that a message is believed */
#define WVM_CORE_VMS_MAX   64u
#define WVM_HOLDERS_INLINE 3u
#define WVM_NIL            UINT32_MAX

/* ---- what is kept per page ------------------------------------------------------------- */

enum wvm_home_state {
	WVM_HOME_HOME = 0, /* only the stored copy; zero-filled memory is this state */
	WVM_HOME_SHARED,   /* the stored copy and `holders` equal ones */
	WVM_HOME_MODIFIED, /* holder 0 is the owner; the stored copy is older, but kept */
};

enum wvm_home_flag {
	WVM_HOME_WRITTEN = 1, /* the store holds bytes; without it the page is all zeros */
	WVM_HOME_LOST = 2,    /* its last copy died with its owner: an error from then on */
	WVM_HOME_ASKED = 4,   /* Modified, and its owner was asked for it: it may have left by now,
			       * whatever became of the transaction */
	WVM_HOME_BACKUP = 8,  /* at the second home: no directory entry, but a copy (backup.h) */
	WVM_HOME_UNSTORED = 16, /* the bytes of `version` are not stored (rebuild.c) */
};

/*
 * The directory entry. 64 bytes, written by the home's shard only. An entry
 * never touched is all zeros, so the array can be a sparse file. Every holder
 * is kept with the request id of its grant, since whatever the home asks of a
 * holder later names that grant; that is why holders beyond the inline ones
 * are lists of blocks and not a bitmap.
 */
struct wvm_home_page {
	uint64_t version; /* of the stored copy; 0: never asked for */
	uint64_t granted; /* Modified: the version that the owner was granted; UNSTORED and not
			   * Modified: the member that is writing them back + 1, or 0 */
	uint64_t grant[WVM_HOLDERS_INLINE];
	uint32_t member[WVM_HOLDERS_INLINE];
	uint32_t more;    /* first wvm_holder_block + 1, or 0 */
	uint32_t txn;     /* transaction in flight + 1, or 0 */
	uint16_t holders; /* records, inline and beyond */
	uint8_t state;    /* enum wvm_home_state */
	uint8_t flags;    /* enum wvm_home_flag */
};
_Static_assert(sizeof(struct wvm_home_page) == 64, "one cache line");

#define WVM_BLOCK_HOLDERS 5u

/* Further holders of one page. 64 bytes. */
struct wvm_holder_block {
	uint64_t grant[WVM_BLOCK_HOLDERS];
	uint32_t member[WVM_BLOCK_HOLDERS];
	uint32_t next; /* block + 1, or 0 */
};
_Static_assert(sizeof(struct wvm_holder_block) == 64, "one cache line");

/*
 * Per unit of 2 MiB at its home. The counter outlives the pages' entries. A unit
 * that nobody has touched is granted whole to the first who asks; from then on
 * a page without an entry is one that this owner has, and gets its entry when
 * it matters to somebody else. 64 bytes; all zeros: never touched.
 */
struct wvm_home_unit {
	uint64_t version; /* highest version given to any page of the unit */
	uint64_t granted; /* Whole: the version that all its pages were granted in; else 0 */
	uint64_t grant;   /* and the request id */
	uint32_t owner;   /* member */
	uint32_t merged; /* granted by a merge: pages that had entries before have none now, what is
			  * there of older versions does not count */
	/* handover.c: */
	uint32_t moved;  /* the epoch whose hand-over the rest is about */
	uint16_t next;   /* pages of the unit below it have come; rebuilt: of it are UNSTORED */
	uint8_t phase;   /* enum wvm_moved_phase */
	uint8_t entries; /* pages may have some: wvm_home_unit_has_entries() */
	uint32_t era;    /* at the second home: the era of its copies; 0: it has none (backup.h) */
	uint32_t reserved[4];
	uint32_t lost; /* enum wvm_unit_lost */
};
_Static_assert(sizeof(struct wvm_home_unit) == 64, "one cache line");

/* Of a unit whose home died: bits of wvm_home_unit.lost (rebuild.c). */
enum wvm_unit_lost {
	WVM_UNIT_UNKNOWN = 1,  /* what nobody holds is not known here; settled: it is LOST */
	WVM_UNIT_STOLEN = 2,   /* a member that may have had pages of it Modified has not told */
	WVM_UNIT_REBUILT = 4,  /* settled */
	WVM_UNIT_KEPT = 8,     /* given away, and all of it kept as the second home (handover.c) */
	WVM_UNIT_DOUBTED = 16, /* another one serves it, and had it from here; a member whose files
				* are gone may have had pages of it Modified since (renewed.c) */
};

enum wvm_held_state {
	WVM_HELD_INVALID = 0,
	WVM_HELD_SHARED,
	WVM_HELD_MODIFIED,
};

/* A page at its holder. 64 bytes, written by the holder's shard only; all zeros: never touched. */
struct wvm_held_page {
	uint64_t version;       /* Shared, Modified: what is held */
	uint64_t grant;         /* and the request id that it was granted to */
	uint64_t invalidated;   /* highest version given up; no grant at or below is taken */
	uint64_t hold_until_ns; /* when it may be given up, for the faulter's sake */
	uint64_t lost_ns;       /* when it was given up last */
	uint32_t request;       /* own request outstanding + 1, or 0 */
	uint32_t demand;        /* what the home asked for and is not done + 1, or 0 */
	uint16_t pins;
	uint8_t state; /* enum wvm_held_state */
	uint8_t hold_shift;
	uint8_t coming; /* granted, and WVM_ACT_INSTALL not taken yet: what the RAM file has is
			   older */
	uint8_t hole;   /* of a unit granted whole: where the RAM file has nothing it is zeros */
	uint8_t read_first; /* shared/core/wander.h */
	uint8_t wrote, trusted;
	uint8_t reserved[7];
};
_Static_assert(sizeof(struct wvm_held_page) == 64, "one cache line");

#define WVM_UNIT_WORDS (WVM_UNIT_PAGES / 64u)

/*
 * A unit at its holder. 192 bytes, written by the holder's shard only; all
 * zeros: nothing of it was ever granted to this node. A page that is `mine` is
 * Modified here, has no entry of its own, and is zeros where the RAM file has
 * nothing. It gets its entry, and the bit is cleared, before its home is
 * answered anything about it.
 */
struct wvm_held_unit {
	uint64_t version;       /* of the grant of the whole */
	uint64_t grant;         /* and its request id; 0: none was taken */
	uint64_t hold_until_ns; /* when its pages may be given up, for the faulter's sake */
	uint32_t requests;      /* while untouched: own requests for pages of it; slot + 1 */
	uint32_t first;         /* the one of them that asks for the whole; slot + 1 */
	uint8_t touched;        /* something of it was granted, page or whole */
	uint8_t merge;          /* slot + 1 while it is to be merged */
	uint16_t modified;      /* pages that are Modified by entries of their own */
	uint16_t shared;        /* and Shared */
	uint16_t reserved;
	uint64_t merging; /* id of a merge that was asked for and not answered, or 0 */
	uint64_t named; /* the version that it names, in each message of this and of later lives */
	uint64_t told;  /* by the home, with a refusal: the version that the next has to name */
	uint64_t mine[WVM_UNIT_WORDS];
	uint64_t filled[WVM_UNIT_WORDS]; /* of those: taken room in the RAM file, at most */
};
_Static_assert(sizeof(struct wvm_held_unit) == 192, "three cache lines");

/*
 * One VM as the core sees it. The arrays belong to the driver, zero at first,
 * indexed by page (store: 4096 bytes each) or unit, and may be sparse files:
 * the core touches what it uses. With several shards all share the arrays;
 * each touches only its own slices (home) and ranges (holder).
 */
struct wvm_core_vm {
	uint16_t id;
	uint64_t pages;
	struct wvm_home_page *home;
	struct wvm_home_unit *units;
	uint8_t *store;
	struct wvm_held_page *held;
	struct wvm_held_unit *held_units; /* indexed by unit */
};

/* ---- actions --------------------------------------------------------------------------- */

enum wvm_action_kind {
	WVM_ACT_SEND,    /* msg, with the page that `source` names as payload */
	WVM_ACT_INSTALL, /* put data (NULL: zeros) into the RAM file, protected in every mm but
			  * that of a writer when writable; wake the waiters */
	WVM_ACT_LIFT,    /* the page is Modified: lift the protection for the waiters, wake them */
	WVM_ACT_WAKE,    /* the page is there: wake the waiters */
	WVM_ACT_PROTECT, /* write-protect the page in every mm; stores before are in, none after */
	WVM_ACT_SAVE,    /* copy the page from the RAM file to outbox buffer `slot` */
	WVM_ACT_PUNCH,   /* remove the page from the RAM file and every mm */
	WVM_ACT_FAIL,    /* the page cannot be had: `reason`; tell the waiters */
	WVM_ACT_PINNED,  /* a page with pins that was asked for is Modified now */
	WVM_ACT_FILL,    /* `below` + `count` pages are Modified: zeros go where the RAM file has
			  * nothing; lift    the protection of all for the waiters, wake them */
	WVM_ACT_SETTLE,  /* the page is Shared and protected: write zeros where there is nothing, so
			  * that it is there for everybody; wake the waiters. Without any it may
			  * fail for lack of room */
	WVM_ACT_FORGET,  /* nobody looks at the entries of the unit's pages any more, of the holder
			  * or with `home` of the home and its stored copies: they may become zeros
			  */
};

enum wvm_data_source {
	WVM_DATA_NONE,
	WVM_DATA_STORE,  /* the home's stored copy of the page */
	WVM_DATA_RAM,    /* the page in the RAM file: protected before, stable until acknowledged */
	WVM_DATA_OUTBOX, /* outbox buffer `slot` */
	WVM_DATA_BYTES,  /* msg.payload_len bytes at `data`: one segment, not a page */
};

enum wvm_fail_reason {
	WVM_FAIL_DEADLINE, /* the home did not answer in time */
	WVM_FAIL_LOST,     /* the home says that the last copy is lost */
};

/*
 * data is valid until the driver has taken the last action of this step. A
 * payload of WVM_ACT_SEND may turn out to be all zeros: the driver then sends
 * flag ZERO instead.
 */
struct wvm_action {
	uint8_t kind;   /* enum wvm_action_kind */
	uint8_t source; /* WVM_ACT_SEND: enum wvm_data_source */
	uint8_t writable;
	uint8_t reason; /* enum wvm_fail_reason */
	bool hole;      /* WVM_ACT_SAVE, WVM_DATA_RAM: zeros where the RAM file has nothing */
	bool home;      /* WVM_ACT_FORGET */
	uint32_t slot;
	uint32_t count;  /* WVM_ACT_FILL: pages from `page` on, within one unit */
	uint32_t below;  /* WVM_ACT_FILL: and so many before it */
	uint32_t vm;     /* index as returned by wvm_core_add_vm() */
	uint32_t member; /* WVM_ACT_SEND: who gets it; this node itself included */
	uint64_t page;
	uint64_t waiters; /* clients, one bit each */
	const uint8_t *data;
	struct wvm_msg msg;
};

/* ---- figures --------------------------------------------------------------------------- */

#define WVM_CORE_COUNTERS(X)                                                                   \
	X(faults_read, "local read faults")                                                    \
	X(faults_write, "local write faults")                                                  \
	X(faults_local, "of those, answered without asking a home")                            \
	X(faults_refused, "of those, sent back since all request slots were taken")            \
	X(faults_failed, "requests that ended with an error")                                  \
	X(requests_sent, "requests sent to homes, retries not counted")                        \
	X(requests_retried, "requests sent again")                                             \
	X(requests_renewed, "requests asked again under a new id")                             \
	X(requests_blocked, "requests that waited for an own write-back")                      \
	X(ahead_asked, "pages asked for ahead of a fault")                                     \
	X(ahead_joined, "of those, waited for by a fault before they had come")                \
	X(ahead_passed, "pages that a stream which was read ahead passed without a fault")     \
	X(ahead_given_up, "pages asked for ahead that did not come, and nobody waited for")    \
	X(grants_shared, "pages received Shared")                                              \
	X(grants_modified, "pages received Modified")                                          \
	X(grants_upgrade, "of those, without data")                                            \
	X(grants_zero, "of those, as the word zero")                                           \
	X(wander_asked, "reads that asked for Modified, as a write was to be expected")        \
	X(grants_dropped, "grants not taken: late, or below what was invalidated")             \
	X(grants_undone, "grants given back since the RAM file had no room")                   \
	X(home_reads, "MEM_READ served as home")                                               \
	X(home_acquires, "MEM_ACQUIRE served as home")                                         \
	X(home_txns, "transactions run as home")                                               \
	X(home_txn_retries, "INVALIDATE, DOWNGRADE, FETCH sent again")                         \
	X(home_txn_aborted, "transactions given up at the deadline")                           \
	X(home_not_held, "grants that their holder never took")                                \
	X(home_lost, "pages whose last copy is lost")                                          \
	X(home_evicted, "sharer sets emptied for lack of blocks")                              \
	X(demands_held, "INVALIDATE, DOWNGRADE, FETCH that waited for the hold time or a pin") \
	X(demands_early, "of those asked for before their grant had come")                     \
	X(write_backs, "pages written back")                                                   \
	X(write_backs_retried, "write-backs sent again")                                       \
	X(evicted_shared, "Shared copies given up for lack of memory")                         \
	X(evicted_modified, "Modified pages written back for lack of memory")                  \
	X(requests_now, "requests that are not over yet")                                      \
	X(pages_shared, "pages held Shared now")                                               \
	X(pages_modified, "pages held Modified now, of whole units those that were used")      \
	X(pages_untouched, "pages of units held whole now that were not used yet")             \
	X(writebacks_now, "pages written back that their home has not acknowledged yet")       \
	X(pages_homed, "pages that this home has been asked for")                              \
	X(home_units, "units granted whole as home")                                           \
	X(home_units_refused, "of those, never taken")                                         \
	X(units_taken, "units that this node was granted whole")                               \
	X(unit_waits, "requests that waited for the grant of their unit")                      \
	X(unit_fills, "times that pages of such units were filled with zeros")                 \
	X(unit_pages_split, "pages of such units that somebody else asked for")                \
	X(units_merged, "units whose pages were put together again here, as holder")           \
	X(merges_refused, "merges that the home had to refuse")                                \
	X(home_merges, "units put together again as home")                                     \
	X(epochs_ahead, "messages of a later epoch than ours")                                 \
	X(handover_pages, "pages fetched from their former home")                              \
	X(handover_units, "units fetched from their former home")                              \
	X(handover_given, "units that their new home has fetched from here")                   \
	X(handover_asked, "of the pages, those that somebody waited for")                      \
	X(backup_copied, "pages that the second home has got, as home")                        \
	X(backup_waited, "of those, write-backs that were acknowledged then")                  \
	X(backup_room, "write-backs that have to come again for lack of slots")                \
	X(backup_slices, "slices that the second home has been given completely")              \
	X(backup_missing, "slices whose second home has not all of it, at present")            \
	X(backup_taken, "pages taken as second home")                                          \
	X(told_units, "units of which a home that died is told by others what is held here")   \
	X(rebuilt_units, "units whose home died, and that this one serves now")                \
	X(rebuilt_held, "pages of such units whose holders have told of them")                 \
	X(partials_evicted, "half-received pages dropped for lack of room")                    \
	X(adopted_homed, "directory entries taken over from a former life")                    \
	X(adopted_held, "held pages taken over from a former life")                            \
	X(adopted_written_back, "write-backs taken over from a former life")                   \
	X(adopted_dropped, "pages of a former life that were granted, but never came")

#define WVM_LATENCY_BUCKETS 26u /* the last: 2^24 µs and more; the deadline is below that */

struct wvm_core_stats {
#define WVM_CORE_COUNTER(name, text) uint64_t name;
	WVM_CORE_COUNTERS(WVM_CORE_COUNTER)
#undef WVM_CORE_COUNTER
	uint64_t drops[WVM_DROP_REASONS];
	/* Faults that asked a home, by duration from fault to grant: [i] below 2^i µs. */
	uint64_t latency_read[WVM_LATENCY_BUCKETS];
	uint64_t latency_write[WVM_LATENCY_BUCKETS];
};

/* ---- the core -------------------------------------------------------------------------- */

/* Bounds of one shard. Every pool has one; what happens when it is empty is said here. */
struct wvm_core_limits {
	uint32_t requests; /* own requests; then faults are sent back to be taken again */
	uint32_t txns;     /* pages in transaction as home; then requests are dropped (retry) */
	uint32_t waiting;  /* requests queued behind transactions; then dropped (retry) */
	uint32_t demands;  /* demands and write-backs as holder, 4 KiB of outbox each; one home has
			    * at most as many as are left, pinned pages an eighth; then the
			    * home's message is dropped (it retries) */
	uint32_t partials; /* half-received pages, 4 KiB each; then the oldest goes (retry) */
	uint32_t holder_blocks; /* then the page's sharers are invalidated to make room */
	uint32_t peer_shards;   /* the most shards that any member has: 1 to 256 */
};

/* All in nanoseconds. The defaults are those of shared/PROTOCOL.md, Times. */
struct wvm_core_times {
	uint64_t deadline_ns;
	uint64_t deadline_lost_ns; /* of a page whose home may die, and is replaced then */
	uint64_t hold_min_ns, hold_max_ns, refault_ns;
	uint64_t rto_min_ns, rto_initial_ns;
	uint64_t rto_base_max_ns; /* of the first retry, however slow answers were before */
	uint64_t rto_max_ns;      /* of any, after back-off */
};

/* What the core is to believe of a member when another one has died. */
enum wvm_lost_member {
	WVM_LOST_NOT,    /* it takes part, and tells what it holds */
	WVM_LOST_ABSENT, /* OFFLINE or SHADOW: has nothing of anybody, and is not asked */
	WVM_LOST_EMPTY,  /* dead, and surely had no page Modified: no program ran there */
	WVM_LOST_HOLDER, /* dead, and may have had pages Modified */
};

/*
 * Members that died, and the slices that are made anew for it: wvm_core_epoch_lost(). The driver's
 * and as durable as its epoch; a later life gets the same.
 */
struct wvm_core_lost {
	uint32_t epoch; /* the last that took a member out */
	uint32_t moved; /* params.moved from then on: that epoch, or the one of the move that was
			 * under way, which it becomes a part of */
	uint64_t slices[WVM_SLICES / 64]; /* bits */
	const uint8_t *member;            /* one each: enum wvm_lost_member */
};

struct wvm_core_params {
	const struct wvm_members *members; /* outlive the core */
	const struct wvm_slices *slices;
	/*
	 * Of a node that begins, or goes on, in an epoch whose slices have moved: the table before,
	 * and the epoch that moved them. NULL, 0: none has. They are given until
	 * every member has been told that all is handed over: wvm_core_handed_over().
	 */
	const struct wvm_slices *before;
	uint32_t moved;
	/*
	 * The second homes that belong to `slices` (wvm_slices_build_backup()); NULL: there are no
	 * backups. There are some in all lives that adopt each other, or in none.
	 */
	const struct wvm_slices *backup;
	/* Members that died since; NULL: none. Given for as long as `before` is. */
	const struct wvm_core_lost *lost;
	uint8_t shards;                  /* of this node: slice % shards says whose it is; 0: 1 */
	const struct wvm_layout *layout; /* outlives it, too; NULL: nothing is placed */
	uint32_t self;                   /* index in members */
	uint32_t epoch;
	uint16_t boot;       /* of this node: one more at every start, never 0 */
	uint8_t shard;       /* this shard's index, part of its request ids */
	uint64_t seed;       /* of the retry jitter */
	uint32_t read_ahead; /* pages, at most WVM_AHEAD_MOST; 0: not */
	uint8_t wander;      /* writes after reads until reads ask for all (wander.h); 0: never */
	struct wvm_core_limits limits;
	struct wvm_core_times times;
	uint8_t *outbox; /* limits.demands × 4096 bytes, the driver's; written by WVM_ACT_SAVE */
	/*
	 * wvm_core_durable_bytes(), 64-aligned, the driver's, zero at first. It, the
	 * outbox and the VMs' arrays outlive the process where a later one is to go on
	 * with them. NULL: the core keeps it in its own memory, and nothing outlives it.
	 */
	void *durable;
	/*
	 * They are those of a life that ended without warning: wvm_core_adopt() and so on
	 * follow. Members, limits, shard and VMs are what they were.
	 */
	bool adopt;
	uint16_t boot_first; /* of the lives that adopted each other down to this one; 0: `boot` */
	bool units;          /* ask for whole units (as home they are granted in any case) */
	bool merge;          /* and put units together again of which this node has all pages */
};

struct wvm_core;

void wvm_core_default_limits(struct wvm_core_limits *limits);
void wvm_core_default_times(struct wvm_core_times *times);

/* Bytes that wvm_core_init() needs, 64-aligned; 0 when a limit, hold_min_ns or
 * read_ahead is out of its range.
 */
size_t wvm_core_bytes(const struct wvm_core_params *params);

/* Bytes of wvm_core_params.durable; 0 as above. The same for the same members and limits. */
size_t wvm_core_durable_bytes(const struct wvm_core_params *params);

/* Makes a core in memory of at least wvm_core_bytes(). Never fails after that. */
struct wvm_core *wvm_core_init(void *memory, const struct wvm_core_params *params);

/* Adds a VM. Returns its index (the `vm` of inputs and actions), or WVM_NIL when full or known. */
uint32_t wvm_core_add_vm(struct wvm_core *core, const struct wvm_core_vm *vm);

const struct wvm_core_vm *wvm_core_vm_at(const struct wvm_core *core, uint32_t vm);

/*
 * A home answers requests only while it serves: after every live node has said
 * what it holds (join.h). Requests before that are dropped and counted as ROOM. What has moved
 * here is fetched from then on: look at wvm_core_deadline(). In the core's thread.
 */
void wvm_core_serve(struct wvm_core *core, bool serving);

/*
 * A thread of `client` (0 to 63) faulted. Exactly one of WAKE, LIFT, INSTALL or
 * FAIL with its bit follows, now or later; false: no room, the driver wakes
 * the thread so that it faults again.
 */
bool wvm_core_fault(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page, bool write,
		    unsigned int client);

/*
 * After a read fault and its actions: asks for pages of the same unit that the
 * faults so far say will be read next, whose holder entries the driver has made
 * room for. What comes of it is INSTALL without waiters.
 */
void wvm_core_ahead(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page);

/*
 * One decoded segment, addressed to this node, from an address that is its
 * src's. payload (payload_len bytes) stays valid until the driver has taken
 * the actions. Returns why it was dropped, or WVM_DROP_NONE; counts it, too.
 */
enum wvm_drop wvm_core_message(struct wvm_core *core, uint64_t now_ns, const struct wvm_msg *msg,
			       const uint8_t *payload);

/*
 * On the way to a member there was no room for a message of ours, and word of it came: the window
 * of requests to it is halved, as for a timeout. What was refused is repeated like what is lost.
 */
void wvm_core_pushed_back(struct wvm_core *core, uint64_t now_ns, uint32_t member);

/* Runs what is due, a bounded part of it: call again while wvm_core_deadline() <= now_ns. */
void wvm_core_tick(struct wvm_core *core, uint64_t now_ns);

/* When wvm_core_tick() is due next, or WVM_CORE_NEVER. */
uint64_t wvm_core_deadline(const struct wvm_core *core);

/*
 * Takes the next action, or returns NULL; the one before has been carried out.
 * What the input changed is final from the first call on, be there an action or not. All are taken
 * before the next tick or message from outside; messages that this node sent to itself may be put
 * in while actions are left.
 */
const struct wvm_action *wvm_core_action(struct wvm_core *core);

enum wvm_pin_result {
	WVM_PIN_HELD,  /* Modified and pinned */
	WVM_PIN_ASKED, /* WVM_ACT_PINNED or WVM_ACT_FAIL for the page follows */
	WVM_PIN_ROOM,  /* no request slot: not pinned, try again later */
	WVM_PIN_MANY,  /* 65,535 pins on it already: not pinned */
};

/* Pins a page: once Modified it is not given up until wvm_core_unpin(). A failed one is unpinned.
 */
enum wvm_pin_result wvm_core_pin(struct wvm_core *core, uint64_t now_ns, uint32_t vm,
				 uint64_t page);
void wvm_core_unpin(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page);

enum wvm_evict {
	WVM_EVICT_DONE, /* it leaves the RAM file with the actions that follow */
	WVM_EVICT_BUSY, /* not held, wanted here or by its home, pinned, or held for too short */
	WVM_EVICT_ROOM, /* no slot is left for it, or no room for actions: later */
};

/*
 * Gives a page up to make room: a Shared one without a word, a Modified one by
 * writing it back. An input like any other: its actions are to be taken.
 */
enum wvm_evict wvm_core_evict(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page);

/* A client is gone: nothing is installed for it any more. */
void wvm_core_client_gone(struct wvm_core *core, unsigned int client);

/*
 * Whether carrying a message to a home out looks at the page's own directory entry.
 * Not for a unit that is granted whole: its entry is enough.
 */
bool wvm_core_needs_home(const struct wvm_core *core, uint32_t vm, uint64_t page,
			 const struct wvm_msg *msg);
/* Whether a fault looks at the page's own entry: not while it is of a unit held whole. */
bool wvm_core_needs_held(const struct wvm_core *core, uint32_t vm, uint64_t page);

/* Whether any page of the unit is held, by entries of their own or as a part of the whole. */
bool wvm_core_unit_held(const struct wvm_core_vm *vm, uint64_t page);

/*
 * The member has given back all that it held and was switched off: records of it as a sharer are
 * void, and nobody waits for its answer to an INVALIDATE. False: it is back, in a later life,
 * whose grants count. An input without actions. Not durable: to be said again after a restart.
 */
void wvm_core_gone(struct wvm_core *core, uint32_t member, bool gone);

/* Whether units are put together from now on; what was asked for goes on. */
void wvm_core_merge(struct wvm_core *core, bool merge);

/* So many pages at most are filled with zeros at once, 1 to 512: a node short of memory. */
void wvm_core_fill_most(struct wvm_core *core, uint32_t pages);
/* The next page in [page, end) of a unit held whole that was filled, and is not split off; or end.
 */
uint64_t wvm_core_next_filled(const struct wvm_core_vm *vm, uint64_t page, uint64_t end);
/*
 * Such a page has been taken out of the RAM file: no program had touched it. It
 * stays this node's, and is filled again when one does.
 */
void wvm_core_unfilled(struct wvm_core *core, uint32_t vm, uint64_t page);

/*
 * What holder and home say of a page: its entry, or where it has none what the entry
 * of its unit says. For whoever looks on; any thread, then some fields may be older.
 */
struct wvm_held_page wvm_core_held(const struct wvm_core_vm *vm, uint64_t page);
struct wvm_home_page wvm_core_homed(const struct wvm_core_vm *vm, uint64_t page);
/* The same from copies of the two entries. */
struct wvm_held_page wvm_core_held_in(const struct wvm_held_unit *unit,
				      const struct wvm_held_page *entry, uint64_t page);
struct wvm_home_page wvm_core_homed_in(const struct wvm_home_unit *unit,
				       const struct wvm_home_page *entry);

/* Written by the core's thread, readable by others (each figure by itself). */
const struct wvm_core_stats *wvm_core_stats(const struct wvm_core *core);
/* Own requests that wait for their home's answer, or for room to be sent. */
uint32_t wvm_core_requests(const struct wvm_core *core);

/*
 * The driver could not put a granted page into the RAM file (no room): it is
 * given back. No store was made to it, so the home's stored copy is current,
 * and the home learns from the next request that the grant was not taken.
 */
void wvm_core_not_installed(struct wvm_core *core, uint32_t vm, uint64_t page);

/*
 * Taking a former life over, in this order, after wvm_core_add_vm(): the home
 * serves as soon as its part is done; the holder must wait until every program
 * of the former life is known, since it acts on their memory. Until its part
 * is done messages to it are dropped as ROOM, and no fault or pin may be put in.
 */

/* What was cut short is undone. */
void wvm_core_adopt(struct wvm_core *core);
/* Every page of this shard's slices whose entry is not all zeros; others do no harm. */
void wvm_core_adopt_home(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_core_adopt_home_end(struct wvm_core *core);
/* Every unit of this shard's ranges whose entry is not all zeros, before the pages. */
void wvm_core_adopt_unit(struct wvm_core *core, uint32_t vm, uint64_t unit);
/*
 * Every page of this shard's ranges whose entry is not all zeros or that is
 * present in the RAM file. Actions follow, to be taken before the next page.
 */
void wvm_core_adopt_held(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page,
			 bool present);
/* A page pinned in the former life by a program that is still there. After wvm_core_adopt_held().
 * False: it is not Modified here. */
bool wvm_core_adopt_pin(struct wvm_core *core, uint32_t vm, uint64_t page);
void wvm_core_adopt_held_end(struct wvm_core *core, uint64_t now_ns);

/*
 * Grants, and copies as a second home, that this shard took from member `home`, in the lives that
 * were adopted too. Any thread.
 */
uint64_t wvm_core_taken(const struct wvm_core *core, uint32_t home);

enum wvm_epoch_taken {
	WVM_EPOCH_TAKEN,
	WVM_EPOCH_OLD,  /* it is not later than the present one */
	WVM_EPOCH_BUSY, /* it moves slices, and the last hand-over is not done here: later */
};

/*
 * The members' next epoch, once no action is left. slices outlives the core, or the second epoch
 * after it that moves slices. Every epoch that moves slices is put in, in order, and is decided
 * only when wvm_core_handover() is all zeros at every member. The driver has made it durable: a
 * life that adopts this one begins in this epoch or in a later one (params.before, moved).
 * O(slots + units).
 */
enum wvm_epoch_taken wvm_core_epoch(struct wvm_core *core, uint64_t now_ns, uint32_t epoch,
				    const struct wvm_slices *slices);

/*
 * The second homes in the next epoch, where there are backups: said before each one that moves
 * slices or has other second homes. It outlives the core, or the second such epoch after it. Where
 * no slices move it may be the present one's table, changed.
 */
void wvm_core_backup_next(struct wvm_core *core, const struct wvm_slices *backup);

/*
 * The member has begun without the files of its earlier lives (it asks for a REPORT, join.h): by
 * its life `boot`, the one that asks. What its earlier ones had Modified is LOST, and what it was
 * sent as a second home is sent again. To be said to each shard of each other member before the
 * member serves. Durable when it returns; said again it does nothing. Between inputs, once no
 * action is left. O(units + pages homed + members). See renewed.h.
 */
void wvm_core_renewed(struct wvm_core *core, uint32_t member, uint16_t boot);

/*
 * Slices of this shard whose second home has not all of it yet: were this node gone now, pages of
 * theirs could be lost. Those that have no second home do not count; those of which pages were lost
 * before do for ever, where it is not known which. O(slices).
 */
uint32_t wvm_core_degraded(const struct wvm_core *core);

/*
 * The members' next epoch, which takes a member out that has died: its slices, and no others, have
 * other homes in `slices`. It may come at any time, also in the middle of a hand-over or before
 * what an earlier death has begun is done: it is then a part of that move (lost->moved is that
 * of before; BUSY: something of an earlier move is left here). *lost is
 * that of all deaths since the last move that was complete; it and slices outlive the core, or the
 * second epoch after it that moves slices. Where there are backups, wvm_core_backup_next() comes
 * before it. What becomes of the pages: rebuild.c. Its end is that of
 * a hand-over. O(slots + units).
 */
enum wvm_epoch_taken wvm_core_epoch_lost(struct wvm_core *core, uint64_t now_ns, uint32_t epoch,
					 const struct wvm_slices *slices,
					 const struct wvm_core_lost *lost);

/*
 * Adds the slices that the death of a member leaves without a home: `slices` is the table of
 * before, `before` the one before that if a move between the two may not be complete, else NULL.
 */
void wvm_core_lost_slices(struct wvm_core_lost *lost, const struct wvm_members *members,
			  const struct wvm_slices *slices, const struct wvm_slices *before,
			  uint32_t member);

/*
 * A member is dead: what it had Modified is LOST, as a sharer it is struck out, nothing is granted
 * to it. False: it is back without its files. As durable as wvm_core_gone(); wvm_core_epoch_lost()
 * and params.lost say it by themselves.
 */
void wvm_core_lost(struct wvm_core *core, uint32_t member, bool lost);

/*
 * What has still to be done here of the last hand-over. Once all actions are taken it is final: a
 * life that adopts this one does not count more.
 */
struct wvm_handover_left {
	uint64_t in;  /* units whose home this shard has become, not all fetched and confirmed */
	uint64_t out; /* units whose home it was, not fetched yet */
};
struct wvm_handover_left wvm_core_handover(const struct wvm_core *core);

/*
 * The versions of unit and page that an answer (HANDOVER) tells of, for a driver that makes room
 * for entries: 0 says that there is none. Of a payload that is too short all is 0: it is dropped.
 */
struct wvm_handed {
	uint64_t unit, page;
};
struct wvm_handed wvm_core_handed(const uint8_t *payload, uint32_t len);

/*
 * Every member has counted nothing left of the hand-over of `epoch`, the last one that moved
 * slices: wvm_core_handover() was all zeros in it, once, at all shards of all of them. No core can
 * know that, whoever asks all of them can. A member that homes nothing now, neither slices nor
 * placed ranges, has then nothing that could be lost: what was taken from it does not count any
 * more (join.h), so that it may come back without its files. And a life that has none, of a member
 * that slices have moved away from, has nothing to hand over; nor has one that slices have moved
 * to, and that does not serve yet, anything to wait for. To be said to each shard, and once
 * more to a later life that may not have heard it; the next epoch that moves slices says it as
 * well. Between inputs. False: it is of another epoch, or something is left here, and nothing has
 * changed. O(units + members × slices). A life that begins when nothing is under way (no `before`)
 * is told so by any epoch.
 */
bool wvm_core_handed_over(struct wvm_core *core, uint32_t epoch);

/*
 * A member has left for good, after its hand-over, and is not asked any more when another begins
 * (join.h): what its programs ever took from those who are homes it alone knows, so from now on
 * this core counts as one that has taken something of each of them. To be said to one shard of
 * each node, before that node is in the epoch that ends the member. Between inputs.
 * O(members × slices).
 */
void wvm_core_left(struct wvm_core *core);

/*
 * The highest epoch of any message so far, but at most WVM_EPOCH_AHEAD above the core's own when it
 * came. Above the core's own: there is a record to pull, or its sender does not tell the truth.
 */
uint32_t wvm_core_epoch_seen(const struct wvm_core *core);

/* Whether this node is home of the page and has what it needs to serve it. */
bool wvm_core_homes(const struct wvm_core *core, uint32_t vm, uint64_t page);

/* The placed range that a page is in, or NULL: its home follows from its slice. Any thread. */
const struct wvm_layout_range *wvm_core_placed(const struct wvm_core *core, uint32_t vm,
					       uint64_t page);

/* The home's member index and vnode of a page. Any thread. */
uint32_t wvm_core_home_of(const struct wvm_core *core, uint32_t vm, uint64_t page, uint32_t *vnode);

#endif
