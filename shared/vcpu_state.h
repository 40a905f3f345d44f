/*
 * The state of a virtual processor as it travels between the node that owns it and
 * the one that runs it. It consists of sections, the structs of whatever runs it
 * (KVM's own, or QEMU's VMState), side by side in one block of memory. Shipped is what
 * differs from a state that both sides have, as runs of words; the whole is what
 * differs from zeros.
 *
 *	run    section (1 byte), 0 (1), first word (2), words (2), 0 (2); numbers big-endian
 *	       the words' bytes, as they lie in memory
 *
 * A run lies within one section, and runs come in ascending order. No clock, no I/O, no
 * allocation; any thread.
 */
#ifndef WVM_VCPU_STATE_H
#define WVM_VCPU_STATE_H

#include <stddef.h>
#include <stdint.h>

#define WVM_VCPU_WORD         8u /* bytes: the grain of what differs */
#define WVM_VCPU_SECTIONS_MAX 16u
#define WVM_VCPU_SECTION_MAX  (UINT16_MAX * WVM_VCPU_WORD) /* bytes */
#define WVM_VCPU_RUN_BYTES    8u                           /* before the words */

/* Which sections there are; the same on both sides, by their order. */
struct wvm_vcpu_layout {
	uint32_t count;
	uint32_t bytes;                      /* of a state */
	uint32_t at[WVM_VCPU_SECTIONS_MAX];  /* byte offset of a section, in words' steps */
	uint32_t len[WVM_VCPU_SECTIONS_MAX]; /* bytes; the last word is filled up with zeros */
};

/*
 * Adds a section of len bytes (1 to WVM_VCPU_SECTION_MAX) behind the others. Its number, or
 * -1 when there is no room for one more.
 */
int wvm_vcpu_layout_add(struct wvm_vcpu_layout *layout, uint32_t len);

/*
 * Writes what `state` has other than `base` (NULL: zeros) in the sections whose bits are set.
 * Returns the bytes written to out; or more than `room` when they are more: then out has no
 * use. Both blocks are layout->bytes long and 8-aligned.
 */
size_t wvm_vcpu_delta(const struct wvm_vcpu_layout *layout, const void *base, const void *state,
		      uint32_t sections, void *out, size_t room);

/* At most so many bytes does a delta of the whole state take. */
size_t wvm_vcpu_delta_most(const struct wvm_vcpu_layout *layout);

/*
 * Puts a delta into `state`. *changed: the sections that it was in, a bit each. 0; or
 * -EBADMSG for one that is none, and state is as it was.
 */
int wvm_vcpu_apply(const struct wvm_vcpu_layout *layout, void *state, const void *delta, size_t len,
		   uint32_t *changed);

#endif
