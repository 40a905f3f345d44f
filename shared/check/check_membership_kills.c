/*
 * Epochs among real processes: three voters with real sockets and real files, of which one after
 * the other is killed at a random moment and started again, while all wish for changes and
 * datagrams are lost. What each says is noted in memory that all share before it is sent, so that
 * the next life can be compared with the one before.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/ballots.h"
#include "shared/core/assert.h"
#include "shared/core/random.h"
#include "shared/membership.h"
#include "shared/wire.h"

#define NODES      3u
#define EPOCHS     20000u
#define CHAOS_MS   12000u
#define SETTLE_MS  60000u /* a hang, not a measure */
#define PAUSE_MAX  60u    /* ms between two kills */
#define WISH_MS    25u
#define LOSS       16u /* one of so many datagrams */
#define EPOCHS_MIN 20u
#define KILLS_MIN  50u

void wvm_core_panic(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, what);
	abort();
}

/* What all processes share. A node's own entries have one writer at a time: its present life. */
static struct shared {
	struct {
		uint32_t known; /* 0 no, 1 being written, 2 yes */
		struct wvm_epoch_record record;
	} decided[EPOCHS];
	struct {
		uint64_t promised; /* the highest that it said PROMISE or ACCEPTED to */
		uint64_t accepted; /* that it said ACCEPTED to */
	} said[NODES][EPOCHS];
	uint32_t epoch[NODES];
	uint32_t boot[NODES];
	uint64_t won, installed;
	uint32_t quiet;  /* wishes no more */
	uint32_t failed; /* 0; 1 while text is written; 2 */
	char text[256];
} * shared;

static struct sockaddr_in addresses[NODES];
static int sockets[NODES];
static char dir[64];

/* In a child of the test: what is wrong is told to the test, and the process ends. */
#define NEED(cond, ...)                                                                \
	do {                                                                           \
		uint32_t nobody = 0;                                                   \
                                                                                       \
		if (cond)                                                              \
			break;                                                         \
		if (__atomic_compare_exchange_n(&shared->failed, &nobody, 1, false,    \
						__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) { \
			snprintf(shared->text, sizeof(shared->text), __VA_ARGS__);     \
			__atomic_store_n(&shared->failed, 2, __ATOMIC_RELEASE);        \
		}                                                                      \
		_exit(3);                                                              \
	} while (0)

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- one life of a node ---------------------------------------------------------------- */

static struct {
	struct wvm_membership m;
	uint64_t memory[(64 << 10) / 8];
	uint32_t self;
	struct wvm_ballots ballots;
	struct wvm_epoch_durable to_store;
	bool store;
	uint32_t behind; /* the epoch to be installed; 0: none */
	uint64_t random, wish_at;
} me;

static bool where(void *ctx, uint32_t node, struct wvm_hop *out)
{
	if (node >= NODES)
		return false;
	*out = (struct wvm_hop){.ip = ntohl(addresses[node].sin_addr.s_addr),
				.port = ntohs(addresses[node].sin_port)};
	return true;
}

static struct wvm_epoch_durable on_disk(void)
{
	uint8_t bytes[WVM_BALLOTS_BYTES + 1];
	struct wvm_epoch_durable d;
	int fd = open(me.ballots.path, O_RDONLY);
	ssize_t n = read(fd, bytes, sizeof(bytes));

	close(fd);
	NEED(n >= 0 && !wvm_ballots_decode(&me.ballots, bytes, (size_t)n, &d),
	     "node %u: its file is damaged", me.self);
	return d;
}

/* Before it leaves: it is on the disk, and does not contradict what an earlier life has said. */
static void check_said(const struct wvm_epoch_msg *e)
{
	struct wvm_epoch_durable d;

	if (e->kind != WVM_EPOCH_PROMISE && e->kind != WVM_EPOCH_ACCEPTED)
		return;
	d = on_disk();
	NEED(d.current.epoch >= e->epoch ||
		     (d.current.epoch + 1 == e->epoch && d.promised >= e->ballot &&
		      (e->kind == WVM_EPOCH_PROMISE || d.accepted >= e->ballot)),
	     "node %u: said kind %u about epoch %u before it was stored", me.self, e->kind,
	     e->epoch);
	NEED(e->epoch < EPOCHS, "more epochs than are kept");
	NEED(e->ballot >= shared->said[me.self][e->epoch].promised,
	     "node %u: a lost promise about epoch %u: kind %u", me.self, e->epoch, e->kind);
	NEED(e->kind != WVM_EPOCH_PROMISE || e->other >= shared->said[me.self][e->epoch].accepted,
	     "node %u: forgot what it accepted for epoch %u", me.self, e->epoch);
	shared->said[me.self][e->epoch].promised = e->ballot;
	if (e->kind == WVM_EPOCH_ACCEPTED)
		shared->said[me.self][e->epoch].accepted = e->ballot;
}

static bool send_to(void *ctx, uint32_t node, const struct wvm_hop *to, const uint8_t *bytes,
		    size_t len)
{
	const uint8_t *payload;
	struct wvm_epoch_msg e;
	struct wvm_msg msg;
	size_t consumed;

	NEED(!wvm_wire_decode(bytes, len, &msg, &payload, &consumed), "no message");
	if (msg.type == WVM_MSG_BALLOT) {
		NEED(wvm_epoch_decode(&e, payload, msg.payload_len), "no ballot");
		check_said(&e);
	}
	if (!wvm_random_below(&me.random, LOSS))
		return true;
	return sendto(sockets[me.self], bytes, len, MSG_DONTWAIT, (void *)&addresses[node],
		      sizeof(addresses[node])) == (ssize_t)len;
}

static void save(void *ctx, const struct wvm_epoch_durable *d)
{
	me.to_store = *d;
	me.store = true;
}

static void note(void *ctx, const struct wvm_gossip_action *a, uint64_t now)
{
}

/* Whoever knows it first writes it down; for all others it is the same. */
static void learnt(void *ctx, const struct wvm_epoch_record *r, enum wvm_epoch_verdict verdict)
{
	uint32_t none = 0;

	NEED(r->epoch < EPOCHS, "more epochs than are kept");
	NEED(r->epoch >= shared->epoch[me.self], "node %u: epoch %u after %u", me.self, r->epoch,
	     shared->epoch[me.self]);
	if (__atomic_compare_exchange_n(&shared->decided[r->epoch].known, &none, 1, false,
					__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		/* If it is killed here nobody compares this one: a gap, and no false alarm. */
		shared->decided[r->epoch].record = *r;
		__atomic_store_n(&shared->decided[r->epoch].known, 2, __ATOMIC_RELEASE);
	} else if (none == 2) {
		NEED(wvm_epoch_record_same(r, &shared->decided[r->epoch].record),
		     "two records for epoch %u: node %u has another one", r->epoch, me.self);
	}
	if (verdict == WVM_EPOCH_WON)
		__atomic_fetch_add(&shared->won, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&shared->epoch[me.self], r->epoch, __ATOMIC_RELEASE);
}

static void behind(void *ctx, uint32_t node, uint32_t epoch)
{
	me.behind = epoch;
}

/* Instead of the view that another node would send. */
static void install(void)
{
	uint32_t epoch = me.behind;

	if (!epoch || me.store || me.m.saving)
		return;
	me.behind = 0;
	NEED(epoch < EPOCHS, "more epochs than are kept");
	while (epoch > me.m.epoch.d.current.epoch && shared->decided[epoch].known != 2)
		epoch--;
	if (!wvm_membership_install(&me.m, &shared->decided[epoch].record, now_ns()))
		__atomic_fetch_add(&shared->installed, 1, __ATOMIC_RELAXED);
}

/* Any life of any node, and any voters. */
static void wish(void)
{
	struct wvm_epoch_record r = {
		.epoch = me.m.epoch.d.current.epoch + 1,
		.node = (uint32_t)wvm_random_below(&me.random, NODES),
		.state = (uint8_t)wvm_random_below(&me.random, WVM_NODE_OFFLINE)};
	uint32_t voters = 1 + (uint32_t)wvm_random_below(&me.random, (1u << NODES) - 1);

	if (now_ns() < me.wish_at || __atomic_load_n(&shared->quiet, __ATOMIC_ACQUIRE))
		return;
	me.wish_at = now_ns() + (1 + wvm_random_below(&me.random, 2 * WISH_MS)) * 1000000;
	for (uint32_t i = 0; i < NODES; i++)
		if (voters & 1u << i)
			r.voter[r.voters++] = i;
	wvm_membership_wish(&me.m, &r, now_ns());
}

static void store(void)
{
	while (me.store) {
		me.store = false;
		NEED(!wvm_ballots_store(&me.ballots, &me.to_store), "cannot store: %s",
		     strerror(errno));
		wvm_membership_saved(&me.m, now_ns());
	}
}

static void receive(void)
{
	uint8_t bytes[2048];
	struct sockaddr_in from;

	for (unsigned i = 0; i < 32; i++) {
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(sockets[me.self], bytes, sizeof(bytes), MSG_DONTWAIT,
				     (void *)&from, &size);
		struct wvm_hop at = {.ip = ntohl(from.sin_addr.s_addr),
				     .port = ntohs(from.sin_port)};

		if (n < 0)
			return;
		wvm_membership_datagram(&me.m, &at, bytes, (size_t)n, now_ns());
		store();
	}
}

static void begin_life(uint32_t self)
{
	static const struct wvm_membership_ops ops = {.where = where,
						      .send = send_to,
						      .save = save,
						      .note = note,
						      .learnt = learnt,
						      .behind = behind};
	static const uint32_t ids[NODES] = {0, 1, 2};
	struct wvm_hop at = {0};
	struct wvm_gossip_self gossip = {.node = self};
	struct wvm_epoch_record first;
	struct wvm_epoch_durable d;
	char err[512];

	me.self = self;
	me.random = wvm_random_mix((uint64_t)getpid() << 20 ^ now_ns()) | 1;
	where(NULL, self, &at);
	gossip.ip = at.ip;
	gossip.port = at.port;
	gossip.incarnation = wvm_gossip_incarnation((uint16_t)++shared->boot[self]);
	wvm_ballots_first(&first, ids, NODES);
	NEED(wvm_ballots_begin(&me.ballots, dir, self, self, 1, &first, &d, err, sizeof(err)) >= 0,
	     "node %u: %.200s", self, err);
	wvm_membership_init(&me.m, &ops, NULL, me.memory, WVM_GOSSIP_ROOM, WVM_MTU_DEFAULT, &gossip,
			    &d, me.random, now_ns());
	for (uint32_t i = 0; i < NODES; i++)
		wvm_membership_add(&me.m, i, now_ns());
	wvm_membership_life(&me.m, WVM_NODE_ACTIVE, now_ns());
	store();
}

static void live(uint32_t self)
{
	struct pollfd p = {.fd = sockets[self], .events = POLLIN};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	begin_life(self);
	for (;;) {
		poll(&p, 1, 2);
		receive();
		if (wvm_membership_deadline(&me.m) <= now_ns())
			wvm_membership_tick(&me.m, now_ns());
		store();
		wish();
		store();
		install();
		store();
	}
}

/* ---- the test -------------------------------------------------------------------------- */

static pid_t pids[NODES];

static void start(uint32_t i)
{
	fflush(NULL);
	pids[i] = fork();
	ck_assert_int_ge(pids[i], 0);
	if (!pids[i])
		live(i);
}

static void end(uint32_t i)
{
	ck_assert_int_eq(kill(pids[i], SIGKILL), 0);
	ck_assert_int_eq(waitpid(pids[i], NULL, 0), pids[i]);
}

static void sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

static void open_all(void)
{
	socklen_t size = sizeof(addresses[0]);

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	ck_assert_ptr_ne(shared, MAP_FAILED);
	snprintf(dir, sizeof(dir), "/tmp/wvm-kills-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	/* Open as long as the test runs: what was sent to a life arrives in the next one. */
	for (uint32_t i = 0; i < NODES; i++) {
		addresses[i] = (struct sockaddr_in){.sin_family = AF_INET,
						    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(bind(sockets[i], (void *)&addresses[i], size), 0);
		ck_assert_int_eq(getsockname(sockets[i], (void *)&addresses[i], &size), 0);
	}
}

static void remove_files(void)
{
	char path[300];

	for (uint32_t i = 0; i < NODES; i++) {
		snprintf(path, sizeof(path), "%s/ballots.%u", dir, i);
		unlink(path);
		strcat(path, ".new");
		unlink(path);
	}
	rmdir(dir);
}

static void end_all(void)
{
	for (uint32_t i = 0; i < NODES; i++)
		end(i);
	remove_files();
}

static void check_nobody_failed(void)
{
	while (__atomic_load_n(&shared->failed, __ATOMIC_ACQUIRE) == 1)
		sleep_ms(1);
	if (shared->failed)
		end_all();
	ck_assert_msg(!shared->failed, "%s", shared->text);
}

static bool all_agree(void)
{
	uint32_t epoch = __atomic_load_n(&shared->epoch[0], __ATOMIC_ACQUIRE);

	for (uint32_t i = 1; i < NODES; i++)
		if (__atomic_load_n(&shared->epoch[i], __ATOMIC_ACQUIRE) != epoch)
			return false;
	return epoch > 1;
}

START_TEST(no_kill_at_any_moment_makes_two_records_of_one_epoch_or_loses_a_promise)
{
	uint64_t random = now_ns() | 1, until;
	unsigned kills = 0, same = 0;

	open_all();
	for (uint32_t i = 0; i < NODES; i++)
		start(i);
	until = now_ns() + CHAOS_MS * UINT64_C(1000000);
	while (now_ns() < until && !shared->failed) {
		uint32_t i = (uint32_t)wvm_random_below(&random, NODES);

		sleep_ms((unsigned)wvm_random_below(&random, PAUSE_MAX));
		end(i);
		kills++;
		sleep_ms((unsigned)wvm_random_below(&random, PAUSE_MAX / 4));
		start(i);
	}
	check_nobody_failed();
	/* Nobody wishes any more: what is under way ends, and all learn it. */
	__atomic_store_n(&shared->quiet, 1, __ATOMIC_RELEASE);
	until = now_ns() + SETTLE_MS * UINT64_C(1000000);
	while (same < 20 && !shared->failed && now_ns() < until) {
		same = all_agree() ? same + 1 : 0;
		sleep_ms(100);
	}
	check_nobody_failed();
	end_all();
	printf("proof: %u kills, %u epochs, %lu wishes won, %lu views installed\n", kills,
	       shared->epoch[0], shared->won, shared->installed);
	ck_assert_msg(same == 20, "nodes are in epochs %u, %u and %u", shared->epoch[0],
		      shared->epoch[1], shared->epoch[2]);
	ck_assert_uint_ge(shared->epoch[0], EPOCHS_MIN);
	ck_assert_uint_ge(kills, KILLS_MIN);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("membership kills");
	TCase *t = tcase_create("kills");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 150);
	tcase_add_test(t, no_kill_at_any_moment_makes_two_records_of_one_epoch_or_loses_a_promise);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
