/* NUMA nodes, as this kernel sees those that QEMU's -numa made. */
#include "guest.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NODES_MAX 64u

static FILE *node_file(unsigned node, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/%s", node, name);
	return fopen(path, "re");
}

/* False if there is no such node. */
static bool show_node(unsigned node)
{
	FILE *cpus = node_file(node, "cpulist"), *memory = node_file(node, "meminfo");
	char list[64] = "";
	unsigned long kib = 0;

	if (cpus && memory) {
		if (!fgets(list, sizeof(list), cpus) ||
		    fscanf(memory, "Node %*u MemTotal: %lu", &kib) != 1)
			report("node %u does not say what it has", node);
		list[strcspn(list, "\n")] = '\0';
		printf("numa       node %u: processors %s, %lu MiB\n", node, *list ? list : "none",
		       kib / 1024);
	}
	if (cpus)
		fclose(cpus);
	if (memory)
		fclose(memory);
	return cpus && memory;
}

void show_nodes(void)
{
	unsigned node = 0;

	while (node < NODES_MAX && show_node(node))
		node++;
}

static int node_of(void *address)
{
	int node = -1;

	if (syscall(SYS_get_mempolicy, &node, NULL, 0ul, address, MPOL_F_NODE | MPOL_F_ADDR))
		return -errno;
	return node;
}

void bind_memory(unsigned node)
{
	const unsigned long mask = 1ul << node;
	char *page;

	if (node >= NODES_MAX - 1 || syscall(SYS_set_mempolicy, MPOL_BIND, &mask, NODES_MAX)) {
		report("memory cannot be bound to node %u: %s", node, strerror(errno));
		return;
	}
	page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED) {
		report("no memory on node %u", node);
		return;
	}
	page[0] = 1;
	if (node_of(page) != (int)node)
		report("memory bound to node %u is on node %d", node, node_of(page));
	munmap(page, PAGE_SIZE);
	printf("numa       memory bound to node %u\n", node);
}
