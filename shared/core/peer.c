#include "shared/core/peer.h"

enum wvm_drop wvm_seen_check(const struct wvm_seen *seen, uint64_t request)
{
	uint16_t boot = wvm_request_boot(request);
	uint64_t counter = wvm_request_counter(request);

	if (!seen->boot || boot > seen->boot)
		return WVM_DROP_NONE;
	if (boot < seen->boot)
		return WVM_DROP_STALE;
	return counter + WVM_SEEN_BITS <= seen->highest ? WVM_DROP_STALE : WVM_DROP_NONE;
}

static void forget(struct wvm_seen *seen, uint64_t counter)
{
	seen->bits[counter % WVM_SEEN_BITS / 64] &= ~(UINT64_C(1) << counter % 64);
}

bool wvm_seen_note(struct wvm_seen *seen, uint64_t request)
{
	uint64_t counter = wvm_request_counter(request);
	uint64_t *word = &seen->bits[counter % WVM_SEEN_BITS / 64];
	uint64_t bit = UINT64_C(1) << counter % 64;

	if (seen->boot != wvm_request_boot(request)) {
		__builtin_memset(seen, 0, sizeof(*seen));
		seen->boot = wvm_request_boot(request);
		seen->highest = counter;
	}
	if (counter > seen->highest) {
		uint64_t gap = counter - seen->highest;

		if (gap >= WVM_SEEN_BITS)
			__builtin_memset(seen->bits, 0, sizeof(seen->bits));
		else
			for (uint64_t c = seen->highest + 1; c < counter; c++)
				forget(seen, c);
		forget(seen, counter);
		seen->highest = counter;
	}
	if (*word & bit)
		return false;
	*word |= bit;
	return true;
}

void wvm_peer_init(struct wvm_peer *peer)
{
	__builtin_memset(peer, 0, sizeof(*peer));
	peer->window = WVM_WINDOW_INITIAL;
}

/* RFC 6298, section 2: alpha 1/8, beta 1/4. */
void wvm_peer_sample(struct wvm_peer *peer, uint64_t rtt_ns)
{
	uint64_t error;

	if (!peer->srtt_ns) {
		peer->srtt_ns = rtt_ns ? rtt_ns : 1;
		peer->rttvar_ns = rtt_ns / 2;
		return;
	}
	error = rtt_ns > peer->srtt_ns ? rtt_ns - peer->srtt_ns : peer->srtt_ns - rtt_ns;
	peer->rttvar_ns = peer->rttvar_ns - peer->rttvar_ns / 4 + error / 4;
	peer->srtt_ns = peer->srtt_ns - peer->srtt_ns / 8 + rtt_ns / 8;
}

void wvm_peer_answered(struct wvm_peer *peer)
{
	uint32_t step = WVM_WINDOW_ONE * WVM_WINDOW_ONE / peer->window;

	peer->window += step ? step : 1;
	if (peer->window > WVM_WINDOW_MAX)
		peer->window = WVM_WINDOW_MAX;
}

void wvm_peer_timed_out(struct wvm_peer *peer, uint64_t now_ns)
{
	if (peer->halved_ns && now_ns - peer->halved_ns < peer->srtt_ns)
		return;
	peer->halved_ns = now_ns;
	peer->window /= 2;
	if (peer->window < WVM_WINDOW_MIN)
		peer->window = WVM_WINDOW_MIN;
}

bool wvm_peer_open(const struct wvm_peer *peer)
{
	return peer->in_flight * WVM_WINDOW_ONE < peer->window;
}

uint64_t wvm_peer_rto(const struct wvm_peer *peer, uint64_t min_ns, uint64_t initial_ns,
		      uint64_t max_ns)
{
	uint64_t rto;

	if (!peer->srtt_ns)
		return initial_ns;
	rto = peer->srtt_ns + 4 * peer->rttvar_ns;
	if (rto < min_ns)
		rto = min_ns;
	return rto > max_ns ? max_ns : rto;
}
