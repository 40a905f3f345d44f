/* The identity of a cluster: what all masters must have alike, and nothing else. */
#include <check.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/master/node.h"
#include "shared/crc32c.h"

#define NODES                         \
	"NODE 5 10.0.0.1 9000 4 16\n" \
	"NODE 6 10.0.0.2 9000 4 16\n" \
	"NODE 7 10.0.0.3 9000 4 16\n"
#define PLACES                  \
	"PLACE 0 0    4096 5\n" \
	"PLACE 0 4096 4096 6 # x\n"

/* The hash of a topology of that text. */
static uint32_t hash_of(const char *text)
{
	struct wvm_node *n = calloc(1, sizeof(*n));
	char err[256];
	uint32_t hash;

	ck_assert_msg(!wvm_topology_parse(&n->topology, "t", text, strlen(text), err, sizeof(err)),
		      "%s", err);
	n->layout = (struct wvm_layout){.list = n->topology.places,
					.count = n->topology.place_count};
	hash = wvm_layout_hash(n);
	wvm_topology_free(&n->topology);
	free(n);
	return hash;
}

/* Files of masters that know no SPARE lines are taken over by those that do. */
START_TEST(without_spares_it_is_that_of_the_placed_ranges)
{
	const uint64_t ranges[] = {htobe64(0),    htobe64(2048), htobe64(0),
				   htobe64(2048), htobe64(2048), htobe64(1)};

	ck_assert_uint_eq(hash_of(NODES), 0);
	ck_assert_uint_eq(hash_of(NODES PLACES), wvm_crc32c(0, ranges, sizeof(ranges)));
}
END_TEST

START_TEST(each_choice_of_spares_is_another_cluster)
{
	static const char *const all[] = {
		NODES,
		NODES "SPARE 5\n",
		NODES "SPARE 6\n",
		NODES "SPARE 7\n",
		NODES "SPARE 6\nSPARE 7\n",
		NODES "SPARE 5\nSPARE 7\n",
		NODES PLACES,
		NODES PLACES "SPARE 7\n",
	};
	const unsigned count = sizeof(all) / sizeof(all[0]);

	for (unsigned i = 0; i < count; i++) {
		for (unsigned k = 0; k < i; k++)
			ck_assert_msg(hash_of(all[i]) != hash_of(all[k]), "%s and %s", all[i],
				      all[k]);
	}
}
END_TEST

static uint32_t members_hash_of(const char *text)
{
	struct wvm_node *n = calloc(1, sizeof(*n));
	char err[256];
	uint32_t hash;

	ck_assert_msg(!wvm_topology_parse(&n->topology, "t", text, strlen(text), err, sizeof(err)),
		      "%s", err);
	hash = wvm_members_hash(n);
	wvm_topology_free(&n->topology);
	free(n);
	return hash;
}

/* Files of masters to which a node with 0 cores was like any other are taken over without one. */
START_TEST(each_choice_of_nodes_without_cores_is_another_cluster)
{
	static const unsigned cores[][3] = {{4, 4, 4}, {0, 4, 4}, {4, 0, 4}, {4, 4, 0},
					    {0, 0, 4}, {0, 4, 0}, {4, 0, 0}, {0, 0, 0}};
	uint32_t hash[8];
	char text[200];

	for (unsigned i = 0; i < 8; i++) {
		snprintf(text, sizeof(text),
			 "NODE 5 10.0.0.1 9000 %u 16\nNODE 6 10.0.0.2 9000 %u 16\n"
			 "NODE 7 10.0.0.3 9000 %u 16\n",
			 cores[i][0], cores[i][1], cores[i][2]);
		hash[i] = members_hash_of(text);
		for (unsigned k = 0; k < i; k++)
			ck_assert_msg(hash[i] != hash[k], "%s: as %u", text, k);
	}
	ck_assert_uint_eq(hash[0], 0); /* of no members: the lines with cores add nothing */
	ck_assert_uint_eq(members_hash_of("NODE 5 10.0.0.1 9000 1 16\nNODE 6 10.0.0.2 9000 9 16\n"
					  "NODE 7 10.0.0.3 9000 65535 16\n"),
			  hash[0]);
}
END_TEST

START_TEST(how_the_lines_are_written_is_not_part_of_it)
{
	ck_assert_uint_eq(hash_of(NODES "SPARE 6\nSPARE 7\n"),
			  hash_of("SPARE 7 # later\n\n" NODES "SPARE  6\n"));
	ck_assert_uint_eq(hash_of(NODES PLACES "SPARE 7\n"), hash_of("SPARE 7\n" PLACES NODES));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("layout_hash");
	TCase *tc = tcase_create("layout_hash");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tc, without_spares_it_is_that_of_the_placed_ranges);
	tcase_add_test(tc, each_choice_of_spares_is_another_cluster);
	tcase_add_test(tc, each_choice_of_nodes_without_cores_is_another_cluster);
	tcase_add_test(tc, how_the_lines_are_written_is_not_part_of_it);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
