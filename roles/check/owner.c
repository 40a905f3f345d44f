#include "roles/check/owner.h"

#include <stdio.h>
#include <string.h>

static uint64_t chance(uint64_t *seed, uint64_t below)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed % below;
}

struct wvm *owner_attach(const struct cluster *c, unsigned node)
{
	struct wvm *w;

	ck_assert_msg(!wvm_attach(&w, c->node[node].ring), "%s", wvm_attach_error());
	return w;
}

struct wvm_vcpu_link *owner_open(struct wvm *w, unsigned vcpu)
{
	struct wvm_vcpu_link *l;
	int ret = wvm_vcpu_open(&l, w, CLUSTER_VM, vcpu);

	ck_assert_msg(!ret, "%s", wvm_vcpu_error());
	return l;
}

uint64_t owner_learn(struct wvm_vcpu_link *l, unsigned node)
{
	struct wvm_vcpu_hello h;
	uint64_t life = 0;

	ck_assert_msg(!wvm_vcpu_hello(l, node, &life, &h), "%s", wvm_vcpu_error());
	ck_assert_uint_eq(h.cores, ECHO_CORES);
	ck_assert_uint_eq(h.engines, 1u << WVM_VCPU_ENGINE_KVM);
	return life;
}

bool owner_is_echo(const void *sent, size_t len, const struct wvm_vcpu_answer *a)
{
	const uint8_t *is = sent, *came = a->data;

	if (a->outcome != WVM_VCPU_ANSWERED || a->len != len)
		return false;
	for (size_t i = 0; i < len; i++)
		if (came[i] != echo_of(is[i], i))
			return false;
	return true;
}

static bool run_once(struct owner *o, struct wvm_vcpu_link *l, uint64_t life, uint8_t *data,
		     unsigned i)
{
	uint32_t most = chance(&o->seed, 8) ? o->most / 8 : o->most;
	size_t len = 1 + chance(&o->seed, most);
	struct wvm_vcpu_answer a;

	for (size_t k = 0; k < len; k += 8) {
		uint64_t word = chance(&o->seed, UINT64_MAX);

		memcpy(data + k, &word, len - k < 8 ? len - k : 8);
	}
	if (wvm_vcpu_run(l, o->echo->node, life, data, len, &a))
		snprintf(o->failed, sizeof(o->failed), "run %u: %s", i, wvm_vcpu_error());
	else if (!owner_is_echo(data, len, &a))
		snprintf(o->failed, sizeof(o->failed), "run %u of %zu bytes: outcome %u, %zu: %s",
			 i, len, a.outcome, a.len, wvm_vcpu_error());
	else if (a.seq != i)
		snprintf(o->failed, sizeof(o->failed), "run %u is number %lu", i, a.seq);
	return !o->failed[0];
}

static void *own(void *arg)
{
	struct owner *o = arg;
	static _Thread_local uint8_t data[WVM_RUN_MAX];
	struct wvm_vcpu_link *l;
	struct wvm_vcpu_hello h;
	uint64_t life;

	if (wvm_vcpu_open(&l, o->wvm, CLUSTER_VM, o->vcpu) ||
	    wvm_vcpu_hello(l, o->echo->node, &life, &h)) {
		snprintf(o->failed, sizeof(o->failed), "%s", wvm_vcpu_error());
		return NULL;
	}
	for (unsigned i = 1; i <= o->runs && !atomic_load(&o->stop); i++) {
		if (!run_once(o, l, life, data, i))
			break;
		atomic_fetch_add(&o->done, 1);
	}
	wvm_vcpu_close(l);
	return NULL;
}

void owner_begin(struct owner *o, struct wvm *w, const struct echo *e, unsigned vcpu, unsigned runs,
		 uint32_t most)
{
	memset(o, 0, sizeof(*o));
	o->wvm = w;
	o->echo = e;
	o->vcpu = vcpu;
	o->runs = runs;
	o->most = most;
	o->seed = UINT64_C(0x2545f4914f6cdd1d) * (vcpu + 1);
	ck_assert_int_eq(pthread_create(&o->thread, NULL, own, o), 0);
}

unsigned owner_end(struct owner *o)
{
	const struct echo_vcpu *v = &o->echo->vcpu[o->vcpu];
	unsigned done;

	pthread_join(o->thread, NULL);
	done = atomic_load(&o->done);
	ck_assert_msg(!o->failed[0], "processor %u, after %u runs: %s", o->vcpu, done, o->failed);
	for (unsigned seq = 1; seq <= done; seq++)
		ck_assert_msg(atomic_load(&v->executed[seq]) == 1,
			      "run %u of processor %u was executed %u times", seq, o->vcpu,
			      atomic_load(&v->executed[seq]));
	ck_assert_uint_eq(atomic_load(&v->executed[done + 1]), 0);
	return done;
}
