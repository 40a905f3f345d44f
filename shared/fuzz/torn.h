/*
 * shared/spsc.c compiled so that the other side can act between any two of its
 * accesses to shared memory: before each, fuzz_torn() runs. Included once, in
 * place of the library's spsc.o.
 */
#ifndef WVM_FUZZ_TORN_H
#define WVM_FUZZ_TORN_H

#include <string.h>

/* The target's: what the other side does now. */
static void fuzz_torn(void);

#undef memcpy
#undef memset
#define memcpy(to, from, n)       (fuzz_torn(), memcpy(to, from, n))
#define memset(to, c, n)          (fuzz_torn(), memset(to, c, n))
#define __atomic_load_n(p, order) (fuzz_torn(), __atomic_load_n(p, order))
#define __atomic_store_n(p, v, o) (fuzz_torn(), __atomic_store_n(p, v, o))
#include "shared/spsc.c" // NOLINT: the unit under test
#undef memcpy
#undef memset
#undef __atomic_load_n
#undef __atomic_store_n
#undef ALIGN

#endif
