#include "shared/core/assert.h"

__attribute__((weak, noreturn)) void wvm_core_panic(const char *what, const char *file, int line)
{
	(void)what;
	(void)file;
	(void)line;
	__builtin_trap();
}
