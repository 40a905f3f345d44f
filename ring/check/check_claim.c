/* Daemons that are started beside each other: each on a CPU of its own, as long as there is one. */
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/claim.h"

#define NOBODY 65534

static char file[64];

static void setup(void)
{
	snprintf(file, sizeof(file), "/dev/shm/wvm-check-claim.%d", (int)getpid());
	unlink(file);
}

static void teardown(void)
{
	unlink(file);
}

struct daemon {
	unsigned shards;
	const char *list;    /* --cpus */
	const char *machine; /* HWLOC_SYNTHETIC; NULL: this one */
	int only;            /* the one CPU that it may use, plus 1; 0: all */
	uid_t user;
	pid_t pid;
	struct wvm_place p[16];
};

static int run_daemon(struct daemon *d)
{
	char why[128];
	cpu_set_t set;
	int r;

	umask(077);
	CPU_ZERO(&set);
	CPU_SET((size_t)(d->only ? d->only - 1 : 0), &set);
	if ((d->only && sched_setaffinity(0, sizeof(set), &set)) || (d->user && setuid(d->user)) ||
	    (d->machine && setenv("HWLOC_SYNTHETIC", d->machine, 1)))
		return -errno;
	r = wvm_place_compute(d->p, d->shards, d->list, why, sizeof(why));
	if (!r)
		r = wvm_claim(d->p, d->shards, !d->list, file);
	return r < 0 ? r : 0;
}

/* A process that places and claims its shards as a daemon does, tells where they are, and stays. */
static void start(struct daemon *d)
{
	int fds[2], result[2];

	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(pipe(result), 0);
	d->pid = fork();
	if (!d->pid) {
		int r = run_daemon(d);

		if (write(result[1], &r, sizeof(r)) != sizeof(r) ||
		    write(fds[1], d->p, sizeof(d->p)) != sizeof(d->p))
			_exit(1);
		for (;;)
			pause();
	}
	close(fds[1]);
	close(result[1]);
	ck_assert_int_eq(read(result[0], &result[1], sizeof(int)), sizeof(int));
	ck_assert_int_eq(result[1], 0);
	ck_assert_int_eq(read(fds[0], d->p, sizeof(d->p)), sizeof(d->p));
	close(fds[0]);
	close(result[0]);
}

static void end(struct daemon *d)
{
	kill(d->pid, SIGKILL);
	ck_assert_int_eq(waitpid(d->pid, NULL, 0), d->pid);
}

START_TEST(each_gets_a_cpu_of_its_own_while_there_are_some)
{
	unsigned cpus = wvm_place_pus() < 16 ? wvm_place_pus() : 16;
	struct daemon d[17] = {0}, again = {.shards = 1};

	for (unsigned i = 0; i < cpus; i++) {
		d[i].shards = 1;
		start(&d[i]);
		ck_assert(!d[i].p[0].crowded);
		for (unsigned k = 0; k < i; k++)
			ck_assert_int_ne(d[i].p[0].pu, d[k].p[0].pu);
	}
	/* One more has to share, and says so. */
	if (cpus == wvm_place_pus()) {
		d[cpus].shards = 1;
		start(&d[cpus]);
		ck_assert(d[cpus].p[0].crowded);
		end(&d[cpus]);
	}
	/* Killed, it has none any more. */
	end(&d[0]);
	start(&again);
	ck_assert_int_eq(again.p[0].pu, d[0].p[0].pu);
	ck_assert(!again.p[0].crowded);
	end(&again);
	for (unsigned i = 1; i < cpus; i++)
		end(&d[i]);
}
END_TEST

/* One after the other, with as many shards as said; the PU of each, in turn. */
static const struct {
	const char *name, *machine;
	unsigned daemons, shards;
	int pu[8];
	bool crowded[8];
} orders[] = {
	{"two PUs are shared evenly", "numa:1 core:2 pu:1", 5, 1, {0, 1, 0, 1, 0}, {0, 0, 1, 1, 1}},
	{"idle cores before second threads", "numa:1 core:3 pu:2", 6, 1, {0, 2, 4, 1, 3, 5}, {0}},
	{"the same node, where it has an idle core",
	 "numa:2 core:2 pu:2",
	 4,
	 2,
	 {0, 4, 2, 6, 1, 5, 3, 7},
	 {0}},
	{"half of what it wants is taken", "numa:1 core:3 pu:1", 2, 2, {0, 1, 2, 1}, {0, 0, 0, 1}},
	{"more shards than PUs",
	 "numa:1 core:2 pu:1",
	 2,
	 3,
	 {0, 0, 1, 0, 1, 1},
	 {1, 1, 0, 1, 1, 1}},
};

START_TEST(those_that_come_later_go_where_there_is_most_room)
{
	unsigned shards = orders[_i].shards;
	struct daemon d[8] = {0};

	for (unsigned i = 0; i < orders[_i].daemons; i++) {
		d[i].shards = shards;
		d[i].machine = orders[_i].machine;
		start(&d[i]);
		for (unsigned k = 0; k < shards; k++) {
			ck_assert_msg(d[i].p[k].pu == orders[_i].pu[i * shards + k],
				      "%s: daemon %u, shard %u: PU %d", orders[_i].name, i, k,
				      d[i].p[k].pu);
			ck_assert_msg(d[i].p[k].crowded == orders[_i].crowded[i * shards + k],
				      "%s: daemon %u, shard %u", orders[_i].name, i, k);
		}
	}
	for (unsigned i = 0; i < orders[_i].daemons; i++)
		end(&d[i]);
}
END_TEST

START_TEST(a_list_is_kept_to_and_others_stay_off_it)
{
	struct daemon d[4] = {{.shards = 1, .list = "1"},
			      {.shards = 1, .list = "1"},
			      {.shards = 1},
			      {.shards = 3, .list = "0,1"}};
	static const int pu[] = {1, 1, 0};

	for (unsigned i = 0; i < 4; i++) {
		d[i].machine = "numa:1 core:2 pu:1";
		start(&d[i]);
		if (i < 3)
			ck_assert_int_eq(d[i].p[0].pu, pu[i]);
	}
	ck_assert(!d[0].p[0].crowded && d[1].p[0].crowded && !d[2].p[0].crowded);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(d[3].p[i].pu, i % 2);
		ck_assert(d[3].p[i].crowded);
	}
	for (unsigned i = 0; i < 4; i++)
		end(&d[i]);
}
END_TEST

START_TEST(who_may_use_one_cpu_only_stays_there)
{
	struct daemon d[2] = {{.shards = 1, .only = 1}, {.shards = 1, .only = 1}};

	for (unsigned i = 0; i < 2; i++) {
		start(&d[i]);
		ck_assert_int_eq(d[i].p[0].pu, 0);
		ck_assert_int_eq(d[i].p[0].crowded, i);
	}
	end(&d[0]);
	end(&d[1]);
}
END_TEST

/* Whoever is first: the umask is not to shut others out, nor fs.protected_regular root. */
START_TEST(daemons_of_different_users_see_each_other)
{
	struct daemon d[2] = {{.shards = 1, .machine = "numa:1 core:2 pu:1"},
			      {.shards = 1, .machine = "numa:1 core:2 pu:1"}};

	d[_i].user = NOBODY;
	for (unsigned i = 0; i < 2; i++) {
		start(&d[i]);
		ck_assert_int_eq(d[i].p[0].pu, (int)i);
	}
	end(&d[0]);
	end(&d[1]);
}
END_TEST

/* Several at once on one PU of each: no two of them believe to be the first. */
START_TEST(a_crowd_that_starts_at_once_is_spread)
{
	struct daemon d[8] = {0};
	unsigned on[4] = {0};
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	for (unsigned i = 0; i < 8; i++) {
		d[i].shards = 1;
		d[i].machine = "numa:1 core:4 pu:1";
		d[i].pid = fork();
		if (!d[i].pid) {
			if (run_daemon(&d[i]) ||
			    write(fds[1], d[i].p, sizeof(d[i].p[0])) != sizeof(d[i].p[0]))
				_exit(1);
			for (;;)
				pause();
		}
	}
	for (unsigned i = 0, firsts = 0; i < 8; i++) {
		struct wvm_place p;

		ck_assert_int_eq(read(fds[0], &p, sizeof(p)), sizeof(p));
		ck_assert(p.pu >= 0 && p.pu < 4);
		on[p.pu]++;
		firsts += !p.crowded;
		ck_assert(i < 7 || firsts == 4);
	}
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(on[i], 2);
	for (unsigned i = 0; i < 8; i++)
		end(&d[i]);
}
END_TEST

START_TEST(a_claim_ends_with_its_descriptor)
{
	struct wvm_place p, q;
	char why[128];
	int fd, other;

	setenv("HWLOC_SYNTHETIC", "numa:1 core:2 pu:1", 1);
	ck_assert_int_eq(wvm_place_compute(&p, 1, NULL, why, sizeof(why)), 0);
	q = p;
	fd = wvm_claim(&p, 1, true, file);
	ck_assert_int_ge(fd, 0);
	other = wvm_claim(&q, 1, true, file);
	ck_assert_int_ge(other, 0);
	ck_assert_int_ne(q.pu, p.pu);
	close(fd);
	close(other);
	q = p;
	fd = wvm_claim(&q, 1, true, file);
	ck_assert_int_eq(q.pu, p.pu);
	ck_assert(!q.crowded);
	close(fd);
}
END_TEST

START_TEST(a_file_that_cannot_be_used_leaves_all_where_they_are)
{
	struct wvm_place p[2], before[2];
	char why[128];

	ck_assert_int_eq(wvm_place_compute(p, 2, NULL, why, sizeof(why)), 0);
	memcpy(before, p, sizeof(p));
	ck_assert_int_eq(wvm_claim(p, 2, true, "/dev/shm/no/such/folder"), -ENOENT);
	ck_assert_int_eq(wvm_claim(p, 2, true, "/dev/shm"), -EISDIR);
	ck_assert_int_eq(symlink("/dev/null", file), 0);
	ck_assert_int_eq(wvm_claim(p, 2, true, file), -ELOOP);
	unlink(file);
	ck_assert_int_eq(mkfifo(file, 0600), 0);
	ck_assert_int_eq(wvm_claim(p, 2, true, file), -EINVAL);
	ck_assert_int_eq(memcmp(p, before, sizeof(p)), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("claim");
	TCase *tc = tcase_create("claim");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, each_gets_a_cpu_of_its_own_while_there_are_some);
	tcase_add_loop_test(tc, those_that_come_later_go_where_there_is_most_room, 0,
			    sizeof(orders) / sizeof(orders[0]));
	tcase_add_test(tc, a_list_is_kept_to_and_others_stay_off_it);
	tcase_add_test(tc, who_may_use_one_cpu_only_stays_there);
	tcase_add_loop_test(tc, daemons_of_different_users_see_each_other, 0, 2);
	tcase_add_test(tc, a_crowd_that_starts_at_once_is_spread);
	tcase_add_test(tc, a_claim_ends_with_its_descriptor);
	tcase_add_test(tc, a_file_that_cannot_be_used_leaves_all_where_they_are);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
