/* wvm_ctl top with real masters, and with something else on a control port. */
#include <arpa/inet.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/check/program.h"
#include "shared/control.h"

#define NODES     2u
#define SCREEN_MS 20000u
#define TRIES     5u
#define SAMPLES   8u
#define GPA       MIB

enum { STOP = 1 }; /* a word of the arena */

static struct cluster cluster;
static struct cluster_result result;

static void port_text(char out[8], unsigned i)
{
	snprintf(out, 8, "%u", cluster.node[i].ctrl_port);
}

/* ---- figures ------------------------------------------------------------------------------ */

/* Both write the same pages, turn after turn. */
static void quarrel(struct program *p)
{
	uint64_t *base = program_map(p, GPA, 8 * PAGE);

	while (!atomic_load(&p->arena->word[STOP]))
		for (unsigned i = 0; i < 8; i++)
			store(base + i * PAGE_WORDS, load(base + i * PAGE_WORDS) + 1);
}

static bool all_have_rates(const json_t *o)
{
	const json_t *list = json_object_get(o, "daemons"), *item;
	size_t i, count = 0;

	json_array_foreach(list, i, item)
		count += json_is_real(json_object_get(item, "interval_s"));
	return count == NODES;
}

/* Asked again while this machine is too busy for an answer in time. */
static json_t *top_json(void)
{
	char a[8], b[8];
	json_t *o;

	port_text(a, 0);
	port_text(b, 1);
	for (unsigned i = 0; i < TRIES; i++) {
		cluster_ctl(&cluster, 0, &result,
			    (const char *const[]){"--json", "-d", "0.5", "top", a, b, NULL});
		o = result.status ? NULL : json_loads(result.out, 0, NULL);
		if (o && all_have_rates(o))
			return o;
		json_decref(o);
	}
	ck_abort_msg("no rates: %s%s", result.out, result.err);
}

static const json_t *daemon_of(const json_t *o, unsigned i)
{
	return json_array_get(json_object_get(o, "daemons"), i);
}

static double real_of(const json_t *o, const char *key)
{
	ck_assert_msg(json_is_real(json_object_get(o, key)), "no %s: %s", key, result.out);
	return json_real_value(json_object_get(o, key));
}

START_TEST(figures_move_while_programs_fault_and_rest_when_they_have_ended)
{
	struct arena *a = arena_new(0);
	struct program two[] = {{.cluster = &cluster, .arena = a, .node = 0},
				{.cluster = &cluster, .arena = a, .node = 1}};
	json_t *o;

	cluster_start(&cluster, &(struct cluster_opts){.nodes = NODES, .vm = "1:64M"});
	for (unsigned i = 0; i < NODES; i++)
		program_start(&two[i], quarrel);
	cluster_sleep_ms(300);
	o = top_json();
	for (unsigned i = 0; i < NODES; i++) {
		const json_t *d = daemon_of(o, i), *l;

		l = json_object_get(json_object_get(d, "latency_us"), "all");
		ck_assert_int_eq(json_integer_value(json_object_get(d, "node")), i);
		ck_assert_str_eq(json_string_value(json_object_get(d, "state")), "serving");
		ck_assert_double_gt(
			real_of(d, "faults_read_per_s") + real_of(d, "faults_write_per_s"), 0);
		ck_assert_double_ge(real_of(d, "interval_s"), 0.4);
		ck_assert_double_gt(real_of(l, "p50"), 0);
		ck_assert_double_ge(real_of(l, "p99"), real_of(l, "p50"));
		ck_assert_uint_eq(json_array_size(json_object_get(d, "members")), NODES);
	}
	json_decref(o);
	atomic_store(&a->word[STOP], 1);
	programs_await((struct program *const[]){&two[0], &two[1]}, NODES);
	o = top_json();
	for (unsigned i = 0; i < NODES; i++) {
		const json_t *d = daemon_of(o, i);

		ck_assert_double_eq(
			real_of(d, "faults_read_per_s") + real_of(d, "faults_write_per_s"), 0);
		ck_assert(json_is_null(json_object_get(
			json_object_get(json_object_get(d, "latency_us"), "all"), "p99")));
	}
	json_decref(o);
	arena_free(a);
	cluster_stop(&cluster);
}
END_TEST

/* ---- the screen --------------------------------------------------------------------------- */

struct screen {
	pid_t pid;
	int fd;
};

static void screen_open(struct screen *s, const char *const args[])
{
	char tool[4200];
	const char *all[16] = {tool};
	struct winsize size = {.ws_row = 40, .ws_col = 120};

	snprintf(tool, sizeof(tool), "%s/wvm_ctl", cluster_bin());
	for (unsigned i = 0; args[i]; i++)
		all[i + 1] = args[i];
	fflush(NULL);
	s->pid = forkpty(&s->fd, NULL, NULL, &size);
	ck_assert_int_ge(s->pid, 0);
	if (!s->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv("TERM", "xterm", 1);
		execv(tool, (char *const *)all);
		_exit(127);
	}
}

/* What comes within ms, without the sequences that move the cursor. */
static void screen_read(const struct screen *s, char *out, size_t size, unsigned ms)
{
	uint64_t end = cluster_now_ms() + ms;
	bool sequence = false;
	size_t len = 0;

	while (cluster_now_ms() < end) {
		struct pollfd p = {.fd = s->fd, .events = POLLIN};
		char c;

		if (poll(&p, 1, 20) <= 0)
			continue;
		if (read(s->fd, &c, 1) != 1)
			break;
		if (sequence) {
			sequence = !((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'));
			continue;
		}
		sequence = c == '\x1b';
		if (!sequence && len + 1 < size)
			out[len++] = c;
	}
	out[len] = 0;
}

/* Until the whole screen, drawn anew, has all of these in it. */
static void screen_await(const struct screen *s, const char *const texts[])
{
	static char text[32768];
	uint64_t end = cluster_now_ms() + SCREEN_MS;
	unsigned found;

	do {
		ck_assert_int_eq(write(s->fd, "\x0c", 1), 1);
		screen_read(s, text, sizeof(text), 300);
		for (found = 0; texts[found] && strstr(text, texts[found]); found++)
			;
		ck_assert_msg(!texts[found] || cluster_now_ms() < end, "no '%s' in: %s",
			      texts[found], text);
	} while (texts[found]);
}

static void screen_key(const struct screen *s, char key, const char *text)
{
	ck_assert_int_eq(write(s->fd, &key, 1), 1);
	screen_await(s, (const char *const[]){text, NULL});
}

START_TEST(a_dead_node_and_one_that_hangs_are_silent_and_the_view_goes_on)
{
	struct winsize small = {.ws_row = 12, .ws_col = 50}, tiny = {.ws_row = 1, .ws_col = 2};
	char a[8], b[8], c[8], text[8192];
	struct screen s;
	int status;

	cluster_start(&cluster, &(struct cluster_opts){.nodes = 3, .vm = "1:64M"});
	port_text(a, 0);
	port_text(b, 1);
	port_text(c, 2);
	screen_open(&s, (const char *const[]){"-d", "0.5", "top", a, b, c, NULL});
	screen_await(&s, (const char *const[]){"3 asked, 0 silent", " serving ", "HELD", "ALIVE",
					       "members as node 2", NULL});
	ck_assert(WIFSIGNALED(cluster_node_end(&cluster, 1, SIGKILL)));
	kill(cluster.node[2].pid, SIGSTOP);
	screen_await(&s, (const char *const[]){"3 asked, 2 silent", "nobody listens there",
					       "no answer", " serving ", NULL});
	/* What it says of the others changes all the same. */
	screen_await(&s, (const char *const[]){"SUSPECT", NULL});
	kill(cluster.node[2].pid, SIGCONT);
	screen_await(&s, (const char *const[]){"3 asked, 1 silent", NULL});
	screen_key(&s, 's', "by node");
	screen_key(&s, 'p', "PAUSED");
	ck_assert_int_eq(ioctl(s.fd, TIOCSWINSZ, &tiny), 0);
	cluster_sleep_ms(100);
	ck_assert_int_eq(ioctl(s.fd, TIOCSWINSZ, &small), 0);
	screen_read(&s, text, sizeof(text), 500);
	ck_assert_msg(strstr(text, "3 asked") && strstr(text, "quit"), "not drawn anew: %s", text);
	ck_assert_int_eq(write(s.fd, "q", 1), 1);
	screen_read(&s, text, sizeof(text), 300);
	ck_assert_int_eq(waitpid(s.pid, &status, 0), s.pid);
	ck_assert_int_eq(status, 0);
	close(s.fd);
	cluster_kill(&cluster);
}
END_TEST

/* ---- something else on the port ------------------------------------------------------------ */

/* Answers to whatever is asked, one after the other: none is what a master would say. */
static void babble(int fd)
{
	static const char *const texts[] = {
		"{\"node\": 1, \"state\": \"\\u001b[2J\\u0007gone\", \"uptime_s\": -1}",
		"{\"monotonic_ns\": 1, \"core\": {\"faults_read\": -9}, \"latency_read\": 5}",
		"{\"watching\": true, \"members\": [{\"address\": \"\\u001b]0;x\\u0007\"}, 3]}",
		"{\"vcpus\": [1, 2, 3]}",
		"{\"node\": ",
		"\x1b[2J",
	};
	struct sockaddr_in by;

	for (unsigned i = 0;; i++) {
		uint8_t data[WVM_CONTROL_HEADER_BYTES + 256] = {0};
		const char *text = texts[i % (sizeof(texts) / sizeof(texts[0]))];
		socklen_t len = sizeof(by);

		if (recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&by, &len) < 8)
			continue;
		memset(data + 8, 0, sizeof(data) - 8);
		data[4] |= 0x80;
		data[11] = 1;
		data[15] = 1;
		memcpy(data + WVM_CONTROL_HEADER_BYTES, text, strlen(text));
		sendto(fd, "\x1b[31m", 5, 0, (struct sockaddr *)&by, len);
		sendto(fd, data, WVM_CONTROL_HEADER_BYTES + strlen(text), 0, (struct sockaddr *)&by,
		       len);
	}
}

static pid_t start_babbler(uint16_t *port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	pid_t pid;

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	*port = ntohs(at.sin_port);
	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		babble(fd);
	}
	close(fd);
	return pid;
}

START_TEST(garbled_answers_do_no_harm_to_the_view_of_others)
{
	char own[8], other[8];
	unsigned blocks = 0, serving = 0;
	uint16_t port;
	pid_t pid;

	cluster_start(&cluster, &(struct cluster_opts){.nodes = 1, .vm = "1:64M"});
	pid = start_babbler(&port);
	port_text(own, 0);
	snprintf(other, sizeof(other), "%u", port);
	cluster_ctl(&cluster, 0, &result,
		    (const char *const[]){"-d", "0.2", "-n", "8", "top", other, own, NULL});
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ck_assert_msg(result.status == 0, "%s", result.err);
	for (const char *at = result.out; *at; at++)
		ck_assert_msg((*at >= ' ' && *at <= '~') || *at == '\n', "a %02x in: %s",
			      (unsigned char)*at, result.out);
	for (const char *at = result.out; (at = strstr(at, "2 asked")); at++)
		blocks++;
	for (const char *at = result.out; (at = strstr(at, " 0 serving")); at++)
		serving++;
	ck_assert_uint_eq(blocks, SAMPLES);
	/* Some may be late when this machine is busy. */
	ck_assert_msg(serving >= SAMPLES / 2, "%u: %s", serving, result.out);
	ck_assert_msg(strstr(result.out, "garbled"), "%s", result.out);
	ck_assert_msg(strstr(result.out, "?[2J?gon"), "%s", result.out);
	cluster_stop(&cluster);
}
END_TEST

START_TEST(bad_arguments_are_one_line_that_names_them)
{
	static const struct {
		const char *args[5], *text;
	} cases[] = {
		{{"-d", "0", "top"}, "-d '0'"},
		{{"-d", "nan", "top"}, "-d 'nan'"},
		{{"-d", "2x", "top"}, "-d '2x'"},
		{{"-n", "0", "top"}, "-n 0"},
		{{"top", "127.0.0.300:1"}, "IP '127.0.0.300'"},
		{{"top", "127.0.0.1:"}, "PORT ''"},
		{{"top", "127.0.0.1:65536"}, "PORT '65536'"},
		{{"top", "host"}, "PORT 'host'"},
		{{"-n", "2", "status"}, "belong to top"},
	};
	char tool[4200];

	cluster_prepare(&cluster, &(struct cluster_opts){.nodes = 1});
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cluster_ctl(&cluster, 0, &result, cases[i].args);
		ck_assert_msg(WEXITSTATUS(result.status) == 1, "case %zu", i);
		ck_assert_str_eq(result.out, "");
		ck_assert_msg(strstr(result.err, cases[i].text) != NULL, "case %zu: %s", i,
			      result.err);
	}
	/* Nowhere to write to. */
	snprintf(tool, sizeof(tool), "%s/wvm_ctl -n 9 -d 0.1 top 1 >/dev/full", cluster_bin());
	cluster_run(&result, (const char *const[]){"/bin/sh", "-c", tool, NULL}, NULL, NULL);
	ck_assert_int_eq(WEXITSTATUS(result.status), 1);
	ck_assert_str_eq(result.err, "wvm_ctl: cannot write the output: No space left on device\n");
	/* Nobody there at all. */
	cluster_ctl(&cluster, 0, &result,
		    (const char *const[]){"--json", "-d", "0.1", "top", NULL});
	ck_assert_int_eq(WEXITSTATUS(result.status), 1);
	ck_assert_ptr_nonnull(strstr(result.out, "\"answers\":false"));
	ck_assert_ptr_nonnull(strstr(result.err, "no master or gateway answers"));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("top");
	TCase *t = cluster_tcase(s, "top", 120);

	tcase_add_test(t, figures_move_while_programs_fault_and_rest_when_they_have_ended);
	tcase_add_test(t, a_dead_node_and_one_that_hangs_are_silent_and_the_view_goes_on);
	tcase_add_test(t, garbled_answers_do_no_harm_to_the_view_of_others);
	tcase_add_test(t, bad_arguments_are_one_line_that_names_them);
	return s;
}

int main(int argc, char **argv)
{
	return cluster_main(argv, (Suite * (*const[])(void)){suite}, 1);
}
