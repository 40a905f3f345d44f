/* Clients that lie: in their slot, on their channel, with their descriptors. The master goes on. */
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "roles/master/check/clients_bed.h"
#include "shared/client_priv.h"

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void start(unsigned shards)
{
	snprintf(stage->text, sizeof(stage->text), "%s", bed->ring);
	bed_start(shards, WVM_MEM_EMPTY);
}

/* A client that does everything right: who comes after or beside a liar. */
static int behave(void)
{
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, BED_BYTES, WVM_STRICT);
	NEED(m);
	for (uint64_t p = 0; p < 10; p++) {
		*word(m, p, 0) = p + 1;
		*word(m, p + GIB / WVM_PAGE_SIZE, 0) = p + 2;
		NEED(*word(m, p, 0) == p + 1);
	}
	wvm_detach(w);
	return 0;
}

/* --- the slot ----------------------------------------------------------------- */

struct liar {
	int ring;
	unsigned slot;
	struct wvm_ring_claim claim;
};

static int good_memfd(void)
{
	int fd = memfd_create("channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (ftruncate(fd, WVM_CHANNEL_BYTES) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK))
		return -1;
	return fd;
}

static int uffd_with(uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	return ioctl(fd, UFFDIO_API, &api) ? -1 : fd;
}

/* Opens the file by hand, locks a slot, and has a claim that would be taken. */
static int become_liar(struct liar *l, unsigned slot, bool lock)
{
	struct flock k = {.l_type = F_WRLCK,
			  .l_whence = SEEK_SET,
			  .l_start = wvm_ring_slot_offset(slot),
			  .l_len = WVM_RING_SLOT_BYTES};
	struct wvm_ring_header h;

	l->ring = open(stage->text, O_RDWR | O_CLOEXEC);
	l->slot = slot;
	NEED(l->ring >= 0 && pread(l->ring, &h, sizeof(h), 0) == (ssize_t)sizeof(h));
	NEED(!lock || !fcntl(l->ring, F_SETLK, &k));
	l->claim = (struct wvm_ring_claim){.claim = 1,
					   .boot_id = h.boot_id,
					   .shard_count = h.shard_count,
					   .channel_fd = good_memfd(),
					   .to_master_fd = eventfd(0, EFD_NONBLOCK),
					   .to_client_fd = eventfd(0, EFD_NONBLOCK)};
	for (unsigned k2 = 0; k2 < h.shard_count; k2++)
		l->claim.uffd_fd[k2] = uffd_with(WVM_UFFD_FEATURES);
	NEED(l->claim.channel_fd >= 0 && l->claim.uffd_fd[0] >= 0);
	return 0;
}

static void write_claim(struct liar *l)
{
	uint64_t claim = l->claim.claim;
	struct wvm_ring_claim body = l->claim;

	body.claim = 0;
	if (pwrite(l->ring, &body, sizeof(body), wvm_ring_slot_offset(l->slot)) < 0 ||
	    pwrite(l->ring, &claim, sizeof(claim), wvm_ring_slot_offset(l->slot)) < 0)
		abort();
}

/* Writes the claim and waits for what the master says: its result, 1 if it says nothing. */
static int ask(struct liar *l, unsigned wait_ms)
{
	static uint64_t serial = 100;
	struct wvm_ring_answer a;
	int64_t at = wvm_ring_slot_offset(l->slot) +
		     (int64_t)offsetof(struct wvm_ring_slot, master);

	l->claim.claim = ++serial;
	write_claim(l);
	for (unsigned ms = 0; ms < wait_ms; ms++) {
		if (pread(l->ring, &a, sizeof(a), at) == (ssize_t)sizeof(a) &&
		    a.answered == l->claim.claim)
			return a.result;
		usleep(1000);
	}
	return 1;
}

static int lie_about_descriptors(void)
{
	struct liar good, l;
	int pipes[2], plain = open(stage->text, O_RDWR), shrinkable, large, unmade;
	int events_uffd = uffd_with(WVM_UFFD_FEATURES | UFFD_FEATURE_EVENT_FORK);
	int bus_uffd = uffd_with(WVM_UFFD_FEATURES | UFFD_FEATURE_SIGBUS);
	int poor_uffd = uffd_with(UFFD_FEATURE_MISSING_SHMEM);

	NEED(!become_liar(&good, 3, true));
	NEED(!pipe(pipes));
	shrinkable = memfd_create("s", MFD_ALLOW_SEALING);
	NEED(!ftruncate(shrinkable, WVM_CHANNEL_BYTES));
	large = memfd_create("l", MFD_ALLOW_SEALING);
	NEED(!ftruncate(large, 2 * WVM_CHANNEL_BYTES) && !fcntl(large, F_ADD_SEALS, F_SEAL_SHRINK));
	unmade = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	/* 1: the last shard's uffd; 2: the channel; 3, 4: the doorbells; 5: the shard count */
	const struct {
		int what, value, expect;
	} cases[] = {
		{1, -1, -EBADF},
		{1, 9999, -EBADF},
		{1, INT32_MIN, -EBADF},
		{1, plain, -EPROTO},
		{1, pipes[0], -EPROTO},
		{1, good.claim.to_master_fd, -EPROTO},
		{1, events_uffd, -EPROTO},
		{1, bus_uffd, -EPROTO},
		{1, poor_uffd, -EPROTO},
		{1, unmade, -EPROTO},
		{2, -1, -EBADF},
		{2, plain, -EPROTO},
		{2, shrinkable, -EPROTO},
		{2, large, -EPROTO},
		{2, pipes[1], -EPROTO},
		{3, -5, -EBADF},
		{3, pipes[0], -EPROTO},
		{3, good.claim.uffd_fd[0], -EPROTO},
		{4, good.claim.channel_fd, -EPROTO},
		{5, 0, -EPROTO},
		{5, 64, -EPROTO},
		{5, -1, -EPROTO},
	};

	NEED(plain >= 0 && events_uffd >= 0 && bus_uffd >= 0 && poor_uffd >= 0 && unmade >= 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int result;

		l = good;
		switch (cases[i].what) {
		case 1: l.claim.uffd_fd[l.claim.shard_count - 1] = cases[i].value; break;
		case 2: l.claim.channel_fd = cases[i].value; break;
		case 3: l.claim.to_master_fd = cases[i].value; break;
		case 4: l.claim.to_client_fd = cases[i].value; break;
		case 5: l.claim.shard_count = (uint32_t)cases[i].value; break;
		}
		result = ask(&l, BED_WAIT_MS);
		if (result != cases[i].expect)
			fprintf(stderr, "case %zu: %d\n", i, result);
		NEED(result == cases[i].expect);
	}
	l = good;
	l.claim.boot_id++;
	NEED(ask(&l, BED_WAIT_MS) == -ECONNREFUSED);
	NEED(!ask(&good, BED_WAIT_MS)); /* the truth is taken */
	return 0;
}

START_TEST(false_descriptors_are_refused)
{
	struct wvm_clients_counters c;
	unsigned fds;

	prepare(0, lie_about_descriptors);
	prepare(1, behave);
	start((unsigned)_i);
	fds = count_fds();
	begin(0);
	finish(0);
	begin(1);
	finish(1);
	until(count_fds() == fds);
	wvm_clients_counters(bed->clients, &c);
	ck_assert_uint_eq(c.refused, 22);
	ck_assert_uint_eq(c.attached, 2);
	bed_stop();
}
END_TEST

/* The lock is the only word for a pid: without one there is no client. */
static int claim_without_lock(void)
{
	struct liar l;

	NEED(!become_liar(&l, 5, false));
	NEED(ask(&l, 100) == 1);
	return 0;
}

START_TEST(claim_without_a_lock_is_ignored)
{
	struct wvm_clients_counters c;

	prepare(0, claim_without_lock);
	prepare(1, behave);
	start((unsigned)_i);
	begin(0);
	finish(0);
	begin(1);
	finish(1);
	wvm_clients_counters(bed->clients, &c);
	ck_assert_uint_eq(c.refused, 0);
	ck_assert_uint_eq(c.attached, 1);
	bed_stop();
}
END_TEST

static int claim_garbage(void)
{
	uint64_t r = 0x2545f4914f6cdd1dull;
	struct liar l;

	NEED(!become_liar(&l, 9, true));
	for (unsigned i = 0; i < 500; i++) {
		uint64_t boot = l.claim.boot_id;
		uint32_t shards = l.claim.shard_count;
		uint8_t *at = (uint8_t *)&l.claim;

		for (size_t n = 0; n < sizeof(l.claim); n++)
			at[n] = (uint8_t)next_random(&r);
		if (i % 4)
			l.claim.boot_id = boot;
		if (i % 8 > 1)
			l.claim.shard_count = shards;
		if (i % 16 > 3) /* descriptors that may exist */
			for (unsigned k = 0; k < WVM_RING_SHARDS_MAX; k++)
				l.claim.uffd_fd[k] = (int)(next_random(&r) % 16);
		write_claim(&l);
		l.claim.boot_id = boot;
		l.claim.shard_count = shards;
	}
	/* And all over the other slots and the header. */
	for (unsigned i = 0; i < 500; i++) {
		uint64_t value = next_random(&r);

		if (pwrite(l.ring, &value, 8, (int64_t)(next_random(&r) % WVM_RING_FILE_BYTES)) < 0)
			return 1;
	}
	return 0;
}

START_TEST(garbage_in_the_ring_file_does_no_harm)
{
	struct wvm_ring_header h;
	int fd;

	prepare(0, claim_garbage);
	prepare(1, behave);
	start((unsigned)_i);
	fd = open(bed->ring, O_RDWR);
	ck_assert_int_eq(pread(fd, &h, sizeof(h), 0), sizeof(h));
	begin(0);
	finish(0);
	ck_assert_int_eq(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	begin(1);
	finish(1);
	bed_stop();
	close(fd);
}
END_TEST

static int truncate_the_file(void)
{
	int fd = open(stage->text, O_RDWR);
	struct wvm *w;

	NEED(fd >= 0 && !ftruncate(fd, 0));
	NEED(wvm_attach(&w, stage->text) == -EPROTO);
	sem_post(&stage->to_test);
	wait_for(&stage->to_client);
	return 0;
}

static int behave_meanwhile(void)
{
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, GIB, WVM_STRICT);
	NEED(m);
	sem_post(&stage->to_test);
	wait_for(&stage->end);
	for (uint64_t p = 0; p < 10; p++)
		*word(m, p, 0) = p;
	NEED(!wvm_pin(w, m, 4096));
	NEED(!wvm_unmap(w, m, GIB));
	wvm_detach(w);
	return 0;
}

START_TEST(truncated_ring_file_ends_nobody)
{
	prepare(0, behave_meanwhile);
	prepare(1, truncate_the_file);
	start((unsigned)_i);
	begin(0);
	wait_for(&stage->to_test);
	begin(1);
	wait_for(&stage->to_test);
	sem_post(&stage->end);
	finish(0);
	sem_post(&stage->to_client);
	finish(1);
	bed_stop();
}
END_TEST

/* --- the channel ------------------------------------------------------------------- */

/* Breaks its channel in one of several ways, holding a page Modified, and tries to store on. */
static int break_channel(void)
{
	struct wvm_ring_req req = {.token = 1};
	uint64_t r = 88172645463325252ull + stage->value;
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, GIB, WVM_STRICT);
	NEED(m);
	*word(m, 1, 0) = 1;
	switch (stage->value) {
	case 0: /* a type that is none */
		NEED(!wvm_spsc_push(&w->tx, 999, &req, sizeof(req)));
		break;
	case 1: /* a body that is too short */
		NEED(!wvm_spsc_push(&w->tx, WVM_RING_MAP, &req, sizeof(req) - 1));
		break;
	case 2: /* records without end and sense */
		for (size_t i = 0; i < WVM_CHANNEL_BYTES; i++)
			w->channel[i] = (uint8_t)(next_random(&r) | 1);
		break;
	case 3: /* a head that cannot be: the answer has no place */
		((struct wvm_spsc_mem *)(void *)(w->channel + WVM_CHANNEL_RING_BYTES))->head =
			~0ull;
		for (unsigned i = 0; i < 120; i++)
			wvm_spsc_push(&w->tx, WVM_RING_STATS, &req, sizeof(req));
		break;
	case 4: /* answers are never taken: the helper is gone */
		wvm_helper_stop(w);
		for (unsigned i = 0; i < 5000; i++) {
			if (wvm_spsc_push(&w->tx, WVM_RING_STATS, &req, sizeof(req)))
				usleep(100);
			eventfd_write(w->to_master_fd, 1);
		}
		break;
	}
	eventfd_write(w->to_master_fd, 1);
	sem_post(&stage->to_test);
	for (;;) {
		*word(m, 1, 0) = ++stage->counter;
		if (stage->counter > 1u << 30)
			return 0;
	}
}

START_TEST(broken_client_is_not_heard_and_cannot_store_unseen)
{
	struct wvm_clients_counters c;
	uint64_t seen;

	prepare(0, break_channel);
	prepare(1, behave);
	start(2);
	stage->value = (uint64_t)_i;
	begin(0);
	wait_for(&stage->to_test);
	do {
		usleep(1000);
		wvm_clients_counters(bed->clients, &c);
	} while (!c.broken);
	take_back(1);
	seen = bed->stored[1][0];
	begin(1);
	finish(1); /* writes page 1 itself and reads it back */
	ck_assert_uint_eq(file_word(1, 0), 2);
	ck_assert_uint_le(GET(stage->counter), seen + 1);
	take_back(1);
	ck_assert(!wvm_mem_present(bed->vm, 1));
	kill_client(0);
	for (unsigned k = 0; k < 2; k++)
		until(GET(bed->gone[k]) == 2);
	wvm_clients_counters(bed->clients, &c);
	ck_assert_uint_eq(c.broken, 1);
	bed_stop();
}
END_TEST

static int ask_impossible_things(void)
{
	const struct {
		enum wvm_ring_msg type;
		struct wvm_ring_req req;
		int expect;
	} cases[] = {
		{WVM_RING_MAP, {.vm_id = BED_VM, .addr = 1 << 20, .len = 4096, .mode = 2}, -EINVAL},
		{WVM_RING_MAP, {.vm_id = BED_VM, .addr = 4097, .len = 4096}, -EINVAL},
		{WVM_RING_MAP, {.vm_id = BED_VM, .addr = ~4095ull, .len = 8192}, -EINVAL},
		{WVM_RING_MAP, {.vm_id = BED_VM, .addr = 1 << 20, .len = ~4095ull}, -EINVAL},
		{WVM_RING_MAP,
		 {.vm_id = BED_VM, .addr = 1 << 20, .gpa = ~4095ull, .len = 4096},
		 -ERANGE},
		{WVM_RING_MAP, {.vm_id = 77, .addr = 1 << 20, .len = 4096}, -ENXIO},
		{WVM_RING_UNMAP, {.vm_id = BED_VM, .len = 4096}, -ENOENT},
		{WVM_RING_UNMAP, {.vm_id = 77, .len = ~0ull, .gpa = ~0ull}, -ENOENT},
		{WVM_RING_PIN, {.vm_id = 77, .len = 4096}, -ENXIO},
		{WVM_RING_PIN, {.vm_id = BED_VM, .gpa = 1, .len = 4096}, -EINVAL},
		{WVM_RING_PIN, {.vm_id = BED_VM, .gpa = ~4095ull, .len = 8192}, -EINVAL},
		{WVM_RING_PIN, {.vm_id = BED_VM, .gpa = 0, .len = ~4095ull}, -EINVAL},
		{WVM_RING_UNPIN, {.vm_id = BED_VM, .gpa = 0, .len = 4096}, -EINVAL},
		{WVM_RING_WHERE, {.vm_id = BED_VM, .gpa = ~0ull}, -ERANGE},
	};
	struct wvm *w;

	NEED(!wvm_attach(&w, stage->text));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wvm_ring_req req = cases[i].req;
		int64_t result = wvm_call(w, cases[i].type, &req, NULL, BED_WAIT_MS);

		if (result != cases[i].expect)
			fprintf(stderr, "case %zu: %d\n", i, (int)result);
		NEED(result == cases[i].expect);
	}
	wvm_detach(w);
	return 0;
}

START_TEST(impossible_requests_are_answered_with_an_error)
{
	struct wvm_clients_counters c;

	prepare(0, ask_impossible_things);
	start((unsigned)_i);
	begin(0);
	finish(0);
	wvm_clients_counters(bed->clients, &c);
	ck_assert_uint_eq(c.broken, 0);
	bed_stop();
}
END_TEST

/* A longer body is one of a later version: what we know of it counts. */
static int send_longer(void)
{
	uint8_t body[sizeof(struct wvm_ring_req) + 200] = {0};
	struct wvm_ring_req req = {.token = 5, .vm_id = BED_VM, .gpa = GIB};
	struct wvm *w;

	NEED(!wvm_attach(&w, stage->text));
	memcpy(body, &req, sizeof(req));
	pthread_mutex_lock(&w->lock);
	w->next_token = 5;
	w->calls[0] = (struct call){.token = 5};
	NEED(!wvm_spsc_push(&w->tx, WVM_RING_WHERE, body, sizeof(body)));
	pthread_mutex_unlock(&w->lock);
	eventfd_write(w->to_master_fd, 1);
	for (unsigned ms = 0; ms < BED_WAIT_MS && !GET(w->calls[0].done); ms++)
		usleep(1000);
	NEED(w->calls[0].done && w->calls[0].result == 101);
	w->calls[0].token = 0;
	wvm_detach(w);
	return 0;
}

START_TEST(longer_request_of_a_later_version_is_understood)
{
	prepare(0, send_longer);
	start((unsigned)_i);
	begin(0);
	finish(0);
	bed_stop();
}
END_TEST

/* Not of libwavevm's: it says nothing of an answer that it does not wait for. */
static int ask_without_a_token(void)
{
	struct wvm_ring_req req = {.vm_id = BED_VM, .gpa = GIB};
	struct wvm_ring_reply reply;
	uint8_t body[256];
	uint32_t type;
	struct wvm *w;
	int len;

	NEED(!wvm_attach(&w, stage->text));
	wvm_helper_stop(w); /* we take what comes */
	NEED(!wvm_spsc_push(&w->tx, WVM_RING_WHERE, &req, sizeof(req)));
	eventfd_write(w->to_master_fd, 1);
	for (unsigned ms = 0; ms < BED_WAIT_MS; ms++) {
		len = wvm_spsc_pop(&w->rx, &type, body, sizeof(body));
		if (len != -EAGAIN)
			break;
		usleep(1000);
	}
	NEED(len >= (int)sizeof(reply) && type == WVM_RING_REPLY);
	memcpy(&reply, body, sizeof(reply));
	NEED(!reply.token && reply.result == 101);
	return 0;
}

START_TEST(a_request_without_a_token_is_answered)
{
	prepare(0, ask_without_a_token);
	start((unsigned)_i);
	begin(0);
	finish(0);
	bed_stop();
}
END_TEST

/* Faults whose address belongs to another shard: only a client that registers wrongly has them. */
static int cross_the_shards(void)
{
	struct uffdio_range range;
	struct uffdio_register reg;
	struct wvm *w;
	uint8_t *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, 2 * GIB, WVM_STRICT);
	NEED(m);
	range = (struct uffdio_range){(uintptr_t)m, GIB};
	reg = (struct uffdio_register){.range = range, .mode = UFFDIO_REGISTER_MODE_MISSING};
	NEED(!ioctl(w->uffd[0], UFFDIO_UNREGISTER, &range));
	NEED(!ioctl(w->uffd[1], UFFDIO_REGISTER, &reg));
	*(volatile char *)m = 1;
	return 1;
}

START_TEST(fault_at_the_wrong_shard_breaks_only_its_client)
{
	struct wvm_clients_counters c;

	prepare(0, cross_the_shards);
	prepare(1, behave);
	start(2);
	begin(0);
	do {
		usleep(1000);
		wvm_clients_counters(bed->clients, &c);
	} while (!c.broken);
	begin(1);
	finish(1);
	kill_client(0);
	bed_stop();
}
END_TEST

/* exec gives the lock and the memory up but not the pid: the slot is free for the next. */
static int exec_something(void)
{
	struct wvm *w;
	void *m;

	NEED(!wvm_attach(&w, stage->text));
	m = wvm_map(w, BED_VM, 0, GIB, WVM_STRICT);
	NEED(m);
	*word(m, 1, 0) = 11;
	execl("/bin/sleep", "sleep", "1000", (char *)NULL);
	return 1;
}

static bool is_called(pid_t pid, const char *name)
{
	char path[64], comm[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	if (!f || !fgets(comm, sizeof(comm), f))
		comm[0] = '\0';
	if (f)
		fclose(f);
	return !strncmp(comm, name, strlen(name));
}

START_TEST(client_that_called_exec_is_found_out_by_its_memory)
{
	prepare(0, exec_something);
	prepare(1, behave);
	start((unsigned)_i);
	begin(0);
	until(is_called(client_pid[0], "sleep"));
	downgrade(1); /* the first ioctl on its memory */
	for (unsigned k = 0; k < (unsigned)_i; k++)
		until(GET(bed->gone[k]) == 1);
	ck_assert_uint_eq(file_word(1, 0), 11);
	begin(1);
	finish(1);
	ck_assert_uint_eq(file_word(1, 0), 2);
	kill_client(0);
	bed_stop();
}
END_TEST

/* --- permission ------------------------------------------------------------------- */

static void do_drop_ptrace(uint64_t unused)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];

	ck_assert_int_eq(syscall(SYS_capget, &h, d), 0);
	d[0].effective &= ~(1u << CAP_SYS_PTRACE);
	d[0].permitted &= ~(1u << CAP_SYS_PTRACE);
	ck_assert_int_eq(syscall(SYS_capset, &h, d), 0);
}

static int be_forbidden(void)
{
	struct wvm *w;

	NEED(wvm_attach(&w, stage->text) == -EPERM);
	NEED(strstr(wvm_attach_error(), "CAP_SYS_PTRACE"));
	NEED(strstr(wvm_attach_error(), "ptrace_scope"));
	return 0;
}

START_TEST(master_without_ptrace_permission_says_what_to_set)
{
	prepare(0, be_forbidden);
	start((unsigned)_i);
	on_shard(0, do_drop_ptrace, 0);
	begin(0);
	finish(0);
	ck_assert_ptr_nonnull(strstr(bed->last_log, "refused"));
	bed_stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("clients_hostile");
	TCase *tc = tcase_create("hostile");
	SRunner *sr = srunner_create(s);
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
#define EACH(name) tcase_add_loop_test(tc, name, 1, BED_SHARDS + 1)
	EACH(false_descriptors_are_refused);
	EACH(claim_without_a_lock_is_ignored);
	EACH(garbage_in_the_ring_file_does_no_harm);
	EACH(truncated_ring_file_ends_nobody);
	EACH(impossible_requests_are_answered_with_an_error);
	EACH(longer_request_of_a_later_version_is_understood);
	EACH(a_request_without_a_token_is_answered);
	EACH(client_that_called_exec_is_found_out_by_its_memory);
	EACH(master_without_ptrace_permission_says_what_to_set);
#undef EACH
	tcase_add_loop_test(tc, broken_client_is_not_heard_and_cannot_store_unseen, 0, 5);
	tcase_add_test(tc, fault_at_the_wrong_shard_breaks_only_its_client);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	name_files();
	srunner_run_all(sr, CK_ENV);
	remove_files();
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}
