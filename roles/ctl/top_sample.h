/*
 * What `wvm_ctl top` keeps of one daemon at one time, and what two of these say of the time
 * between them. No I/O and no clock: times are the daemon's own.
 *
 * The answers come from anywhere: all text is cut to its field and has no character that a terminal
 * would obey, a negative number is 0, and whatever is left out or of another type is 0, too.
 */
#ifndef WVM_CTL_TOP_SAMPLE_H
#define WVM_CTL_TOP_SAMPLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WVM_TOP_BUCKETS_MAX 64u
#define WVM_TOP_MEMBERS_MAX 256u /* the rest is a number */

/* Counters that only rise, as long as the daemon lives. */
enum wvm_top_counter {
	WVM_TOP_FAULTS_READ,
	WVM_TOP_FAULTS_WRITE,
	WVM_TOP_DROPS, /* datagrams and messages that went no further, for whatever reason */
	WVM_TOP_FORWARDED,
	WVM_TOP_DATAGRAMS,
	WVM_TOP_PUSHED_BACK,
	WVM_TOP_COUNTERS
};

struct wvm_top_member {
	uint64_t node, since_ms;
	bool heard; /* false: since_ms is for how long it was not */
	char address[24], member[12], life[12], status[12];
};

/* [i]: below 2^i µs, the last one whatever is above the one before. */
struct wvm_top_buckets {
	unsigned count;
	uint64_t n[WVM_TOP_BUCKETS_MAX];
};

/* 24 KiB. */
struct wvm_top_sample {
	bool gateway;
	uint64_t node; /* of a master */
	char state[16];
	uint64_t boot, uptime_s;
	uint64_t monotonic_ns; /* the daemon's clock when it read its counters */
	uint64_t counter[WVM_TOP_COUNTERS];
	struct wvm_top_buckets read, write; /* faults that asked a home */
	uint64_t held_bytes, homed_bytes;   /* guest pages that are here; whose directory is */
	uint64_t requests;                  /* under way */
	uint64_t waiting, buffers;          /* of a gateway: datagrams in its queues, of so many */
	bool has_vcpus, has_members;        /* the daemon knows these requests */
	uint64_t vcpus, vcpus_running;      /* of its QEMU, that may run elsewhere */
	bool watching;
	char why_not[80];
	unsigned member_count;
	uint64_t members_left_off;
	struct wvm_top_member member[WVM_TOP_MEMBERS_MAX];
};

/* Copies text for a terminal: what is not printable ASCII becomes '?'. NULL: "?". */
void wvm_top_clean(char *out, size_t size, const char *text);

/*
 * Parts of a sample, from the answers to STATUS (which begins it), STATS, MEMBERS and VCPUS. 0, or
 * -EPROTO when that is not such an answer.
 */
int wvm_top_read_status(struct wvm_top_sample *s, const json_t *status);
int wvm_top_read_stats(struct wvm_top_sample *s, const json_t *stats);
int wvm_top_read_members(struct wvm_top_sample *s, const json_t *members);
int wvm_top_read_vcpus(struct wvm_top_sample *s, const json_t *vcpus);

/* In µs; both 0 when count is. */
struct wvm_top_latency {
	uint64_t count;
	double p50_us, p99_us;
};

struct wvm_top_rates {
	bool known;     /* false: all else but restarted is 0 */
	bool restarted; /* between the two: there is no difference to speak of */
	double interval_s;
	double per_s[WVM_TOP_COUNTERS];
	struct wvm_top_latency read, write, all;
};

/* Never negative, never NaN. */
void wvm_top_rates(const struct wvm_top_sample *before, const struct wvm_top_sample *now,
		   struct wvm_top_rates *r);

/*
 * The time in µs below which a part (0 to 1) of what is in the buckets lies: the bucket is exact,
 * within it all are taken to lie evenly. What is in the last one has no upper bound and counts
 * as the lower one. 0 when nothing is in them.
 */
double wvm_top_percentile(const struct wvm_top_buckets *b, double part);

#endif
