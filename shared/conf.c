/* The topology and the gateway's routes. */
#include "shared/conf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/conf_line.h"
#include "shared/conf_place.h"

#define CTRL_PORT_WORD 6u /* of a NODE line */

static bool is_loopback(uint32_t ip)
{
	return ip >> 24 == 127;
}

bool wvm_conf_node_is_sidecar(const struct wvm_conf_node *node)
{
	return is_loopback(node->ip) && node->port == WVM_GATEWAY_PORT;
}

/* The field that may be left out. Nodes behind gateways are reached through these. */
static int parse_ctrl_port(struct conf *c, struct wvm_conf_node *node)
{
	uint64_t port;
	int rc;

	node->ctrl_port = node->zero = 0;
	node->spare = false;
	if (c->count <= CTRL_PORT_WORD)
		return 0;
	rc = conf_number(c, CTRL_PORT_WORD, "ctrl_port", 1, UINT16_MAX, &port);
	if (rc)
		return rc;
	if (wvm_conf_node_is_sidecar(node))
		return conf_fail(c,
				 "ctrl_port '%s': a node that is reached by a gateway (port %u) "
				 "has none here",
				 c->words[CTRL_PORT_WORD], WVM_GATEWAY_PORT);
	if (port == node->port)
		return conf_fail(c, "ctrl_port '%s' is the port of the node's messages",
				 c->words[CTRL_PORT_WORD]);
	node->ctrl_port = (uint16_t)port;
	return 0;
}

static int parse_node(struct conf *c, struct wvm_topology *t, struct wvm_conf_node *node)
{
	static const char *const fields[] = {"phys_id", "ip",        "port", "cores",
					     "ram_gb",  "ctrl_port", NULL};
	static const char *const least[] = {"phys_id", "ip", "port", "cores", "ram_gb", NULL};
	uint64_t phys_id, port, cores, ram_gb, vnodes;
	int rc;

	if (strcmp(c->words[0], "NODE") != 0)
		return conf_fail(c, "'%s' is neither NODE, PLACE nor SPARE", c->words[0]);
	rc = conf_fields(c, c->count > CTRL_PORT_WORD ? fields : least);
	rc = rc ? rc : conf_number(c, 1, "phys_id", 0, WVM_NODE_MAX - 1, &phys_id);
	rc = rc ? rc : conf_ipv4(c, 2, &node->ip);
	rc = rc ? rc : conf_number(c, 3, "port", 1, UINT16_MAX, &port);
	rc = rc ? rc : conf_number(c, 4, "cores", 0, WVM_CORES_MAX, &cores);
	rc = rc ? rc : conf_number(c, 5, "ram_gb", 1, WVM_RAM_GB_MAX, &ram_gb);
	if (rc)
		return rc;
	vnodes = ram_gb < WVM_VNODE_GB ? 1 : ram_gb / WVM_VNODE_GB;
	if (t->vnode_count + vnodes > WVM_NODE_MAX)
		return conf_fail(c, "ram_gb '%s' takes the cluster to %llu vnodes, above %u",
				 c->words[5], (unsigned long long)(t->vnode_count + vnodes),
				 WVM_NODE_MAX);
	node->phys_id = (uint32_t)phys_id;
	node->port = (uint16_t)port;
	node->cores = (uint16_t)cores;
	node->ram_gb = (uint32_t)ram_gb;
	node->first_vnode = t->vnode_count;
	node->vnode_count = (uint32_t)vnodes;
	node->line = c->line;
	return parse_ctrl_port(c, node);
}

static int add_node(struct conf *c, struct wvm_topology *t)
{
	struct wvm_conf_node *nodes = conf_grow(t->nodes, t->count, sizeof(*nodes));
	int rc;

	if (!nodes)
		return -ENOMEM;
	t->nodes = nodes;
	rc = parse_node(c, t, &nodes[t->count]);
	if (rc)
		return rc;
	t->vnode_count += nodes[t->count].vnode_count;
	t->total_ram_gb += nodes[t->count].ram_gb;
	t->count++;
	return 0;
}

static int add_line(struct conf *c, struct wvm_topology *t, struct conf_spares *spares)
{
	if (!strcmp(c->words[0], "PLACE"))
		return conf_place_add(c, t);
	return strcmp(c->words[0], "SPARE") ? add_node(c, t) : conf_spare_add(c, spares);
}

static int parse_topology(struct conf *c, struct wvm_topology *t, struct conf_spares *spares)
{
	int rc;

	while ((rc = conf_next(c)) > 0) {
		rc = add_line(c, t, spares);
		if (rc)
			return rc;
	}
	if (!rc && !t->count)
		return conf_fail_file(c, "there is no NODE line");
	return rc;
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

/* Equal keys stay in the order of the file. */
static int by_phys_id(const void *a, const void *b, void *nodes)
{
	const struct wvm_conf_node *at = nodes;
	uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
	int order = compare_u64(at[i].phys_id, at[k].phys_id);

	return order ? order : compare_u64(i, k);
}

static uint64_t endpoint(const struct wvm_conf_node *node)
{
	return (uint64_t)node->ip << 16 | node->port;
}

static int by_endpoint(const void *a, const void *b, void *nodes)
{
	const struct wvm_conf_node *at = nodes;
	uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
	int order = compare_u64(endpoint(&at[i]), endpoint(&at[k]));

	return order ? order : compare_u64(i, k);
}

static int same_phys_id(struct conf *c, const struct wvm_conf_node *a,
			const struct wvm_conf_node *b)
{
	if (a->phys_id != b->phys_id)
		return 0;
	c->line = b->line;
	return conf_fail(c, "phys_id '%u' is that of line %u already", b->phys_id, a->line);
}

static int same_endpoint(struct conf *c, const struct wvm_conf_node *a,
			 const struct wvm_conf_node *b)
{
	if (endpoint(a) != endpoint(b) || wvm_conf_node_is_sidecar(a))
		return 0;
	c->line = b->line;
	return conf_fail(c,
			 "ip and port '%u.%u.%u.%u %u' are those of line %u already (only the "
			 "sidecar 127.0.0.1 %u may stand in several lines)",
			 b->ip >> 24, b->ip >> 16 & 0xff, b->ip >> 8 & 0xff, b->ip & 0xff, b->port,
			 a->line, WVM_GATEWAY_PORT);
}

static int check_nodes(struct conf *c, struct wvm_topology *t)
{
	const struct wvm_conf_node *nodes = t->nodes;
	uint32_t *order = reallocarray(NULL, t->count, sizeof(*order));
	uint32_t i;
	int rc = 0;

	if (!order)
		return -ENOMEM;
	t->phys_order = order;
	for (i = 0; i < t->count; i++)
		order[i] = i;
	qsort_r(order, t->count, sizeof(*order), by_endpoint, t->nodes);
	for (i = 1; i < t->count && !rc; i++)
		rc = same_endpoint(c, &nodes[order[i - 1]], &nodes[order[i]]);
	qsort_r(order, t->count, sizeof(*order), by_phys_id, t->nodes);
	for (i = 1; i < t->count && !rc; i++)
		rc = same_phys_id(c, &nodes[order[i - 1]], &nodes[order[i]]);
	return rc;
}

int wvm_topology_parse(struct wvm_topology *t, const char *name, const char *text, size_t len,
		       char *err, size_t errlen)
{
	struct conf_spares spares = {0};
	struct conf c;
	int rc;

	*t = (struct wvm_topology){0};
	conf_start(&c, name, text, len, err, errlen);
	rc = parse_topology(&c, t, &spares);
	if (!rc)
		rc = check_nodes(&c, t);
	if (!rc)
		rc = conf_spare_check(&c, t, &spares);
	if (!rc)
		rc = conf_place_check(&c, t, &spares);
	free(spares.list);
	if (rc == -ENOMEM)
		conf_fail_file(&c, "out of memory");
	if (rc)
		wvm_topology_free(t);
	return rc;
}

int wvm_topology_load(struct wvm_topology *t, const char *path, char *err, size_t errlen)
{
	size_t len;
	char *text;
	int rc;

	*t = (struct wvm_topology){0};
	rc = conf_read(path, &text, &len, err, errlen);
	if (rc)
		return rc;
	rc = wvm_topology_parse(t, path, text, len, err, errlen);
	free(text);
	return rc;
}

void wvm_topology_free(struct wvm_topology *t)
{
	free(t->nodes);
	free(t->phys_order);
	free(t->places);
	*t = (struct wvm_topology){0};
}

/* How many nodes have a lower physical id. */
static uint32_t phys_below(const struct wvm_topology *t, uint32_t phys_id)
{
	uint32_t low = 0, high = t->count;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (t->nodes[t->phys_order[mid]].phys_id < phys_id)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct wvm_conf_node *wvm_topology_by_phys(const struct wvm_topology *t, uint32_t phys_id)
{
	uint32_t at = phys_below(t, phys_id);
	const struct wvm_conf_node *node = at < t->count ? &t->nodes[t->phys_order[at]] : NULL;

	return node && node->phys_id == phys_id ? node : NULL;
}

const struct wvm_conf_node *wvm_topology_after(const struct wvm_topology *t,
					       const struct wvm_conf_node *node)
{
	uint32_t at = phys_below(t, node->phys_id) + 1;

	return &t->nodes[t->phys_order[at < t->count ? at : 0]];
}

const struct wvm_conf_node *wvm_topology_by_vnode(const struct wvm_topology *t, uint32_t vnode)
{
	uint32_t low = 0, high = t->count;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		const struct wvm_conf_node *node = &t->nodes[mid];

		if (vnode < node->first_vnode)
			high = mid;
		else if (vnode - node->first_vnode >= node->vnode_count)
			low = mid + 1;
		else
			return node;
	}
	return NULL;
}

static int parse_route(struct conf *c, struct wvm_route *route)
{
	static const char *const fields[] = {"first_vnode", "count", "next_hop_ip", "port", NULL};
	uint64_t first, count, port;
	int rc;

	if (strcmp(c->words[0], "ROUTE") != 0)
		return conf_fail(c, "'%s' is not ROUTE", c->words[0]);
	rc = conf_fields(c, fields);
	rc = rc ? rc : conf_number(c, 1, "first_vnode", 0, WVM_NODE_MAX - 1, &first);
	rc = rc ? rc : conf_number(c, 2, "count", 0, WVM_NODE_MAX, &count);
	rc = rc ? rc : conf_ipv4(c, 3, &route->ip);
	rc = rc ? rc : conf_number(c, 4, "port", 1, UINT16_MAX, &port);
	if (rc)
		return rc;
	if (!count && first)
		return conf_fail(c, "count '0' is for the default route, whose first_vnode is 0");
	if (first + count > WVM_NODE_MAX)
		return conf_fail(c, "count '%s' goes beyond the last vnode, %u", c->words[2],
				 WVM_NODE_MAX - 1);
	route->first_vnode = (uint32_t)first;
	route->vnode_count = (uint32_t)count;
	route->port = (uint16_t)port;
	route->line = c->line;
	return 0;
}

static int add_default(struct conf *c, struct wvm_routes *r, const struct wvm_route *route)
{
	if (r->has_default)
		return conf_fail(c, "count '0': the default route is in line %u already",
				 r->fallback.line);
	r->has_default = true;
	r->fallback = *route;
	return 0;
}

static int parse_routes(struct conf *c, struct wvm_routes *r)
{
	int rc;

	while ((rc = conf_next(c)) > 0) {
		struct wvm_route route = {0}, *routes;

		rc = parse_route(c, &route);
		if (!rc && !route.vnode_count) {
			rc = add_default(c, r, &route);
			if (!rc)
				continue;
		}
		if (rc)
			return rc;
		routes = conf_grow(r->routes, r->count, sizeof(*routes));
		if (!routes)
			return -ENOMEM;
		r->routes = routes;
		routes[r->count++] = route;
	}
	return rc;
}

static int by_first_vnode(const void *a, const void *b)
{
	const struct wvm_route *x = a, *y = b;
	int order = compare_u64(x->first_vnode, y->first_vnode);

	return order ? order : compare_u64(x->line, y->line);
}

static int check_routes(struct conf *c, struct wvm_routes *r)
{
	if (r->count)
		qsort(r->routes, r->count, sizeof(*r->routes), by_first_vnode);
	for (uint32_t i = 1; i < r->count; i++) {
		const struct wvm_route *a = &r->routes[i - 1], *b = &r->routes[i];
		uint32_t a_line = a->line;

		if (b->first_vnode - a->first_vnode >= a->vnode_count)
			continue;
		c->line = a_line > b->line ? a_line : b->line;
		return conf_fail(c, "first_vnode '%u': vnode %u is in the route of line %u already",
				 a_line > b->line ? a->first_vnode : b->first_vnode, b->first_vnode,
				 a_line > b->line ? b->line : a_line);
	}
	return 0;
}

int wvm_routes_parse(struct wvm_routes *r, const char *name, const char *text, size_t len,
		     char *err, size_t errlen)
{
	struct conf c;
	int rc;

	*r = (struct wvm_routes){0};
	conf_start(&c, name, text, len, err, errlen);
	rc = parse_routes(&c, r);
	if (!rc)
		rc = check_routes(&c, r);
	if (rc == -ENOMEM)
		conf_fail_file(&c, "out of memory");
	if (rc)
		wvm_routes_free(r);
	return rc;
}

int wvm_routes_load(struct wvm_routes *r, const char *path, char *err, size_t errlen)
{
	size_t len;
	char *text;
	int rc;

	*r = (struct wvm_routes){0};
	rc = conf_read(path, &text, &len, err, errlen);
	if (rc)
		return rc;
	rc = wvm_routes_parse(r, path, text, len, err, errlen);
	free(text);
	return rc;
}

void wvm_routes_free(struct wvm_routes *r)
{
	free(r->routes);
	*r = (struct wvm_routes){0};
}

const struct wvm_route *wvm_routes_find(const struct wvm_routes *r, uint32_t vnode)
{
	uint32_t low = 0, high = r->count;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		const struct wvm_route *route = &r->routes[mid];

		if (vnode < route->first_vnode)
			high = mid;
		else if (vnode - route->first_vnode >= route->vnode_count)
			low = mid + 1;
		else
			return route;
	}
	return r->has_default && vnode < WVM_NODE_MAX ? &r->fallback : NULL;
}
