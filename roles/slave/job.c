#include <string.h>

#include "roles/slave/engine.h"

void wvm_job_error(struct wvm_job *job, const char *text)
{
	struct wvm_vcpu_exit e = {.kind = WVM_VCPU_EXIT_ERROR,
				  .data = (const uint8_t *)text,
				  .data_len = (uint32_t)strlen(text)};

	job->reason = WVM_RUN_NO_REASON;
	job->keeps = false;
	job->answer_len = (uint32_t)wvm_vcpu_exit_encode(job->answer, WVM_RUN_MAX, &e);
	job->done(job);
}

void wvm_job_refuse(struct wvm_job *job, enum wvm_run_reason reason)
{
	job->reason = reason;
	job->done(job);
}
