#include "roles/check/users.h"

#include <time.h>

#define WAIT_MS 120000u /* a hang, not a measure */

static volatile uint64_t *page_at(uint64_t *base, unsigned n)
{
	uint64_t page = (uint64_t)(n % USERS_UNITS) * 512 + n / USERS_UNITS * 131;

	return base + page * PAGE_WORDS;
}

static atomic_ullong *begun(struct program *p, unsigned n)
{
	return (atomic_ullong *)&p->arena->model[2 * n];
}

static atomic_ullong *written(struct program *p, unsigned n)
{
	return (atomic_ullong *)&p->arena->model[2 * n + 1];
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void note_slowest(struct program *p, uint64_t took_us)
{
	unsigned long long is = atomic_load(&p->arena->word[USERS_SLOWEST_US]);

	while (took_us > is &&
	       !atomic_compare_exchange_weak(&p->arena->word[USERS_SLOWEST_US], &is, took_us))
		;
}

/* Of its own pages: one more generation. */
static void write_page(struct program *p, uint64_t *base, unsigned n)
{
	uint64_t next = atomic_load(written(p, n)) + 1;

	atomic_store(begun(p, n), next);
	pattern_fill((uint64_t *)page_at(base, n), n, next);
	atomic_store(written(p, n), next);
}

/* One word of anybody's: of a generation that was there at some time since we began to look. */
static void read_page(struct program *p, uint64_t *base, unsigned n)
{
	unsigned word = (unsigned)(program_random(p) % PAGE_WORDS);
	uint64_t from = atomic_load(written(p, n)), is = load(page_at(base, n) + word), to, g;

	to = atomic_load(begun(p, n));
	for (g = from; g <= to && is != (g ? pattern(n, word, g) : 0); g++)
		;
	NEED(p, g <= to, "page %u word %u is %lx, which no generation from %lu to %lu wrote", n,
	     word, is, from, to);
}

static void check_all(struct program *p, uint64_t *base)
{
	for (unsigned n = 0; n < USERS_PAGES; n++) {
		uint64_t g = atomic_load(written(p, n));
		int word = g ? pattern_differs((uint64_t *)page_at(base, n), n, g) : -1;

		NEED(p, g || !load(page_at(base, n)), "page %u, never written, is not zero", n);
		NEED(p, word < 0, "page %u word %d is not of generation %lu", n, word, g);
	}
}

/* Rounds end when the test says so: then all look at all pages. */
static void use_memory(struct program *p)
{
	uint64_t *base = program_map(p, 0, USERS_UNITS * 2 * MIB);

	program_meet(p);
	while (!atomic_load(&p->arena->word[USERS_STOP])) {
		unsigned n = (unsigned)(program_random(p) % USERS_PAGES);
		uint64_t began = now_us();

		if (program_random(p) % 2)
			read_page(p, base, n);
		else
			write_page(p, base,
				   n - n % p->count + p->index < USERS_PAGES
					   ? n - n % p->count + p->index
					   : p->index);
		note_slowest(p, now_us() - began);
		atomic_fetch_add(&p->arena->word[USERS_STEPS], 1);
	}
	program_meet(p);
	check_all(p, base);
	program_meet(p);
}

#define USERS_MAX 6u
static struct program users[USERS_MAX];
static unsigned user_count;

struct arena *start_users(const struct cluster *c, const unsigned *nodes, unsigned count)
{
	struct arena *a = arena_new(USERS_MODEL);

	user_count = count;
	for (unsigned i = 0; i < count; i++) {
		users[i] = (struct program){.cluster = c,
					    .arena = a,
					    .node = nodes[i],
					    .index = i,
					    .count = count,
					    .seed = i + 1};
		program_start(&users[i], use_memory);
	}
	return a;
}

void await_steps(struct arena *a, unsigned long long more)
{
	unsigned long long from = atomic_load(&a->word[USERS_STEPS]);
	uint64_t end = cluster_now_ms() + WAIT_MS;

	while (atomic_load(&a->word[USERS_STEPS]) < from + more && !atomic_load(&a->failed)) {
		ck_assert_msg(cluster_now_ms() < end,
			      "programs stand still: %llu of %llu steps, the slowest took %llu us",
			      atomic_load(&a->word[USERS_STEPS]) - from, more,
			      atomic_load(&a->word[USERS_SLOWEST_US]));
		cluster_sleep_ms(5);
	}
}

void end_users(struct arena *a)
{
	struct program *list[USERS_MAX];

	atomic_store(&a->word[USERS_STOP], 1);
	for (unsigned i = 0; i < user_count; i++)
		list[i] = &users[i];
	programs_await(list, user_count);
}

/* Looks at all pages from a node, when nobody writes. */
static void look(struct program *p)
{
	check_all(p, program_map(p, 0, USERS_UNITS * 2 * MIB));
}

void look_from(const struct cluster *c, struct arena *a, unsigned node)
{
	programs_run(c, a, &node, 1, look, NULL);
}

/* One generation of all pages. */
static void fill(struct program *p)
{
	uint64_t *base = program_map(p, 0, USERS_UNITS * 2 * MIB);

	for (unsigned n = 0; n < USERS_PAGES; n++)
		write_page(p, base, n);
}

void fill_from(const struct cluster *c, struct arena *a, unsigned node)
{
	programs_run(c, a, &node, 1, fill, NULL);
}
