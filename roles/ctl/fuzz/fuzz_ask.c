/*
 * wvm_ctl with something else than a master on the control port: any datagrams
 * as its answers, and any JSON put together from them. What was collected is
 * text that ends, a refusal is one line, and whatever JSON there is gets printed.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/fuzz/fuzz.h"

static struct fuzz_in *input;
static FILE *nowhere;
static unsigned sent;

/* The master's side of the socket. An answer takes the request's op and part over, or not. */
static uint8_t asked[24];

static int no_socket(int domain, int type, int protocol)
{
	return 1000;
}

static int no_connect(int fd, const struct sockaddr *to, socklen_t len)
{
	return 0;
}

static int no_close(int fd)
{
	return 0;
}

static ssize_t take_request(int fd, const void *data, size_t len, int flags)
{
	FUZZ_CHECK(len == sizeof(asked), "a request of %zu bytes", len);
	memcpy(asked, data, len);
	sent++;
	if (fuzz_u8(input) == 255) {
		errno = ECONNREFUSED;
		return -1;
	}
	return (ssize_t)len;
}

static int wait_for(struct pollfd *p, nfds_t n, int timeout_ms)
{
	return input->left && fuzz_u8(input) < 250;
}

static ssize_t give_answer(int fd, void *to, size_t room, int flags)
{
	uint8_t how = fuzz_u8(input), *out = to;
	size_t len = fuzz_u16(input) % (room + 1);

	fuzz_bytes(input, out, len < input->left ? len : input->left);
	if (how & 1 && len >= 8) {
		memcpy(out, asked, 8); /* magic, op, part */
		out[4] |= 0x80;
	}
	if (how & 1 && len >= 16) {
		if (how & 2)
			out[12] = out[13] = 0; /* status OK */
		if (how & 4)
			out[14] = 0; /* not too many parts */
	}
	return (ssize_t)len;
}

#define socket         no_socket
#define connect        no_connect
#define close          no_close
#define send           take_request
#define poll(p, n, ms) wait_for(p, n, ms)
#define recv           give_answer
#include "roles/ctl/ask.c" // NOLINT: the unit under test
#undef socket
#undef connect
#undef close
#undef send
#undef poll
#undef recv

#define printf(...) fprintf(nowhere, __VA_ARGS__)
#include "roles/ctl/print.c" // NOLINT: the unit under test
#undef printf

static void print_any(const char *text)
{
	json_error_t why;
	json_t *o = json_loads(text, 0, &why);

	if (!o)
		return;
	wvm_print_status(o);
	wvm_print_stats(o);
	wvm_print_where(o);
	rewind(nowhere);
	json_decref(o);
}

static void collect_any(void)
{
	struct wvm_ask ask = {.port = 9001,
			      .op = WVM_CONTROL_STATUS + fuzz_u8(input) % 3,
			      .vm_id = fuzz_u8(input),
			      .operand = fuzz_u8(input)};
	char *text = NULL, err[64] = "";
	int rc = wvm_ask(&ask, &text, err, sizeof(err));

	if (rc) {
		FUZZ_CHECK(rc < 0 && !text && (*err || rc == -ENOMEM) && !strchr(err, '\n'),
			   "%d, '%s'", rc, err);
		return;
	}
	FUZZ_CHECK(text, "no text");
	FUZZ_CHECK(sent && strlen(text) <= (size_t)sent * WVM_CONTROL_PART, "%zu bytes",
		   strlen(text));
	print_any(text);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	char *text;

	if (!nowhere)
		nowhere = fopen("/dev/null", "we");
	input = &in;
	sent = 0;
	if (fuzz_u8(&in) & 1) {
		collect_any();
		return 0;
	}
	text = malloc(in.left + 1);
	memcpy(text, in.at, in.left);
	text[in.left] = 0;
	print_any(text);
	free(text);
	return 0;
}

/* ---- seeds ------------------------------------------------------------------------------- */

#define TEXT(name, json) put(name, "\0" json, sizeof("\0" json) - 1)

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	static const char part[] = "{\"node\": 1, \"state\": \"serving\"}";
	/* collect; op, vm, operand; sent, comes; how, length; header, text */
	uint8_t seed[64] = {
		1, 0, 0, 0, 0, 0, 7, 16 + sizeof(part) - 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 1};

	memcpy(seed + 25, part, sizeof(part) - 1);
	put("answer", seed, 25 + sizeof(part) - 1);
	seed[7] = 9; /* shorter than a header */
	put("answer-short", seed, 18);
	TEXT("status",
	     "{\"node\":1,\"state\":\"serving\",\"epoch\":1,\"boot\":3,\"uptime_s\":9,\"version\":"
	     "\"1\",\"protocol\":31,\"ring\":\"/dev/shm/r\",\"mtu\":1472,\"clients\":1,\"shards\":"
	     "[\"cpu 0\"],\"vms\":[{\"id\":0,\"bytes\":4096,\"ram_file\":\"/dev/shm/x\"}],"
	     "\"members\":[{\"node\":1,\"address\":\"1.2.3.4:5\",\"vnodes\":1,\"slices\":4096,"
	     "\"answered\":true}]}");
	TEXT("stats",
	     "{\"core\":{\"faults_read\":7},\"drops\":{\"crc\":1},\"latency_read\":[0,1,9,3],"
	     "\"latency_write\":[2,0,-1]}");
	TEXT("where",
	     "{\"vm\":0,\"gpa\":4096,\"slice\":7,\"home_node\":1,\"home_vnode\":0,\"node\":1,"
	     "\"held\":\"Shared\",\"held_version\":5,\"home_state\":\"Modified\",\"version\":4,"
	     "\"holders\":1,\"owner_node\":2,\"lost\":true}");
	TEXT("where-placed",
	     "{\"vm\":0,\"gpa\":4096,\"slice\":7,\"home_node\":1,\"placed_by_line\":5}");
}
