/*
 * The floor: the least work that a remote page fault over UDP can be, without
 * any protocol. What WaveVM adds is measured against it.
 *
 *   A  threads that touch pages of a /dev/shm file, registered with a
 *      userfaultfd for MISSING and WP
 *   M  reads the faults, asks the home, installs the pages
 *   H  the home: another process, answers with the page
 *
 * M is a thread of A's process (two processes) or a process of its own that
 * takes the userfaultfd by pidfd_getfd (three, as a WaveVM node has it). The
 * system calls and datagrams are those of WaveVM: io_uring with multishot
 * receive into provided buffers, GRO in and GSO out, a 64-byte header per
 * segment, a page as 1472 + 1472 + 1344 bytes, a crc32c over each segment on
 * both sides, one copy into a page buffer, UFFDIO_COPY.
 */
#ifndef WVM_FLOOR_H
#define WVM_FLOOR_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define FLOOR_PAGE       4096u
#define FLOOR_HEADER     64u
#define FLOOR_SEGMENT    1408u /* payload bytes per datagram but the last; shared/PROTOCOL.md */
#define FLOOR_SEGMENTS   3u
#define FLOOR_THREADS    64u
#define FLOOR_BUFFER     65536u /* a GRO batch */
#define FLOOR_UFFD_BATCH 16u

enum floor_op {
	FLOOR_LOCAL,   /* read of a page that M fills with zeros by itself */
	FLOOR_ZERO,    /* read that H answers with a header: a zero page */
	FLOOR_READ,    /* read that H answers with the page */
	FLOOR_UPGRADE, /* write to a page that was read: H answers with a header */
	FLOOR_WRITE,   /* write to a page that is not there: H answers with the page */
	FLOOR_OPS,
	FLOOR_STOP /* M and H end */
};

/* The 64 bytes before each payload, in host order: it never leaves the machine. */
struct floor_header {
	uint32_t crc; /* crc32c of header (with 0 here) and payload */
	uint16_t op;
	uint16_t length; /* payload bytes of this segment */
	uint32_t offset; /* of the payload in the page */
	uint32_t total;  /* payload bytes of the whole answer: 0 or FLOOR_PAGE */
	uint64_t page;   /* number in the region */
	uint64_t zero[5];
};
_Static_assert(sizeof(struct floor_header) == FLOOR_HEADER, "a header is 64 bytes");

/* What was asked for on the command line. */
struct floor_options {
	unsigned threads, processes; /* processes: 2 or 3 */
	uint64_t pages;              /* per phase, all threads together */
	int core_a, core_m, core_h;  /* -1: not pinned */
	bool spin, blocking, json, histogram;
	uint64_t stream_bytes; /* not 0: measure a stream of so many instead of faults */
	bool raw, place, huge;
	uint64_t relay_runs; /* not 0: measure so many runs through relays */
	unsigned relay_bytes;
};

/* Shared by the processes; each field has one writer at a time, ordered by stage. */
struct floor_shared {
	_Atomic int stage;   /* a region's life, see below */
	_Atomic int op;      /* what reads of missing pages mean: enum floor_op */
	_Atomic bool failed; /* M or H gave up, having said why */
	int uffd;            /* A's descriptor number */
	uint64_t base,
		pages; /* address and size of A's region; page number `pages` ends M's loop */
	struct sockaddr_in home;
};
enum { STAGE_NONE, STAGE_REGION, STAGE_SERVING, STAGE_ENDED, STAGE_QUIT };

/* Pins the calling thread to a core; -1: not. Ends the program if that fails. */
void floor_pin(int core);

/* Prints what and errno, marks the run failed and ends the process. */
void floor_die(const char *what) __attribute__((noreturn));
void floor_set_shared(struct floor_shared *shared);

/* fork() of a child that dies with this process. Ends the program if that fails. */
pid_t floor_spawn(void);

/* A UDP socket on 127.0.0.1 with GRO on; its address goes to *address. */
int floor_socket(struct sockaddr_in *address);

/* CLOCK_MONOTONIC, ns. */
uint64_t floor_now(void);

/* Whether a spinning thread on core `own` must give way to others on cores x and y. */
bool floor_must_yield(int own, int x, int y);

/* What word `word` (of 8 bytes) of page `page` holds at the home. */
uint64_t floor_pattern(uint64_t page, unsigned word);

/* Fills in the checksum of a segment, payload included. */
void floor_seal(struct floor_header *header, const void *payload);

/*
 * Checks a segment of len bytes and copies its payload to page + offset, in one pass. Returns its
 * header, NULL if it is damaged.
 */
const struct floor_header *floor_open(const uint8_t *data, size_t len, uint8_t *page);

/* The home's process; never returns. fd: its bound socket. */
void floor_home(const struct floor_options *o, const struct floor_shared *shared, int fd)
	__attribute__((noreturn));

/* M: serves regions as they come until STAGE_QUIT. a: pidfd of A, or -1 in A's own process. */
void floor_master(const struct floor_options *o, struct floor_shared *shared, int a);

#endif
