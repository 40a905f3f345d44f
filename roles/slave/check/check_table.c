/* Which VMs a slave without room forgets, and which it never does. */
#include <check.h>
#include <stdlib.h>

#include "roles/slave/slave.h"

#define SECOND UINT64_C(1000000000)
#define LIFE   UINT64_C(1)

static struct wvm_slave *slave;

static void setup(void)
{
	char why[128];

	slave = calloc(1, sizeof(*slave));
	ck_assert_ptr_nonnull(slave);
	ck_assert_msg(
		!wvm_shard_create(&slave->shard, &(struct wvm_shard_opts){0}, why, sizeof(why)),
		"%s", why);
}

static void teardown(void)
{
	wvm_shard_destroy(slave->shard);
	free(slave);
}

/* VMs 1 to WVM_SLAVE_VMS, heard a microsecond after each other; each has a processor. */
static void fill(void)
{
	for (unsigned i = 0; i < WVM_SLAVE_VMS; i++) {
		uint64_t now_ns = i * 1000;
		struct wvm_slave_vm *vm = wvm_slave_vm_add(slave, (uint16_t)(i + 1), LIFE, now_ns);

		ck_assert_ptr_nonnull(vm);
		ck_assert_ptr_nonnull(wvm_slave_cpu_add(slave, vm, 0, now_ns));
	}
}

static struct wvm_slave_cpu *cpu_of(uint16_t id)
{
	return wvm_slave_cpu_find(slave, wvm_slave_vm_find(slave, id), 0);
}

static bool takes(uint16_t id, uint64_t now_ns)
{
	return wvm_slave_vm_add(slave, id, LIFE, now_ns) != NULL;
}

START_TEST(the_one_that_was_silent_longest_gives_way_after_a_minute)
{
	fill();
	ck_assert(!takes(100, WVM_SLAVE_FORGET_NS - SECOND));
	/* A copy of the refused run may be under way: so long nothing is taken. */
	ck_assert(!takes(100, 2 * WVM_SLAVE_FORGET_NS - 2 * SECOND));
	ck_assert(takes(100, 3 * WVM_SLAVE_FORGET_NS));
	ck_assert_ptr_null(wvm_slave_vm_find(slave, 1));
	ck_assert_ptr_nonnull(wvm_slave_vm_find(slave, 2));
}
END_TEST

START_TEST(what_its_owner_has_not_is_kept_for_a_day)
{
	const uint64_t day = WVM_SLAVE_KEPT_NS;

	fill();
	for (unsigned i = 1; i <= WVM_SLAVE_VMS; i++)
		cpu_of((uint16_t)i)->job.keeps = true;
	ck_assert(!takes(100, day / 2));
	/* The owner of 1 was heard meanwhile. */
	wvm_slave_vm_find(slave, 1)->heard_ns = day / 2;
	ck_assert(takes(100, day + SECOND));
	ck_assert_ptr_nonnull(wvm_slave_vm_find(slave, 1));
	ck_assert_ptr_null(wvm_slave_vm_find(slave, 2));
}
END_TEST

START_TEST(one_that_leaves_nothing_behind_goes_first)
{
	fill();
	for (unsigned i = 1; i < WVM_SLAVE_VMS; i++)
		cpu_of((uint16_t)i)->job.keeps = true;
	ck_assert(takes(100, WVM_SLAVE_KEPT_NS / 2));
	ck_assert_ptr_null(wvm_slave_vm_find(slave, WVM_SLAVE_VMS));
}
END_TEST

START_TEST(one_that_executes_is_never_forgotten)
{
	fill();
	for (unsigned i = 1; i <= WVM_SLAVE_VMS; i++)
		cpu_of((uint16_t)i)->executing = true;
	ck_assert(!takes(100, 10 * WVM_SLAVE_KEPT_NS));
	for (unsigned i = 1; i <= WVM_SLAVE_VMS; i++)
		ck_assert_ptr_nonnull(wvm_slave_vm_find(slave, (uint16_t)i));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("table");
	TCase *t = tcase_create("table");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_one_that_was_silent_longest_gives_way_after_a_minute);
	tcase_add_test(t, what_its_owner_has_not_is_kept_for_a_day);
	tcase_add_test(t, one_that_leaves_nothing_behind_goes_first);
	tcase_add_test(t, one_that_executes_is_never_forgotten);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
