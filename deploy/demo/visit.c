/*
 * wvm_visit: another node's part in the demo. It maps the VM's memory on its
 * node and keeps touching pages that the guest uses: reads some, and adds 0 to
 * a word of others, atomically. That takes a page away from the guest, Modified
 * and all, and changes no bit, so the guest's own verification covers every
 * byte that travelled.
 */
#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/wavevm.h"

const char *argp_program_version = "wvm_visit " WVM_VERSION;

struct options {
	const char *ring;
	uint16_t vm;
	uint64_t rate; /* pages per second */
	uint64_t seed;
};

static volatile sig_atomic_t ended;

static void on_signal(int sig)
{
	ended = 1;
}

static const struct argp_option option_list[] = {
	{"vm", 'v', "ID", 0, "the VM (0)", 0},
	{"rate", 'r', "N", 0, "pages per second (1000)", 0},
	{"seed", 's', "N", 0, "which pages (1)", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'v': o->vm = (uint16_t)strtoul(arg, NULL, 0); break;
	case 'r': o->rate = strtoull(arg, NULL, 0); break;
	case 's': o->seed = strtoull(arg, NULL, 0); break;
	case ARGP_KEY_ARG:
		if (state->arg_num)
			argp_usage(state);
		o->ring = arg;
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static uint64_t random_step(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* Touches pages until told to end. Returns the number of pages. */
static uint64_t visit(char *memory, uint64_t pages, const struct options *o, uint64_t *taken)
{
	uint64_t x = o->seed * 0x9e3779b97f4a7c15 | 1, visited = 0, sum = 0;
	struct timespec pause = {0, (long)(1000000000 / (o->rate ? o->rate : 1))};

	if (o->rate <= 1)
		pause = (struct timespec){1, 0};
	for (; !ended; visited++) {
		uint64_t r = random_step(&x);
		uint64_t *word =
			(uint64_t *)(memory + (r >> 8) % pages * WVM_PAGE_SIZE + (r & 511) * 8);

		if (r >> 63) {
			__atomic_fetch_add(word, 0, __ATOMIC_SEQ_CST);
			++*taken;
		} else {
			sum += __atomic_load_n(word, __ATOMIC_RELAXED);
		}
		nanosleep(&pause, NULL);
	}
	__asm__ volatile("" : : "r"(sum)); /* the loads are the point */
	return visited;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_list,
		.parser = parse,
		.args_doc = "[RING]",
		.doc = "Touches a VM's pages from this node until SIGTERM, changing nothing.",
	};
	struct options o = {.rate = 1000, .seed = 1};
	uint64_t visited, taken = 0;
	struct sigaction sa = {.sa_handler = on_signal};
	struct wvm *w;
	int64_t size;
	char *memory;

	argp_err_exit_status = 1;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	if (wvm_attach(&w, o.ring)) {
		fprintf(stderr, "wvm_visit: %s\n", wvm_attach_error());
		return EXIT_FAILURE;
	}
	size = wvm_vm_size(w, o.vm);
	memory = size > 0 ? wvm_map(w, o.vm, 0, (size_t)size, WVM_STRICT) : NULL;
	if (!memory) {
		fprintf(stderr, "wvm_visit: VM %u: %s\n", o.vm,
			size < 0 ? strerror((int)-size) : wvm_attach_error());
		return EXIT_FAILURE;
	}
	printf("ready\n");
	fflush(stdout);
	visited = visit(memory, (uint64_t)size / WVM_PAGE_SIZE, &o, &taken);
	printf("visited %llu pages, %llu of them taken\n", (unsigned long long)visited,
	       (unsigned long long)taken);
	wvm_detach(w);
	return EXIT_SUCCESS;
}
