/*
 * What a run of a remote processor carries, and its answer (shared/PROTOCOL.md, Processors):
 * the head of each in decoded form, and where the parts behind it lie. Numbers are big-endian on
 * the wire. Decoding is total. No clock, no I/O, no allocation; any thread.
 *
 *	run      head (48 bytes), setup, state, data       each padded to 8 bytes
 *	answer   head (64 bytes), state, data
 */
#ifndef WVM_SHARED_VCPU_H
#define WVM_SHARED_VCPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WVM_VCPU_RUN_HEAD  48u
#define WVM_VCPU_EXIT_HEAD 64u
#define WVM_VCPU_MAX       256u /* processors of a VM */

/* What runs it. The states of two kinds have nothing in common. */
enum wvm_vcpu_engine {
	WVM_VCPU_ENGINE_KVM = 1,
	WVM_VCPU_ENGINE_TCG = 2,
	WVM_VCPU_ENGINES,
};

enum wvm_vcpu_run_flag {
	WVM_VCPU_RUN_WHOLE = 1, /* the state differs from zeros, not from the base's */
	WVM_VCPU_RUN_RESUME =
		2, /* data is what the access of the last exit has read (or is empty) */
	WVM_VCPU_RUN_INJECT = 4, /* take the interrupt `vector` first */
	WVM_VCPU_RUN_WINDOW = 8, /* end as soon as an interrupt could be taken */
	WVM_VCPU_RUN_GET = 16,   /* end at once, with the state: nothing but a RESUME is executed */
	WVM_VCPU_RUN_STAY = 32,  /* the state need not come with HLT, WINDOW and KICKED */
};
#define WVM_VCPU_RUN_FLAGS 63u

struct wvm_vcpu_run {
	uint8_t engine;         /* enum wvm_vcpu_engine */
	uint8_t flags;          /* enum wvm_vcpu_run_flag, or'ed */
	uint8_t vector;         /* INJECT */
	uint32_t setup_version; /* of the machine: its memory map, its kind of processor. The slave
				 * that has not this one refuses (WVM_RUN_SETUP) unless setup comes
				 * along */
	uint64_t base;          /* seq of the run whose answer the state differs from; 0: WHOLE */
	uint64_t ticks;         /* the guest's time stamp counter at the owner when this left */
	uint32_t layout; /* of the state's sections, a hash; the same on both sides or refused */
	const uint8_t *setup, *state, *data;
	uint32_t setup_len, state_len, data_len; /* 0: none */
};

/* Why a run ended. */
enum wvm_vcpu_exit_kind {
	WVM_VCPU_EXIT_KICKED = 1, /* by VCPU_KICK, GET, or for reasons of its own */
	WVM_VCPU_EXIT_PIO,
	WVM_VCPU_EXIT_MMIO,
	WVM_VCPU_EXIT_HLT,
	WVM_VCPU_EXIT_MSR,    /* one that the engine leaves to the owner */
	WVM_VCPU_EXIT_WINDOW, /* an interrupt can be taken, as was asked for */
	WVM_VCPU_EXIT_SHUTDOWN,
	WVM_VCPU_EXIT_ERROR, /* the engine cannot go on; data is one line that says why */
	WVM_VCPU_EXIT_APIC,  /* the processor changed something of its interrupt controller: at =
				which */
	WVM_VCPU_EXIT_KINDS,
};

enum wvm_vcpu_exit_flag {
	WVM_VCPU_EXIT_STATE =
		1, /* complete: it can go on elsewhere. The difference from the base */
	WVM_VCPU_EXIT_MIDWAY = 2, /* within an instruction: the next run must RESUME, here */
	WVM_VCPU_EXIT_OPEN = 4,   /* an interrupt can be taken now */
	WVM_VCPU_EXIT_WRITE = 8,  /* PIO, MMIO, MSR: by the guest; data is what it wrote */
	WVM_VCPU_EXIT_IF = 16,    /* interrupts are enabled (RFLAGS.IF) */
	WVM_VCPU_EXIT_STAYS = 32, /* the state stayed: the next run is here, and changes none */
};
#define WVM_VCPU_EXIT_FLAGS 63u

struct wvm_vcpu_exit {
	uint8_t kind;    /* enum wvm_vcpu_exit_kind */
	uint8_t flags;   /* enum wvm_vcpu_exit_flag, or'ed */
	uint8_t size;    /* PIO, MMIO: bytes of one access: 1, 2, 4, 8 */
	uint32_t count;  /* PIO: accesses of a string instruction, else 1 */
	uint64_t at;     /* port, guest-physical address, number of the MSR */
	uint64_t base;   /* seq of the run whose answer the state differs from; 0: from zeros */
	uint64_t ticks;  /* the guest's time stamp counter there when it ended */
	uint64_t ran_ns; /* how long it ran */
	uint64_t ip;     /* its instruction pointer, for lists; 0 where it is not at hand */
	const uint8_t *state, *data;
	uint32_t state_len, data_len;
};

/* Bytes of the encoded run or answer with these lengths. */
size_t wvm_vcpu_run_bytes(const struct wvm_vcpu_run *r);
size_t wvm_vcpu_exit_bytes(const struct wvm_vcpu_exit *e);

/*
 * Writes it to out. A part that lies at its place in out already is left there (NULL pointers
 * with a length mean this, too). Returns the bytes, or 0 when room is too small.
 */
size_t wvm_vcpu_run_encode(void *out, size_t room, const struct wvm_vcpu_run *r);
size_t wvm_vcpu_exit_encode(void *out, size_t room, const struct wvm_vcpu_exit *e);

/* Where the state begins in an encoded answer, and in a run with that much setup. */
static inline size_t wvm_vcpu_exit_state_at(void)
{
	return WVM_VCPU_EXIT_HEAD;
}

static inline size_t wvm_vcpu_run_state_at(uint32_t setup_len)
{
	return WVM_VCPU_RUN_HEAD + (((size_t)setup_len + 7) & ~(size_t)7);
}

/* Decodes any bytes. 0, or -EBADMSG. The parts point into in. */
int wvm_vcpu_run_decode(const void *in, size_t len, struct wvm_vcpu_run *r);
int wvm_vcpu_exit_decode(const void *in, size_t len, struct wvm_vcpu_exit *e);

/* "PIO", "HLT", … ; "unknown" for others. */
const char *wvm_vcpu_exit_name(unsigned kind);

/*
 * The setup, so that an engine can be started for a VM: text, "key value" lines.
 *
 *	vcpus N             processors of the VM
 *	ticks HZ            at which the owner's time stamp counter counts, 1000000 to 100000000000
 *	era N               another one each time that the VM goes on, 1 to 4294967295: its counter
 *			    stood still, and a slave's is set to what the run says
 *	cpu TEXT            QEMU's -cpu, characters A-Z a-z 0-9 _ . , + = - and at most 256 of them
 *	map GPA LEN OFFSET  guest-physical memory that is the VM's RAM file from OFFSET; with "ro"
 *behind it: writes are the owner's (ROM). Hexadecimal, page-aligned, ascending, no overlaps
 *
 * All else is the owner's.
 */
#define WVM_VCPU_SETUP_MAX 8192u
#define WVM_VCPU_MAPS_MAX  64u
#define WVM_VCPU_CPU_MAX   256u
#define WVM_VCPU_TICKS_MIN UINT64_C(1000000)
#define WVM_VCPU_TICKS_MAX UINT64_C(100000000000)

struct wvm_vcpu_map {
	uint64_t gpa, len, offset;
	bool read_only;
};

struct wvm_vcpu_setup {
	uint32_t vcpus;
	uint32_t maps;
	uint64_t ticks_hz;              /* 0: not said */
	uint64_t era;                   /* 0: not said */
	char cpu[WVM_VCPU_CPU_MAX + 1]; /* empty: not said */
	struct wvm_vcpu_map map[WVM_VCPU_MAPS_MAX];
};

/* 0, or -EBADMSG with one line in err. */
int wvm_vcpu_setup_parse(const void *text, size_t len, struct wvm_vcpu_setup *setup, char *err,
			 size_t err_len);
/* The text; its length, or 0 when room is too small. */
size_t wvm_vcpu_setup_print(const struct wvm_vcpu_setup *setup, char *out, size_t room);

/* What a slave says of itself (VCPU_HELLO with ANSWER), 16 bytes on the wire; its life is the
 * grant. */
#define WVM_VCPU_HELLO_BYTES 16u
struct wvm_vcpu_hello {
	uint32_t engines; /* 1 << enum wvm_vcpu_engine, or'ed */
	uint32_t cores;
	uint32_t running; /* processors that it runs now */
};

void wvm_vcpu_hello_encode(uint8_t out[WVM_VCPU_HELLO_BYTES], const struct wvm_vcpu_hello *h);
int wvm_vcpu_hello_decode(const void *in, size_t len, struct wvm_vcpu_hello *h);

#endif
