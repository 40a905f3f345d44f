/*
 * What a shard knows of the other members: round-trip estimate and congestion
 * window for its own requests, and the window of request ids it has seen.
 */
#ifndef WVM_CORE_PEER_H
#define WVM_CORE_PEER_H

#include "shared/core/msg.h"

#define WVM_SEEN_BITS 4096u /* a request older than half of this is asked again under a new id */

/* Ids seen of one (member, shard). 528 bytes. */
struct wvm_seen {
	uint64_t highest; /* counter part */
	uint16_t boot;    /* 0: nothing seen yet */
	uint64_t bits[WVM_SEEN_BITS / 64];
};

/* One member, as the target of this shard's requests. */
struct wvm_peer {
	uint64_t srtt_ns; /* RFC 6298; 0: no sample yet */
	uint64_t rttvar_ns;
	uint64_t halved_ns; /* when the window was halved last: once per round trip */
	uint32_t window;    /* requests that may be on their way, times WVM_WINDOW_ONE */
	uint32_t in_flight;
	uint32_t queue_head; /* requests that wait for the window, oldest first; slot + 1 */
	uint32_t queue_tail;
	uint32_t demands;   /* slots that its demands as a home hold: wvm_holder_demand() */
	uint32_t pulls;     /* slots for pages that somebody waits for, and it was the home of */
	uint32_t copies[2]; /* slots of messages to it as a second home: see backup.h */
	uint16_t life;   /* and the first boot of those that took each other over; 0: not known */
	uint16_t told;   /* of its shards, from the first on, so many have told all: rebuild.c */
	uint16_t shards; /* and it has so many; 0: not known */
	bool silent;     /* as a former home: see handover.c */
	bool gone;       /* wvm_core_gone() */
	bool lost;       /* wvm_core_lost() */
};

#define WVM_WINDOW_ONE     256u /* fixed point: additive increase by 1/window per answer */
#define WVM_WINDOW_INITIAL (32u * WVM_WINDOW_ONE)
#define WVM_WINDOW_MIN     (2u * WVM_WINDOW_ONE)
#define WVM_WINDOW_MAX     (1024u * WVM_WINDOW_ONE)

/*
 * Whether a request id may be acted on: STALE when it is of an older boot or
 * below the window. Notes nothing: what is dropped later for lack of room must
 * be able to come again.
 */
enum wvm_drop wvm_seen_check(const struct wvm_seen *seen, uint64_t request);

/* Notes the id. A newer boot starts over. False when it was noted before: a retry. */
bool wvm_seen_note(struct wvm_seen *seen, uint64_t request);

void wvm_peer_init(struct wvm_peer *peer);

/* One answer to a request that was sent once (Karn): a sample of the round trip. */
void wvm_peer_sample(struct wvm_peer *peer, uint64_t rtt_ns);

/* An answer came: the window grows. A retry was due: it is halved, once per round trip. */
void wvm_peer_answered(struct wvm_peer *peer);
void wvm_peer_timed_out(struct wvm_peer *peer, uint64_t now_ns);

/* Whether one more request may leave. */
bool wvm_peer_open(const struct wvm_peer *peer);

/* The retry timeout before back-off, within [min_ns, max_ns]; initial_ns while there is no sample.
 */
uint64_t wvm_peer_rto(const struct wvm_peer *peer, uint64_t min_ns, uint64_t initial_ns,
		      uint64_t max_ns);

#endif
