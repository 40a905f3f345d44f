#include "shared/engine_host.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shared/engine_priv.h"

#define FIXED_FDS 3 /* memory, answers, kicks; then a bell for each processor */

struct lane {
	struct wvm_spsc_tx runs;
	struct wvm_spsc_rx answers;
	struct engine_kick *kick;
	int bell;
};

struct wvm_engine_host {
	struct engine_head *head;
	size_t bytes;
	unsigned vcpus;
	int mem_fd, to_slave, kicks;
	struct lane lane[];
};

static int make_memory(struct wvm_engine_host *h)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	void *mem;

	h->bytes = engine_bytes(h->vcpus);
	h->mem_fd = memfd_create("wvm-engine", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (h->mem_fd < 0 || ftruncate(h->mem_fd, (off_t)h->bytes) ||
	    fcntl(h->mem_fd, F_ADD_SEALS, seals))
		return -errno;
	mem = mmap(NULL, h->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, h->mem_fd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	h->head = mem;
	h->head->vcpus = h->vcpus;
	h->head->magic = ENGINE_MAGIC;
	return 0;
}

static int make_lane(struct wvm_engine_host *h, unsigned i)
{
	uint8_t *base = (uint8_t *)h->head;
	struct lane *l = &h->lane[i];
	int r;

	l->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->bell < 0)
		return -errno;
	l->kick = (struct engine_kick *)(void *)(base + engine_kicks_at()) + i;
	/* A new memfd is zeros, which is what an empty ring is. */
	r = wvm_spsc_open_tx(&l->runs, base + engine_ring_at(h->vcpus, i, 0), WVM_ENGINE_CAPACITY);
	return r ? r
		 : wvm_spsc_open_rx(&l->answers, base + engine_ring_at(h->vcpus, i, 1),
				    WVM_ENGINE_CAPACITY);
}

int wvm_engine_host_new(struct wvm_engine_host **out, unsigned vcpus, char *err, size_t err_len)
{
	struct wvm_engine_host *h = calloc(1, sizeof(*h) + vcpus * sizeof(h->lane[0]));
	int r = h ? 0 : -ENOMEM;

	if (!r) {
		h->vcpus = vcpus;
		h->mem_fd = -1;
		for (unsigned i = 0; i < vcpus; i++)
			h->lane[i].bell = -1;
		h->to_slave = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		h->kicks = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		r = h->to_slave < 0 || h->kicks < 0 ? -errno : make_memory(h);
		for (unsigned i = 0; !r && i < vcpus; i++)
			r = make_lane(h, i);
	}
	if (!r) {
		*out = h;
		return 0;
	}
	snprintf(err, err_len, "no channel for an engine with %u processors: %s", vcpus,
		 strerror(-r));
	wvm_engine_host_free(h);
	return r;
}

static void close_one(int fd)
{
	if (fd >= 0)
		close(fd);
}

void wvm_engine_host_free(struct wvm_engine_host *h)
{
	if (!h)
		return;
	if (h->head) {
		__atomic_store_n(&h->head->ended, 1, __ATOMIC_RELEASE);
		(void)eventfd_write(h->kicks, 1);
		munmap(h->head, h->bytes);
	}
	for (unsigned i = 0; i < h->vcpus; i++)
		close_one(h->lane[i].bell);
	close_one(h->mem_fd);
	close_one(h->to_slave);
	close_one(h->kicks);
	free(h);
}

/* ---- starting the program -------------------------------------------------------------- */

/* The numbers in the child are above all of ours, so that none is in the way of another. */
static int hand_down(struct wvm_engine_host *h, posix_spawn_file_actions_t *actions, int first)
{
	int fixed[FIXED_FDS] = {h->mem_fd, h->to_slave, h->kicks}, r = 0;

	for (int i = 0; !r && i < FIXED_FDS; i++)
		r = posix_spawn_file_actions_adddup2(actions, fixed[i], first + i);
	for (unsigned i = 0; !r && i < h->vcpus; i++)
		r = posix_spawn_file_actions_adddup2(actions, h->lane[i].bell,
						     first + FIXED_FDS + (int)i);
	return r;
}

static int first_number(const struct wvm_engine_host *h)
{
	int most = h->mem_fd > h->to_slave ? h->mem_fd : h->to_slave;

	most = h->kicks > most ? h->kicks : most;
	for (unsigned i = 0; i < h->vcpus; i++)
		most = h->lane[i].bell > most ? h->lane[i].bell : most;
	return most + 1;
}

/* env, with our variable instead of any that has its name. The caller frees the list. */
static char **environment(char *const env[], char *ours)
{
	size_t count = 0, n = 0, name = strlen(WVM_ENGINE_ENV "=");
	char **list;

	while (env[count])
		count++;
	list = calloc(count + 2, sizeof(*list));
	for (size_t i = 0; list && i < count; i++)
		if (strncmp(env[i], WVM_ENGINE_ENV "=", name))
			list[n++] = env[i];
	if (list)
		list[n] = ours;
	return list;
}

static int attributes(posix_spawnattr_t *attr)
{
	sigset_t none, all;
	int r;

	sigemptyset(&none);
	sigfillset(&all);
	r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (!r)
		r = posix_spawnattr_setsigmask(attr, &none);
	return r ? r : posix_spawnattr_setsigdefault(attr, &all);
}

int wvm_engine_host_spawn(struct wvm_engine_host *h, const char *path, char *const argv[],
			  char *const env[], pid_t *pid, char *err, size_t err_len)
{
	char name[sizeof(WVM_ENGINE_ENV) + ENGINE_ENV_CHARS], **list;
	int first = first_number(h), r;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;

	snprintf(name, sizeof(name), WVM_ENGINE_ENV "=%d,%u,%d,%d,%d,%d", first, h->vcpus,
		 first + 1, first + 2, first + FIXED_FDS, (int)getpid());
	list = environment(env, name);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	r = list ? hand_down(h, &actions, first) : ENOMEM;
	if (!r)
		r = attributes(&attr);
	if (!r)
		r = posix_spawn(pid, path, &actions, &attr, argv, list);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	free(list);
	if (r)
		snprintf(err, err_len, "cannot start %s: %s", path, strerror(r));
	return -r;
}

/* ---- runs and answers ------------------------------------------------------------------ */

bool wvm_engine_host_opened(const struct wvm_engine_host *h)
{
	return __atomic_load_n(&h->head->opened, __ATOMIC_SEQ_CST);
}

int wvm_engine_host_bell(const struct wvm_engine_host *h)
{
	return h->to_slave;
}

int wvm_engine_host_run(struct wvm_engine_host *h, unsigned vcpu, uint64_t seq, const void *run,
			size_t len)
{
	struct lane *l = &h->lane[vcpu];
	int r;

	if (len > WVM_RUN_MAX)
		return -EMSGSIZE;
	r = wvm_spsc_push2(&l->runs, WVM_ENGINE_RUN, &seq, sizeof(seq), run, (uint32_t)len);
	if (!r)
		(void)eventfd_write(l->bell, 1);
	return r;
}

void wvm_engine_host_kick(struct wvm_engine_host *h, unsigned vcpu, uint64_t seq)
{
	__atomic_store_n(&h->lane[vcpu].kick->seq, seq, __ATOMIC_RELEASE);
	(void)eventfd_write(h->kicks, 1);
}

int wvm_engine_host_take(struct wvm_engine_host *h, unsigned vcpu,
			 uint8_t buf[WVM_ENGINE_RECORD_MAX], struct wvm_engine_answer *answer)
{
	uint64_t reason;
	uint32_t type;
	int len = wvm_spsc_pop(&h->lane[vcpu].answers, &type, buf, WVM_ENGINE_RECORD_MAX);

	if (len == -EAGAIN)
		return len;
	if (len < (int)sizeof(answer->seq))
		return -EPROTO;
	*answer = (struct wvm_engine_answer){.data = buf + sizeof(answer->seq),
					     .len = (size_t)len - sizeof(answer->seq)};
	memcpy(&answer->seq, buf, sizeof(answer->seq));
	if (type == WVM_ENGINE_EXIT)
		return answer->len ? 0 : -EPROTO;
	if (type != WVM_ENGINE_REFUSE || answer->len != sizeof(reason))
		return -EPROTO;
	memcpy(&reason, answer->data, sizeof(reason));
	if (reason == WVM_RUN_NO_REASON || reason >= WVM_RUN_REASONS)
		return -EPROTO;
	answer->reason = (unsigned)reason;
	return 0;
}
