/*
 * Assertions of the protocol core: on in every build. A failed one means that
 * memory can no longer be trusted, so the process must not go on.
 */
#ifndef WVM_CORE_ASSERT_H
#define WVM_CORE_ASSERT_H

/*
 * Ends the program. The default traps; daemons, tests and the simulator
 * define their own, which also says where (the default is a weak symbol).
 */
__attribute__((noreturn)) void wvm_core_panic(const char *what, const char *file, int line);

#define WVM_ASSERT(cond) \
	(__builtin_expect(!!(cond), 1) ? (void)0 : wvm_core_panic(#cond, __FILE__, __LINE__))

#endif
