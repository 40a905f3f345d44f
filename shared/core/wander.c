#include "shared/core/wander.h"

bool wvm_wander_asks(const struct wvm_core_params *p, struct wvm_held_page *h)
{
	if (!p->wander || h->wrote < p->wander)
		return false;
	if (h->trusted == WVM_WANDER_TRUST) {
		h->trusted = 0;
		return false;
	}
	h->trusted++;
	return true;
}

void wvm_wander_read(const struct wvm_core_params *p, struct wvm_held_page *h)
{
	h->read_first = p->wander > 0;
}

void wvm_wander_wrote(const struct wvm_core_params *p, struct wvm_held_page *h, bool upgrade)
{
	if (h->read_first && upgrade && h->wrote < p->wander)
		h->wrote++;
	h->read_first = 0;
}

void wvm_wander_lost(const struct wvm_core_params *p, struct wvm_held_page *h)
{
	if (p->wander && h->read_first)
		h->wrote = h->trusted = 0;
	h->read_first = 0;
}
