/*
 * The slave's side of the channel to an engine process (shared/engine.h): makes it, starts the
 * program that takes it up, hands runs over and takes answers. What the engine writes is checked;
 * one that breaks the rules is to be ended.
 *
 * Making and freeing: while nobody else uses the channel. Of a processor's runs and answers: one
 * thread at a time each. Runs may be handed over before the program is started.
 */
#ifndef WVM_SHARED_ENGINE_HOST_H
#define WVM_SHARED_ENGINE_HOST_H

#include <sys/types.h>

#include "shared/engine.h"

struct wvm_engine_host;

/* vcpus: 1 to WVM_VCPU_MAX. 0, or -errno with one line in err. */
int wvm_engine_host_new(struct wvm_engine_host **out, unsigned vcpus, char *err, size_t err_len);

/* Tells the engine to end, and forgets it. Its process is the caller's to end. NULL is allowed. */
void wvm_engine_host_free(struct wvm_engine_host *h);

/*
 * Starts `path` with argv and the environment env (NULL at the end of each), to which the name
 * of the channel is added, in the signal state that a new program expects. Its descriptors 0 to 2
 * are ours. 0 with its process, which is the caller's to wait for, or -errno with one line in err.
 * Once only. A program that does not take the channel up shows by its end.
 */
int wvm_engine_host_spawn(struct wvm_engine_host *h, const char *path, char *const argv[],
			  char *const env[], pid_t *pid, char *err, size_t err_len);

/* Whether the engine has taken the channel up. Until then it has executed nothing. */
bool wvm_engine_host_opened(const struct wvm_engine_host *h);

/* An eventfd, readable when answers have come since it was read. Stays the channel's. */
int wvm_engine_host_bell(const struct wvm_engine_host *h);

/* Hands a run over. 0; -EAGAIN: the engine has not taken the ones before; -EMSGSIZE; -EPROTO. */
int wvm_engine_host_run(struct wvm_engine_host *h, unsigned vcpu, uint64_t seq, const void *run,
			size_t len);

/* The run `seq` is to end soon; before it is handed over: at its beginning. */
void wvm_engine_host_kick(struct wvm_engine_host *h, unsigned vcpu, uint64_t seq);

/* What an engine says of a run. */
struct wvm_engine_answer {
	uint64_t seq;
	unsigned reason; /* enum wvm_run_reason of a refusal; 0: data is the answer */
	const uint8_t *data;
	size_t len;
};

/*
 * The next answer of a processor; its data lies in buf. 0; -EAGAIN: none; -EPROTO: the engine
 * has broken the rules.
 */
#define WVM_ENGINE_RECORD_MAX (sizeof(uint64_t) + WVM_RUN_MAX)
int wvm_engine_host_take(struct wvm_engine_host *h, unsigned vcpu,
			 uint8_t buf[WVM_ENGINE_RECORD_MAX], struct wvm_engine_answer *answer);

#endif
