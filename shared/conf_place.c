/* Which ranges of a VM's memory the topology places on a node, and who homes nothing at first. */
#include "shared/conf_place.h"

#include <errno.h>
#include <stdlib.h>

#define MIB_PER_UNIT (WVM_UNIT_BYTES >> 20)
#define MIB_MAX      (WVM_GPA_MAX >> 20)

static int whole_units(struct conf *c, unsigned i, const char *field, uint64_t mib)
{
	if (mib % MIB_PER_UNIT == 0)
		return 0;
	return conf_fail(c, "%s '%s' is not a multiple of %u: memory is placed in units of %u MiB",
			 field, c->words[i], MIB_PER_UNIT, MIB_PER_UNIT);
}

static int parse_place(struct conf *c, struct wvm_layout_range *range)
{
	static const char *const fields[] = {"vm_id", "first_mib", "mib", "phys_id", NULL};
	uint64_t vm_id, first, mib, phys_id;
	int rc;

	rc = conf_fields(c, fields);
	rc = rc ? rc : conf_number(c, 1, "vm_id", 0, UINT16_MAX, &vm_id);
	rc = rc ? rc : conf_number(c, 2, "first_mib", 0, MIB_MAX - MIB_PER_UNIT, &first);
	rc = rc ? rc : whole_units(c, 2, "first_mib", first);
	rc = rc ? rc : conf_number(c, 3, "mib", MIB_PER_UNIT, MIB_MAX, &mib);
	rc = rc ? rc : whole_units(c, 3, "mib", mib);
	rc = rc ? rc : conf_number(c, 4, "phys_id", 0, WVM_NODE_MAX - 1, &phys_id);
	if (rc)
		return rc;
	if (mib > MIB_MAX - first)
		return conf_fail(c, "mib '%s' goes beyond what a VM can have, %llu MiB",
				 c->words[3], (unsigned long long)MIB_MAX);
	range->first = wvm_layout_key((uint16_t)vm_id, first << 20);
	range->units = mib / MIB_PER_UNIT;
	range->member = (uint32_t)phys_id;
	range->line = c->line;
	return 0;
}

int conf_place_add(struct conf *c, struct wvm_topology *t)
{
	struct wvm_layout_range *places;

	if (t->place_count == WVM_LAYOUT_MAX)
		return conf_fail(c, "'%s' is one too many: at most %u; join ranges that adjoin",
				 c->words[0], WVM_LAYOUT_MAX);
	places = conf_grow(t->places, t->place_count, sizeof(*places));
	if (!places)
		return -ENOMEM;
	t->places = places;
	places[t->place_count] = (struct wvm_layout_range){0};
	return parse_place(c, &places[t->place_count++]);
}

static int by_first(const void *a, const void *b)
{
	const struct wvm_layout_range *x = a, *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return (x->line > y->line) - (x->line < y->line);
}

/* The first that both have is where b begins; the later line is the one to change. */
static int overlap(struct conf *c, const struct wvm_layout_range *a,
		   const struct wvm_layout_range *b)
{
	const struct wvm_layout_range *late = a->line > b->line ? a : b;
	const struct wvm_layout_range *early = late == a ? b : a;

	c->line = late->line;
	return conf_fail(c, "first_mib '%llu': MiB %llu of VM %u is placed by line %u already",
			 (unsigned long long)(uint32_t)late->first * MIB_PER_UNIT,
			 (unsigned long long)(uint32_t)b->first * MIB_PER_UNIT,
			 (unsigned)(b->first >> 32), early->line);
}

/* The node that a line names, or NULL with the error text. */
static struct wvm_conf_node *find_node(struct conf *c, const struct wvm_topology *t, uint32_t line,
				       uint32_t phys_id)
{
	const struct wvm_conf_node *node = wvm_topology_by_phys(t, phys_id);

	c->line = line;
	if (node)
		return &t->nodes[node - t->nodes];
	conf_fail(c, "phys_id '%u' is that of no NODE line: correct it, or take this line out",
		  phys_id);
	return NULL;
}

int conf_spare_add(struct conf *c, struct conf_spares *spares)
{
	static const char *const fields[] = {"phys_id", NULL};
	struct conf_spare *list;
	uint64_t phys_id;
	int rc;

	rc = conf_fields(c, fields);
	rc = rc ? rc : conf_number(c, 1, "phys_id", 0, WVM_NODE_MAX - 1, &phys_id);
	if (rc)
		return rc;
	if (spares->count == WVM_NODE_MAX)
		return conf_fail(c, "'%s' is one too many: there are at most %u nodes", c->words[0],
				 WVM_NODE_MAX);
	list = conf_grow(spares->list, spares->count, sizeof(*list));
	if (!list)
		return -ENOMEM;
	spares->list = list;
	list[spares->count++] = (struct conf_spare){(uint32_t)phys_id, c->line};
	return 0;
}

/* The first line that makes a spare of a node, which there is. */
static unsigned spare_line(const struct conf_spares *spares, uint32_t phys_id)
{
	uint32_t i = 0;

	while (spares->list[i].phys_id != phys_id)
		i++;
	return spares->list[i].line;
}

int conf_spare_check(struct conf *c, struct wvm_topology *t, const struct conf_spares *spares)
{
	for (uint32_t i = 0; i < spares->count; i++) {
		const struct conf_spare *s = &spares->list[i];
		struct wvm_conf_node *node = find_node(c, t, s->line, s->phys_id);

		if (!node)
			return -EINVAL;
		if (node->spare)
			return conf_fail(c,
					 "phys_id '%u' is spare by line %u already: take one "
					 "of the two out",
					 s->phys_id, spare_line(spares, s->phys_id));
		node->spare = true;
	}
	if (spares->count == t->count)
		return conf_fail(c,
				 "phys_id '%u' is that of the last node: all are spare, and none "
				 "homes memory; take the SPARE lines out of those that begin",
				 spares->list[spares->count - 1].phys_id);
	return 0;
}

static int find_home(struct conf *c, const struct wvm_topology *t, const struct conf_spares *spares,
		     struct wvm_layout_range *range)
{
	const struct wvm_conf_node *node = find_node(c, t, range->line, range->member);

	if (!node)
		return -EINVAL;
	if (!node->spare) {
		range->member = (uint32_t)(node - t->nodes);
		return 0;
	}
	return conf_fail(c,
			 "phys_id '%u' is spare by line %u, and homes nothing at first: place "
			 "this range on another node, or take the SPARE line out",
			 range->member, spare_line(spares, range->member));
}

int conf_place_check(struct conf *c, struct wvm_topology *t, const struct conf_spares *spares)
{
	struct wvm_layout_range *places = t->places;

	for (uint32_t i = 0; i < t->place_count; i++) {
		int rc = find_home(c, t, spares, &places[i]);

		if (rc)
			return rc;
	}
	if (places)
		qsort(places, t->place_count, sizeof(*places), by_first);
	for (uint32_t i = 1; i < t->place_count; i++)
		if (places[i].first - places[i - 1].first < places[i - 1].units)
			return overlap(c, &places[i - 1], &places[i]);
	return 0;
}
