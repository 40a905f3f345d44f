/* What wvm_ctl prints for people; with --json the master's answer is printed as it is. */
#ifndef WVM_CTL_PRINT_H
#define WVM_CTL_PRINT_H

#include <jansson.h>

void wvm_print_status(const json_t *status);
void wvm_print_slices(const json_t *status);
void wvm_print_stats(const json_t *stats);
void wvm_print_where(const json_t *where);
void wvm_print_vcpus(const json_t *vcpus);
void wvm_print_routes(const json_t *routes);
void wvm_print_members(const json_t *members);
void wvm_print_epoch(const json_t *epoch);

#endif
