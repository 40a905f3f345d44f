/* The slave daemon: the run protocol on its socket, and what it does with engines. */
#include <check.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/slave/check/bed.h"

#define LIFE 1000u
static struct bed_vcpu v[FAKE_VCPUS];

static void setup(void)
{
	bed_setup();
	bed_start("--no-kvm");
	for (unsigned i = 0; i < FAKE_VCPUS; i++)
		bed_vcpu(&v[i], BED_VM, i, LIFE);
}

/* ---- runs ------------------------------------------------------------------------------ */

START_TEST(runs_are_answered_whole_whatever_their_length)
{
	static const uint32_t lengths[] = {1, 64, 1300, 1408, 1409, 5000, 40000, 65400};

	ck_assert_uint_eq(bed.hello.engines, 1u << WVM_VCPU_ENGINE_TCG);
	ck_assert_uint_ne(bed.life, 0);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		bed_begin(&v[0], FAKE_ECHO, lengths[i]);
		ck_assert_int_eq(bed_await(&v[0], BED_WAIT_MS), WVM_RUN_ANSWERED);
		ck_assert_int_eq(v[0].exit.kind, WVM_VCPU_EXIT_KICKED);
		ck_assert_uint_eq(v[0].exit.state_len, lengths[i]);
		for (uint32_t k = 1; k < lengths[i]; k++)
			ck_assert_uint_eq(v[0].exit.state[k], (uint8_t)(k * 3 + v[0].run.seq - 1));
		ck_assert_uint_eq(bed_executed(0, v[0].run.seq), 1);
	}
	ck_assert_int_eq(bed_run(&v[0], FAKE_LARGE), WVM_RUN_ANSWERED);
	ck_assert_uint_eq(v[0].run.answer_len, WVM_RUN_MAX);
	ck_assert_uint_eq(bed.counts->starts, 1);
	ck_assert_int_eq(bed_stop(), 0);
}
END_TEST

START_TEST(a_kick_ends_a_run_that_never_would)
{
	for (unsigned i = 0; i < 20; i++) {
		bed_begin(&v[1], FAKE_SPIN, 40);
		if (i % 2)
			ck_assert_int_eq(bed_await(&v[1], 30), WVM_RUN_NOTHING);
		bed_kick(&v[1]);
		ck_assert_int_eq(bed_await(&v[1], BED_WAIT_MS), WVM_RUN_ANSWERED);
		ck_assert_uint_eq(bed_executed(1, v[1].run.seq), 1);
	}
}
END_TEST

START_TEST(what_its_owner_has_left_does_not_run_for_ever)
{
	bed_begin(&v[0], FAKE_SPIN, 100);
	ck_assert_int_eq(bed_await(&v[0], 500), WVM_RUN_NOTHING);
	usleep(9000000);
	ck_assert(bed_hello(1000));
	ck_assert_uint_eq(bed.hello.running, 1);
	usleep(1500000);
	ck_assert(bed_hello(1000));
	ck_assert_uint_eq(bed.hello.running, 0);
	ck_assert_int_eq(bed_await(&v[0], 1000), WVM_RUN_SILENT);
}
END_TEST

START_TEST(what_an_engine_refuses_is_refused)
{
	ck_assert_int_eq(bed_run(&v[0], FAKE_REFUSE), WVM_RUN_REFUSED);
	ck_assert_uint_eq(v[0].run.reason, WVM_RUN_BASE);
	ck_assert_int_eq(bed_run(&v[0], FAKE_ECHO), WVM_RUN_ANSWERED);
}
END_TEST

/* Each message three times, and those of the run before once more at any later time. */
START_TEST(no_run_is_executed_twice)
{
	unsigned wrong = 0;

	bed.copies = 3;
	for (unsigned i = 0; i < 2000; i++) {
		unsigned k = i % FAKE_VCPUS;

		bed_begin(&v[k], FAKE_ECHO, 1 + i * 7 % 3000);
		ck_assert_int_eq(bed_await(&v[k], BED_WAIT_MS), WVM_RUN_ANSWERED);
		bed_replay();
	}
	for (unsigned k = 0; k < FAKE_VCPUS; k++)
		for (uint64_t seq = 1; seq <= v[k].run.seq; seq++)
			wrong += bed_executed(k, seq) != 1;
	ck_assert_uint_eq(wrong, 0);
}
END_TEST

/* ---- lives ----------------------------------------------------------------------------- */

START_TEST(what_was_meant_for_a_former_life_of_the_slave_is_not_executed)
{
	uint64_t former = bed.life;

	ck_assert_int_eq(bed_run(&v[0], FAKE_ECHO), WVM_RUN_ANSWERED);
	bed_begin(&v[0], FAKE_SPIN, 40);
	ck_assert_int_eq(bed_await(&v[0], 50), WVM_RUN_NOTHING);
	bed_kill();
	bed_start("--no-kvm");
	ck_assert_uint_ne(bed.life, former);
	ck_assert_int_eq(bed_await(&v[0], BED_WAIT_MS), WVM_RUN_LOST);
	ck_assert_uint_eq(bed_executed(0, 2), 1);
	ck_assert_int_eq(bed_run(&v[0], FAKE_ECHO), WVM_RUN_ANSWERED);
}
END_TEST

START_TEST(a_later_life_of_the_owner_takes_the_place_of_the_former)
{
	struct bed_vcpu next;

	bed_begin(&v[0], FAKE_SPIN, 40);
	ck_assert_int_eq(bed_await(&v[0], 100), WVM_RUN_NOTHING);
	/* It runs something still; that ends, and its answer is nobody's. */
	bed_vcpu(&next, BED_VM, 1, LIFE + 1);
	ck_assert_int_eq(bed_run(&next, FAKE_ECHO), WVM_RUN_REFUSED);
	ck_assert_uint_eq(next.run.reason, WVM_RUN_BUSY);
	usleep(100000);
	/* What was refused is not executed later either. */
	bed_replay();
	usleep(50000);
	ck_assert_uint_eq(bed_executed(1, 1), 0);
	ck_assert_int_eq(bed_run(&next, FAKE_ECHO), WVM_RUN_ANSWERED);
	ck_assert_uint_eq(bed.counts->starts, 2); /* an engine of its own */
	/* The former life's owner is not heard any more. */
	ck_assert_int_eq(bed_await(&v[0], BED_WAIT_MS), WVM_RUN_SILENT);
	ck_assert_uint_eq(bed_executed(0, 1), 1);
}
END_TEST

/* ---- engines that fail ----------------------------------------------------------------- */

START_TEST(a_run_whose_engine_dies_ends_with_an_error_and_later_ones_are_refused)
{
	bed_begin(&v[1], FAKE_SPIN, 40);
	ck_assert_int_eq(bed_await(&v[1], 100), WVM_RUN_NOTHING);
	ck_assert_int_eq(bed_run(&v[0], FAKE_DIE), WVM_RUN_ANSWERED);
	ck_assert_ptr_nonnull(strstr(bed_error(&v[0]), "ended with status 7"));
	ck_assert_int_eq(bed_await(&v[1], BED_WAIT_MS), WVM_RUN_ANSWERED);
	ck_assert_ptr_nonnull(strstr(bed_error(&v[1]), "ended with status 7"));
	for (unsigned i = 0; i < FAKE_VCPUS; i++) {
		ck_assert_int_eq(bed_run(&v[i], FAKE_ECHO), WVM_RUN_REFUSED);
		ck_assert_uint_eq(v[i].run.reason, WVM_RUN_ENGINE);
	}
	ck_assert_uint_eq(bed_executed(0, 1), 1);
	ck_assert_uint_eq(bed.counts->starts, 1);
	/* Another life of the owner gets another engine. */
	bed_vcpu(&v[0], BED_VM, 0, LIFE + 1);
	ck_assert_int_eq(bed_run(&v[0], FAKE_ECHO), WVM_RUN_ANSWERED);
	ck_assert_int_eq(bed_stop(), 0);
}
END_TEST

START_TEST(an_engine_that_breaks_the_rules_is_ended)
{
	static const enum fake_wish wishes[] = {FAKE_LIE, FAKE_WRONG};

	for (unsigned i = 0; i < 2; i++) {
		bed_vcpu(&v[0], BED_VM, 0, LIFE + i);
		ck_assert_int_eq(bed_run(&v[0], wishes[i]), WVM_RUN_ANSWERED);
		ck_assert_ptr_nonnull(strstr(bed_error(&v[0]), "makes no sense"));
		ck_assert_int_eq(bed_run(&v[0], FAKE_ECHO), WVM_RUN_REFUSED);
		ck_assert_uint_eq(v[0].run.reason, WVM_RUN_ENGINE);
	}
}
END_TEST

START_TEST(a_program_that_is_no_engine_has_its_runs_refused)
{
	bed_stop();
	bed_start("--qemu=/bin/false");
	ck_assert_int_eq(bed_run(&v[0], FAKE_ECHO), WVM_RUN_REFUSED);
	ck_assert_uint_eq(v[0].run.reason, WVM_RUN_ENGINE);
}
END_TEST

START_TEST(engines_end_with_the_slave)
{
	for (unsigned how = 0; how < 2; how++) {
		struct pollfd p = {.events = POLLIN};

		bed_vcpu(&v[0], BED_VM, 0, LIFE + how);
		bed_begin(&v[0], FAKE_SPIN, 40);
		ck_assert_int_eq(bed_await(&v[0], 200), WVM_RUN_NOTHING);
		ck_assert_uint_eq(bed_executed(0, 1), 1 + how);
		p.fd = (int)syscall(SYS_pidfd_open, bed.counts->pid, 0);
		ck_assert_int_ge(p.fd, 0);
		ck_assert_int_eq(poll(&p, 1, 0), 0);
		if (how)
			bed_kill();
		else
			ck_assert_int_eq(bed_stop(), 0);
		ck_assert_int_eq(poll(&p, 1, 5000), 1);
		close(p.fd);
		if (!how)
			bed_start("--no-kvm");
	}
}
END_TEST

/* ---- what makes no sense --------------------------------------------------------------- */

START_TEST(a_run_that_makes_no_sense_is_refused)
{
	static const uint8_t state[8] = {FAKE_ECHO};
	struct wvm_vcpu_run r = {.engine = WVM_VCPU_ENGINE_TCG,
				 .flags = WVM_VCPU_RUN_WHOLE,
				 .setup_version = 1,
				 .state = state,
				 .state_len = sizeof(state)};
	static const struct {
		uint8_t engine;
		const char *setup;
		unsigned reason;
	} cases[] = {
		{WVM_VCPU_ENGINE_TCG, "", WVM_RUN_SETUP},
		{WVM_VCPU_ENGINE_TCG, "vcpus many\n", WVM_RUN_MALFORMED},
		{WVM_VCPU_ENGINE_TCG, "vcpus 2\nmap 0 100000 0\n", WVM_RUN_MALFORMED},
		{WVM_VCPU_ENGINE_KVM, "vcpus 4\nmap 0 100000 0\n", WVM_RUN_ENGINE},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bed_vcpu *at = &v[i == 2 ? 3 : 0]; /* the machine has two */

		r.engine = cases[i].engine;
		r.setup = (const uint8_t *)cases[i].setup;
		r.setup_len = (uint32_t)strlen(cases[i].setup);
		bed_begin_run(at, &r);
		ck_assert_int_eq(bed_await(at, BED_WAIT_MS), WVM_RUN_REFUSED);
		ck_assert_uint_eq(at->run.reason, cases[i].reason);
	}
	/* Bytes that are no run at all. */
	memset(v[1].out, 0xee, 500);
	bed_begin_bytes(&v[1], 500);
	ck_assert_int_eq(bed_await(&v[1], BED_WAIT_MS), WVM_RUN_REFUSED);
	ck_assert_uint_eq(v[1].run.reason, WVM_RUN_MALFORMED);
}
END_TEST

START_TEST(noise_and_strangers_harm_nothing)
{
	uint8_t noise[1472];

	srand(7);
	for (unsigned i = 0; i < 200000; i++) {
		size_t len = (size_t)rand() % sizeof(noise);

		for (size_t k = 0; k < len; k++)
			noise[k] = (uint8_t)(rand() >> 8);
		/* Often a run of before with a few bytes of it changed, the checksum too. */
		if (i % 2 && bed.kept) {
			len = bed.keep_len[0];
			memcpy(noise, bed.keep[0], len);
			noise[(size_t)rand() % len] ^= (uint8_t)(1 << rand() % 8);
		}
		bed_send(noise, len);
		if (i % 2000 == 0)
			ck_assert_int_eq(bed_run(&v[i / 2000 % FAKE_VCPUS], FAKE_ECHO),
					 WVM_RUN_ANSWERED);
	}
	for (unsigned k = 0; k < FAKE_VCPUS; k++)
		for (uint64_t seq = 1; seq <= v[k].run.seq; seq++)
			ck_assert_uint_eq(bed_executed(k, seq), 1);
	ck_assert_int_eq(bed_stop(), 0);
}
END_TEST

START_TEST(only_its_master_is_heard)
{
	int mine = bed.fd;

	bed.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC,
			0); /* another port of the same address */
	ck_assert(!bed_hello(200));
	close(bed.fd);
	bed.fd = mine;
	ck_assert(bed_hello(2000));
}
END_TEST

/* ---- bounds ---------------------------------------------------------------------------- */

START_TEST(what_finds_no_room_is_refused_and_never_executed)
{
	struct bed_vcpu *many = calloc(20, sizeof(*many));
	unsigned full = 0;

	for (unsigned i = 0; i < 20; i++) {
		enum wvm_run_event event;

		bed_vcpu(&many[i], (uint16_t)(100 + i), 0, LIFE);
		event = bed_run(&many[i], FAKE_REFUSE);
		ck_assert_int_eq(event, WVM_RUN_REFUSED);
		full += many[i].run.reason == WVM_RUN_FULL;
	}
	ck_assert_uint_eq(full, 4);
	bed_replay();
	/* Those that have room go on. */
	ck_assert_int_eq(bed_run(&many[0], FAKE_REFUSE), WVM_RUN_REFUSED);
	ck_assert_uint_eq(many[0].run.reason, WVM_RUN_BASE);
	ck_assert_int_eq(bed_run(&many[19], FAKE_REFUSE), WVM_RUN_REFUSED);
	ck_assert_uint_eq(many[19].run.reason, WVM_RUN_FULL);
	free(many);
	ck_assert_int_eq(bed_stop(), 0);
}
END_TEST

/* ---- the command line ------------------------------------------------------------------ */

static int run_with(const char *arguments, char *out, size_t room)
{
	const char *build = getenv("BUILD");
	char command[512];
	FILE *f;
	size_t n;

	snprintf(command, sizeof(command), "%s/bin/wavevm_node_slave %s 2>&1",
		 build ? build : "build", arguments);
	f = popen(command, "r");
	ck_assert_ptr_nonnull(f);
	n = fread(out, 1, room - 1, f);
	out[n] = 0;
	return WEXITSTATUS(pclose(f));
}

START_TEST(a_command_line_that_is_wrong_is_one_clear_line)
{
	static const struct {
		const char *arguments, *says;
	} cases[] = {
		{"9005 2 64 0", "1 of 5 arguments"},
		{"9005 0 64 0 9001", "CORES '0'"},
		{"port 2 64 0 9001", "PORT 'port'"},
		{"9005 2 64 0 9001 more", "unexpected argument 'more'"},
		{"-vfio devices.conf 9005 2 64 0 9001", "-vfio"},
		{"9005 2 64 0 9001 --ring-path /nonexistent/ring", "is the master running?"},
		{"9005 2 64 0 9001 --ring-path /dev/null", "not a ring file"},
	};
	char out[4096];

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ck_assert_int_eq(run_with(cases[i].arguments, out, sizeof(out)), 1);
		ck_assert_msg(strstr(out, cases[i].says) != NULL, "%s: %s", cases[i].arguments,
			      out);
	}
	ck_assert_int_eq(run_with("--version", out, sizeof(out)), 0);
	ck_assert_ptr_nonnull(strstr(out, "wavevm_node_slave"));
	ck_assert_int_eq(run_with("--help", out, sizeof(out)), 0);
	ck_assert_ptr_nonnull(strstr(out, "--qemu=FILE"));
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("slave");
	TCase *t = tcase_create("slave"), *line = tcase_create("command line");
	SRunner *runner;
	int failed;

	(void)argc;
	(void)argv;
	if (fake_engine_wanted())
		return fake_engine();
	tcase_add_checked_fixture(t, setup, bed_teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, runs_are_answered_whole_whatever_their_length);
	tcase_add_test(t, a_kick_ends_a_run_that_never_would);
	tcase_add_test(t, what_its_owner_has_left_does_not_run_for_ever);
	tcase_add_test(t, what_an_engine_refuses_is_refused);
	tcase_add_test(t, no_run_is_executed_twice);
	tcase_add_test(t, what_was_meant_for_a_former_life_of_the_slave_is_not_executed);
	tcase_add_test(t, a_later_life_of_the_owner_takes_the_place_of_the_former);
	tcase_add_test(t, a_run_whose_engine_dies_ends_with_an_error_and_later_ones_are_refused);
	tcase_add_test(t, an_engine_that_breaks_the_rules_is_ended);
	tcase_add_test(t, a_program_that_is_no_engine_has_its_runs_refused);
	tcase_add_test(t, engines_end_with_the_slave);
	tcase_add_test(t, a_run_that_makes_no_sense_is_refused);
	tcase_add_test(t, noise_and_strangers_harm_nothing);
	tcase_add_test(t, only_its_master_is_heard);
	tcase_add_test(t, what_finds_no_room_is_refused_and_never_executed);
	tcase_add_test(line, a_command_line_that_is_wrong_is_one_clear_line);
	suite_add_tcase(s, t);
	suite_add_tcase(s, line);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
