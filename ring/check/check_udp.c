#include <netinet/udp.h>
#include <sched.h>

#include "ring/check/udp_support.h"

static struct wvm_shard *rx_shard, *tx_shard;
static struct wvm_udp *rx, *tx;
static struct proof_log log_;
static struct sockaddr_in rx_address;
static unsigned stop_after;

static void take(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	proof_check(&log_, data, len);
	if (log_.received == stop_after)
		wvm_shard_stop(rx_shard);
}

static void refuse(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	ck_abort_msg("the sender received something");
}

/* A sender and a receiver on two shards; the receiver runs in this thread. */
static void open_pair(struct wvm_udp_opts rx_opts, struct wvm_udp_opts tx_opts)
{
	rx_shard = make_shard(&(struct wvm_shard_opts){.index = 0});
	tx_shard = make_shard(&(struct wvm_shard_opts){.index = 1});
	rx_opts.bind = loopback(0);
	if (!rx_opts.datagram)
		rx_opts.datagram = take;
	rx = open_udp(rx_shard, NULL, &rx_opts);
	rx_address = wvm_udp_address(rx);
	tx_opts.bind = loopback(0);
	tx_opts.datagram = refuse;
	tx = open_udp(tx_shard, NULL, &tx_opts);
}

static void run_pair(unsigned datagrams)
{
	stop_after = datagrams;
	ck_assert_int_eq(wvm_shard_start(tx_shard), 0);
	run_to_stop(rx_shard);
	wvm_shard_stop(tx_shard);
	ck_assert_int_eq(wvm_shard_join(tx_shard), 0);
}

static void close_pair(void)
{
	wvm_udp_close(rx);
	wvm_udp_close(tx);
	wvm_shard_destroy(rx_shard);
	wvm_shard_destroy(tx_shard);
}

static void check_complete(unsigned datagrams)
{
	ck_assert_uint_eq(log_.torn, 0);
	ck_assert_uint_eq(log_.doubled, 0);
	ck_assert_uint_eq(log_.received, datagrams);
	for (unsigned i = 0; i < datagrams; i++)
		ck_assert_msg(log_.seen[i] == 1, "datagram %u came %u times", i, log_.seen[i]);
}

/*
 * Sends a window at a time, so that neither socket buffer nor the kernel's backlog (which all tests
 * running on this CPU share) overflows.
 */
#define WINDOW 200

static struct {
	struct wvm_hook hook;
	unsigned next, total, per_turn;
	size_t (*length)(unsigned number);
} source;

static size_t fixed_length(unsigned number)
{
	return 1400;
}

static size_t odd_length(unsigned number)
{
	return PROOF_HEADER + number * 37 % 1400;
}

static bool send_some(struct wvm_hook *h, uint64_t now_ns)
{
	uint64_t received = COUNTER(rx_shard, rx_datagrams);

	/* All of a turn's or none: what shares a batch does not depend on who runs when. */
	if (source.next + source.per_turn > received + WINDOW)
		return true;
	for (unsigned i = 0; i < source.per_turn && source.next < source.total; i++) {
		if (send_proof(tx, WVM_LANE_BULK, &rx_address, source.next, 0,
			       source.length(source.next)))
			break;
		source.next++;
	}
	return source.next < source.total;
}

static void run_source(unsigned total, unsigned per_turn, size_t (*length)(unsigned))
{
	source.hook.turn = send_some;
	source.total = total;
	source.per_turn = per_turn;
	source.length = length;
	wvm_shard_hook(tx_shard, WVM_HOOK_ROLE, &source.hook);
	run_pair(total);
	check_complete(total);
	ck_assert_uint_eq(tx_shard->stats.tx_datagrams, total);
	ck_assert_uint_eq(rx_shard->stats.rx_datagrams, total);
	ck_assert_uint_eq(tx_shard->stats.tx_bytes, rx_shard->stats.rx_bytes);
}

START_TEST(equal_datagrams_leave_and_arrive_in_batches)
{
	open_pair((struct wvm_udp_opts){0}, (struct wvm_udp_opts){0});
	run_source(30000, 100, fixed_length);
	ck_assert_uint_gt(tx_shard->stats.tx_gso_batches, 0);
	ck_assert_uint_gt(rx_shard->stats.rx_gro_batches, 0);
	ck_assert_uint_lt(tx_shard->stats.tx_batches * 4, tx_shard->stats.tx_datagrams);
	ck_assert_uint_eq(log_.disordered, 0);
	close_pair();
}
END_TEST

/* Two long ones and a shorter one, as pages are cut. */
static size_t page_length(unsigned number)
{
	return number % 3 == 2 ? 1344 : 1472;
}

/* Zeros may follow what was sent, up to the length of a long one. */
static void take_padded(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	uint32_t number;
	size_t length;

	ck_assert_uint_ge(len, PROOF_HEADER);
	memcpy(&number, data, sizeof(number));
	length = page_length(number);
	ck_assert_uint_ge(len, length);
	ck_assert_uint_le(len, 1472);
	for (size_t i = length; i < len; i++)
		ck_assert_uint_eq(data[i], 0);
	take(ctx, from, data, length);
}

START_TEST(what_is_a_little_shorter_does_not_end_a_batch)
{
	open_pair((struct wvm_udp_opts){.datagram = take_padded},
		  (struct wvm_udp_opts){.pad_max = 128});
	run_source(9000, 90, page_length);
	ck_assert_uint_eq(log_.disordered, 0);
	/* 90 a turn in 3 batches: 44 of 1472 bytes fill one. */
	ck_assert_uint_le(tx_shard->stats.tx_batches * 30, tx_shard->stats.tx_datagrams + 90);
	close_pair();
}
END_TEST

START_TEST(what_is_much_shorter_ends_its_batch_and_stays_as_it_is)
{
	open_pair((struct wvm_udp_opts){0}, (struct wvm_udp_opts){.pad_max = 127});
	run_source(9000, 90, page_length);
	ck_assert_uint_eq(log_.disordered, 0);
	ck_assert_uint_ge(tx_shard->stats.tx_batches * 3, tx_shard->stats.tx_datagrams);
	close_pair();
}
END_TEST

START_TEST(datagrams_of_any_size_arrive_once_and_whole)
{
	open_pair((struct wvm_udp_opts){0}, (struct wvm_udp_opts){0});
	run_source(30000, 50, odd_length);
	ck_assert_uint_eq(log_.disordered, 0);
	close_pair();
}
END_TEST

START_TEST(exhausted_receive_buffers_are_refilled_without_loss)
{
	open_pair((struct wvm_udp_opts){.rx_buffers = 2}, (struct wvm_udp_opts){0});
	run_source(30000, 100, odd_length);
	ck_assert_uint_gt(rx_shard->stats.rx_enobufs, 0);
	ck_assert_uint_ge(rx_shard->stats.rx_rearmed, rx_shard->stats.rx_enobufs);
	/* One turn per exhaustion, no spinning. */
	ck_assert_uint_le(rx_shard->stats.turns,
			  rx_shard->stats.cqes + rx_shard->stats.rx_enobufs + 100);
	close_pair();
}
END_TEST

/* A path that refuses UDP_SEGMENT: the kernel does so for sockets without checksums. */
START_TEST(a_path_without_gso_gets_every_datagram_one_by_one)
{
	const int on = 1;

	open_pair((struct wvm_udp_opts){0}, (struct wvm_udp_opts){0});
	ck_assert_int_eq(setsockopt(wvm_udp_fd(tx), SOL_SOCKET, SO_NO_CHECK, &on, sizeof(on)), 0);
	run_source(20000, 100, fixed_length);
	ck_assert_uint_gt(tx_shard->stats.tx_gso_fallback, 0);
	/* It is remembered: what was committed before the first answer at most. */
	ck_assert_uint_le(tx_shard->stats.tx_gso_fallback, 8);
	ck_assert_uint_eq(tx_shard->stats.tx_errors, 0);
	ck_assert_uint_eq(tx_shard->stats.tx_gso_batches, tx_shard->stats.tx_gso_fallback);
	close_pair();
}
END_TEST

/* Lanes. */

static bool send_both_lanes(struct wvm_hook *h, uint64_t now_ns)
{
	static bool sent;

	if (sent)
		return false;
	sent = true;
	/* Bulk is committed first and numbered behind: control must overtake it. */
	for (unsigned i = 0; i < 300; i++)
		ck_assert_int_eq(send_proof(tx, WVM_LANE_BULK, &rx_address, 100 + i, 0, 1000), 0);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(send_proof(tx, WVM_LANE_CONTROL, &rx_address, i, 0, 64), 0);
	return false;
}

START_TEST(control_leaves_before_bulk_and_each_lane_keeps_its_order)
{
	struct wvm_hook hook = {.turn = send_both_lanes};

	open_pair((struct wvm_udp_opts){0}, (struct wvm_udp_opts){.bulk_quota = 16});
	wvm_shard_hook(tx_shard, WVM_HOOK_ROLE, &hook);
	run_pair(400);
	check_complete(400);
	ck_assert_uint_eq(log_.disordered, 0);
	/* 300 of bulk at a quota of 16, which a batch of 64 may overdraw once per turn. */
	ck_assert_uint_ge(tx_shard->stats.turns, 300 / 64);
	close_pair();
}
END_TEST

static struct {
	struct wvm_hook hook;
	unsigned control, bulk;
} flood;

static bool flood_bulk(struct wvm_hook *h, uint64_t now_ns)
{
	/* Control keeps coming while bulk is always waiting: each must leave in its own turn. */
	while (flood.bulk < 2000 &&
	       !send_proof(tx, WVM_LANE_BULK, &rx_address, 10000 + flood.bulk, 0, 1000))
		flood.bulk++;
	if (flood.control < 200) {
		ck_assert_int_eq(
			send_proof(tx, WVM_LANE_CONTROL, &rx_address, flood.control, 0, 64), 0);
		flood.control++;
	}
	return flood.bulk < 2000 || flood.control < 200;
}

START_TEST(bulk_never_takes_the_buffers_of_control)
{
	open_pair((struct wvm_udp_opts){0},
		  (struct wvm_udp_opts){.tx_buffers = 64, .tx_control = 8, .bulk_quota = 4});
	flood.hook.turn = flood_bulk;
	wvm_shard_hook(tx_shard, WVM_HOOK_ROLE, &flood.hook);
	run_pair(2200);
	ck_assert_uint_eq(log_.doubled + log_.torn, 0);
	ck_assert_uint_gt(tx_shard->stats.tx_pool_empty, 0);
	close_pair();
}
END_TEST

/* Backpressure of the pool. */

static struct {
	unsigned next, total, rooms;
} pusher;

static void push_all(void *ctx)
{
	pusher.rooms++;
	while (pusher.next < pusher.total && pusher.next < COUNTER(rx_shard, rx_datagrams) + 2000 &&
	       !send_proof(tx, WVM_LANE_BULK, &rx_address, pusher.next, 0, 200))
		pusher.next++;
}

static bool push_first(struct wvm_hook *h, uint64_t now_ns)
{
	static bool begun;

	if (!begun)
		push_all(NULL);
	begun = true;
	return false;
}

START_TEST(who_found_no_buffer_is_called_when_there_is_room)
{
	struct wvm_hook hook = {.turn = push_first};

	pusher.total = 2000;
	open_pair((struct wvm_udp_opts){0},
		  (struct wvm_udp_opts){.tx_buffers = 32, .room = push_all});
	wvm_shard_hook(tx_shard, WVM_HOOK_ROLE, &hook);
	run_pair(2000);
	check_complete(2000);
	ck_assert_uint_ge(pusher.rooms, 2000 / 32);
	ck_assert_uint_ge(tx_shard->stats.tx_pool_empty, 2000 / 32);
	ck_assert(wvm_udp_idle(tx));
	close_pair();
}
END_TEST

/*
 * Between a flush and the enter that submits it, the buffers belong to batches the kernel has not
 * seen: whoever reserves then must not get one of them.
 */
static bool scribble(struct wvm_hook *h, uint64_t now_ns)
{
	uint8_t *bufs[64];
	unsigned n = 0;

	while (n < 64 && (bufs[n] = wvm_udp_reserve(tx, WVM_LANE_CONTROL)))
		memset(bufs[n++], 0xee, 1472);
	while (n)
		wvm_udp_cancel(tx, WVM_LANE_CONTROL, bufs[--n]);
	return false;
}

START_TEST(a_buffer_is_not_reused_before_the_kernel_has_sent_it)
{
	struct wvm_hook hook = {.turn = scribble};

	open_pair((struct wvm_udp_opts){0}, (struct wvm_udp_opts){.tx_buffers = 64});
	wvm_shard_hook(tx_shard, WVM_HOOK_FLUSH, &hook);
	run_source(20000, 100, odd_length);
	ck_assert_uint_gt(tx_shard->stats.tx_pool_empty, 0);
	close_pair();
}
END_TEST

START_TEST(reserved_buffers_come_back_by_cancel)
{
	uint8_t *buf[16];

	open_pair((struct wvm_udp_opts){0},
		  (struct wvm_udp_opts){.tx_buffers = 16, .tx_control = 4});
	ck_assert_uint_eq(wvm_udp_free(tx, WVM_LANE_BULK), 12);
	ck_assert_uint_eq(wvm_udp_free(tx, WVM_LANE_CONTROL), 16);
	for (unsigned i = 0; i < 16; i++) {
		buf[i] = wvm_udp_reserve(tx, WVM_LANE_CONTROL);
		ck_assert_ptr_nonnull(buf[i]);
		ck_assert_uint_eq((uintptr_t)buf[i] % 64, 0);
	}
	ck_assert_ptr_null(wvm_udp_reserve(tx, WVM_LANE_CONTROL));
	ck_assert_uint_eq(tx_shard->stats.tx_pool_empty, 1);
	for (unsigned i = 0; i < 16; i++)
		wvm_udp_cancel(tx, WVM_LANE_CONTROL, buf[i]);
	ck_assert_uint_eq(wvm_udp_free(tx, WVM_LANE_CONTROL), 16);
	ck_assert(wvm_udp_idle(tx));
	ck_assert_int_eq(wvm_udp_send(tx, WVM_LANE_BULK, &rx_address, 0, "", 0), -EMSGSIZE);
	close_pair();
}
END_TEST

/* Errors of single sends. */

static bool send_to_nobody(struct wvm_hook *h, uint64_t now_ns)
{
	/* Broadcast without SO_BROADCAST is refused (EACCES). */
	struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_port = htons(9)};
	static unsigned turn;

	nobody.sin_addr.s_addr = htonl(INADDR_BROADCAST);
	if (turn++ == 0)
		for (unsigned i = 0; i < 10; i++)
			ck_assert_int_eq(
				wvm_udp_send(tx, WVM_LANE_CONTROL, &nobody, (uint16_t)i, "x", 1),
				0);
	if (turn == 20)
		for (unsigned i = 0; i < 10; i++)
			ck_assert_int_eq(send_proof(tx, WVM_LANE_CONTROL, &rx_address, i, 0, 64),
					 0);
	return turn < 20;
}

START_TEST(a_refused_datagram_is_counted_and_hurts_nobody_else)
{
	struct wvm_hook hook = {.turn = send_to_nobody};

	open_pair((struct wvm_udp_opts){0}, (struct wvm_udp_opts){0});
	wvm_shard_hook(tx_shard, WVM_HOOK_ROLE, &hook);
	run_pair(10);
	check_complete(10);
	ck_assert_uint_eq(tx_shard->stats.tx_refused, 10);
	ck_assert_uint_eq(wvm_udp_free(tx, WVM_LANE_CONTROL), 512);
	close_pair();
}
END_TEST

static unsigned empties;

static void take_empty(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	ck_assert_uint_eq(len, 0);
	empties++;
	wvm_shard_stop(rx_shard);
}

START_TEST(an_empty_datagram_is_delivered)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	open_pair((struct wvm_udp_opts){.datagram = take_empty}, (struct wvm_udp_opts){0});
	ck_assert_int_eq(sendto(fd, "", 0, 0, (struct sockaddr *)&rx_address, sizeof(rx_address)),
			 0);
	run_pair(1);
	ck_assert_uint_eq(empties, 1);
	close(fd);
	close_pair();
}
END_TEST

START_TEST(the_largest_datagram_arrives_whole)
{
	open_pair((struct wvm_udp_opts){0}, (struct wvm_udp_opts){.datagram_max = 65000});
	ck_assert_int_eq(send_proof(tx, WVM_LANE_BULK, &rx_address, 0, 0, 65000), 0);
	run_pair(1);
	check_complete(1);
	close_pair();
}
END_TEST

/* Groups: which shard gets what, and who may join. */

#define GROUP 3

static struct wvm_shard *members[GROUP];
static struct wvm_udp *group[GROUP];
static struct proof_log logs[GROUP];
static uint32_t group_received, group_done, misplaced;

static void take_grouped(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	struct proof_log *log = ctx;
	unsigned self = (unsigned)(log - logs);
	unsigned owner = wvm_udp_owner(group[self], data, len);

	if (owner != self) {
		__atomic_fetch_add(&misplaced, 1, __ATOMIC_RELAXED);
		ck_assert_int_eq(wvm_udp_forward(group[self], owner, from, data, len), 0);
		return;
	}
	proof_check(log, data, len);
	if (__atomic_add_fetch(&group_received, 1, __ATOMIC_RELAXED) == stop_after)
		__atomic_store_n(&group_done, 1, __ATOMIC_RELEASE);
}

static void open_group(void)
{
	struct wvm_udp_opts o = {
		.bind = loopback(0), .datagram = take_grouped, .steer_offset = STEER_OFFSET};
	void *ctx[GROUP];
	char why[256];

	for (unsigned i = 0; i < GROUP; i++) {
		members[i] = make_shard(&(struct wvm_shard_opts){.index = i});
		ctx[i] = &logs[i];
	}
	ck_assert_msg(!wvm_udp_open(group, members, ctx, GROUP, &o, why, sizeof(why)), "%s", why);
	for (unsigned i = 0; i < GROUP; i++)
		ck_assert_uint_eq(wvm_udp_index(group[i]), i);
}

static void stop_group(void)
{
	for (unsigned i = 0; i < GROUP; i++) {
		wvm_shard_stop(members[i]);
		ck_assert_int_eq(wvm_shard_join(members[i]), 0);
	}
}

static void close_group(void)
{
	for (unsigned i = 0; i < GROUP; i++)
		wvm_udp_close(group[i]);
	for (unsigned i = 0; i < GROUP; i++)
		wvm_shard_destroy(members[i]);
}

/* Waits until no more than a window of the first `sent` datagrams is under way. */
static void pace(unsigned sent)
{
	uint64_t end = wvm_now_ns() + GIVE_UP_NS;

	while (__atomic_load_n(&group_received, __ATOMIC_RELAXED) + WINDOW / 2 < sent) {
		ck_assert_msg(wvm_now_ns() < end, "%u of %u arrived", group_received, sent);
		usleep(50);
	}
}

START_TEST(single_datagrams_reach_the_shard_of_their_steer)
{
	struct sockaddr_in to;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	uint8_t buf[200];

	open_group();
	to = wvm_udp_address(group[0]);
	stop_after = 3000;
	for (unsigned i = 0; i < GROUP; i++)
		ck_assert_int_eq(wvm_shard_start(members[i]), 0);
	for (unsigned i = 0; i < 3000; i++) {
		pace(i);
		proof_write(buf, sizeof(buf), i, (uint16_t)(i * 77));
		ck_assert_int_eq(
			sendto(fd, buf, sizeof(buf), 0, (struct sockaddr *)&to, sizeof(to)),
			sizeof(buf));
	}
	ck_assert(wait_for(&group_done));
	stop_group();
	ck_assert_uint_eq(misplaced, 0);
	for (unsigned i = 0; i < 3000; i++)
		ck_assert_uint_eq(logs[(uint16_t)(i * 77) % GROUP].seen[i], 1);
	close(fd);
	close_group();
}
END_TEST

/* One sendmsg with segments for all shards, as a gateway might merge them. */
static void send_mixed(int fd, const struct sockaddr_in *to, unsigned first)
{
	static uint8_t data[30 * 1000];
	uint8_t control[CMSG_SPACE(2)] = {0};
	struct iovec iov = {data, sizeof(data)};
	struct msghdr msg = {
		.msg_name = (void *)to,
		.msg_namelen = sizeof(*to),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	const uint16_t size = 1000;

	for (unsigned i = 0; i < 30; i++)
		proof_write(data + i * 1000, 1000, first + i, (uint16_t)(first + i));
	c->cmsg_level = SOL_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(2);
	memcpy(CMSG_DATA(c), &size, 2);
	ck_assert_int_eq(sendmsg(fd, &msg, 0), sizeof(data));
}

START_TEST(foreign_segments_of_a_batch_are_passed_on_and_counted)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	uint64_t foreign = 0, forwarded = 0;
	struct sockaddr_in to;

	open_group();
	to = wvm_udp_address(group[0]);
	stop_after = 3000;
	for (unsigned i = 0; i < GROUP; i++)
		ck_assert_int_eq(wvm_shard_start(members[i]), 0);
	for (unsigned i = 0; i < 3000; i += 30) {
		send_mixed(fd, &to, i);
		pace(i + 30);
	}
	ck_assert(wait_for(&group_done));
	stop_group();
	for (unsigned i = 0; i < GROUP; i++) {
		foreign += members[i]->stats.rx_foreign;
		forwarded += members[i]->stats.rx_forwarded_in;
		ck_assert_uint_eq(members[i]->stats.rx_foreign_lost, 0);
		ck_assert_uint_eq(logs[i].doubled + logs[i].torn, 0);
	}
	ck_assert_uint_eq(misplaced, 2000);
	ck_assert_uint_eq(foreign, 2000);
	ck_assert_uint_eq(forwarded, 2000);
	for (unsigned i = 0; i < 3000; i++)
		ck_assert_uint_eq(logs[i % GROUP].seen[i], 1);
	close(fd);
	close_group();
}
END_TEST

START_TEST(nobody_else_gets_a_port_in_use_not_even_with_reuseport)
{
	struct wvm_udp_opts o = {.datagram = take_grouped, .steer_offset = STEER_OFFSET};
	struct wvm_shard *others[2];
	struct wvm_udp *u[2] = {NULL, NULL};
	char why[256] = "";

	open_group();
	o.bind = wvm_udp_address(group[0]);
	for (unsigned n = 1; n <= 2; n++) {
		for (unsigned i = 0; i < 2; i++)
			others[i] = make_shard(NULL);
		ck_assert_int_eq(wvm_udp_open(u, others, NULL, n, &o, why, sizeof(why)),
				 -EADDRINUSE);
		ck_assert_ptr_null(u[0]);
		ck_assert_ptr_nonnull(strstr(why, "another process has the port"));
		for (unsigned i = 0; i < 2; i++)
			wvm_shard_destroy(others[i]);
	}
	close_group();
}
END_TEST

static void *let_go(void *arg)
{
	usleep(100000);
	close(*(int *)arg);
	return NULL;
}

START_TEST(a_port_that_becomes_free_within_a_moment_is_waited_for)
{
	struct sockaddr_in at = loopback(0);
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct wvm_udp_opts o = {.datagram = take};
	pthread_t t;

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, let_go, &fd), 0);
	o.bind = at;
	rx_shard = make_shard(NULL);
	rx = open_udp(rx_shard, NULL, &o);
	ck_assert_int_eq(wvm_udp_address(rx).sin_port, at.sin_port);
	pthread_join(t, NULL);
	wvm_udp_close(rx);
	wvm_shard_destroy(rx_shard);
}
END_TEST

START_TEST(an_address_of_another_host_is_a_clear_error)
{
	struct wvm_udp_opts o = {.datagram = take};
	struct wvm_shard *s = make_shard(NULL);
	struct wvm_udp *u;
	char why[256] = "";

	o.bind.sin_addr.s_addr = inet_addr("192.0.2.7");
	o.bind.sin_port = htons(9000);
	ck_assert_int_eq(wvm_udp_open(&u, &s, NULL, 1, &o, why, sizeof(why)), -EADDRNOTAVAIL);
	ck_assert_ptr_nonnull(strstr(why, "192.0.2.7:9000"));
	wvm_shard_destroy(s);
}
END_TEST

static const struct {
	struct wvm_udp_opts opts;
	const char *name;
} bad_opts[] = {
	{{.datagram = NULL}, "datagram"},
	{{.datagram = take, .datagram_max = 63}, "datagram_max"},
	{{.datagram = take, .datagram_max = 65001}, "datagram_max"},
	{{.datagram = take, .rx_buffers = 3}, "rx_buffers"},
	{{.datagram = take, .tx_buffers = 8, .tx_control = 8}, "tx_control"},
	{{.datagram = take, .tx_buffers = 65537}, "tx_buffers"},
	{{.datagram = take, .steer_offset = 65001}, "steer_offset"},
	{{.datagram = take, .socket_bytes = 100}, "socket_bytes"},
	{{.datagram = take, .pad_max = 1473}, "pad_max"},
};

START_TEST(an_option_out_of_range_is_named)
{
	struct wvm_shard *s = make_shard(NULL);
	struct wvm_udp *u;
	char why[256] = "";

	ck_assert_int_eq(wvm_udp_open(&u, &s, NULL, 1, &bad_opts[_i].opts, why, sizeof(why)),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(why, bad_opts[_i].name));
	wvm_shard_destroy(s);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/udp");
	TCase *c = tcase_create("udp");

	tcase_set_timeout(c, 60);
	tcase_add_test(c, equal_datagrams_leave_and_arrive_in_batches);
	tcase_add_test(c, what_is_a_little_shorter_does_not_end_a_batch);
	tcase_add_test(c, what_is_much_shorter_ends_its_batch_and_stays_as_it_is);
	tcase_add_test(c, datagrams_of_any_size_arrive_once_and_whole);
	tcase_add_test(c, exhausted_receive_buffers_are_refilled_without_loss);
	tcase_add_test(c, a_path_without_gso_gets_every_datagram_one_by_one);
	tcase_add_test(c, control_leaves_before_bulk_and_each_lane_keeps_its_order);
	tcase_add_test(c, bulk_never_takes_the_buffers_of_control);
	tcase_add_test(c, who_found_no_buffer_is_called_when_there_is_room);
	tcase_add_test(c, a_buffer_is_not_reused_before_the_kernel_has_sent_it);
	tcase_add_test(c, reserved_buffers_come_back_by_cancel);
	tcase_add_test(c, a_refused_datagram_is_counted_and_hurts_nobody_else);
	tcase_add_test(c, an_empty_datagram_is_delivered);
	tcase_add_test(c, the_largest_datagram_arrives_whole);
	tcase_add_test(c, single_datagrams_reach_the_shard_of_their_steer);
	tcase_add_test(c, foreign_segments_of_a_batch_are_passed_on_and_counted);
	tcase_add_test(c, nobody_else_gets_a_port_in_use_not_even_with_reuseport);
	tcase_add_test(c, a_port_that_becomes_free_within_a_moment_is_waited_for);
	tcase_add_test(c, an_address_of_another_host_is_a_clear_error);
	tcase_add_loop_test(c, an_option_out_of_range_is_named, 0,
			    sizeof(bad_opts) / sizeof(bad_opts[0]));
	suite_add_tcase(s, c);
	return run_suite(s);
}
