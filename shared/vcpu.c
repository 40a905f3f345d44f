/* The codec of what runs of remote processors carry. */
#include "shared/vcpu.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/core/bytes.h"

#define PAGE_MASK UINT64_C(0xfff)

/* Offsets in the heads. */
enum {
	RUN_ENGINE = 0,
	RUN_FLAGS = 1,
	RUN_VECTOR = 2,
	RUN_SETUP_VERSION = 4,
	RUN_BASE = 8,
	RUN_TICKS = 16,
	RUN_LAYOUT = 24,
	RUN_SETUP_LEN = 28,
	RUN_STATE_LEN = 32,
	RUN_DATA_LEN = 36,
	RUN_ZERO = 40, /* to the end */

	EXIT_KIND = 0,
	EXIT_FLAGS = 1,
	EXIT_SIZE = 2,
	EXIT_COUNT = 4,
	EXIT_AT = 8,
	EXIT_BASE = 16,
	EXIT_TICKS = 24,
	EXIT_RAN = 32,
	EXIT_IP = 40,
	EXIT_STATE_LEN = 48,
	EXIT_DATA_LEN = 52,
	EXIT_ZERO = 56, /* to the end */
};

static size_t padded(size_t len)
{
	return (len + 7) & ~(size_t)7;
}

/* Puts a part at `at`, zeros behind it, and returns where the next one begins. */
static size_t put(uint8_t *out, size_t at, const uint8_t *part, uint32_t len)
{
	if (part && part != out + at)
		memmove(out + at, part, len);
	memset(out + at + len, 0, padded(len) - len);
	return at + padded(len);
}

/* Takes a part of len bytes from `at`; false: it runs beyond the end. */
static bool get(const uint8_t *in, size_t end, size_t *at, uint32_t len, const uint8_t **part)
{
	if (padded(len) > end - *at)
		return false;
	*part = len ? in + *at : NULL;
	*at += padded(len);
	return true;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i])
			return false;
	}
	return true;
}

size_t wvm_vcpu_run_bytes(const struct wvm_vcpu_run *r)
{
	return WVM_VCPU_RUN_HEAD + padded(r->setup_len) + padded(r->state_len) +
	       padded(r->data_len);
}

size_t wvm_vcpu_exit_bytes(const struct wvm_vcpu_exit *e)
{
	return WVM_VCPU_EXIT_HEAD + padded(e->state_len) + padded(e->data_len);
}

size_t wvm_vcpu_run_encode(void *out, size_t room, const struct wvm_vcpu_run *r)
{
	uint8_t *p = out;
	size_t at = WVM_VCPU_RUN_HEAD;

	if (wvm_vcpu_run_bytes(r) > room)
		return 0;
	memset(p, 0, WVM_VCPU_RUN_HEAD);
	p[RUN_ENGINE] = r->engine;
	p[RUN_FLAGS] = r->flags;
	p[RUN_VECTOR] = r->vector;
	wvm_store32(p + RUN_SETUP_VERSION, r->setup_version);
	wvm_store64(p + RUN_BASE, r->base);
	wvm_store64(p + RUN_TICKS, r->ticks);
	wvm_store32(p + RUN_LAYOUT, r->layout);
	wvm_store32(p + RUN_SETUP_LEN, r->setup_len);
	wvm_store32(p + RUN_STATE_LEN, r->state_len);
	wvm_store32(p + RUN_DATA_LEN, r->data_len);
	at = put(p, at, r->setup, r->setup_len);
	at = put(p, at, r->state, r->state_len);
	return put(p, at, r->data, r->data_len);
}

int wvm_vcpu_run_decode(const void *in, size_t len, struct wvm_vcpu_run *r)
{
	const uint8_t *p = in;
	size_t at = WVM_VCPU_RUN_HEAD;

	if (len < WVM_VCPU_RUN_HEAD)
		return -EBADMSG;
	*r = (struct wvm_vcpu_run){
		.engine = p[RUN_ENGINE],
		.flags = p[RUN_FLAGS],
		.vector = p[RUN_VECTOR],
		.setup_version = wvm_load32(p + RUN_SETUP_VERSION),
		.base = wvm_load64(p + RUN_BASE),
		.ticks = wvm_load64(p + RUN_TICKS),
		.layout = wvm_load32(p + RUN_LAYOUT),
		.setup_len = wvm_load32(p + RUN_SETUP_LEN),
		.state_len = wvm_load32(p + RUN_STATE_LEN),
		.data_len = wvm_load32(p + RUN_DATA_LEN),
	};
	if (!r->engine || r->engine >= WVM_VCPU_ENGINES || r->flags & ~WVM_VCPU_RUN_FLAGS ||
	    p[RUN_VECTOR + 1] || !all_zero(p + RUN_ZERO, WVM_VCPU_RUN_HEAD - RUN_ZERO) ||
	    (r->vector && !(r->flags & WVM_VCPU_RUN_INJECT)) ||
	    (r->data_len && !(r->flags & WVM_VCPU_RUN_RESUME)) ||
	    (r->flags & WVM_VCPU_RUN_STAY && r->flags & WVM_VCPU_RUN_GET) ||
	    !(r->flags & WVM_VCPU_RUN_WHOLE) == !r->base)
		return -EBADMSG;
	if (!get(p, len, &at, r->setup_len, &r->setup) ||
	    !get(p, len, &at, r->state_len, &r->state) ||
	    !get(p, len, &at, r->data_len, &r->data) || at != len)
		return -EBADMSG;
	return 0;
}

size_t wvm_vcpu_exit_encode(void *out, size_t room, const struct wvm_vcpu_exit *e)
{
	uint8_t *p = out;
	size_t at = WVM_VCPU_EXIT_HEAD;

	if (wvm_vcpu_exit_bytes(e) > room)
		return 0;
	memset(p, 0, WVM_VCPU_EXIT_HEAD);
	p[EXIT_KIND] = e->kind;
	p[EXIT_FLAGS] = e->flags;
	p[EXIT_SIZE] = e->size;
	wvm_store32(p + EXIT_COUNT, e->count);
	wvm_store64(p + EXIT_AT, e->at);
	wvm_store64(p + EXIT_BASE, e->base);
	wvm_store64(p + EXIT_TICKS, e->ticks);
	wvm_store64(p + EXIT_RAN, e->ran_ns);
	wvm_store64(p + EXIT_IP, e->ip);
	wvm_store32(p + EXIT_STATE_LEN, e->state_len);
	wvm_store32(p + EXIT_DATA_LEN, e->data_len);
	at = put(p, at, e->state, e->state_len);
	return put(p, at, e->data, e->data_len);
}

/* What kinds of exits say by size, count and data. */
static bool access_fits(const struct wvm_vcpu_exit *e)
{
	bool access = e->kind == WVM_VCPU_EXIT_PIO || e->kind == WVM_VCPU_EXIT_MMIO;
	uint64_t bytes = (uint64_t)e->size * e->count;

	if (!access)
		return !e->size && !e->count;
	if ((e->size != 1 && e->size != 2 && e->size != 4 && e->size != 8) || !e->count ||
	    (e->kind == WVM_VCPU_EXIT_MMIO && e->count != 1) ||
	    (e->kind == WVM_VCPU_EXIT_PIO && e->at > UINT16_MAX))
		return false;
	return bytes <= 4096 &&
	       (e->flags & WVM_VCPU_EXIT_WRITE ? e->data_len == bytes : !e->data_len);
}

int wvm_vcpu_exit_decode(const void *in, size_t len, struct wvm_vcpu_exit *e)
{
	const uint8_t *p = in;
	size_t at = WVM_VCPU_EXIT_HEAD;

	if (len < WVM_VCPU_EXIT_HEAD)
		return -EBADMSG;
	*e = (struct wvm_vcpu_exit){
		.kind = p[EXIT_KIND],
		.flags = p[EXIT_FLAGS],
		.size = p[EXIT_SIZE],
		.count = wvm_load32(p + EXIT_COUNT),
		.at = wvm_load64(p + EXIT_AT),
		.base = wvm_load64(p + EXIT_BASE),
		.ticks = wvm_load64(p + EXIT_TICKS),
		.ran_ns = wvm_load64(p + EXIT_RAN),
		.ip = wvm_load64(p + EXIT_IP),
		.state_len = wvm_load32(p + EXIT_STATE_LEN),
		.data_len = wvm_load32(p + EXIT_DATA_LEN),
	};
	if (!e->kind || e->kind >= WVM_VCPU_EXIT_KINDS || e->flags & ~WVM_VCPU_EXIT_FLAGS ||
	    p[EXIT_SIZE + 1] || !all_zero(p + EXIT_ZERO, WVM_VCPU_EXIT_HEAD - EXIT_ZERO) ||
	    (e->state_len && !(e->flags & WVM_VCPU_EXIT_STATE)) ||
	    (e->flags & WVM_VCPU_EXIT_STAYS &&
	     e->flags & (WVM_VCPU_EXIT_STATE | WVM_VCPU_EXIT_MIDWAY)) ||
	    !access_fits(e))
		return -EBADMSG;
	if (!get(p, len, &at, e->state_len, &e->state) ||
	    !get(p, len, &at, e->data_len, &e->data) || at != len)
		return -EBADMSG;
	return 0;
}

const char *wvm_vcpu_exit_name(unsigned kind)
{
	static const char *const names[WVM_VCPU_EXIT_KINDS] = {
		[WVM_VCPU_EXIT_KICKED] = "KICKED",     [WVM_VCPU_EXIT_PIO] = "PIO",
		[WVM_VCPU_EXIT_MMIO] = "MMIO",         [WVM_VCPU_EXIT_HLT] = "HLT",
		[WVM_VCPU_EXIT_MSR] = "MSR",           [WVM_VCPU_EXIT_WINDOW] = "WINDOW",
		[WVM_VCPU_EXIT_SHUTDOWN] = "SHUTDOWN", [WVM_VCPU_EXIT_ERROR] = "ERROR",
		[WVM_VCPU_EXIT_APIC] = "APIC",
	};

	return kind && kind < WVM_VCPU_EXIT_KINDS ? names[kind] : "unknown";
}

void wvm_vcpu_hello_encode(uint8_t out[WVM_VCPU_HELLO_BYTES], const struct wvm_vcpu_hello *h)
{
	wvm_store32(out, h->engines);
	wvm_store32(out + 4, h->cores);
	wvm_store32(out + 8, h->running);
	wvm_store32(out + 12, 0);
}

int wvm_vcpu_hello_decode(const void *in, size_t len, struct wvm_vcpu_hello *h)
{
	const uint8_t *p = in;

	/* A later version may say more. */
	if (len < WVM_VCPU_HELLO_BYTES)
		return -EBADMSG;
	*h = (struct wvm_vcpu_hello){
		.engines = wvm_load32(p), .cores = wvm_load32(p + 4), .running = wvm_load32(p + 8)};
	return 0;
}

__attribute__((format(printf, 3, 4))) static int wrong(char *err, size_t err_len,
						       const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(err, err_len, format, ap);
	va_end(ap);
	return -EBADMSG;
}

static int parse_cpu(const char *text, struct wvm_vcpu_setup *s, char *err, size_t err_len)
{
	if (!*text || strlen(text) > WVM_VCPU_CPU_MAX)
		return wrong(err, err_len, "setup: cpu of %zu characters", strlen(text));
	/* It becomes an argument of a program. */
	for (const char *p = text; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("_.,+=-", *p))
			return wrong(err, err_len, "setup: cpu with character 0x%02x",
				     (unsigned char)*p);
	}
	if (!isalnum((unsigned char)*text))
		return wrong(err, err_len, "setup: cpu begins with '%c'", *text);
	memcpy(s->cpu, text, strlen(text) + 1);
	return 0;
}

/* A hexadecimal number of at most 16 digits, and what stands behind it. */
static bool hex(const char **text, uint64_t *value)
{
	size_t digits = strspn(*text, "0123456789abcdef");

	if (!digits || digits > 16)
		return false;
	*value = strtoull(*text, NULL, 16);
	*text += digits;
	return true;
}

static bool next_hex(const char **text, uint64_t *value)
{
	if (**text != ' ')
		return false;
	++*text;
	return hex(text, value);
}

static int parse_map(const char *text, struct wvm_vcpu_setup *s, char *err, size_t err_len)
{
	const struct wvm_vcpu_map *last = s->maps ? &s->map[s->maps - 1] : NULL;
	struct wvm_vcpu_map map = {0};
	const char *p = text;

	if (s->maps == WVM_VCPU_MAPS_MAX)
		return wrong(err, err_len, "setup: more than %u maps", WVM_VCPU_MAPS_MAX);
	if (!hex(&p, &map.gpa) || !next_hex(&p, &map.len) || !next_hex(&p, &map.offset) ||
	    (*p && strcmp(p, " ro")))
		return wrong(err, err_len, "setup: map '%.60s' is not \"GPA LEN OFFSET [ro]\"",
			     text);
	map.read_only = *p;
	if ((map.gpa | map.len | map.offset) & PAGE_MASK || !map.len ||
	    map.gpa + map.len < map.gpa || map.offset + map.len < map.offset)
		return wrong(err, err_len, "setup: map '%.60s' is not of whole pages", text);
	if (last && map.gpa < last->gpa + last->len)
		return wrong(err, err_len, "setup: map '%.60s' does not come after the one before",
			     text);
	s->map[s->maps++] = map;
	return 0;
}

/* A decimal number from min to max, as it is printed. *value may be changed, whatever it is. */
static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	size_t digits = strspn(text, "0123456789");

	if (!digits || digits > 12 || text[digits] || (digits > 1 && *text == '0'))
		return false;
	*value = strtoull(text, NULL, 10);
	return *value >= min && *value <= max;
}

static int parse_line(const char *line, struct wvm_vcpu_setup *s, char *err, size_t err_len)
{
	uint64_t value;

	if (!strncmp(line, "cpu ", 4) && !s->cpu[0])
		return parse_cpu(line + 4, s, err, err_len);
	if (!strncmp(line, "map ", 4))
		return parse_map(line + 4, s, err, err_len);
	if (!strncmp(line, "vcpus ", 6) && !s->vcpus) {
		if (!number(line + 6, 1, WVM_VCPU_MAX, &value))
			return wrong(err, err_len, "setup: '%.60s', not 1 to %u", line,
				     WVM_VCPU_MAX);
		s->vcpus = (uint32_t)value;
		return 0;
	}
	if (!strncmp(line, "ticks ", 6) && !s->ticks_hz)
		return number(line + 6, WVM_VCPU_TICKS_MIN, WVM_VCPU_TICKS_MAX, &s->ticks_hz)
			       ? 0
			       : wrong(err, err_len, "setup: '%.60s', not 10^6 to 10^11", line);
	if (!strncmp(line, "era ", 4) && !s->era)
		return number(line + 4, 1, UINT32_MAX, &s->era)
			       ? 0
			       : wrong(err, err_len, "setup: '%.60s', not 1 to 4294967295", line);
	return wrong(err, err_len, "setup: line '%.60s'", line);
}

int wvm_vcpu_setup_parse(const void *text, size_t len, struct wvm_vcpu_setup *setup, char *err,
			 size_t err_len)
{
	const char *p = text, *end = p + len;

	*setup = (struct wvm_vcpu_setup){0};
	if (len > WVM_VCPU_SETUP_MAX)
		return wrong(err, err_len, "setup: %zu bytes, more than %u", len,
			     WVM_VCPU_SETUP_MAX);
	while (p < end) {
		char line[WVM_VCPU_CPU_MAX + 16];
		const char *stop = memchr(p, '\n', (size_t)(end - p));
		int r;

		if (!stop || (size_t)(stop - p) >= sizeof(line) || memchr(p, 0, (size_t)(stop - p)))
			return wrong(err, err_len, "setup: a line that does not end");
		memcpy(line, p, (size_t)(stop - p));
		line[stop - p] = 0;
		r = parse_line(line, setup, err, err_len);
		if (r)
			return r;
		p = stop + 1;
	}
	if (!setup->vcpus || !setup->maps)
		return wrong(err, err_len, "setup: without %s", setup->vcpus ? "a map" : "vcpus");
	return 0;
}

size_t wvm_vcpu_setup_print(const struct wvm_vcpu_setup *setup, char *out, size_t room)
{
	FILE *f = fmemopen(out, room, "w");
	long len;

	if (!f)
		return 0;
	fprintf(f, "vcpus %" PRIu32 "\n", setup->vcpus);
	if (setup->ticks_hz)
		fprintf(f, "ticks %" PRIu64 "\n", setup->ticks_hz);
	if (setup->era)
		fprintf(f, "era %" PRIu64 "\n", setup->era);
	if (setup->cpu[0])
		fprintf(f, "cpu %s\n", setup->cpu);
	for (uint32_t i = 0; i < setup->maps; i++)
		fprintf(f, "map %" PRIx64 " %" PRIx64 " %" PRIx64 "%s\n", setup->map[i].gpa,
			setup->map[i].len, setup->map[i].offset,
			setup->map[i].read_only ? " ro" : "");
	len = fflush(f) || ferror(f) ? 0 : ftell(f);
	fclose(f);
	return len > 0 && (size_t)len < room ? (size_t)len : 0;
}
