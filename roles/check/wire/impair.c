#include "impair.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum decision { DECIDE_LOSS, DECIDE_DUPLICATE, DECIDE_JITTER, DECIDE_REORDER, DECIDE_OVERTAKE };

/* Finalizer of splitmix64 (Steele, Lea, Flood: Fast splittable generators, 2014). */
static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static uint64_t draw(const struct wvm_impair *im, unsigned src, unsigned dst, uint64_t number,
		     enum decision what, unsigned copy)
{
	uint64_t link = (uint64_t)src << 16 | (uint64_t)dst << 8;

	return mix(mix(mix(im->seed + 0x9e3779b97f4a7c15ull) + (link | what << 1 | copy)) + number);
}

static bool chance(double probability, uint64_t random)
{
	return (double)(random >> 11) * 0x1p-53 < probability;
}

static void *pages(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int wvm_impair_init(struct wvm_impair *im, uint32_t n_frames, size_t frame_max, uint64_t seed)
{
	memset(im, 0, sizeof(*im));
	if (n_frames == 0 || n_frames > 1u << 24 || frame_max == 0 || frame_max > 1u << 16)
		return -EINVAL;
	im->seed = seed;
	im->n_frames = n_frames;
	im->frame_max = frame_max;
	im->out = UINT32_MAX;
	im->frame = pages(n_frames * sizeof(*im->frame));
	im->data = pages(n_frames * frame_max);
	im->heap = pages(n_frames * sizeof(*im->heap));
	im->idle = pages(n_frames * sizeof(*im->idle));
	if (!im->frame || !im->data || !im->heap || !im->idle) {
		wvm_impair_fini(im);
		return -ENOMEM;
	}
	/* Low numbers on top: a short queue reuses the same few frames. */
	for (uint32_t i = 0; i < n_frames; i++)
		im->idle[i] = n_frames - 1 - i;
	im->n_idle = n_frames;
	return 0;
}

void wvm_impair_fini(struct wvm_impair *im)
{
	if (im->frame)
		munmap(im->frame, im->n_frames * sizeof(*im->frame));
	if (im->data)
		munmap(im->data, im->n_frames * im->frame_max);
	if (im->heap)
		munmap(im->heap, im->n_frames * sizeof(*im->heap));
	if (im->idle)
		munmap(im->idle, im->n_frames * sizeof(*im->idle));
	memset(im, 0, sizeof(*im));
}

static bool earlier(const struct wvm_impair *im, uint32_t a, uint32_t b)
{
	const struct wvm_frame *x = &im->frame[a], *y = &im->frame[b];

	return x->due_ns != y->due_ns ? x->due_ns < y->due_ns : x->order < y->order;
}

static void heap_put(struct wvm_impair *im, uint32_t at, uint32_t frame)
{
	im->heap[at] = frame;
	im->frame[frame].heap_at = at;
}

static void heap_up(struct wvm_impair *im, uint32_t at)
{
	uint32_t frame = im->heap[at];

	while (at > 0 && earlier(im, frame, im->heap[(at - 1) / 2])) {
		heap_put(im, at, im->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_put(im, at, frame);
}

static void heap_down(struct wvm_impair *im, uint32_t at)
{
	uint32_t frame = im->heap[at], child;

	while ((child = 2 * at + 1) < im->n_heap) {
		if (child + 1 < im->n_heap && earlier(im, im->heap[child + 1], im->heap[child]))
			child++;
		if (!earlier(im, im->heap[child], frame))
			break;
		heap_put(im, at, im->heap[child]);
		at = child;
	}
	heap_put(im, at, frame);
}

static void unhold(struct wvm_link *link, uint32_t frame)
{
	for (unsigned i = 0; i < link->n_held; i++)
		if (link->held[i] == frame) {
			link->held[i] = link->held[--link->n_held];
			return;
		}
	assert(!"a held frame is on its link's list");
}

/* Lets the held frames of a link know that one more passed them, due at due_ns. */
static void overtake(struct wvm_impair *im, unsigned src, unsigned dst, uint64_t due_ns)
{
	struct wvm_link *link = &im->link[src][dst];

	for (unsigned i = link->n_held; i-- > 0;) {
		struct wvm_frame *frame = &im->frame[link->held[i]];

		/* One that leaves before this is not passed by it. */
		if (frame->due_ns <= due_ns)
			continue;
		if (!frame->passed) {
			frame->passed = true;
			im->stats[src].reordered++;
		}
		if (--frame->overtakes > 0)
			continue;
		frame->due_ns = due_ns;
		frame->order = ++im->order;
		frame->held = false;
		heap_up(im, frame->heap_at);
		unhold(link, link->held[i]);
	}
}

/* The time at which a port of limited rate has taken in a frame that reaches it at due_ns. */
static uint64_t through_port(struct wvm_impair *im, unsigned dst, uint64_t due_ns, size_t len)
{
	uint64_t start = im->port_free_ns[dst];

	if (im->chaos.rate_bps == 0)
		return due_ns;
	if (due_ns > WVM_WIRE_BURST_NS && start < due_ns - WVM_WIRE_BURST_NS)
		start = due_ns - WVM_WIRE_BURST_NS;
	start += len * 8 * 1000000000ull / im->chaos.rate_bps;
	im->port_free_ns[dst] = start;
	return start > due_ns ? start : due_ns;
}

static struct wvm_frame *enqueue(struct wvm_impair *im, uint64_t due_ns, unsigned src, unsigned dst,
				 const void *data, size_t len)
{
	uint32_t index;

	if (im->n_idle == 0 || len > im->frame_max) {
		im->stats[src].overflow++;
		return NULL;
	}
	index = im->idle[--im->n_idle];
	im->frame[index] = (struct wvm_frame){.due_ns = due_ns,
					      .order = ++im->order,
					      .len = (uint32_t)len,
					      .src = (uint8_t)src,
					      .dst = (uint8_t)dst};
	memcpy(im->data + index * im->frame_max, data, len);
	heap_put(im, im->n_heap++, index);
	heap_up(im, im->n_heap - 1);
	return &im->frame[index];
}

/* Queues one copy of an impaired frame, in the link's order or held back. */
static unsigned schedule(struct wvm_impair *im, uint64_t now_ns, unsigned src, unsigned dst,
			 unsigned copy, const void *data, size_t len)
{
	const struct wvm_chaos *chaos = &im->chaos;
	struct wvm_link *link = &im->link[src][dst];
	uint64_t number = link->frames, due = now_ns + chaos->delay_ns, overtakes;
	struct wvm_frame *frame;
	bool hold = chance(chaos->reorder, draw(im, src, dst, number, DECIDE_REORDER, copy));

	if (chaos->jitter_ns > 0)
		due += draw(im, src, dst, number, DECIDE_JITTER, copy) % (chaos->jitter_ns + 1);
	due = through_port(im, dst, due, len);
	if (due < link->last_due_ns)
		due = link->last_due_ns;
	if (!hold || link->n_held == WVM_WIRE_HELD) {
		if (!enqueue(im, due, src, dst, data, len))
			return 0;
		link->last_due_ns = due;
		overtake(im, src, dst, due);
		return 1;
	}
	due += chaos->delay_ns > WVM_WIRE_HOLD_NS ? chaos->delay_ns : WVM_WIRE_HOLD_NS;
	frame = enqueue(im, due, src, dst, data, len);
	if (!frame)
		return 0;
	overtakes = 1 + draw(im, src, dst, number, DECIDE_OVERTAKE, copy) % WVM_WIRE_OVERTAKE;
	frame->held = true;
	frame->overtakes = (uint8_t)overtakes;
	link->held[link->n_held++] = (uint32_t)(frame - im->frame);
	im->stats[src].held++;
	return 1;
}

unsigned wvm_impair_push(struct wvm_impair *im, uint64_t now_ns, unsigned src, unsigned dst,
			 enum wvm_frame_kind kind, const void *data, size_t len)
{
	const struct wvm_chaos *chaos = &im->chaos;
	struct wvm_port_stats *stats = &im->stats[src];
	struct wvm_link *link = &im->link[src][dst];
	unsigned queued;

	assert(src >= 1 && src <= WVM_WIRE_PORTS && dst >= 1 && dst <= WVM_WIRE_PORTS);
	stats->in++;
	if (kind != WVM_FRAME_CLEAN && chaos->blocked[src] >> (dst - 1) & 1) {
		stats->blocked++;
		return 0;
	}
	if (kind != WVM_FRAME_UDP)
		return enqueue(im, now_ns, src, dst, data, len) != NULL;
	link->frames++;
	if (chance(chaos->loss, draw(im, src, dst, link->frames, DECIDE_LOSS, 0))) {
		stats->lost++;
		return 0;
	}
	queued = schedule(im, now_ns, src, dst, 0, data, len);
	if (chance(chaos->duplicate, draw(im, src, dst, link->frames, DECIDE_DUPLICATE, 0))) {
		stats->duplicated++;
		queued += schedule(im, now_ns, src, dst, 1, data, len);
	}
	return queued;
}

uint64_t wvm_impair_next(const struct wvm_impair *im)
{
	return im->n_heap > 0 ? im->frame[im->heap[0]].due_ns : UINT64_MAX;
}

const struct wvm_frame *wvm_impair_pop(struct wvm_impair *im, uint64_t now_ns)
{
	struct wvm_frame *frame;

	if (im->out != UINT32_MAX)
		im->idle[im->n_idle++] = im->out;
	im->out = UINT32_MAX;
	if (wvm_impair_next(im) > now_ns || im->n_heap == 0)
		return NULL;
	im->out = im->heap[0];
	frame = &im->frame[im->out];
	if (--im->n_heap > 0) {
		heap_put(im, 0, im->heap[im->n_heap]);
		heap_down(im, 0);
	}
	if (frame->held)
		unhold(&im->link[frame->src][frame->dst], im->out);
	im->stats[frame->dst].forwarded++;
	return frame;
}

const void *wvm_impair_data(const struct wvm_impair *im, const struct wvm_frame *frame)
{
	return im->data + (size_t)(frame - im->frame) * im->frame_max;
}

enum wvm_frame_kind wvm_frame_kind(const unsigned char *frame, size_t len)
{
	unsigned type;

	if (len < 14)
		return WVM_FRAME_CLEAN;
	type = frame[12] << 8 | frame[13];
	if (type == 0x0800 && len >= 34)
		return frame[23] == 17 ? WVM_FRAME_UDP : WVM_FRAME_IP;
	if (type == 0x86dd && len >= 54)
		return frame[20] == 17 ? WVM_FRAME_UDP : WVM_FRAME_IP;
	return WVM_FRAME_CLEAN;
}
