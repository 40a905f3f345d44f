#include "ring/calls.h"

__thread struct wvm_calls *wvm_calls_here;

static const char *const names[] = {
#define X(field, name) name,
	WVM_CALLS(X)
#undef X
};

const char *wvm_call_name(unsigned kind)
{
	return kind < WVM_CALL_KINDS ? names[kind] : NULL;
}

uint64_t wvm_calls_made(const struct wvm_calls *calls, unsigned kind)
{
	return __atomic_load_n(&calls->made[kind], __ATOMIC_RELAXED);
}
