#include "bench/wvmbench/usage.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int usage_status(pid_t pid, const char *name, uint64_t *bytes)
{
	char path[64], line[256];
	size_t len = strlen(name);
	uint64_t kib = UINT64_MAX;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len) && line[len] == ':' &&
		    sscanf(line + len + 1, "%" SCNu64, &kib) == 1)
			break;
	if (f)
		fclose(f);
	if (kib == UINT64_MAX) {
		fprintf(stderr, "wvmbench: %s says nothing about %s\n", path, name);
		return -ESRCH;
	}
	*bytes = kib * 1024;
	return 0;
}

static int of_process(pid_t pid, struct usage *out)
{
	uint64_t rss, files, tables;

	if (usage_status(pid, "VmRSS", &rss) < 0 || usage_status(pid, "RssShmem", &files) < 0 ||
	    usage_status(pid, "VmPTE", &tables) < 0)
		return -ESRCH;
	out->process = rss - files + tables;
	return 0;
}

/* Where the bytes of a file named prefix.name belong. */
static uint64_t *kind_of(struct usage *u, const char *name)
{
	const char *last = strrchr(name, '.');

	last = last ? last + 1 : name;
	if (!strncmp(last, "held", 4))
		return &u->holder;
	if (!strcmp(last, "durable") || !strcmp(last, "outbox") || !strcmp(last, "state"))
		return &u->fixed;
	if (!strcmp(last, "store") || strspn(last, "0123456789") == strlen(last))
		return &u->guest;
	return &u->directory;
}

int usage_of(const struct usage_node *node, struct usage *out)
{
	char pattern[512];
	glob_t found;
	int rc;

	memset(out, 0, sizeof(*out));
	snprintf(pattern, sizeof(pattern), "%s.*", node->prefix);
	if (glob(pattern, 0, NULL, &found) != 0) {
		fprintf(stderr, "wvmbench: there are no files %s\n", pattern);
		return -ENOENT;
	}
	for (size_t i = 0; i < found.gl_pathc; i++) {
		struct stat st;

		if (stat(found.gl_pathv[i], &st) == 0)
			*kind_of(out, found.gl_pathv[i] + strlen(node->prefix) + 1) +=
				(uint64_t)st.st_blocks * 512;
	}
	globfree(&found);
	rc = of_process(node->pid, out);
	return rc;
}
