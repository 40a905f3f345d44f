/*
 * Pins while the inbox of another shard is full: what cannot be posted waits, in order, and the
 * shard that wanted to post goes on. With the real shards and inboxes; what pins do with the core
 * and with clients is recorded instead (check_pins has all of it, in masters).
 */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "roles/master/pins.c"

#define SLOTS    256u
#define RELEASES 1000u
#define ALL      (RELEASES + 1000u)

static struct wvm_node node;
static uint64_t released[WVM_PIN_LETTERS];
static atomic_uint releases;
static int64_t answer;

/* --- what pins call ----------------------------------------------------------- */

void wvm_core_panic(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, what);
	abort();
}

void wvm_runs_end(struct wvm_node_shard *s)
{
	(void)s;
}
void wvm_adopt_turn(struct wvm_node_shard *s)
{
	(void)s;
}
void wvm_node_drain(struct wvm_node_shard *s)
{
	(void)s;
}

void wvm_core_unpin(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page)
{
	(void)core, (void)now_ns, (void)vm;
	released[atomic_fetch_add(&releases, 1)] = page;
}

enum wvm_pin_result wvm_core_pin(struct wvm_core *core, uint64_t now_ns, uint32_t vm, uint64_t page)
{
	(void)core, (void)now_ns, (void)vm, (void)page;
	return WVM_PIN_HELD;
}

unsigned wvm_holder_shard(const struct wvm_node *n, uint64_t page)
{
	(void)n;
	return (unsigned)(page % 2);
}

bool wvm_node_holder_entry(struct wvm_node_shard *s, uint32_t vm, uint64_t page)
{
	(void)s, (void)vm, (void)page;
	return true;
}

void wvm_clients_reply(struct wvm_clients *clients, unsigned shard, unsigned client, uint64_t token,
		       int64_t result)
{
	(void)clients, (void)shard, (void)client, (void)token;
	answer = result;
}

/* --- two shards, of which the second does not run yet --------------------------- */

static void nothing(struct wvm_shard *self, void *ctx, const void *data, size_t len)
{
	(void)self, (void)ctx, (void)data, (void)len;
}

static void make_node(void)
{
	char why[160];

	node = (struct wvm_node){.shard_count = 2};
	for (unsigned i = 0; i < 2; i++) {
		struct wvm_node_shard *s = &node.shards[i];
		struct wvm_shard_opts o = {.index = i, .inbox_slots = SLOTS};

		s->node = &node;
		s->index = i;
		ck_assert_int_eq(wvm_pins_init(s), 0);
		ck_assert_msg(!wvm_shard_create(&s->shard, &o, why, sizeof(why)), "%s", why);
	}
	atomic_store(&releases, 0);
	for (unsigned i = 0; i < SLOTS; i++)
		ck_assert_int_eq(wvm_post(node.shards[0].shard, node.shards[1].shard, nothing, NULL,
					  NULL, 0),
				 0);
}

static void end_node(void)
{
	for (unsigned i = 0; i < 2; i++) {
		wvm_shard_destroy(node.shards[i].shard);
		wvm_pins_free(&node.shards[i]);
	}
}

static uint64_t page_of_other(unsigned n)
{
	return 2 * n + 1;
}

static void release_many(unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		wvm_pins_end(&node.shards[0], 0, page_of_other(n), 1);
}

/* The end of a turn, as in wvm_node_turn(); before it one more, which is not to overtake what
 * waits. */
static bool turn(struct wvm_hook *hook, uint64_t now_ns)
{
	static unsigned sent = RELEASES;

	(void)hook, (void)now_ns;
	if (sent < ALL)
		wvm_pins_end(&node.shards[0], 0, page_of_other(sent++), 1);
	return wvm_pins_turn(&node.shards[0]) || sent < ALL;
}

static void *stop_when_released(void *arg)
{
	while (atomic_load(&releases) < ALL)
		usleep(1000);
	wvm_shard_stop(node.shards[0].shard);
	wvm_shard_stop(node.shards[1].shard);
	return arg;
}

START_TEST(what_a_full_inbox_refuses_waits_and_arrives_in_order)
{
	struct wvm_hook hook = {.turn = turn};
	pthread_t stopper;

	make_node();
	wvm_shard_hook(node.shards[0].shard, WVM_HOOK_ROLE, &hook);
	release_many(RELEASES); /* comes back, although nobody empties the inbox */
	ck_assert(wvm_pins_turn(&node.shards[0]));
	ck_assert_uint_eq(atomic_load(&releases), 0);
	ck_assert_int_eq(pthread_create(&stopper, NULL, stop_when_released, NULL), 0);
	ck_assert_int_eq(wvm_shard_start(node.shards[1].shard), 0);
	ck_assert_int_eq(wvm_shard_run(node.shards[0].shard), 0);
	ck_assert_int_eq(wvm_shard_join(node.shards[1].shard), 0);
	pthread_join(stopper, NULL);
	ck_assert_uint_eq(atomic_load(&releases), ALL);
	for (unsigned n = 0; n < ALL; n++)
		ck_assert_uint_eq(released[n], page_of_other(n));
	end_node();
}
END_TEST

/* Clients that die release what they have, whatever waits; new requests are what has to wait. */
START_TEST(new_pins_are_refused_while_much_waits)
{
	struct wvm_node_shard *s = &node.shards[0];

	make_node();
	release_many(WVM_PIN_LETTERS / 4);
	ck_assert(!wvm_pins_busy(s));
	release_many(1);
	ck_assert(wvm_pins_busy(s));
	answer = 0;
	wvm_pins_begin(s, 3, 0, page_of_other(0), 1, 77);
	ck_assert_int_eq(answer, -EAGAIN);
	ck_assert(wvm_pins_none(s));
	release_many(WVM_PIN_LETTERS / 2); /* still taken */
	end_node();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pins_full");
	TCase *t = tcase_create("pins_full");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(t, 30); /* a hang is what must not be */
	tcase_add_test(t, what_a_full_inbox_refuses_waits_and_arrives_in_order);
	tcase_add_test(t, new_pins_are_refused_while_much_waits);
	suite_add_tcase(suite, t);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
