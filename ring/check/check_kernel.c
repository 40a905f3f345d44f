#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "ring/check/support.h"
#include "ring/kernel.h"
#include "ring/stats.h"

static char why[512];

START_TEST(this_kernel_has_everything_or_the_text_names_what_is_missing)
{
	struct wvm_kernel k;
	char text[1024];

	ck_assert_int_eq(wvm_kernel_probe(&k, why, sizeof(why)), 0);
	ck_assert_uint_eq(wvm_kernel_describe(&k, text, sizeof(text)), strlen(text));
	ck_assert_int_eq(text[strlen(text) - 1], '\n');
	if (k.setup_flags & IORING_SETUP_DEFER_TASKRUN && k.read_multishot && k.msg_ring &&
	    k.uffd_features & WVM_UFFD_FEATURE_POISON)
		ck_assert_str_eq(text, "io_uring and userfaultfd: all in use\n");
	else
		ck_assert_ptr_null(strstr(text, "all in use"));
}
END_TEST

static const struct {
	struct wvm_kernel kernel;
	const char *text;
} missing[] = {
	{{.setup_flags = IORING_SETUP_COOP_TASKRUN}, "using COOP_TASKRUN"},
	{{.setup_flags = 0}, "using interrupts"},
	{{.read_multishot = false}, "using POLL and read"},
	{{.msg_ring = false}, "using eventfd"},
	{{.uffd = false}, "vm.unprivileged_userfaultfd"},
	{{.uffd = true}, "using a PROT_NONE page"},
};

START_TEST(every_fallback_is_named)
{
	char text[1024], small[20];

	wvm_kernel_describe(&missing[_i].kernel, text, sizeof(text));
	ck_assert_msg(strstr(text, missing[_i].text), "%s is not in: %s", missing[_i].text, text);
	ck_assert_uint_eq(wvm_kernel_describe(&missing[_i].kernel, small, sizeof(small)), 19);
	ck_assert_uint_eq(strlen(small), 19);
}
END_TEST

/* Lets io_uring_setup return err in this process. */
static void forbid_io_uring(int err)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = 4, .filter = code};

	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}

static const struct {
	int err;
	const char *text;
} refusals[] = {
	{ENOSYS, "has no io_uring"},
	{EPERM, "io_uring is forbidden here"},
	{EMFILE, "too many open files"},
	{EINVAL, "Invalid argument"},
};

START_TEST(a_kernel_that_refuses_io_uring_is_a_clear_error)
{
	struct wvm_shard_opts opts = {0};
	struct wvm_shard *s;

	forbid_io_uring(refusals[_i].err);
	ck_assert_int_eq(wvm_shard_create(&s, &opts, why, sizeof(why)), -refusals[_i].err);
	ck_assert_ptr_null(s);
	ck_assert_msg(strstr(why, refusals[_i].text), "%s", why);
	ck_assert_ptr_null(strchr(why, '\n'));
}
END_TEST

START_TEST(too_little_locked_memory_is_a_clear_error)
{
	const struct rlimit limit = {65536, 65536};
	struct wvm_shard_opts opts = {.fixed_block = 65536, .fixed_count = 64};
	struct wvm_shard *s;

	/* Root is not limited: become nobody. */
	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	if (geteuid() == 0)
		ck_assert_int_eq(setuid(65534), 0);
	ck_assert_int_eq(wvm_shard_create(&s, &opts, why, sizeof(why)), -ENOMEM);
	ck_assert_ptr_null(s);
	ck_assert_msg(strstr(why, "RLIMIT_MEMLOCK is 64 KiB"), "%s", why);
}
END_TEST

START_TEST(the_counters_have_names_and_add_up)
{
	struct wvm_ring_stats s = {0}, sum = {0};
	char *text = NULL;
	size_t len, n = wvm_ring_stats_count();
	FILE *out;

	for (size_t i = 0; i < n; i++) {
		ck_assert_ptr_nonnull(wvm_ring_stats_text(i));
		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(wvm_ring_stats_name(i), wvm_ring_stats_name(j));
	}
	ck_assert_ptr_null(wvm_ring_stats_name(n));
	ck_assert_ptr_null(wvm_ring_stats_text(n));
	ck_assert_str_eq(wvm_ring_stats_name(0), "turns");
	WVM_COUNT_IN(&s, turns, 3);
	WVM_COUNT_IN(&s, file_errors, 1);
	wvm_ring_stats_add(&sum, &s);
	wvm_ring_stats_add(&sum, &s);
	ck_assert_uint_eq(wvm_ring_stats_get(&sum, 0), 6);
	ck_assert_uint_eq(wvm_ring_stats_get(&sum, n - 1), 2);
	out = open_memstream(&text, &len);
	wvm_ring_stats_print(&sum, out);
	fclose(out);
	ck_assert_str_eq(text, "turns 6\nfile_errors 2\n");
	free(text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/kernel");
	TCase *c = tcase_create("kernel");

	tcase_add_test(c, this_kernel_has_everything_or_the_text_names_what_is_missing);
	tcase_add_loop_test(c, every_fallback_is_named, 0, sizeof(missing) / sizeof(missing[0]));
	tcase_add_loop_test(c, a_kernel_that_refuses_io_uring_is_a_clear_error, 0,
			    sizeof(refusals) / sizeof(refusals[0]));
	tcase_add_test(c, too_little_locked_memory_is_a_clear_error);
	tcase_add_test(c, the_counters_have_names_and_add_up);
	suite_add_tcase(s, c);
	return run_suite(s);
}
