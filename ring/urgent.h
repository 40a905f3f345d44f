/*
 * Turns at a processor that others use, too. What a shard does takes microseconds, and threads of
 * programs on this and other hosts wait for it; on a host whose processors are all busy it would
 * wait for its turn each time, at each hop. It keeps no processor to itself: it gets its turn
 * sooner and, with the right to it, a larger share.
 */
#ifndef WVM_RING_URGENT_H
#define WVM_RING_URGENT_H

#define WVM_URGENT_NICE     (-10)
#define WVM_URGENT_SLICE_NS 100000u /* the least that the scheduler takes (EEVDF, Linux 6.12) */

/*
 * For the calling thread, not for threads that it makes: a slice of WVM_URGENT_SLICE_NS, which is
 * anybody's right and which kernels before 6.12 ignore, and WVM_URGENT_NICE where allowed
 * (CAP_SYS_NICE, RLIMIT_NICE). A niceness that somebody gave the process is left as it is, and so
 * is any other policy than the ordinary one. Returns 0 or -errno, and then nothing has changed.
 */
int wvm_urgent(void);

#endif
