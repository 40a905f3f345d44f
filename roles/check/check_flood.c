/*
 * Full rings, full sockets, full queues, and a master that gets no more memory: what
 * has no room is lost, refused or waits, and is counted; nothing else changes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "roles/check/churn.h"
#include "shared/client_priv.h"
#include "shared/core/msg.h"

static const unsigned all[] = {0, 1, 2, 0, 1, 2};
static const struct churn_plan everywhere = {.homes = 7, .ranges = 6};

/* Words of the arena. */
enum { READY = 10, FULL, GO, SENT, REFUSED };

static struct cluster cluster;

/* ---- the ring between a program and its master ------------------------------------------- */

/* Requests that nobody waits for, as many as the ring takes. Their answers are nobody's. */
static unsigned fill_ring(struct program *p, enum wvm_ring_msg type)
{
	struct wvm_ring_req req = {.vm_id = CLUSTER_VM};
	unsigned sent = 0;
	int ret;

	pthread_mutex_lock(&p->wvm->lock);
	while (!(ret = wvm_send(p->wvm, type, &req)))
		sent++;
	pthread_mutex_unlock(&p->wvm->lock);
	NEED(p, ret == -EBUSY, "%d", ret);
	return sent;
}

/* The ring fills while the master stands, and all that is in it is served later. */
static void fill_once(struct program *p)
{
	uint64_t *page = program_map(p, HARM_UNITS * 2 * MIB, PAGE);
	struct wvm_stats stats;

	harm_tell(p, READY);
	program_await_word(p, FULL, 1);
	NEED(p, fill_ring(p, WVM_RING_WHERE) > 50, "the ring was never full");
	NEED(p, wvm_where(p->wvm, CLUSTER_VM, 0) == -EBUSY, "a call in a full ring");
	harm_tell(p, SENT);
	program_await_word(p, GO, 1);
	while (wvm_where(p->wvm, CLUSTER_VM, 0) == -EBUSY)
		usleep(100);
	store(page, 1);
	NEED(p, !wvm_stats(p->wvm, &stats) && stats.faults_write, "stats");
	NEED(p, !wvm_pin(p->wvm, page, PAGE) && !wvm_unpin(p->wvm, page, PAGE), "pin");
}

/* Keeps it full and takes no answers, until its master hears it no more: then it waits. */
static void fill_for_ever(struct program *p)
{
	uint64_t *pages = program_map(p, (HARM_UNITS + 1) * 2 * MIB, 64 * PAGE);

	harm_tell(p, READY);
	program_await_word(p, FULL, 1);
	harm_tell(p, SENT);
	program_await_word(p, GO, 1);
	for (unsigned i = 0;; i++) {
		uint64_t *at = pages + i % 64 * PAGE_WORDS;

		fill_ring(p, WVM_RING_STATS);
		NEED(p, load(at) == i / 64, "%lu in round %u", load(at), i);
		store(at, i / 64 + 1);
	}
}

static void fill(struct program *p)
{
	(p->index ? fill_for_ever : fill_once)(p);
}

START_TEST(a_program_that_keeps_its_ring_full_harms_nobody)
{
	struct arena *a = arena_new(0);
	struct program floods[2], *list[2];
	static struct churn w;

	cluster_start(&cluster, NULL);
	churn_start(&w, &cluster, &everywhere, all, 6);
	for (unsigned i = 0; i < 2; i++) {
		floods[i] =
			(struct program){.cluster = &cluster, .arena = a, .index = i, .count = 2};
		list[i] = &floods[i];
		program_start(list[i], fill);
	}
	harm_await(a, READY, 2);
	harm_freeze(&cluster, 0);
	a->word[FULL] = 1;
	harm_await(a, SENT, 2);
	harm_thaw(&cluster, 0);
	a->word[GO] = 1;
	harm_await_log(&cluster, 0, "it does not take its answers");
	ck_assert(churn_goes_on(&w, 500));
	program_kill(list[1]);
	programs_await(list, 1);
	churn_stop(&w);
	churn_verify(&w);
	cluster_stop(&cluster);
	harm_rehearsed("a full ring");
}
END_TEST

/* ---- a socket whose master does not read --------------------------------------------------- */

#define FLOOD 40000u

static uint64_t drops_of(unsigned node)
{
	json_t *o = cluster_json(&cluster, node, "stats");
	const json_t *d = json_object_get(o, "drops");
	uint64_t sum = 0;

	/* Those that no work causes. */
	for (unsigned i = 1; i < WVM_DROP_STALE; i++)
		sum += (uint64_t)json_integer_value(json_object_get(d, wvm_drop_name(i)));
	json_decref(o);
	return sum;
}

static void flood_socket(unsigned node)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(cluster.node[node].port)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint8_t data[64] = "nobody's";

	inet_pton(AF_INET, cluster.node[node].ip, &to.sin_addr);
	for (unsigned i = 0; i < FLOOD; i++)
		ck_assert_int_eq(
			sendto(fd, data, sizeof(data), 0, (struct sockaddr *)&to, sizeof(to)),
			sizeof(data));
	close(fd);
}

START_TEST(a_flood_while_a_master_stands_overflows_its_socket_and_nothing_else)
{
	static struct churn w;
	uint64_t before, kernel, counted, end = cluster_now_ms() + 20000;

	cluster_start(&cluster, NULL);
	churn_start(&w, &cluster, &everywhere, all, 6);
	before = drops_of(1);
	harm_freeze(&cluster, 1);
	flood_socket(1);
	harm_thaw(&cluster, 1);
	ck_assert(churn_goes_on(&w, 500));
	churn_stop(&w);
	/* Each one was counted by the kernel or by the master. Work's own losses are in the former.
	 */
	do {
		kernel = harm_data_port(&cluster, 1).drops;
		counted = drops_of(1) - before;
	} while (kernel + counted < FLOOD && cluster_now_ms() < end);
	churn_verify(&w);
	ck_assert_uint_gt(kernel, 0);
	ck_assert_uint_le(counted, FLOOD);
	ck_assert_uint_ge(kernel + counted, FLOOD);
	ck_assert_uint_gt(cluster_stat(&cluster, 1, "runtime", "rx_enobufs"), 0);
	printf("full socket: %lu of %u dropped by the kernel, %lu by the master, receive buffers "
	       "exhausted %lu times\n",
	       kernel, FLOOD, counted, cluster_stat(&cluster, 1, "runtime", "rx_enobufs"));
	cluster_stop(&cluster);
	harm_rehearsed("a full socket buffer");
	harm_rehearsed("ENOBUFS on receive");
}
END_TEST

/* ---- narrow sockets, a narrow queue -------------------------------------------------------- */

/* 20 Mbit/s and room for a few datagrams: what comes in bursts is dropped, or waits. */
static void narrow_queue(unsigned node)
{
	static struct cluster_result r;

	cluster_run(&r,
		    (const char *const[]){"/usr/bin/env", "tc", "qdisc", "replace", "dev", "eth0",
					  "root", "tbf", "rate", "20mbit", "burst", "8kb", "limit",
					  "12kb", NULL},
		    cluster.node[node].netns, NULL);
	ck_assert_msg(r.status == 0, "%s", r.err);
}

START_TEST(narrow_sockets_and_queues_lose_datagrams_and_no_byte)
{
	static struct churn w;
	char library[160];
	uint64_t kernel = 0, blocked = 0, pool = 0, errors = 0, retried = 0;

	cluster_preload(library, sizeof(library), "narrow");
	setenv("WVM_SOCKET_BYTES", "4096", 1);
	cluster_start(&cluster, &(struct cluster_opts){
					.shards = "2", .net = CLUSTER_VETH, .preload = library});
	unsetenv("WVM_SOCKET_BYTES");
	for (unsigned i = 0; i < cluster.nodes; i++) {
		harm_await_log(&cluster, i, "receive buffer is");
		narrow_queue(i);
	}
	churn_start(&w, &cluster, &everywhere, all, 6);
	ck_assert(churn_goes_on(&w, 300));
	churn_stop(&w);
	churn_verify(&w);
	for (unsigned i = 0; i < cluster.nodes; i++) {
		kernel += harm_data_port(&cluster, i).drops;
		blocked += cluster_stat(&cluster, i, "runtime", "tx_blocked");
		errors += cluster_stat(&cluster, i, "runtime", "tx_errors");
		pool += cluster_stat(&cluster, i, "node", "no_transmit_buffer");
		retried += cluster_stat(&cluster, i, "core", "requests_retried");
	}
	printf("narrow sockets: %lu sends waited, %lu failed, %lu found no buffer; the kernel "
	       "dropped %lu at receivers; %lu requests were retried; %lu rounds\n",
	       blocked, errors, pool, kernel, retried, churn_rounds(&w));
	ck_assert_uint_gt(blocked + errors, 0);
	ck_assert_uint_gt(retried, 0);
	cluster_stop(&cluster);
	harm_rehearsed("full send buffers and queues");
}
END_TEST

/* ---- a master without memory ----------------------------------------------------------------- */

static void limit_memory(unsigned node, rlim_t bytes)
{
	struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};

	ck_assert_int_eq(prlimit(cluster.node[node].pid, RLIMIT_AS, &limit, NULL), 0);
}

static void expect_refusal(struct program *p)
{
	struct wvm *second = NULL;
	int ret;

	harm_tell(p, READY);
	program_await_word(p, FULL, 1);
	ret = wvm_attach(&second, p->cluster->node[p->node].ring);
	NEED(p, ret == -ENOMEM, "%d: %s", ret, wvm_attach_error());
	harm_tell(p, REFUSED);
	program_await_word(p, GO, 1);
	NEED(p, !wvm_attach(&second, p->cluster->node[p->node].ring), "%s", wvm_attach_error());
	wvm_detach(second);
}

START_TEST(a_master_that_gets_no_more_memory_serves_on_and_takes_no_new_program)
{
	static struct churn w;
	struct arena *a = arena_new(0);
	struct program late = {.cluster = &cluster, .arena = a, .node = 1, .count = 1};

	cluster_start(&cluster, NULL);
	churn_start(&w, &cluster, &everywhere, all, 6);
	program_start(&late, expect_refusal);
	harm_await(a, READY, 1);
	limit_memory(1, 4096);
	a->word[FULL] = 1;
	harm_await(a, REFUSED, 1);
	ck_assert(churn_goes_on(&w, 500));
	limit_memory(1, RLIM_INFINITY);
	a->word[GO] = 1;
	programs_await((struct program *const[]){&late}, 1);
	churn_stop(&w);
	churn_verify(&w);
	ck_assert_uint_eq(cluster_status(&cluster, 1, "node"), 1);
	cluster_stop(&cluster);
	harm_rehearsed("a master without memory (RLIMIT_AS)");
}
END_TEST

static Suite *flood_suite(void)
{
	Suite *s = suite_create("flood");
	TCase *t = cluster_tcase(s, "flood", 180);

	tcase_add_test(t, a_program_that_keeps_its_ring_full_harms_nobody);
	tcase_add_test(t, a_flood_while_a_master_stands_overflows_its_socket_and_nothing_else);
	tcase_add_test(t, narrow_sockets_and_queues_lose_datagrams_and_no_byte);
	tcase_add_test(t, a_master_that_gets_no_more_memory_serves_on_and_takes_no_new_program);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {flood_suite};

	return harm_main(argv, suites, 1);
}
