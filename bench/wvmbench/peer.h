/* The other node's part of a measurement: a program there that writes and reads as it is told. */
#ifndef WVMBENCH_PEER_H
#define WVMBENCH_PEER_H

#include <stdint.h>
#include <sys/types.h>

struct peer_options {
	const char *ring;
	unsigned slot; /* 1 .. MAILBOX_PEERS */
	uint16_t vm_id;
	int core; /* -1: not pinned */
};

/* `wvmbench peer`: serves commands until MAILBOX_QUIT. Returns the exit status. */
int peer_main(const struct peer_options *o);

/* Starts such a program as a child that ends with this process. Its pid, or -errno. */
pid_t peer_spawn(const struct peer_options *o);

#endif
