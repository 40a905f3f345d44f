/*
 * Orders that take their time (drain, join, vcpu move) to a master that is busy for a moment, or is
 * started again: whoever gave one does not have to give it again. The master is a script here; the
 * real one is that of check_moves and check_vcpu_orders.
 */
#include <arpa/inet.h>
#include <check.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "roles/ctl/life.h"
#include "roles/ctl/move.h"
#include "shared/control.h"

/* More requests than wvm_ask() makes before it says that nobody answers, in 2 s. */
#define SILENCE 5u

/* What the master does with requests, one after the other. */
struct turn {
	unsigned ignored;   /* so many first */
	bool away;          /* and nobody listens for half a second */
	const char *answer; /* then this; NULL: that was all, it answers nothing more */
};

static struct master {
	pthread_t thread;
	const struct turn *script;
	int fd;
	uint16_t port;
	atomic_bool end;
	atomic_uint orders; /* with the operand of the first */
	uint64_t operand;
} master;

static int listen_at(uint16_t *port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons(*port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	*port = ntohs(sin.sin_port);
	return fd;
}

static void answer(const uint8_t *request, const struct sockaddr_in *to, const char *text)
{
	uint8_t out[WVM_CONTROL_HEADER_BYTES + WVM_CONTROL_PART] = {0};
	uint16_t op;

	memcpy(&op, request + 4, sizeof(op));
	op |= htobe16(WVM_CONTROL_ANSWER);
	memcpy(out, request, 4);
	memcpy(out + 4, &op, sizeof(op));
	memcpy(out + 6, request + 6, 2); /* the part, always the first */
	memcpy(out + 8, &(uint32_t){htobe32(7)}, 4);
	memcpy(out + 14, &(uint16_t){htobe16(1)}, 2);
	memcpy(out + WVM_CONTROL_HEADER_BYTES, text, strlen(text));
	(void)sendto(master.fd, out, WVM_CONTROL_HEADER_BYTES + strlen(text), 0,
		     (const struct sockaddr *)to, sizeof(*to));
}

static void note(const uint8_t *request)
{
	uint64_t operand;

	memcpy(&operand, request + 16, sizeof(operand));
	if (!atomic_fetch_add(&master.orders, 1))
		master.operand = operand;
	ck_assert_uint_eq(operand, master.operand);
}

static void *serve(void *arg)
{
	const struct turn *t = master.script;
	unsigned ignored = 0;

	for (; !atomic_load(&master.end);) {
		uint8_t request[WVM_CONTROL_REQUEST_BYTES];
		struct pollfd p = {.fd = master.fd, .events = POLLIN};
		struct sockaddr_in from;
		socklen_t len = sizeof(from);

		if (poll(&p, 1, 20) <= 0 ||
		    recvfrom(master.fd, request, sizeof(request), 0, (struct sockaddr *)&from,
			     &len) != sizeof(request))
			continue;
		note(request);
		if (!t->answer || ignored++ < t->ignored)
			continue;
		answer(request, &from, t->answer);
		ignored = 0;
		if ((++t)->away) {
			close(master.fd);
			usleep(500000);
			master.fd = listen_at(&master.port);
		}
	}
	return arg;
}

static struct wvm_ask begin(const struct turn *script)
{
	master = (struct master){.script = script};
	master.fd = listen_at(&master.port);
	ck_assert_int_eq(pthread_create(&master.thread, NULL, serve, NULL), 0);
	return (struct wvm_ask){.port = master.port};
}

static void end(void)
{
	atomic_store(&master.end, true);
	pthread_join(master.thread, NULL);
	close(master.fd);
}

/* ---- drain and join ----------------------------------------------------------------------- */

#define DRAINING \
	"{\"node\": 2, \"life\": \"DRAINING\", \"epoch\": 4, \"done\": false, \"busy\": [1]}"
#define OFFLINE "{\"node\": 2, \"life\": \"OFFLINE\", \"epoch\": 5, \"done\": true, \"busy\": []}"

static int drain(const struct wvm_ask *ask, char *err, size_t err_len)
{
	json_t *last;
	int ret = wvm_life(ask, false, 2, true, &last, err, err_len);

	json_decref(last);
	return ret;
}

START_TEST(a_drain_goes_on_while_its_master_is_silent_or_away)
{
	static const struct turn silent[] = {{0, false, DRAINING}, {SILENCE, false, OFFLINE}, {0}},
				 away[] = {{0, false, DRAINING}, {0, true, OFFLINE}, {0}};
	struct wvm_ask ask = begin(_i ? away : silent);
	char err[512] = "";

	ck_assert_msg(!drain(&ask, err, sizeof(err)), "%s", err);
	end();
	ck_assert_uint_eq(master.operand, htobe64(2));
}
END_TEST

START_TEST(a_drain_that_no_master_ever_took_fails_at_once)
{
	static const struct turn nothing[] = {{0}};
	struct wvm_ask ask = begin(nothing);
	char err[512];

	ck_assert_int_eq(drain(&ask, err, sizeof(err)), -ETIMEDOUT);
	ck_assert_msg(strstr(err, "no master answers") && !strstr(err, "was taken"), "%s", err);
	end();
}
END_TEST

START_TEST(a_drain_that_cannot_be_fails_also_after_it_was_taken)
{
	static const struct turn script[] = {
		{0, false, DRAINING}, {0, false, "{\"error\": \"node 1 does not answer\"}"}, {0}};
	struct wvm_ask ask = begin(script);
	char err[512];

	ck_assert_int_eq(drain(&ask, err, sizeof(err)), -EBUSY);
	ck_assert_str_eq(err, "node 1 does not answer");
	end();
}
END_TEST

/* ---- vcpu move ---------------------------------------------------------------------------- */

static int move(struct wvm_ask *ask, char *said, size_t said_len, char *err, size_t err_len)
{
	json_t *last;
	int ret = wvm_move(ask, 1, 2, said, said_len, &last, err, err_len);

	json_decref(last);
	return ret;
}

START_TEST(a_move_goes_on_while_its_master_is_silent)
{
	static const struct turn script[] = {
		{0, false, "{\"outcome\": \"waits\"}"},
		{SILENCE, false, "{\"outcome\": \"moved\", \"took_us\": 1500}"},
		{0}};
	struct wvm_ask ask = begin(script);
	char said[128] = "", err[256] = "";

	ck_assert_msg(!move(&ask, said, sizeof(said), err, sizeof(err)), "%s", err);
	ck_assert_str_eq(said, "vCPU 1 runs on node 2, moved in 1.5 ms");
	ck_assert_uint_gt(atomic_load(&master.orders), SILENCE);
	end();
}
END_TEST

START_TEST(a_move_that_no_master_ever_took_fails_at_once)
{
	static const struct turn nothing[] = {{0}};
	struct wvm_ask ask = begin(nothing);
	char said[128], err[256];

	ck_assert_int_eq(move(&ask, said, sizeof(said), err, sizeof(err)), -ETIMEDOUT);
	ck_assert_msg(strstr(err, "no master answers"), "%s", err);
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("orders");
	TCase *t = tcase_create("orders");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, a_drain_goes_on_while_its_master_is_silent_or_away, 0, 2);
	tcase_add_test(t, a_drain_that_no_master_ever_took_fails_at_once);
	tcase_add_test(t, a_drain_that_cannot_be_fails_also_after_it_was_taken);
	tcase_add_test(t, a_move_goes_on_while_its_master_is_silent);
	tcase_add_test(t, a_move_that_no_master_ever_took_fails_at_once);
	suite_add_tcase(suite, t);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
