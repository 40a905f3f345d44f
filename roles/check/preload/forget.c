/*
 * Preloaded into masters by check_litmus.c: one in four write-protections of a
 * page is forgotten, but reported as done. So now and then a page that others
 * read stays writable.
 */
#include <dlfcn.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ioctl.h>

int ioctl(int fd, unsigned long request, ...)
{
	static _Thread_local uint64_t calls;
	static int (*real)(int fd, unsigned long request, ...);
	const struct uffdio_writeprotect *wp;
	va_list ap;
	void *args;

	va_start(ap, request);
	args = va_arg(ap, void *);
	va_end(ap);
	wp = args;
	if (request == UFFDIO_WRITEPROTECT && wp->mode & UFFDIO_WRITEPROTECT_MODE_WP &&
	    (++calls * UINT64_C(0x9e3779b97f4a7c15)) >> 62 == 0)
		return 0;
	if (!real)
		real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	return real(fd, request, args);
}
