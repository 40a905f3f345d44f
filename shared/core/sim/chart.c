/*
 * A message sequence chart in text: time and step, one column per node, and
 * what the message says. A message is drawn when it is sent, with what becomes
 * of it; its number comes back where it arrives.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/sim/sim.h"

#define COLUMN 24u
#define LINE   (SIM_NODES_MAX * COLUMN + 8u)

static bool wanted(const struct sim *s, uint64_t page)
{
	const struct sim_config *c = &s->config;

	if (s->report.steps < c->trace_from || (c->trace_to && s->report.steps > c->trace_to))
		return false;
	return !c->trace_page || page == SIM_NO_PAGE || page + 1 == c->trace_page;
}

static void legend(struct sim *s)
{
	FILE *f = s->config.trace;

	s->legend = true;
	fprintf(f,
		"seed %llu: %u nodes, %u programs of %u threads on each, %u pages\n"
		"  o--MEM_READ p3-->  sent; `x` instead of the arrow: lost\n"
		"  #12                number of the message; `#12 arrives` where its receiver takes it\n"
		"  id= g= v=          request id (boot.counter), grant that is meant, version\n"
		"  +1408              segment at this offset; late, copy, CORRUPTED: on its way\n"
		"  p3.1 = 7, := 7     a program reads, stores; p3: page 3\n"
		"  homes:",
		(unsigned long long)s->config.seed, s->config.nodes, s->config.clients,
		s->config.threads, s->config.pages);
	for (uint32_t p = 0; p < s->config.pages; p++)
		fprintf(f, " p%u n%u", p, sim_home_of(s, p));
	fprintf(f, "\n%15s %9s ", "ns", "step");
	for (uint32_t i = 0; i < s->config.nodes; i++)
		fprintf(f, "%-*s%-2u", COLUMN - 2, "node", i);
	fprintf(f, "\n");
}

/* An empty line of lifelines. */
static void begin(struct sim *s, char line[LINE])
{
	if (!s->legend)
		legend(s);
	memset(line, ' ', LINE);
	for (uint32_t i = 0; i < s->config.nodes; i++)
		line[i * COLUMN] = '|';
	line[s->config.nodes * COLUMN] = 0;
}

static void print(struct sim *s, char *line, const char *rest)
{
	if (!*rest)
		for (size_t n = strlen(line); n && line[n - 1] == ' '; n--)
			line[n - 1] = 0;
	fprintf(s->config.trace, "%15llu %9llu %s%s%s\n", (unsigned long long)s->report.now_ns,
		(unsigned long long)s->report.steps, line, *rest ? " " : "", rest);
}

/* Lays text into the line, as far as there is room. */
static void put(char *line, uint32_t at, uint32_t room, const char *text)
{
	uint32_t length = (uint32_t)strlen(text);

	memcpy(line + at, text, length < room ? length : room);
}

static void arrow(char *line, uint32_t from, uint32_t to, const char *label, bool lost)
{
	uint32_t left = (from < to ? from : to) * COLUMN, right = (from < to ? to : from) * COLUMN;
	uint32_t length = (uint32_t)strlen(label), room = right - left - 3;

	memset(line + left + 1, '-', right - left - 1);
	line[from * COLUMN] = 'o';
	line[from < to ? right - 1 : left + 1] = lost ? 'x' : from < to ? '>' : '<';
	if (length > room)
		length = room;
	put(line, left + 2 + (room - length) / 2, length, label);
}

static uint32_t print_id(char *out, size_t room, const char *name, uint64_t id)
{
	if (!id)
		return 0;
	return (uint32_t)snprintf(out, room, " %s%u.%llu", name, wvm_request_boot(id),
				  (unsigned long long)wvm_request_counter(id));
}

static void details(char *out, size_t room, uint64_t number, const struct wvm_msg *m,
		    const char *fate)
{
	uint32_t n = (uint32_t)snprintf(out, room, "#%llu", (unsigned long long)number);

	n += print_id(out + n, room - n, "id=", m->request);
	n += print_id(out + n, room - n, "g=", m->grant);
	if (m->version)
		n += (uint32_t)snprintf(out + n, room - n, " v=%llx",
					(unsigned long long)m->version);
	if (m->payload_len)
		n += (uint32_t)snprintf(out + n, room - n, " +%u", m->seg_offset);
	snprintf(out + n, room - n, "%s%s%s%s %s", m->flags & WVM_MSG_ZERO ? " ZERO" : "",
		 m->flags & WVM_MSG_HELD ? " HELD" : "", m->flags & WVM_MSG_KEEP ? " KEEP" : "",
		 m->flags & WVM_MSG_ERROR ? " ERROR" : "", fate);
}

void sim_chart_send(struct sim *s, uint64_t number, uint32_t from, uint32_t to,
		    const struct wvm_msg *m, const char *fate)
{
	uint64_t page = sim_page_of(m->gpa >> WVM_PAGE_SHIFT);
	char line[LINE], label[64], rest[200];
	const char *name = wvm_msg_name(m->type);

	if (!wanted(s, page))
		return;
	begin(s, line);
	if (m->type == WVM_MSG_FETCH_AND_INVALIDATE)
		name = "FETCH_AND_INV";
	snprintf(label, sizeof(label), "%s p%llu", name, (unsigned long long)page);
	if (from == to)
		put(line, from * COLUMN, COLUMN, "o");
	else
		arrow(line, from, to, label, !strcmp(fate, "LOST") || !strcmp(fate, "CUT"));
	if (from == to)
		put(line, from * COLUMN + 2, COLUMN - 3, label);
	details(rest, sizeof(rest), number, m, from == to ? "to itself" : fate);
	print(s, line, rest);
}

void sim_chart_local(struct sim *s, uint32_t node, uint64_t page, const char *format, ...)
{
	char line[LINE], text[64];
	va_list ap;

	if (!wanted(s, page))
		return;
	begin(s, line);
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	put(line, node * COLUMN + 2, COLUMN - 3, text);
	print(s, line, "");
}

/* ---- runs that are drawn because the environment says so ------------------------------- */

static bool number(const char **at, char end, uint64_t *value)
{
	char *rest;

	if (!isdigit((unsigned char)**at))
		return false;
	errno = 0;
	*value = strtoull(*at, &rest, 0);
	*at = rest + 1;
	return !errno && *rest == end;
}

/* SEED[:FROM-TO]. True: the text is well formed; from and to are 0 where it names no steps. */
static bool parse(const char *text, uint64_t *seed, uint64_t *from, uint64_t *to)
{
	*from = *to = 0;
	if (!strchr(text, ':'))
		return number(&text, 0, seed);
	return number(&text, ':', seed) && number(&text, '-', from) && number(&text, 0, to) &&
	       *from <= *to && *to;
}

void sim_trace_check(void)
{
	const char *text = getenv("WVM_SIM_TRACE");
	uint64_t seed, from, to;

	if (!text || parse(text, &seed, &from, &to))
		return;
	fprintf(stderr, "WVM_SIM_TRACE=%s: not SEED or SEED:FROM-TO, a seed and steps\n", text);
	exit(2);
}

void sim_trace_seed(struct sim_config *c)
{
	const char *text = getenv("WVM_SIM_TRACE");
	uint64_t seed, from, to;

	if (!text || c->trace)
		return;
	sim_trace_check();
	if (!parse(text, &seed, &from, &to) || seed != c->seed)
		return;
	c->trace = stdout;
	c->trace_from = from;
	c->trace_to = to;
}
