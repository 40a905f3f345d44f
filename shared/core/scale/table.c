/* Results as a table and as JSON. */
#include <errno.h>
#include <jansson.h>

#include "shared/core/scale/scale.h"

static void times(FILE *f, const struct scale_spread *s)
{
	fprintf(f, " %6.2f %6.2f %6.2f ", s->median_ms / 1e3, s->p99_ms / 1e3, s->max_ms / 1e3);
	if (s->reached == s->of)
		fprintf(f, "%8s", "all");
	else
		fprintf(f, "%7.3f%%", s->of ? 100.0 * s->reached / s->of : 0.0);
}

void scale_table(FILE *f, const struct scale_result *r, uint32_t count)
{
	fprintf(f, "%-32s %9s %8s %9s %7s %8s   %s\n", "", "nodes", "view of", "state B/", "sent/",
		"sent B/", "an epoch is known: s");
	fprintf(f, "%-32s %9s %8s %9s %7s %8s %6s %6s %6s %8s\n", "", "", "", "node", "node s",
		"node s", "median", "p99", "max", "by");
	for (uint32_t i = 0; i < count; i++, r++) {
		fprintf(f, "%-32s %9u %8u %9.0f %7.2f %8.0f", r->plan.name, r->hosts,
			r->plan.c.room, r->state_bytes, r->messages, r->bytes);
		times(f, &r->epoch);
		fprintf(f, "\n");
	}
	r -= count;
	fprintf(f, "\n%-32s %22s   %29s   %s\n", "", "first verdict: s", "verdict of each: s",
		"wrong at this loss");
	fprintf(f, "%-32s %6s %6s %6s %8s %6s %6s %6s %8s %7s %9s %6s %6s\n", "", "median", "p99",
		"max", "of", "median", "p99", "max", "of", "loss", "suspected", "dead", "run s");
	for (uint32_t i = 0; i < count; i++, r++) {
		fprintf(f, "%-32s", r->plan.name);
		times(f, &r->first);
		times(f, &r->all);
		fprintf(f, " %6.1f%% %9.3g %6.3g %6.0f\n", r->plan.c.loss_ppm / 1e4, r->suspected,
			r->false_dead, r->seconds);
	}
	r -= count;
	fprintf(f,
		"\nsuspected: accusations of live nodes, per node and hour; dead: notes of all observers that a "
		"live node is dead,\nper node and hour; sent: with the headers of WaveVM, UDP and IP, while "
		"nothing happens.\n");
	for (uint32_t i = 0; i < count; i++, r++)
		fprintf(f, "%s: %s\n", r->plan.name, r->plan.note);
}

static json_t *spread_json(const struct scale_spread *s)
{
	json_t *curve = json_array(),
	       *o = json_pack("{s:i, s:i, s:f, s:f, s:f}", "reached", (int)s->reached, "of",
			      (int)s->of, "median_s", s->median_ms / 1e3, "p99_s", s->p99_ms / 1e3,
			      "max_s", s->max_ms / 1e3);

	for (uint32_t i = 0; curve && s->reached && i < SCALE_CURVE; i++)
		json_array_append_new(curve, json_real(s->curve_ms[i] / 1e3));
	if (o)
		json_object_set_new(o, "percentiles_s", curve);
	return o;
}

static json_t *result_json(const struct scale_result *r)
{
	const struct scale_config *c = &r->plan.c;

	return json_pack(
		"{s:s, s:s, s:I, s:[i,i,i], s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o, "
		"s:o, s:b}",
		"name", r->plan.name, "note", r->plan.note, "nodes", (json_int_t)r->hosts, "tree",
		(int)c->pod, (int)c->pods, (int)c->zones, "view", (int)c->room, "loss",
		c->loss_ppm / 1e6, "period_s", (double)c->gossip.period_ns / 1e9, "suspect_s",
		(double)c->gossip.suspect_ns / 1e9, "state_bytes_per_node", r->state_bytes,
		"messages_per_node_second", r->messages, "bytes_per_node_second", r->bytes,
		"node_hours", r->node_hours, "suspected_per_node_hour", r->suspected,
		"false_dead_per_node_hour", r->false_dead, "epoch_known", spread_json(&r->epoch),
		"first_verdict", spread_json(&r->first), "verdict_of_each", spread_json(&r->all),
		"in_parts", r->plan.processes > 0);
}

int scale_json(const char *path, const struct scale_result *r, uint32_t count)
{
	json_t *all = json_array();
	int error = all ? 0 : -ENOMEM;

	for (uint32_t i = 0; !error && i < count; i++)
		error = json_array_append_new(all, result_json(&r[i])) ? -ENOMEM : 0;
	errno = 0;
	if (!error && json_dump_file(all, path, JSON_INDENT(1)))
		error = errno ? -errno : -EIO;
	json_decref(all);
	return error;
}
