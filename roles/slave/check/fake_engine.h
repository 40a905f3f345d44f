/*
 * An engine for tests: this program, started by the slave. It does what the first byte of a run's
 * state says, and counts how often it has executed each.
 */
#ifndef WVM_SLAVE_CHECK_FAKE_ENGINE_H
#define WVM_SLAVE_CHECK_FAKE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#define FAKE_COUNTS_ENV "WVM_CHECK_COUNTS" /* the file of the counts */
#define FAKE_VCPUS      4u
#define FAKE_SEQS       8192u

enum fake_wish {
	FAKE_ECHO = 'e',   /* KICKED, with the run's state */
	FAKE_SPIN = 's',   /* the same, but not before a kick */
	FAKE_DIE = 'd',    /* exits with status 7 */
	FAKE_LIE = 'l',    /* answers what is no answer */
	FAKE_WRONG = 'w',  /* answers another seq */
	FAKE_PORT = 'p',   /* within an instruction */
	FAKE_REFUSE = 'r', /* BASE */
	FAKE_LARGE = 'g',  /* an answer as large as they get */
};

/* Shared with the test; atomic. */
struct fake_counts {
	uint32_t starts;
	int pid; /* of the last one */
	uint32_t executed[FAKE_VCPUS][FAKE_SEQS];
};

/* Whether the slave has started this process; then it never returns otherwise. */
bool fake_engine_wanted(void);
int fake_engine(void);

/* A view of the counts in the file; makes it. */
struct fake_counts *fake_counts(const char *path);

#endif
