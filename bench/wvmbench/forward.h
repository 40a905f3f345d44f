/*
 * The floor of a gateway: a process that takes datagrams by recvmmsg() and sends each on by
 * sendmmsg(), to one place, and looks at nothing.
 */
#ifndef WVMBENCH_FORWARD_H
#define WVMBENCH_FORWARD_H

#include <netinet/in.h>
#include <sys/types.h>

/* So many datagrams at most per system call. */
#define FORWARD_BATCH 64u

/*
 * Starts it on a core (-1: not pinned), with a socket on 127.0.0.1, whose port goes to *port. It
 * ends with its parent, or by a signal. -errno.
 */
pid_t forward_start(int core, const struct sockaddr_in *to, uint16_t *port);

/* A UDP socket on 127.0.0.1 with room for bytes on its way in; *port is its own. -errno. */
int forward_socket(int bytes, uint16_t *port);

#endif
