#include "shared/ballots.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "shared/core/assert.h"
#include "shared/core/bytes.h"
#include "shared/crc32c.h"
#include "shared/replace_file.h"

#define MAGIC  "WVMBALLT"
#define LAYOUT 1u

enum offset {
	AT_MAGIC = 0,
	AT_LAYOUT = 8,
	AT_NODE = AT_LAYOUT + 4,
	AT_CLUSTER = AT_NODE + 4,
	AT_CURRENT = AT_CLUSTER + 8,
	AT_VALUE = AT_CURRENT + WVM_EPOCH_RECORD_BYTES,
	AT_ACCEPTED = AT_VALUE + WVM_EPOCH_RECORD_BYTES,
	AT_PROMISED = AT_ACCEPTED + 8,
	AT_CRC = AT_PROMISED + 8,
	AT_END = AT_CRC + 4,
};
_Static_assert(AT_END == WVM_BALLOTS_BYTES, "the size stated in the header");

/* ---- bytes ----------------------------------------------------------------------------- */

void wvm_ballots_encode(uint8_t out[WVM_BALLOTS_BYTES], const struct wvm_ballots *b,
			const struct wvm_epoch_durable *d)
{
	WVM_ASSERT(wvm_epoch_durable_check(d));
	memcpy(out + AT_MAGIC, MAGIC, AT_LAYOUT - AT_MAGIC);
	wvm_store32(out + AT_LAYOUT, LAYOUT);
	wvm_store32(out + AT_NODE, b->node);
	wvm_store64(out + AT_CLUSTER, b->cluster);
	wvm_epoch_record_encode(out + AT_CURRENT, &d->current);
	wvm_epoch_record_encode(out + AT_VALUE, &d->value);
	wvm_store64(out + AT_ACCEPTED, d->accepted);
	wvm_store64(out + AT_PROMISED, d->promised);
	wvm_store32(out + AT_CRC, wvm_crc32c(0, out, AT_CRC));
}

int wvm_ballots_decode(const struct wvm_ballots *b, const uint8_t *bytes, size_t len,
		       struct wvm_epoch_durable *d)
{
	if (len != WVM_BALLOTS_BYTES || memcmp(bytes, MAGIC, AT_LAYOUT - AT_MAGIC) ||
	    wvm_load32(bytes + AT_LAYOUT) != LAYOUT ||
	    wvm_load32(bytes + AT_CRC) != wvm_crc32c(0, bytes, AT_CRC))
		return -EINVAL;
	d->current = wvm_epoch_record_decode(bytes + AT_CURRENT);
	d->value = wvm_epoch_record_decode(bytes + AT_VALUE);
	d->accepted = wvm_load64(bytes + AT_ACCEPTED);
	d->promised = wvm_load64(bytes + AT_PROMISED);
	if (!wvm_epoch_durable_check(d))
		return -EINVAL;
	return wvm_load32(bytes + AT_NODE) == b->node &&
			       wvm_load64(bytes + AT_CLUSTER) == b->cluster
		       ? 0
		       : -EEXIST;
}

void wvm_ballots_first(struct wvm_epoch_record *first, const uint32_t *nodes, uint32_t count)
{
	*first = (struct wvm_epoch_record){.epoch = 1, .state = WVM_NODE_ACTIVE};
	for (uint32_t i = 0; i < count; i++) {
		uint8_t at = first->voters;

		while (at && first->voter[at - 1] > nodes[i])
			at--;
		if (at == WVM_EPOCH_VOTERS_MAX)
			continue;
		if (first->voters < WVM_EPOCH_VOTERS_MAX)
			first->voters++;
		memmove(&first->voter[at + 1], &first->voter[at],
			(first->voters - at - 1u) * sizeof(first->voter[0]));
		first->voter[at] = nodes[i];
	}
	first->node = first->voter[0];
}

/* ---- the file -------------------------------------------------------------------------- */

int wvm_ballots_store(const struct wvm_ballots *b, const struct wvm_epoch_durable *d)
{
	uint8_t bytes[WVM_BALLOTS_BYTES];

	wvm_ballots_encode(bytes, b, d);
	return wvm_file_replace(b->dir, b->path, bytes, sizeof(bytes));
}

static bool promised_nothing(const struct wvm_epoch_durable *d)
{
	return d->current.epoch == 1 && !d->promised && !d->accepted;
}

static int refuse(const struct wvm_ballots *b, int r, char *err, size_t err_len)
{
	if (r == -EINVAL)
		snprintf(
			err, err_len,
			"%s: does not hold this node's ballots any more (damaged, or written by "
			"another version): put a good copy of its last state back; without one "
			"stop all nodes, remove ballots.* and view.* of each, and start all of them",
			b->path);
	else if (r == -EEXIST)
		snprintf(err, err_len,
			 "%s: holds votes of another node or of a cluster with other NODE or PLACE "
			 "lines: put the former topology back, or stop all nodes, remove ballots.* "
			 "and view.* of each, and start all of them",
			 b->path);
	else
		snprintf(err, err_len, "%s: cannot keep this node's ballots: %s", b->path,
			 strerror(-r));
	return r;
}

int wvm_ballots_begin(struct wvm_ballots *b, const char *dir, uint32_t phys_id, uint32_t node,
		      uint64_t cluster, const struct wvm_epoch_record *first,
		      struct wvm_epoch_durable *d, char *err, size_t err_len)
{
	uint8_t bytes[WVM_BALLOTS_BYTES + 1];
	ssize_t n;
	int r;

	*b = (struct wvm_ballots){.node = node, .cluster = cluster};
	if (snprintf(b->dir, sizeof(b->dir), "%s", dir) >= (int)sizeof(b->dir))
		return refuse(b, -ENAMETOOLONG, err, err_len);
	snprintf(b->path, sizeof(b->path), "%s/ballots.%u", b->dir, phys_id);
	n = wvm_file_read(b->path, bytes, sizeof(bytes));
	r = n >= 0 ? wvm_ballots_decode(b, bytes, (size_t)n, d) : (int)n;
	if (!r && !promised_nothing(d))
		return 0;
	if (r && r != -ENOENT && (r != -EEXIST || !promised_nothing(d)))
		return refuse(b, r, err, err_len);
	wvm_epoch_first(d, first);
	r = wvm_ballots_store(b, d);
	return r ? refuse(b, r, err, err_len) : n == -ENOENT;
}
