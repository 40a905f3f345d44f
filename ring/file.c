#include "ring/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define container(ptr, member) \
	((struct wvm_fileop *)((char *)(ptr)-offsetof(struct wvm_fileop, member)))

enum kind { READ, WRITE, SYNC, PUNCH };

/*
 * Alignment of direct I/O. A kernel older than 6.1 does not tell; 4096 is safe on any disk
 * with sectors up to that.
 */
static void learn_alignment(struct wvm_file *f)
{
	struct statx st;

	f->mem_align = f->io_align = 1;
	if (!f->direct)
		return;
	f->mem_align = f->io_align = 4096;
	if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) || !(st.stx_mask & STATX_DIOALIGN))
		return;
	if (st.stx_dio_mem_align && st.stx_dio_offset_align) {
		f->mem_align = st.stx_dio_mem_align;
		f->io_align = st.stx_dio_offset_align;
	}
}

int wvm_file_open(struct wvm_file *f, struct wvm_shard *s, int dirfd, const char *path, int flags,
		  mode_t mode)
{
	int err;

	*f = (struct wvm_file){.shard = s, .direct = true};
	f->fd = openat(dirfd, path, flags | O_CLOEXEC | O_DIRECT, mode);
	if (f->fd < 0 && errno == EINVAL) {
		f->direct = false;
		f->fd = openat(dirfd, path, flags | O_CLOEXEC, mode);
	}
	if (f->fd < 0)
		return -errno;
	learn_alignment(f);
	f->slot = wvm_shard_file_add(s, f->fd);
	if (f->slot >= 0)
		return 0;
	err = f->slot;
	close(f->fd);
	f->fd = -1;
	return err;
}

int wvm_file_close(struct wvm_file *f)
{
	if (f->in_flight)
		return -EBUSY;
	wvm_shard_file_del(f->shard, f->slot);
	close(f->fd);
	f->fd = -1;
	return 0;
}

static int verdict(const struct wvm_fileop *op)
{
	if (op->res < 0)
		return op->res;
	if (op->kind == WRITE && (uint32_t)op->res != op->len)
		return -EIO;
	if (op->sync_res < 0)
		return op->sync_res;
	return op->kind == SYNC || op->kind == PUNCH ? 0 : op->res;
}

static void part_done(struct wvm_fileop *op)
{
	struct wvm_shard *s = op->file->shard;
	int res;

	assert(op->parts);
	if (--op->parts)
		return;
	op->file->in_flight--;
	s->must_finish--;
	res = verdict(op);
	if (res < 0)
		WVM_COUNT(s, file_errors, 1);
	else if (op->kind == READ)
		WVM_COUNT(s, file_reads, 1);
	else if (op->kind == WRITE)
		WVM_COUNT(s, file_writes, 1);
	else if (op->kind == SYNC)
		WVM_COUNT(s, file_syncs, 1);
	op->done(op, res);
}

static void main_done(struct wvm_io *io, int res, uint32_t flags)
{
	struct wvm_fileop *op = container(io, io);

	op->res = res;
	part_done(op);
}

static void sync_done(struct wvm_io *io, int res, uint32_t flags)
{
	struct wvm_fileop *op = container(io, sync_io);

	op->sync_res = res;
	part_done(op);
}

/* Room was made by the caller, so that the links of an operation are never torn apart. */
static struct io_uring_sqe *begin(struct wvm_file *f, struct wvm_fileop *op, enum kind kind,
				  uint32_t len)
{
	assert(op->done);
	op->file = f;
	op->kind = (uint8_t)kind;
	op->len = len;
	op->res = op->sync_res = 0;
	op->parts = 1;
	op->io.done = main_done;
	op->sync_io.done = sync_done;
	f->in_flight++;
	f->shard->must_finish++;
	return wvm_shard_sqe(f->shard);
}

static bool registered(const struct wvm_shard *s, const uint8_t *buf, uint32_t len)
{
	size_t at = (size_t)(buf - s->fixed);
	size_t block = s->opts.fixed_block;

	return s->fixed && buf >= s->fixed && at < block * s->opts.fixed_count && len &&
	       len <= block - at % block;
}

static int check(const struct wvm_file *f, const void *buf, uint32_t len, uint64_t offset)
{
	if (!registered(f->shard, buf, len) || (uintptr_t)buf % f->mem_align || len % f->io_align ||
	    offset % f->io_align || offset > (uint64_t)INT64_MAX - len)
		return -EINVAL;
	return 0;
}

int wvm_file_read(struct wvm_file *f, struct wvm_fileop *op, void *buf, uint32_t len,
		  uint64_t offset)
{
	struct io_uring_sqe *sqe;
	int err = check(f, buf, len, offset);

	if (!err)
		err = wvm_shard_room(f->shard, 1);
	if (err)
		return err;
	sqe = begin(f, op, READ, len);
	io_uring_prep_read_fixed(sqe, f->slot, buf, len, offset, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	wvm_sqe_to(sqe, &op->io);
	return 0;
}

int wvm_file_write(struct wvm_file *f, struct wvm_fileop *op, const void *buf, uint32_t len,
		   uint64_t offset, bool sync)
{
	struct io_uring_sqe *sqe;
	int err = check(f, buf, len, offset);

	if (!err)
		err = wvm_shard_room(f->shard, sync ? 2 : 1);
	if (err)
		return err;
	sqe = begin(f, op, WRITE, len);
	io_uring_prep_write_fixed(sqe, f->slot, buf, len, offset, 0);
	sqe->flags |= IOSQE_FIXED_FILE | (sync ? IOSQE_IO_LINK : 0);
	wvm_sqe_to(sqe, &op->io);
	if (!sync)
		return 0;
	sqe = wvm_shard_sqe(f->shard);
	assert(sqe);
	io_uring_prep_fsync(sqe, f->slot, IORING_FSYNC_DATASYNC);
	sqe->flags |= IOSQE_FIXED_FILE;
	wvm_sqe_to(sqe, &op->sync_io);
	op->parts = 2;
	return 0;
}

int wvm_file_sync(struct wvm_file *f, struct wvm_fileop *op)
{
	struct io_uring_sqe *sqe;
	int err = wvm_shard_room(f->shard, 1);

	if (err)
		return err;
	sqe = begin(f, op, SYNC, 0);
	io_uring_prep_fsync(sqe, f->slot, IORING_FSYNC_DATASYNC);
	sqe->flags |= IOSQE_FIXED_FILE;
	wvm_sqe_to(sqe, &op->io);
	return 0;
}

int wvm_file_punch(struct wvm_file *f, struct wvm_fileop *op, uint64_t offset, uint64_t len)
{
	struct io_uring_sqe *sqe;
	int err;

	if (!len || offset > INT64_MAX || len > (uint64_t)INT64_MAX - offset)
		return -EINVAL;
	err = wvm_shard_room(f->shard, 1);
	if (err)
		return err;
	sqe = begin(f, op, PUNCH, 0);
	io_uring_prep_fallocate(sqe, f->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)offset, (off_t)len);
	sqe->flags |= IOSQE_FIXED_FILE;
	wvm_sqe_to(sqe, &op->io);
	return 0;
}
