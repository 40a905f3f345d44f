/* What the files of libwavevm share; not for programs. */
#ifndef WVM_SHARED_CLIENT_PRIV_H
#define WVM_SHARED_CLIENT_PRIV_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/client_ring.h"
#include "shared/spsc.h"
#include "shared/vcpu.h"
#include "shared/wavevm.h"

/*
 * How long a caller waits for the master's answer; one that dies meanwhile is noticed at once. A
 * master that takes a former life over attaches nobody new before it is done. A pin may wait for
 * other nodes' deadlines.
 */
#define WVM_ATTACH_MS 30000
#define WVM_CALL_MS   5000
#define WVM_PIN_MS    35000

/*
 * A ring file as this process has it open: once, however often it attaches,
 * because closing any descriptor of it would drop every slot's lock.
 */
struct wvm_ring_file {
	struct wvm_ring_file *next;
	dev_t dev;
	ino_t ino;
	int fd;
	unsigned refs;
	uint64_t claimed; /* slots of this process */
};

/* Changed under the lock; what a range holds stands from LIVE on, which is published last. */
enum range_state { RANGE_FREE, RANGE_BUSY, RANGE_LIVE };

struct range {
	enum range_state state;
	uint16_t vm_id;
	uint16_t vm_index; /* in the ring file */
	uint32_t mode;
	uint8_t *addr;
	uint64_t gpa, len;
};

/* A range that wvm_pin() holds, so that it can be said to the master's next life. */
struct pinned {
	uint16_t vm_id;
	uint32_t times; /* 0: free */
	uint64_t gpa, len;
};

/* A request that waits for its answer. */
struct call {
	uint64_t token; /* 0: not in use */
	bool done;
	int64_t result;
	struct wvm_stats stats;
};

struct wvm {
	pid_t owner; /* the process that attached; a forked child is not attached */
	struct wvm_ring_file *file;
	unsigned slot;
	uint64_t boot_id; /* the master's life we are, or were last, attached to */
	uint64_t tried_boot_id;
	uint32_t node_id;
	unsigned shards;
	bool poison; /* the kernel has UFFDIO_POISON; only a hint for messages */

	int uffd[WVM_RING_SHARDS_MAX]; /* open until detach: a closed one would let zeros be read */
	int channel_fd, to_master_fd, to_client_fd;
	int stop_fd;      /* eventfd: the helper thread shall end */
	int master_pidfd; /* -1: the master is gone */
	int empty_fd;     /* memfd without a byte, or -1 (see WVM_ERROR_HOW_REPLACE) */
	uint8_t *channel; /* the memfd, mapped */

	pthread_t helper;
	struct wvm_spsc_rx rx; /* the helper's */

	pthread_mutex_t lock; /* guards what follows; never held in a blocking call */
	pthread_cond_t answered;
	struct wvm_spsc_tx tx;
	bool gone;      /* no master: nothing will be answered */
	unsigned lives; /* masters lost so far */
	uint64_t next_token;
	struct call calls[WVM_RING_CALLS_MAX];
	struct range ranges[WVM_RING_MAPS_MAX];
	struct pinned pins[WVM_RING_PINS_MAX];
	struct wvm_vcpu_link *vcpus; /* those that are open */
	uint64_t vcpu_life; /* theirs; and how far those closed since it began had counted */
	uint64_t vcpu_seq[WVM_VCPU_MAX];
	wvm_error_fn *error_fn;
	void *error_opaque;
	struct wvm_stats last_stats;

	/* client_vcpu_link.c: a thread that tells slaves that their answers have come */
	pthread_t ack_thread;     /* while vcpus is not empty */
	int ack_fd;               /* its eventfd */
	bool ack_stop, ack_armed; /* atomic */
	struct code *code;        /* published once; NULL: no wvm_code_watch() */
};

/* Sets the text of wvm_attach_error() and returns err. */
int wvm_client_fail(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- client_file.c: the ring file --- */

/* Opens path, or finds it open. 0 or -errno with the text set. */
int wvm_ring_file_get(struct wvm_ring_file **out, const char *path);
void wvm_ring_file_put(struct wvm_ring_file *f);
/* Locks a slot; its number or -EUSERS. */
int wvm_ring_file_claim(struct wvm_ring_file *f);
void wvm_ring_file_release(struct wvm_ring_file *f, unsigned slot);
/* Reads and checks the header. 0, -EPROTO, -ECONNREFUSED (the master has not started yet). */
int wvm_ring_file_header(struct wvm_ring_file *f, struct wvm_ring_header *h);
/* The living master's pid, 0 when there is none. */
pid_t wvm_ring_file_master(struct wvm_ring_file *f);

/* --- client_link.c: meeting the master --- */

/* Opens uffds, channel, doorbells. 0 or -errno with the text set; wvm_link_close() undoes. */
int wvm_link_open(struct wvm *w, unsigned shards);
/* Writes the slot and waits until the master has attached this client. */
int wvm_link_meet(struct wvm *w, const struct wvm_ring_header *h);
void wvm_link_close(struct wvm *w);

/* --- client_help.c: the helper thread and requests --- */

int wvm_helper_start(struct wvm *w);
void wvm_helper_stop(struct wvm *w);
/*
 * Sends a request (its token is set here) and waits for the answer: its result,
 * -ECONNREFUSED (no master, or a forked child), -ETIMEDOUT, -EBUSY (too many at
 * once). stats may be NULL.
 */
int64_t wvm_call(struct wvm *w, enum wvm_ring_msg type, struct wvm_ring_req *req,
		 struct wvm_stats *stats, int timeout_ms);
/* Queues a request without waiting for its answer; 0 or -errno. w->lock held. */
int wvm_send(struct wvm *w, enum wvm_ring_msg type, struct wvm_ring_req *req);
/* The master looks at what this client has written. */
void wvm_ring_bell(struct wvm *w);

/* --- client_code.c --- */

/* On the helper thread: tells the program of pages that have gone since. */
void wvm_code_look(struct wvm *w);
/* On the helper thread: no master. What the next one says follows what this one said by a gap. */
void wvm_code_lost(struct wvm *w);
/* The descriptor of the code area, -1 without one. */
int wvm_code_fd(struct wvm *w);
void wvm_code_close(struct wvm *w);

/* --- client_vcpu_link.c --- */

/* Every link's thread looks whether there is a master; w->lock held. */
void wvm_vcpus_wake(struct wvm *w);

/* --- client_vcpu_report.c --- */

/* The master says that it has an order for a processor; w->lock held. */
void wvm_vcpus_ordered(struct wvm *w, const struct wvm_ring_order *o);

/* --- client_map.c --- */

/* Ends all ranges: first no access any more, later the unmapping itself. */
void wvm_ranges_close(struct wvm *w);
void wvm_ranges_unmap(struct wvm *w);
/* Makes one page an access error and wakes who waits for it; w->lock held. */
int wvm_page_replace(struct wvm *w, uint64_t addr);

#endif
