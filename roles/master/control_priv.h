/* What the files of the control port share. */
#ifndef WVM_MASTER_CONTROL_PRIV_H
#define WVM_MASTER_CONTROL_PRIV_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct wvm_node;

static inline void set(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

/* control_vcpus.c: processors that may run on other nodes. On shard 0. */
json_t *wvm_control_vcpus(const struct wvm_node *n);
/* operand as of WVM_CONTROL_MOVE. NULL and *status: there is nothing to move. */
json_t *wvm_control_move(struct wvm_node *n, uint16_t vm_id, uint64_t operand, uint16_t *status);

/* control_membership.c: who answers; the epoch and its voters; counters, as a section of o. */
json_t *wvm_control_members(const struct wvm_node *n);
json_t *wvm_control_epoch(const struct wvm_node *n);
void wvm_control_membership_stats(json_t *o, const struct wvm_node *n);

/* control_life.c */
/*
 * DRAIN or JOIN of the node with that phys_id: wishes for the record, unless it is under way or
 * done. What has come of it, with "error" where it cannot be. Asked again it goes on.
 */
json_t *wvm_control_life(struct wvm_node *node, uint32_t phys_id, bool join, uint16_t *status);
#endif
