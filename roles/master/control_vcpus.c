/* The control port's part about processors that may run on other nodes: where, and orders. */
#include "roles/master/control_priv.h"
#include "roles/master/node.h"
#include "shared/control.h"
#include "shared/core/run.h"
#include "shared/vcpu_report.h"

/* A program wrote it: whatever it is, it is to be a number in JSON. */
static void set_theirs(json_t *o, const char *key, uint64_t value)
{
	set(o, key, value > INT64_MAX ? INT64_MAX : value);
}

static void add_vcpu(void *ctx, uint16_t vm_id, unsigned vcpu, const struct wvm_vcpu_report *r)
{
	static const char *const states[WVM_VCPU_STATES] = {"unknown", "running", "halted", "lost"};
	uint64_t is = r->is < WVM_VCPU_STATES ? r->is : WVM_VCPU_IS_UNKNOWN;
	json_t *o = json_object(), *exits = json_object();

	set(o, "vm", vm_id);
	set(o, "vcpu", vcpu);
	json_object_set_new(o, "state", json_string(states[is]));
	if (is != WVM_VCPU_IS_UNKNOWN)
		set_theirs(o, "node", r->node);
	set_theirs(o, "runs", r->runs);
	set_theirs(o, "retries", r->retries);
	set_theirs(o, "bytes_sent", r->bytes_sent);
	set_theirs(o, "bytes_received", r->bytes_received);
	set_theirs(o, "moves", r->moves);
	set_theirs(o, "refused", r->refused);
	for (unsigned k = 1; k < WVM_VCPU_EXIT_KINDS; k++)
		if (r->exits[k])
			set_theirs(exits, wvm_vcpu_exit_name(k), r->exits[k]);
	json_object_set_new(o, "exits", exits);
	json_array_append_new(ctx, o);
}

json_t *wvm_control_vcpus(const struct wvm_node *n)
{
	json_t *o = json_object(), *list = json_array();

	set(o, "node", n->options->phys_id);
	wvm_clients_vcpu_each(n->clients, add_vcpu, list);
	json_object_set_new(o, "vcpus", list);
	return o;
}

/* ---- orders ---------------------------------------------------------------------------- */

struct local {
	uint16_t vm_id;
	unsigned vcpu;
	bool is;
};

/* Any other processor of a VM says which of them its owner runs itself. */
static void see_local(void *ctx, uint16_t vm_id, unsigned vcpu, const struct wvm_vcpu_report *r)
{
	struct local *l = ctx;

	l->is |= vm_id == l->vm_id && l->vcpu < r->first && l->vcpu < r->vcpus;
}

static uint16_t why_not(const struct wvm_node *n, uint16_t vm_id, unsigned vcpu)
{
	struct local l = {.vm_id = vm_id, .vcpu = vcpu};
	unsigned i = 0;

	while (i < n->vm_count && n->options->vms[i].id != vm_id)
		i++;
	if (i == n->vm_count)
		return WVM_CONTROL_BAD_VM;
	wvm_clients_vcpu_each(n->clients, see_local, &l);
	return l.is ? WVM_CONTROL_LOCAL_VCPU : WVM_CONTROL_BAD_VCPU;
}

json_t *wvm_control_move(struct wvm_node *n, uint16_t vm_id, uint64_t operand, uint16_t *status)
{
	static const char *const outcomes[WVM_VCPU_OUTCOMES] = {
		[WVM_VCPU_MOVED_NOT_YET] = "waits", [WVM_VCPU_MOVED] = "moved",
		[WVM_VCPU_MOVED_NOWHERE] = "there", [WVM_VCPU_MOVED_SILENT] = "silent",
		[WVM_VCPU_MOVED_ENGINE] = "engine", [WVM_VCPU_MOVED_REFUSED] = "refused",
		[WVM_VCPU_MOVED_LOST] = "lost",     [WVM_VCPU_MOVED_FAILED] = "failed"};
	unsigned vcpu = (unsigned)(operand >> WVM_CONTROL_VCPU_SHIFT);
	uint64_t wanted = operand & ((UINT64_C(1) << WVM_CONTROL_VCPU_SHIFT) - 1), outcome;
	const struct wvm_conf_node *to;
	struct wvm_vcpu_report r;
	json_t *o;

	to = wvm_topology_by_phys(&n->topology, (uint32_t)wanted);
	if (!to || !to->cores) {
		*status = to ? WVM_CONTROL_MEMORY_ONLY : WVM_CONTROL_BAD_NODE;
		return NULL;
	}
	if (!wvm_clients_vcpu_order(n->clients, vm_id, vcpu, wanted, &r)) {
		*status = why_not(n, vm_id, vcpu);
		return NULL;
	}
	outcome = r.answered == wanted ? r.outcome : WVM_VCPU_MOVED_NOT_YET;
	o = json_object();
	set(o, "vm", vm_id);
	set(o, "vcpu", vcpu);
	set(o, "to", (uint32_t)wanted);
	set_theirs(o, "node", r.node);
	json_object_set_new(
		o, "outcome",
		json_string(
			outcomes[outcome < WVM_VCPU_OUTCOMES ? outcome : WVM_VCPU_MOVED_FAILED]));
	json_object_set_new(o, "reason",
			    json_string(wvm_run_reason_text(
				    r.reason < WVM_RUN_REASONS ? (unsigned)r.reason : 0)));
	set_theirs(o, "took_us", r.took_ns / 1000);
	return o;
}
