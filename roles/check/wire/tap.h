/* TAP devices inside network namespaces, and the MAC addresses behind them. */
#ifndef WVM_WIRE_TAP_H
#define WVM_WIRE_TAP_H

/*
 * Creates TAP device `device` in the network namespace that `ip netns` calls
 * netns, with the given mtu and MAC address, without any offload (so the kernel
 * hands over one checksummed frame of at most the mtu at a time). The device lives as
 * long as the returned descriptor, which does not block. Returns it or -errno.
 */
int wvm_tap_open(const char *netns, const char *device, unsigned mtu, const unsigned char mac[6]);

/* The MAC address of the device behind a TAP descriptor. 0 or -errno. */
int wvm_tap_mac(int fd, unsigned char mac[6]);

/*
 * Makes a veth device of the calling thread's namespace receive as a network card does: GRO on,
 * and TSO off, since a veth whose sender has TSO bypasses GRO. 0 or -errno.
 */
int wvm_tap_like_card(const char *device);

#endif
