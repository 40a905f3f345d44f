/*
 * How the channel of an engine lies in its memfd: one page of what it is, one line of kicks for
 * each processor, then for each processor the ring of its runs and the ring of its answers.
 */
#ifndef WVM_SHARED_ENGINE_PRIV_H
#define WVM_SHARED_ENGINE_PRIV_H

#include <stddef.h>
#include <stdint.h>

#include "shared/engine.h"

#define ENGINE_MAGIC     UINT64_C(0x31454e49474e4557) /* "WENGINE1" */
#define ENGINE_HEAD      4096u
#define ENGINE_LINE      64u
#define ENGINE_RING      (sizeof(struct wvm_spsc_mem) + WVM_ENGINE_CAPACITY)
#define ENGINE_ENV_CHARS 64u

/* Written by the slave, but for `opened`; the engine looks at it once, but for `ended`. */
struct engine_head {
	uint64_t magic;
	uint32_t vcpus;
	uint32_t ended;  /* the slave wants the engine to end */
	uint32_t opened; /* the engine has taken the channel up: it may have executed something */
};

/* seq of the run that is to end soon; a late one is that of no present run. */
struct engine_kick {
	uint64_t seq;
	uint8_t pad[ENGINE_LINE - sizeof(uint64_t)];
};
_Static_assert(sizeof(struct engine_kick) == ENGINE_LINE, "kicks are a line each");
_Static_assert(ENGINE_RING % ENGINE_LINE == 0, "rings are aligned");
_Static_assert(sizeof(uint64_t) + WVM_RUN_MAX <= WVM_ENGINE_CAPACITY / 2 - WVM_SPSC_HDR,
	       "the longest record fits");

static inline size_t engine_kicks_at(void)
{
	return ENGINE_HEAD;
}

static inline size_t engine_ring_at(unsigned vcpus, unsigned vcpu, unsigned to_slave)
{
	return ENGINE_HEAD + (size_t)vcpus * ENGINE_LINE +
	       (2 * (size_t)vcpu + to_slave) * ENGINE_RING;
}

static inline size_t engine_bytes(unsigned vcpus)
{
	return engine_ring_at(vcpus, vcpus, 0);
}

#endif
