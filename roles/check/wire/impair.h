/*
 * What the wire does to frames, as a data structure with a clock that the
 * caller supplies: frames go in, are lost, copied, held back or delayed, and
 * come out when they are due. No socket, no thread, no allocation after
 * wvm_impair_init().
 *
 * Every decision is a hash of (seed, source port, destination port, number of
 * the frame on that link, kind of decision). So the same seed and the same
 * sequence of frames on a link meet the same fate, whatever other links carry
 * and whichever other impairments are switched on.
 */
#ifndef WVM_WIRE_IMPAIR_H
#define WVM_WIRE_IMPAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WVM_WIRE_PORTS    64 /* ports are numbered 1 .. WVM_WIRE_PORTS; a set of them is one word */
#define WVM_WIRE_HELD     16 /* frames one link may hold back at a time */
#define WVM_WIRE_OVERTAKE 8  /* a frame held back is passed by at most this many later ones */
#define WVM_WIRE_HOLD_NS  1000000ull /* ... or goes after the delay, but at least this long */
#define WVM_WIRE_BURST_NS \
	1000000ull /* the rate limit lets this much time's worth through at once */

/* What is switched on. All zero: a perfect wire. Written by wvm_chaos_parse(). */
struct wvm_chaos {
	double loss, duplicate, reorder; /* probabilities, 0 to 1 */
	uint64_t delay_ns;
	uint64_t jitter_ns;                   /* up to this much more, uniform; keeps the order */
	uint64_t rate_bps;                    /* bits per second into each port; 0: unlimited */
	uint64_t blocked[WVM_WIRE_PORTS + 1]; /* [port]: bit (p - 1) set: no traffic to port p */
};

/* How a frame is treated. */
enum wvm_frame_kind {
	WVM_FRAME_CLEAN, /* ARP and whatever is not IP: always forwarded at once */
	WVM_FRAME_IP,    /* IP but not UDP: only a partition stops it */
	WVM_FRAME_UDP,   /* everything applies */
};

/* Counters of one port. */
struct wvm_port_stats {
	uint64_t in;         /* frames for another port that came from this one, one per receiver */
	uint64_t lost;       /* of those: dropped by `loss` */
	uint64_t blocked;    /* of those: dropped by `partition` */
	uint64_t overflow;   /* of those, or their copies: dropped because the queue was full */
	uint64_t duplicated; /* copies made of those */
	uint64_t held;       /* frames and copies of those that `reorder` held back */
	uint64_t reordered;  /* of the held: really passed by a later frame of the same link */
	uint64_t forwarded;  /* frames handed out for this port */
};

struct wvm_frame {
	uint64_t due_ns;
	uint64_t order;    /* breaks ties: lower goes first */
	uint32_t heap_at;  /* its place in the heap */
	uint32_t len;      /* bytes of data */
	uint8_t src, dst;  /* ports */
	uint8_t overtakes; /* while held: so many later frames may still pass */
	bool held, passed;
};

struct wvm_link {
	uint64_t frames;      /* impaired frames seen */
	uint64_t last_due_ns; /* of the newest frame not held back: keeps the order under jitter */
	uint32_t held[WVM_WIRE_HELD];
	unsigned n_held;
};

struct wvm_impair {
	struct wvm_chaos chaos;
	uint64_t seed, order;
	size_t frame_max;                          /* bytes of the longest frame */
	uint32_t n_frames;                         /* frames that can be queued */
	struct wvm_frame *frame;                   /* [n_frames] */
	unsigned char *data;                       /* [n_frames][frame_max] */
	uint32_t *heap, n_heap;                    /* indices into frame, earliest first */
	uint32_t *idle, n_idle;                    /* stack of unused frames */
	uint32_t out;                              /* the frame given out last, or UINT32_MAX */
	uint64_t port_free_ns[WVM_WIRE_PORTS + 1]; /* rate limit: when the port has sent it all */
	struct wvm_link link[WVM_WIRE_PORTS + 1][WVM_WIRE_PORTS + 1];
	struct wvm_port_stats stats[WVM_WIRE_PORTS + 1];
};

/*
 * Makes room for n_frames queued frames of up to frame_max bytes. 0 or -ENOMEM,
 * -EINVAL. The memory is touched only as far as the queue fills.
 */
int wvm_impair_init(struct wvm_impair *im, uint32_t n_frames, size_t frame_max, uint64_t seed);
void wvm_impair_fini(struct wvm_impair *im);

/*
 * Takes a frame from port src for port dst at time now_ns (which never runs
 * back) and copies it. Returns how many copies were queued: 0, 1 or 2. A frame
 * longer than frame_max counts as overflow.
 */
unsigned wvm_impair_push(struct wvm_impair *im, uint64_t now_ns, unsigned src, unsigned dst,
			 enum wvm_frame_kind kind, const void *data, size_t len);

/* When the next frame is due; UINT64_MAX: nothing is queued. */
uint64_t wvm_impair_next(const struct wvm_impair *im);

/*
 * The next frame that is due at now_ns, or NULL. It stays valid until the next
 * call of wvm_impair_pop() or wvm_impair_push().
 */
const struct wvm_frame *wvm_impair_pop(struct wvm_impair *im, uint64_t now_ns);
const void *wvm_impair_data(const struct wvm_impair *im, const struct wvm_frame *frame);

/*
 * Applies a specification to *chaos, leaving what it does not name as it is:
 *   loss 1%  duplicate 0.5%  reorder 5%  delay 1ms  jitter 200us  rate 100mbit
 *   partition 1|2,3   ports of different groups cannot talk; a port in no group talks to all
 *   heal              ends the partition
 *   clear             a perfect wire again
 * Times take ns, us, ms, s; rates bit, kbit, mbit, gbit. Returns 0, or -EINVAL
 * with one line in err and *chaos unchanged.
 */
int wvm_chaos_parse(struct wvm_chaos *chaos, const char *spec, char *err, size_t err_len);

/* What an Ethernet frame is. */
enum wvm_frame_kind wvm_frame_kind(const unsigned char *frame, size_t len);

#endif
