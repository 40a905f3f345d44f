/* The text form of what a wire does to its frames. */
#include "impair.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPEC_MAX 1024

struct unit {
	const char *name;
	double factor;
};

static const struct unit TIMES[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {0}};
static const struct unit RATES[] = {{"bit", 1}, {"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {0}};
static const struct unit PERCENT[] = {{"%", 0.01}, {0}};

/* Reads "12.5ms": a number that is not negative and one of the units. */
static bool quantity(const char *text, const struct unit *unit, double max, double *out)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || !(value >= 0))
		return false;
	for (; unit->name; unit++)
		if (!strcmp(end, unit->name)) {
			*out = value * unit->factor;
			return *out <= max;
		}
	return false;
}

static bool integer_quantity(const char *text, const struct unit *unit, double max, uint64_t *out)
{
	double value;

	if (!quantity(text, unit, max, &value))
		return false;
	*out = (uint64_t)(value + 0.5);
	return true;
}

/* Reads one group of ports, "2,3", up to '|' or the end, into a set. */
static bool group(char **text, uint64_t *set)
{
	for (*set = 0;; ++*text) {
		char *end;
		unsigned long port = strtoul(*text, &end, 10);

		if (end == *text || **text < '0' || **text > '9' || port < 1 ||
		    port > WVM_WIRE_PORTS)
			return false;
		*set |= 1ull << (port - 1);
		*text = end;
		if (*end == '|' || *end == '\0')
			return true;
		if (*end != ',')
			return false;
	}
}

static bool partition(struct wvm_chaos *chaos, char *text)
{
	uint64_t groups[WVM_WIRE_PORTS], all = 0;
	unsigned n = 0;

	for (;; text++) {
		if (n == WVM_WIRE_PORTS || !group(&text, &groups[n]) || (all & groups[n]) != 0)
			return false;
		all |= groups[n++];
		if (*text == '\0')
			break;
	}
	memset(chaos->blocked, 0, sizeof(chaos->blocked));
	for (unsigned i = 0; i < n; i++)
		for (unsigned port = 1; port <= WVM_WIRE_PORTS; port++)
			if (groups[i] >> (port - 1) & 1)
				chaos->blocked[port] = all & ~groups[i];
	return n > 1;
}

/* Applies "word value". */
static bool apply(struct wvm_chaos *chaos, const char *word, char *value)
{
	if (!strcmp(word, "loss"))
		return quantity(value, PERCENT, 1, &chaos->loss);
	if (!strcmp(word, "duplicate"))
		return quantity(value, PERCENT, 1, &chaos->duplicate);
	if (!strcmp(word, "reorder"))
		return quantity(value, PERCENT, 1, &chaos->reorder);
	if (!strcmp(word, "delay"))
		return integer_quantity(value, TIMES, 60e9, &chaos->delay_ns);
	if (!strcmp(word, "jitter"))
		return integer_quantity(value, TIMES, 60e9, &chaos->jitter_ns);
	if (!strcmp(word, "rate"))
		return integer_quantity(value, RATES, 1e12, &chaos->rate_bps);
	if (!strcmp(word, "partition"))
		return partition(chaos, value);
	return false;
}

int wvm_chaos_parse(struct wvm_chaos *chaos, const char *spec, char *err, size_t err_len)
{
	struct wvm_chaos next = *chaos;
	char text[SPEC_MAX], *save, *word, *value;

	if (strlen(spec) >= sizeof(text)) {
		snprintf(err, err_len, "specification longer than %d bytes", SPEC_MAX - 1);
		return -EINVAL;
	}
	strcpy(text, spec);
	for (word = strtok_r(text, " \t\r\n", &save); word;
	     word = strtok_r(NULL, " \t\r\n", &save)) {
		if (!strcmp(word, "heal")) {
			memset(next.blocked, 0, sizeof(next.blocked));
			continue;
		}
		if (!strcmp(word, "clear")) {
			memset(&next, 0, sizeof(next));
			continue;
		}
		value = strtok_r(NULL, " \t\r\n", &save);
		if (!value || !apply(&next, word, value)) {
			snprintf(err, err_len, "cannot use '%s%s%s'", word, value ? " " : "",
				 value ? value : "");
			return -EINVAL;
		}
	}
	*chaos = next;
	return 0;
}
