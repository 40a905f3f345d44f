#include "touch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct toucher {
	pthread_t thread;
	pthread_barrier_t *start;
	const struct floor_options *o;
	struct region *region;
	enum floor_op op;
	uint64_t first, n; /* its pages */
	uint32_t *order;
	struct wvm_samples samples;
	uint64_t began_ns, ended_ns;
};

static int userfaultfd(bool blocking)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_MISSING_SHMEM |
					     UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					     UFFD_FEATURE_WP_HUGETLBFS_SHMEM};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | (blocking ? 0 : O_NONBLOCK));

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		floor_die("userfaultfd (needs root, or vm.unprivileged_userfaultfd=1)");
	return fd;
}

static void await(struct floor_shared *shared, int stage)
{
	while (shared->stage != stage)
		usleep(200);
}

void region_open(struct region *r, const struct floor_options *o, struct floor_shared *shared)
{
	size_t bytes = (o->pages + 1) * FLOOR_PAGE;
	struct uffdio_register reg = {
		.range.len = bytes, .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
	int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		floor_die("/dev/shm");
	r->pages = o->pages;
	r->mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (r->mem == MAP_FAILED)
		floor_die("mmap");
	close(fd);
	madvise(r->mem, bytes, MADV_NOHUGEPAGE);
	madvise(r->mem, bytes, MADV_DONTFORK);
	r->uffd = userfaultfd(o->blocking);
	reg.range.start = (uintptr_t)r->mem;
	if (ioctl(r->uffd, UFFDIO_REGISTER, &reg) < 0)
		floor_die("UFFDIO_REGISTER");
	shared->uffd = r->uffd;
	shared->base = (uintptr_t)r->mem;
	shared->pages = r->pages;
	shared->stage = STAGE_REGION;
	await(shared, STAGE_SERVING);
}

void region_close(struct region *r, struct floor_shared *shared)
{
	*(volatile uint64_t *)&r->mem[r->pages * 512] = 1;
	await(shared, STAGE_ENDED);
	close(r->uffd);
	munmap(r->mem, (r->pages + 1) * FLOOR_PAGE);
}

static unsigned word_of(uint64_t page)
{
	return (unsigned)(page * 37 % 512);
}

static bool writes(enum floor_op op)
{
	return op == FLOOR_WRITE || op == FLOOR_UPGRADE;
}

static uint64_t expected(enum floor_op op, uint64_t page, unsigned word)
{
	if (op == FLOOR_LOCAL || op == FLOOR_ZERO)
		return 0;
	return floor_pattern(page, word) ^ (writes(op) && word == word_of(page) ? UINT64_MAX : 0);
}

static void mismatch(void)
{
	errno = EBADMSG;
	floor_die("a page does not hold what it should");
}

static void touch(struct toucher *t, uint64_t page)
{
	unsigned word = word_of(page);
	volatile uint64_t *at = &t->region->mem[page * 512 + word];
	uint64_t value = expected(t->op, page, word), began = floor_now(), seen = value, ended;

	if (writes(t->op))
		*at = value;
	else
		seen = *at;
	ended = floor_now();
	if (seen != value)
		mismatch();
	wvm_samples_add(&t->samples, ended - began);
}

static void *touch_pages(void *opaque)
{
	struct toucher *t = opaque;

	floor_pin(t->o->core_a);
	pthread_barrier_wait(t->start);
	t->began_ns = floor_now();
	for (uint64_t i = 0; i < t->n; i++)
		touch(t, t->first + t->order[i]);
	t->ended_ns = floor_now();
	return NULL;
}

/* Fisher-Yates with a fixed generator: the same order in each run. */
static uint32_t *shuffled(uint64_t n, uint64_t seed)
{
	uint32_t *order = malloc(n * sizeof(*order) + 1);

	if (!order)
		floor_die("memory");
	for (uint64_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	for (uint64_t i = n; i > 1; i--) {
		uint64_t j = (seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 33;
		uint32_t swap = order[i - 1];

		order[i - 1] = order[j % i];
		order[j % i] = swap;
	}
	return order;
}

static void verify(const struct region *r, enum floor_op op)
{
	for (uint64_t page = 0; page < r->pages; page++)
		for (unsigned word = 0; word < 512; word++)
			if (r->mem[page * 512 + word] != expected(op, page, word))
				mismatch();
}

static void collect(struct toucher *t, unsigned n, uint64_t pages, struct wvm_summary *out)
{
	uint64_t began = UINT64_MAX, ended = 0;
	struct wvm_samples all;

	if (wvm_samples_init(&all, pages) < 0)
		floor_die("memory");
	for (unsigned i = 0; i < n; i++) {
		began = t[i].began_ns < began ? t[i].began_ns : began;
		ended = t[i].ended_ns > ended ? t[i].ended_ns : ended;
		wvm_samples_append(&all, &t[i].samples);
	}
	wvm_summarize(&all, ended - began, out);
	wvm_samples_fini(&all);
}

void touch_all(struct region *r, const struct floor_options *o, struct floor_shared *shared,
	       enum floor_op op, struct wvm_summary *out)
{
	struct toucher *t = calloc(o->threads, sizeof(*t));
	pthread_barrier_t start;
	uint64_t share = r->pages / o->threads;

	if (!t || pthread_barrier_init(&start, NULL, o->threads) != 0)
		floor_die("memory");
	shared->op = op;
	for (unsigned i = 0; i < o->threads; i++) {
		t[i].start = &start;
		t[i].o = o;
		t[i].region = r;
		t[i].op = op;
		t[i].first = i * share;
		t[i].n = i == o->threads - 1 ? r->pages - t[i].first : share;
		t[i].order = shuffled(t[i].n, 999 + i);
		if (wvm_samples_init(&t[i].samples, t[i].n) < 0 ||
		    pthread_create(&t[i].thread, NULL, touch_pages, &t[i]) != 0)
			floor_die("threads");
	}
	for (unsigned i = 0; i < o->threads; i++)
		pthread_join(t[i].thread, NULL);
	verify(r, op);
	collect(t, o->threads, r->pages, out);
	for (unsigned i = 0; i < o->threads; i++) {
		wvm_samples_fini(&t[i].samples);
		free(t[i].order);
	}
	pthread_barrier_destroy(&start);
	free(t);
}
