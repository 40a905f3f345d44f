/*
 * The control port: operator commands over UDP, every one answered. A request
 * is one datagram; an answer is text (JSON) in numbered parts of at most
 * WVM_CONTROL_PART bytes, asked for one by one, so that no datagram exceeds an
 * MTU and a lost one is asked for again.
 *
 *   request  magic "WVMC" 4 | op 2 | part 2 | snapshot 4 | vm_id 2 | zero 2 | operand 8
 *   answer   magic "WVMC" 4 | op + 0x8000 2 | part 2 | snapshot 4 | status 2 | parts 2 | text
 *
 * All big-endian. Part 0 makes a snapshot of the answer; later parts name it.
 */
#ifndef WVM_CONTROL_H
#define WVM_CONTROL_H

#include <stdint.h>

#define WVM_CONTROL_MAGIC         0x57564d43u /* "WVMC" */
#define WVM_CONTROL_ANSWER        0x8000u
#define WVM_CONTROL_REQUEST_BYTES 24u
#define WVM_CONTROL_HEADER_BYTES  16u
#define WVM_CONTROL_PART          1024u

enum wvm_control_op {
	WVM_CONTROL_ROUTE_ADD = 1,      /* gateways; shared/control_route.h */
	WVM_CONTROL_ROUTE_DEL = 2,      /* likewise */
	WVM_CONTROL_ROUTE_ANNOUNCE = 3, /* likewise */
	WVM_CONTROL_ROUTE_DUMP = 4,     /* all routes of a gateway */
	/*
	 * operand: the phys_id of the node that is to leave, or to be let in; to any master. Ask
	 * again to hear how far it is: the order is given but once. A gateway: NOT_YET.
	 */
	WVM_CONTROL_DRAIN = 5,
	WVM_CONTROL_JOIN = 6,
	WVM_CONTROL_STATUS = 64,  /* who the node is, its VMs, clients, pages, placement */
	WVM_CONTROL_STATS = 65,   /* every counter, and the fault histograms */
	WVM_CONTROL_WHERE = 66,   /* operand: gpa. Slice, home, and this node's part in the page */
	WVM_CONTROL_TRACE = 67,   /* operand: ms from now on that faults are traced; 0: no more */
	WVM_CONTROL_STAMPS = 68,  /* operand: shard << WVM_CONTROL_SHARD_SHIFT | first. What the
				   * trace of that shard has from stamp number `first` on */
	WVM_CONTROL_VCPUS = 69,   /* processors of programs here that may run on other nodes */
	WVM_CONTROL_MOVE = 70,    /* operand: vcpu << WVM_CONTROL_VCPU_SHIFT | token << 32 | node.
				   * That one shall run there. Ask again to hear whether it does; the
				   * token (not 0) says that it is the same order */
	WVM_CONTROL_MEMBERS = 71, /* who answers, by gossip */
	WVM_CONTROL_EPOCH = 72,   /* the present record, and what is under way about the next */
};

enum wvm_control_status {
	WVM_CONTROL_OK = 0,
	WVM_CONTROL_UNKNOWN = 1, /* no such op */
	WVM_CONTROL_EXPIRED = 2, /* the snapshot is gone: begin again with part 0 */
	WVM_CONTROL_BAD_VM = 3,
	WVM_CONTROL_BAD_GPA = 4,
	WVM_CONTROL_BAD_SHARD = 5,
	WVM_CONTROL_BAD_VCPU = 6,   /* nobody here has that processor */
	WVM_CONTROL_LOCAL_VCPU = 7, /* its owner runs it itself */
	WVM_CONTROL_BAD_NODE = 8,
	WVM_CONTROL_NOT_YET = 9,      /* this version does not do that */
	WVM_CONTROL_BAD_LENGTH = 10,  /* the request is not as long as its op says */
	WVM_CONTROL_BAD_RANGE = 11,   /* vnodes beyond the last one, or none */
	WVM_CONTROL_BAD_HOP = 12,     /* no address of a host, or port 0, or the gateway itself */
	WVM_CONTROL_FULL = 13,        /* no room for one more route */
	WVM_CONTROL_NO_ROUTE = 14,    /* there was none to delete */
	WVM_CONTROL_FORBIDDEN = 15,   /* an announcement from a host that is no neighbour */
	WVM_CONTROL_MEMORY_ONLY = 16, /* a processor was to go to a node with 0 cores */
};

#define WVM_CONTROL_SHARD_SHIFT 48u
#define WVM_CONTROL_VCPU_SHIFT  56u
#define WVM_CONTROL_TOKEN_SHIFT 32u
#define WVM_CONTROL_NODE_MASK   UINT64_C(0xffffffff)
#define WVM_CONTROL_STAMPS_MAX  4096u /* in one answer */

#endif
