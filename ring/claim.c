#include "ring/claim.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A PU where a shard could go; the lower the rank, the better. */
struct candidate {
	struct wvm_place place;
	unsigned thread; /* of its core */
	unsigned rank, order;
};

struct claims {
	int fd;
	struct wvm_place *p;
	bool done[WVM_PLACE_MAX];   /* by shard: has a PU */
	bool behind[WVM_PLACE_MAX]; /* by shard: another process was there before */
	unsigned n;
	struct candidate *all;
	unsigned count;
};

/* 0, -EAGAIN: another process has it, or another errno. */
static int take(int fd, int pu, unsigned round)
{
	struct flock lock = {.l_type = F_WRLCK,
			     .l_whence = SEEK_SET,
			     .l_start = (off_t)round << 32 | pu,
			     .l_len = 1};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

/* Whether a shard of this call is on it already. */
static bool ours(const struct claims *c, int pu)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->done[i] && c->p[i].pu == pu)
			return true;
	return false;
}

static int by_rank(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* All PUs that this process may use. 0 or -errno. */
static int list_candidates(struct claims *c)
{
	unsigned count = wvm_place_pus();
	struct wvm_place *places;
	char why[128];
	int r;

	if (count > WVM_PLACE_MAX)
		count = WVM_PLACE_MAX;
	places = calloc(count, sizeof(*places));
	c->all = calloc(count, sizeof(*c->all));
	r = places && c->all ? wvm_place_compute(places, count, NULL, why, sizeof(why)) : -ENOMEM;
	for (unsigned i = 0; i < count && !r; i++) {
		c->all[i] = (struct candidate){.place = places[i], .order = i};
		for (unsigned k = 0; k < i; k++)
			c->all[i].thread += places[k].core == places[i].core;
	}
	free(places);
	c->count = r ? 0 : count;
	return r;
}

/* Sorts the candidates for a shard: where it is first, then idle cores, then its node. */
static void rank(struct claims *c, const struct wvm_place *wish)
{
	for (unsigned i = 0; i < c->count; i++) {
		struct candidate *to = &c->all[i];

		to->rank = to->place.pu == wish->pu
				   ? 0
				   : 1 + 2 * to->thread + (to->place.node != wish->node);
	}
	qsort(c->all, c->count, sizeof(*c->all), by_rank);
}

/*
 * Shard i to the PU with the fewest processes. Where all are full, or have a shard of ours, it
 * stays, unclaimed.
 */
static int move_shard(struct claims *c, unsigned i)
{
	int r = c->all ? 0 : list_candidates(c);

	if (r)
		return r;
	rank(c, &c->p[i]);
	for (unsigned round = 0; round < WVM_CLAIM_ROUNDS; round++)
		for (unsigned k = 0; k < c->count; k++) {
			const struct wvm_place *to = &c->all[k].place;

			if (ours(c, to->pu))
				continue;
			r = take(c->fd, to->pu, round);
			if (r == -EAGAIN)
				continue;
			if (r)
				return r;
			c->p[i] = *to;
			c->behind[i] = round > 0;
			c->done[i] = true;
			return 0;
		}
	c->behind[i] = true;
	return 0;
}

/* Shard i stays where it is, behind those that are there already. */
static int stay(struct claims *c, unsigned i)
{
	int r = -EAGAIN;

	for (unsigned round = 0; round < WVM_CLAIM_ROUNDS && r == -EAGAIN; round++) {
		r = take(c->fd, c->p[i].pu, round);
		c->behind[i] |= r == -EAGAIN;
	}
	c->done[i] = !r;
	return r == -EAGAIN ? 0 : r;
}

/* What wvm_place_compute() had marked is no longer so where a shard has moved. */
static void mark_crowded(struct claims *c)
{
	for (unsigned i = 0; i < c->n; i++)
		c->p[i].crowded = c->behind[i];
	for (unsigned i = 0; i < c->n; i++)
		for (unsigned k = 0; k < i; k++)
			if (c->p[i].pu == c->p[k].pu)
				c->p[i].crowded = c->p[k].crowded = true;
}

static int claim_all(struct claims *c, bool move)
{
	int r = 0;

	/* First what is free where it is, so that no shard is sent to where another one belongs. */
	for (unsigned i = 0; i < c->n; i++) {
		if (ours(c, c->p[i].pu))
			continue;
		r = take(c->fd, c->p[i].pu, 0);
		if (r && r != -EAGAIN)
			return r;
		c->done[i] = !r;
	}
	r = 0;
	for (unsigned i = 0; i < c->n && !r; i++) {
		if (c->done[i])
			continue;
		if (move)
			r = move_shard(c, i);
		else if (!ours(c, c->p[i].pu))
			r = stay(c, i);
	}
	mark_crowded(c);
	return r;
}

/*
 * Anybody's: who may run a daemon may say where it runs. First without O_CREAT, which
 * fs.protected_regular refuses for a file of another user in a directory like /dev/shm.
 */
static int open_file(const char *file)
{
	const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	struct stat st;
	int fd = open(file, flags);

	if (fd < 0 && errno == ENOENT) {
		fd = open(file, flags | O_CREAT | O_EXCL, 0666);
		if (fd < 0 && errno == EEXIST) /* another daemon, just now */
			fd = open(file, flags);
		else if (fd >= 0 && fchmod(fd, 0666)) { /* whatever the umask is */
			close(fd);
			fd = -1;
		}
	}
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

int wvm_claim(struct wvm_place *p, unsigned n, bool move, const char *file)
{
	struct wvm_place before[WVM_PLACE_MAX];
	struct claims *c;
	int r;

	assert(n >= 1 && n <= WVM_PLACE_MAX);
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	memcpy(before, p, n * sizeof(*p));
	c->p = p;
	c->n = n;
	c->fd = r = open_file(file);
	if (r >= 0) {
		r = claim_all(c, move);
		if (r)
			close(c->fd);
		else
			r = c->fd;
	}
	if (r < 0)
		memcpy(p, before, n * sizeof(*p));
	free(c->all);
	free(c);
	return r;
}
