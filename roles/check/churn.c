#include "roles/check/churn.h"

#include <stdio.h>
#include <unistd.h>

#define BEGUN       100u   /* rounds */
#define GOES_ON_MS  20000u /* a hang, not a measure */
#define RETRY_US    2000u
#define GIVE_UP_MS  60000u /* one access, however often it is tried */
#define SPREAD      64u    /* pages between the ranges of two units, so that tables differ */
#define SPREAD_WRAP 8u

/* ---- in a program ------------------------------------------------------------------------ */

struct user {
	struct program *p;
	const struct churn_plan *plan;
	unsigned pages;
	uint64_t gpa[CHURN_RANGES_MAX];
	uint64_t *range[CHURN_RANGES_MAX];
	uint64_t last[CHURN_PAGES_MAX][PROGRAMS_MAX];
	uint64_t mine[CHURN_PAGES_MAX];
};

static void choose_ranges(struct user *u)
{
	unsigned k = 0;

	for (unsigned unit = u->plan->first; k < u->plan->ranges; unit++) {
		int home = wvm_where(u->p->wvm, CLUSTER_VM, unit * 2 * MIB);

		NEED(u->p, home >= 0, "unit %u: %d", unit, home);
		if (!(u->plan->homes >> home & 1))
			continue;
		u->gpa[k] = unit * 2 * MIB + k % SPREAD_WRAP * SPREAD * PAGE;
		u->range[k] = program_map(u->p, u->gpa[k], CHURN_RANGE_PAGES * PAGE);
		k++;
	}
	u->pages = k * CHURN_RANGE_PAGES;
}

static void raise_to(struct program *p, unsigned word, uint64_t value)
{
	unsigned long long is = atomic_load(&p->arena->word[word]);

	while (is < value && !atomic_compare_exchange_weak(&p->arena->word[word], &is, value))
		;
}

static uint64_t *word_at(struct user *u, unsigned page, unsigned word)
{
	return u->range[page / CHURN_RANGE_PAGES] + page % CHURN_RANGE_PAGES * PAGE_WORDS + word;
}

static atomic_ullong *said(struct user *u, unsigned page, unsigned word)
{
	return (atomic_ullong *)&u->p->arena->model[page * u->p->count + word];
}

/* One access, tried in new mappings until it gets through. */
static void reach(struct user *u, unsigned page, bool write, unsigned word, uint64_t *value)
{
	unsigned k = page / CHURN_RANGE_PAGES;
	struct program *p = u->p;
	uint64_t begin = cluster_now_ms(), before = begin;

	while (write ? !harm_store(p, word_at(u, page, word), *value)
		     : !harm_load(p, word_at(u, page, word), value)) {
		NEED(p, u->plan->may_fail, "SIGBUS for page %u (gpa %lx)", page, u->gpa[k]);
		NEED(p, cluster_now_ms() - begin < GIVE_UP_MS, "page %u stays an error", page);
		/* How many, and how long the slowest took. */
		atomic_fetch_add(&p->arena->word[CHURN_ERRORS + p->node], 1);
		raise_to(p, CHURN_ERROR_MS + p->node, cluster_now_ms() - before);
		u->range[k] = harm_remap(p, u->range[k], u->gpa[k], CHURN_RANGE_PAGES * PAGE);
		usleep(RETRY_US);
		before = cluster_now_ms();
	}
	raise_to(p, CHURN_PAUSE_MS_MAX, cluster_now_ms() - before);
}

static void look(struct user *u, unsigned page, unsigned word)
{
	uint64_t value, newest;

	reach(u, page, false, word, &value);
	newest = atomic_load(said(u, page, word));
	NEED(u->p, value >= u->last[page][word] && value <= newest,
	     "page %u word %u: %lu, after %lu, when at most %lu was stored", page, word, value,
	     u->last[page][word], newest);
	NEED(u->p, word != u->p->index || value == u->mine[page], "page %u: own word %lu, not %lu",
	     page, value, u->mine[page]);
	u->last[page][word] = value;
}

static void verify(struct user *u)
{
	for (unsigned page = 0; page < u->pages; page++)
		for (unsigned word = 0; word < u->p->count; word++) {
			uint64_t value, is = atomic_load(said(u, page, word));

			reach(u, page, false, word, &value);
			NEED(u->p, value == is, "at the end page %u word %u is %lu, not %lu", page,
			     word, value, is);
		}
}

static void churn(struct program *p)
{
	static struct user u;
	atomic_ullong *rounds = &p->arena->word[CHURN_DONE + p->index];

	u.p = p;
	u.plan = p->arg;
	choose_ranges(&u);
	harm_catch_bus();
	while (!atomic_load(&p->arena->word[CHURN_STOP])) {
		unsigned page = (unsigned)(program_random(p) % u.pages);

		look(&u, page, (unsigned)(program_random(p) % p->count));
		/* Said before it is done: nobody may see more than was said. */
		atomic_store(said(&u, page, p->index), ++u.mine[page]);
		reach(&u, page, true, p->index, &u.mine[page]);
		if (atomic_fetch_add(rounds, 1) + 1 == BEGUN)
			harm_tell(p, CHURN_READY);
	}
	harm_tell(p, CHURN_STOPPED);
	program_await_word(p, CHURN_VERIFY, 1);
	verify(&u);
}

/* ---- the test's side --------------------------------------------------------------------- */

void churn_begin(struct churn *w, const struct cluster *c, const struct churn_plan *plan,
		 const unsigned *nodes, unsigned count)
{
	ck_assert_uint_le(count, PROGRAMS_MAX);
	w->plan = *plan;
	w->arena = arena_new(CHURN_PAGES_MAX * count);
	w->count = count;
	for (unsigned i = 0; i < count; i++) {
		w->programs[i] = (struct program){.cluster = c,
						  .arena = w->arena,
						  .node = nodes[i],
						  .index = i,
						  .count = count,
						  .arg = &w->plan};
		w->list[i] = &w->programs[i];
		program_start(w->list[i], churn);
	}
}

void churn_start(struct churn *w, const struct cluster *c, const struct churn_plan *plan,
		 const unsigned *nodes, unsigned count)
{
	churn_begin(w, c, plan, nodes, count);
	harm_await(w->arena, CHURN_READY, count);
}

void churn_stop(struct churn *w)
{
	w->arena->word[CHURN_STOP] = 1;
	harm_await(w->arena, CHURN_STOPPED, w->count);
}

void churn_verify(struct churn *w)
{
	w->arena->word[CHURN_VERIFY] = 1;
	programs_await(w->list, w->count);
}

void churn_free(struct churn *w)
{
	arena_free(w->arena);
}

uint64_t churn_error_ms_max(const struct churn *w, unsigned node)
{
	return w->arena->word[CHURN_ERROR_MS + node];
}

uint64_t churn_errors(const struct churn *w)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < CHURN_NODES_MAX; i++)
		sum += w->arena->word[CHURN_ERRORS + i];
	return sum;
}

uint64_t churn_rounds(const struct churn *w)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < w->count; i++)
		sum += w->arena->word[CHURN_DONE + i];
	return sum;
}

bool churn_goes_on(const struct churn *w, unsigned rounds)
{
	uint64_t end = cluster_now_ms() + GOES_ON_MS, goal[PROGRAMS_MAX];

	for (unsigned i = 0; i < w->count; i++)
		goal[i] = w->arena->word[CHURN_DONE + i] + rounds;
	for (unsigned i = 0; i < w->count; i++)
		while (w->arena->word[CHURN_DONE + i] < goal[i] && !w->arena->failed) {
			if (cluster_now_ms() > end)
				return false;
			cluster_sleep_ms(1);
		}
	return true;
}
