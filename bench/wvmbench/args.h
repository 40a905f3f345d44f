/* Numbers on the command line. */
#ifndef WVMBENCH_ARGS_H
#define WVMBENCH_ARGS_H

#include <argp.h>
#include <stdint.h>

#define ARG_LISTS 64u

/* Reads a number; ends the program with the usage if it is not from min to max. */
uint64_t arg_number(struct argp_state *state, const char *what, const char *text, uint64_t min,
		    uint64_t max);

/* Reads "1,8" into out, at most ARG_LISTS of them, or ends the same. Returns how many there are. */
unsigned arg_list(struct argp_state *state, const char *what, char *text, uint64_t min,
		  uint64_t max, int *out);

#endif
