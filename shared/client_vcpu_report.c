/* Where a processor runs, for its master's operator; and the operator's orders to move it. */
#include <string.h>
#include <sys/eventfd.h>

#include "shared/client_vcpu_priv.h"

_Static_assert(WVM_VCPU_EXIT_KINDS <= WVM_VCPU_REPORT_EXITS, "every kind has a word");
_Static_assert(sizeof(struct wvm_vcpu_report) <= WVM_VCPU_ORDER_OFFSET, "they share no line");

static struct wvm_vcpu_report *report_in(struct wvm_vcpu_link *l)
{
	return (struct wvm_vcpu_report *)(void *)(l->mem + 2 * WVM_VCPU_RING_BYTES);
}

static uint64_t order_in(const struct wvm_vcpu_link *l)
{
	const uint8_t *at = l->mem + 2 * WVM_VCPU_RING_BYTES + WVM_VCPU_ORDER_OFFSET;

	return __atomic_load_n(&((const struct wvm_vcpu_order *)(const void *)at)->wanted,
			       __ATOMIC_ACQUIRE);
}

void wvm_vcpu_publish(struct wvm_vcpu_link *l)
{
	struct wvm_vcpu_report *r = &l->report;

	r->runs = l->counters.runs;
	r->retries = l->run.retries;
	r->bytes_sent = l->counters.bytes_sent;
	r->bytes_received = l->counters.bytes_received;
	if (l->mem)
		wvm_vcpu_report_write(report_in(l), r);
}

void wvm_vcpu_report(struct wvm_vcpu_link *l, const struct wvm_vcpu_where *where)
{
	struct wvm_vcpu_report *r = &l->report;

	pthread_mutex_lock(&l->lock);
	r->is = where->is;
	r->node = where->node;
	r->first = where->first;
	r->vcpus = where->vcpus;
	r->moves = where->moves;
	r->refused = where->refused;
	memcpy(r->exits, where->exits, sizeof(where->exits));
	wvm_vcpu_publish(l);
	pthread_mutex_unlock(&l->lock);
}

bool wvm_vcpu_wanted(struct wvm_vcpu_link *l, unsigned *node)
{
	eventfd_t rings;

	pthread_mutex_lock(&l->lock);
	(void)eventfd_read(l->order_fd, &rings);
	l->order = l->mem ? order_in(l) : 0;
	if (l->order == l->report.answered)
		l->order = 0;
	pthread_mutex_unlock(&l->lock);
	*node = (unsigned)(l->order & UINT32_MAX);
	return l->order;
}

void wvm_vcpu_obeyed(struct wvm_vcpu_link *l, enum wvm_vcpu_moved outcome, unsigned reason,
		     uint64_t took_ns)
{
	pthread_mutex_lock(&l->lock);
	l->report.outcome = outcome;
	l->report.reason = reason;
	l->report.took_ns = took_ns;
	l->report.answered = l->order;
	wvm_vcpu_publish(l);
	pthread_mutex_unlock(&l->lock);
}

int wvm_vcpu_order_fd(const struct wvm_vcpu_link *l)
{
	return l->order_fd;
}

void wvm_vcpus_ordered(struct wvm *w, const struct wvm_ring_order *o)
{
	for (struct wvm_vcpu_link *l = w->vcpus; l; l = l->next) {
		if (l->vm_id != o->vm_id || l->vcpu != o->vcpu)
			continue;
		(void)eventfd_write(l->order_fd, 1);
		wvm_vcpu_kick(l);
	}
}
