#include "roles/slave/check/fake_engine.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shared/engine.h"

static struct wvm_engine *engine;
static struct fake_counts *counts;

bool fake_engine_wanted(void)
{
	const char *role = getenv("WVM_ROLE");

	return getenv(WVM_ENGINE_ENV) && role && !strcmp(role, "SLAVE");
}

struct fake_counts *fake_counts(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *mem = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, sizeof(struct fake_counts)))
		mem = mmap(NULL, sizeof(struct fake_counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   0);
	if (fd >= 0)
		close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

static void on_kick(void *opaque, unsigned vcpu)
{
	(void)opaque;
	(void)vcpu;
}

static size_t answer(uint8_t *out, const struct wvm_vcpu_run *r, uint64_t seq)
{
	struct wvm_vcpu_exit e = {.kind = WVM_VCPU_EXIT_KICKED,
				  .flags = WVM_VCPU_EXIT_STATE,
				  .base = seq,
				  .state = r->state,
				  .state_len = r->state_len};
	static const uint8_t written = 0x5a;

	if (r->state[0] == FAKE_PORT)
		e = (struct wvm_vcpu_exit){.kind = WVM_VCPU_EXIT_PIO,
					   .flags = WVM_VCPU_EXIT_MIDWAY | WVM_VCPU_EXIT_WRITE,
					   .size = 1,
					   .count = 1,
					   .at = 0x3f8,
					   .data = &written,
					   .data_len = 1};
	if (r->state[0] == FAKE_LARGE) {
		memset(out + WVM_VCPU_EXIT_HEAD, 0x77, WVM_RUN_MAX - WVM_VCPU_EXIT_HEAD);
		e.state = NULL;
		e.state_len = WVM_RUN_MAX - WVM_VCPU_EXIT_HEAD;
	}
	return wvm_vcpu_exit_encode(out, WVM_RUN_MAX, &e);
}

static void execute(unsigned vcpu, uint64_t seq, const struct wvm_vcpu_run *r)
{
	static _Thread_local uint8_t out[WVM_RUN_MAX];

	__atomic_fetch_add(&counts->executed[vcpu][seq % FAKE_SEQS], 1, __ATOMIC_SEQ_CST);
	switch (r->state[0]) {
	case FAKE_DIE: _exit(7);
	case FAKE_REFUSE: wvm_engine_refuse(engine, vcpu, seq, WVM_RUN_BASE); return;
	case FAKE_LIE: wvm_engine_exit(engine, vcpu, seq, "nonsense", 8); return;
	case FAKE_SPIN:
		while (!wvm_engine_kicked(engine, vcpu))
			usleep(100);
		break;
	default: break;
	}
	wvm_engine_exit(engine, vcpu, r->state[0] == FAKE_WRONG ? seq + 1 : seq, out,
			answer(out, r, seq));
}

static void *run_vcpu(void *arg)
{
	unsigned vcpu = (unsigned)(uintptr_t)arg;
	static _Thread_local uint8_t in[WVM_RUN_MAX];
	struct wvm_vcpu_run r;
	uint64_t seq;
	int len;

	while ((len = wvm_engine_wait(engine, vcpu, in, sizeof(in), &seq)) >= 0) {
		if (wvm_vcpu_run_decode(in, (size_t)len, &r) || !r.state_len)
			wvm_engine_refuse(engine, vcpu, seq, WVM_RUN_MALFORMED);
		else
			execute(vcpu, seq, &r);
	}
	_exit(0);
}

int fake_engine(void)
{
	const char *path = getenv(FAKE_COUNTS_ENV);
	pthread_t thread;
	char err[160];

	counts = path ? fake_counts(path) : NULL;
	if (!counts || wvm_engine_open(&engine, on_kick, NULL, err, sizeof(err)))
		return 2;
	counts->pid = getpid();
	__atomic_fetch_add(&counts->starts, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 1; i < wvm_engine_vcpus(engine); i++)
		pthread_create(&thread, NULL, run_vcpu, (void *)(uintptr_t)i);
	run_vcpu(NULL);
	return 0;
}
