#include "bench/wvmbench/floor.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OUTPUT_MAX 65536
#define LINE_BYTES 8704 /* a path, options */

/* Of the last run: its command line, and what it printed. By one thread. */
static char how[LINE_BYTES], said[OUTPUT_MAX];

static bool real(const json_t *object, const char *key, double *out)
{
	const json_t *v = json_object_get(object, key);

	if (!json_is_number(v))
		return false;
	*out = json_number_value(v);
	return true;
}

static bool parse_summary(const json_t *object, struct wvm_summary *s)
{
	const json_t *buckets = json_object_get(object, "log2_us");
	const json_t *count = json_object_get(object, "count");

	memset(s, 0, sizeof(*s));
	if (!json_is_integer(count) || json_array_size(buckets) != WVM_HIST_BUCKETS)
		return false;
	s->count = (uint64_t)json_integer_value(count);
	for (unsigned i = 0; i < WVM_HIST_BUCKETS; i++)
		s->bucket[i] = (uint64_t)json_integer_value(json_array_get(buckets, i));
	return real(object, "mean_us", &s->mean_us) && real(object, "p50_us", &s->p50_us) &&
	       real(object, "p90_us", &s->p90_us) && real(object, "p99_us", &s->p99_us) &&
	       real(object, "p99.9_us", &s->p999_us) && real(object, "max_us", &s->max_us) &&
	       real(object, "faults_per_s", &s->per_second);
}

int floor_parse(const char *json, struct results *out)
{
	json_t *root = json_loads(json, 0, NULL), *list = json_object_get(root, "results"), *entry;
	int rc = json_array_size(list) > 0 ? 0 : -EBADMSG;
	size_t i;

	json_array_foreach(list, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "name"));
		json_int_t threads = json_integer_value(json_object_get(entry, "threads"));
		struct wvm_summary s;
		struct result *r;

		if (!name || threads < 1 || threads > 1024 || !parse_summary(entry, &s)) {
			rc = -EBADMSG;
			break;
		}
		r = result_get(out, name, (unsigned)threads);
		rc = r ? result_add_summary(r, &s) : -ENOSPC;
		if (rc < 0)
			break;
	}
	json_decref(root);
	return rc;
}

/* Complains about a failure of the last run, or of what it printed. */
static int check(int rc)
{
	if (rc < 0)
		fprintf(stderr, "wvmbench: %s: %s\n", how, strerror(-rc));
	return rc;
}

/* Runs program (NULL: wvm_floor beside this one). 0 or -errno, mostly with a line. */
static int run(const char *program, const char *options)
{
	char path[4096];
	FILE *pipe;
	size_t n;

	if (!program) {
		ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 16);

		if (len < 0)
			return -errno;
		path[len] = '\0';
		strcpy(strrchr(path, '/') + 1, "wvm_floor");
		program = path;
	}
	snprintf(how, sizeof(how), "exec '%s' --json %s", program, options);
	pipe = popen(how, "r");
	if (!pipe)
		return -errno;
	n = fread(said, 1, sizeof(said) - 1, pipe);
	said[n] = '\0';
	return check(pclose(pipe) == 0 ? 0 : -EIO);
}

int floor_round(const struct floor_run *f, struct results *out)
{
	char options[4096];
	int rc;

	snprintf(options, sizeof(options), "--threads %u --pages %" PRIu64 " %s", f->threads,
		 f->pages, f->arguments);
	rc = run(f->program, options);
	return rc < 0 ? rc : check(floor_parse(said, out));
}

int floor_parse_stream(const char *json, double *seconds)
{
	json_t *root = json_loads(json, 0, NULL);
	int rc = real(root, "seconds", seconds) && *seconds > 0 ? 0 : -EBADMSG;

	json_decref(root);
	return rc;
}

int floor_stream(const char *program, const char *arguments, uint64_t mib, const char *kind,
		 double *seconds)
{
	char options[4096];
	int rc;

	snprintf(options, sizeof(options), "--stream %" PRIu64 " %s %s", mib, kind, arguments);
	rc = run(program, options);
	return rc < 0 ? rc : check(floor_parse_stream(said, seconds));
}

int floor_parse_relay(const char *json, unsigned bytes, struct wvm_summary *out)
{
	json_t *root = json_loads(json, 0, NULL);
	const json_t *result = json_array_get(json_object_get(root, "results"), 0);
	double echoed = 0;
	int rc = parse_summary(result, out) && out->p50_us > 0 ? 0 : -EBADMSG;

	if (!real(root, "bytes", &echoed) || echoed != bytes)
		rc = -EBADMSG;
	json_decref(root);
	return rc;
}

int floor_relay(const char *program, const char *arguments, uint64_t runs, unsigned bytes,
		struct wvm_summary *out)
{
	char options[4096];
	int rc;

	snprintf(options, sizeof(options), "--relay %" PRIu64 " --bytes %u %s", runs, bytes,
		 arguments);
	rc = run(program, options);
	return rc < 0 ? rc : check(floor_parse_relay(said, bytes, out));
}
