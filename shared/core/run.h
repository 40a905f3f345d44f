/*
 * Runs of remote processors: each side's state machine (shared/PROTOCOL.md, Processors).
 *
 * The program that owns a VM (QEMU) has one wvm_run_owner for each of its processors; the slave
 * that runs one has one wvm_run_slave for it. A run is named by (VM, processor, owner's life,
 * seq): seq counts up with each run of that processor, whichever node it goes to. What a run and
 * its answer carry is not looked into (shared/vcpu.h knows).
 *
 * Executed at most once: a slave takes a seq that is above all that it has seen of that
 * processor, and only when the run names its own present life, which the owner has learnt by
 * VCPU_HELLO before. So neither a duplicate nor a retry that meets a slave's next life is
 * executed again. The answer is kept, and sent again, until the owner has it.
 *
 *	owner    IDLE -begin-> SENT -TAKEN-> TAKEN -EXIT-> IDLE (WVM_RUN_ANSWERED)
 *	         SENT -EXIT-> IDLE;  SENT, TAKEN -refusal-> IDLE (WVM_RUN_REFUSED: the slave has not
 *	         executed it and never will; WVM_RUN_LOST: it may have: another life answers)
 *	         SENT, TAKEN -nothing heard for WVM_RUN_DEADLINE_NS-> IDLE (WVM_RUN_SILENT)
 *	slave    FREE -first segment-> TAKING -the last one-> RUNNING (WVM_RUN_START)
 *	         RUNNING -answer-> ANSWERED -DONE, or the next seq-> FREE
 *	         RUNNING -refuse-> REFUSED (said again to whoever asks)
 *
 * A retry is the owner's: all of the run until the slave is heard of it, then its first
 * segment, which asks whether it is still being run. The slave retries its answer. VCPU_KICK names
 * the run that it is to end and is sent again with every retry, until that run is answered.
 *
 * No I/O, no clock, no allocation. Each object belongs to one thread at a time. Times are
 * nanoseconds of one monotonic clock per object. Both objects are to be driven so: after every
 * input, take messages by ..._next() until there is none, and call ..._tick() at ..._deadline().
 */
#ifndef WVM_CORE_RUN_H
#define WVM_CORE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/msg.h"

#define WVM_RUN_MAX                                                                   \
	65536u /* bytes that a run or an answer carries: a whole state is 8 to 20 KiB \
		*/

#define WVM_RUN_RETRY_NS     UINT64_C(20000000)  /* the first retry; doubled each time */
#define WVM_RUN_RETRY_MAX_NS UINT64_C(500000000) /* as for pages (PROTOCOL.md, Times) */
#define WVM_RUN_PROBE_NS                                                                             \
	UINT64_C(200000000)                      /* to ask whether it is still being run: 25 times   \
						  * until the deadline, so that one in five messages \
						  * may get lost */
#define WVM_RUN_TAKEN_NS    UINT64_C(2000000)    /* a run that lasts longer is acknowledged */
#define WVM_RUN_DONE_NS     UINT64_C(5000000)    /* an answer is acknowledged by then */
#define WVM_RUN_DEADLINE_NS UINT64_C(5000000000) /* of silence */

/* What came of an input. */
enum wvm_run_event {
	WVM_RUN_NOTHING,
	/* owner */
	WVM_RUN_ANSWERED, /* answer, answer_len */
	WVM_RUN_REFUSED,  /* reason; not executed, and never will be */
	WVM_RUN_LOST,     /* the slave has begun another life; the run may have been executed */
	WVM_RUN_SILENT,   /* no sign within the deadline; likewise */
	/* slave */
	WVM_RUN_START, /* run, run_len: to be executed; answer or refuse it */
	WVM_RUN_KICK,  /* the present run is to end soon; may come more than once */
	WVM_RUN_ABORT, /* likewise, and nobody wants the answer: the owner has begun another life */
};

/* Why a slave refuses. Travels above the processor's number in the operand. */
enum wvm_run_reason {
	WVM_RUN_NO_REASON,
	WVM_RUN_OTHER_LIFE, /* the run is meant for another life of this slave */
	WVM_RUN_BUSY,       /* it still runs something for an earlier life of the owner */
	WVM_RUN_FULL,       /* no room for one more processor */
	WVM_RUN_BASE,       /* the state is a difference from one that it has not: send the whole */
	WVM_RUN_SETUP,      /* it does not know the machine: send the setup with it */
	WVM_RUN_MALFORMED,  /* what the run carries does not make sense to it */
	WVM_RUN_ENGINE,     /* it has not the engine that is asked for, or that does not start */
	WVM_RUN_REASONS,
};

/* A short text ("no such engine there"), for messages. */
const char *wvm_run_reason_text(unsigned reason);

/* The operand: processor and reason. */
static inline uint64_t wvm_run_operand(unsigned vcpu, unsigned reason)
{
	return (uint64_t)reason << 16 | vcpu;
}

static inline unsigned wvm_run_vcpu(const struct wvm_msg *m)
{
	return (unsigned)(m->gpa & UINT16_MAX);
}

static inline unsigned wvm_run_reason(const struct wvm_msg *m)
{
	return (unsigned)(m->gpa >> 16 & UINT8_MAX);
}

/* Something in segments, on its way in. */
struct wvm_run_parts {
	uint8_t *buf;   /* WVM_RUN_MAX bytes of the caller's */
	uint32_t total; /* rounded up to units, as in the segments; 0: none yet */
	uint32_t len;   /* exact; 0: the last segment has not come */
	uint32_t units; /* that have come */
	uint64_t have[WVM_RUN_MAX / WVM_SEGMENT_UNIT / 64];
};

/* Something in segments, on its way out. */
struct wvm_run_out {
	const uint8_t *data;
	uint32_t len;
	uint32_t at, end; /* what is to be sent now */
};

enum wvm_run_owner_state { WVM_RUN_IDLE, WVM_RUN_SENT, WVM_RUN_TAKEN };

struct wvm_run_owner {
	uint16_t vm_id, vcpu;
	uint32_t self;    /* this node */
	uint32_t segment; /* payload bytes of a segment at most, a multiple of WVM_SEGMENT_UNIT */
	uint64_t life;    /* of the owner; later lives have higher numbers */
	uint64_t seq;
	enum wvm_run_owner_state state;
	uint32_t node; /* where the present or last run went */
	uint64_t slave_life;
	bool kicked; /* the present run */
	bool send_kick;
	uint64_t retry_at, retry_ns, heard_ns;
	struct { /* an answer whose coming the slave is to know of */
		uint32_t node;
		uint64_t life, seq;
		uint64_t at; /* UINT64_MAX: none */
		bool now;
	} done;
	struct wvm_run_out out;
	struct wvm_run_parts in;
	/* After an event. */
	uint8_t reason;
	uint32_t answer_len; /* in in.buf, until the next input */
	uint64_t retries;    /* counted */
};

/* buf: WVM_RUN_MAX bytes, for answers. */
void wvm_run_owner_init(struct wvm_run_owner *o, uint16_t vm_id, uint16_t vcpu, uint32_t self,
			uint64_t life, uint32_t segment, void *buf);

/*
 * A run to a node's slave, in the life in which it is known. data (1 to WVM_RUN_MAX bytes) stays
 * as it is until an event ends the run. Only when IDLE.
 */
void wvm_run_begin(struct wvm_run_owner *o, uint32_t node, uint64_t slave_life, const void *data,
		   uint32_t len, uint64_t now_ns);

/* The present run is to end soon. Nothing when there is none. */
void wvm_run_owner_kick(struct wvm_run_owner *o, uint64_t now_ns);

/* A message of this VM and processor that has been checked as wvm_wire_check() does. */
enum wvm_run_event wvm_run_owner_message(struct wvm_run_owner *o, const struct wvm_msg *m,
					 const uint8_t *payload, uint64_t now_ns);
enum wvm_run_event wvm_run_owner_tick(struct wvm_run_owner *o, uint64_t now_ns);
uint64_t wvm_run_owner_deadline(const struct wvm_run_owner *o); /* UINT64_MAX: none */

/* The next message to send, m->payload_len bytes at *payload; false: none. */
bool wvm_run_owner_next(struct wvm_run_owner *o, struct wvm_msg *m, const uint8_t **payload);

enum wvm_run_slave_state {
	WVM_RUN_FREE,
	WVM_RUN_TAKING,
	WVM_RUN_RUNNING,
	WVM_RUN_HAS_ANSWER,
	WVM_RUN_HAS_REFUSED,
};

struct wvm_run_slave {
	uint16_t vm_id, vcpu;
	uint32_t self;
	uint32_t segment;
	uint64_t life; /* of the slave; not 0, another one after every start */
	enum wvm_run_slave_state state;
	uint32_t owner; /* node */
	uint64_t owner_life;
	uint64_t seq;      /* the highest seen */
	uint64_t kick_seq; /* a kick came for this one */
	uint64_t busy_life,
		busy_seq; /* the highest refused since we are BUSY, of that owner's life */
	bool send_taken, abandoned;
	bool send_refusal;
	uint8_t reason; /* HAS_REFUSED */
	struct {        /* a refusal that is not about seq */
		bool wanted;
		uint32_t node;
		uint64_t life, seq;
		uint8_t reason;
	} other;
	uint64_t taken_at, retry_at, retry_ns, retry_until;
	struct wvm_run_out out;
	struct wvm_run_parts in; /* in.len bytes at in.buf are the run, after WVM_RUN_START */
};

/* buf: WVM_RUN_MAX bytes, for runs. */
void wvm_run_slave_init(struct wvm_run_slave *s, uint16_t vm_id, uint16_t vcpu, uint32_t self,
			uint64_t life, uint32_t segment, void *buf);

/* After WVM_RUN_START: whether the kick for this run has come before it. */
static inline bool wvm_run_slave_kicked(const struct wvm_run_slave *s)
{
	return s->kick_seq == s->seq;
}

/* A VCPU_RUN, VCPU_KICK or VCPU_DONE for this processor, checked as wvm_wire_check() does. */
enum wvm_run_event wvm_run_slave_message(struct wvm_run_slave *s, const struct wvm_msg *m,
					 const uint8_t *payload, uint64_t now_ns);
enum wvm_run_event wvm_run_slave_tick(struct wvm_run_slave *s, uint64_t now_ns);
uint64_t wvm_run_slave_deadline(const struct wvm_run_slave *s);
bool wvm_run_slave_next(struct wvm_run_slave *s, struct wvm_msg *m, const uint8_t **payload);

/*
 * The answer to the run that START gave; data stays as it is until the state is none of
 * HAS_ANSWER any more. Only when RUNNING.
 */
void wvm_run_slave_answer(struct wvm_run_slave *s, const void *data, uint32_t len, uint64_t now_ns);
/* Instead: nothing of it was executed, and nothing will be. */
void wvm_run_slave_refuse(struct wvm_run_slave *s, enum wvm_run_reason reason);

#endif
