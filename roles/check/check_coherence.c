/* Strict memory on three nodes: with one shard and with two, on loopback, veth and a bad wire. */
#include "roles/check/coherence.h"

static void on_loopback(void)
{
	coherence_percent = 100;
	cluster_start(&coherence_cluster, NULL);
}

static void with_two_shards(void)
{
	coherence_percent = 40;
	cluster_start(&coherence_cluster, &(struct cluster_opts){.shards = "2"});
}

static void with_two_shards_on_veth(void)
{
	coherence_percent = 40;
	cluster_start(&coherence_cluster,
		      &(struct cluster_opts){.shards = "2", .net = CLUSTER_VETH});
}

static void on_a_bad_wire(void)
{
	coherence_percent = 5;
	cluster_start(&coherence_cluster,
		      &(struct cluster_opts){.net = CLUSTER_WIRE,
					     .chaos = "loss 1% duplicate 1% reorder 5% delay 1ms"});
}

static void stop(void)
{
	cluster_stop(&coherence_cluster);
}

static void add(Suite *s, const char *name, void (*start)(void))
{
	/* Programs that spin leave masters little of two processors: minutes, where hosts are busy.
	 */
	TCase *t = cluster_tcase(s, name, 300);

	tcase_add_unchecked_fixture(t, start, stop);
	coherence_tests(t);
}

static Suite *coherence_suite(void)
{
	Suite *s = suite_create("coherence");

	add(s, "on loopback", on_loopback);
	add(s, "with two shards", with_two_shards);
	add(s, "with two shards on veth", with_two_shards_on_veth);
	add(s, "on a wire that loses, doubles, reorders and delays", on_a_bad_wire);
	return s;
}

int main(int argc, char **argv)
{
	static Suite *(*const suites[])(void) = {coherence_suite};

	return cluster_main(argv, suites, 1);
}
