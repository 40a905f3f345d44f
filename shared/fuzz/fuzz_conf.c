/*
 * The configuration files: any text is either a table within the documented
 * limits, which written out again and read back is the same, or one line that
 * names the file and, where it is about a line, that line.
 */
#include <errno.h>
#include <inttypes.h>

#include "shared/conf.h"
#include "shared/fuzz/fuzz.h"

#define NAME "some/file.conf"

/* The canonical text of a table. */
struct text {
	char *at;
	size_t len;
	FILE *f;
};

static FILE *text_open(struct text *t)
{
	t->f = open_memstream(&t->at, &t->len);
	FUZZ_CHECK(t->f, "memory");
	return t->f;
}

static void check_refusal(int rc, const char *err, size_t err_len, const uint8_t *text, size_t len)
{
	size_t lines = 1;
	unsigned long line;
	const char *rest;
	char *end;

	FUZZ_CHECK(rc == -EINVAL, "result %d", rc);
	if (!err_len)
		return;
	FUZZ_CHECK(memchr(err, 0, err_len) && !strchr(err, '\n'), "one line of text");
	if (err_len < 600)
		return;
	FUZZ_CHECK(!strncmp(err, NAME ":", strlen(NAME) + 1), "'%s'", err);
	rest = err + strlen(NAME) + 1;
	line = strtoul(rest, &end, 10);
	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	FUZZ_CHECK(end == rest || (line >= 1 && line <= lines), "'%s' of %zu lines", err, lines);
	FUZZ_CHECK(end[0] == ':' || (end == rest && end[0] == ' '), "'%s'", err);
	/* What is wrong is quoted, but for what no text can show. */
	FUZZ_CHECK(end == rest || strchr(err, '\'') || strstr(err, "is not text") ||
			   strstr(err, "longer than"),
		   "'%s' names no field", err);
}

/* ---- topology -------------------------------------------------------------------------- */

static void check_topology(const struct wvm_topology *t)
{
	uint32_t vnodes = 0, spares = 0;
	uint64_t gb = 0;

	FUZZ_CHECK(t->count, "empty");
	for (uint32_t i = 0; i < t->count; i++) {
		const struct wvm_conf_node *n = &t->nodes[i];

		FUZZ_CHECK(n->phys_id < WVM_NODE_MAX && n->port && n->ram_gb &&
				   n->ram_gb <= WVM_RAM_GB_MAX,
			   "node %u", i);
		FUZZ_CHECK(n->ip >> 24 && n->ip >> 24 < 224, "ip %x", n->ip);
		FUZZ_CHECK(
			n->first_vnode == vnodes &&
				n->vnode_count ==
					(n->ram_gb < WVM_VNODE_GB ? 1 : n->ram_gb / WVM_VNODE_GB),
			"vnodes of node %u", i);
		FUZZ_CHECK(wvm_topology_by_phys(t, n->phys_id) == n, "phys_id twice");
		FUZZ_CHECK(wvm_topology_by_vnode(t, vnodes) == n &&
				   wvm_topology_by_vnode(t, vnodes + n->vnode_count - 1) == n,
			   "node of a vnode");
		spares += n->spare;
		vnodes += n->vnode_count;
		gb += n->ram_gb;
	}
	FUZZ_CHECK(spares < t->count, "all are spare");
	FUZZ_CHECK(t->vnode_count == vnodes && vnodes <= WVM_NODE_MAX && t->total_ram_gb == gb,
		   "sums");
	FUZZ_CHECK(!wvm_topology_by_vnode(t, vnodes), "a vnode of nobody");
}

static void check_places(const struct wvm_topology *t)
{
	const struct wvm_layout layout = {t->places, t->place_count};
	uint64_t end = 0;

	for (uint32_t i = 0; i < t->place_count; i++) {
		const struct wvm_layout_range *r = &t->places[i];
		uint64_t last = (r->first & UINT32_MAX) + r->units - 1;
		uint16_t vm = (uint16_t)(r->first >> 32);

		FUZZ_CHECK(r->units && r->first >= end && r->member < t->count, "place %u", i);
		FUZZ_CHECK(!t->nodes[r->member].spare, "place %u on a spare", i);
		FUZZ_CHECK(r->first >> 48 == 0 && last < WVM_GPA_MAX >> WVM_UNIT_SHIFT,
			   "place %u of no VM", i);
		end = r->first + r->units;
		FUZZ_CHECK(wvm_layout_find(&layout, vm,
					   r->first << WVM_UNIT_SHIFT & (WVM_GPA_MAX - 1)) == r &&
				   wvm_layout_find(&layout, vm, last << WVM_UNIT_SHIFT) == r,
			   "place of a unit");
	}
}

static void write_topology(FILE *f, const struct wvm_topology *t)
{
	for (uint32_t i = 0; i < t->count; i++) {
		const struct wvm_conf_node *n = &t->nodes[i];

		fprintf(f, "NODE %u %u.%u.%u.%u %u %u %u", n->phys_id, n->ip >> 24,
			n->ip >> 16 & 255, n->ip >> 8 & 255, n->ip & 255, n->port, n->cores,
			n->ram_gb);
		if (n->ctrl_port)
			fprintf(f, " %u", n->ctrl_port);
		fputc('\n', f);
		if (n->spare)
			fprintf(f, "SPARE %u\n", n->phys_id);
	}
	for (uint32_t i = 0; i < t->place_count; i++) {
		const struct wvm_layout_range *r = &t->places[i];

		fprintf(f, "PLACE %u %" PRIu64 " %" PRIu64 " %u\n", (unsigned)(r->first >> 32),
			(r->first & UINT32_MAX) * 2, r->units * 2, t->nodes[r->member].phys_id);
	}
}

static void topology(const char *text, size_t len, char *err, size_t err_len)
{
	struct wvm_topology t, back;
	struct text out;
	char why[600];
	int rc = wvm_topology_parse(&t, NAME, text, len, err, err_len);

	if (rc) {
		FUZZ_CHECK(!t.nodes && !t.phys_order && !t.places, "freed");
		check_refusal(rc, err, err_len, (const uint8_t *)text, len);
		return;
	}
	check_topology(&t);
	check_places(&t);
	write_topology(text_open(&out), &t);
	fclose(out.f);
	FUZZ_CHECK(!wvm_topology_parse(&back, NAME, out.at, out.len, why, sizeof(why)), "%s", why);
	FUZZ_CHECK(back.count == t.count, "%u nodes", back.count);
	for (uint32_t i = 0; i < t.count; i++) {
		back.nodes[i].line = t.nodes[i].line;
		FUZZ_CHECK(!memcmp(&t.nodes[i], &back.nodes[i], sizeof(t.nodes[i])), "node %u", i);
	}
	FUZZ_CHECK(back.place_count == t.place_count, "%u places", back.place_count);
	for (uint32_t i = 0; i < t.place_count; i++) {
		back.places[i].line = t.places[i].line;
		FUZZ_CHECK(!memcmp(&t.places[i], &back.places[i], sizeof(t.places[i])), "place %u",
			   i);
	}
	wvm_topology_free(&back);
	wvm_topology_free(&t);
	free(out.at);
}

/* ---- routes ---------------------------------------------------------------------------- */

static void check_routes(const struct wvm_routes *r)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < r->count; i++) {
		const struct wvm_route *o = &r->routes[i];

		FUZZ_CHECK(o->vnode_count && o->first_vnode >= end, "route %u overlaps", i);
		end = (uint64_t)o->first_vnode + o->vnode_count;
		FUZZ_CHECK(end <= WVM_NODE_MAX && o->port && o->ip >> 24 && o->ip >> 24 < 224,
			   "route %u", i);
		FUZZ_CHECK(wvm_routes_find(r, o->first_vnode) == o &&
				   wvm_routes_find(r, (uint32_t)end - 1) == o,
			   "route of a vnode");
	}
	if (r->has_default)
		FUZZ_CHECK(!r->fallback.vnode_count && !r->fallback.first_vnode && r->fallback.port,
			   "default");
	FUZZ_CHECK(!wvm_routes_find(r, WVM_NODE_MAX), "a vnode that cannot be");
}

static void write_route(FILE *f, const struct wvm_route *o)
{
	fprintf(f, "ROUTE %u %u %u.%u.%u.%u %u\n", o->first_vnode, o->vnode_count, o->ip >> 24,
		o->ip >> 16 & 255, o->ip >> 8 & 255, o->ip & 255, o->port);
}

static bool same_route(const struct wvm_route *a, const struct wvm_route *b)
{
	return a->first_vnode == b->first_vnode && a->vnode_count == b->vnode_count &&
	       a->ip == b->ip && a->port == b->port;
}

static void routes(const char *text, size_t len, char *err, size_t err_len)
{
	struct wvm_routes r, back;
	struct text out;
	char why[600];
	int rc = wvm_routes_parse(&r, NAME, text, len, err, err_len);

	if (rc) {
		FUZZ_CHECK(!r.routes, "freed");
		check_refusal(rc, err, err_len, (const uint8_t *)text, len);
		return;
	}
	check_routes(&r);
	text_open(&out);
	if (r.has_default)
		write_route(out.f, &r.fallback);
	for (uint32_t i = 0; i < r.count; i++)
		write_route(out.f, &r.routes[i]);
	fclose(out.f);
	FUZZ_CHECK(!wvm_routes_parse(&back, NAME, out.at, out.len, why, sizeof(why)), "%s", why);
	FUZZ_CHECK(back.count == r.count && back.has_default == r.has_default, "%u routes",
		   back.count);
	FUZZ_CHECK(!r.has_default || same_route(&r.fallback, &back.fallback), "default");
	for (uint32_t i = 0; i < r.count; i++)
		FUZZ_CHECK(same_route(&r.routes[i], &back.routes[i]), "route %u", i);
	wvm_routes_free(&back);
	wvm_routes_free(&r);
	free(out.at);
}

/* ---- devices --------------------------------------------------------------------------- */

static void check_bar(const struct wvm_conf_bar *b, const struct wvm_devices *d)
{
	unsigned same = 0;

	FUZZ_CHECK(b->index < WVM_BARS_MAX && b->size >= 16 && b->size <= UINT64_C(1) << 40 &&
			   !(b->size & (b->size - 1)) && !(b->gpa & (b->size - 1)) &&
			   b->gpa < WVM_GPA_MAX,
		   "BAR%u", b->index);
	for (uint32_t i = 0; i < d->count; i++)
		for (uint32_t k = 0; k < d->devices[i].bar_count; k++) {
			const struct wvm_conf_bar *o = &d->devices[i].bars[k];

			same += o->gpa < b->gpa + b->size && b->gpa < o->gpa + o->size;
		}
	FUZZ_CHECK(same == 1, "BAR%u meets %u", b->index, same);
}

static void check_devices(const struct wvm_devices *d)
{
	FUZZ_CHECK(d->count && d->count <= WVM_DEVICES_MAX, "%u devices", d->count);
	for (uint32_t i = 0; i < d->count; i++) {
		const struct wvm_device *v = &d->devices[i];

		FUZZ_CHECK(strlen(v->pci) == 12 && v->group <= INT32_MAX, "device %u", i);
		FUZZ_CHECK(v->bar_count && v->bar_count <= WVM_BARS_MAX, "device %u", i);
		for (uint32_t k = 0; k < i; k++)
			FUZZ_CHECK(strcmp(d->devices[k].pci, v->pci), "%s twice", v->pci);
		for (uint32_t k = 0; k < v->bar_count; k++)
			check_bar(&v->bars[k], d);
	}
}

static void write_devices(FILE *f, const struct wvm_devices *d)
{
	for (uint32_t i = 0; i < d->count; i++) {
		const struct wvm_device *v = &d->devices[i];

		fprintf(f, "DEVICE %s %u\n", v->pci, v->group);
		for (uint32_t k = 0; k < v->bar_count; k++)
			fprintf(f, "BAR%u 0x%" PRIx64 " %" PRIu64 "\n", v->bars[k].index,
				v->bars[k].gpa, v->bars[k].size);
		fprintf(f, "END\n");
	}
}

static void same_device(const struct wvm_device *a, const struct wvm_device *b)
{
	FUZZ_CHECK(!strcmp(a->pci, b->pci) && a->group == b->group && a->bar_count == b->bar_count,
		   "%s", a->pci);
	for (uint32_t k = 0; k < a->bar_count; k++)
		FUZZ_CHECK(a->bars[k].gpa == b->bars[k].gpa && a->bars[k].size == b->bars[k].size &&
				   a->bars[k].index == b->bars[k].index,
			   "%s BAR%u", a->pci, a->bars[k].index);
}

static void devices(const char *text, size_t len, char *err, size_t err_len)
{
	struct wvm_devices d, back;
	struct text out;
	char why[600];
	int rc = wvm_devices_parse(&d, NAME, text, len, err, err_len);

	if (rc) {
		FUZZ_CHECK(!d.devices, "freed");
		check_refusal(rc, err, err_len, (const uint8_t *)text, len);
		return;
	}
	check_devices(&d);
	write_devices(text_open(&out), &d);
	fclose(out.f);
	FUZZ_CHECK(!wvm_devices_parse(&back, NAME, out.at, out.len, why, sizeof(why)), "%s", why);
	FUZZ_CHECK(back.count == d.count, "%u devices", back.count);
	for (uint32_t i = 0; i < d.count; i++)
		same_device(&d.devices[i], &back.devices[i]);
	wvm_devices_free(&back);
	wvm_devices_free(&d);
	free(out.at);
}

/* The first byte: which file ('T'opology, 'R'outes, 'U' devices), and how much room errors have. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t err_len = 600;
	char *err, *text;

	if (!len)
		return 0;
	if (data[0] & 0x80)
		err_len = data[0] >> 2 & 0x1f;
	err = malloc(err_len);
	text = (char *)fuzz_copy(data + 1, len - 1);
	FUZZ_CHECK(err, "memory");
	switch (data[0] & 3) {
	case 'R' & 3: routes(text, len - 1, err, err_len); break;
	case 'T' & 3: topology(text, len - 1, err, err_len); break;
	default: devices(text, len - 1, err, err_len); break;
	}
	free(err);
	free(text);
	return 0;
}
