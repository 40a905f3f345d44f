/*
 * Programs that own processors, for tests of the relay: threads of the test, each with a link
 * through the master of a node, whose runs an echo (echo.h) answers.
 */
#ifndef WVM_CHECK_OWNER_H
#define WVM_CHECK_OWNER_H

#include "roles/check/echo.h"
#include "shared/wavevm_vcpu.h"

/* A processor that runs again and again, in a thread of its own. */
struct owner {
	pthread_t thread;
	struct wvm *wvm;
	const struct echo *echo; /* where it runs */
	unsigned vcpu, runs;
	uint32_t most; /* bytes of a run, now and then; an eighth of it mostly */
	atomic_bool stop;
	atomic_uint done;
	uint64_t seed;
	char failed[256];
};

void owner_begin(struct owner *o, struct wvm *w, const struct echo *e, unsigned vcpu, unsigned runs,
		 uint32_t most);
/* Waits for its end. Every run came back right, and was executed once. Returns how many. */
unsigned owner_end(struct owner *o);

/* The same by hand; they assert. */
struct wvm *owner_attach(const struct cluster *c, unsigned node);
struct wvm_vcpu_link *owner_open(struct wvm *w, unsigned vcpu);
uint64_t owner_learn(struct wvm_vcpu_link *l, unsigned node);
/* Whether a run of those bytes was answered by an echo. */
bool owner_is_echo(const void *sent, size_t len, const struct wvm_vcpu_answer *a);

#endif
