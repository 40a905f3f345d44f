#include <assert.h>
#include <errno.h>
#include <numa.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring/bufring.h"
#include "ring/post.h"
#include "ring/shard.h"
#include "ring/standing.h"
#include "ring/uffd.h"

static size_t page_round(size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (len + page - 1) / page * page;
}

void *wvm_shard_memory(struct wvm_shard *s, size_t len)
{
	void *mem;

	len = page_round(len);
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return NULL;
	if (s->opts.pin)
		wvm_place_memory(&s->opts.place, mem, len);
	return mem;
}

void wvm_shard_memory_free(void *mem, size_t len)
{
	munmap(mem, page_round(len));
}

static void or_default(unsigned *field, unsigned value)
{
	if (!*field)
		*field = value;
}

static bool power_of_two(unsigned n, unsigned max)
{
	return n && n <= max && !(n & (n - 1));
}

/* Fills in the defaults; names the option that is out of range. */
static const char *complete(struct wvm_shard_opts *o)
{
	or_default(&o->sq_entries, 256);
	or_default(&o->cq_entries, 2048);
	or_default(&o->files, 64);
	or_default(&o->inbox_slots, 256);
	or_default(&o->inbox_bytes, 1600);
	or_default(&o->uffd_bufs, 16);
	or_default(&o->cqe_batch, 256);
	or_default(&o->post_batch, 64);
	or_default(&o->timer_batch, 256);
	if (!o->name)
		o->name = "shard";
	if (!power_of_two(o->sq_entries, 32768))
		return "sq_entries";
	if (!power_of_two(o->cq_entries, 65536) || o->cq_entries < o->sq_entries)
		return "cq_entries";
	if (o->files > 65536)
		return "files";
	if (!power_of_two(o->inbox_slots, 65536))
		return "inbox_slots";
	if (o->inbox_bytes < 64 || o->inbox_bytes > 65536)
		return "inbox_bytes";
	if (!power_of_two(o->uffd_bufs, 32768))
		return "uffd_bufs";
	if (o->fixed_count && (!o->fixed_block || o->fixed_block % 4096 ||
			       (uint64_t)o->fixed_block * o->fixed_count > 1 << 30))
		return "fixed_block";
	return NULL;
}

static int open_ring(struct wvm_shard *s, char *why, size_t why_len)
{
	struct io_uring_params p = {
		.flags = s->kernel.setup_flags | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
		.cq_entries = s->opts.cq_entries,
	};
	bool bind = s->opts.pin && s->opts.place.real && s->opts.place.node >= 0 &&
		    numa_available() >= 0;
	int err;

	/* The kernel allocates the ring by the policy of the thread that creates it. */
	if (bind)
		numa_set_preferred(s->opts.place.node);
	err = io_uring_queue_init_params(s->opts.sq_entries, &s->ring, &p);
	if (bind)
		numa_set_localalloc();
	if (err < 0)
		return wvm_kernel_explain(err, "io_uring_setup", why, why_len);
	return 0;
}

static int open_files(struct wvm_shard *s, char *why, size_t why_len)
{
	int err;

	s->free_files = calloc(s->opts.files, sizeof(*s->free_files));
	if (!s->free_files)
		return wvm_kernel_explain(-ENOMEM, "file table", why, why_len);
	err = io_uring_register_files_sparse(&s->ring, s->opts.files);
	if (err < 0)
		return wvm_kernel_explain(err, "io_uring_register_files", why, why_len);
	for (unsigned i = s->opts.files; i-- > 0;)
		s->free_files[s->free_file_count++] = (int)i;
	return 0;
}

static size_t fixed_bytes(const struct wvm_shard *s)
{
	return (size_t)s->opts.fixed_block * s->opts.fixed_count;
}

static int open_fixed(struct wvm_shard *s, char *why, size_t why_len)
{
	struct iovec iov;
	int err;

	if (!s->opts.fixed_count)
		return 0;
	s->free_fixed = calloc(s->opts.fixed_count, sizeof(*s->free_fixed));
	s->fixed = wvm_shard_memory(s, fixed_bytes(s));
	if (!s->free_fixed || !s->fixed)
		return wvm_kernel_explain(-ENOMEM, "I/O buffers", why, why_len);
	iov = (struct iovec){s->fixed, fixed_bytes(s)};
	err = io_uring_register_buffers(&s->ring, &iov, 1);
	if (err < 0)
		return wvm_kernel_explain(err, "io_uring_register_buffers", why, why_len);
	for (unsigned i = s->opts.fixed_count; i-- > 0;)
		s->free_fixed[s->free_fixed_count++] = s->fixed + (size_t)i * s->opts.fixed_block;
	return 0;
}

static void prepare_waker(struct wvm_standing *o, struct io_uring_sqe *sqe)
{
	io_uring_prep_poll_multishot(sqe, o->shard->wake_fd, POLLIN);
}

/* The count of the eventfd stays: it fires for every write, and nobody needs the number. */
static enum wvm_standing_next woken(struct wvm_standing *o, int res, uint32_t flags)
{
	return res < 0 ? WVM_STANDING_LATER : WVM_STANDING_AGAIN;
}

static void ignore(struct wvm_io *io, int res, uint32_t flags)
{
}

static int open_inbox(struct wvm_shard *s, char *why, size_t why_len)
{
	s->wake_io.done = ignore;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0)
		return wvm_kernel_explain(-errno, "eventfd", why, why_len);
	s->inbox = wvm_inbox_create(s, s->opts.inbox_slots, s->opts.inbox_bytes);
	s->waker = calloc(1, sizeof(*s->waker));
	if (!s->inbox || !s->waker)
		return wvm_kernel_explain(-ENOMEM, "inbox", why, why_len);
	s->waker->prepare = prepare_waker;
	s->waker->event = woken;
	wvm_standing_start(s->waker, s);
	return 0;
}

static int open_all(struct wvm_shard *s, char *why, size_t why_len)
{
	int err;

	err = open_files(s, why, why_len);
	if (!err)
		err = open_fixed(s, why, why_len);
	if (!err)
		err = open_inbox(s, why, why_len);
	if (err || !s->kernel.read_multishot)
		return err;
	s->uffd_bufs = calloc(1, sizeof(*s->uffd_bufs));
	err = s->uffd_bufs ? wvm_bufring_open(s->uffd_bufs, s, s->opts.uffd_bufs,
					      WVM_UFFD_BATCH * sizeof(struct uffd_msg))
			   : -ENOMEM;
	if (err)
		wvm_kernel_explain(err, "io_uring_register_buf_ring", why, why_len);
	return err;
}

int wvm_shard_create(struct wvm_shard **out, const struct wvm_shard_opts *opts, char *why,
		     size_t why_len)
{
	struct wvm_shard_opts o = *opts;
	const char *bad = complete(&o);
	struct wvm_shard *s;
	int err = 0;

	*out = NULL;
	if (bad) {
		snprintf(why, why_len, "shard option %s is out of range", bad);
		return -EINVAL;
	}
	s = aligned_alloc(64, (sizeof(*s) + 63) & ~(size_t)63);
	if (!s)
		return wvm_kernel_explain(-ENOMEM, "shard", why, why_len);
	memset(s, 0, sizeof(*s));
	s->opts = o;
	s->index = o.index;
	s->poll_ns = o.poll_ns;
	s->wake_fd = s->ring.ring_fd = -1;
	s->task_last = &s->task_first;
	s->now_ns = wvm_now_ns();
	wvm_wheel_init(&s->wheel, s->now_ns);
	if (o.kernel)
		s->kernel = *o.kernel;
	else
		err = wvm_kernel_probe(&s->kernel, why, why_len);
	if (!err)
		err = open_ring(s, why, why_len);
	if (err) {
		free(s);
		return err;
	}
	err = open_all(s, why, why_len);
	if (err) {
		wvm_shard_destroy(s);
		return err;
	}
	*out = s;
	return 0;
}

void wvm_shard_destroy(struct wvm_shard *s)
{
	if (!s)
		return;
	assert(!s->threaded && !s->entered);
	io_uring_queue_exit(&s->ring);
	if (s->uffd_bufs)
		wvm_bufring_close(s->uffd_bufs);
	free(s->uffd_bufs);
	wvm_inbox_destroy(s->inbox);
	free(s->waker);
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	if (s->fixed)
		wvm_shard_memory_free(s->fixed, fixed_bytes(s));
	free(s->free_fixed);
	free(s->free_files);
	free(s);
}
