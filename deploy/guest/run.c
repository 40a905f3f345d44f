#include "guest.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct run {
	void (*fn)(unsigned thread);
	unsigned thread;
	pthread_t id;
};

static void *run_thread(void *arg)
{
	struct run *run = arg;
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(run->thread, &cpu);
	if (sched_setaffinity(0, sizeof(cpu), &cpu))
		report("thread %u cannot run on its processor", run->thread);
	run->fn(run->thread);
	return NULL;
}

void on_all_cpus(void (*fn)(unsigned thread))
{
	struct run *runs = calloc(guest.cpus, sizeof(*runs));
	unsigned i, started;

	if (!runs) {
		report("no memory for %u threads", guest.cpus);
		return;
	}
	for (i = 0; i < guest.cpus; i++) {
		runs[i].fn = fn;
		runs[i].thread = i;
		if (pthread_create(&runs[i].id, NULL, run_thread, &runs[i])) {
			report("cannot start thread %u", i);
			break;
		}
	}
	started = i;
	for (i = 0; i < started; i++)
		pthread_join(runs[i].id, NULL);
	free(runs);
}
