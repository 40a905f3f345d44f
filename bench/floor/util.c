#include <errno.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "floor.h"
#include "shared/crc32c.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static struct floor_shared *run;

void floor_set_shared(struct floor_shared *shared)
{
	run = shared;
}

void floor_die(const char *what)
{
	fprintf(stderr, "wvm_floor: %s: %s\n", what, strerror(errno));
	if (run)
		run->failed = true;
	_exit(1);
}

void floor_pin(int core)
{
	cpu_set_t set;

	if (core < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	errno = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	if (errno != 0)
		floor_die("cannot use that core");
}

int floor_socket(struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), room = 8 << 20, on = 1;
	socklen_t len = sizeof(*address);

	*address = (struct sockaddr_in){.sin_family = AF_INET,
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0 || bind(fd, (struct sockaddr *)address, len) < 0 ||
	    getsockname(fd, (struct sockaddr *)address, &len) < 0 ||
	    setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)) < 0)
		floor_die("UDP socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	return fd;
}

uint64_t floor_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

bool floor_must_yield(int own, int x, int y)
{
	return own < 0 || own == x || own == y;
}

uint64_t floor_pattern(uint64_t page, unsigned word)
{
	return (page * 512 + word + 1) * 0x9e3779b97f4a7c15ull;
}

void floor_seal(struct floor_header *header, const void *payload)
{
	header->crc = 0;
	header->crc = wvm_crc32c(wvm_crc32c(0, header, sizeof(*header)), payload, header->length);
}

const struct floor_header *floor_open(const uint8_t *data, size_t len, uint8_t *page)
{
	static _Thread_local struct floor_header header;
	uint32_t crc, expected;

	if (len < sizeof(header))
		return NULL;
	memcpy(&header, data, sizeof(header));
	if (len != sizeof(header) + header.length || header.offset + header.length > FLOOR_PAGE)
		return NULL;
	expected = header.crc;
	header.crc = 0;
	crc = wvm_crc32c(0, &header, sizeof(header));
	if (header.length > 0)
		crc = wvm_crc32c_copy(crc, page + header.offset, data + sizeof(header),
				      header.length);
	return crc == expected ? &header : NULL;
}
