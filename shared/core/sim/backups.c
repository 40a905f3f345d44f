/*
 * What second homes have: of whatever a home has acknowledged while it calls itself complete, at
 * least that version, and where it is the home's own, the same bytes.
 */
#include <string.h>

#include "shared/core/sim/sim.h"

static unsigned long long ll(uint64_t v)
{
	return v;
}

/* The node that has to have it, or NULL. home: by whose word. */
static struct sim_node *second_of(struct sim *s, uint64_t page, uint32_t home)
{
	const struct sim_node *n = &s->nodes[home];
	uint32_t member = wvm_backup_member(n->core, 0, sim_core_page(page));
	struct sim_node *second = member < s->config.nodes ? &s->nodes[member] : NULL;

	/* Of another epoch it may have forgotten it, and its home does not know. */
	if (!second || second->empty || second->dead || second->table != n->table)
		return NULL;
	return second;
}

static struct wvm_home_page copy_at(const struct sim_node *second, uint64_t page)
{
	static const struct wvm_home_page none;

	return wvm_backup_counts(second->core, 0, page) ? second->home[page] : none;
}

/* While its bytes come the copy counts as lost: if that was cut short, whoever sent them repeats.
 */
static bool comes_again(const struct sim *s, const struct sim_node *home, uint64_t page)
{
	for (uint32_t i = 0; i < WVM_COPIES; i++)
		if (home->core->backup->copies[i].state != WVM_COPY_FREE &&
		    home->core->backup->copies[i].page == page)
			return true;
	for (uint32_t i = 0; i < s->config.nodes; i++)
		for (uint32_t d = 0; d < s->config.limits.demands; d++) {
			const struct wvm_kept *k = &s->nodes[i].core->kept[d];

			if (!s->nodes[i].dead && k->used && k->page == page)
				return true;
		}
	return false;
}

static void check_bytes(struct sim *s, uint64_t page, const struct sim_node *home,
			const struct sim_node *second)
{
	uint64_t at = sim_core_page(page), offset = at << WVM_PAGE_SHIFT;
	struct wvm_home_page e = home->home[at], copy = copy_at(second, at);

	/* A write-back that was cut short may have left its bytes, for its owner to repeat. */
	if (copy.version != e.version || copy.flags & WVM_HOME_LOST || e.state == WVM_HOME_MODIFIED)
		return;
	if ((copy.flags & WVM_HOME_WRITTEN) != (e.flags & WVM_HOME_WRITTEN) ||
	    (e.flags & WVM_HOME_WRITTEN &&
	     memcmp(home->store + offset, second->store + offset, WVM_PAGE_BYTES)))
		sim_failed(s, "page %llu: version %llx has other bytes at the second home",
			   ll(page), ll(e.version));
}

void sim_check_backup(struct sim *s, uint64_t page)
{
	uint32_t home = sim_home_of(s, page);
	const struct sim_node *n = &s->nodes[home], *second;
	uint64_t at = sim_core_page(page), acknowledged = s->acknowledged[page];
	const struct wvm_home_unit *unit = &n->units[wvm_unit_index(at)];
	struct wvm_home_page copy;

	if (!s->config.backup || wvm_core_home_of(n->core, 0, at, NULL) != home)
		return;
	second = second_of(s, page, home);
	if (!second)
		return;
	if (wvm_backup_stored(n->core, 0, at))
		check_bytes(s, page, n, second);
	if (!wvm_backup_made(n->core, 0, at))
		return;
	/* Either is told of a node that has begun anew before the other. */
	if (!wvm_backup_complete(second->core, 0, at) &&
	    n->core->renewed_sum == second->core->renewed_sum)
		sim_failed(s,
			   "page %llu: the home says that all is copied, and the second home not",
			   ll(page));
	/* Of a unit put together since, whoever did it has the page, or writes it back. */
	if (!acknowledged || !wvm_backup_stored(n->core, 0, at) ||
	    (unit->merged && acknowledged < unit->granted))
		return;
	copy = copy_at(second, at);
	s->report.backup_checked++;
	if (copy.version < acknowledged)
		sim_failed(s, "page %llu: version %llx acknowledged, %llx at the second home",
			   ll(page), ll(acknowledged), ll(copy.version));
	if (copy.flags & WVM_HOME_LOST && !(n->home[at].flags & WVM_HOME_LOST) &&
	    !comes_again(s, n, at))
		sim_failed(s, "page %llu: the second home has no bytes, and nobody sends them",
			   ll(page));
}

/* About to come to a home. What was acknowledged before an owner told of a newer one is void. */
void sim_backup_written_back(struct sim *s, uint32_t node, const struct wvm_msg *msg)
{
	uint64_t at = msg->gpa >> WVM_PAGE_SHIFT;

	if (s->nodes[node].home[at].flags & WVM_HOME_UNSTORED)
		s->acknowledged[sim_page_of(at)] = 0;
}

/* A home says it: unless it hands the unit over, or has no second home, that one has it. */
void sim_note_acknowledged(struct sim *s, uint32_t node, const struct wvm_msg *msg)
{
	uint64_t at = msg->gpa >> WVM_PAGE_SHIFT, page = sim_page_of(at);
	const struct sim_node *n = &s->nodes[node], *second;

	/* What whoever merged the unit has by now is its own to write back. */
	if (!s->config.backup || !wvm_backup_stored(n->core, 0, at))
		return;
	if (s->acknowledged[page] < msg->version)
		s->acknowledged[page] = msg->version;
	second = second_of(s, page, node);
	if (!second || !wvm_backup_ready(n->core, 0, at))
		return;
	if (copy_at(second, at).version < msg->version)
		sim_failed(s,
			   "node %u: acknowledges version %llx of page %llu, the second home has "
			   "%llx",
			   node, ll(msg->version), ll(page), ll(copy_at(second, at).version));
}

/*
 * Slices that could be copied, and are not. (Of units that were granted whole to a node that came
 * back without its files it is not known which pages there were.)
 */
static uint32_t not_copied(const struct sim *s, const struct sim_node *n)
{
	uint32_t count = 0;

	if (!s->config.renew && !s->config.reboots)
		return wvm_core_degraded(n->core);
	for (uint32_t i = 0; i < WVM_SLICES; i++)
		count += wvm_backup_degraded(n->core, i) &&
			 !(n->core->backup->hopeless[i / 8] >> i % 8 & 1);
	return count;
}

/* After a minute of peace all is copied, and nobody has what it is not to have. */
void sim_check_degraded(struct sim *s)
{
	for (uint32_t i = 0; s->config.backup && i < s->config.nodes; i++) {
		const struct sim_node *n = &s->nodes[i];

		if (n->dead)
			continue;
		if (not_copied(s, n) && !s->config.deaths_meet && !s->config.deaths_all)
			sim_failed(s, "node %u: %u slices are never copied", i, not_copied(s, n));
		for (uint32_t p = 0; p < s->config.pages; p++)
			if (n->home[sim_core_page(p)].flags & WVM_HOME_BACKUP &&
			    wvm_backup_member(n->core, 0, sim_core_page(p)) != i)
				sim_failed(s,
					   "node %u: keeps a copy of page %u and is no second home",
					   i, p);
	}
}
