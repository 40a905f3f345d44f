#include "shared/vcpu_state.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* So many equal words between two runs are sent along: a run of its own costs as much. */
#define GAP_WORDS (WVM_VCPU_RUN_BYTES / WVM_VCPU_WORD)

static uint32_t words_of(uint32_t len)
{
	return (len + WVM_VCPU_WORD - 1) / WVM_VCPU_WORD;
}

int wvm_vcpu_layout_add(struct wvm_vcpu_layout *layout, uint32_t len)
{
	if (layout->count == WVM_VCPU_SECTIONS_MAX || !len || len > WVM_VCPU_SECTION_MAX)
		return -1;
	layout->at[layout->count] = layout->bytes;
	layout->len[layout->count] = len;
	layout->bytes += words_of(len) * WVM_VCPU_WORD;
	return (int)layout->count++;
}

size_t wvm_vcpu_delta_most(const struct wvm_vcpu_layout *layout)
{
	/* Worst: runs of one word, with gaps that are just too long. Or one run a section. */
	return layout->bytes + (size_t)layout->count * WVM_VCPU_RUN_BYTES;
}

/* ---- writing --------------------------------------------------------------------------- */

struct writer {
	uint8_t *out;
	size_t room, used; /* used may be more than room: then nothing more is written */
};

static void store16(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

static void put_run(struct writer *w, uint32_t section, uint32_t first, uint32_t words,
		    const uint64_t *state)
{
	size_t len = WVM_VCPU_RUN_BYTES + (size_t)words * WVM_VCPU_WORD;
	uint8_t *run = w->out + w->used;

	w->used += len;
	if (w->used > w->room)
		return;
	memset(run, 0, WVM_VCPU_RUN_BYTES);
	run[0] = (uint8_t)section;
	store16(run + 2, first);
	store16(run + 4, words);
	memcpy(run + WVM_VCPU_RUN_BYTES, state + first, (size_t)words * WVM_VCPU_WORD);
}

static bool differs(const uint64_t *base, const uint64_t *state, uint32_t word)
{
	return state[word] != (base ? base[word] : 0);
}

static void put_section(struct writer *w, uint32_t section, const uint64_t *base,
			const uint64_t *state, uint32_t words)
{
	uint32_t at = 0, end, next;

	for (;;) {
		while (at < words && !differs(base, state, at))
			at++;
		if (at == words)
			return;
		for (end = next = at + 1; next < words && next - end <= GAP_WORDS; next++)
			if (differs(base, state, next))
				end = next + 1;
		put_run(w, section, at, end - at, state);
		at = end;
	}
}

size_t wvm_vcpu_delta(const struct wvm_vcpu_layout *layout, const void *base, const void *state,
		      uint32_t sections, void *out, size_t room)
{
	struct writer w = {.out = out, .room = room};

	for (uint32_t i = 0; i < layout->count; i++) {
		const uint8_t *from = base;

		if (sections >> i & 1)
			put_section(&w, i, from ? (const void *)(from + layout->at[i]) : NULL,
				    (const void *)((const uint8_t *)state + layout->at[i]),
				    words_of(layout->len[i]));
	}
	return w.used;
}

/* ---- reading --------------------------------------------------------------------------- */

struct run {
	uint32_t section, first, words;
	const uint8_t *bytes;
};

static uint32_t load16(const uint8_t *from)
{
	return (uint32_t)from[0] << 8 | from[1];
}

/* The run at *delta, which moves behind it. */
static bool next_run(const struct wvm_vcpu_layout *layout, const uint8_t **delta, size_t *len,
		     struct run *r)
{
	const uint8_t *p = *delta;
	size_t bytes;

	if (*len < WVM_VCPU_RUN_BYTES || p[1] || p[6] || p[7])
		return false;
	*r = (struct run){.section = p[0],
			  .first = load16(p + 2),
			  .words = load16(p + 4),
			  .bytes = p + WVM_VCPU_RUN_BYTES};
	bytes = WVM_VCPU_RUN_BYTES + (size_t)r->words * WVM_VCPU_WORD;
	if (r->section >= layout->count || !r->words || *len < bytes ||
	    r->first + r->words > words_of(layout->len[r->section]))
		return false;
	*delta += bytes;
	*len -= bytes;
	return true;
}

/* Bytes beyond a section's length, in its last word, are zeros. */
static bool fills_up(const struct wvm_vcpu_layout *layout, const struct run *r)
{
	size_t end = ((size_t)r->first + r->words) * WVM_VCPU_WORD, len = layout->len[r->section];

	for (size_t i = len; i < end; i++)
		if (r->bytes[i - (size_t)r->first * WVM_VCPU_WORD])
			return false;
	return true;
}

static bool is_delta(const struct wvm_vcpu_layout *layout, const uint8_t *delta, size_t len)
{
	uint32_t section = 0, end = 0;
	struct run r;

	while (len) {
		if (!next_run(layout, &delta, &len, &r) || !fills_up(layout, &r))
			return false;
		if (r.section < section || (r.section == section && r.first < end))
			return false;
		section = r.section;
		end = r.first + r.words;
	}
	return true;
}

int wvm_vcpu_apply(const struct wvm_vcpu_layout *layout, void *state, const void *delta, size_t len,
		   uint32_t *changed)
{
	const uint8_t *at = delta;
	struct run r;

	*changed = 0;
	if (!is_delta(layout, at, len))
		return -EBADMSG;
	while (len && next_run(layout, &at, &len, &r)) {
		memcpy((uint8_t *)state + layout->at[r.section] + (size_t)r.first * WVM_VCPU_WORD,
		       r.bytes, (size_t)r.words * WVM_VCPU_WORD);
		*changed |= UINT32_C(1) << r.section;
	}
	return 0;
}
