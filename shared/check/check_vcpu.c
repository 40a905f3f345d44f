/* What runs and answers carry comes out as it went in, and no other bytes are taken for one. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/vcpu.h"

#define ROOM 16384u

static uint64_t random_state;
static uint8_t parts[ROOM];
static uint8_t out[ROOM], again[ROOM];
static char err[200];

static uint64_t random64(void) /* splitmix64 */
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void setup(void)
{
	random_state = 5;
	for (size_t i = 0; i < sizeof(parts); i++)
		parts[i] = (uint8_t)random64();
}

/* Now and then none at all. */
static const uint8_t *part(uint32_t *len, uint32_t most)
{
	*len = random64() % 4 ? 1 + (uint32_t)(random64() % most) : 0;
	return *len ? parts + random64() % 256 : NULL;
}

static struct wvm_vcpu_run random_run(void)
{
	struct wvm_vcpu_run r = {
		.engine = (uint8_t)(1 + random64() % 2),
		.flags = random64() & WVM_VCPU_RUN_FLAGS,
		.setup_version = (uint32_t)random64(),
		.ticks = random64(),
		.layout = (uint32_t)random64(),
	};

	if (r.flags & WVM_VCPU_RUN_GET)
		r.flags &= (uint8_t)~WVM_VCPU_RUN_STAY;
	if (!(r.flags & WVM_VCPU_RUN_WHOLE))
		r.base = random64() | 1;
	if (r.flags & WVM_VCPU_RUN_INJECT)
		r.vector = (uint8_t)random64();
	r.setup = part(&r.setup_len, 300);
	r.state = part(&r.state_len, 5000);
	if (r.flags & WVM_VCPU_RUN_RESUME)
		r.data = part(&r.data_len, 4096);
	return r;
}

static struct wvm_vcpu_exit random_exit(void)
{
	struct wvm_vcpu_exit e = {
		.kind = (uint8_t)(1 + random64() % (WVM_VCPU_EXIT_KINDS - 1)),
		.flags = random64() & WVM_VCPU_EXIT_FLAGS,
		.at = random64(),
		.base = random64(),
		.ticks = random64(),
		.ran_ns = random64(),
		.ip = random64(),
	};

	if (e.flags & (WVM_VCPU_EXIT_STATE | WVM_VCPU_EXIT_MIDWAY))
		e.flags &= (uint8_t)~WVM_VCPU_EXIT_STAYS;
	if (e.flags & WVM_VCPU_EXIT_STATE)
		e.state = part(&e.state_len, 5000);
	if (e.kind != WVM_VCPU_EXIT_PIO && e.kind != WVM_VCPU_EXIT_MMIO) {
		e.data = part(&e.data_len, 300);
		return e;
	}
	e.size = (uint8_t)(1u << random64() % 4);
	e.count = e.kind == WVM_VCPU_EXIT_MMIO ? 1 : 1 + (uint32_t)(random64() % (4096 / e.size));
	if (e.kind == WVM_VCPU_EXIT_PIO)
		e.at &= UINT16_MAX;
	if (e.flags & WVM_VCPU_EXIT_WRITE) {
		e.data = parts;
		e.data_len = e.size * e.count;
	}
	return e;
}

static void same_part(const uint8_t *a, uint32_t a_len, const uint8_t *b, uint32_t b_len)
{
	ck_assert_uint_eq(a_len, b_len);
	if (a_len)
		ck_assert_mem_eq(a, b, a_len);
}

START_TEST(a_run_comes_out_as_it_went_in)
{
	for (int i = 0; i < 3000; i++) {
		struct wvm_vcpu_run r = random_run(), got;
		size_t len = wvm_vcpu_run_encode(out, sizeof(out), &r);

		ck_assert_uint_eq(len, wvm_vcpu_run_bytes(&r));
		ck_assert_uint_eq(wvm_vcpu_run_encode(again, len - 1, &r), 0);
		ck_assert_int_eq(wvm_vcpu_run_decode(out, len, &got), 0);
		same_part(got.setup, got.setup_len, r.setup, r.setup_len);
		same_part(got.state, got.state_len, r.state, r.state_len);
		same_part(got.data, got.data_len, r.data, r.data_len);
		ck_assert_uint_eq(got.engine, r.engine);
		ck_assert_uint_eq(got.flags, r.flags);
		ck_assert_uint_eq(got.vector, r.vector);
		ck_assert_uint_eq(got.setup_version, r.setup_version);
		ck_assert_uint_eq(got.base, r.base);
		ck_assert_uint_eq(got.ticks, r.ticks);
		ck_assert_uint_eq(got.layout, r.layout);
	}
}
END_TEST

START_TEST(an_answer_comes_out_as_it_went_in)
{
	for (int i = 0; i < 3000; i++) {
		struct wvm_vcpu_exit e = random_exit(), got;
		size_t len = wvm_vcpu_exit_encode(out, sizeof(out), &e);

		ck_assert_uint_eq(len, wvm_vcpu_exit_bytes(&e));
		ck_assert_uint_eq(wvm_vcpu_exit_encode(again, len - 1, &e), 0);
		ck_assert_int_eq(wvm_vcpu_exit_decode(out, len, &got), 0);
		same_part(got.state, got.state_len, e.state, e.state_len);
		same_part(got.data, got.data_len, e.data, e.data_len);
		ck_assert_uint_eq(got.kind, e.kind);
		ck_assert_uint_eq(got.flags, e.flags);
		ck_assert_uint_eq(got.size, e.size);
		ck_assert_uint_eq(got.count, e.count);
		ck_assert_uint_eq(got.at, e.at);
		ck_assert_uint_eq(got.base, e.base);
		ck_assert_uint_eq(got.ticks, e.ticks);
		ck_assert_uint_eq(got.ran_ns, e.ran_ns);
		ck_assert_uint_eq(got.ip, e.ip);
	}
}
END_TEST

START_TEST(a_state_that_lies_in_place_is_not_copied)
{
	struct wvm_vcpu_exit e = {.kind = WVM_VCPU_EXIT_HLT, .flags = WVM_VCPU_EXIT_STATE}, got;
	size_t len;

	memcpy(out + wvm_vcpu_exit_state_at(), parts, 100);
	e.state_len = 100;
	len = wvm_vcpu_exit_encode(out, sizeof(out), &e);
	ck_assert_int_eq(wvm_vcpu_exit_decode(out, len, &got), 0);
	same_part(got.state, got.state_len, parts, 100);
}
END_TEST

/* Cut, lengthened, or with bits turned: refused, or just what encoding gives. */
START_TEST(other_bytes_are_refused_or_mean_what_they_say)
{
	unsigned refused = 0;

	for (int i = 0; i < 20000; i++) {
		struct wvm_vcpu_run r = random_run(), run;
		struct wvm_vcpu_exit e = random_exit(), exit;
		bool is_run = random64() % 2;
		size_t len = is_run ? wvm_vcpu_run_encode(out, sizeof(out), &r)
				    : wvm_vcpu_exit_encode(out, sizeof(out), &e);
		size_t use = random64() % 3 ? len : random64() % (len + 16);
		/* Exactly so many bytes, so that a sanitizer sees who reads on. */
		uint8_t *copy = malloc(use + !use);
		int result;

		memset(out + len, 0, 16);
		memcpy(copy, out, use);
		for (unsigned flips = random64() % 3; flips && use; flips--)
			copy[random64() % (random64() % 4 && use > 64 ? 64 : use)] ^=
				(uint8_t)(1u << random64() % 8);
		result = is_run ? wvm_vcpu_run_decode(copy, use, &run)
				: wvm_vcpu_exit_decode(copy, use, &exit);
		if (result) {
			ck_assert_int_eq(result, -EBADMSG);
			refused++;
		} else {
			size_t n = is_run ? wvm_vcpu_run_encode(again, sizeof(again), &run)
					  : wvm_vcpu_exit_encode(again, sizeof(again), &exit);

			ck_assert_uint_eq(n, use);
			ck_assert_mem_eq(again, copy,
					 is_run ? WVM_VCPU_RUN_HEAD : WVM_VCPU_EXIT_HEAD);
		}
		free(copy);
	}
	ck_assert_uint_gt(refused, 5000);
}
END_TEST

START_TEST(a_state_that_comes_does_not_stay)
{
	static const uint8_t wrong_exits[] = {WVM_VCPU_EXIT_STAYS | WVM_VCPU_EXIT_STATE,
					      WVM_VCPU_EXIT_STAYS | WVM_VCPU_EXIT_MIDWAY};
	struct wvm_vcpu_exit e = {.kind = WVM_VCPU_EXIT_HLT, .flags = WVM_VCPU_EXIT_STAYS}, exit;
	struct wvm_vcpu_run r = {.engine = WVM_VCPU_ENGINE_KVM, .base = 1}, run;
	size_t len = wvm_vcpu_exit_encode(out, sizeof(out), &e);

	ck_assert_int_eq(wvm_vcpu_exit_decode(out, len, &exit), 0);
	for (unsigned i = 0; i < sizeof(wrong_exits); i++) {
		e.flags = wrong_exits[i];
		len = wvm_vcpu_exit_encode(out, sizeof(out), &e);
		ck_assert_int_eq(wvm_vcpu_exit_decode(out, len, &exit), -EBADMSG);
	}
	r.flags = WVM_VCPU_RUN_STAY;
	len = wvm_vcpu_run_encode(out, sizeof(out), &r);
	ck_assert_int_eq(wvm_vcpu_run_decode(out, len, &run), 0);
	r.flags = WVM_VCPU_RUN_STAY | WVM_VCPU_RUN_GET;
	len = wvm_vcpu_run_encode(out, sizeof(out), &r);
	ck_assert_int_eq(wvm_vcpu_run_decode(out, len, &run), -EBADMSG);
}
END_TEST

START_TEST(every_kind_has_a_name)
{
	for (unsigned kind = 1; kind < WVM_VCPU_EXIT_KINDS; kind++)
		ck_assert_str_ne(wvm_vcpu_exit_name(kind), "unknown");
	ck_assert_str_eq(wvm_vcpu_exit_name(0), "unknown");
	ck_assert_str_eq(wvm_vcpu_exit_name(WVM_VCPU_EXIT_KINDS), "unknown");
}
END_TEST

START_TEST(a_hello_comes_out_as_it_went_in)
{
	struct wvm_vcpu_hello h = {.engines = 6, .cores = 12, .running = 3}, got;

	wvm_vcpu_hello_encode(out, &h);
	ck_assert_int_eq(wvm_vcpu_hello_decode(out, WVM_VCPU_HELLO_BYTES, &got), 0);
	ck_assert_mem_eq(&h, &got, sizeof(h));
	ck_assert_int_eq(wvm_vcpu_hello_decode(out, WVM_VCPU_HELLO_BYTES - 1, &got), -EBADMSG);
}
END_TEST

START_TEST(a_setup_comes_out_as_it_went_in)
{
	struct wvm_vcpu_setup s =
				      {
					      .vcpus = 4,
					      .maps = 3,
					      .ticks_hz = UINT64_C(2600007914),
					      .era = 1795716000,
					      .cpu = "qemu64,+ssse3,-svm,model=6",
					      .map = {{0, 0xa0000, 0, false},
						      {0xc0000, 0x20000, 0xc0000, true},
						      {UINT64_C(0x100000000), UINT64_C(0x80000000),
						       0x100000, false}},
				      },
			      got;
	size_t len = wvm_vcpu_setup_print(&s, (char *)out, sizeof(out));

	ck_assert_uint_gt(len, 0);
	ck_assert_int_eq(wvm_vcpu_setup_parse(out, len, &got, err, sizeof(err)), 0);
	ck_assert_uint_eq(got.vcpus, s.vcpus);
	ck_assert_uint_eq(got.ticks_hz, s.ticks_hz);
	ck_assert_uint_eq(got.era, s.era);
	ck_assert_str_eq(got.cpu, s.cpu);
	ck_assert_uint_eq(got.maps, s.maps);
	for (uint32_t i = 0; i < s.maps; i++) {
		ck_assert_uint_eq(got.map[i].gpa, s.map[i].gpa);
		ck_assert_uint_eq(got.map[i].len, s.map[i].len);
		ck_assert_uint_eq(got.map[i].offset, s.map[i].offset);
		ck_assert_int_eq(got.map[i].read_only, s.map[i].read_only);
	}
	ck_assert_uint_eq(wvm_vcpu_setup_print(&s, (char *)out, len), 0);
}
END_TEST

#define GOOD "vcpus 2\nmap 0 1000 0\n"

static const struct {
	const char *text, *says;
} wrong[] = {
	{"", "without vcpus"},
	{"vcpus 2\n", "without a map"},
	{"map 0 1000 0\n", "without vcpus"},
	{GOOD "vcpus 2\n", "line 'vcpus 2'"},
	{"vcpus 0\n", "not 1 to 256"},
	{"vcpus 257\n", "not 1 to 256"},
	{"vcpus 2x\n", "not 1 to 256"},
	{"vcpus 00002\n", "not 1 to 256"},
	{"vcpus -2\n", "not 1 to 256"},
	{GOOD "ticks 999999\n", "not 10^6 to 10^11"},
	{GOOD "ticks 100000000001\n", "not 10^6 to 10^11"},
	{GOOD "ticks 2600000000 \n", "not 10^6 to 10^11"},
	{GOOD "ticks 1000000\nticks 1000000\n", "line 'ticks 1000000'"},
	{GOOD "era 0\n", "not 1 to 4294967295"},
	{GOOD "era 4294967296\n", "not 1 to 4294967295"},
	{GOOD "era 1\nera 2\n", "line 'era 2'"},
	{GOOD "cpu \n", "of 0 characters"},
	{GOOD "cpu a b\n", "character 0x20"},
	{GOOD "cpu -drive\n", "begins with '-'"},
	{GOOD "cpu a\ncpu b\n", "line 'cpu b'"},
	{GOOD "map 1000 1000\n", "is not \"GPA"},
	{GOOD "map 1000 1000 0 rw\n", "is not \"GPA"},
	{GOOD "map 1000  1000 0\n", "is not \"GPA"},
	{GOOD "map 0x1000 1000 0\n", "is not \"GPA"},
	{GOOD "map 10000000000000000 1000 0\n", "is not \"GPA"},
	{GOOD "map 1001 1000 0\n", "whole pages"},
	{GOOD "map 1000 0 0\n", "whole pages"},
	{GOOD "map fffffffffffff000 2000 0\n", "whole pages"},
	{GOOD "map 1000 2000 fffffffffffff000\n", "whole pages"},
	{GOOD "map 0 1000 1000\n", "does not come after"},
	{GOOD "ram 1\n", "line 'ram 1'"},
	{GOOD "\n", "line ''"},
	{GOOD "map 1000 1000 0", "does not end"},
};
#define WRONG ((int)(sizeof(wrong) / sizeof(wrong[0])))

START_TEST(a_wrong_setup_is_refused_with_its_reason)
{
	struct wvm_vcpu_setup s;

	ck_assert_int_eq(wvm_vcpu_setup_parse(GOOD, strlen(GOOD), &s, err, sizeof(err)), 0);
	ck_assert_int_eq(
		wvm_vcpu_setup_parse(wrong[_i].text, strlen(wrong[_i].text), &s, err, sizeof(err)),
		-EBADMSG);
	ck_assert_msg(strstr(err, wrong[_i].says), "it says: %s", err);
}
END_TEST

START_TEST(a_setup_with_too_much_is_refused)
{
	struct wvm_vcpu_setup s;
	char text[WVM_VCPU_SETUP_MAX + 2] = "vcpus 1\n";
	size_t len = strlen(text);

	for (unsigned i = 0; i <= WVM_VCPU_MAPS_MAX; i++)
		len += (size_t)sprintf(text + len, "map %x000 1000 0\n", i);
	ck_assert_int_eq(wvm_vcpu_setup_parse(text, len, &s, err, sizeof(err)), -EBADMSG);
	ck_assert_msg(strstr(err, "more than 64 maps"), "it says: %s", err);
	memset(text, '\n', sizeof(text));
	ck_assert_int_eq(wvm_vcpu_setup_parse(text, sizeof(text), &s, err, sizeof(err)), -EBADMSG);
	ck_assert_int_eq(wvm_vcpu_setup_parse("vcpus 2\nmap 0 10\0 0\n", 20, &s, err, sizeof(err)),
			 -EBADMSG);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vcpu");
	TCase *t = tcase_create("vcpu");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, a_run_comes_out_as_it_went_in);
	tcase_add_test(t, an_answer_comes_out_as_it_went_in);
	tcase_add_test(t, a_state_that_lies_in_place_is_not_copied);
	tcase_add_test(t, other_bytes_are_refused_or_mean_what_they_say);
	tcase_add_test(t, a_state_that_comes_does_not_stay);
	tcase_add_test(t, every_kind_has_a_name);
	tcase_add_test(t, a_hello_comes_out_as_it_went_in);
	tcase_add_test(t, a_setup_comes_out_as_it_went_in);
	tcase_add_loop_test(t, a_wrong_setup_is_refused_with_its_reason, 0, WRONG);
	tcase_add_test(t, a_setup_with_too_much_is_refused);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
