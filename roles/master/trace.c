#include "roles/master/trace.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define WORDS (sizeof(struct wvm_stamp) / sizeof(uint64_t))

const char *wvm_stamp_name(uint8_t kind)
{
	static const char *const names[WVM_STAMP_KINDS] = {"fault", "send", "submit", "receive",
							   "done"};

	return kind < WVM_STAMP_KINDS ? names[kind] : NULL;
}

/* The turn ends, and the sockets have said what they send: io_uring_enter follows. */
static bool submit(struct wvm_hook *hook, uint64_t now_ns)
{
	struct wvm_trace *t = (struct wvm_trace *)((char *)hook - offsetof(struct wvm_trace, hook));

	if (t->waiting) {
		t->waiting = false;
		wvm_trace(t, WVM_STAMP_SUBMIT, 0, 0, 0, 0);
	}
	return false;
}

int wvm_trace_open(struct wvm_trace *t, struct wvm_shard *s)
{
	void *at = mmap(NULL, WVM_TRACE_STAMPS * sizeof(struct wvm_stamp), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return -ENOMEM;
	*t = (struct wvm_trace){.ring = at, .hook.turn = submit};
	wvm_shard_hook(s, WVM_HOOK_FLUSH, &t->hook);
	return 0;
}

void wvm_trace_close(struct wvm_trace *t)
{
	if (t->ring)
		munmap(t->ring, WVM_TRACE_STAMPS * sizeof(struct wvm_stamp));
	t->ring = NULL;
}

void wvm_trace_until(struct wvm_trace *t, uint64_t until_ns)
{
	__atomic_store_n(&t->until_ns, until_ns, __ATOMIC_RELAXED);
}

/*
 * A reader may look at the slot meanwhile. Each word is stored with release, so that
 * one that sees any of them sees `made` as it was before, too, and knows that
 * the stamp that was in the slot is gone.
 */
void wvm_trace_stamp(struct wvm_trace *t, enum wvm_stamp_kind kind, uint8_t what, uint16_t vm_id,
		     uint64_t page, uint64_t request)
{
	uint64_t until = __atomic_load_n(&t->until_ns, __ATOMIC_RELAXED);
	struct wvm_stamp stamp = {.ns = wvm_now_ns(),
				  .page = page,
				  .request = request,
				  .vm_id = vm_id,
				  .kind = (uint8_t)kind,
				  .what = what};
	uint64_t words[WORDS], *slot = (uint64_t *)&t->ring[t->made % WVM_TRACE_STAMPS];

	if (stamp.ns >= until) {
		/* Unless it was switched on anew in between. */
		__atomic_compare_exchange_n(&t->until_ns, &until, 0, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED);
		return;
	}
	t->waiting |= kind == WVM_STAMP_SEND;
	memcpy(words, &stamp, sizeof(words));
	for (size_t i = 0; i < WORDS; i++)
		__atomic_store_n(&slot[i], words[i], __ATOMIC_RELEASE);
	__atomic_store_n(&t->made, t->made + 1, __ATOMIC_RELEASE);
}

/* The lowest number that is surely in its slot: one further is being overwritten, perhaps. */
static uint64_t oldest(uint64_t made)
{
	return made < WVM_TRACE_STAMPS ? 0 : made - WVM_TRACE_STAMPS + 1;
}

size_t wvm_trace_read(const struct wvm_trace *t, uint64_t *first, struct wvm_stamp *out, size_t max)
{
	uint64_t made = __atomic_load_n(&t->made, __ATOMIC_ACQUIRE), from = *first, gone;
	size_t n;

	if (from < oldest(made))
		from = oldest(made);
	if (from > made)
		from = made;
	n = made - from < max ? (size_t)(made - from) : max;
	for (size_t k = 0; k < n; k++) {
		const uint64_t *slot = (const uint64_t *)&t->ring[(from + k) % WVM_TRACE_STAMPS];
		uint64_t words[WORDS];

		for (size_t i = 0; i < WORDS; i++)
			words[i] = __atomic_load_n(&slot[i], __ATOMIC_ACQUIRE);
		memcpy(&out[k], words, sizeof(words));
	}
	gone = oldest(__atomic_load_n(&t->made, __ATOMIC_ACQUIRE));
	gone = gone > from ? gone - from : 0;
	if (gone > n)
		gone = n;
	memmove(out, out + gone, (n - gone) * sizeof(*out));
	*first = from + gone;
	return n - (size_t)gone;
}
