#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "ring/check/support.h"
#include "ring/file.h"

#define BLOCK 65536U

/* In the build tree beside the program: a real filesystem, which /tmp may not be. */
static char dir[512];
static struct wvm_shard *shard;
static struct wvm_file file;
static struct wvm_fileop ops[8];
static uint8_t *block, *spare;
static int results[8];
static unsigned pending; /* the shard's thread */
static uint32_t all_done;

static const char *path(void);

/* The directory belongs to the parent of the tests, which outlives those that crash. */
static void make_dir(void)
{
	ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 20);

	if (n > 0) {
		dir[n] = 0;
		strcpy(strrchr(dir, '/'), "/file.XXXXXX");
	}
	if (n <= 0 || !mkdtemp(dir)) {
		perror("ring/file: no directory");
		exit(EXIT_FAILURE);
	}
}

static void remove_dir(void)
{
	unlink(path());
	rmdir(dir);
}

static void setup(void)
{
	unlink(path());
	shard = make_shard(&(struct wvm_shard_opts){.fixed_block = BLOCK, .fixed_count = 4});
	block = wvm_shard_fixed_get(shard);
	spare = wvm_shard_fixed_get(shard);
}

static void teardown(void)
{
	wvm_shard_stop(shard);
	ck_assert_int_eq(wvm_shard_join(shard), 0);
	wvm_shard_destroy(shard);
}

static const char *path(void)
{
	static char p[600];

	snprintf(p, sizeof(p), "%s/f", dir);
	return p;
}

static void open_file(int flags)
{
	int err = wvm_file_open(&file, shard, AT_FDCWD, path(), flags, 0600);

	ck_assert_msg(!err, "open: %s", strerror(-err));
	ck_assert_int_eq(wvm_shard_start(shard), 0);
}

static void done(struct wvm_fileop *op, int res)
{
	results[op - ops] = res;
	if (!--pending)
		__atomic_store_n(&all_done, 1, __ATOMIC_RELEASE);
}

/* A call to be made in the shard's thread. */
struct request {
	enum { READ, WRITE, SYNC, PUNCH, CLOSE } kind;
	unsigned op;
	uint8_t *buf;
	uint64_t len, offset;
	bool sync;
	bool break_sync; /* the linked sync gets a slot without a file */
	int err;
	uint32_t answered;
};

static struct io_uring_sqe *last_sqe(void)
{
	const struct io_uring_sq *sq = &shard->ring.sq;

	return &sq->sqes[(sq->sqe_tail - 1) & sq->ring_mask];
}

static int perform(const struct request *r, struct wvm_fileop *op)
{
	int err;

	switch (r->kind) {
	case READ: return wvm_file_read(&file, op, r->buf, (uint32_t)r->len, r->offset);
	case WRITE:
		err = wvm_file_write(&file, op, r->buf, (uint32_t)r->len, r->offset, r->sync);
		/* Not while it is in flight. */
		if (!err && wvm_file_close(&file) != -EBUSY)
			ck_abort_msg("the file was closed under a write");
		if (r->break_sync)
			last_sqe()->fd = (int)shard->opts.files - 1;
		return err;
	case SYNC: return wvm_file_sync(&file, op);
	case PUNCH: return wvm_file_punch(&file, op, r->offset, r->len);
	default: return wvm_file_close(&file);
	}
}

static void run_request(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct request *r = ctx;
	struct wvm_fileop *op = &ops[r->op];

	*op = (struct wvm_fileop){.done = done};
	results[r->op] = -12345;
	__atomic_store_n(&all_done, 0, __ATOMIC_RELAXED);
	r->err = perform(r, op);
	if (!r->err && r->kind != CLOSE)
		pending++;
	__atomic_store_n(&r->answered, 1, __ATOMIC_RELEASE);
}

static int call(struct request r)
{
	ck_assert_int_eq(wvm_post_outside(shard, run_request, &r, NULL, 0), 0);
	ck_assert(wait_for(&r.answered));
	return r.err;
}

static int read_op(unsigned op, uint8_t *buf, uint64_t len, uint64_t offset)
{
	return call((struct request){READ, op, buf, len, offset, false, false, 0, 0});
}

static int write_op(unsigned op, uint8_t *buf, uint64_t len, uint64_t offset, bool sync)
{
	return call((struct request){WRITE, op, buf, len, offset, sync, false, 0, 0});
}

static int punch_op(unsigned op, uint64_t offset, uint64_t len)
{
	return call((struct request){PUNCH, op, NULL, len, offset, false, false, 0, 0});
}

static int close_op(void)
{
	return call((struct request){.kind = CLOSE});
}

static void finish_ops(void)
{
	ck_assert(wait_for(&all_done));
	ck_assert_uint_eq(file.in_flight, 0);
}

static void pattern(uint8_t *p, unsigned len, unsigned seed)
{
	for (unsigned i = 0; i < len; i++)
		p[i] = (uint8_t)(seed + i * 7);
}

static void check_on_disk(unsigned offset, unsigned len, unsigned seed)
{
	static uint8_t want[BLOCK], got[BLOCK];
	int fd = open(path(), O_RDONLY);

	pattern(want, len, seed);
	ck_assert_int_eq(pread(fd, got, len, offset), len);
	ck_assert_mem_eq(want, got, len);
	close(fd);
}

START_TEST(the_alignment_is_that_of_the_filesystem)
{
	open_file(O_RDWR | O_CREAT);
	ck_assert(file.direct);
	ck_assert_uint_ge(file.io_align, 512);
	ck_assert_uint_le(file.io_align, 4096);
	ck_assert_uint_ge(file.mem_align, 1);
	ck_assert_int_ne(fcntl(file.fd, F_GETFL) & O_DIRECT, 0);
	ck_assert_int_eq(close_op(), 0);
}
END_TEST

START_TEST(what_was_written_is_on_disk_and_is_read_back)
{
	open_file(O_RDWR | O_CREAT);
	pattern(block, BLOCK, 3);
	ck_assert_int_eq(write_op(0, block, BLOCK, BLOCK, _i), 0);
	finish_ops();
	ck_assert_int_eq(results[0], BLOCK);
	check_on_disk(BLOCK, BLOCK, 3);
	ck_assert_int_eq(read_op(0, spare, BLOCK, BLOCK), 0);
	finish_ops();
	ck_assert_int_eq(results[0], BLOCK);
	ck_assert_mem_eq(block, spare, BLOCK);
	ck_assert_int_eq(call((struct request){.kind = SYNC}), 0);
	finish_ops();
	ck_assert_int_eq(results[0], 0);
	ck_assert_uint_eq(shard->stats.file_errors, 0);
	ck_assert_int_eq(close_op(), 0);
}
END_TEST

START_TEST(several_synced_writes_at_once_all_arrive)
{
	open_file(O_RDWR | O_CREAT);
	pattern(block, BLOCK, 9);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(write_op(i, block + i * 4096, 4096, i * 4096, true), 0);
	finish_ops();
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(results[i], 4096);
	check_on_disk(0, 8 * 4096, 9);
	ck_assert_int_eq(close_op(), 0);
}
END_TEST

START_TEST(a_read_across_the_end_is_short_and_behind_it_empty)
{
	open_file(O_RDWR | O_CREAT);
	ck_assert_int_eq(ftruncate(file.fd, 4096 + 100), 0);
	ck_assert_int_eq(read_op(0, block, 8192, 0), 0);
	ck_assert_int_eq(read_op(1, block + 8192, 8192, 8192), 0);
	finish_ops();
	ck_assert_int_eq(results[0], 4096 + 100);
	ck_assert_int_eq(results[1], 0);
	ck_assert_int_eq(close_op(), 0);
}
END_TEST

START_TEST(a_punched_hole_reads_as_zeros_and_frees_blocks)
{
	static const uint8_t zeros[8192];
	struct stat before, after;

	open_file(O_RDWR | O_CREAT);
	pattern(block, BLOCK, 1);
	ck_assert_int_eq(write_op(0, block, BLOCK, 0, true), 0);
	finish_ops();
	ck_assert_int_eq(fstat(file.fd, &before), 0);
	ck_assert_int_eq(punch_op(0, 8192, 8192), 0);
	finish_ops();
	ck_assert_int_eq(results[0], 0);
	ck_assert_int_eq(fstat(file.fd, &after), 0);
	ck_assert_int_eq(after.st_size, before.st_size);
	ck_assert_int_lt(after.st_blocks, before.st_blocks);
	ck_assert_int_eq(read_op(0, block, BLOCK, 0), 0);
	finish_ops();
	ck_assert_mem_eq(block + 8192, zeros, sizeof(zeros));
	ck_assert_uint_eq(block[8191], (uint8_t)(1 + 8191 * 7));
	ck_assert_uint_eq(block[16384], (uint8_t)(1 + 16384 * 7));
	ck_assert_int_eq(close_op(), 0);
}
END_TEST

static const struct {
	unsigned buf, len, offset;
} bad_requests[] = {
	{0, 0, 0},
	{0, 511, 0},
	{0, 4096, 100},
	{100, 4096, 0},
	{0, BLOCK + 4096, 0},
	{4096, BLOCK, 0},
	{4 * BLOCK, 4096, 0},
};

START_TEST(unaligned_or_unregistered_requests_are_refused_at_once)
{
	uint8_t *buf = shard->fixed + bad_requests[_i].buf;

	open_file(O_RDWR | O_CREAT);
	ck_assert_int_eq(read_op(0, buf, bad_requests[_i].len, bad_requests[_i].offset), -EINVAL);
	ck_assert_int_eq(write_op(0, buf, bad_requests[_i].len, bad_requests[_i].offset, true),
			 -EINVAL);
	ck_assert_int_eq(write_op(0, (uint8_t *)ops, 4096, 0, false), -EINVAL);
	ck_assert_int_eq(read_op(0, block, 4096, UINT64_MAX - 4095), -EINVAL);
	ck_assert_int_eq(punch_op(0, 0, 0), -EINVAL);
	ck_assert_int_eq(punch_op(0, UINT64_MAX, 1), -EINVAL);
	ck_assert_uint_eq(file.in_flight, 0);
	ck_assert_int_eq(close_op(), 0);
}
END_TEST

START_TEST(a_failed_write_is_an_error_though_a_sync_was_linked_to_it)
{
	close(open(path(), O_CREAT | O_WRONLY, 0600));
	open_file(O_RDONLY);
	ck_assert_int_eq(write_op(0, block, 4096, 0, _i), 0);
	finish_ops();
	ck_assert_int_eq(results[0], -EBADF);
	ck_assert_uint_eq(shard->stats.file_errors, 1);
	ck_assert_int_eq(close_op(), 0);
}
END_TEST

START_TEST(a_failed_sync_is_an_error_though_the_write_succeeded)
{
	open_file(O_RDWR | O_CREAT);
	pattern(block, BLOCK, 2);
	ck_assert_int_eq(call((struct request){.kind = WRITE,
					       .buf = block,
					       .len = 4096,
					       .sync = true,
					       .break_sync = true}),
			 0);
	finish_ops();
	ck_assert_int_eq(results[0], -EBADF);
	ck_assert_int_eq(ops[0].res, 4096);
	ck_assert_uint_eq(shard->stats.file_errors, 1);
	ck_assert_uint_eq(shard->stats.file_writes, 0);
	ck_assert_int_eq(close_op(), 0);
}
END_TEST

/* RLIMIT_FSIZE cuts the write in its middle. */
START_TEST(a_short_write_is_an_error_and_what_follows_is_not_touched)
{
	const struct rlimit limit = {8192, 8192};

	signal(SIGXFSZ, SIG_IGN);
	open_file(O_RDWR | O_CREAT);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	pattern(block, BLOCK, 5);
	ck_assert_int_eq(write_op(0, block, 16384, 0, _i), 0);
	finish_ops();
	ck_assert_int_eq(results[0], -EIO);
	ck_assert_int_eq(ops[0].res, 8192);
	check_on_disk(0, 8192, 5);
	ck_assert_int_eq(write_op(0, block, 4096, 8192, _i), 0);
	finish_ops();
	ck_assert_int_eq(results[0], -EFBIG);
	ck_assert_uint_eq(shard->stats.file_errors, 2);
	ck_assert_int_eq(close_op(), 0);
}
END_TEST

START_TEST(stopping_reports_what_is_in_flight_first)
{
	open_file(O_RDWR | O_CREAT);
	pattern(block, BLOCK, 8);
	ck_assert_int_eq(write_op(0, block, BLOCK, 0, true), 0);
	wvm_shard_stop(shard);
	ck_assert_int_eq(wvm_shard_join(shard), 0);
	ck_assert_uint_eq(pending, 0);
	ck_assert(results[0] == BLOCK || results[0] < 0);
	if (results[0] == BLOCK)
		check_on_disk(0, BLOCK, 8);
}
END_TEST

START_TEST(a_missing_file_is_an_error)
{
	unsigned slots = shard->free_file_count;

	ck_assert_int_eq(wvm_file_open(&file, shard, AT_FDCWD, path(), O_RDWR, 0), -ENOENT);
	ck_assert_uint_eq(shard->free_file_count, slots);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring/file");
	TCase *c = tcase_create("file");
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, the_alignment_is_that_of_the_filesystem);
	tcase_add_loop_test(c, what_was_written_is_on_disk_and_is_read_back, 0, 2);
	tcase_add_test(c, several_synced_writes_at_once_all_arrive);
	tcase_add_test(c, a_read_across_the_end_is_short_and_behind_it_empty);
	tcase_add_test(c, a_punched_hole_reads_as_zeros_and_frees_blocks);
	tcase_add_loop_test(c, unaligned_or_unregistered_requests_are_refused_at_once, 0,
			    sizeof(bad_requests) / sizeof(bad_requests[0]));
	tcase_add_loop_test(c, a_failed_write_is_an_error_though_a_sync_was_linked_to_it, 0, 2);
	tcase_add_test(c, a_failed_sync_is_an_error_though_the_write_succeeded);
	tcase_add_loop_test(c, a_short_write_is_an_error_and_what_follows_is_not_touched, 0, 2);
	tcase_add_test(c, stopping_reports_what_is_in_flight_first);
	tcase_add_test(c, a_missing_file_is_an_error);
	suite_add_tcase(s, c);
	make_dir();
	failed = run_suite(s);
	remove_dir();
	return failed;
}
