/* Time and chance. */
#include <time.h>
#include <x86intrin.h>

#include "roles/check/litmus/litmus.h"

#define SLEEP_US 60u

uint64_t litmus_random(uint64_t *state)
{
	uint64_t v = *state += UINT64_C(0x9e3779b97f4a7c15);

	v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
	return v ^ v >> 31;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t litmus_ticks_per_us(void)
{
	static uint64_t ticks;

	if (!ticks) {
		uint64_t start_ns = now_ns(), start = __rdtsc(), ns;

		while ((ns = now_ns() - start_ns) < 2000000)
			;
		ticks = (__rdtsc() - start) * 1000 / ns;
	}
	return ticks ? ticks : 1;
}

void litmus_sleep(struct litmus_frame *f)
{
	struct timespec t = {.tv_nsec = (long)(litmus_random(&f->random) % (SLEEP_US * 1000))};

	nanosleep(&t, NULL);
}

void litmus_pause(struct litmus_frame *f)
{
	uint64_t ticks, start;

	if (!f->delay_ticks)
		return;
	ticks = litmus_random(&f->random) % f->delay_ticks;
	start = __rdtsc();
	while (__rdtsc() - start < ticks)
		_mm_pause();
}
