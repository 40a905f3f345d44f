/*
 * What the daemons have in common before and beside their shards: the command line, the
 * log, signals. Functions that read an argument end the program with status 1 and one line when
 * it makes no sense.
 */
#ifndef WVM_RING_DAEMON_H
#define WVM_RING_DAEMON_H

#include <argp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

/* One line to standard error, behind the program's name. Any thread. */
__attribute__((format(printf, 1, 2))) void wvm_log(const char *format, ...);

/* Blocks what ends a daemon, so that it can wait for it; before it starts threads. */
void wvm_daemon_signals(sigset_t *set);
/* As many descriptors as are permitted. */
void wvm_daemon_files(void);

/* `what` names the argument in the message. */
uint64_t wvm_arg_number(struct argp_state *state, const char *what, const char *text, uint64_t min,
			uint64_t max);
void wvm_arg_text(struct argp_state *state, const char *what, char *to, size_t room,
		  const char *value);
/*
 * N, or "auto": what WVM_CORE_OVERRIDE says, else as many CPUs as are worth using, `most` at
 * most.
 */
unsigned wvm_arg_cores(struct argp_state *state, const char *what, const char *text, unsigned most);

/* Unless it is set: the environment's, else /dev/shm/wavevm-INSTANCE and the ending. */
void wvm_arg_path(char *to, size_t room, const char *variable, uint32_t phys_id,
		  const char *ending);

#endif
