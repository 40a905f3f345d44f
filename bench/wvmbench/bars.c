#include "bench/wvmbench/bars.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name, *colour;
	char letter;
} pieces[BAR_PIECES] = {
	[PART_DELIVERY] = {"fault delivery", "#4e79a7", 'd'},
	[PART_QUEUE] = {"queue", "#a0cbe8", 'q'},
	[PART_THERE] = {"wire and home's receive", "#f28e2b", '>'},
	[PART_HOME] = {"home", "#59a14f", 'H'},
	[PART_DEMAND] = {"wire and owner's receive", "#ffbe7d", ')'},
	[PART_OWNER] = {"owner", "#8cd17d", 'O'},
	[PART_GIVE] = {"wire back to home", "#d4a6c8", '('},
	[PART_BACK] = {"wire back and receive", "#e15759", '<'},
	[PART_COPY] = {"copy and map", "#b07aa1", 'c'},
	[PART_WAKE] = {"wake", "#76b7b2", 'w'},
	[PARTS] = {"not explained", "#bab0ac", '?'},
};

const char *bar_name(unsigned i)
{
	return pieces[i].name;
}

char bar_letter(unsigned i)
{
	return pieces[i].letter;
}

/* ---- medians --------------------------------------------------------------------------- */

int explain_samples_init(struct explain_samples *s, size_t room)
{
	bool ok = true;

	memset(s, 0, sizeof(*s));
	s->room = room;
	for (unsigned i = 0; i < PARTS; i++)
		ok &= (s->part[i] = calloc(room + 1, sizeof(uint64_t))) != NULL;
	ok &= (s->total = calloc(room + 1, sizeof(uint64_t))) != NULL;
	if (ok)
		return 0;
	explain_samples_fini(s);
	return -ENOMEM;
}

void explain_samples_fini(struct explain_samples *s)
{
	for (unsigned i = 0; i < PARTS; i++)
		free(s->part[i]);
	free(s->total);
	memset(s, 0, sizeof(*s));
}

void explain_samples_add(struct explain_samples *s, const struct access *a, enum join_result r,
			 const struct joined *j)
{
	assert(s->faults + s->no_fault < s->room);
	if (r == JOIN_NO_FAULT) {
		s->no_fault++;
		return;
	}
	s->total[s->faults++] = a->after_ns - a->before_ns;
	s->again += r == JOIN_AGAIN;
	s->ahead += r == JOIN_AHEAD;
	s->missing += r == JOIN_MISSING;
	if (r != JOIN_WHOLE)
		return;
	for (unsigned i = 0; i < PARTS; i++)
		s->part[i][s->joined] = j->ns[i];
	s->joined++;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* As all percentiles here: the smallest that half of them do not exceed. */
static double median_us(uint64_t *ns, size_t n)
{
	if (n == 0)
		return 0;
	qsort(ns, n, sizeof(*ns), by_value);
	return (double)ns[(n - 1) / 2] / 1e3;
}

void explain_finish(struct explained *e, struct explain_samples *s)
{
	e->faults = s->faults;
	e->joined = s->joined;
	e->again = s->again;
	e->ahead = s->ahead;
	e->no_fault = s->no_fault;
	e->missing = s->missing;
	e->p50_us = e->rest_us = median_us(s->total, s->faults);
	for (unsigned i = 0; i < PARTS; i++) {
		e->part_us[i] = median_us(s->part[i], s->joined);
		e->rest_us -= e->part_us[i];
	}
}

/* ---- system calls ---------------------------------------------------------------------- */

static unsigned call_index(const struct call_counts *c, const char *name)
{
	unsigned i = 0;

	while (i < c->n && strcmp(c->name[i], name) != 0)
		i++;
	return i;
}

void call_counts_between(const struct call_counts *before, const struct call_counts *after,
			 struct call_counts *out)
{
	*out = *after;
	for (unsigned i = 0; i < out->n; i++) {
		unsigned k = call_index(before, out->name[i]);

		if (k < before->n)
			out->made[i] -= before->made[k];
	}
}

void call_counts_add(struct call_counts *sum, const struct call_counts *more)
{
	for (unsigned i = 0; i < more->n; i++) {
		unsigned k = call_index(sum, more->name[i]);

		if (k == BAR_CALLS)
			continue;
		if (k == sum->n) {
			memcpy(sum->name[k], more->name[i], sizeof(sum->name[k]));
			sum->made[k] = 0;
			sum->n++;
		}
		sum->made[k] += more->made[i];
	}
}

static double per_fault(const struct explained *e, uint64_t made)
{
	return e->faults ? (double)made / (double)e->faults : 0;
}

/* But for those by which a shard waits without sleeping: so many as there is time for. */
static uint64_t all_calls(const struct call_counts *c)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < c->n; i++)
		if (strcmp(c->name[i], "sched_yield") != 0)
			sum += c->made[i];
	return sum;
}

/* ---- the bar --------------------------------------------------------------------------- */

void bar_cells(const double *us, unsigned n, unsigned width, unsigned *cells)
{
	double sum = 0, end = 0;
	unsigned used = 0;

	for (unsigned i = 0; i < n; i++)
		sum += us[i] > 0 ? us[i] : 0;
	for (unsigned i = 0; i < n; i++) {
		unsigned to;

		end += us[i] > 0 ? us[i] : 0;
		to = sum > 0 ? (unsigned)lround(end / sum * width) : 0;
		cells[i] = to - used;
		used = to;
	}
}

static void pieces_of(const struct explained *e, double us[BAR_PIECES])
{
	memcpy(us, e->part_us, sizeof(e->part_us));
	us[PARTS] = e->rest_us;
}

static void print_calls(FILE *out, const struct explained *e)
{
	fprintf(out, "%-26s", "system calls per fault");
	for (unsigned s = 0; s < BAR_SIDES && e->side[s]; s++)
		fprintf(out, " %10s", e->side[s]);
	fputc('\n', out);
	for (unsigned i = 0; i < e->calls[0].n; i++) {
		bool any = false;

		for (unsigned s = 0; s < BAR_SIDES && e->side[s]; s++)
			any |= e->calls[s].made[i] > 0;
		if (!any)
			continue;
		fprintf(out, "  %-24s", e->calls[0].name[i]);
		for (unsigned s = 0; s < BAR_SIDES && e->side[s]; s++)
			fprintf(out, " %10.3f", per_fault(e, e->calls[s].made[i]));
		fputc('\n', out);
	}
	fprintf(out, "  %-24s", "in all but waiting");
	for (unsigned s = 0; s < BAR_SIDES && e->side[s]; s++)
		fprintf(out, " %10.3f", per_fault(e, all_calls(&e->calls[s])));
	fputc('\n', out);
}

void explain_print(FILE *out, const struct explained *e)
{
	unsigned cells[BAR_PIECES];
	double us[BAR_PIECES];

	pieces_of(e, us);
	bar_cells(us, BAR_PIECES, BAR_WIDTH, cells);
	fprintf(out,
		"%s: p50 %.2f us of %" PRIu64 " faults\n"
		"  %" PRIu64 " explained, %" PRIu64 " asked for again, %" PRIu64
		" asked for ahead, %" PRIu64 " without all stamps; beside them %" PRIu64
		" accesses without a fault\n[",
		e->name, e->p50_us, e->faults, e->joined, e->again, e->ahead, e->missing,
		e->no_fault);
	for (unsigned i = 0; i < BAR_PIECES; i++)
		for (unsigned k = 0; k < cells[i]; k++)
			fputc(pieces[i].letter, out);
	fprintf(out, "]\n");
	for (unsigned i = 0; i < BAR_PIECES; i++)
		if (us[i] != 0)
			fprintf(out, "  %c %-24s %8.2f us %6.1f %%\n", pieces[i].letter,
				pieces[i].name, us[i], e->p50_us > 0 ? us[i] / e->p50_us * 100 : 0);
	print_calls(out, e);
}

void explain_json(FILE *out, const struct explained *e)
{
	fprintf(out,
		"{\"name\": \"%s\", \"faults\": %" PRIu64 ", \"explained\": %" PRIu64
		", \"asked_again\": %" PRIu64 ", \"asked_ahead\": %" PRIu64
		", \"without_all_stamps\": %" PRIu64 ", \"without_fault\": %" PRIu64
		", \"p50_us\": %.3f,\n \"parts_us\": {",
		e->name, e->faults, e->joined, e->again, e->ahead, e->missing, e->no_fault,
		e->p50_us);
	for (unsigned i = 0; i < PARTS; i++)
		fprintf(out, "\"%s\": %.3f, ", pieces[i].name, e->part_us[i]);
	fprintf(out, "\"%s\": %.3f},\n \"syscalls_per_fault\": {", pieces[PARTS].name, e->rest_us);
	for (unsigned s = 0; s < BAR_SIDES && e->side[s]; s++) {
		fprintf(out, "%s\"%s\": {", s ? ", " : "", e->side[s]);
		for (unsigned i = 0; i < e->calls[s].n; i++)
			fprintf(out, "\"%s\": %.4f, ", e->calls[s].name[i],
				per_fault(e, e->calls[s].made[i]));
		fprintf(out, "\"in all\": %.4f}", per_fault(e, all_calls(&e->calls[s])));
	}
	fprintf(out, "}}");
}

void explain_counts(FILE *out, const struct explained *e, bool first)
{
	double us[BAR_PIECES];

	pieces_of(e, us);
	fprintf(out, "%s\n\"%s: p50, us\": %.3f", first ? "" : ",", e->name, e->p50_us);
	for (unsigned i = 0; i < BAR_PIECES; i++)
		if (us[i] != 0)
			fprintf(out, ",\n\"%s: %s, us\": %.3f", e->name, pieces[i].name, us[i]);
	for (unsigned s = 0; s < BAR_SIDES && e->side[s]; s++)
		fprintf(out, ",\n\"%s: system calls, %s\": %.4f", e->name, e->side[s],
			per_fault(e, all_calls(&e->calls[s])));
}

/* ---- SVG ------------------------------------------------------------------------------- */

#define SVG_LEFT  20u
#define SVG_WIDTH 760u
#define SVG_BAR   28u
#define SVG_LINE  18u

/* Of text that a user gave. */
static void svg_text(FILE *out, const char *text)
{
	for (; *text; text++)
		switch (*text) {
		case '<': fputs("&lt;", out); break;
		case '>': fputs("&gt;", out); break;
		case '&': fputs("&amp;", out); break;
		default:
			if ((unsigned char)*text >= ' ')
				fputc(*text, out);
		}
}

/* One bar with its legend from y on; returns where it ends. The widest is `most` us. */
static unsigned svg_bar(FILE *out, const struct explained *e, unsigned y, double most)
{
	double us[BAR_PIECES], at = SVG_LEFT;

	pieces_of(e, us);
	fprintf(out, "<text x=\"%u\" y=\"%u\" font-weight=\"bold\">%s: p50 %.2f us</text>\n",
		SVG_LEFT, y + 14, e->name, e->p50_us);
	y += SVG_LINE + 4;
	for (unsigned i = 0; i < BAR_PIECES; i++) {
		double width = us[i] > 0 && most > 0 ? us[i] / most * SVG_WIDTH : 0;

		if (width <= 0)
			continue;
		fprintf(out,
			"<rect x=\"%.2f\" y=\"%u\" width=\"%.2f\" height=\"%u\" fill=\"%s\"><title>"
			"%s %.2f us</title></rect>\n",
			at, y, width, SVG_BAR, pieces[i].colour, pieces[i].name, us[i]);
		at += width;
	}
	y += SVG_BAR + 8;
	for (unsigned i = 0; i < BAR_PIECES; i++) {
		if (us[i] == 0)
			continue;
		fprintf(out,
			"<rect x=\"%u\" y=\"%u\" width=\"12\" height=\"12\" fill=\"%s\"/>"
			"<text x=\"%u\" y=\"%u\">%s</text>"
			"<text x=\"%u\" y=\"%u\" text-anchor=\"end\">%.2f us</text>\n",
			SVG_LEFT, y, pieces[i].colour, SVG_LEFT + 20, y + 11, pieces[i].name,
			SVG_LEFT + 300, y + 11, us[i]);
		y += SVG_LINE;
	}
	for (unsigned s = 0; s < BAR_SIDES && e->side[s]; s++) {
		fprintf(out, "<text x=\"%u\" y=\"%u\">system calls per fault, %s: %.2f</text>\n",
			SVG_LEFT, y + 11, e->side[s], per_fault(e, all_calls(&e->calls[s])));
		y += SVG_LINE;
	}
	return y + SVG_LINE;
}

static double sum_above_0(const struct explained *e)
{
	double us[BAR_PIECES], sum = 0;

	pieces_of(e, us);
	for (unsigned i = 0; i < BAR_PIECES; i++)
		sum += us[i] > 0 ? us[i] : 0;
	return sum;
}

void explain_svg(FILE *out, const struct explained *list, unsigned n, const char *layout)
{
	unsigned y = 40, height = 50 + n * (SVG_BAR + 30 + SVG_LINE * (BAR_PIECES + BAR_SIDES + 2));
	double most = 0;

	for (unsigned i = 0; i < n; i++)
		most = fmax(most, sum_above_0(&list[i]));
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
		"font-family=\"sans-serif\" font-size=\"13\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
		"<text x=\"%u\" y=\"24\" font-size=\"16\">Where the time of a fault goes, layout ",
		SVG_WIDTH + 2 * SVG_LEFT, height, SVG_LEFT);
	svg_text(out, layout);
	fprintf(out, "</text>\n");
	for (unsigned i = 0; i < n; i++)
		y = svg_bar(out, &list[i], y, most);
	fprintf(out, "</svg>\n");
}
