/* wvm_ctl route add|del: an order to a gateway, sent until it is answered. */
#ifndef WVM_CTL_ROUTE_H
#define WVM_CTL_ROUTE_H

#include "roles/ctl/ask.h"
#include "shared/control_route.h"

/*
 * to->ip and to->port say which gateway. 0 with its answer, or -errno with one line in err:
 * -ETIMEDOUT when no gateway answers, -EPERM when it refuses.
 */
int wvm_route_order(const struct wvm_ask *to, const struct wvm_route_order *order,
		    struct wvm_route_answer *answer, char *err, size_t err_len);

#endif
