/* How stamps of several masters become the parts of a fault, and what the bars show of them. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/wvmbench/bars.h"
#include "bench/wvmbench/explain.h"
#include "bench/wvmbench/tracer.h"

#define PAGE    77u
#define REQUEST 0x1000000000005u

static struct stamp requester_stamps[64], home_stamps[64], owner_stamps[64];
static struct trace requester, home, owner;
static struct access access_of;
static struct joined joined;

static void add(struct trace *t, uint64_t ns, enum stamp_kind kind, enum stamp_what what,
		uint64_t page, uint64_t request)
{
	t->at[t->n++] = (struct stamp){
		.ns = ns, .page = page, .request = request, .kind = kind, .what = what};
}

/* A fault whose parts are 10, 20, 30, ... ns: no two are the same. */
static void plain_fault(void)
{
	requester = (struct trace){requester_stamps, 0, 64};
	home = (struct trace){home_stamps, 0, 64};
	owner = (struct trace){owner_stamps, 0, 64};
	access_of = (struct access){PAGE, 1000, 1280};
	add(&requester, 1010, STAMP_FAULT, 0, PAGE, 0);
	add(&requester, 1015, STAMP_SEND, STAMP_ASK, PAGE, REQUEST);
	add(&requester, 1030, STAMP_SUBMIT, 0, 0, 0);
	add(&home, 1060, STAMP_RECEIVE, STAMP_ASK, PAGE, REQUEST);
	add(&home, 1070, STAMP_SEND, STAMP_ANSWER, PAGE, REQUEST);
	add(&home, 1100, STAMP_SUBMIT, 0, 0, 0);
	add(&requester, 1120, STAMP_RECEIVE, STAMP_ANSWER, PAGE, REQUEST);
	add(&requester, 1150, STAMP_RECEIVE, STAMP_ANSWER, PAGE, REQUEST);
	add(&requester, 1210, STAMP_DONE, 0, PAGE, 0);
}

static enum join_result join(const struct trace *of_owner)
{
	join_sort(&requester);
	join_sort(&home);
	join_sort(&owner);
	return join_fault(&access_of, &requester, &home, of_owner, &joined);
}

static uint64_t sum(void)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < PARTS; i++)
		all += joined.ns[i];
	return all;
}

static void expect_parts(const uint64_t parts[PARTS])
{
	for (unsigned i = 0; i < PARTS; i++)
		ck_assert_msg(joined.ns[i] == parts[i], "%s: %lu, not %lu", bar_name(i),
			      joined.ns[i], parts[i]);
	ck_assert_uint_eq(sum(), access_of.after_ns - access_of.before_ns);
}

static const uint64_t PLAIN[PARTS] = {
	[PART_DELIVERY] = 10, [PART_QUEUE] = 20, [PART_THERE] = 30, [PART_HOME] = 40,
	[PART_BACK] = 50,     [PART_COPY] = 60,  [PART_WAKE] = 70};

START_TEST(parts_are_between_their_stamps_and_add_up_to_the_access)
{
	plain_fault();
	ck_assert_int_eq(join(NULL), JOIN_WHOLE);
	expect_parts(PLAIN);
	/* Nothing of an owner in its trace: the same. */
	ck_assert_int_eq(join(&owner), JOIN_WHOLE);
	ck_assert(!joined.owner);
	expect_parts(PLAIN);
}
END_TEST

START_TEST(stamps_of_other_pages_requests_and_times_are_left_aside)
{
	plain_fault();
	/* Another fault of the same page before, others of other pages meanwhile. */
	add(&requester, 500, STAMP_FAULT, 0, PAGE, 0);
	add(&requester, 510, STAMP_SEND, STAMP_ASK, PAGE, REQUEST - 1);
	add(&requester, 900, STAMP_DONE, 0, PAGE, 0);
	add(&requester, 1005, STAMP_FAULT, 0, PAGE + 1, 0);
	add(&requester, 1011, STAMP_SEND, STAMP_ASK, PAGE + 1, REQUEST + 1);
	add(&requester, 1012, STAMP_RECEIVE, STAMP_ANSWER, PAGE + 1, REQUEST + 1);
	add(&requester, 1160, STAMP_DONE, 0, PAGE + 1, 0);
	add(&requester, 1155, STAMP_RECEIVE, STAMP_OTHER, PAGE, REQUEST);
	add(&home, 1040, STAMP_RECEIVE, STAMP_ASK, PAGE, REQUEST + 1);
	add(&home, 1065, STAMP_SEND, STAMP_ANSWER, PAGE, REQUEST + 1);
	add(&home, 1066, STAMP_SEND, STAMP_ANSWER, PAGE + 1, REQUEST);
	ck_assert_int_eq(join(NULL), JOIN_WHOLE);
	expect_parts(PLAIN);
}
END_TEST

START_TEST(a_batch_is_submitted_by_the_shard_that_filled_it)
{
	plain_fault();
	add(&requester, 1020, STAMP_SUBMIT, 0, 0, 0);
	requester.at[requester.n - 1].shard = 1;
	ck_assert_int_eq(join(NULL), JOIN_WHOLE);
	expect_parts(PLAIN);
}
END_TEST

START_TEST(what_left_before_its_batch_was_submitted_was_sent_when_it_was_given)
{
	plain_fault();
	requester.at[2].ns = 1200; /* SUBMIT long after the home had it */
	ck_assert_int_eq(join(NULL), JOIN_WHOLE);
	ck_assert_uint_eq(joined.ns[PART_QUEUE], 5);
	ck_assert_uint_eq(joined.ns[PART_THERE], 45);
	ck_assert_uint_eq(sum(), 280);
}
END_TEST

START_TEST(a_program_that_went_on_before_the_stamp_of_its_waking_was_woken_in_the_copy)
{
	plain_fault();
	requester.at[5].ns = 1500;
	ck_assert_int_eq(join(NULL), JOIN_WHOLE);
	ck_assert_uint_eq(joined.ns[PART_COPY], 130);
	ck_assert_uint_eq(joined.ns[PART_WAKE], 0);
	ck_assert_uint_eq(sum(), 280);
}
END_TEST

/* The owner's part: 7 on the way, 5 of work, 9 on the way back. */
static void owned_fault(struct trace *its)
{
	plain_fault();
	add(&home, 1064, STAMP_SEND, STAMP_DEMAND, PAGE, 9);
	add(&home, 1066, STAMP_SUBMIT, 0, 0, 0);
	add(its, 1073, STAMP_RECEIVE, STAMP_DEMAND, PAGE, 9);
	add(its, 1076, STAMP_SEND, STAMP_GIVE, PAGE, 9);
	add(its, 1078, STAMP_SUBMIT, 0, 0, 0);
	add(&home, 1087, STAMP_RECEIVE, STAMP_GIVE, PAGE, 9);
	home.at[1].ns = 1090; /* the answer comes behind it */
}

START_TEST(what_an_owner_did_is_taken_out_of_the_homes_part)
{
	uint64_t parts[PARTS];

	memcpy(parts, PLAIN, sizeof(parts));
	parts[PART_DEMAND] = 7;
	parts[PART_OWNER] = 5;
	parts[PART_GIVE] = 9;
	parts[PART_HOME] -= 21;
	owned_fault(&owner);
	ck_assert_int_eq(join(&owner), JOIN_WHOLE);
	ck_assert(joined.owner);
	expect_parts(parts);
	/* Without the owner's trace it is the home's. */
	ck_assert_int_eq(join(NULL), JOIN_WHOLE);
	expect_parts(PLAIN);
}
END_TEST

START_TEST(an_owner_on_the_homes_own_node_is_found_in_the_homes_trace)
{
	owned_fault(&home);
	/* From a node to itself there is no kernel: received before the turn ends. */
	ck_assert_int_eq(join(&home), JOIN_WHOLE);
	ck_assert(joined.owner);
	ck_assert_uint_eq(joined.ns[PART_OWNER] + joined.ns[PART_DEMAND] + joined.ns[PART_GIVE],
			  21);
	ck_assert_uint_eq(sum(), 280);
}
END_TEST

START_TEST(faults_that_cannot_be_joined_say_why)
{
	plain_fault();
	add(&requester, 1040, STAMP_SEND, STAMP_ASK, PAGE, REQUEST);
	ck_assert_int_eq(join(NULL), JOIN_AGAIN);
	plain_fault();
	requester.at[0].page++;
	ck_assert_int_eq(join(NULL), JOIN_NO_FAULT);
	plain_fault();
	requester.at[1].ns = 990;
	ck_assert_int_eq(join(NULL), JOIN_AHEAD);
	plain_fault();
	requester.at[1].page++;
	ck_assert_int_eq(join(NULL), JOIN_MISSING);
	for (unsigned i = 0; i < 2; i++) {
		plain_fault();
		home.at[i].kind = STAMP_SUBMIT;
		ck_assert_int_eq(join(NULL), JOIN_MISSING);
	}
	plain_fault();
	requester.n -= 1; /* not done */
	ck_assert_int_eq(join(NULL), JOIN_MISSING);
	plain_fault();
	requester.n -= 3; /* no answer */
	ck_assert_int_eq(join(NULL), JOIN_MISSING);
}
END_TEST

/* ---- bars ------------------------------------------------------------------------------ */

START_TEST(cells_are_proportional_and_fill_the_bar)
{
	static const double us[] = {1, 2, 0, 4, -3, 1};
	static const double tiny[] = {0.001, 100, 0.001};
	static const double none[] = {0, -1};
	unsigned cells[6], all = 0;

	bar_cells(us, 6, 80, cells);
	ck_assert_uint_eq(cells[0], 10);
	ck_assert_uint_eq(cells[1], 20);
	ck_assert_uint_eq(cells[2], 0);
	ck_assert_uint_eq(cells[3], 40);
	ck_assert_uint_eq(cells[4], 0);
	ck_assert_uint_eq(cells[5], 10);
	for (unsigned width = 1; width < 100; width++, all = 0) {
		bar_cells(us, 6, width, cells);
		for (unsigned i = 0; i < 6; i++)
			all += cells[i];
		ck_assert_uint_eq(all, width);
	}
	bar_cells(tiny, 3, 72, cells);
	ck_assert_uint_eq(cells[1], 72);
	bar_cells(none, 2, 72, cells);
	ck_assert_uint_eq(cells[0] + cells[1], 0);
}
END_TEST

static void explain(struct explained *e, struct explain_samples *s)
{
	memset(e, 0, sizeof(*e));
	snprintf(e->name, sizeof(e->name), "remote-read");
	explain_finish(e, s);
}

START_TEST(the_rest_is_what_medians_of_parts_leave_of_the_median_of_all)
{
	/* Part 0: 1, 2, 9; part 1: 8, 3, 1; all: 10, 6, 11 and one that was not joined. */
	static const uint64_t parts[3][3] = {
		{1000, 8000, 10000}, {2000, 3000, 6000}, {9000, 1000, 11000}};
	struct explain_samples s;
	struct explained e;
	double all;

	ck_assert_int_eq(explain_samples_init(&s, 8), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct joined j = {.ns = {parts[i][0], parts[i][1]}};

		explain_samples_add(&s, &(struct access){1, 100, 100 + parts[i][2]}, JOIN_WHOLE,
				    &j);
	}
	explain_samples_add(&s, &(struct access){1, 0, 99000}, JOIN_AGAIN, NULL);
	explain_samples_add(&s, &(struct access){1, 0, 98000}, JOIN_AHEAD, NULL);
	explain_samples_add(&s, &(struct access){1, 0, 5}, JOIN_NO_FAULT, NULL);
	explain(&e, &s);
	explain_samples_fini(&s);
	ck_assert_uint_eq(e.faults, 5);
	ck_assert_uint_eq(e.joined, 3);
	ck_assert_uint_eq(e.again, 1);
	ck_assert_uint_eq(e.ahead, 1);
	ck_assert_uint_eq(e.no_fault, 1);
	ck_assert(e.part_us[0] == 2 && e.part_us[1] == 3 && e.p50_us == 11);
	all = e.rest_us;
	for (unsigned i = 0; i < PARTS; i++)
		all += e.part_us[i];
	ck_assert(fabs(all - e.p50_us) < 1e-9);
	ck_assert(fabs(e.rest_us - 6) < 1e-9);
}
END_TEST

static void counts(struct call_counts *c, uint64_t reads, uint64_t enters)
{
	memset(c, 0, sizeof(*c));
	c->n = 2;
	strcpy(c->name[0], "pread64");
	strcpy(c->name[1], "io_uring_enter");
	c->made[0] = reads;
	c->made[1] = enters;
}

START_TEST(calls_are_differences_of_counters_added_up_by_name)
{
	struct call_counts before, after, made, sum = {0};

	counts(&before, 100, 1000);
	counts(&after, 103, 1010);
	call_counts_between(&before, &after, &made);
	call_counts_add(&sum, &made);
	/* The other way round: by name, not by place. */
	strcpy(made.name[0], "io_uring_enter");
	strcpy(made.name[1], "pread64");
	call_counts_add(&sum, &made);
	ck_assert_uint_eq(sum.n, 2);
	ck_assert_str_eq(sum.name[0], "pread64");
	ck_assert_uint_eq(sum.made[0], 13);
	ck_assert_uint_eq(sum.made[1], 13);
}
END_TEST

/* What a function prints, for the caller to free. */
static char *printed(void (*print)(FILE *, const struct explained *), const struct explained *e)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	print(f, e);
	fclose(f);
	return text;
}

static void print_svg(FILE *f, const struct explained *e)
{
	explain_svg(f, e, 1, "a<b & c>");
}

START_TEST(nothing_is_hidden_in_what_is_shown)
{
	struct explained e = {.name = "remote-read", .faults = 4, .joined = 3, .again = 1};
	char *text;

	e.part_us[PART_QUEUE] = 6;
	e.part_us[PART_COPY] = 1;
	e.p50_us = 9;
	e.rest_us = 2;
	e.side[0] = "requester";
	counts(&e.calls[0], 2, 6);
	text = printed(explain_print, &e);
	ck_assert_msg(strstr(text, "[qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqcccccccc"
				   "????????????????]"),
		      "%s", text);
	ck_assert_ptr_nonnull(strstr(text, "not explained                2.00 us   22.2 %"));
	ck_assert_ptr_nonnull(strstr(text, "1 asked for again"));
	ck_assert_ptr_nonnull(strstr(text, "pread64                       0.500"));
	ck_assert_ptr_nonnull(strstr(text, "in all but waiting            2.000"));
	free(text);
	/* More than all: also to be seen. */
	e.rest_us = -1;
	text = printed(explain_print, &e);
	ck_assert_ptr_nonnull(strstr(text, "not explained               -1.00 us"));
	free(text);
	text = printed(print_svg, &e);
	ck_assert_ptr_nonnull(strstr(text, "layout a&lt;b &amp; c&gt;"));
	ck_assert_ptr_nonnull(strstr(text, "not explained"));
	ck_assert_ptr_nonnull(strstr(text, "</svg>\n"));
	/* 6 of the 7 us above 0. */
	ck_assert_ptr_nonnull(strstr(text, "x=\"20.00\" y=\"62\" width=\"651.43\""));
	free(text);
}
END_TEST

/* ---- what masters answer --------------------------------------------------------------- */

START_TEST(answers_become_stamps_of_one_vm)
{
	static const char answer[] =
		"{\"first\": 40, \"made\": 46, \"stamps\": [[11, \"fault\", 0, 3, 77, 0], "
		"[12, \"send\", \"MEM_READ\", 3, 77, 99], [13, \"submit\", 0, 0, 0, 0], "
		"[14, \"receive\", \"MEM_ACK\", 4, 77, 99], [15, \"receive\", \"WRITE_BACK\", 3, "
		"77, 5], [16, \"done\", 1, 3, 77, 0]]}";
	struct trace t = {0};
	uint64_t first, next;

	ck_assert_int_eq(tracer_parse(&t, answer, 2, 3, &first, &next), 0);
	ck_assert_uint_eq(first, 40);
	ck_assert_uint_eq(next, 46);
	ck_assert_uint_eq(t.n, 5);
	ck_assert_int_eq(t.at[1].kind, STAMP_SEND);
	ck_assert_int_eq(t.at[1].what, STAMP_ASK);
	ck_assert_uint_eq(t.at[1].request, 99);
	ck_assert_uint_eq(t.at[1].shard, 2);
	ck_assert_int_eq(t.at[2].kind, STAMP_SUBMIT);
	ck_assert_int_eq(t.at[3].what, STAMP_GIVE);
	ck_assert_uint_eq(t.at[4].ns, 16);
	free(t.at);
}
END_TEST

START_TEST(answers_that_are_none_are_refused)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{}",
		"{\"first\": 1}",
		"{\"first\": 1, \"stamps\": {}}",
		"{\"first\": 1, \"stamps\": [1]}",
		"{\"first\": 1, \"stamps\": [[1, \"other\", 0, 3, 77, 0]]}",
		"{\"first\": 1, \"stamps\": [[1, \"done\", 0, 3, 77]]}",
		"{\"first\": 1, \"stamps\": [[\"1\", \"done\", 0, 3, 77, 0]]}"};
	struct trace t = {0};
	uint64_t first, next;

	ck_assert_int_eq(tracer_parse(&t, bad[_i], 0, 3, &first, &next), -EBADMSG);
	ck_assert_uint_eq(t.n, 0);
	free(t.at);
}
END_TEST

START_TEST(what_cannot_be_explained_is_refused_before_anything_runs)
{
	static const struct fault_options good = {
		.peer_ring = {"a", "b"}, .n_peer_rings = 2, .peers = 2};
	struct fault_options o = good;

	ck_assert_int_eq(explain_check(&o), 0);
	o.n_control = 3;
	ck_assert_int_eq(explain_check(&o), 0);
	o.n_control = 2;
	ck_assert_int_eq(explain_check(&o), -EINVAL);
	o = good;
	o.peers = 3; /* one of them on another host */
	ck_assert_int_eq(explain_check(&o), -EINVAL);
	o = good;
	o.n_peer_rings = o.peers = 0;
	ck_assert_int_eq(explain_check(&o), -EINVAL);
	o = good;
	o.floor = true;
	ck_assert_int_eq(explain_check(&o), -EINVAL);
	o = good;
	o.explain_svg = "/nowhere/at/all.svg";
	ck_assert_int_eq(explain_check(&o), -ENOENT);
	o.explain_svg = "/tmp";
	ck_assert_int_eq(explain_check(&o), -EISDIR);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("explain");
	TCase *t = tcase_create("explain");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(t, parts_are_between_their_stamps_and_add_up_to_the_access);
	tcase_add_test(t, stamps_of_other_pages_requests_and_times_are_left_aside);
	tcase_add_test(t, a_batch_is_submitted_by_the_shard_that_filled_it);
	tcase_add_test(t, what_left_before_its_batch_was_submitted_was_sent_when_it_was_given);
	tcase_add_test(t,
		       a_program_that_went_on_before_the_stamp_of_its_waking_was_woken_in_the_copy);
	tcase_add_test(t, what_an_owner_did_is_taken_out_of_the_homes_part);
	tcase_add_test(t, an_owner_on_the_homes_own_node_is_found_in_the_homes_trace);
	tcase_add_test(t, faults_that_cannot_be_joined_say_why);
	tcase_add_test(t, cells_are_proportional_and_fill_the_bar);
	tcase_add_test(t, the_rest_is_what_medians_of_parts_leave_of_the_median_of_all);
	tcase_add_test(t, calls_are_differences_of_counters_added_up_by_name);
	tcase_add_test(t, nothing_is_hidden_in_what_is_shown);
	tcase_add_test(t, answers_become_stamps_of_one_vm);
	tcase_add_loop_test(t, answers_that_are_none_are_refused, 0, 9);
	tcase_add_test(t, what_cannot_be_explained_is_refused_before_anything_runs);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
