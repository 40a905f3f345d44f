#include "bench/wvmbench/args.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t arg_number(struct argp_state *state, const char *what, const char *text, uint64_t min,
		    uint64_t max)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno != 0 || end == text || *end != '\0' || *text == '-' || value < min || value > max)
		argp_error(state, "%s: '%s' is not from %llu to %llu", what, text,
			   (unsigned long long)min, (unsigned long long)max);
	return value;
}

unsigned arg_list(struct argp_state *state, const char *what, char *text, uint64_t min,
		  uint64_t max, int *out)
{
	char *save, *word;
	unsigned n = 0;

	for (word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		if (n == ARG_LISTS)
			argp_error(state, "%s: more than %u numbers", what, ARG_LISTS);
		out[n++] = (int)arg_number(state, what, word, min, max);
	}
	if (n == 0)
		argp_error(state, "%s: no number given", what);
	return n;
}
