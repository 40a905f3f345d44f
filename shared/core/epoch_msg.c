/* Epochs: records, what is saved, and messages as bytes. */
#include "shared/core/assert.h"
#include "shared/core/bytes.h"
#include "shared/core/epoch.h"

#define RECORD_AT 24u

bool wvm_epoch_record_check(const struct wvm_epoch_record *r)
{
	if (r->epoch == 0 || r->node >= WVM_NODE_MAX || r->state >= WVM_NODE_STATES ||
	    r->reserved || r->voters == 0 || r->voters > WVM_EPOCH_VOTERS_MAX)
		return false;
	for (uint32_t i = 0; i < WVM_EPOCH_VOTERS_MAX; i++) {
		if (i >= r->voters ? r->voter[i] != 0 : r->voter[i] >= WVM_NODE_MAX)
			return false;
		if (i > 0 && i < r->voters && r->voter[i] <= r->voter[i - 1])
			return false;
	}
	return (r->state != WVM_NODE_OFFLINE && r->state != WVM_NODE_LOST) ||
	       wvm_epoch_voter(r, r->node) < 0;
}

bool wvm_epoch_record_same(const struct wvm_epoch_record *a, const struct wvm_epoch_record *b)
{
	return !__builtin_memcmp(a, b, sizeof(*a));
}

int wvm_epoch_voter(const struct wvm_epoch_record *r, uint32_t node)
{
	for (uint32_t i = 0; i < r->voters; i++) {
		if (r->voter[i] == node)
			return (int)i;
	}
	return -1;
}

static bool no_record(const struct wvm_epoch_record *r)
{
	static const struct wvm_epoch_record none;

	return wvm_epoch_record_same(r, &none);
}

static bool ballot_check(uint64_t ballot)
{
	return wvm_epoch_round(ballot) >= 1 && wvm_epoch_round(ballot) <= WVM_EPOCH_ROUND_MAX &&
	       wvm_epoch_proposer(ballot) < WVM_NODE_MAX;
}

static bool record_of(const struct wvm_epoch_record *r, uint32_t epoch)
{
	return wvm_epoch_record_check(r) && r->epoch == epoch;
}

void wvm_epoch_first(struct wvm_epoch_durable *d, const struct wvm_epoch_record *first)
{
	WVM_ASSERT(wvm_epoch_record_check(first));
	*d = (struct wvm_epoch_durable){.current = *first};
}

bool wvm_epoch_durable_check(const struct wvm_epoch_durable *d)
{
	if (!wvm_epoch_record_check(&d->current) || (d->promised && !ballot_check(d->promised)))
		return false;
	if (!d->accepted)
		return no_record(&d->value);
	return ballot_check(d->accepted) && d->accepted <= d->promised &&
	       d->current.epoch < UINT32_MAX && record_of(&d->value, d->current.epoch + 1);
}

bool wvm_epoch_msg_check(const struct wvm_epoch_msg *m)
{
	bool voting = m->kind >= WVM_EPOCH_PREPARE && m->kind <= WVM_EPOCH_REFUSED;
	bool bare = no_record(&m->record);

	if (m->kind == 0 || m->kind >= WVM_EPOCH_KINDS || m->epoch == 0 || m->reserved[0] ||
	    m->reserved[1] || m->reserved[2] ||
	    (voting ? !ballot_check(m->ballot) : m->ballot != 0))
		return false;
	switch (m->kind) {
	case WVM_EPOCH_PROMISE:
		if (m->other == 0)
			return bare;
		return ballot_check(m->other) && m->other <= m->ballot &&
		       record_of(&m->record, m->epoch);
	case WVM_EPOCH_REFUSED: return ballot_check(m->other) && m->other > m->ballot && bare;
	case WVM_EPOCH_ACCEPT:
	case WVM_EPOCH_DECIDED: return m->other == 0 && record_of(&m->record, m->epoch);
	default: return m->other == 0 && bare;
	}
}

void wvm_epoch_record_encode(uint8_t out[WVM_EPOCH_RECORD_BYTES], const struct wvm_epoch_record *r)
{
	wvm_store32(out, r->epoch);
	wvm_store32(out + 4, r->node);
	out[8] = r->state;
	out[9] = r->voters;
	wvm_store16(out + 10, r->reserved);
	for (uint32_t i = 0; i < WVM_EPOCH_VOTERS_MAX; i++)
		wvm_store32(out + 12 + 4 * i, r->voter[i]);
}

struct wvm_epoch_record wvm_epoch_record_decode(const uint8_t bytes[WVM_EPOCH_RECORD_BYTES])
{
	struct wvm_epoch_record r = {.epoch = wvm_load32(bytes),
				     .node = wvm_load32(bytes + 4),
				     .state = bytes[8],
				     .voters = bytes[9],
				     .reserved = wvm_load16(bytes + 10)};

	for (uint32_t i = 0; i < WVM_EPOCH_VOTERS_MAX; i++)
		r.voter[i] = wvm_load32(bytes + 12 + 4 * i);
	return r;
}

void wvm_epoch_encode(uint8_t out[WVM_EPOCH_MSG_BYTES], const struct wvm_epoch_msg *m)
{
	WVM_ASSERT(wvm_epoch_msg_check(m));
	out[0] = m->kind;
	out[1] = out[2] = out[3] = 0;
	wvm_store32(out + 4, m->epoch);
	wvm_store64(out + 8, m->ballot);
	wvm_store64(out + 16, m->other);
	wvm_epoch_record_encode(out + RECORD_AT, &m->record);
}

bool wvm_epoch_decode(struct wvm_epoch_msg *m, const uint8_t *bytes, size_t len)
{
	if (len != WVM_EPOCH_MSG_BYTES)
		return false;
	*m = (struct wvm_epoch_msg){
		.kind = bytes[0],
		.reserved = {bytes[1], bytes[2], bytes[3]},
		.epoch = wvm_load32(bytes + 4),
		.ballot = wvm_load64(bytes + 8),
		.other = wvm_load64(bytes + 16),
		.record = wvm_epoch_record_decode(bytes + RECORD_AT),
	};
	return wvm_epoch_msg_check(m);
}
