/* Where the vCPUs go that do not stay here, when remote= does not say it: by the topology. */
#include "qemu/osdep.h"

#include "accel.h"
#include "qemu/error-report.h"
#include "shared/deal.h"
#include "shared/wavevm_vcpu.h"

/* Nodes that have cores, this one last, and what their slaves say. */
struct candidates {
	struct wvm_node_info *nodes;
	struct wvm_vcpu_met *met;
	unsigned count;
};

static bool find_candidates(struct candidates *c, Error **errp)
{
	struct wvm *w = wvm_qemu_cluster();
	int count = wvm_nodes(w, NULL, 0), i;

	if (count >= 0) {
		c->nodes = g_new0(struct wvm_node_info, count);
		c->met = g_new0(struct wvm_vcpu_met, count);
		count = wvm_nodes(w, c->nodes, count);
	}
	if (count < 0) {
		error_setg(errp, "wavevm: %s; say by remote=NODE:NODE:... where vCPUs go",
			   wvm_attach_error());
		return false;
	}
	for (i = 0; i < count; i++) {
		if (!c->nodes[i].cores)
			continue;
		c->nodes[c->count] = c->nodes[i];
		c->met[c->count++].node = c->nodes[i].id;
	}
	return true;
}

static bool ask_slaves(struct candidates *c, Error **errp)
{
	unsigned vcpu = wvm_qemu_placement.split;
	struct wvm_vcpu_link *link;
	int ret = wvm_vcpu_open(&link, wvm_qemu_cluster(), wvm_qemu_vm_id(), vcpu);

	if (!ret) {
		ret = wvm_vcpu_meet_slaves(link, c->met, c->count);
		wvm_vcpu_close(link);
	}
	if (ret < 0)
		error_setg(errp, "wavevm: vCPU %u: %s", vcpu, wvm_vcpu_error());
	return ret >= 0;
}

/* Why the slave of a node runs no vCPU of ours; NULL: it does. */
static const char *unfit(const struct wvm_vcpu_met *met)
{
	if (!met->life)
		return "no slave answers there; start wavevm_node_slave";
	if (!(met->hello.engines & 1u << WVM_VCPU_ENGINE_TCG))
		return "the slave there has no TCG; start it with --qemu";
	return NULL;
}

/* Says which nodes are left out; that this one has no slave is nothing to wonder at. */
static unsigned keep_fit(struct candidates *c, struct wvm_deal_node *fit)
{
	unsigned self = wvm_node_id(wvm_qemu_cluster()), count = 0, i;

	for (i = 0; i < c->count; i++) {
		unsigned id = c->nodes[i].id;

		if (!unfit(&c->met[i]))
			fit[count++] = (struct wvm_deal_node){
				.id = id,
				.cores = c->nodes[i].cores,
				.vcpus = id == self ? wvm_qemu_placement.split : 0};
	}
	for (i = 0; count && i < c->count; i++)
		if (unfit(&c->met[i]) && c->nodes[i].id != self)
			warn_report("wavevm: node %u gets no vCPU: %s", c->nodes[i].id,
				    unfit(&c->met[i]));
	return count;
}

bool wvm_qemu_deal(uint32_t vcpus, Error **errp)
{
	g_autofree struct wvm_node_info *nodes = NULL;
	g_autofree struct wvm_vcpu_met *met = NULL;
	g_autofree struct wvm_deal_node *fit = NULL;
	struct candidates c = {0};
	bool asked = find_candidates(&c, errp);
	unsigned count;

	nodes = c.nodes;
	met = c.met;
	if (!asked || !ask_slaves(&c, errp))
		return false;
	fit = g_new0(struct wvm_deal_node, c.count);
	count = keep_fit(&c, fit);
	wvm_qemu_placement.nodes = g_new0(uint32_t, vcpus);
	wvm_qemu_placement.count = wvm_deal(fit, count, wvm_qemu_placement.nodes, vcpus);
	if (wvm_qemu_placement.count)
		return true;
	error_setg(errp,
		   "wavevm: split=%" PRIu32 " leaves %" PRIu32
		   " of the vCPUs to other nodes, and of the %u "
		   "that have cores in the topology none has a slave with TCG; start "
		   "wavevm_node_slave --qemu ... there",
		   wvm_qemu_placement.split, vcpus, c.count);
	return false;
}
