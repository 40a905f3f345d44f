/*
 * Damages pages of a running guest's memory behind its back, to prove that the
 * guest's test (deploy/guest) notices.
 *   corrupt FILE flip|zero|swap
 * FILE is the guest's RAM. Pages that hold the guest's pattern are recognised
 * by their first words; COUNT of them, spread over the file, are damaged: one
 * bit is flipped, all is zeroed, or two of them trade places.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deploy/guest/guest.h"

#define COUNT 8

struct guest guest;

void report(const char *format, ...)
{
	(void)format;
}

static bool has_pattern(const uint64_t *words)
{
	return words[0] && words[1] == words[0] + (mix(words[0]) | 1);
}

static void damage(const char *how, uint64_t *page, uint64_t *previous)
{
	static uint64_t copy[PAGE_WORDS];

	if (!strcmp(how, "flip")) {
		page[PAGE_WORDS / 2] ^= 1u << 7;
	} else if (!strcmp(how, "zero")) {
		memset(page, 0, PAGE_SIZE);
	} else if (previous) {
		memcpy(copy, page, PAGE_SIZE);
		memcpy(page, previous, PAGE_SIZE);
		memcpy(previous, copy, PAGE_SIZE);
	}
}

int main(int argc, char **argv)
{
	const int fd = argc == 3 ? open(argv[1], O_RDWR) : -1;
	uint64_t *memory, *previous = NULL;
	unsigned damaged = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		fprintf(stderr, "usage: corrupt FILE flip|zero|swap\n");
		return 2;
	}
	memory = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return 2;
	for (unsigned part = 0; part < COUNT; part++) {
		const size_t pages = (size_t)st.st_size / PAGE_SIZE;

		for (size_t p = pages * part / COUNT; p < pages * (part + 1) / COUNT; p++) {
			uint64_t *page = memory + p * PAGE_WORDS;

			if (!has_pattern(page))
				continue;
			damage(argv[2], page, previous);
			previous = page;
			damaged++;
			break;
		}
	}
	printf("%u pages damaged\n", damaged);
	return damaged > 1 ? 0 : 1;
}
