/*
 * A page that cannot be had, and how QEMU still ends then.
 *
 * The thread that touched the page stays stopped in its access: there is no
 * value that it could go on with. It may hold any of QEMU's locks. So an
 * orderly quit may never finish: pausing waits for every vCPU, draining for
 * every request, and the main loop itself may be waiting for the stopped
 * thread, or be it. The message therefore comes from libwavevm's helper
 * thread without QEMU's help, and a thread of our own waits from then on
 * for the moment when QEMU is asked to end (SIGTERM, SIGINT, SIGHUP, quit). It
 * lets the orderly way have a moment, then ends the process.
 */
#include "qemu/osdep.h"

#include "accel.h"
#include "block/block.h"
#include "qemu/notify.h"
#include "qemu/thread.h"
#if QEMU_VERSION_MAJOR >= 10
#include "system/runstate-action.h"
#include "system/runstate.h"
#else
#include "sysemu/runstate-action.h"
#include "sysemu/runstate.h"
#endif
#include <semaphore.h>

/* How long the orderly way gets: little when it cannot work, some when the master may be back. */
#define GRACE_LOST_MS 2000
#define GRACE_GONE_MS 10000
#define POLL_MS       200

static const char *program;
static sem_t trouble;
static bool page_lost;
static bool master_gone;
static bool ending;

/* QEMU's own report functions take locks that the stopped thread may hold. */
static void say(const char *text, const char *then)
{
	char line[1024];
	int len = snprintf(line, sizeof(line), "%s: wavevm: %s; %s\n", program, text, then);
	ssize_t written = write(STDERR_FILENO, line, MIN((size_t)len, sizeof(line) - 1));

	(void)written;
}

/* Pages tend to be lost by the thousand: the first one is reported. A master may go repeatedly. */
void wvm_qemu_parked(void *opaque, void *addr, const char *text)
{
	bool known = false;

	if (addr)
		known = qatomic_xchg(&page_lost, true);
	else
		qatomic_set(&master_gone, true);
	if (!known)
		say(text, "SIGTERM ends QEMU");
	sem_post(&trouble);
}

static void on_shutdown(Notifier *n, void *cause)
{
	if (shutdown_action == SHUTDOWN_ACTION_PAUSE)
		return;
	qatomic_set(&ending, true);
	/* What the guest has flushed must be on its disks even if nothing after this gets done. */
	if (qatomic_read(&page_lost) || qatomic_read(&master_gone))
		bdrv_flush_all();
}

/*
 * Signals go to the main thread as long as it can take them. One that is
 * stopped inside the kernel cannot, so this thread takes what it leaves.
 */
static void wait_for_end(void)
{
	const struct timespec poll = {.tv_nsec = POLL_MS * 1000 * 1000};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	while (!qatomic_read(&ending) && !qemu_shutdown_requested_get()) {
		if (sigtimedwait(&set, &info, &poll) > 0)
			qemu_system_killed(info.si_signo, info.si_pid);
	}
}

static void *end_what_is_stuck(void *opaque)
{
	int waited_ms;

	while (sem_wait(&trouble) && errno == EINTR)
		continue;
	wait_for_end();
	for (waited_ms = 0; waited_ms < (qatomic_read(&page_lost) ? GRACE_LOST_MS : GRACE_GONE_MS);
	     waited_ms += POLL_MS)
		g_usleep(POLL_MS * 1000);
	say("a thread is still stopped in guest memory", "ending without it");
	_exit(EXIT_FAILURE);
}

void wvm_qemu_parked_init(void)
{
	static Notifier shutdown = {.notify = on_shutdown};
	static QemuThread thread;

	program = g_strdup(g_get_prgname());
	sem_init(&trouble, 0, 0);
	qemu_register_shutdown_notifier(&shutdown);
	qemu_thread_create(&thread, "wavevm-end", end_what_is_stuck, NULL, QEMU_THREAD_DETACHED);
}
