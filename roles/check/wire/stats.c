/* The wire's counters, for people and for programs. */
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void add(struct wvm_port_stats *sum, const struct wvm_port_stats *s)
{
	sum->in += s->in;
	sum->lost += s->lost;
	sum->blocked += s->blocked;
	sum->overflow += s->overflow;
	sum->duplicated += s->duplicated;
	sum->held += s->held;
	sum->reordered += s->reordered;
	sum->forwarded += s->forwarded;
}

static struct wvm_port_stats total(const struct wvm_wire *wire)
{
	struct wvm_port_stats sum = {0};

	for (unsigned i = 1; i <= wire->n_ports; i++)
		add(&sum, &wire->impair.stats[i]);
	return sum;
}

void wvm_wire_print(const struct wvm_wire *wire, FILE *out)
{
	struct wvm_port_stats t = total(wire);

	fprintf(out,
		"wire: %" PRIu64 " frames in, %" PRIu64 " lost, %" PRIu64 " duplicated, %" PRIu64
		" reordered, %" PRIu64 " blocked, %" PRIu64 " overflow, %" PRIu64 " forwarded\n",
		t.in, t.lost, t.duplicated, t.reordered, t.blocked, t.overflow, t.forwarded);
	fflush(out);
}

static void print_counters(FILE *out, const struct wvm_port_stats *s)
{
	fprintf(out,
		"\"in\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"blocked\": %" PRIu64
		", \"overflow\": %" PRIu64 ", \"duplicated\": %" PRIu64 ", \"held\": %" PRIu64
		", \"reordered\": %" PRIu64 ", \"forwarded\": %" PRIu64,
		s->in, s->lost, s->blocked, s->overflow, s->duplicated, s->held, s->reordered,
		s->forwarded);
}

void wvm_wire_print_json(const struct wvm_wire *wire, FILE *out)
{
	struct wvm_port_stats sum = total(wire);

	fprintf(out, "{\"seed\": %" PRIu64 ", \"total\": {", wire->impair.seed);
	print_counters(out, &sum);
	fprintf(out, "}, \"ports\": [");
	for (unsigned i = 1; i <= wire->n_ports; i++) {
		fprintf(out, "%s\n{\"port\": %u, \"netns\": \"%s\", ", i > 1 ? "," : "", i,
			wire->port[i].netns);
		print_counters(out, &wire->impair.stats[i]);
		fprintf(out, ", \"undelivered\": %" PRIu64 "}", wire->port[i].undelivered);
	}
	fprintf(out, "]}\n");
}

int wvm_wire_save_stats(const struct wvm_wire *wire)
{
	char path[4096];
	FILE *out;
	int bad;

	if (!wire->stats_path)
		return 0;
	if ((size_t)snprintf(path, sizeof(path), "%s.new", wire->stats_path) >= sizeof(path))
		return -ENAMETOOLONG;
	out = fopen(path, "w");
	if (!out)
		return -errno;
	wvm_wire_print_json(wire, out);
	bad = ferror(out);
	if (fclose(out) != 0 || bad)
		return -EIO;
	return rename(path, wire->stats_path) < 0 ? -errno : 0;
}
