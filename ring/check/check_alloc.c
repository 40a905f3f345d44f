/*
 * Nothing is allocated while a shard runs: malloc and its family and mmap are
 * counted, by interposition, or by the sanitizer's hooks where one owns malloc.
 */
#include <dlfcn.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "ring/check/udp_support.h"
#include "ring/doorbell.h"
#include "ring/file.h"

static uint64_t allocations;

static void note(void)
{
	__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED
/* <sanitizer/allocator_interface.h>, which not every compiler package has. */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
					      void (*on_free)(const volatile void *));

static void on_malloc(const volatile void *p, size_t n)
{
	note();
}

static void on_free(const volatile void *p)
{
}

static void install(void)
{
	ck_assert_int_gt(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free), 0);
}
#else
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n)
{
	note();
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	note();
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	note();
	return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
	note();
	return __libc_memalign(align, n);
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	static void *(*real)(void *, size_t, int, int, int, off_t);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "mmap");
	note();
	return real(addr, len, prot, flags, fd, offset);
}

static void install(void)
{
}
#endif

#define EVENTS 100000U
#define WARMUP 1000U

static struct wvm_shard *a, *b;
static struct wvm_udp *ua, *ub;
static struct sockaddr_in addr_a, addr_b;
static struct wvm_doorbell bell;
static struct wvm_file file;
static struct wvm_fileop op;
static struct wvm_timer ticks[16];
static uint8_t *block;
static uint32_t datagrams, posts, timers, rings, writes;
static uint64_t before, after;

static bool all_reached(uint32_t n)
{
	return datagrams >= n && posts >= n && timers >= n && rings >= n / 100 &&
	       writes >= n / 1000;
}

static void progress(void)
{
	if (!before && all_reached(WARMUP))
		before = __atomic_load_n(&allocations, __ATOMIC_RELAXED);
	if (before && !after && all_reached(EVENTS)) {
		after = __atomic_load_n(&allocations, __ATOMIC_RELAXED);
		wvm_shard_stop(a);
	}
}

/* b echoes datagrams and posts; a counts them and goes on. */

static void echo(void *ctx, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
	wvm_udp_send(ub, WVM_LANE_CONTROL, &addr_a, 0, data, len);
}

static void count_datagram(void *ctx, const struct sockaddr_in *from, const uint8_t *data,
			   size_t len)
{
	datagrams++;
	wvm_udp_send(ua, WVM_LANE_BULK, &addr_b, 0, data, len);
}

static void post_back(struct wvm_shard *self, void *ctx, const void *data, size_t len);

static void count_post(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	posts++;
	wvm_post(a, b, post_back, NULL, data, len);
}

static void post_back(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	wvm_post(b, a, count_post, NULL, data, len);
}

static void on_ring(struct wvm_doorbell *d)
{
	rings++;
}

static void start_write(void)
{
	if (wvm_file_write(&file, &op, block, 4096, 0, false))
		abort();
}

static void written(struct wvm_fileop *o, int res)
{
	writes += res == 4096;
	start_write();
}

static void on_tick(struct wvm_timer *t, uint64_t now_ns)
{
	timers++;
	wvm_shard_arm(a, t, 1);
	wvm_doorbell_ring(&bell);
	progress();
}

static void open_all(const char *self)
{
	struct wvm_udp_opts o = {.bind = loopback(0)};
	char path[512];

	a = make_shard(&(struct wvm_shard_opts){.index = 0, .fixed_block = 4096, .fixed_count = 1});
	b = make_shard(&(struct wvm_shard_opts){.index = 1});
	o.datagram = count_datagram;
	ua = open_udp(a, NULL, &o);
	o.datagram = echo;
	ub = open_udp(b, NULL, &o);
	addr_a = wvm_udp_address(ua);
	addr_b = wvm_udp_address(ub);
	bell.ring = on_ring;
	ck_assert_int_eq(wvm_doorbell_open(&bell, a, eventfd(0, EFD_NONBLOCK), true), 0);
	snprintf(path, sizeof(path), "%s.tmp", self);
	ck_assert_int_eq(wvm_file_open(&file, a, AT_FDCWD, path, O_RDWR | O_CREAT, 0600), 0);
	unlink(path);
	block = wvm_shard_fixed_get(a);
	op.done = written;
}

static char self[400];

START_TEST(a_hundred_thousand_events_of_each_kind_allocate_nothing)
{
	install();
	free(malloc(100));
	ck_assert_msg(allocations > 0, "the counting does not work");
	open_all(self);
	for (uint32_t i = 0; i < 32; i++) {
		wvm_udp_send(ua, WVM_LANE_BULK, &addr_b, 0, &i, sizeof(i));
		ck_assert_int_eq(wvm_post(a, b, post_back, NULL, &i, sizeof(i)), 0);
	}
	start_write();
	for (uint64_t i = 0; i < 16; i++) {
		ticks[i].fire = on_tick;
		wvm_shard_arm(a, &ticks[i], i * 1000);
	}
	ck_assert_int_eq(wvm_shard_start(b), 0);
	ck_assert_int_eq(wvm_shard_start(a), 0);
	ck_assert_int_eq(wvm_shard_join(a), 0);
	wvm_shard_stop(b);
	ck_assert_int_eq(wvm_shard_join(b), 0);
	ck_assert_msg(after != 0, "it ended before its time");
	ck_assert_msg(after == before, "%lu allocations while running",
		      (unsigned long)(after - before));
	wvm_udp_close(ua);
	wvm_udp_close(ub);
	wvm_shard_destroy(a);
	wvm_shard_destroy(b);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("ring/alloc");
	TCase *c = tcase_create("alloc");

	snprintf(self, sizeof(self), "%s", argv[0]);
	tcase_set_timeout(c, 120);
	tcase_add_test(c, a_hundred_thousand_events_of_each_kind_allocate_nothing);
	suite_add_tcase(s, c);
	return run_suite(s);
}
