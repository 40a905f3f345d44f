#include "roles/slave/slave.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ring/claim.h"
#include "ring/daemon.h"
#include "ring/post.h"
#include "shared/wire.h"

#define INBOX_SLOTS   1024u /* more than processors that are done at one time */
#define DOORBELLS     (2 * WVM_SLAVE_VMS_MAX)
#define BUFFERS_BYTES ((size_t)WVM_SLAVE_VCPUS_MAX * 2 * WVM_RUN_MAX)

static uint64_t wall_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/*
 * The loop has ended by itself: runs would hang in a process that looks alive. Its owners learn
 * by the silence that what they had here may have been executed.
 */
static void on_died(struct wvm_shard *s, void *ctx, bool ran)
{
	(void)ctx;
	(void)ran;
	wvm_log("stopped: %s", s->dead);
	_exit(EXIT_FAILURE);
}

static int make_shard(struct wvm_slave *s, char *err, size_t err_len)
{
	struct wvm_shard_opts o = {.name = "wvm-slave",
				   .kernel = &s->kernel,
				   .files = 64 + DOORBELLS,
				   .inbox_slots = INBOX_SLOTS,
				   .died = on_died};
	int r = wvm_kernel_probe(&s->kernel, err, err_len);

	return r ? r : wvm_shard_create(&s->shard, &o, err, err_len);
}

static int open_socket(struct wvm_slave *s, char *err, size_t err_len)
{
	struct wvm_udp_opts o = {.bind = {.sin_family = AF_INET,
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					  .sin_port = htons(s->options->port)},
				 .datagram = wvm_slave_datagram,
				 .room = wvm_slave_room,
				 .datagram_max = WVM_MTU_DEFAULT};
	void *ctx = s;
	int r;

	*err = 0;
	r = wvm_udp_open(&s->udp, &s->shard, &ctx, 1, &o, err, err_len);
	if (!r && *err)
		wvm_log("%s", err);
	return r;
}

/* Where processors run. What fails here is no reason not to run. */
static int place(struct wvm_slave *s, char *err, size_t err_len)
{
	unsigned cores = s->options->cores, pus = wvm_place_pus();
	int r = wvm_place_compute(s->places, cores, s->options->cpus, err, err_len);

	if (r)
		return r;
	if (cores > pus)
		wvm_log("%u cores are asked for, but this process may use %u CPU%s: processors "
			"share them",
			cores, pus, pus == 1 ? "" : "s");
	if (!s->places[0].real)
		return 0;
	s->claim_fd = wvm_claim(s->places, cores, !s->options->cpus, WVM_CLAIM_FILE);
	if (s->claim_fd < 0)
		wvm_log("cannot see which CPUs other daemons of this host use: %s: %s",
			WVM_CLAIM_FILE, strerror(-s->claim_fd));
	return 0;
}

static void find_engines(struct wvm_slave *s)
{
	if (wvm_engine_kvm_usable())
		s->engines |= 1u << WVM_VCPU_ENGINE_KVM;
	if (s->options->qemu[0])
		s->engines |= 1u << WVM_VCPU_ENGINE_TCG;
	if (!s->engines)
		wvm_log("neither KVM nor a QEMU is here: every run will be refused");
}

static int build(struct wvm_slave *s, char *err, size_t err_len)
{
	int r;

	s->claim_fd = -1;
	s->life = wall_ns();
	s->buffers = mmap(NULL, BUFFERS_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->buffers == MAP_FAILED) {
		snprintf(err, err_len, "no memory for %u processors", WVM_SLAVE_VCPUS_MAX);
		return -ENOMEM;
	}
	if ((r = place(s, err, err_len)) || (r = make_shard(s, err, err_len)) ||
	    (r = open_socket(s, err, err_len)))
		return r;
	find_engines(s);
	s->env = (struct wvm_engine_env){
		.shard = s->shard, .options = s->options, .places = s->places};
	if (!wvm_slave_find_master(s))
		wvm_log("no master yet: %s", wvm_attach_error());
	return 0;
}

static void unbuild(struct wvm_slave *s)
{
	wvm_udp_close(s->udp);
	wvm_shard_destroy(s->shard);
	if (s->ring)
		wvm_ring_file_put(s->ring);
	if (s->claim_fd >= 0)
		close(s->claim_fd);
	if (s->buffers != MAP_FAILED)
		munmap(s->buffers, BUFFERS_BYTES);
}

int wvm_slave_start(struct wvm_slave *s, const struct wvm_slave_options *options, char *err,
		    size_t err_len)
{
	int r;

	s->options = options;
	r = build(s, err, err_len);
	if (!r) {
		r = wvm_shard_start(s->shard);
		if (r)
			snprintf(err, err_len, "cannot start a thread: %s", strerror(-r));
	}
	if (r)
		unbuild(s);
	return r;
}

/* In the shard, whose loop ends after this turn. */
static void close_all(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	struct wvm_slave *s = ctx;

	(void)data;
	(void)len;
	for (unsigned i = 0; i < WVM_SLAVE_VMS_MAX; i++)
		if (s->vms[i].used)
			s->vms[i].ops->close(s->vms[i].engine);
	wvm_shard_stop(self);
}

int wvm_slave_stop(struct wvm_slave *s)
{
	int r;

	while (wvm_post_outside(s->shard, close_all, s, NULL, 0))
		usleep(1000); /* its inbox is full: it is busy taking results */
	r = wvm_shard_join(s->shard);
	if (r)
		wvm_log("ended by itself: %s", s->shard->dead);
	wvm_engine_kvm.stop();
	wvm_engine_process.stop();
	unbuild(s);
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}
