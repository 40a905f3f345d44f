/*
 * Two network interfaces that the host has joined. Frames with pattern pages
 * go out of each and must come in at the other as they were sent; the
 * devices take them from and put them into guest memory by DMA.
 */
#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ETHERTYPE 0x88b5 /* IEEE 802: for local experiments */
#define NET_PAGE  (1ull << 42)
#define PAYLOAD   1024
#define FRAMES    2000
#define WINDOW    16
#define WAIT_MS   2000

struct frame {
	uint8_t to[6];
	uint8_t from[6];
	uint16_t type;
	uint16_t pad;
	uint64_t number;
	uint8_t payload[PAYLOAD];
} __attribute__((packed));

static int open_interface(const char *name)
{
	const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETHERTYPE));
	struct ifreq request = {.ifr_flags = 0};
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE)};

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request))
		goto fail;
	request.ifr_flags |= IFF_UP | IFF_PROMISC;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		goto fail;
	address.sll_ifindex = (int)if_nametoindex(name);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		goto fail;
	return fd;
fail:
	report("net: %s: %s", name, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

static void send_frame(int fd, uint64_t number)
{
	static uint64_t page[PAGE_WORDS];
	struct frame frame = {.to = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
			      .from = {2},
			      .type = htons(ETHERTYPE),
			      .number = number};

	page_fill(page, NET_PAGE, number, 0);
	memcpy(frame.payload, page, PAYLOAD);
	if (send(fd, &frame, sizeof(frame), 0) != (ssize_t)sizeof(frame))
		report("net: send: %s", strerror(errno));
}

/* False when nothing came. */
static bool receive_frame(int fd, uint64_t number)
{
	static uint64_t page[PAGE_WORDS];
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	struct frame frame;

	if (poll(&ready, 1, WAIT_MS) != 1 ||
	    recv(fd, &frame, sizeof(frame), 0) != (ssize_t)sizeof(frame)) {
		report("net: frame %llu did not arrive", (unsigned long long)number);
		return false;
	}
	page_fill(page, NET_PAGE, number, 0);
	if (frame.number != number || memcmp(frame.payload, page, PAYLOAD))
		report("net: frame %llu arrived as another", (unsigned long long)number);
	return true;
}

void test_net(void)
{
	const int fd[2] = {open_interface("eth0"), open_interface("eth1")};
	const double start = seconds_now();
	uint64_t number = 0;
	bool good = fd[0] >= 0 && fd[1] >= 0;

	while (good && number < FRAMES) {
		const unsigned from = (unsigned)(number / WINDOW % 2);

		for (unsigned i = 0; i < WINDOW; i++)
			send_frame(fd[from], number + i);
		for (unsigned i = 0; good && i < WINDOW; i++)
			good = receive_frame(fd[!from], number + i);
		number += WINDOW;
	}
	if (good)
		printf("net        %llu frames exchanged, %.2f s, %llu errors so far\n",
		       (unsigned long long)number, seconds_now() - start, errors);
}
