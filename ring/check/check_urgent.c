/* Shards get their turns sooner than programs do; what they start does not. */
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/urgent.h"

static int niceness(void)
{
	return getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid));
}

static void *child_of_urgent(void *arg)
{
	*(int *)arg = niceness();
	return NULL;
}

static int child_niceness(void)
{
	pthread_t thread;
	int is = 99;

	ck_assert_int_eq(pthread_create(&thread, NULL, child_of_urgent, &is), 0);
	pthread_join(thread, NULL);
	return is;
}

START_TEST(a_thread_is_urgent_and_those_it_makes_are_not)
{
	ck_assert_int_eq(niceness(), 0);
	ck_assert_int_eq(wvm_urgent(), 0);
	ck_assert_int_eq(niceness(), geteuid() ? 0 : WVM_URGENT_NICE);
	ck_assert_int_eq(child_niceness(), 0);
}
END_TEST

START_TEST(what_an_operator_chose_stays)
{
	const struct sched_param batch = {0};

	ck_assert_int_eq(setpriority(PRIO_PROCESS, 0, 5), 0);
	ck_assert_int_eq(wvm_urgent(), 0);
	ck_assert_int_eq(niceness(), 5);
	ck_assert_int_eq(sched_setscheduler(0, SCHED_BATCH, &batch), 0);
	ck_assert_int_eq(wvm_urgent(), 0);
	ck_assert_int_eq(sched_getscheduler(0), SCHED_BATCH);
}
END_TEST

START_TEST(without_the_right_to_it_a_thread_keeps_its_niceness)
{
	ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
	ck_assert_int_eq(wvm_urgent(), 0);
	ck_assert_int_eq(niceness(), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("urgent");
	TCase *t = tcase_create("urgent");
	SRunner *r;
	int failed;

	tcase_add_test(t, a_thread_is_urgent_and_those_it_makes_are_not);
	tcase_add_test(t, what_an_operator_chose_stays);
	if (!geteuid())
		tcase_add_test(t, without_the_right_to_it_a_thread_keeps_its_niceness);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
