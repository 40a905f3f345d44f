/*
 * The configuration files, identical on all nodes:
 *
 *   NODE   <phys_id> <ip> <port> <cores> <ram_gb> [<ctrl_port>]      topology
 *   PLACE  <vm_id> <first_mib> <mib> <phys_id>         and what of a VM lives where
 *   SPARE  <phys_id>                                   and who homes nothing until it joins
 *   ROUTE  <first_vnode> <count> <next_hop_ip> <port>  gateway routes
 *   DEVICE <pci> <vfio group>                          passed-through devices,
 *   BAR<n> <gpa> <size>                                each with its BARs
 *   END
 *
 * Fields are separated by spaces or tabs, `#` begins a comment, lines hold at
 * most 255 characters. Numbers are decimal; gpa and size may be 0x… as well.
 *
 * Every loader returns 0, or -errno with one line in err ("FILE:LINE: field
 * 'text' is …", or "FILE: …" for what concerns the whole file): -EINVAL for a
 * malformed file, else why it could not be read (-ENOENT, -EACCES, -EFBIG,
 * -ENOMEM). On an error nothing is allocated. Each has a twin that parses len
 * bytes of memory, named name in errors. What is loaded belongs to the caller
 * until the matching free function; it is not written afterwards, so that any
 * thread may read it.
 */
#ifndef WVM_CONF_H
#define WVM_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/core/layout.h"
#include "shared/core/msg.h"

#define WVM_VNODE_GB     4u /* RAM behind one vnode id */
#define WVM_RAM_GB_MAX   (WVM_NODE_MAX * WVM_VNODE_GB)
#define WVM_CORES_MAX    65535u
#define WVM_GATEWAY_PORT 8000u
#define WVM_BARS_MAX     6u /* PCI */
#define WVM_DEVICES_MAX  256u

/* One NODE line. 32 bytes. */
struct wvm_conf_node {
	uint32_t phys_id; /* below WVM_NODE_MAX */
	uint32_t ip;      /* host order */
	uint16_t port;
	uint16_t cores;  /* 0: a node for memory only */
	uint32_t ram_gb; /* 1 to WVM_RAM_GB_MAX */
	uint32_t first_vnode;
	uint32_t vnode_count; /* ram_gb / WVM_VNODE_GB, at least 1 */
	uint32_t line;        /* of the file */
	uint16_t ctrl_port;   /* where its membership messages go; 0: that of whoever reads */
	bool spare;           /* a SPARE line names it */
	uint8_t zero;
};

/*
 * The nodes in the order of the file, which is the order in which vnode ids
 * are dealt. No two have the same phys_id, nor the same ip:port, save that of
 * a sidecar: with 127.x.y.z:8000 the line says "through this host's gateway".
 */
struct wvm_topology {
	struct wvm_conf_node *nodes;
	uint32_t *phys_order; /* indices of nodes, by phys_id */
	uint32_t count;       /* at least 1, of which at least 1 is no spare */
	uint32_t vnode_count; /* at most WVM_NODE_MAX; this and total_ram_gb with the spares */
	uint64_t total_ram_gb;
	/* PLACE lines, sorted; members are indices of nodes, none of them a spare. */
	struct wvm_layout_range *places;
	uint32_t place_count; /* at most WVM_LAYOUT_MAX */
};

int wvm_topology_load(struct wvm_topology *t, const char *path, char *err, size_t errlen);
int wvm_topology_parse(struct wvm_topology *t, const char *name, const char *text, size_t len,
		       char *err, size_t errlen);
void wvm_topology_free(struct wvm_topology *t);

/* The node with this physical id, or the one that a vnode id belongs to; NULL if there is none. */
const struct wvm_conf_node *wvm_topology_by_phys(const struct wvm_topology *t, uint32_t phys_id);
const struct wvm_conf_node *wvm_topology_by_vnode(const struct wvm_topology *t, uint32_t vnode);

/* The one with the next higher physical id; of the last one the one with the lowest. */
const struct wvm_conf_node *wvm_topology_after(const struct wvm_topology *t,
					       const struct wvm_conf_node *node);

/* True if messages to this node go through the gateway on this host (127.x.y.z:8000). */
bool wvm_conf_node_is_sidecar(const struct wvm_conf_node *node);

/* One ROUTE line. 20 bytes. */
struct wvm_route {
	uint32_t first_vnode;
	uint32_t vnode_count; /* 0: the default route */
	uint32_t ip;          /* host order */
	uint32_t line;        /* of the file */
	uint16_t port;
};

/* Ranges in ascending order, none overlapping another. A file without routes is allowed. */
struct wvm_routes {
	struct wvm_route *routes;
	uint32_t count;
	bool has_default; /* ROUTE 0 0 … */
	struct wvm_route fallback;
};

int wvm_routes_load(struct wvm_routes *r, const char *path, char *err, size_t errlen);
int wvm_routes_parse(struct wvm_routes *r, const char *name, const char *text, size_t len,
		     char *err, size_t errlen);
void wvm_routes_free(struct wvm_routes *r);

/* The route of a vnode: the range that holds it, else the default, else NULL. */
const struct wvm_route *wvm_routes_find(const struct wvm_routes *r, uint32_t vnode);

struct wvm_conf_bar {
	uint64_t gpa;  /* guest physical address, a multiple of size */
	uint64_t size; /* a power of two from 16 (PCI) to 2^40 */
	uint32_t line;
	uint8_t index; /* below WVM_BARS_MAX */
};

/* One DEVICE … END block with at least one BAR; BARs in the order of the file. */
struct wvm_device {
	char pci[16];   /* "0000:01:00.0" */
	uint32_t group; /* /dev/vfio/<group> */
	uint32_t line;
	uint32_t bar_count;
	struct wvm_conf_bar bars[WVM_BARS_MAX];
};

struct wvm_devices {
	struct wvm_device *devices; /* in the order of the file */
	uint32_t count;             /* 1 to WVM_DEVICES_MAX */
};

int wvm_devices_load(struct wvm_devices *d, const char *path, char *err, size_t errlen);
int wvm_devices_parse(struct wvm_devices *d, const char *name, const char *text, size_t len,
		      char *err, size_t errlen);
void wvm_devices_free(struct wvm_devices *d);

#endif
