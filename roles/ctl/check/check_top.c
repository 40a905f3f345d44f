/* What wvm_ctl top makes of answers: rates, percentiles, lives that ended, and what is no answer.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "roles/ctl/top_view.h"

#define SECOND UINT64_C(1000000000)

/* ---- samples ------------------------------------------------------------------------------ */

static json_t *parsed(const char *text)
{
	json_t *o = json_loads(text, 0, NULL);

	ck_assert_msg(o != NULL, "%s", text);
	return o;
}

static int read_text(int (*read)(struct wvm_top_sample *, const json_t *), struct wvm_top_sample *s,
		     const char *text)
{
	json_t *o = parsed(text);
	int r = read(s, o);

	json_decref(o);
	return r;
}

/* A master after so many seconds with so many read faults, half as many write faults. */
static struct wvm_top_sample *master(uint64_t at_s, unsigned boot, unsigned faults)
{
	struct wvm_top_sample *s = calloc(1, sizeof(*s));
	char text[512];

	snprintf(text, sizeof(text),
		 "{\"node\": 3, \"state\": \"serving\", \"boot\": %u, \"uptime_s\": %llu,"
		 " \"pages_shared\": 2, \"pages_modified\": 1, \"pages_homed\": 5}",
		 boot, (unsigned long long)at_s);
	ck_assert_int_eq(read_text(wvm_top_read_status, s, text), 0);
	snprintf(text, sizeof(text),
		 "{\"monotonic_ns\": %llu, \"core\": {\"faults_read\": %u, \"faults_write\": %u,"
		 " \"requests_now\": 4}, \"drops\": {\"crc\": %u, \"room\": 1},"
		 " \"latency_read\": [0, 0, %u, 0], \"latency_write\": [0, %u, 0, 0]}",
		 (unsigned long long)((at_s + 100) * SECOND), faults, faults / 2, faults / 10,
		 faults, faults / 2);
	ck_assert_int_eq(read_text(wvm_top_read_stats, s, text), 0);
	return s;
}

START_TEST(rates_are_differences_over_the_time_that_the_daemon_measured)
{
	struct wvm_top_sample *before = master(10, 1, 100), *now = master(14, 1, 300);
	struct wvm_top_rates r;

	ck_assert_uint_eq(now->held_bytes, 3 * 4096);
	ck_assert_uint_eq(now->homed_bytes, 5 * 4096);
	ck_assert_uint_eq(now->requests, 4);
	ck_assert_uint_eq(now->counter[WVM_TOP_DROPS], 31);
	wvm_top_rates(before, now, &r);
	ck_assert(r.known && !r.restarted);
	ck_assert_double_eq_tol(r.interval_s, 4, 1e-9);
	ck_assert_double_eq_tol(r.per_s[WVM_TOP_FAULTS_READ], 50, 1e-9);
	ck_assert_double_eq_tol(r.per_s[WVM_TOP_FAULTS_WRITE], 25, 1e-9);
	ck_assert_double_eq_tol(r.per_s[WVM_TOP_DROPS], 5, 1e-9);
	/* Of the interval alone: 200 reads of 2 to 4 µs, 100 writes of 1 to 2. */
	ck_assert_uint_eq(r.read.count, 200);
	ck_assert_uint_eq(r.write.count, 100);
	ck_assert_uint_eq(r.all.count, 300);
	ck_assert_double_eq_tol(r.read.p50_us, 3, 1e-9);
	ck_assert_double_eq_tol(r.write.p50_us, 1.5, 1e-9);
	ck_assert_double_eq_tol(r.all.p50_us, 2.5, 1e-9);
	free(before);
	free(now);
}
END_TEST

START_TEST(a_restart_gives_no_rates_and_none_is_negative)
{
	struct wvm_top_sample
		*before = master(10, 1, 100),
		*after[] = {
			master(12, 2, 500), /* booted again, and already busier than it ever was */
			master(12, 1, 50),  /* counters went back */
			master(5, 1,
			       500), /* it is not up as long as it was, and the clock went back */
		};
	struct wvm_top_sample *other = master(12, 1, 500);
	struct wvm_top_rates r;

	for (size_t i = 0; i < 3; i++) {
		wvm_top_rates(before, after[i], &r);
		ck_assert_msg(!r.known && r.restarted, "case %zu", i);
		for (unsigned k = 0; k < WVM_TOP_COUNTERS; k++)
			ck_assert_double_eq(r.per_s[k], 0);
		ck_assert_uint_eq(r.all.count, 0);
		free(after[i]);
	}
	wvm_top_rates(before, other, &r);
	ck_assert(r.known);
	other->node = 4; /* another daemon took the port over */
	wvm_top_rates(before, other, &r);
	ck_assert(r.restarted);
	other->node = 3;
	other->write.n[1] = 1; /* only a bucket */
	wvm_top_rates(before, other, &r);
	ck_assert(r.restarted);
	other->write.n[1] = 250;
	wvm_top_rates(before, other, &r);
	ck_assert(r.known);
	other->uptime_s = 9; /* only that */
	wvm_top_rates(before, other, &r);
	ck_assert(r.restarted);
	other->uptime_s = 12;
	for (unsigned k = 0; k < WVM_TOP_COUNTERS; k++) {
		uint64_t is = other->counter[k];

		before->counter[k]++;
		other->counter[k] = before->counter[k] - 1; /* only that counter */
		wvm_top_rates(before, other, &r);
		ck_assert_msg(r.restarted, "counter %u", k);
		before->counter[k]--;
		other->counter[k] = is;
	}
	wvm_top_rates(before, before, &r); /* no time has passed */
	ck_assert(!r.known && !r.restarted);
	free(before);
	free(other);
}
END_TEST

START_TEST(percentiles_are_in_the_bucket_in_which_that_part_is_reached)
{
	static const struct {
		struct wvm_top_buckets b;
		double part, us;
	} cases[] = {
		{{0, {0}}, 0.5, 0},
		{{4, {0, 0, 0, 0}}, 0.99, 0},
		{{4, {10, 0, 0, 0}}, 0.5, 0.5},
		{{5, {0, 10, 0, 0, 0}}, 0.5, 1.5},
		{{8, {0, 0, 0, 0, 100, 0, 0, 0}}, 0.99, 8 + 8 * 0.99},
		{{8, {0, 99, 0, 0, 0, 0, 1, 0}}, 0.99, 2},
		{{8, {0, 98, 0, 0, 0, 0, 2, 0}}, 0.99, 32 + 32 * 0.5},
		{{4, {0, 0, 0, 7}}, 0.5, 4}, /* the last one has no upper bound */
		{{4, {0, 0, 0, 7}}, 1, 4},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		ck_assert_msg(fabs(wvm_top_percentile(&cases[i].b, cases[i].part) - cases[i].us) <
				      1e-6,
			      "case %zu: %g", i, wvm_top_percentile(&cases[i].b, cases[i].part));
}
END_TEST

START_TEST(a_gateway_has_its_own_figures)
{
	static struct wvm_top_sample s[2];
	struct wvm_top_rates r;
	char text[512];

	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(
			read_text(wvm_top_read_status, &s[i],
				  "{\"role\": \"gateway\", \"port\": 8000, \"uptime_s\": 9,"
				  " \"waiting\": 7, \"buffers\": 64}"),
			0);
		snprintf(text, sizeof(text),
			 "{\"monotonic_ns\": %u, \"gateway\": {\"forwarded\": %u, \"lost\": %u,"
			 " \"no_route\": %u, \"pushed_back\": 4}, \"drops\": {\"crc\": 2}}",
			 (i + 1) * 1000000000, i * 80, i * 3, i * 4);
		ck_assert_int_eq(read_text(wvm_top_read_stats, &s[i], text), 0);
	}
	ck_assert(s[1].gateway);
	ck_assert_uint_eq(s[1].waiting, 7);
	wvm_top_rates(&s[0], &s[1], &r);
	ck_assert_double_eq_tol(r.per_s[WVM_TOP_FORWARDED], 80, 1e-9);
	ck_assert_double_eq_tol(r.per_s[WVM_TOP_DROPS], 7, 1e-9);
	ck_assert_double_eq_tol(r.per_s[WVM_TOP_PUSHED_BACK], 0, 1e-9);
}
END_TEST

START_TEST(what_is_no_answer_is_refused_and_wild_figures_stay_in_bounds)
{
	static const char *const bad_status[] = {"[]", "{}", "{\"node\": \"3\"}",
						 "{\"role\": \"gateway\", \"node\": 1}"};
	static const char *const bad_stats[] = {
		"[]", "{\"monotonic_ns\": 5}", "{\"monotonic_ns\": -5, \"core\": {}}",
		"{\"core\": {}}", "{\"monotonic_ns\": 1, \"core\": 3}"};
	static struct wvm_top_sample s;
	struct wvm_top_rates r;

	for (size_t i = 0; i < sizeof(bad_status) / sizeof(bad_status[0]); i++)
		ck_assert_int_eq(read_text(wvm_top_read_status, &s, bad_status[i]), -EPROTO);
	ck_assert_int_eq(
		read_text(wvm_top_read_status, &s,
			  "{\"node\": -7, \"state\": 9, \"uptime_s\": -1, \"pages_shared\":"
			  " 9223372036854775807, \"pages_modified\": 9223372036854775807}"),
		0);
	ck_assert_uint_eq(s.node, 0);
	ck_assert_uint_eq(s.held_bytes, INT64_MAX);
	ck_assert_str_eq(s.state, "?");
	for (size_t i = 0; i < sizeof(bad_stats) / sizeof(bad_stats[0]); i++)
		ck_assert_int_eq(read_text(wvm_top_read_stats, &s, bad_stats[i]), -EPROTO);
	ck_assert_int_eq(
		read_text(wvm_top_read_stats, &s,
			  "{\"monotonic_ns\": 1, \"core\": {\"faults_read\": -1}, \"drops\":"
			  " {\"a\": 9223372036854775807, \"b\": 9223372036854775807, \"c\": -4},"
			  " \"latency_read\": [-3, \"x\", 9223372036854775807]}"),
		0);
	ck_assert_uint_eq(s.counter[WVM_TOP_FAULTS_READ], 0);
	ck_assert_uint_eq(s.counter[WVM_TOP_DROPS], INT64_MAX);
	ck_assert_uint_eq(s.read.n[0] + s.read.n[1], 0);
	wvm_top_rates(&s, &s, &r);
	ck_assert(!r.known);
	ck_assert_int_eq(read_text(wvm_top_read_members, &s, "{\"members\": []}"), -EPROTO);
	ck_assert_int_eq(read_text(wvm_top_read_vcpus, &s, "{\"vcpus\": 3}"), -EPROTO);
	ck_assert(!s.has_members && !s.has_vcpus);
}
END_TEST

START_TEST(vcpus_are_counted_by_whether_they_run)
{
	static struct wvm_top_sample s;

	ck_assert_int_eq(read_text(wvm_top_read_vcpus, &s, "{\"vcpus\": []}"), 0);
	ck_assert(s.has_vcpus && !s.vcpus);
	ck_assert_int_eq(read_text(wvm_top_read_vcpus, &s,
				   "{\"vcpus\": [{\"state\": \"running\"}, {\"state\": \"halted\"},"
				   " {\"state\": \"running\"}, {\"state\": 1}]}"),
			 0);
	ck_assert_uint_eq(s.vcpus, 4);
	ck_assert_uint_eq(s.vcpus_running, 2);
}
END_TEST

START_TEST(text_of_a_daemon_is_cut_and_has_no_control_characters)
{
	static struct wvm_top_sample s;
	char out[8];
	json_t *o = json_object(), *list = json_array();

	wvm_top_clean(out, sizeof(out), "a\x1b[2Jb\n\xc3\xa4");
	ck_assert_str_eq(out, "a?[2Jb?");
	wvm_top_clean(out, sizeof(out), NULL);
	ck_assert_str_eq(out, "?");
	for (unsigned i = 0; i < WVM_TOP_MEMBERS_MAX + 5; i++)
		json_array_append_new(
			list,
			json_pack("{s:i,s:b,s:s,s:s,s:s}", "node", (int)i, "heard", 1, "address",
				  "\x1b]0;a title that is longer than any address\x07", "member",
				  "DRAIN\n", "life", "ACT\tIVE"));
	json_object_set_new(o, "watching", json_true());
	json_object_set_new(o, "members", list);
	ck_assert_int_eq(wvm_top_read_members(&s, o), 0);
	json_decref(o);
	ck_assert_uint_eq(s.member_count, WVM_TOP_MEMBERS_MAX);
	ck_assert_uint_eq(s.members_left_off, 5);
	ck_assert_str_eq(s.member[255].address, "?]0;a title that is lon");
	ck_assert_str_eq(s.member[0].member, "DRAIN?");
	ck_assert_str_eq(s.member[0].life, "ACT?IVE");
	ck_assert_str_eq(s.member[0].status, "?");
}
END_TEST

START_TEST(figures_fit_their_column)
{
	static const struct {
		void (*print)(char out[8], double value);
		double value;
		const char *text;
	} cases[] = {
		{wvm_top_figure, 0, "0"},
		{wvm_top_figure, 7, "7"},
		{wvm_top_figure, 0.25, "0.25"},
		{wvm_top_figure, 9.996, "10.0"},
		{wvm_top_figure, 999.7, "1.0k"},
		{wvm_top_figure, 12345, "12.3k"},
		{wvm_top_figure, 1e300, ">999E"},
		{wvm_top_figure, INFINITY, ">999E"},
		{wvm_top_figure, NAN, "-"},
		{wvm_top_figure, -3, "-"},
		{wvm_top_bytes, 0, "0"},
		{wvm_top_bytes, 4096, "4.0K"},
		{wvm_top_bytes, 3435973837, "3.2G"},
		{wvm_top_time, 45, "45.0u"},
		{wvm_top_time, 1234, "1.2m"},
		{wvm_top_time, 16777216, "16.8s"},
		{wvm_top_time, NAN, "-"},
		{wvm_top_span, 59.9, "59s"},
		{wvm_top_span, 720, "12m"},
		{wvm_top_span, 864000, "10d"},
		{wvm_top_span, 1e18, ">100d"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[8];

		cases[i].print(out, cases[i].value);
		ck_assert_msg(!strcmp(out, cases[i].text), "%g: %s, not %s", cases[i].value, out,
			      cases[i].text);
		ck_assert_uint_le(strlen(out), 5);
	}
}
END_TEST

/* ---- a daemon that the test plays --------------------------------------------------------- */

static int daemon_fd;
static struct wvm_top_target target;
static uint64_t now_ns;

static void set_up(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);

	daemon_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(daemon_fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(getsockname(daemon_fd, (struct sockaddr *)&at, &len), 0);
	now_ns = SECOND;
	ck_assert_int_eq(wvm_top_open(&target, INADDR_LOOPBACK, ntohs(at.sin_port), now_ns), 0);
}

static void tear_down(void)
{
	wvm_top_close(&target);
	close(daemon_fd);
}

struct asked {
	struct sockaddr_in by;
	uint8_t data[WVM_CONTROL_REQUEST_BYTES];
};

static bool next_request(struct asked *q)
{
	socklen_t len = sizeof(q->by);

	return recvfrom(daemon_fd, q->data, sizeof(q->data), 0, (struct sockaddr *)&q->by, &len) ==
	       sizeof(q->data);
}

static uint16_t op_of(const struct asked *q)
{
	return (uint16_t)(q->data[4] << 8 | q->data[5]);
}

static void say(const struct asked *q, const void *data, size_t len)
{
	ck_assert_int_eq(
		sendto(daemon_fd, data, len, 0, (const struct sockaddr *)&q->by, sizeof(q->by)),
		(ssize_t)len);
}

static void answer(const struct asked *q, uint16_t status, uint16_t parts, const char *text)
{
	uint8_t out[WVM_CONTROL_HEADER_BYTES + WVM_CONTROL_PART] = {0};
	size_t len = strlen(text);

	ck_assert_uint_le(len, WVM_CONTROL_PART);
	memcpy(out, q->data, 8);
	out[4] |= 0x80;
	out[11] = 1; /* snapshot */
	out[13] = (uint8_t)status;
	out[14] = (uint8_t)(parts >> 8);
	out[15] = (uint8_t)parts;
	memcpy(out + WVM_CONTROL_HEADER_BYTES, text, len);
	say(q, out, WVM_CONTROL_HEADER_BYTES + len);
}

static void answer_well(const struct asked *q, unsigned faults)
{
	char text[512];

	switch (op_of(q)) {
	case WVM_CONTROL_STATUS:
		answer(q, 0, 1, "{\"node\": 3, \"state\": \"serving\", \"uptime_s\": 1}");
		break;
	case WVM_CONTROL_STATS:
		snprintf(text, sizeof(text),
			 "{\"monotonic_ns\": %llu, \"core\": {\"faults_read\": %u}}",
			 (unsigned long long)now_ns, faults);
		answer(q, 0, 1, text);
		break;
	default: answer(q, WVM_CONTROL_UNKNOWN, 0, ""); break; /* an old one */
	}
}

static void whole_round(unsigned faults)
{
	struct asked q;

	wvm_top_begin(&target, now_ns, SECOND);
	while (target.fd >= 0 && next_request(&q)) {
		answer_well(&q, faults);
		wvm_top_go_on(&target, now_ns);
	}
	ck_assert_int_eq(target.fd, -1);
	ck_assert_int_eq(target.failed, 0);
}

START_TEST(rounds_make_samples_and_rates_also_of_masters_that_do_not_know_all_requests)
{
	whole_round(10);
	ck_assert_ptr_nonnull(target.now);
	ck_assert(!target.rates.known);
	for (unsigned i = 1; i < 5; i++) {
		now_ns += 2 * SECOND;
		whole_round(10 + i * 30);
		ck_assert_double_eq_tol(target.rates.per_s[WVM_TOP_FAULTS_READ], 15, 1e-9);
	}
	ck_assert(!target.now->has_members && !target.now->has_vcpus);
	ck_assert_uint_eq(target.heard_ns, now_ns);
}
END_TEST

START_TEST(a_gateway_is_not_asked_what_only_masters_know)
{
	struct asked q;

	wvm_top_begin(&target, now_ns, SECOND);
	ck_assert(next_request(&q));
	answer(&q, 0, 1, "{\"role\": \"gateway\", \"port\": 8000}");
	wvm_top_go_on(&target, now_ns);
	ck_assert(next_request(&q));
	answer(&q, 0, 1, "{\"monotonic_ns\": 5, \"gateway\": {}}");
	wvm_top_go_on(&target, now_ns);
	ck_assert(!next_request(&q));
	ck_assert_int_eq(target.fd, -1);
	ck_assert(!target.failed && target.now && target.now->gateway);
}
END_TEST

START_TEST(a_lost_answer_is_asked_for_again_and_one_of_another_request_not_taken)
{
	struct asked lost, q;

	wvm_top_begin(&target, now_ns, SECOND);
	ck_assert(next_request(&lost));
	now_ns += SECOND / 4;
	ck_assert_uint_le(wvm_top_due(&target), now_ns);
	wvm_top_go_on(&target, now_ns);
	answer(&lost, 0, 1, "{\"node\": 9}"); /* too late */
	ck_assert(next_request(&q));
	ck_assert_int_ne(q.by.sin_port, lost.by.sin_port);
	answer_well(&q, 1);
	wvm_top_go_on(&target, now_ns);
	ck_assert(next_request(&q));
	ck_assert_uint_eq(op_of(&q), WVM_CONTROL_STATS);
	answer(&q, 0, 2, "{\"monotonic_ns\": 5, ");
	wvm_top_go_on(&target, now_ns);
	ck_assert(next_request(&q));
	answer(&q, WVM_CONTROL_EXPIRED, 0, ""); /* the second part: from the first part on */
	wvm_top_go_on(&target, now_ns);
	ck_assert(next_request(&q));
	answer(&q, 0, 2, "{\"monotonic_ns\": 7, ");
	wvm_top_go_on(&target, now_ns);
	ck_assert(next_request(&q));
	answer(&q, 0, 2, "\"core\": {}}");
	wvm_top_go_on(&target, now_ns);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert(next_request(&q));
		answer(&q, WVM_CONTROL_UNKNOWN, 0, "");
		wvm_top_go_on(&target, now_ns);
	}
	ck_assert_int_eq(target.failed, 0);
	ck_assert_uint_eq(target.now->node, 3);
	ck_assert_uint_eq(target.now->monotonic_ns, 7);
}
END_TEST

START_TEST(who_does_not_answer_is_silent_at_the_end_of_the_round_and_keeps_what_it_said)
{
	struct wvm_top_sample *said;
	uint64_t heard;

	whole_round(10);
	said = target.now;
	heard = target.heard_ns;
	now_ns += 2 * SECOND;
	wvm_top_begin(&target, now_ns, SECOND);
	for (unsigned i = 0; target.fd >= 0; i++) {
		ck_assert_uint_lt(i, 10);
		now_ns = wvm_top_due(&target);
		wvm_top_go_on(&target, now_ns);
	}
	ck_assert_uint_eq(now_ns, 4 * SECOND);
	ck_assert_int_eq(target.failed, -ETIMEDOUT);
	ck_assert_ptr_eq(target.now, said);
	ck_assert_uint_eq(target.heard_ns, heard);
	close(daemon_fd);
	wvm_top_begin(&target, now_ns, SECOND);
	for (unsigned i = 0; target.fd >= 0 && i < 1000; i++) {
		usleep(1000);
		wvm_top_go_on(&target, now_ns);
	}
	ck_assert_int_eq(target.failed, -ECONNREFUSED);
}
END_TEST

/* Whatever came is one of these; the round goes on, or ends without a sample. */
START_TEST(garbled_answers_do_no_harm)
{
	static const char *const texts[] = {
		"", "{", "[]", "\"x\"", "{\"node\": {}}", "\x80\xff", "{\"role\": \"gateway\"}"};
	static uint8_t noise[2000];
	struct asked q;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		while (next_request(&q))
			;
		wvm_top_begin(&target, now_ns, SECOND);
		ck_assert(next_request(&q));
		answer(&q, 0, 1, texts[i]);
		wvm_top_go_on(&target, now_ns);
		ck_assert_int_eq(target.failed, -EPROTO);
		ck_assert_int_eq(target.fd, -1);
		ck_assert_ptr_null(target.now);
	}
	wvm_top_begin(&target, now_ns, SECOND);
	ck_assert(next_request(&q));
	for (size_t len = 0; len < 40; len++)
		say(&q, noise, len);
	memcpy(noise, q.data, 8); /* right up to where the text is too long */
	noise[4] |= 0x80;
	noise[15] = 1;
	say(&q, noise, sizeof(noise));
	wvm_top_go_on(&target, now_ns);
	ck_assert_int_ge(target.fd, 0);
	answer(&q, 0, 0, ""); /* no parts */
	wvm_top_go_on(&target, now_ns);
	ck_assert_int_eq(target.failed, -EPROTO);
	whole_round(3);
}
END_TEST

START_TEST(the_view_has_a_line_for_each_whatever_became_of_it)
{
	struct wvm_top_target targets[2];
	struct wvm_top_view v = {.targets = targets, .count = 2, .interval_s = 2};
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	json_t *o, *list;

	whole_round(0);
	now_ns += SECOND;
	whole_round(1234);
	targets[0] = target;
	ck_assert_int_eq(wvm_top_open(&targets[1], 0x0a000001, 9001, now_ns), 0);
	targets[1].failed = -ETIMEDOUT;
	wvm_top_text(&v, now_ns + 5 * SECOND, out);
	fclose(out);
	ck_assert_msg(strstr(text, "2 asked, 1 silent") && strstr(text, " 3 serving ") &&
			      strstr(text, " 1.2k ") &&
			      strstr(text, "10.0.0.1:9001    ? silent   for 5s, since the start"),
		      "%s", text);
	free(text);
	o = wvm_top_json(&v, now_ns + 5 * SECOND);
	list = json_object_get(o, "daemons");
	ck_assert_double_eq_tol(
		json_real_value(json_object_get(json_array_get(list, 0), "faults_read_per_s")),
		1234, 1e-6);
	ck_assert_double_eq_tol(
		json_real_value(json_object_get(json_array_get(list, 1), "silent_s")), 5, 1e-6);
	ck_assert(json_is_false(json_object_get(json_array_get(list, 1), "answers")));
	json_decref(o);
	wvm_top_close(&targets[1]);
}
END_TEST

static struct wvm_top_target sorted(uint64_t node, double faults, double p99, double drops)
{
	struct wvm_top_target t = {.ip = INADDR_LOOPBACK, .fd = -1};

	t.now = calloc(1, sizeof(*t.now));
	t.now->node = node;
	t.rates.known = true;
	t.rates.per_s[WVM_TOP_FAULTS_READ] = faults;
	t.rates.per_s[WVM_TOP_DROPS] = drops;
	t.rates.all = (struct wvm_top_latency){1, 0, p99};
	return t;
}

START_TEST(lines_are_in_the_order_asked_for)
{
	static const char *const orders[WVM_TOP_SORTS] = {"312", "123", "213", "132", "312"};
	struct wvm_top_target t[] = {sorted(3, 0, 5, 8), sorted(1, 1, 9, 0), sorted(2, 7, 0, 0)};
	struct wvm_top_view v = {.targets = t, .count = 3, .interval_s = 2};

	for (v.sort = 0; v.sort < WVM_TOP_SORTS; v.sort++) {
		char *text = NULL, got[4] = "";
		size_t len;
		FILE *out = open_memstream(&text, &len);
		const char *line;

		wvm_top_text(&v, now_ns, out);
		fclose(out);
		line = strchr(strchr(text, '\n') + 1, '\n');
		for (unsigned i = 0; i < 3; i++) {
			unsigned port, node;

			ck_assert_int_eq(sscanf(line, "%u %u", &port, &node), 2);
			got[i] = (char)('0' + node);
			line = strchr(line + 1, '\n');
		}
		ck_assert_str_eq(got, orders[v.sort]);
		free(text);
	}
	for (unsigned i = 0; i < 3; i++)
		free(t[i].now);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("top");
	TCase *read = tcase_create("samples"), *poll = tcase_create("rounds");
	SRunner *runner;
	int failed;

	tcase_add_test(read, rates_are_differences_over_the_time_that_the_daemon_measured);
	tcase_add_test(read, a_restart_gives_no_rates_and_none_is_negative);
	tcase_add_test(read, percentiles_are_in_the_bucket_in_which_that_part_is_reached);
	tcase_add_test(read, a_gateway_has_its_own_figures);
	tcase_add_test(read, what_is_no_answer_is_refused_and_wild_figures_stay_in_bounds);
	tcase_add_test(read, vcpus_are_counted_by_whether_they_run);
	tcase_add_test(read, text_of_a_daemon_is_cut_and_has_no_control_characters);
	tcase_add_test(read, figures_fit_their_column);
	tcase_add_test(read, lines_are_in_the_order_asked_for);
	tcase_add_checked_fixture(poll, set_up, tear_down);
	tcase_add_test(poll,
		       rounds_make_samples_and_rates_also_of_masters_that_do_not_know_all_requests);
	tcase_add_test(poll, a_gateway_is_not_asked_what_only_masters_know);
	tcase_add_test(poll, a_lost_answer_is_asked_for_again_and_one_of_another_request_not_taken);
	tcase_add_test(
		poll, who_does_not_answer_is_silent_at_the_end_of_the_round_and_keeps_what_it_said);
	tcase_add_test(poll, garbled_answers_do_no_harm);
	tcase_add_test(poll, the_view_has_a_line_for_each_whatever_became_of_it);
	suite_add_tcase(s, read);
	suite_add_tcase(s, poll);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
