/*
 * One core among hostile members: they send any messages that decode, with ids
 * and versions that mean something, while programs fault, pin and leave, the
 * RAM file runs out of room and time passes. No assertion is reached, every
 * action fits the state of the node, all pools stay whole, and whoever waits is
 * answered when all have fallen silent.
 */
#include "shared/core/fuzz/hostile.h"

#define OPS_MAX 400u

static const uint8_t types[] = {
	WVM_MSG_MEM_READ,  WVM_MSG_MEM_ACQUIRE,          WVM_MSG_MEM_ACK,    WVM_MSG_INVALIDATE,
	WVM_MSG_DOWNGRADE, WVM_MSG_FETCH_AND_INVALIDATE, WVM_MSG_WRITE_BACK, WVM_MSG_INVALIDATE_ACK,
	WVM_MSG_NOT_HELD,  WVM_MSG_WRITE_BACK_ACK,       WVM_MSG_LOST,       WVM_MSG_WRONG_HOME,
	WVM_MSG_MEM_ACK,   WVM_MSG_WRITE_BACK,
};

static void step(struct fuzz_in *in)
{
	uint8_t op = fuzz_u8(in), arg;

	if (op < 144) {
		message(in, types, sizeof(types));
		return;
	}
	arg = fuzz_u8(in);
	switch ((op - 144) / 16) {
	case 0:
	case 1: node_fault(&node, arg % PAGES, arg / 64 % 2, arg >> 3 & 1); break;
	case 2: node_pin(&node, arg % PAGES); break;
	case 3: node_unpin(&node, arg % PAGES); break;
	case 4: node_gone(&node, arg % CLIENTS); break;
	case 5:
		if (arg < 32)
			wvm_core_serve(node.core, arg & 1);
		else
			node.fail_installs = arg & 3;
		break;
	default: pass_by(fuzz_u8(in)); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	uint8_t how = fuzz_u8(&in);

	if (!member_list[1].vnodes)
		cluster_init();
	node_open(&node, SELF, how & 1 ? &tight : &roomy, how);
	ids = grants = versions = (struct pool){.next = 1};
	counter = 0;
	for (unsigned i = 0; i < OPS_MAX && in.left; i++)
		step(&in);
	settle();
	node_close(&node);
	return 0;
}
