#include "shared/core/slices.h"

#include <stdbool.h>
#include <stddef.h>

#include "shared/core/assert.h"
#include "shared/core/msg.h"

/* Finalizer of MurmurHash3 (public domain): full avalanche on 64 bits. */
static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= UINT64_C(0xff51afd7ed558ccd);
	x ^= x >> 33;
	x *= UINT64_C(0xc4ceb9fe1a85ec53);
	x ^= x >> 33;
	return x;
}

uint16_t wvm_slice_of(uint16_t vm_id, uint64_t gpa)
{
	/* The unit number has 31 bits at most, so the VM's id lies above it. */
	return mix((gpa >> WVM_UNIT_SHIFT) | (uint64_t)vm_id << 40) % WVM_SLICES;
}

/* -log2(u / 2^64) in units of 2^-24, for u > 0; no floating point in the core. */
static uint64_t neg_log2(uint64_t u)
{
	unsigned int lead = __builtin_clzll(u);
	uint64_t x = u << lead >> 32; /* mantissa in [2^31, 2^32) */
	uint64_t fraction = 0;

	for (int bit = 23; bit >= 0; bit--) {
		x = x * x >> 31;
		if (x >> 32) {
			x >>= 1;
			fraction |= UINT64_C(1) << bit;
		}
	}
	return ((uint64_t)(lead + 1) << 24) - fraction;
}

static uint64_t hash(uint32_t slice, const struct wvm_member *m)
{
	return mix((uint64_t)m->first_vnode << 16 ^ slice ^ UINT64_C(0x9e3779b97f4a7c15));
}

/* Weighted rendezvous: -w / ln(hash), larger is better. Never falls as hash or weight grow. */
static uint64_t score(uint64_t hash, uint32_t vnodes)
{
	uint64_t log = neg_log2(hash | 1);

	return ((uint64_t)vnodes << 40) / (log ? log : 1);
}

/* One order for all: by score, ties by member. */
static bool better(uint64_t score_a, uint32_t a, uint64_t score_b, uint32_t b)
{
	return score_a != score_b ? score_a > score_b : a < b;
}

static uint32_t homes(const struct wvm_members *members)
{
	return members->count < WVM_SLICES ? members->count : WVM_SLICES;
}

static uint64_t weight_of(const struct wvm_members *members, const uint8_t *active, uint32_t i)
{
	return !active || active[i] ? members->list[i].vnodes : 0;
}

/* Largest remainder: whole shares first, then one more to the largest rests. */
static void deal_quota(const struct wvm_members *members, const uint8_t *active,
		       struct wvm_slices_scratch *s)
{
	uint32_t n = homes(members), left = WVM_SLICES;
	uint64_t weight = 0;

	for (uint32_t i = 0; i < n; i++)
		weight += weight_of(members, active, i);
	WVM_ASSERT(weight > 0);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t share = weight_of(members, active, i) * WVM_SLICES;

		s->quota[i] = share / weight;
		s->score[i] = share % weight;
		left -= s->quota[i];
	}
	while (left--) {
		uint32_t most = 0;

		for (uint32_t i = 1; i < n; i++)
			if (s->score[i] > s->score[most])
				most = i;
		s->quota[most]++;
		s->score[most] = 0;
	}
}

/*
 * The slice's best member among those that come after (score, member) in its order. A member
 * without quota would turn it away, and is passed over. Scores cost most of a table, so those of
 * members that cannot be better than the best so far are not looked at.
 */
static uint32_t next_choice(const struct wvm_members *members, const struct wvm_slices_scratch *s,
			    uint32_t slice, uint64_t *bound)
{
	uint32_t after = s->asked[slice], best = WVM_SLICE_NIL, best_vnodes = 0;
	uint64_t best_score = 0, best_hash = 0;

	for (uint32_t i = 0; i < homes(members); i++) {
		uint32_t vnodes = members->list[i].vnodes;
		uint64_t sc, h;

		if (!s->quota[i])
			continue;
		h = hash(slice, &members->list[i]);
		if (h <= best_hash && vnodes <= best_vnodes)
			continue;
		sc = score(h, vnodes);
		if (after != WVM_SLICE_NIL && !better(*bound, after, sc, i))
			continue;
		if (best == WVM_SLICE_NIL || better(sc, i, best_score, best)) {
			best = i;
			best_score = sc;
			best_hash = h;
			best_vnodes = vnodes;
		}
	}
	WVM_ASSERT(best != WVM_SLICE_NIL);
	*bound = best_score;
	return best;
}

/* Where a member comes among a slice's choices so far; choices[]: behind all of them. */
static uint32_t rank(const struct wvm_slices_scratch *s, uint32_t slice, uint64_t sc,
		     uint32_t member)
{
	uint32_t at = s->choices[slice];

	while (at && better(sc, member, s->choice_score[slice][at - 1], s->choice[slice][at - 1]))
		at--;
	return at;
}

/* The last choice gives way where there are as many as can be. */
static void insert_choice(struct wvm_slices_scratch *s, uint32_t slice, uint32_t at, uint64_t sc,
			  uint32_t member)
{
	uint32_t last = s->choices[slice];

	if (last == WVM_SLICES_CHOICES)
		last--;
	else
		s->choices[slice]++;
	for (; last > at; last--) {
		s->choice_score[slice][last] = s->choice_score[slice][last - 1];
		s->choice[slice][last] = s->choice[slice][last - 1];
	}
	s->choice_score[slice][at] = sc;
	s->choice[slice][at] = (uint16_t)member;
}

/* What one slice thinks of all that are active; scores as few as in next_choice(). */
static void list_choices_of(const struct wvm_members *members, const uint8_t *active,
			    struct wvm_slices_scratch *s, uint32_t slice)
{
	s->choices[slice] = 0;
	for (uint32_t i = 0; i < homes(members); i++) {
		uint32_t vnodes = members->list[i].vnodes, at, last;
		uint64_t sc, h;

		if (active && !active[i])
			continue;
		h = hash(slice, &members->list[i]);
		if (s->choices[slice] == WVM_SLICES_CHOICES) {
			last = s->choice[slice][WVM_SLICES_CHOICES - 1];
			if (vnodes <= members->list[last].vnodes &&
			    h <= hash(slice, &members->list[last]))
				continue;
		}
		sc = score(h, vnodes);
		at = rank(s, slice, sc, i);
		if (at < WVM_SLICES_CHOICES)
			insert_choice(s, slice, at, sc, i);
	}
}

/* The slice's next choice of those listed that have a quota, or WVM_SLICE_NIL. */
static uint32_t next_listed(struct wvm_slices_scratch *s, uint32_t slice, uint64_t *bound)
{
	while (s->asked_of[slice] < s->choices[slice]) {
		uint32_t at = s->asked_of[slice]++;
		uint32_t member = s->choice[slice][at];

		if (!s->quota[member])
			continue;
		*bound = s->choice_score[slice][at];
		return member;
	}
	return WVM_SLICE_NIL;
}

/* Whether a member would give up slice a before slice b, of those that ask it. */
static bool weaker(const struct wvm_slices_scratch *s, uint32_t a, uint32_t b)
{
	return better(s->score[b], b, s->score[a], a);
}

/* A heap over the slices of one member, of which the weakest is the first. */
static void sift_up(const struct wvm_slices_scratch *s, uint32_t *heap, uint32_t at, uint32_t slice)
{
	for (; at && weaker(s, slice, heap[(at - 1) / 2]); at = (at - 1) / 2)
		heap[at] = heap[(at - 1) / 2];
	heap[at] = slice;
}

/* The first of n gives way to the slice. */
static void replace_first(const struct wvm_slices_scratch *s, uint32_t *heap, uint32_t n,
			  uint32_t slice)
{
	uint32_t at = 0, child;

	for (; (child = 2 * at + 1) < n; at = child) {
		if (child + 1 < n && weaker(s, heap[child + 1], heap[child]))
			child++;
		if (!weaker(s, heap[child], slice))
			break;
		heap[at] = heap[child];
	}
	heap[at] = slice;
}

/* A slice asks a member. Returns the slice that has to go on asking, or WVM_SLICE_NIL. */
static uint32_t ask(struct wvm_slices_scratch *s, uint32_t slice, uint32_t member)
{
	uint32_t *heap = &s->held[s->first[member]], out;

	if (s->taken[member] < s->quota[member]) {
		sift_up(s, heap, s->taken[member]++, slice);
		return WVM_SLICE_NIL;
	}
	out = heap[0];
	if (weaker(s, slice, out))
		return slice;
	replace_first(s, heap, s->quota[member], slice);
	return out;
}

/*
 * Deferred acceptance: a slice asks its members in order of score; a member
 * keeps the best that its quota allows and turns away its weakest. The result
 * does not depend on the order of asking. Every slice asks a member at most
 * once, and the quotas add up to the slices, so it ends with all matched.
 * choices[] says how many of its first choices are known already.
 */
static void match_slices(const struct wvm_members *members, struct wvm_slices_scratch *s)
{
	uint32_t first = 0, next;

	for (uint32_t i = 0; i < homes(members); i++) {
		s->taken[i] = 0;
		s->first[i] = first;
		first += s->quota[i];
	}
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		s->asked[i] = WVM_SLICE_NIL;
		s->asked_of[i] = 0;
	}
	for (uint32_t i = 0; i < WVM_SLICES; i++) {
		uint32_t slice = i;

		while (slice != WVM_SLICE_NIL) {
			next = next_listed(s, slice, &s->score[slice]);
			if (next == WVM_SLICE_NIL)
				next = next_choice(members, s, slice, &s->score[slice]);
			s->asked[slice] = next;
			slice = ask(s, slice, s->asked[slice]);
		}
	}
}

uint32_t wvm_slice_vnode(uint32_t slice, const struct wvm_member *member)
{
	return member->first_vnode + mix(slice) % member->vnodes;
}

void wvm_slices_build_active(struct wvm_slices *table, const struct wvm_members *members,
			     const uint8_t *active, struct wvm_slices_scratch *scratch)
{
	WVM_ASSERT(members->count > 0);
	deal_quota(members, active, scratch);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		scratch->choices[i] = 0;
	match_slices(members, scratch);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		table->home_vnode[i] = wvm_slice_vnode(i, &members->list[scratch->asked[i]]);
}

static bool homes_any(const struct wvm_slices *slices, const struct wvm_member *m)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		if (slices->home_vnode[i] - m->first_vnode < m->vnodes)
			return true;
	return false;
}

/* scratch->active is that of all members but one. False: nobody is left. */
static bool leave_out(const struct wvm_members *members, const uint8_t *active, uint32_t out,
		      struct wvm_slices_scratch *s)
{
	uint64_t weight = 0;

	for (uint32_t i = 0; i < homes(members); i++) {
		s->active[i] = i != out && (!active || active[i]);
		weight += weight_of(members, s->active, i);
	}
	return weight;
}

/* scratch->asked says who it is, unless there is nobody. */
static uint32_t second_vnode(const struct wvm_members *members, const struct wvm_slices_scratch *s,
			     uint32_t slice, bool any)
{
	return any ? wvm_slice_vnode(slice, &members->list[s->asked[slice]]) : WVM_SLICE_NIL;
}

void wvm_slices_build_backup(struct wvm_slices *backup, const struct wvm_slices *slices,
			     const struct wvm_members *members, const uint8_t *active,
			     const uint8_t *mortal, struct wvm_slices_scratch *scratch)
{
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		list_choices_of(members, active, scratch, i);
	for (uint32_t home = 0; home < homes(members); home++) {
		const struct wvm_member *m = &members->list[home];
		bool any = (!mortal || mortal[home]) && leave_out(members, active, home, scratch);

		if (!homes_any(slices, m))
			continue;
		if (any) {
			deal_quota(members, scratch->active, scratch);
			match_slices(members, scratch);
		}
		for (uint32_t i = 0; i < WVM_SLICES; i++)
			if (slices->home_vnode[i] - m->first_vnode < m->vnodes)
				backup->home_vnode[i] = second_vnode(members, scratch, i, any);
	}
}

void wvm_slices_build(struct wvm_slices *table, const struct wvm_members *members,
		      struct wvm_slices_scratch *scratch)
{
	wvm_slices_build_active(table, members, NULL, scratch);
}

/* Where it is if all have as many vnodes, which is the rule: tables are gone through by slice. */
static uint32_t guess(const struct wvm_members *members, uint32_t vnode)
{
	const struct wvm_member *last = &members->list[members->count - 1];
	uint64_t end = (uint64_t)last->first_vnode + last->vnodes;

	return vnode < end ? (uint32_t)((uint64_t)vnode * members->count / end) : 0;
}

uint32_t wvm_member_of(const struct wvm_members *members, uint32_t vnode)
{
	uint32_t low = 0, high = members->count, middle;

	for (middle = high ? guess(members, vnode) : 0; low < high;
	     middle = low + (high - low) / 2) {
		const struct wvm_member *m = &members->list[middle];

		if (vnode < m->first_vnode)
			high = middle;
		else if (vnode - m->first_vnode >= m->vnodes)
			low = middle + 1;
		else
			return middle;
	}
	return WVM_SLICE_NIL;
}
