/* What a node's master takes of this machine's memory, counted by the kernel. */
#ifndef WVMBENCH_USAGE_H
#define WVMBENCH_USAGE_H

#include <stdint.h>
#include <sys/types.h>

/* A node of this machine: its master's process and the prefix of its files. */
struct usage_node {
	const char *prefix; /* --shm-file */
	pid_t pid;
};

/* In bytes; of files: blocks that are there. */
struct usage {
	uint64_t directory; /* files of the home's tables: all that are none of the others */
	uint64_t holder;    /* files named *.held* */
	uint64_t fixed;     /* *.durable, *.outbox, *.state: the same for every VM */
	uint64_t guest;     /* RAM files and *.store: pages of guests, not what they cost */
	uint64_t process; /* the master's resident memory without the files, and its page tables */
};

/* 0 or -errno with a line. */
int usage_of(const struct usage_node *node, struct usage *out);

/* A figure of /proc/PID/status that is given in kB, as "VmPTE", in bytes. 0 or -errno with a line.
 */
int usage_status(pid_t pid, const char *name, uint64_t *bytes);

#endif
