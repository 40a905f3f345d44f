/*
 * A cluster of real masters for the system tests: N wavevm_node_master
 * processes on loopback addresses or in network namespaces (net.sh), with
 * everything they leave in one directory under /dev/shm.
 *
 * A test program calls cluster_main(). Whatever happens to it, nothing stays:
 * masters die with the process that started them, and a guardian process
 * removes the directory when the last process of the program is gone.
 *
 * Functions assert by libcheck. A cluster is ended by the process that started
 * it: the program itself (unchecked fixture) or one test.
 */
#ifndef WVM_CHECK_CLUSTER_H
#define WVM_CHECK_CLUSTER_H

#include <check.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CLUSTER_NODES_MAX 8u
#define CLUSTER_ARGS_MAX  32u
#define CLUSTER_VM        1u
#define CLUSTER_OUT_BYTES 65536u

/* A sanitizer's build: its own allocator, its own memory. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CLUSTER_SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CLUSTER_SANITIZED true
#endif
#endif
#ifndef CLUSTER_SANITIZED
#define CLUSTER_SANITIZED false
#endif

enum cluster_net {
	CLUSTER_LOOPBACK, /* 127.0.77.1 and so on */
	CLUSTER_VETH,     /* namespaces joined by veth and a bridge, MTU 1500 */
	CLUSTER_WIRE,     /* namespaces joined by wvm_wire */
};

struct cluster_opts {
	unsigned nodes;     /* 0: 3 */
	const char *vm;     /* of --vm; NULL: "1:3G", which has both shards of two in it */
	const char *shards; /* of --shards; NULL: 1, "": not given */
	const char *ram_mb; /* budget of node 0; NULL: all have 4096 */
	const char *master; /* program of all nodes, in cluster_bin(); NULL: wavevm_node_master */
	const char *place;  /* PLACE lines of the topology; NULL: none */
	enum cluster_net net;
	const char *chaos; /* CLUSTER_WIRE */
	const char *preload;
	unsigned memory_only; /* bit i: node i has 0 cores */
	bool sidecars;        /* with a network: masters reach each other by 127.0.0.1:8000 */
};

struct cluster_node {
	pid_t pid; /* 0: does not run */
	char ip[24];
	uint16_t port, ctrl_port, slave_port;
	char ring[160], shm[160], state[160], log[160];
	char netns[160]; /* empty: the test's own */
};

struct cluster {
	struct cluster_opts opts;
	unsigned nodes;
	char dir[96], topology[160];
	struct cluster_node node[CLUSTER_NODES_MAX];
	pid_t net_pid;
	int net_in;
	char net_tag[64], net_dir[96];
};

/* Runs the suites of a test program; its exit status. */
int cluster_main(char **argv, Suite *(*const make[])(void), unsigned count);

/* Builds preload/<name>.c, a library for cluster_opts.preload, and says where it is. */
void cluster_preload(char *path, size_t size, const char *name);

/* A test case whose tests end with the program, even when it is killed. */
TCase *cluster_tcase(Suite *s, const char *name, int timeout_s);

/* The folder of the built programs. */
const char *cluster_bin(void);
/* A directory of this program, removed by the guardian. On a tmpfs. */
const char *cluster_dir(void);

/* Names, addresses and the topology file; nothing runs. opts NULL: all defaults. */
void cluster_prepare(struct cluster *c, const struct cluster_opts *opts);
/* cluster_prepare(), every master started and ready. */
void cluster_start(struct cluster *c, const struct cluster_opts *opts);
/* SIGTERM to every master; each ends with status 0. Removes the namespaces. */
void cluster_stop(struct cluster *c);
/* SIGKILL to every master. */
void cluster_kill(struct cluster *c);

/* Starts one master, with further arguments (NULL-terminated, or NULL), and does not wait. */
void cluster_node_start(struct cluster *c, unsigned i, const char *const more[]);
/* Waits for its ready line. */
void cluster_node_await(const struct cluster *c, unsigned i);
/* Sends the signal (0: none) and waits for the end: the status as waitpid() gives it. */
int cluster_node_end(struct cluster *c, unsigned i, int signal);

/* The command line of a master as started; args has room for CLUSTER_ARGS_MAX. */
void cluster_node_args(const struct cluster *c, unsigned i, const char *const more[],
		       const char *args[]);

/* How a program ended that cluster_run() ran. */
struct cluster_result {
	int status;                  /* as waitpid() gives it; -1: killed after 20 s */
	char out[CLUSTER_OUT_BYTES]; /* standard output */
	char err[CLUSTER_OUT_BYTES]; /* standard error */
};

/*
 * Runs args[0] to its end with its output collected, in the namespace of a
 * path (NULL: here). before (may be NULL) runs in the child first.
 */
void cluster_run(struct cluster_result *r, const char *const args[], const char *netns,
		 void (*before)(void));

/* The calling process, and what it starts, are in the namespace of a path from now on; or it ends.
 */
void cluster_enter_net(const char *path);
/* A UDP port that is free on this address, and stays so. */
uint16_t cluster_free_port(const char *ip);

/* wvm_ctl on a node: arguments after the port, NULL-terminated. */
void cluster_ctl(const struct cluster *c, unsigned i, struct cluster_result *r,
		 const char *const args[]);
/* `wvm_ctl --json COMMAND` on a node, parsed. The caller's to decref. */
json_t *cluster_json(const struct cluster *c, unsigned i, const char *command);
/* A figure of `stats --json`. */
uint64_t cluster_stat(const struct cluster *c, unsigned i, const char *section, const char *name);
/* A figure of `status --json`. */
uint64_t cluster_status(const struct cluster *c, unsigned i, const char *name);

/* Files of the node that exist now: RAM, state, ring. */
unsigned cluster_node_files(const struct cluster *c, unsigned i);

/* A whole file as text. */
void cluster_read(const char *path, char *out, size_t size);

void cluster_sleep_ms(unsigned ms);
uint64_t cluster_now_ms(void);

#endif
