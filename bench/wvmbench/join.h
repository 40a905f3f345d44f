/*
 * Where the time of one fault went: the stamps of several masters' traces and the
 * program's own, put together. Pure. All times are CLOCK_MONOTONIC of one host.
 */
#ifndef WVMBENCH_JOIN_H
#define WVMBENCH_JOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a master's stamp tells: the kinds of its trace. */
enum stamp_kind {
	STAMP_FAULT,
	STAMP_SEND,
	STAMP_SUBMIT,
	STAMP_RECEIVE,
	STAMP_DONE,
	STAMP_KINDS,
};

/* The messages that a fault is made of. */
enum stamp_what {
	STAMP_OTHER,
	STAMP_ASK,    /* MEM_READ, MEM_ACQUIRE: requester to home */
	STAMP_ANSWER, /* MEM_ACK: home to requester */
	STAMP_DEMAND, /* DOWNGRADE, FETCH_AND_INVALIDATE: home to owner */
	STAMP_GIVE,   /* WRITE_BACK: owner to home */
};

struct stamp {
	uint64_t ns, page, request;
	uint16_t shard; /* that made it */
	uint8_t kind, what;
};

/* Stamps of one master; join_sort() brings those of its shards in order. */
struct trace {
	struct stamp *at;
	size_t n, room;
};

/* An access of the program: right before it, right after it. */
struct access {
	uint64_t page, before_ns, after_ns;
};

/* Parts of a fault, in the order of time. */
enum part {
	PART_DELIVERY, /* access -> the master has read the fault */
	PART_QUEUE,    /* -> the request goes to the kernel */
	PART_THERE,    /* -> the home has it */
	PART_HOME,     /* the home's work, before and after what the owner does */
	PART_DEMAND,   /* the home's demand goes to the kernel -> the owner has it */
	PART_OWNER,    /* the owner's work */
	PART_GIVE,     /* the page goes to the kernel -> the home has it */
	PART_BACK,     /* the answer goes to the kernel -> the requester has all of it */
	PART_COPY,     /* -> the page is in place, and the program woken */
	PART_WAKE,     /* -> the access is over */
	PARTS,
};

/* The parts of one fault in ns. Their sum is the time of the access, exactly. */
struct joined {
	uint64_t ns[PARTS];
	bool owner; /* the page came from an owner: PART_DEMAND to PART_GIVE */
};

enum join_result {
	JOIN_WHOLE,
	JOIN_AGAIN,    /* the request was sent more than once: its stamps are of several tries */
	JOIN_NO_FAULT, /* the page was there: it had been read ahead */
	JOIN_AHEAD,    /* it had been asked for ahead, and was on its way */
	JOIN_MISSING,  /* a stamp is not there, or they contradict each other */
};

void join_sort(struct trace *t);

/*
 * Finds the parts of one access. owner may be the home's own trace, or NULL: then a page
 * that came from an owner has that time in PART_HOME. Accesses that overlap in time
 * are not told apart if they are of the same page.
 *
 * Where the program goes on before the master has stamped that it was woken (on
 * one core that is usual), waking is in PART_COPY and PART_WAKE is 0.
 */
enum join_result join_fault(const struct access *a, const struct trace *requester,
			    const struct trace *home, const struct trace *owner,
			    struct joined *out);

#endif
