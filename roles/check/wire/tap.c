#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_FRAMES \
	8192 /* between kernel and wire; the default of 1000 is one burst of 64 pages */

static int request(int fd, unsigned long what, struct ifreq *ifr)
{
	return ioctl(fd, what, ifr) < 0 ? -errno : 0;
}

static void name_device(struct ifreq *ifr, const char *device)
{
	memset(ifr, 0, sizeof(*ifr));
	snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", device);
}

/* Sets mtu, queue length and MAC address through a socket of the device's namespace. */
static int configure(const char *device, unsigned mtu, const unsigned char mac[6])
{
	struct ifreq ifr;
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;

	if (sock < 0)
		return -errno;
	name_device(&ifr, device);
	ifr.ifr_mtu = (int)mtu;
	rc = request(sock, SIOCSIFMTU, &ifr);
	if (rc == 0) {
		ifr.ifr_qlen = QUEUE_FRAMES;
		rc = request(sock, SIOCSIFTXQLEN, &ifr);
	}
	if (rc == 0) {
		ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
		memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
		rc = request(sock, SIOCSIFHWADDR, &ifr);
	}
	close(sock);
	return rc;
}

static int create(const char *device, unsigned mtu, const unsigned char mac[6])
{
	struct ifreq ifr;
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	name_device(&ifr, device);
	ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI);
	rc = request(fd, TUNSETIFF, &ifr);
	if (rc == 0)
		rc = ioctl(fd, TUNSETOFFLOAD, 0) < 0 ? -errno : 0;
	if (rc == 0)
		rc = configure(device, mtu, mac);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

int wvm_tap_open(const char *netns, const char *device, unsigned mtu, const unsigned char mac[6])
{
	char path[256];
	int home, away = -1, fd;

	home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return -errno;
	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	away = open(path, O_RDONLY | O_CLOEXEC);
	if (away < 0 || setns(away, CLONE_NEWNET) < 0) {
		fd = -errno;
		goto out;
	}
	fd = create(device, mtu, mac);
	if (setns(home, CLONE_NEWNET) < 0) {
		int rc = -errno;

		if (fd >= 0)
			close(fd);
		fd = rc;
	}
out:
	if (away >= 0)
		close(away);
	close(home);
	return fd;
}

int wvm_tap_mac(int fd, unsigned char mac[6])
{
	struct ifreq ifr;
	int rc;

	memset(&ifr, 0, sizeof(ifr));
	rc = request(fd, SIOCGIFHWADDR, &ifr);
	if (rc == 0)
		memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
	return rc;
}

static int ethtool(int sock, const char *device, uint32_t command, uint32_t data)
{
	struct ethtool_value value = {.cmd = command, .data = data};
	struct ifreq ifr;

	name_device(&ifr, device);
	ifr.ifr_data = (char *)&value;
	return request(sock, SIOCETHTOOL, &ifr);
}

int wvm_tap_like_card(const char *device)
{
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;

	if (sock < 0)
		return -errno;
	rc = ethtool(sock, device, ETHTOOL_STSO, 0);
	if (rc == 0)
		rc = ethtool(sock, device, ETHTOOL_SGRO, 1);
	close(sock);
	return rc;
}
