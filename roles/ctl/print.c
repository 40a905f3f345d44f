#include "roles/ctl/print.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static unsigned long long number(const json_t *o, const char *key)
{
	return (unsigned long long)json_integer_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
	const char *value = json_string_value(json_object_get(o, key));

	return value ? value : "?";
}

static double mib(unsigned long long bytes)
{
	return (double)bytes / (1 << 20);
}

static void print_gateway(const json_t *o)
{
	static const char *const classes[] = {"operator", "static", "announced", "learned"};
	const json_t *routes = json_object_get(o, "routes");

	printf("gateway  port %llu  mtu %llu  up %llu s  version %s  protocol %llu\n",
	       number(o, "port"), number(o, "mtu"), number(o, "uptime_s"), text(o, "version"),
	       number(o, "protocol"));
	printf("%s\n", text(o, "shard"));
	printf("routes");
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		printf("  %s %llu", classes[i], number(routes, classes[i]));
	printf("  default %s  upstream %s\n",
	       json_object_get(o, "default") ? text(o, "default") : "none",
	       json_object_get(o, "upstream") ? text(o, "upstream") : "none");
	printf("queues  %llu of %llu buffers\n", number(o, "waiting"), number(o, "buffers"));
	printf("messages forwarded %llu  pushed back %llu  datagrams in %llu  out %llu  of "
	       "strangers %llu\n",
	       number(o, "forwarded"), number(o, "pushed_back"), number(o, "datagrams_in"),
	       number(o, "datagrams_out"), number(o, "strangers"));
}

void wvm_print_routes(const json_t *o)
{
	const json_t *list = json_object_get(o, "routes"), *item;
	size_t i;

	printf("%-10s %10s %10s  %s\n", "class", "first", "vnodes", "next hop");
	json_array_foreach(list, i, item)
	{
		if (number(item, "count"))
			printf("%-10s %10llu %10llu  %s\n", text(item, "class"),
			       number(item, "first"), number(item, "count"), text(item, "hop"));
		else
			printf("%-10s %10s %10s  %s\n", text(item, "class"), "all", "others",
			       text(item, "hop"));
	}
	if (number(o, "left_off"))
		printf("and %llu more\n", number(o, "left_off"));
}

/* The node gives back what it has, to be switched off. */
static void print_leaving(const json_t *o)
{
	if (!json_is_true(json_object_get(o, "leaving")))
		return;
	if (json_is_true(json_object_get(o, "emptied")))
		puts("leaving  no page is held here any more");
	else if (number(o, "clients"))
		printf("leaving  pages still held %llu  waits for %llu programs to end\n",
		       number(o, "pages_left"), number(o, "clients"));
	else
		printf("leaving  pages still held %llu\n", number(o, "pages_left"));
}

/* Masters of before members came and went do not say it: all were homes. */
static const char *state_of(const json_t *member)
{
	return json_object_get(member, "member") ? text(member, "member") : "ACTIVE";
}

static bool is_home(const json_t *member)
{
	return !strcmp(state_of(member), "ACTIVE") || !strcmp(state_of(member), "WARMING");
}

/* Who is spare or was drained is not asked. */
static void print_note(const json_t *member)
{
	bool home = is_home(member);

	if (strcmp(state_of(member), "ACTIVE"))
		printf("  %s", state_of(member));
	if ((home || !strcmp(state_of(member), "DRAINING")) &&
	    !json_is_true(json_object_get(member, "answered")))
		printf("  no answer yet");
	putchar('\n');
}

void wvm_print_status(const json_t *o)
{
	size_t i;
	json_t *item;

	if (!strcmp(text(o, "role"), "gateway")) {
		print_gateway(o);
		return;
	}
	printf("node %llu  %s  epoch %llu  boot %llu  up %llu s  version %s  protocol %llu\n",
	       number(o, "node"), text(o, "state"), number(o, "epoch"), number(o, "boot"),
	       number(o, "uptime_s"), text(o, "version"), number(o, "protocol"));
	printf("ring %s  mtu %llu  clients %llu\n", text(o, "ring"), number(o, "mtu"),
	       number(o, "clients"));
	printf("pages  held Shared %llu  held Modified %llu  homed here %llu\n",
	       number(o, "pages_shared"), number(o, "pages_modified"), number(o, "pages_homed"));
	printf("read ahead  asked for %llu  waited for %llu  passed %llu  given up %llu\n",
	       number(o, "ahead_asked"), number(o, "ahead_joined"), number(o, "ahead_passed"),
	       number(o, "ahead_given_up"));
	printf("memory  guest pages %.1f MiB  home store %.1f MiB  tables %.1f MiB\n",
	       mib((number(o, "pages_shared") + number(o, "pages_modified")) * 4096),
	       mib(number(o, "store_bytes")), mib(number(o, "tables_bytes")));
	printf("budget  %llu MiB  given up Shared %llu  Modified %llu  faults that waited %llu  "
	       "failed %llu\n",
	       number(o, "ram_mb"), number(o, "evicted_shared"), number(o, "evicted_modified"),
	       number(o, "reclaim_waits"), number(o, "reclaim_failed"));
	print_leaving(o);
	json_array_foreach(json_object_get(o, "shards"), i, item)
		printf("shard %zu  %s\n", i, json_is_string(item) ? json_string_value(item) : "?");
	json_array_foreach(json_object_get(o, "vms"), i, item)
		printf("VM %llu  %.0f MiB  %s\n", number(item, "id"), mib(number(item, "bytes")),
		       text(item, "ram_file"));
	printf("%-6s %-22s %8s %8s %10s\n", "node", "address", "vnodes", "slices", "placed MiB");
	json_array_foreach(json_object_get(o, "members"), i, item)
	{
		printf("%-6llu %-22s %8llu %8llu %10llu", number(item, "node"),
		       text(item, "address"), number(item, "vnodes"), number(item, "slices"),
		       number(item, "placed_mib"));
		print_note(item);
	}
}

/* A home's share of the slices goes by its vnodes; PLACE lines come on top. */
void wvm_print_slices(const json_t *o)
{
	const json_t *list = json_object_get(o, "members"), *item;
	double slices = 0, vnodes = 0;
	size_t i;

	if (!json_array_size(list)) {
		puts("a gateway is home of nothing");
		return;
	}
	json_array_foreach(list, i, item)
	{
		slices += (double)number(item, "slices");
		vnodes += is_home(item) ? (double)number(item, "vnodes") : 0;
	}
	printf("epoch %llu  slices %.0f\n%-6s %-22s %8s %10s %8s %8s %10s\n", number(o, "epoch"),
	       slices, "node", "address", "vnodes", "by vnodes", "slices", "share", "placed MiB");
	json_array_foreach(list, i, item) printf(
		"%-6llu %-22s %8llu %10.1f %8llu %6.2f %% %10llu\n", number(item, "node"),
		text(item, "address"), number(item, "vnodes"),
		is_home(item) && vnodes > 0 ? slices * (double)number(item, "vnodes") / vnodes : 0,
		number(item, "slices"),
		slices > 0 ? 100 * (double)number(item, "slices") / slices : 0,
		number(item, "placed_mib"));
}

/* Those of an object that are not 0, under a title. */
static void print_counters(const json_t *section, const char *title)
{
	const char *key;
	json_t *value;
	bool any = false;

	json_object_foreach((json_t *)section, key, value)
	{
		if (!json_integer_value(value))
			continue;
		if (!any)
			printf("%s\n", title);
		any = true;
		printf("  %-24s %lld\n", key, (long long)json_integer_value(value));
	}
}

static void print_shards(const json_t *o)
{
	const json_t *list = json_object_get(o, "shards"), *item;
	size_t i;

	if (json_array_size(list) < 2)
		return;
	printf("%-6s %5s %12s %16s %18s\n", "shard", "cpu", "faults", "requests served",
	       "messages received");
	json_array_foreach(list, i, item) printf(
		"%-6zu %5lld %12llu %16llu %18llu\n", i,
		(long long)json_integer_value(json_object_get(item, "cpu")), number(item, "faults"),
		number(item, "requests_served"), number(item, "messages_received"));
}

/* Of one shard they are what the section above has. */
static void print_calls_by_shard(const json_t *list)
{
	char title[48];
	json_t *item;
	size_t i;

	if (json_array_size(list) < 2)
		return;
	json_array_foreach(list, i, item)
	{
		snprintf(title, sizeof(title), "syscalls of shard %zu", i);
		print_counters(item, title);
	}
}

/* Buckets are powers of two in microseconds, of 64 bits at most, as in QEMU's "postcopy latency"
 * output. */
static void print_histogram(const json_t *o, const char *key, const char *title)
{
	const json_t *list = json_object_get(o, key);
	size_t count = json_array_size(list) < 64 ? json_array_size(list) : 64;
	unsigned long long most = 0;

	for (size_t i = 0; i < count; i++)
		if ((unsigned long long)json_integer_value(json_array_get(list, i)) > most)
			most = (unsigned long long)json_integer_value(json_array_get(list, i));
	if (!most)
		return;
	printf("%s\n", title);
	for (size_t i = 0; i < count; i++) {
		unsigned long long n =
			(unsigned long long)json_integer_value(json_array_get(list, i));

		if (n)
			printf("  [ %8llu us - %8llu us ]: %10llu  %.*s\n",
			       i ? 1ull << (i - 1) : 0ull, 1ull << i, n,
			       (int)((n * 40 + most - 1) / most),
			       "########################################");
	}
}

void wvm_print_stats(const json_t *o)
{
	static const char *const sections[] = {"core",     "node",    "gateway",   "memory",
					       "syscalls", "runtime", "drops",     "control",
					       "code",     "vcpus",   "membership"};

	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++)
		print_counters(json_object_get(o, sections[i]), sections[i]);
	print_shards(o);
	print_calls_by_shard(json_object_get(o, "syscalls_by_shard"));
	print_histogram(o, "latency_read", "read faults, from fault to grant");
	print_histogram(o, "latency_write", "write faults, from fault to grant");
}

static void print_exits(const json_t *exits)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)exits, key, value)
		printf(" %s %lld", key, (long long)json_integer_value(value));
	printf("\n");
}

void wvm_print_vcpus(const json_t *o)
{
	const json_t *list = json_object_get(o, "vcpus"), *item;
	size_t i;

	if (!json_array_size(list)) {
		printf("no program of this node has vCPUs that may run elsewhere\n");
		return;
	}
	printf("%-5s %-5s %-6s %-8s %10s %8s %10s %6s %8s  %s\n", "VM", "vCPU", "node", "state",
	       "runs", "retries", "bytes/run", "moves", "refused", "exits");
	json_array_foreach(list, i, item)
	{
		unsigned long long runs = number(item, "runs");
		double bytes = (double)number(item, "bytes_sent") +
			       (double)number(item, "bytes_received");
		char node[24] = "?";

		if (json_object_get(item, "node"))
			snprintf(node, sizeof(node), "%llu", number(item, "node"));
		printf("%-5llu %-5llu %-6s %-8s %10llu %8llu %10.0f %6llu %8llu ",
		       number(item, "vm"), number(item, "vcpu"), node, text(item, "state"), runs,
		       number(item, "retries"), runs ? bytes / (double)runs : 0,
		       number(item, "moves"), number(item, "refused"));
		print_exits(json_object_get(item, "exits"));
	}
}

void wvm_print_where(const json_t *o)
{
	printf("VM %llu gpa 0x%llx  slice %llu  home node %llu (vnode %llu), ", number(o, "vm"),
	       number(o, "gpa"), number(o, "slice"), number(o, "home_node"),
	       number(o, "home_vnode"));
	if (json_object_get(o, "placed_by_line"))
		printf("placed by line %llu of the topology\n", number(o, "placed_by_line"));
	else
		printf("by hash\n");
	printf("node %llu holds it %s, version 0x%llx\n", number(o, "node"), text(o, "held"),
	       number(o, "held_version"));
	if (!json_object_get(o, "home_state")) {
		printf("its directory entry is on node %llu: ask there\n", number(o, "home_node"));
		return;
	}
	printf("directory: %s, version 0x%llx, %llu holders", text(o, "home_state"),
	       number(o, "version"), number(o, "holders"));
	if (json_object_get(o, "owner_node"))
		printf(", owner node %llu", number(o, "owner_node"));
	printf("%s\n", json_is_true(json_object_get(o, "lost")) ? ", LOST" : "");
}

/* Of those who do not watch each other. */
static bool print_why_not(const json_t *o)
{
	if (json_is_true(json_object_get(o, "watching")))
		return false;
	printf("node %llu does not watch other nodes: %s\n", number(o, "node"), text(o, "why_not"));
	return true;
}

void wvm_print_members(const json_t *o)
{
	const json_t *list = json_object_get(o, "members"), *item;
	size_t i;

	if (print_why_not(o))
		return;
	printf("%-6s %-6s %-22s %-8s %-8s %-8s %6s %12s %6s %7s  %s\n", "node", "vnode", "address",
	       "member", "life", "status", "boot", "incarnation", "epoch", "health", "since");
	json_array_foreach(list, i, item)
	{
		printf("%-6llu %-6llu %-22s %-8s ", number(item, "node"), number(item, "vnode"),
		       text(item, "address"), text(item, "member"));
		if (!json_object_get(item, "heard"))
			printf("not in the view, which is full\n");
		else if (!json_is_true(json_object_get(item, "heard")))
			printf("%-8s %-8s not heard of yet, for %.1f s\n", "?",
			       text(item, "status"), (double)number(item, "since_ms") / 1000);
		else
			printf("%-8s %-8s %6llu %12llu %6llu %7llu  %.1f s\n", text(item, "life"),
			       text(item, "status"), number(item, "boot"),
			       number(item, "incarnation"), number(item, "epoch"),
			       number(item, "health"), (double)number(item, "since_ms") / 1000);
	}
	if (number(o, "left_off"))
		printf("and %llu more\n", number(o, "left_off"));
}

/* Nodes by their id; one that the topology does not have by its vnode. */
static void print_node(const json_t *o)
{
	if (json_object_get(o, "node"))
		printf("node %llu", number(o, "node"));
	else
		printf("vnode %llu", number(o, "vnode"));
}

static void print_record(const json_t *o, const char *title)
{
	const json_t *voters = json_object_get(o, "voters"), *item;
	size_t i;

	if (!o)
		return;
	printf("%s %llu: ", title, number(o, "epoch"));
	print_node(o);
	printf(" is %s; on the next vote", text(o, "life"));
	json_array_foreach(voters, i, item)
	{
		printf(i ? ", " : " ");
		print_node(item);
	}
	printf("\n");
}

void wvm_print_epoch(const json_t *o)
{
	const json_t *promised = json_object_get(o, "promised");

	if (print_why_not(o))
		return;
	print_record(json_object_get(o, "record"), "epoch");
	printf("node %llu %s; %s%s; conflicts %llu\n", number(o, "node"),
	       json_is_true(json_object_get(o, "votes")) ? "votes" : "does not vote",
	       text(o, "phase"),
	       json_is_true(json_object_get(o, "storing")) ? ", waits for the disk" : "",
	       number(o, "conflicts"));
	print_record(json_object_get(o, "wish"), "wish for epoch");
	if (promised)
		printf("promised: no ballot below round %llu of vnode %llu\n",
		       number(promised, "round"), number(promised, "vnode"));
	print_record(json_object_get(o, "accepted"), "accepted for epoch");
	printf("ballots in %s\n", text(o, "file"));
}
