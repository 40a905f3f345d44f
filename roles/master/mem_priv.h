/* What mem.c (pages) and mem_open.c (the RAM file) share. */
#ifndef WVM_MASTER_MEM_PRIV_H
#define WVM_MASTER_MEM_PRIV_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "roles/master/mem.h"

struct wvm_mem {
	struct wvm_memory *node;
	uint64_t size; /* bytes */
	int fd;        /* of the RAM file; holds an open-file-description write lock on it */
	uint16_t vm_id;
	char path[WVM_RING_RAM_PATH]; /* absolute */
};

/* A client as one shard knows it. */
struct mem_client {
	int uffd;
	unsigned maps;
	struct wvm_mem_map map[WVM_MEM_MAPS_MAX];
};

/* Written by the shard's thread only; the counters are read by others. */
struct mem_shard {
	uint64_t known;                     /* clients added */
	uint64_t mappers[WVM_RING_VMS_MAX]; /* clients with a range of that VM */
	unsigned index;
	struct wvm_mem_counters counters;
	struct mem_client client[WVM_CLIENTS_MAX];
} __attribute__((aligned(64)));

struct wvm_memory {
	unsigned shards;
	unsigned vms; /* fixed when the shards start */
	const struct wvm_mem_ops *ops;
	void *ctx;
	bool no_poison; /* the kernel lacks UFFDIO_POISON */
	struct wvm_mem vm[WVM_RING_VMS_MAX];
	struct mem_shard shard[];
};

/* Closes the file; the name stays. */
void wvm_mem_close(struct wvm_mem *vm);

#endif
