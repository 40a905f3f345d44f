/*
 * Epochs among hostile voters: bytes as they come are taken only if they encode to the same again,
 * and whatever they say, no assertion of the node is reached, what it saves is well-formed, its
 * epoch, promise and accepted ballot never go back, what it has accepted at a ballot stays, it
 * sends nothing before that is saved, and its queue of actions ends. It may be started anew, from
 * what it saved, after any action.
 */
#include "shared/core/epoch.h"
#include "shared/fuzz/fuzz.h"

#define SELF    1u
#define OPS_MAX 300u

static struct wvm_epoch e;
static struct wvm_epoch_durable disk;

/* What is saved replaces what was. */
static void saved(void)
{
	const struct wvm_epoch_durable *d = &e.d;

	FUZZ_CHECK(wvm_epoch_durable_check(d), "epoch %u", d->current.epoch);
	FUZZ_CHECK(d->current.epoch >= disk.current.epoch, "epoch %u", d->current.epoch);
	if (d->current.epoch == disk.current.epoch) {
		FUZZ_CHECK(wvm_epoch_record_same(&d->current, &disk.current), "another record");
		FUZZ_CHECK(d->promised >= disk.promised && d->accepted >= disk.accepted,
			   "a vote is taken back");
		FUZZ_CHECK(d->accepted != disk.accepted ||
				   wvm_epoch_record_same(&d->value, &disk.value),
			   "another vote at the same ballot");
	}
	disk = *d;
}

/* A promise or a vote that leaves is on the disk. */
static void sent(const struct wvm_epoch_action *a)
{
	const struct wvm_epoch_msg *m = &a->msg;
	uint8_t bytes[WVM_EPOCH_MSG_BYTES];

	FUZZ_CHECK(a->node != SELF && wvm_epoch_msg_check(m), "kind %u", m->kind);
	wvm_epoch_encode(bytes, m);
	if (m->kind == WVM_EPOCH_PREPARE || m->kind == WVM_EPOCH_PROMISE)
		FUZZ_CHECK(disk.promised >= m->ballot && disk.current.epoch + 1 == m->epoch,
			   "kind %u", m->kind);
	if (m->kind == WVM_EPOCH_ACCEPTED)
		FUZZ_CHECK(disk.accepted == m->ballot && disk.current.epoch + 1 == m->epoch,
			   "kind %u", m->kind);
	if (m->kind == WVM_EPOCH_DECIDED)
		FUZZ_CHECK(disk.current.epoch >= m->epoch, "epoch %u", m->epoch);
}

static void start(struct fuzz_in *in)
{
	wvm_epoch_init(&e, SELF, fuzz_u8(in), &disk);
}

/* Ends after `limit` actions, or goes on. */
static void drain(struct fuzz_in *in, uint32_t limit)
{
	struct wvm_epoch_action a;
	uint32_t n = 0;

	while (n < limit && wvm_epoch_next(&e, &a)) {
		FUZZ_CHECK(++n <= WVM_EPOCH_OUT + 3, "%u actions", n);
		if (a.act == WVM_EPOCH_SAVE)
			saved();
		else if (a.act == WVM_EPOCH_SEND)
			sent(&a);
		else if (a.act == WVM_EPOCH_LEARNT)
			FUZZ_CHECK(wvm_epoch_record_same(&a.record, &disk.current), "not saved");
	}
	if (n == limit) {
		start(in);
		drain(in, UINT32_MAX);
	}
}

static struct wvm_epoch_record any_record(struct fuzz_in *in, uint32_t epoch)
{
	uint8_t voters = fuzz_u8(in);
	struct wvm_epoch_record r = {
		.epoch = epoch, .node = fuzz_u8(in) % 8, .state = fuzz_u8(in) % WVM_NODE_STATES};

	for (uint32_t i = 0; i < WVM_EPOCH_VOTERS_MAX; i++) {
		if (voters >> i & 1 && !(r.state >= WVM_NODE_OFFLINE && r.node == i))
			r.voter[r.voters++] = i;
	}
	if (!r.voters)
		r.voter[r.voters++] = r.node == 0;
	return r;
}

static uint64_t any_ballot(struct fuzz_in *in)
{
	uint8_t how = fuzz_u8(in), round = fuzz_u8(in);

	if (how < 64)
		return e.ballot;
	if (how == 255)
		return wvm_epoch_ballot(WVM_EPOCH_ROUND_MAX - round, how % 8);
	return wvm_epoch_ballot(1u + round % 8, how % 8);
}

/* Mostly what makes sense about the next record: the rest of its fields follow from its kind. */
static bool any_message(struct fuzz_in *in, struct wvm_epoch_msg *m)
{
	uint8_t bytes[WVM_EPOCH_MSG_BYTES], again[WVM_EPOCH_MSG_BYTES], kind = fuzz_u8(in);
	uint8_t shift = fuzz_u8(in);

	if (kind >= 200) {
		fuzz_bytes(in, bytes, sizeof(bytes));
		if (!wvm_epoch_decode(m, bytes, sizeof(bytes)))
			return false;
		wvm_epoch_encode(again, m);
		FUZZ_CHECK(!memcmp(bytes, again, sizeof(bytes)), "kind %u", m->kind);
		return true;
	}
	*m = (struct wvm_epoch_msg){.kind = kind % WVM_EPOCH_KINDS,
				    .epoch = e.d.current.epoch + 1 + (shift > 240 ? shift % 4 : 0) -
					     (shift < 16 ? shift % 4 : 0)};
	if (m->kind <= WVM_EPOCH_REFUSED)
		m->ballot = any_ballot(in);
	if (m->kind == WVM_EPOCH_REFUSED || (m->kind == WVM_EPOCH_PROMISE && shift & 1))
		m->other = any_ballot(in);
	if (m->kind == WVM_EPOCH_ACCEPT || m->kind == WVM_EPOCH_DECIDED ||
	    (m->kind == WVM_EPOCH_PROMISE && m->other))
		m->record = any_record(in, m->epoch);
	return wvm_epoch_msg_check(m);
}

static void op(struct fuzz_in *in, uint64_t now_ns)
{
	uint8_t what = fuzz_u8(in);
	struct wvm_epoch_record r;
	struct wvm_epoch_msg m;

	switch (what % 8) {
	case 0: wvm_epoch_tick(&e, now_ns); break;
	case 1:
		r = any_record(in, e.d.current.epoch + 1);
		wvm_epoch_wish(&e, &r, now_ns);
		break;
	case 2: wvm_epoch_heard(&e, fuzz_u8(in) % 8, e.d.current.epoch + what / 8, now_ns); break;
	case 3:
		if (what < 128) {
			wvm_epoch_withdraw(&e);
			break;
		}
		r = any_record(in, e.d.current.epoch + what % 32);
		wvm_epoch_install(&e, &r, now_ns);
		break;
	default:
		if (any_message(in, &m))
			wvm_epoch_message(&e, what / 8 % 8, &m, now_ns);
		break;
	}
	drain(in, what >= 240 ? fuzz_u8(in) % 8 : UINT32_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	struct wvm_epoch_record first = any_record(&in, 1);
	uint64_t now_ns = 0;

	wvm_epoch_first(&disk, &first);
	start(&in);
	drain(&in, UINT32_MAX);
	for (uint32_t i = 0; i < OPS_MAX && in.left; i++) {
		now_ns += (uint64_t)fuzz_u8(&in) * 4000000;
		op(&in, now_ns);
	}
	return 0;
}

/* ---- seeds: random decisions ------------------------------------------------------------- */

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	fuzz_put_random(put, 1, 512, 0, 7); /* three voters, this one among them */
}
