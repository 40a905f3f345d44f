/*
 * The wire's control door: a Unix datagram socket. A command is one datagram,
 * its answer another: "ok", "error: ..." or what was asked for.
 */
#ifndef WVM_WIRE_CONTROL_H
#define WVM_WIRE_CONTROL_H

#include <stddef.h>

#define WVM_CONTROL_MAX 16384 /* bytes of a command or an answer */

/*
 * Opens the door at path; a socket left there by a wire that is gone is
 * replaced, -EADDRINUSE when one still answers. Returns a descriptor that does
 * not block, or -errno.
 */
int wvm_control_open(const char *path);

/* Fills answer (WVM_CONTROL_MAX bytes, a string) with the answer to a command. */
typedef void wvm_control_fn(void *opaque, char *command, char *answer);

/* Serves every command that waits at the door. */
void wvm_control_serve(int fd, wvm_control_fn *fn, void *opaque);

/*
 * Sends a command to the wire behind path and waits up to 5 s for the answer
 * (WVM_CONTROL_MAX bytes, a string). 0 or -errno.
 */
int wvm_control_tell(const char *path, const char *command, char *answer);

#endif
