#include "roles/ctl/move.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* A hello that nobody answers takes 2 s, a run that nobody answers 5 s, a QEMU its time to start.
 */
#define WAIT_MS  15000u
#define AGAIN_MS 20u

#define TOKEN_MAX 0xfffffeu

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Another one than that of the order before, whoever gave it. */
static uint32_t new_token(void)
{
	uint32_t token;

	if (getrandom(&token, sizeof(token), 0) != sizeof(token))
		token = (uint32_t)now_ms();
	return token % TOKEN_MAX + 1;
}

static int fail(char *err, size_t err_len, unsigned vcpu, uint32_t node, const char *why, int ret)
{
	snprintf(err, err_len, "vCPU %u does not go to node %u: %s", vcpu, node, why);
	return ret;
}

static const char *text(const json_t *o, const char *key)
{
	const char *value = json_string_value(json_object_get(o, key));

	return value ? value : "";
}

/* 0, -errno, or 1: it waits. */
static int judge(const json_t *o, unsigned vcpu, uint32_t node, char *said, size_t said_len,
		 char *err, size_t err_len)
{
	long long us = json_integer_value(json_object_get(o, "took_us"));
	const char *outcome = text(o, "outcome");

	if (!strcmp(outcome, "waits"))
		return 1;
	if (!strcmp(outcome, "moved")) {
		snprintf(said, said_len, "vCPU %u runs on node %u, moved in %.1f ms", vcpu, node,
			 (double)us / 1000);
		return 0;
	}
	if (!strcmp(outcome, "there")) {
		snprintf(said, said_len, "vCPU %u runs on node %u already", vcpu, node);
		return 0;
	}
	if (!strcmp(outcome, "silent"))
		return fail(err, err_len, vcpu, node,
			    "no slave answers there (is wavevm_node_slave running?); it goes on "
			    "where it was",
			    -ETIMEDOUT);
	if (!strcmp(outcome, "engine"))
		return fail(err, err_len, vcpu, node,
			    "the slave there has no TCG (start it with --qemu=FILE); it goes on "
			    "where it was",
			    -ENOTSUP);
	if (!strcmp(outcome, "lost"))
		return fail(err, err_len, vcpu, node,
			    "it is lost, and its VM is stopped: start the VM anew", -EIO);
	if (!strcmp(outcome, "refused")) {
		char why[160];

		snprintf(why, sizeof(why), "refused there: %.100s; it goes on where it was",
			 text(o, "reason"));
		return fail(err, err_len, vcpu, node, why, -EBUSY);
	}
	return fail(err, err_len, vcpu, node, "its QEMU has said why on its standard error", -EIO);
}

int wvm_move(struct wvm_ask *ask, unsigned vcpu, uint32_t node, char *said, size_t said_len,
	     json_t **answer, char *err, size_t err_len)
{
	const struct timespec pause = {.tv_nsec = AGAIN_MS * 1000000};
	uint64_t end = now_ms() + WAIT_MS;
	bool taken = false;
	int ret;

	*answer = NULL;
	ask->op = WVM_CONTROL_MOVE;
	ask->operand = (uint64_t)vcpu << WVM_CONTROL_VCPU_SHIFT |
		       (uint64_t)new_token() << WVM_CONTROL_TOKEN_SHIFT | node;
	do {
		ret = wvm_ask_json(ask, answer, err, err_len);
		/* Once it has the order it may be busy for a moment. */
		if (ret != -ETIMEDOUT || !taken) {
			ret = ret ? ret : judge(*answer, vcpu, node, said, said_len, err, err_len);
			if (ret <= 0)
				return ret;
			taken = true;
		}
		nanosleep(&pause, NULL);
	} while (now_ms() < end);
	if (ret == -ETIMEDOUT)
		return ret; /* with what wvm_ask_json() said */
	snprintf(
		err, err_len,
		"the program that owns vCPU %u has not answered for %u s; wvm_ctl vcpu says where it "
		"runs",
		vcpu, WAIT_MS / 1000);
	return -ETIMEDOUT;
}
