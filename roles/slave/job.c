#include <string.h>

#include "roles/slave/engine.h"

uint32_t wvm_job_error_encode(uint8_t answer[WVM_RUN_MAX], const char *text)
{
	struct wvm_vcpu_exit e = {.kind = WVM_VCPU_EXIT_ERROR,
				  .data = (const uint8_t *)text,
				  .data_len = (uint32_t)strlen(text)};

	return (uint32_t)wvm_vcpu_exit_encode(answer, WVM_RUN_MAX, &e);
}

void wvm_job_error(struct wvm_job *job, const char *text)
{
	job->reason = WVM_RUN_NO_REASON;
	job->answer_len = wvm_job_error_encode(job->answer, text);
	job->done(job);
}

void wvm_job_refuse(struct wvm_job *job, enum wvm_run_reason reason)
{
	job->reason = reason;
	job->done(job);
}
