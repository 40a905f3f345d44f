/* What programs on a node may rely on beside coherence: attaching, mapping, kernel I/O, fork. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/program.h"

static struct cluster cluster;

static void start(void)
{
	cluster_start(&cluster, NULL);
}

static void stop(void)
{
	cluster_stop(&cluster);
}

static const unsigned one_each[] = {0, 1, 2};

/* ---- data that moves ------------------------------------------------------------------- */

#define MOVE_GPA   (64 * MIB)
#define MOVE_BYTES (64 * MIB)
#define MOVE_PAGES (MOVE_BYTES / PAGE)

static void move_fill(struct program *p, uint64_t *base, uint64_t generation)
{
	for (uint64_t i = 0; i < MOVE_PAGES; i++)
		pattern_fill(base + i * PAGE_WORDS, i, generation);
}

static void move_verify(struct program *p, const uint64_t *base, uint64_t generation)
{
	for (uint64_t i = 0; i < MOVE_PAGES; i++) {
		int at = pattern_differs(base + i * PAGE_WORDS, i, generation);

		NEED(p, at < 0, "page %lu word %d holds %lx in generation %lu", i, at,
		     base[i * PAGE_WORDS + (unsigned)at], generation);
	}
}

/* Each node in turn writes all of it; then the others read it. */
static void move(struct program *p)
{
	uint64_t *base = program_map(p, MOVE_GPA, MOVE_BYTES);

	for (unsigned writer = 0; writer < 2; writer++) {
		if (p->index == writer)
			move_fill(p, base, writer + 1);
		program_meet(p);
		if (p->index != writer)
			move_verify(p, base, writer + 1);
		program_meet(p);
	}
}

START_TEST(sixty_four_mib_keep_their_bytes_while_they_move_between_nodes)
{
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, one_each, 3, move, NULL);
	/* All three are homes of a part of it. */
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_ge(cluster_status(&cluster, i, "pages_homed"), MOVE_PAGES / 8);
	arena_free(a);
}
END_TEST

#define ZERO_GPA   (160 * MIB)
#define ZERO_PAGES 512u

static void expect_zero(struct program *p, const uint64_t *base, unsigned from)
{
	for (unsigned i = from; i < ZERO_PAGES; i += 2)
		for (unsigned k = 0; k < PAGE_WORDS; k++)
			NEED(p, !base[i * PAGE_WORDS + k], "page %u word %u", i, k);
}

/* Odd pages are written by node 1, and written back to zeros by node 2; even ones never. */
static void zero_pages(struct program *p)
{
	uint64_t *base = program_map(p, ZERO_GPA, ZERO_PAGES * PAGE);

	expect_zero(p, base, 0);
	expect_zero(p, base, 1);
	program_meet(p);
	for (unsigned i = 1; p->index == 1 && i < ZERO_PAGES; i += 2)
		pattern_fill(base + i * PAGE_WORDS, i, 1);
	program_meet(p);
	expect_zero(p, base, 0);
	for (unsigned i = 1; i < ZERO_PAGES; i += 2)
		NEED(p, pattern_differs(base + i * PAGE_WORDS, i, 1) < 0, "page %u", i);
	program_meet(p);
	for (unsigned i = 1; p->index == 2 && i < ZERO_PAGES; i += 2)
		memset(base + i * PAGE_WORDS, 0, PAGE);
	program_meet(p);
	expect_zero(p, base, 0);
	expect_zero(p, base, 1);
}

START_TEST(untouched_pages_read_as_zeros_on_every_node_and_stay_so)
{
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, one_each, 3, zero_pages, NULL);
	arena_free(a);
}
END_TEST

/* ---- two programs on one node ---------------------------------------------------------- */

#define TWO_GPA    (192 * MIB)
#define TWO_PAGES  64u
#define TWO_ROUNDS 40u

/* Whose turn it is: programs follow each other by a word of the arena. */
static void take_turn(struct program *p, uint64_t turn)
{
	program_await_word(p, 3, turn);
}

static void end_turn(struct program *p, uint64_t turn)
{
	atomic_store(&p->arena->word[3], turn + 1);
}

/*
 * 0 and 1 are on one node, 2 on another. In every round 0 stores, 2 reads, 1
 * stores (what 0 left Modified is Shared by now), 2 reads; in odd rounds 1
 * and 0 change places, and in every third 2 stores as well.
 */
static void three_programs(struct program *p)
{
	uint64_t *base = program_map(p, TWO_GPA, TWO_PAGES * PAGE);
	uint64_t turn = 0, value = 0;

	for (unsigned r = 0; r < TWO_ROUNDS * 4; r++) {
		uint64_t *word = base + r % TWO_PAGES * PAGE_WORDS + r / TWO_PAGES;
		unsigned order[] = {r & 1, 2, !(r & 1), 2, r & 1};

		for (unsigned step = 0; step < 5; step++, turn++) {
			bool stores = step == 0 || step == 2 || (step == 3 && r % 3 == 0);

			value = step ? value : 0;
			if (order[step] == p->index) {
				take_turn(p, turn);
				NEED(p, load(word) == value || (!step && !load(word)),
				     "round %u step %u: %lu, not %lu", r, step, load(word), value);
				if (stores)
					store(word, value + 1);
				end_turn(p, turn);
			}
			value += stores;
		}
	}
}

START_TEST(a_second_program_on_a_node_does_not_bypass_the_protocol)
{
	static const unsigned nodes[] = {0, 0, 2};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 3, three_programs, NULL);
	arena_free(a);
}
END_TEST

#define BLIND_GPA (200 * MIB)

/*
 * The second program stores without having read, while another node reads all
 * the time. Before, the first program on its node has stored (even pages), or
 * has read what the other node stored (odd pages): the page is in the node's
 * RAM file, and not in the second program's page tables.
 */
static void blind_store(struct program *p)
{
	uint64_t *base = program_map(p, BLIND_GPA, TWO_PAGES * PAGE);

	for (unsigned k = 0; k < TWO_PAGES; k++) {
		uint64_t *word = base + k * PAGE_WORDS;

		if (p->index == (k % 2 ? 2 : 0))
			store(word, 1);
		program_meet(p);
		if (p->index == 0)
			NEED(p, load(word) == 1, "page %u: %lu", k, load(word));
		program_meet(p);
		if (p->index == 2) {
			/* Of odd pages it has a copy; of even ones the first node is the owner. */
			NEED(p, !(k % 2) || load(word) == 1, "page %u: %lu", k, load(word));
			atomic_store(&p->arena->word[4], k + 1);
			while (load(word) < 2)
				;
		} else if (p->index == 1) {
			program_await_word(p, 4, k + 1);
			store(word, 2);
		}
		program_meet(p);
		NEED(p, load(word) == 2, "page %u: %lu at the end", k, load(word));
	}
}

START_TEST(a_store_by_a_program_that_never_read_the_page_reaches_other_nodes)
{
	static const unsigned nodes[] = {0, 0, 2};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 3, blind_store, NULL);
	arena_free(a);
}
END_TEST

#define LATE_GPA   (208 * MIB)
#define LATE_PAGES 256u

/*
 * 0 fills; 1 (another node) reads the even pages, so 0 has both Modified and
 * Shared ones. Then 2 and 3 map: they see all, and their stores are seen.
 */
static void late(struct program *p)
{
	bool comes_late = p->index >= 2;
	uint64_t *base = comes_late ? NULL : program_map(p, LATE_GPA, LATE_PAGES * PAGE);

	for (unsigned i = 0; !p->index && i < LATE_PAGES; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 1);
	program_meet(p);
	for (unsigned i = 0; p->index == 1 && i < LATE_PAGES; i += 2)
		NEED(p, pattern_differs(base + i * PAGE_WORDS, i, 1) < 0, "page %u", i);
	program_meet(p);
	if (comes_late)
		base = program_map(p, LATE_GPA, LATE_PAGES * PAGE);
	for (unsigned i = p->index; comes_late && i < LATE_PAGES; i += 4) {
		store(base + i * PAGE_WORDS, 7000 + i);
		NEED(p, base[i * PAGE_WORDS + 1] == pattern(i, 1, 1), "page %u", i);
	}
	program_meet(p);
	for (unsigned i = 0; i < LATE_PAGES; i++)
		NEED(p, load(base + i * PAGE_WORDS) == (i % 4 >= 2 ? 7000 + i : pattern(i, 0, 1)),
		     "page %u holds %lu", i, load(base + i * PAGE_WORDS));
}

START_TEST(a_program_that_maps_late_sees_everything_and_its_stores_are_seen)
{
	static const unsigned nodes[] = {0, 1, 0, 1};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 4, late, NULL);
	arena_free(a);
}
END_TEST

/* ---- coming and going ------------------------------------------------------------------ */

#define COME_GPA    (216 * MIB)
#define COME_PAGES  32u
#define COME_ROUNDS 12u

static void come_and_go(struct program *p)
{
	unsigned added = 0;

	program_meet(p);
	for (unsigned r = 0; r < COME_ROUNDS; r++) {
		uint64_t *base = program_map(p, COME_GPA, COME_PAGES * PAGE);

		for (unsigned i = 0; i < 200; i++, added++)
			__atomic_fetch_add(base + program_random(p) % COME_PAGES * PAGE_WORDS, 1,
					   __ATOMIC_SEQ_CST);
		if (p->index % 2)
			continue; /* stays on, under load */
		wvm_detach(p->wvm);
		NEED(p, !wvm_attach(&p->wvm, p->cluster->node[p->node].ring), "%s",
		     wvm_attach_error());
	}
	atomic_fetch_add(&p->arena->word[5], added);
}

static void stay(struct program *p)
{
	uint64_t *base = program_map(p, COME_GPA, COME_PAGES * PAGE);

	program_meet(p);
	for (unsigned i = 0; i < 200 * COME_ROUNDS; i++)
		__atomic_fetch_add(base + program_random(p) % COME_PAGES * PAGE_WORDS, 1,
				   __ATOMIC_SEQ_CST);
	atomic_fetch_add(&p->arena->word[5], 200 * COME_ROUNDS);
}

/* Odd programs stay, even ones attach and detach. */
static void under_load(struct program *p)
{
	uint64_t *base, sum = 0;

	(p->index % 2 ? stay : come_and_go)(p);
	program_meet(p);
	wvm_detach(p->wvm);
	NEED(p, !wvm_attach(&p->wvm, p->cluster->node[p->node].ring), "%s", wvm_attach_error());
	base = program_map(p, COME_GPA, COME_PAGES * PAGE);
	for (unsigned i = 0; i < COME_PAGES; i++)
		sum += load(base + i * PAGE_WORDS);
	NEED(p, sum == p->arena->word[5], "%lu instead of %llu", sum, p->arena->word[5]);
}

START_TEST(programs_that_attach_and_detach_under_load_lose_no_store)
{
	static const unsigned nodes[] = {0, 0, 1, 1, 2, 2};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 6, under_load, NULL);
	arena_free(a);
}
END_TEST

#define AGAIN_GPA (224 * MIB)

static void expect_no_map(struct program *p, uint16_t vm, uint64_t gpa, size_t len, unsigned mode,
			  int error)
{
	void *at = wvm_map(p->wvm, vm, gpa, len, mode);

	NEED(p, !at && errno == error, "VM %u gpa %lx len %zu: %p, errno %d", vm, gpa, len, at,
	     errno);
}

static void unmap_and_map(struct program *p)
{
	uint64_t *a, *b;

	for (unsigned r = 0; r < 20; r++) {
		a = program_map(p, AGAIN_GPA, 4 * MIB);
		for (unsigned i = 0; i < 16; i++) {
			uint64_t *word = a + i * PAGE_WORDS + p->index;

			NEED(p, load(word) == r, "round %u page %u: %lu", r, i, load(word));
			store(word, r + 1);
		}
		NEED(p, wvm_unmap(p->wvm, a, 2 * MIB) == -EINVAL, "half of it");
		NEED(p, !wvm_unmap(p->wvm, a, 4 * MIB), "round %u", r);
		NEED(p, wvm_unmap(p->wvm, a, 4 * MIB) == -EINVAL, "twice");
	}
	a = program_map(p, AGAIN_GPA, PAGE);
	b = program_map(p, AGAIN_GPA + PAGE, PAGE);
	NEED(p, load(a + p->index) == 20 && load(b + p->index) == 20, "two small ranges");
	expect_no_map(p, CLUSTER_VM, AGAIN_GPA, 2 * PAGE, WVM_STRICT, EEXIST);
	expect_no_map(p, CLUSTER_VM, AGAIN_GPA + 1, PAGE, WVM_STRICT, EINVAL);
	expect_no_map(p, CLUSTER_VM, AGAIN_GPA, PAGE - 1, WVM_STRICT, EINVAL);
	expect_no_map(p, CLUSTER_VM, AGAIN_GPA, 0, WVM_STRICT, EINVAL);
	expect_no_map(p, CLUSTER_VM, 3 * GIB, PAGE, WVM_STRICT, ERANGE);
	expect_no_map(p, CLUSTER_VM, 3 * GIB - PAGE, 2 * PAGE, WVM_STRICT, ERANGE);
	expect_no_map(p, 77, 0, PAGE, WVM_STRICT, ENXIO);
	expect_no_map(p, CLUSTER_VM, 0, PAGE, 0x8000, EINVAL);
}

START_TEST(a_range_can_be_unmapped_and_mapped_again_and_bad_ranges_are_refused)
{
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, one_each, 3, unmap_and_map, NULL);
	arena_free(a);
}
END_TEST

START_TEST(attaching_to_what_is_no_ring_says_why)
{
	char path[256];
	struct wvm *w;
	int fd;

	snprintf(path, sizeof(path), "%s/nothing", cluster_dir());
	ck_assert_int_eq(wvm_attach(&w, path), -ENOENT);
	ck_assert_ptr_nonnull(strstr(wvm_attach_error(), path));
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(ftruncate(fd, 65536), 0);
	close(fd);
	ck_assert_int_eq(wvm_attach(&w, path), -EPROTO);
	unsetenv("WVM_RING_PATH");
	unsetenv("WVM_ENV_SOCK_PATH");
	ck_assert_int_eq(wvm_attach(&w, NULL), -EINVAL);
	setenv("WVM_ENV_SOCK_PATH", cluster.node[1].ring, 1);
	ck_assert_int_eq(wvm_attach(&w, NULL), 0);
	ck_assert_int_eq(wvm_node_id(w), 1);
	wvm_detach(w);
	setenv("WVM_RING_PATH", cluster.node[2].ring, 1);
	ck_assert_int_eq(wvm_attach(&w, NULL), 0);
	ck_assert_int_eq(wvm_node_id(w), 2);
	ck_assert_int_eq(wvm_vm_size(w, CLUSTER_VM), 3 * GIB);
	ck_assert_int_eq(wvm_vm_size(w, 9), -ENXIO);
	wvm_detach(w);
}
END_TEST

/* ---- the kernel as a reader and writer ------------------------------------------------- */

#define IO_GPA   (232 * MIB)
#define IO_BYTES MIB
#define IO_PAGES (IO_BYTES / PAGE)

static void io_file_name(struct program *p, char *path, size_t size)
{
	snprintf(path, size, "%s/io.bin", p->cluster->dir);
}

/* From memory that this program never touched into a file, whole. */
static void io_write_file(struct program *p, const void *from)
{
	char path[256];
	int fd;

	io_file_name(p, path, sizeof(path));
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	NEED(p, fd >= 0, "%s", path);
	NEED(p, write(fd, from, IO_BYTES) == (ssize_t)IO_BYTES, "write: %s", strerror(errno));
	close(fd);
}

static void io_read_file(struct program *p, void *to)
{
	char path[256];
	int fd;

	io_file_name(p, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	NEED(p, fd >= 0, "%s", path);
	NEED(p, read(fd, to, IO_BYTES) == (ssize_t)IO_BYTES, "read: %s", strerror(errno));
	close(fd);
}

/* Through a pipe, from cluster memory to cluster memory, in pieces that fit no page. */
static void io_pipe(struct program *p, const uint8_t *from, uint8_t *to)
{
	int fds[2];

	NEED(p, !pipe2(fds, O_CLOEXEC), "pipe");
	for (size_t at = 0; at < IO_BYTES;) {
		size_t n = IO_BYTES - at < 40000 ? IO_BYTES - at : 40000;

		NEED(p, write(fds[1], from + at, n) == (ssize_t)n, "write: %s", strerror(errno));
		NEED(p, read(fds[0], to + at, n) == (ssize_t)n, "read: %s", strerror(errno));
		at += n;
	}
	close(fds[0]);
	close(fds[1]);
}

static void kernel_io(struct program *p)
{
	uint64_t *base = program_map(p, IO_GPA, 3 * IO_BYTES);
	uint64_t *second = base + IO_BYTES / 8, *third = second + IO_BYTES / 8;

	for (unsigned i = 0; !p->index && i < IO_PAGES; i++)
		pattern_fill(base + i * PAGE_WORDS, i, 5);
	program_meet(p);
	if (p->index == 1)
		io_write_file(p, base);
	program_meet(p);
	if (p->index == 2)
		io_read_file(p, second);
	program_meet(p);
	if (p->index == 1)
		io_pipe(p, (uint8_t *)second, (uint8_t *)third);
	program_meet(p);
	for (unsigned i = 0; i < IO_PAGES; i++) {
		NEED(p, pattern_differs(second + i * PAGE_WORDS, i, 5) < 0, "file, page %u", i);
		NEED(p, pattern_differs(third + i * PAGE_WORDS, i, 5) < 0, "pipe, page %u", i);
	}
}

START_TEST(read_write_and_pipes_work_on_mapped_memory)
{
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, one_each, 3, kernel_io, NULL);
	arena_free(a);
}
END_TEST

/* ---- fork ------------------------------------------------------------------------------ */

#define FORK_GPA (240 * MIB)

static int status_of_child(void (*fn)(struct program *p, uint64_t *at), struct program *p,
			   uint64_t *at)
{
	pid_t pid = fork();
	int status;

	NEED(p, pid >= 0, "fork");
	if (!pid) {
		fn(p, at);
		_exit(0);
	}
	NEED(p, waitpid(pid, &status, 0) == pid, "waitpid");
	return status;
}

static void touch(struct program *p, uint64_t *at)
{
	signal(SIGSEGV, SIG_DFL); /* a sanitizer reports it otherwise */
	store(at, 99);
}

/* The parent's attachment is not the child's; an own one is. */
static void attach_anew(struct program *p, uint64_t *at)
{
	struct wvm *mine;
	uint64_t *map;

	NEED(p, wvm_map(p->wvm, CLUSTER_VM, FORK_GPA + MIB, PAGE, WVM_STRICT) == NULL, "map");
	wvm_detach(p->wvm);
	NEED(p, !wvm_attach(&mine, p->cluster->node[p->node].ring), "%s", wvm_attach_error());
	map = wvm_map(mine, CLUSTER_VM, FORK_GPA, PAGE, WVM_STRICT);
	NEED(p, map, "%s", wvm_attach_error());
	NEED(p, load(map) == 1, "%lu", load(map));
	store(map, 2);
	wvm_detach(mine);
}

static void forks(struct program *p)
{
	uint64_t *at = program_map(p, FORK_GPA, PAGE);
	int status;

	store(at, 1);
	status = status_of_child(touch, p, at);
	NEED(p, WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x", status);
	NEED(p, load(at) == 1, "%lu", load(at));
	NEED(p, !status_of_child(attach_anew, p, at), "the child that attaches by itself");
	NEED(p, load(at) == 2, "%lu", load(at));
	store(at, 3);
	NEED(p, load(at) == 3, "%lu", load(at));
}

START_TEST(a_forked_child_does_not_inherit_the_mapping_and_may_attach_by_itself)
{
	static const unsigned nodes[] = {1};
	struct arena *a = arena_new(0);

	programs_run(&cluster, a, nodes, 1, forks, NULL);
	arena_free(a);
}
END_TEST

static Suite *programs_suite(void)
{
	Suite *s = suite_create("programs");
	TCase *t = cluster_tcase(s, "programs", 60);

	tcase_add_unchecked_fixture(t, start, stop);
	tcase_add_test(t, sixty_four_mib_keep_their_bytes_while_they_move_between_nodes);
	tcase_add_test(t, untouched_pages_read_as_zeros_on_every_node_and_stay_so);
	tcase_add_test(t, a_second_program_on_a_node_does_not_bypass_the_protocol);
	tcase_add_test(t, a_store_by_a_program_that_never_read_the_page_reaches_other_nodes);
	tcase_add_test(t, a_program_that_maps_late_sees_everything_and_its_stores_are_seen);
	tcase_add_test(t, programs_that_attach_and_detach_under_load_lose_no_store);
	tcase_add_test(t, a_range_can_be_unmapped_and_mapped_again_and_bad_ranges_are_refused);
	tcase_add_test(t, attaching_to_what_is_no_ring_says_why);
	tcase_add_test(t, read_write_and_pipes_work_on_mapped_memory);
	tcase_add_test(t, a_forked_child_does_not_inherit_the_mapping_and_may_attach_by_itself);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {programs_suite};

	return cluster_main(argv, suites, 1);
}
