#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/client_priv.h"

static _Thread_local char error_text[256] = "no error";

int wvm_client_fail(int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error_text, sizeof(error_text), format, args);
	va_end(args);
	return err;
}

const char *wvm_attach_error(void)
{
	return error_text;
}

static struct wvm *new_client(void)
{
	struct wvm *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;

	if (!w)
		return NULL;
	w->owner = getpid();
	w->channel_fd = w->empty_fd = w->to_master_fd = w->to_client_fd = -1;
	w->stop_fd = w->master_pidfd = -1;
	for (unsigned k = 0; k < WVM_RING_SHARDS_MAX; k++)
		w->uffd[k] = -1;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->answered, &attr);
	pthread_condattr_destroy(&attr);
	return w;
}

static void free_client(struct wvm *w)
{
	pthread_cond_destroy(&w->answered);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

int wvm_attach(struct wvm **out, const char *ring_path)
{
	struct wvm_ring_header h;
	struct wvm *w;
	int ret;

	if (!ring_path)
		ring_path = getenv("WVM_RING_PATH");
	if (!ring_path)
		ring_path = getenv("WVM_ENV_SOCK_PATH");
	if (!out || !ring_path || !*ring_path)
		return wvm_client_fail(-EINVAL, "no ring file: set WVM_RING_PATH to the master's");
	w = new_client();
	if (!w)
		return wvm_client_fail(-ENOMEM, "out of memory");
	ret = wvm_ring_file_get(&w->file, ring_path);
	if (ret)
		goto err_free;
	ret = wvm_ring_file_header(w->file, &h);
	if (ret)
		goto err_file;
	ret = wvm_ring_file_claim(w->file);
	if (ret < 0)
		goto err_file;
	w->slot = (unsigned)ret;
	ret = wvm_link_open(w, h.shard_count);
	if (!ret)
		ret = wvm_link_meet(w, &h);
	if (ret)
		goto err_link;
	ret = wvm_helper_start(w);
	if (ret) {
		wvm_client_fail(ret, "cannot start the helper thread: %s", strerror(-ret));
		goto err_link;
	}
	*out = w;
	return 0;

err_link:
	wvm_ring_file_release(w->file, w->slot);
	wvm_link_close(w);
err_file:
	wvm_ring_file_put(w->file);
err_free:
	free_client(w);
	return ret;
}

void wvm_detach(struct wvm *w)
{
	struct wvm_ring_req req = {0};

	if (!w)
		return;
	if (w->owner != getpid()) {
		free(w); /* a child's copy: the descriptors are harmless, the rest is not its own */
		return;
	}
	wvm_ranges_close(w);
	(void)wvm_call(w, WVM_RING_DETACH, &req, NULL, WVM_CALL_MS);
	wvm_helper_stop(w);
	wvm_ranges_unmap(w);
	wvm_code_close(w);
	wvm_ring_file_release(w->file, w->slot);
	wvm_link_close(w);
	wvm_ring_file_put(w->file);
	free_client(w);
}

int wvm_stats(struct wvm *w, struct wvm_stats *out)
{
	struct wvm_ring_req req = {0};
	int64_t ret;

	ret = wvm_call(w, WVM_RING_STATS, &req, out, WVM_CALL_MS);
	pthread_mutex_lock(&w->lock);
	if (ret < 0)
		*out = w->last_stats;
	else
		w->last_stats = *out;
	pthread_mutex_unlock(&w->lock);
	return ret < 0 ? -ECONNREFUSED : 0;
}

static bool is_gone(struct wvm *w)
{
	bool gone;

	pthread_mutex_lock(&w->lock);
	gone = w->gone || w->owner != getpid();
	pthread_mutex_unlock(&w->lock);
	return gone;
}

int64_t wvm_vm_size(struct wvm *w, uint16_t vm_id)
{
	struct wvm_ring_header h;

	if (is_gone(w) || wvm_ring_file_header(w->file, &h))
		return -ECONNREFUSED;
	for (unsigned i = 0; i < h.vm_count; i++)
		if (h.vms[i].vm_id == vm_id)
			return (int64_t)h.vms[i].size;
	return -ENXIO;
}

int wvm_where(struct wvm *w, uint16_t vm_id, uint64_t gpa)
{
	struct wvm_ring_req req = {.vm_id = vm_id, .gpa = gpa};

	return (int)wvm_call(w, WVM_RING_WHERE, &req, NULL, WVM_CALL_MS);
}

int wvm_node_id(struct wvm *w)
{
	return (int)w->node_id;
}

void wvm_on_error(struct wvm *w, wvm_error_fn *fn, void *opaque)
{
	pthread_mutex_lock(&w->lock);
	w->error_fn = fn;
	w->error_opaque = opaque;
	pthread_mutex_unlock(&w->lock);
}
