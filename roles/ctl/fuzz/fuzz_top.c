/*
 * wvm_ctl top with any JSON as the answers of two rounds. Whatever they say, figures are neither
 * negative nor NaN, and what is printed has nothing in it that a terminal would obey.
 */
#include <math.h>
#include <netinet/in.h>

#include "roles/ctl/top_view.h"
#include "shared/fuzz/fuzz.h"

typedef int read_fn(struct wvm_top_sample *s, const json_t *o);

/* The text up to the next zero byte. False when it is refused. */
static bool take(struct fuzz_in *in, struct wvm_top_sample *s, read_fn *read)
{
	size_t len = strnlen((const char *)in->at, in->left);
	json_t *o = json_loadb((const char *)in->at, len, 0, NULL);
	bool ok = o && !read(s, o);

	json_decref(o);
	in->at += len;
	in->left -= len;
	fuzz_u8(in);
	return ok;
}

static struct wvm_top_sample *sample(struct fuzz_in *in)
{
	struct wvm_top_sample *s = calloc(1, sizeof(*s));

	if (take(in, s, wvm_top_read_status) && take(in, s, wvm_top_read_stats)) {
		if (!s->gateway) {
			take(in, s, wvm_top_read_members);
			take(in, s, wvm_top_read_vcpus);
		}
		return s;
	}
	free(s);
	return NULL;
}

static void check_latency(const struct wvm_top_latency *l)
{
	FUZZ_CHECK(l->p50_us >= 0 && l->p99_us >= l->p50_us && isfinite(l->p99_us), "%g, %g",
		   l->p50_us, l->p99_us);
}

static void check_rates(const struct wvm_top_rates *r)
{
	FUZZ_CHECK(!(r->known && r->restarted), "both");
	for (unsigned i = 0; i < WVM_TOP_COUNTERS; i++)
		FUZZ_CHECK(r->per_s[i] >= 0 && isfinite(r->per_s[i]), "%g", r->per_s[i]);
	check_latency(&r->read);
	check_latency(&r->write);
	check_latency(&r->all);
}

static void print(struct wvm_top_target *t, uint64_t now_ns)
{
	struct wvm_top_view v = {.targets = t, .count = 1, .interval_s = 2};
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	json_t *o;

	wvm_top_text(&v, now_ns, out);
	fclose(out);
	for (size_t i = 0; i < len; i++)
		FUZZ_CHECK((text[i] >= ' ' && text[i] <= '~') || text[i] == '\n', "%02x",
			   (unsigned char)text[i]);
	free(text);
	o = wvm_top_json(&v, now_ns);
	text = json_dumps(o, JSON_COMPACT);
	FUZZ_CHECK(text, "no JSON");
	free(text);
	json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	struct wvm_top_target t = {.ip = INADDR_LOOPBACK, .port = 9001, .fd = -1};
	uint8_t how = fuzz_u8(&in);

	t.before = sample(&in);
	t.now = sample(&in);
	t.failed = how & 1 ? -(how >> 1) : 0;
	if (t.before && t.now) {
		wvm_top_rates(t.before, t.now, &t.rates);
		check_rates(&t.rates);
	}
	print(&t, UINT64_C(5000000000));
	free(t.before);
	free(t.now);
	return 0;
}

/* ---- seeds -------------------------------------------------------------------------------- */

#define MASTER(ns, n)                                                                       \
	"{\"node\":1,\"state\":\"serving\",\"boot\":3,\"uptime_s\":9,\"pages_shared\":7,"   \
	"\"pages_modified\":1,\"pages_homed\":5}\0"                                         \
	"{\"monotonic_ns\":" #ns ",\"core\":{\"faults_read\":" #n ",\"faults_write\":" #n   \
	",\"requests_now\":2},\"drops\":{\"crc\":" #n "},\"latency_read\":[0," #n           \
	",0,3],\"latency_write\":[0,0," #n ",0]}\0"                                         \
	"{\"watching\":true,\"members\":[{\"node\":1,\"address\":\"1.2.3.4:5\",\"life\":"   \
	"\"ACTIVE\",\"status\":\"ALIVE\",\"heard\":true,\"since_ms\":5}],\"left_off\":1}\0" \
	"{\"vcpus\":[{\"state\":\"running\"}]}\0"
#define GATEWAY(ns, n)                                                                       \
	"{\"role\":\"gateway\",\"port\":8000,\"uptime_s\":9,\"waiting\":3,\"buffers\":64}\0" \
	"{\"monotonic_ns\":" #ns ",\"gateway\":{\"forwarded\":" #n ",\"lost\":" #n           \
	"},\"drops\":{\"crc\":1}}\0"

#define PUT(name, text) put(name, "\0" text, sizeof("\0" text) - 1)

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	PUT("master", MASTER(1000000000, 4) MASTER(3000000000, 9));
	PUT("restarted", MASTER(1000000000, 9) MASTER(3000000000, 4));
	PUT("gateway", GATEWAY(1000000000, 4) GATEWAY(3000000000, 9));
	PUT("another", GATEWAY(1000000000, 4) MASTER(3000000000, 9));
	PUT("escape", "{\"node\":1,\"state\":\"\\u001b[2J\"}\0{\"monotonic_ns\":1,\"core\":{}}\0"
		      "{\"watching\":false,\"why_not\":\"\\u0007\"}\0");
}
