/* Runs of remote processors: what both sides need, and the names of the reasons. */
#include "shared/core/run.h"

#include "shared/core/run_parts.h"

static const char *const reasons[WVM_RUN_REASONS] = {
	[WVM_RUN_NO_REASON] = "no reason given",
	[WVM_RUN_OTHER_LIFE] = "the slave was started again meanwhile",
	[WVM_RUN_BUSY] = "the slave still runs this processor for an earlier life of the VM",
	[WVM_RUN_FULL] = "the slave has no room for one more processor",
	[WVM_RUN_BASE] = "the slave has not the state that this one differs from",
	[WVM_RUN_SETUP] = "the slave does not know the machine",
	[WVM_RUN_MALFORMED] = "the slave cannot make sense of the run",
	[WVM_RUN_ENGINE] = "the slave has no such engine, or it does not start",
};

const char *wvm_run_reason_text(unsigned reason)
{
	return reason < WVM_RUN_REASONS ? reasons[reason]
					: "a reason that this version does not know";
}

void wvm_run_parts_reset(struct wvm_run_parts *p)
{
	p->total = p->len = p->units = 0;
	for (unsigned i = 0; i < sizeof(p->have) / sizeof(p->have[0]); i++)
		p->have[i] = 0;
}

bool wvm_run_parts_add(struct wvm_run_parts *p, const struct wvm_msg *m, const uint8_t *payload)
{
	uint32_t end = m->seg_offset + m->payload_len;
	bool last = end + WVM_SEGMENT_UNIT > m->seg_total;

	if (!m->payload_len || m->seg_total > WVM_RUN_MAX || end > m->seg_total ||
	    m->seg_offset % WVM_SEGMENT_UNIT || (!last && m->payload_len % WVM_SEGMENT_UNIT) ||
	    (p->total && p->total != m->seg_total))
		return false;
	p->total = m->seg_total;
	if (last)
		p->len = end;
	__builtin_memcpy(p->buf + m->seg_offset, payload, m->payload_len);
	for (uint32_t unit = m->seg_offset / WVM_SEGMENT_UNIT; unit * WVM_SEGMENT_UNIT < end;
	     unit++) {
		uint64_t bit = UINT64_C(1) << unit % 64;

		p->units += !(p->have[unit / 64] & bit);
		p->have[unit / 64] |= bit;
	}
	return p->len && p->units * WVM_SEGMENT_UNIT == p->total;
}

void wvm_run_out_start(struct wvm_run_out *out, const void *data, uint32_t len)
{
	*out = (struct wvm_run_out){.data = data, .len = len, .end = len};
}

bool wvm_run_out_next(struct wvm_run_out *out, uint32_t segment, struct wvm_msg *m,
		      const uint8_t **payload)
{
	uint32_t left = out->end - out->at;

	if (!left)
		return false;
	m->payload_len = (uint16_t)(left < segment ? left : segment);
	m->seg_offset = out->at;
	m->seg_total = (out->len + WVM_SEGMENT_UNIT - 1) & ~(WVM_SEGMENT_UNIT - 1);
	/* One that fits into two datagrams is a step of the guest; more is a state on its way. */
	m->qos = out->len <= 2 * segment ? WVM_QOS_CONTROL : WVM_QOS_BULK;
	*payload = out->data + out->at;
	out->at += m->payload_len;
	return true;
}
