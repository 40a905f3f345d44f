/*
 * Counters of one shard. They cost a load and a store each: a plain uint64_t
 * that only the shard's own thread writes. Any thread may read them; a reader
 * sees each counter whole, but not all counters at one instant.
 */
#ifndef WVM_RING_STATS_H
#define WVM_RING_STATS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* X(field, text): the one list of counters; the struct and the name table come from it. */
#define WVM_RING_COUNTERS(X)                                                               \
	X(turns, "turns of the loop")                                                      \
	X(enters, "io_uring_enter calls")                                                  \
	X(sleeps, "enters that were told to wait")                                         \
	X(spins, "waits that ended while polling")                                         \
	X(sqes, "submissions")                                                             \
	X(cqes, "completions")                                                             \
	X(sq_full, "submission queue full, submitted early")                               \
	X(sq_refused, "no submission slot in spite of that")                               \
	X(cq_overflow, "turns that found the completion queue overflown")                  \
	X(tasks, "deferred tasks run")                                                     \
	X(timers_armed, "timers armed")                                                    \
	X(timers_fired, "timers fired")                                                    \
	X(posts_out, "messages posted to other shards")                                    \
	X(posts_in, "messages received from other shards and threads")                     \
	X(posts_full, "posts refused because the inbox was full")                          \
	X(wakes_ring, "wakes sent by MSG_RING")                                            \
	X(wakes_eventfd, "wakes sent by eventfd")                                          \
	X(rx_datagrams, "datagrams received")                                              \
	X(rx_bytes, "bytes received")                                                      \
	X(rx_batches, "receive completions")                                               \
	X(rx_gro_batches, "of those: with more than one datagram")                         \
	X(rx_foreign, "datagrams that belonged to another shard, passed on")               \
	X(rx_foreign_lost, "of those: dropped because its inbox was full")                 \
	X(rx_forwarded_in, "datagrams taken over from another shard")                      \
	X(rx_enobufs, "receive buffers exhausted")                                         \
	X(rx_rearmed, "multishot receives armed again")                                    \
	X(rx_truncated, "datagrams larger than a buffer, dropped")                         \
	X(rx_errors, "other receive errors")                                               \
	X(tx_datagrams, "datagrams sent")                                                  \
	X(tx_bytes, "bytes sent")                                                          \
	X(tx_batches, "sendmsg operations")                                                \
	X(tx_gso_batches, "of those: with more than one datagram")                         \
	X(tx_pool_empty, "no transmit buffer free")                                        \
	X(tx_blocked, "sends that waited for the socket buffer")                           \
	X(tx_gso_fallback, "batches sent one by one because the path refuses UDP_SEGMENT") \
	X(tx_too_long, "datagrams above the path MTU, dropped")                            \
	X(tx_refused, "datagrams refused by peer, firewall or route, dropped")             \
	X(tx_errors, "datagrams dropped for another error")                                \
	X(uffd_reads, "userfaultfd completions")                                           \
	X(uffd_events, "userfaultfd messages")                                             \
	X(uffd_enobufs, "userfaultfd buffers exhausted")                                   \
	X(uffd_ioctls, "userfaultfd ioctls")                                               \
	X(uffd_retries, "userfaultfd ioctls repeated (EAGAIN)")                            \
	X(doorbells_in, "doorbell wakeups received")                                       \
	X(doorbells_out, "doorbells rung")                                                 \
	X(deaths, "watched processes that died")                                           \
	X(file_reads, "file reads completed")                                              \
	X(file_writes, "file writes completed")                                            \
	X(file_syncs, "file syncs completed")                                              \
	X(file_errors, "file operations that failed or came short")

/* Written by the shard's thread only (WVM_COUNT), read by anyone. */
struct wvm_ring_stats {
#define X(field, text) uint64_t field;
	WVM_RING_COUNTERS(X)
#undef X
};

/* Adds n to a counter. The shard's own thread only. */
#define WVM_COUNT_IN(stats, field, n) \
	__atomic_store_n(&(stats)->field, (stats)->field + (uint64_t)(n), __ATOMIC_RELAXED)
#define WVM_COUNT(shard, field, n) WVM_COUNT_IN(&(shard)->stats, field, n)

/* Number of counters, and the field name and text of counter i (NULL when i is out of range). */
size_t wvm_ring_stats_count(void);
const char *wvm_ring_stats_name(size_t i);
const char *wvm_ring_stats_text(size_t i);

/* Value of counter i as of now. Any thread. i must be below wvm_ring_stats_count(). */
uint64_t wvm_ring_stats_get(const struct wvm_ring_stats *stats, size_t i);

/* Adds every counter of from, as of now, to the private copy sum. Any thread. */
void wvm_ring_stats_add(struct wvm_ring_stats *sum, const struct wvm_ring_stats *from);

/* Prints one "name value" line per counter that is not 0. Any thread. */
void wvm_ring_stats_print(const struct wvm_ring_stats *stats, FILE *out);

#endif
