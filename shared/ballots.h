/*
 * The file of a node's ballots: what of shared/core/epoch.h outlives process and host. A node that
 * forgot a promise could vote twice, so the file is replaced whole and is never guessed at.
 *
 *   magic "WVMBALLT" 8 | layout 4 | node 4 | cluster 8 | current 40 | value 40 | accepted 8 |
 *   promised 8 | crc32c of all before 4
 *
 * All big-endian; a record is epoch 4, node 4, state 1, voters 1, 0 2, voter 7 * 4.
 */
#ifndef WVM_BALLOTS_H
#define WVM_BALLOTS_H

#include <stddef.h>
#include <stdint.h>

#include "shared/core/epoch.h"
#include "shared/replace_file.h"

#define WVM_BALLOTS_BYTES 124u

/* Which file, and whose. Not written after wvm_ballots_begin(). */
struct wvm_ballots {
	char dir[208];
	char path[WVM_REPLACE_PATH]; /* <dir>/ballots.<phys_id> */
	uint32_t node;               /* vnode id: who votes */
	uint64_t cluster;            /* identity of the topology that the first record came from */
};

/*
 * Reads the node's file in dir, which exists. What has never promised anything (no file yet, or one
 * of the first record alone) begins with `first` and is stored; else *d is what was stored last.
 * Any thread; blocks for the disk. 0, or 1 when there was no file; or -errno with one line in err,
 * and then the node must not vote: -EINVAL the file is damaged, -EEXIST it is of another node or
 * another cluster's.
 */
int wvm_ballots_begin(struct wvm_ballots *b, const char *dir, uint32_t phys_id, uint32_t node,
		      uint64_t cluster, const struct wvm_epoch_record *first,
		      struct wvm_epoch_durable *d, char *err, size_t err_len);

/*
 * Replaces the file. When this returns 0 it outlives a power cut; else (-errno) the file has the
 * old bytes or the new ones, and may be stored again. One thread at a time; blocks for the disk.
 */
int wvm_ballots_store(const struct wvm_ballots *b, const struct wvm_epoch_durable *d);

/* The bytes of the file. d must pass wvm_epoch_durable_check(). */
void wvm_ballots_encode(uint8_t out[WVM_BALLOTS_BYTES], const struct wvm_ballots *b,
			const struct wvm_epoch_durable *d);
/* 0, -EINVAL: these are no such bytes, or -EEXIST: another node's or cluster's. */
int wvm_ballots_decode(const struct wvm_ballots *b, const uint8_t *bytes, size_t len,
		       struct wvm_epoch_durable *d);

/* The first record of all nodes: epoch 1, and the up to 7 lowest of `count` node ids vote. */
void wvm_ballots_first(struct wvm_epoch_record *first, const uint32_t *nodes, uint32_t count);

#endif
