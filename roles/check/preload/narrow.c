/*
 * Preloaded into a master by check_flood.c: sockets get buffers of WVM_SOCKET_BYTES,
 * whatever the master asks for, as where nobody may have more.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	const char *text = getenv("WVM_SOCKET_BYTES");
	int bytes = text ? atoi(text) : 0;

	if (bytes && level == SOL_SOCKET &&
	    (name == SO_RCVBUF || name == SO_RCVBUFFORCE || name == SO_SNDBUF ||
	     name == SO_SNDBUFFORCE)) {
		value = &bytes;
		len = sizeof(bytes);
	}
	return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}
