#include "bench/wvmbench/peer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "bench/wvmbench/attach.h"
#include "bench/wvmbench/plan.h"

#define POLL_NS 2000000 /* rare enough not to be seen in the other side's measurement */

static void write_page(uint64_t *mem, uint64_t page, uint64_t generation)
{
	for (unsigned word = 0; word < PLAN_WORDS; word++)
		mem[word] = plan_pattern(page, word, generation);
}

static uint64_t read_page(const uint64_t *mem, uint64_t page, uint64_t generation)
{
	uint64_t wrong = 0;

	for (unsigned word = 0; word < PLAN_WORDS; word++)
		wrong += mem[word] != plan_pattern(page, word, generation);
	return wrong;
}

static uint64_t carry_out(const struct attached *a, const struct mailbox_command *c)
{
	uint64_t wrong = 0;

	for (unsigned i = 0; i < c->n_spans; i++)
		for (uint64_t k = 0; k < c->span[i].pages; k++) {
			uint64_t page = c->span[i].first + k;

			if (page >= a->pages - MAILBOX_PAGES)
				return UINT64_MAX;
			if (c->op == MAILBOX_WRITE)
				write_page(attached_page(a, page), page, c->generation);
			else
				wrong += read_page(attached_page(a, page), page, c->generation);
		}
	return wrong;
}

int peer_main(const struct peer_options *o)
{
	static struct mailbox_command command;
	const struct timespec pause = {.tv_nsec = POLL_NS};
	struct attached a;
	int rc = pin_to_core(o->core);

	if (rc < 0) {
		fprintf(stderr, "wvmbench: core %d: %s\n", o->core, strerror(-rc));
		return 1;
	}
	if (attach_vm(&a, o->ring, o->vm_id) < 0)
		return 1;
	mailbox_join(&a.mailbox);
	do {
		while (!mailbox_take(&a.mailbox, o->slot, &command))
			nanosleep(&pause, NULL);
		mailbox_answer(&a.mailbox, o->slot, a.node, carry_out(&a, &command));
	} while (command.op != MAILBOX_QUIT);
	detach_vm(&a);
	return 0;
}

pid_t peer_spawn(const struct peer_options *o)
{
	char slot[16], vm[16], core[16];
	pid_t parent = getpid(), pid = fork();

	if (pid != 0)
		return pid < 0 ? -errno : pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	snprintf(slot, sizeof(slot), "%u", o->slot);
	snprintf(vm, sizeof(vm), "%u", o->vm_id);
	snprintf(core, sizeof(core), "%d", o->core);
	if (o->core >= 0)
		execl("/proc/self/exe", "wvmbench", "peer", "--ring", o->ring, "--slot", slot,
		      "--vm", vm, "--core", core, NULL);
	else
		execl("/proc/self/exe", "wvmbench", "peer", "--ring", o->ring, "--slot", slot,
		      "--vm", vm, NULL);
	_exit(127);
}
