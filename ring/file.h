/*
 * Files through the ring: O_DIRECT, registered file and registered buffers
 * (wvm_shard_fixed_get()).
 *
 * Errors are reported, never repaired: a failed or short write, or a failed
 * sync, is an error of that operation, and nothing here tries it again.
 */
#ifndef WVM_RING_FILE_H
#define WVM_RING_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ring/shard.h"

/* Embedded by its user; fields written by the shard's thread, read only for others. */
struct wvm_file {
	struct wvm_shard *shard;
	int fd;             /* owned */
	int slot;           /* registered file */
	unsigned mem_align; /* of buffers, bytes (STATX_DIOALIGN); 1 without O_DIRECT */
	unsigned io_align;  /* of offsets and lengths, bytes; 1 without O_DIRECT */
	unsigned in_flight; /* operations not yet reported */
	bool direct;        /* O_DIRECT is on */
};

/*
 * One operation, embedded by its user, free again when done is called. res: bytes
 * transferred (0 for sync and punch) or -errno.
 */
struct wvm_fileop {
	void (*done)(struct wvm_fileop *op, int res);
	struct wvm_io io;      /* the transfer, or the only part */
	struct wvm_io sync_io; /* the linked fdatasync */
	struct wvm_file *file;
	uint32_t len; /* asked for */
	int res;      /* of the transfer */
	int sync_res;
	uint8_t parts; /* completions still to come */
	uint8_t kind;
};

/*
 * Opens path (relative to dirfd, AT_FDCWD allowed) with O_DIRECT where the
 * filesystem has it (else without, f->direct false: tmpfs of old kernels). flags and
 * mode as for open(2), O_CLOEXEC implied. This is a blocking system call: at start, or where
 * the wait for a directory is acceptable. Returns 0, -ENFILE without a file slot, or -errno.
 */
int wvm_file_open(struct wvm_file *f, struct wvm_shard *s, int dirfd, const char *path, int flags,
		  mode_t mode);

/* Closes. -EBUSY while operations are in flight, else 0. Does not sync. */
int wvm_file_close(struct wvm_file *f);

/*
 * Start an operation; op->done is called from the loop. buf must be a registered buffer
 * (inside one block of wvm_shard_fixed_get()) and len not exceed the block; buf, len and offset
 * aligned as f says. Return 0, or without calling done: -EINVAL (alignment, not a
 * registered buffer), -EAGAIN (no submission slot now).
 *
 * read:   res is short only at the end of the file.
 * write:  res is len or an error; a short write is -EIO. With sync an fdatasync is linked behind
 *         it: res is then len only when both succeeded, and done comes after both.
 * sync:   fdatasync of everything whose done was called before.
 * punch:  FALLOC_FL_PUNCH_HOLE | KEEP_SIZE; any alignment (ends are zeroed by the kernel).
 */
int wvm_file_read(struct wvm_file *f, struct wvm_fileop *op, void *buf, uint32_t len,
		  uint64_t offset);
int wvm_file_write(struct wvm_file *f, struct wvm_fileop *op, const void *buf, uint32_t len,
		   uint64_t offset, bool sync);
int wvm_file_sync(struct wvm_file *f, struct wvm_fileop *op);
int wvm_file_punch(struct wvm_file *f, struct wvm_fileop *op, uint64_t offset, uint64_t len);

#endif
