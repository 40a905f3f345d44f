/*
 * Hostile clients: what they write into the ring file, their slots and their
 * channels, also between two reads of the master, the descriptors they name,
 * the faults they raise, when they die. All of the master's client code runs on
 * it (clients*.c, mem.c, spsc.c) over real memfds, eventfds, userfaultfds and
 * files; its loop is loop.h, and the holder behind it answers when the input
 * says so. No memory is touched that is not the master's, no descriptor is lost,
 * what reaches the holder is in range, and once all clients are dead nothing of
 * them is left.
 */
#include <dirent.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "roles/master/fuzz/loop.h"
#include "roles/master/fuzz/own_shm.h"
#include "shared/fuzz/torn.h"

/* The client acts before each of the master's reads of its slot, too. */
static ssize_t torn_pread(int fd, void *to, size_t len, off_t at)
{
	fuzz_torn();
	return pread(fd, to, len, at);
}
/* Closing an inotify descriptor waits for all processors: 100 ms that no input is to cost. */
static int no_watch(int fd, const char *name, uint32_t mask)
{
	return fd >= 0 ? 1 : -1;
}
#define pread                torn_pread
#define inotify_init1(flags) eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
#define inotify_add_watch    no_watch
#include "roles/master/clients.c" // NOLINT: the unit under test
#undef pread
#undef inotify_init1
#undef inotify_add_watch

/* Who holds a slot is the input's. */
static int model_fcntl(int fd, int cmd, ...);
#define fcntl model_fcntl
#include "roles/master/clients_attach.c" // NOLINT: the unit under test
#undef fcntl

#include "roles/master/mem_priv.h"

#define SLOTS    4u /* that clients use */
#define VM       5u
#define VM_BYTES (3ull << 30)
#define OPS_MAX  300u
#define BOOT     0x1000u
#define TOKENS   64u
#define PINS     64u
#define THINGS   22u /* descriptors that a client can name */
#define WRITES   8u

static struct wvm_clients *all;
static struct wvm_memory *memory;
static struct fuzz_in *input;

static struct bed {
	int things[THINGS];
	uint8_t *channel[SLOTS];
	struct wvm_spsc_tx to_master[SLOTS];
	int ring; /* the clients' descriptor of the ring file */
	pid_t owner[SLOTS];
	bool may_take;       /* ptrace permits it */
	unsigned torn, wait; /* writes between reads that are left, accesses until the next */
	uint64_t serial;
	struct {
		uint64_t token;
		unsigned client;
		bool pin;
		uint64_t first, count;
	} owed[TOKENS];
	unsigned owed_count;
	struct {
		unsigned client;
		uint64_t first, count;
	} pinned[PINS];
	unsigned pinned_count;
	struct {
		uint64_t page;
		unsigned client;
		bool write;
	} fault;       /* the last one */
	uint64_t gone; /* client_gone() calls */
} bed;

/* ---- the holder ---------------------------------------------------------------------------- */

static void check_range(struct wvm_mem *vm, uint64_t first, uint64_t count, unsigned client)
{
	FUZZ_CHECK(client < WVM_CLIENTS_MAX, "client %u", client);
	FUZZ_CHECK(count && first + count > first && first + count <= VM_BYTES / WVM_PAGE_SIZE,
		   "pages %lx, %lx of them", (unsigned long)first, (unsigned long)count);
	FUZZ_CHECK(vm == wvm_memory_vm_at(memory, 0), "VM");
}

static void on_page_fault(void *ctx, unsigned shard, struct wvm_mem *vm, uint64_t page, bool write,
			  unsigned client)
{
	check_range(vm, page, 1, client);
	FUZZ_CHECK(shard == wvm_mem_shard(vm, page), "page %lx at shard %u", (unsigned long)page,
		   shard);
	bed.fault.page = page;
	bed.fault.client = client;
	bed.fault.write = write;
}

static void on_pin(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t first, uint64_t count,
		   uint64_t token)
{
	check_range(vm, first, count, client);
	FUZZ_CHECK(token && bed.owed_count < TOKENS, "a pin");
	bed.owed[bed.owed_count].token = token;
	bed.owed[bed.owed_count].client = client;
	bed.owed[bed.owed_count].pin = true;
	bed.owed[bed.owed_count].first = first;
	bed.owed[bed.owed_count++].count = count;
}

static void on_unpin(void *ctx, unsigned client, struct wvm_mem *vm, uint64_t first, uint64_t count,
		     uint64_t token)
{
	unsigned i = 0;

	check_range(vm, first, count, client);
	while (i < bed.pinned_count &&
	       (bed.pinned[i].client != client || bed.pinned[i].first != first ||
		bed.pinned[i].count != count))
		i++;
	FUZZ_CHECK(i < bed.pinned_count, "client %u unpins what is not pinned", client);
	bed.pinned[i] = bed.pinned[--bed.pinned_count];
	if (!token)
		return;
	FUZZ_CHECK(bed.owed_count < TOKENS, "an unpin");
	bed.owed[bed.owed_count].token = token;
	bed.owed[bed.owed_count].client = client;
	bed.owed[bed.owed_count++].pin = false;
}

static void on_gone(void *ctx, unsigned shard, unsigned client)
{
	FUZZ_CHECK(shard < SHARDS && client < WVM_CLIENTS_MAX, "gone");
	bed.gone++;
}

static int on_where(void *ctx, struct wvm_mem *vm, uint64_t gpa)
{
	check_range(vm, gpa / WVM_PAGE_SIZE, 1, 0);
	return 9;
}

static void on_log(void *ctx, const char *line)
{
	FUZZ_CHECK(*line && !strchr(line, '\n'), "'%s'", line);
}

static const struct wvm_clients_ops ops = {.fault = on_page_fault,
					   .pin = on_pin,
					   .unpin = on_unpin,
					   .client_gone = on_gone,
					   .where = on_where,
					   .log = on_log};

/* The answer to the i-th request that is owed one. A pin that holds is remembered. */
static void answer(unsigned i, int result)
{
	unsigned k = i % (bed.owed_count ? bed.owed_count : 1);

	if (!bed.owed_count)
		return;
	if (bed.owed[k].pin && !result) {
		if (bed.pinned_count == PINS)
			return;
		bed.pinned[bed.pinned_count].client = bed.owed[k].client;
		bed.pinned[bed.pinned_count].first = bed.owed[k].first;
		bed.pinned[bed.pinned_count++].count = bed.owed[k].count;
	}
	wvm_clients_reply(all, 0, bed.owed[k].client, bed.owed[k].token, result);
	bed.owed[k] = bed.owed[--bed.owed_count];
}

static void serve_fault(uint8_t how)
{
	static const uint64_t page[WVM_PAGE_SIZE / 8] = {1, 2, 3};
	struct wvm_mem *vm = wvm_memory_vm_at(memory, 0);
	uint64_t waiters = 1ull << bed.fault.client;

	switch (how % 6) {
	case 0:
	case 1: wvm_mem_install(vm, bed.fault.page, how & 8 ? page : NULL, how & 1, waiters); break;
	case 2: wvm_mem_lift(vm, bed.fault.page, waiters); break;
	case 3: wvm_mem_wake(vm, bed.fault.page, waiters); break;
	case 4: wvm_mem_fail(vm, bed.fault.page, waiters, EIO); break;
	default:
		if (!wvm_mem_protect(vm, bed.fault.page))
			FUZZ_CHECK(!wvm_mem_punch(vm, bed.fault.page), "a page that stays");
		break;
	}
}

/* ---- the clients --------------------------------------------------------------------------- */

static int model_fcntl(int fd, int cmd, ...)
{
	struct flock *lock;
	va_list args;
	int value;

	va_start(args, cmd);
	if (cmd == F_GETLK) {
		unsigned slot;

		lock = va_arg(args, struct flock *);
		slot = (unsigned)((lock->l_start - WVM_RING_HDR_BYTES) / WVM_RING_SLOT_BYTES);
		lock->l_pid = slot < SLOTS ? bed.owner[slot] : 0;
		if (!lock->l_pid)
			lock->l_type = F_UNLCK;
		va_end(args);
		return 0;
	}
	value = va_arg(args, int);
	va_end(args);
	return fcntl(fd, cmd, value);
}

int wvm_pidfd_open(pid_t pid)
{
	return pid > 0 ? eventfd(0, EFD_CLOEXEC) : -ESRCH;
}

int wvm_pidfd_getfd(int pidfd, int fd)
{
	int copy;

	FUZZ_CHECK(fd >= 0, "descriptor %d is asked for", fd);
	if (!bed.may_take)
		return -EPERM;
	copy = (unsigned)fd < THINGS ? fcntl(bed.things[fd], F_DUPFD_CLOEXEC, 0) : -1;
	return copy < 0 ? -EBADF : copy;
}

static int make_uffd(uint64_t features, bool shake_hands)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	FUZZ_CHECK(fd >= 0 && (!shake_hands || !ioctl(fd, UFFDIO_API, &api)), "userfaultfd: %s",
		   strerror(errno));
	return fd;
}

static int make_memfd(size_t bytes, unsigned seals)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	FUZZ_CHECK(fd >= 0 && !ftruncate(fd, (off_t)bytes) && !fcntl(fd, F_ADD_SEALS, seals), "%s",
		   strerror(errno));
	return fd;
}

/* 0 to 3: channels; 4 to 7: eventfds; 8 to 11: userfaultfds; the others are lies. */
static void make_things(void)
{
	int pipes[2];

	for (unsigned i = 0; i < SLOTS; i++) {
		bed.things[i] = make_memfd(WVM_CHANNEL_BYTES, F_SEAL_SHRINK);
		bed.channel[i] = mmap(NULL, WVM_CHANNEL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
				      bed.things[i], 0);
		FUZZ_CHECK(bed.channel[i] != MAP_FAILED, "memory");
		bed.things[4 + i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		bed.things[8 + i] = make_uffd(WVM_UFFD_FEATURES, true);
	}
	bed.things[12] = make_uffd(WVM_UFFD_FEATURES | UFFD_FEATURE_SIGBUS, true);
	bed.things[13] = make_uffd(UFFD_FEATURE_MISSING_SHMEM, true);
	bed.things[14] = make_uffd(0, false);
	FUZZ_CHECK(!pipe2(pipes, O_CLOEXEC), "pipe");
	bed.things[15] = pipes[0];
	bed.things[16] = pipes[1];
	bed.things[17] = make_memfd(WVM_CHANNEL_BYTES, 0);
	bed.things[18] = make_memfd(2 * WVM_CHANNEL_BYTES, F_SEAL_SHRINK);
	bed.things[19] = make_memfd(0, F_SEAL_SHRINK);
	bed.things[20] = open("/dev/zero", O_RDWR | O_CLOEXEC);
	bed.things[21] = make_memfd(WVM_CHANNEL_BYTES, F_SEAL_SHRINK | F_SEAL_WRITE);
}

static void scribble(struct fuzz_in *in)
{
	uint8_t where = fuzz_u8(in);
	uint16_t at = fuzz_u16(in);
	uint64_t value = fuzz_u8(in);

	value = value & 1 ? fuzz_u64(in) : value & 2 ? UINT64_MAX - value : value / 4 * 8;
	if (where < 192) {
		/* Into a channel: of both rings the positions, or the data. */
		static const uint16_t marks[] = {
			0,   64, 128, 0, WVM_CHANNEL_RING_BYTES, WVM_CHANNEL_RING_BYTES + 64,
			136, 152};
		size_t to = where & 4 ? at % (WVM_CHANNEL_BYTES - 7) & ~7u : marks[where >> 3 & 7];

		(memcpy)(bed.channel[where % SLOTS] + to, &value, sizeof(value));
	} else if (pwrite(bed.ring, &value, sizeof(value),
			  wvm_ring_slot_offset(where % SLOTS) +
				  at % (int64_t)sizeof(struct wvm_ring_claim)) < 0) {
		return;
	}
}

static void fuzz_torn(void)
{
	if (!bed.torn || bed.wait-- > 0)
		return;
	bed.torn--;
	bed.wait = fuzz_u8(input) % 8;
	scribble(input);
}

/* A claim that would be taken, but for what the input changes in it. */
static void claim(struct fuzz_in *in)
{
	uint8_t who = fuzz_u8(in), lie = fuzz_u8(in), with = lie ? fuzz_u8(in) : 0;
	unsigned slot = who % SLOTS;
	struct wvm_ring_claim c = {.claim = ++bed.serial,
				   .boot_id = BOOT,
				   .shard_count = SHARDS,
				   .channel_fd = (int)slot,
				   .to_master_fd = 4,
				   .to_client_fd = 5,
				   .uffd_fd = {8, 9}};
	int value = with < 64    ? (int)with
		    : with < 128 ? -(int)with
				 : (int)((uint32_t)with << 24 | with);

	switch (lie % 8) {
	case 1: c.channel_fd = value; break;
	case 2: c.to_master_fd = value; break;
	case 3: c.to_client_fd = value; break;
	case 4: c.uffd_fd[with & 1] = value >> 1; break;
	case 5: c.shard_count = (uint32_t)value; break;
	case 6: c.boot_id += with; break;
	case 7: c.claim = with; break;
	}
	bed.owner[slot] = who & 0x80 ? 0 : (pid_t)(1000 + who);
	bed.may_take = !(who & 0x40);
	if (!(who & 0x20)) {
		(memset)(bed.channel[slot], 0, WVM_CHANNEL_BYTES);
		wvm_spsc_open_tx(&bed.to_master[slot], bed.channel[slot], WVM_CHANNEL_CAPACITY);
	}
	if (pwrite(bed.ring, &c, sizeof(c), wvm_ring_slot_offset(slot)) != (ssize_t)sizeof(c))
		abort();
}

/* A request as clients send them, its fields near what is right. */
static void request(struct fuzz_in *in)
{
	static const uint8_t kinds[] = {WVM_RING_MAP,   WVM_RING_UNMAP, WVM_RING_PIN,
					WVM_RING_UNPIN, WVM_RING_STATS, WVM_RING_WHERE,
					WVM_RING_MAP,   WVM_RING_PIN};
	uint8_t who = fuzz_u8(in), what = fuzz_u8(in), odd = fuzz_u8(in);
	struct wvm_ring_req r = {.token = ++bed.serial,
				 .vm_id = VM,
				 .gpa = (uint64_t)(what >> 3 & 3) << 29,
				 .len = (1ull << (what >> 5)) * WVM_PAGE_SIZE,
				 .addr = 0x100000000ull + ((uint64_t)(what >> 3 & 3) << 29)};
	struct wvm_spsc_tx *tx = &bed.to_master[who % SLOTS];
	uint32_t type = kinds[what % 8], len = sizeof(r);

	if (odd & 0x80)
		r.len <<= 18;
	switch (odd % 16) {
	case 1: r.vm_id = fuzz_u8(in); break;
	case 2: r.gpa = fuzz_u64(in); break;
	case 3: r.len = fuzz_u64(in); break;
	case 4: r.addr = fuzz_u64(in); break;
	case 5: r.mode = fuzz_u32(in); break;
	case 6: type = fuzz_u8(in); break;
	case 7: len = fuzz_u8(in) % sizeof(r); break;
	case 8: type = WVM_RING_DETACH; break;
	}
	if (!tx->mem)
		return;
	wvm_spsc_push(tx, type, &r, len);
}

/* The client reads its answers: the master's ring to it has room again. */
static void take_answers(unsigned slot)
{
	uint8_t body[WVM_CHANNEL_CAPACITY / 2];
	struct wvm_spsc_rx rx;
	uint32_t type;
	int len;

	if (wvm_spsc_open_rx(&rx, bed.channel[slot] + WVM_CHANNEL_RING_BYTES, WVM_CHANNEL_CAPACITY))
		return;
	do {
		len = wvm_spsc_pop(&rx, &type, body, sizeof(body));
	} while (len >= 0);
}

static void event(struct fuzz_in *in)
{
	struct bell *b = live_bell(fuzz_u8(in));
	uint8_t how = fuzz_u8(in);
	struct uffd_msg m = {.event = how & 1 ? UFFD_EVENT_PAGEFAULT : fuzz_u8(in)};

	if (!b)
		return;
	if (b->d) {
		b->d->ring(b->d);
	} else if (b->w) {
		b->listen = false;
		b->w->died(b->w);
	} else if (how & 2) {
		b->listen = false;
		b->u->ops->failed(b->u, -EIO);
	} else {
		m.arg.pagefault.flags = how >> 2;
		m.arg.pagefault.address = how & 0x80 ? fuzz_u64(in) : 0x100000000ull + fuzz_u32(in);
		b->u->ops->events(b->u, &m, 1);
	}
}

/* ---- one input ----------------------------------------------------------------------------- */

static bool turn(void)
{
	bool any = run_tasks();

	for (unsigned k = 0; k < SHARDS; k++)
		while (run_letter(k))
			any = true;
	for (unsigned i = 0; i < loop.bell_count; i++)
		any |= run_closed(&loop.bells[i]);
	sweep_bells();
	return any;
}

static void step(struct fuzz_in *in)
{
	uint8_t op = fuzz_u8(in), arg;

	switch (op % 16) {
	case 0: claim(in); return;
	case 1:
	case 2:
	case 3: request(in); return;
	case 4:
	case 5: event(in); return;
	case 6: scribble(in); return;
	default: break;
	}
	arg = fuzz_u8(in);
	switch (op % 16) {
	case 7:
		bed.torn = arg % WRITES;
		bed.wait = arg / WRITES % 8;
		break;
	case 8: answer(arg & 7, arg & 8 ? -EIO : 0); break;
	case 9: serve_fault(arg); break;
	case 10: take_answers(arg % SLOTS); break;
	case 11: run_letter(arg % SHARDS); break;
	case 12: on_knock(&all->knock); break;
	case 13:
		if (arg & 8)
			loop.refuse_posts = arg & 3;
		else
			loop.refuse_files = arg & 3;
		break;
	default:
		for (unsigned i = 0; i < 3; i++)
			turn();
		break;
	}
}

static void check_clients(void)
{
	unsigned live = 0;

	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++) {
		const struct client *cl = &all->client[i];

		live += cl->state == CLIENT_LIVE;
		FUZZ_CHECK(cl->owed_count <= WVM_RING_CALLS_MAX, "owed %u", cl->owed_count);
		FUZZ_CHECK(cl->state != CLIENT_LIVE || (cl->channel && cl->in_open && cl->out_open),
			   "client %u is live", i);
		FUZZ_CHECK(i < SLOTS || cl->state == CLIENT_FREE, "client %u", i);
	}
	FUZZ_CHECK(live == wvm_clients_count(all), "%u clients", live);
}

/* All clients die, the holder answers what it owes: nothing is left. */
static void settle(void)
{
	unsigned rounds = 0;

	bed.torn = loop.refuse_posts = loop.refuse_files = 0;
	for (unsigned i = 0; i < SLOTS; i++)
		bed.owner[i] = 0;
	do {
		FUZZ_CHECK(rounds++ < 200, "the master's work has no end");
		for (unsigned i = 0; i < loop.bell_count; i++) {
			struct bell *b = &loop.bells[i];

			if (!b->w || !b->listen || b->closing)
				continue;
			b->listen = false;
			b->w->died(b->w);
		}
		while (bed.owed_count)
			answer(0, -EIO);
	} while (turn() || bed.owed_count);
	check_clients();
	for (unsigned i = 0; i < WVM_CLIENTS_MAX; i++)
		FUZZ_CHECK(all->client[i].state == CLIENT_FREE, "client %u is in state %d", i,
			   all->client[i].state);
	FUZZ_CHECK(!bed.pinned_count, "%u ranges stay pinned", bed.pinned_count);
	for (unsigned k = 0; k < SHARDS; k++)
		FUZZ_CHECK(!memory->shard[k].known && !all->side[k]->joined &&
				   !all->side[k]->reading,
			   "shard %u", k);
}

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* A name that is gone as soon as the file is open. */
static void file_name(char name[64], const char *what)
{
	snprintf(name, 64, "/dev/shm/wvm-fuzz-%s.%d", what, (int)getpid());
}

static void open_memory(void)
{
	struct wvm_mem *vm;
	char name[64], err[256];
	int rc;

	fuzz_own_shm();
	make_things();
	file_name(name, "ram");
	FUZZ_CHECK(!wvm_memory_new(&memory, SHARDS, &wvm_clients_mem_ops, &all), "memory");
	rc = wvm_mem_open(memory, &vm, VM, name, VM_BYTES, WVM_MEM_EMPTY, err, sizeof(err));
	FUZZ_CHECK(!rc, "%s", err);
	wvm_mem_unlink(vm);
}

/* What the input before left. */
static void reset(void)
{
	struct wvm_mem *vm = wvm_memory_vm_at(memory, 0);

	loop = (struct loop){.task_count = 0};
	for (unsigned k = 0; k < SHARDS; k++) {
		loop.shard[k].index = k;
		memset(&memory->shard[k], 0, sizeof(memory->shard[k]));
		memory->shard[k].index = k;
	}
	if (lseek(vm->fd, 0, SEEK_DATA) >= 0 &&
	    fallocate(vm->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)VM_BYTES))
		abort();
	for (unsigned i = 0; i < SLOTS; i++) {
		memset(bed.channel[i], 0, WVM_CHANNEL_BYTES);
		bed.to_master[i].mem = NULL;
		bed.owner[i] = 0;
	}
	bed.may_take = true;
	bed.torn = bed.wait = bed.owed_count = bed.pinned_count = 0;
	bed.serial = 0;
}

/* A ring file of any content is there already. */
static void old_file(struct fuzz_in *in, const char *name)
{
	uint8_t bytes[WVM_RING_FILE_BYTES];
	size_t len = fuzz_u16(in) % sizeof(bytes);
	const uint64_t magic = WVM_RING_MAGIC;
	uint8_t how = fuzz_u8(in);
	int fd = open(name, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	(memset)(bytes, how, sizeof(bytes));
	fuzz_bytes(in, bytes, len < in->left ? len : in->left);
	if (how & 1)
		(memcpy)(bytes, &magic, sizeof(magic));
	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
		abort();
	close(fd);
}

static bool open_clients(struct fuzz_in *in, uint8_t how)
{
	struct wvm_shard *shards[SHARDS] = {&loop.shard[0], &loop.shard[1]};
	struct wvm_clients_conf conf = {
		.boot_id = BOOT, .memory = memory, .shards = shards, .ops = &ops};
	char name[64], err[256] = "";
	int rc;

	file_name(name, "ring");
	conf.path = name;
	if (how & 1)
		old_file(in, name);
	rc = wvm_clients_open(&all, &conf, err, sizeof(err));
	FUZZ_CHECK(!rc || rc == -EPROTO, "%s", err);
	if (!rc)
		bed.ring = open(name, O_RDWR | O_CLOEXEC);
	unlink(name);
	if (rc)
		return false;
	FUZZ_CHECK(bed.ring >= 0 && !wvm_clients_start(all), "the ring file");
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_in in = {data, len};
	uint8_t how = fuzz_u8(&in);
	unsigned before;

	if (!memory)
		open_memory();
	input = &in;
	reset();
	before = count_fds();
	if (!open_clients(&in, how))
		goto out;
	for (unsigned i = 0; i < OPS_MAX && in.left; i++) {
		step(&in);
		check_clients();
	}
	settle();
	close(bed.ring);
	wvm_clients_close(all, false);
out:
	FUZZ_CHECK(count_fds() == before, "%u descriptors, not %u", count_fds(), before);
	return 0;
}

/* ---- seeds --------------------------------------------------------------------------------- */

/* Every descriptor in each place, those that are taken last: claim, knock, turns. */
static void put_liars(wvm_fuzz_put *put)
{
	for (uint8_t lie = 1; lie <= 4; lie++) {
		uint8_t seed[1 + THINGS * 8] = {0};
		size_t len = 1;
		char name[16];

		for (uint8_t thing = THINGS; thing-- > 0;) {
			const uint8_t with = lie == 4 ? (uint8_t)(thing << 1) : thing;
			const uint8_t steps[] = {0, thing % SLOTS, lie, with, 12, 0, 15, 0};

			(memcpy)(seed + len, steps, sizeof(steps));
			len += sizeof(steps);
		}
		snprintf(name, sizeof(name), "liars-%u", lie);
		put(name, seed, len);
	}
}

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	/* how; then claim, knock, three turns, and requests with their bell and turns */
	static const uint8_t honest[] = {0,  0,  0, 0,  12, 0,  15, 0, 1, 0,  0, 0, 15, 0,  5, 1, 0,
					 15, 0,  1, 0,  2,  0,  5,  1, 0, 15, 0, 8, 0,  15, 0, 1, 0,
					 3,  0,  5, 1,  0,  15, 0,  8, 0, 15, 0, 1, 0,  4,  0, 1, 0,
					 5,  0,  5, 2,  0,  15, 0,  5, 3, 1,  0, 0, 0,  0,  9, 0, 9,
					 4,  15, 0, 10, 0,  1,  0,  0, 8, 5,  2, 0, 15, 0};
	static const uint8_t torn[] = {0,  0, 0,   0, 12, 0,  15, 0, 1,  0, 0, 0, 7, 3, 5, 2,  0, 0,
				       16, 0, 255, 1, 0,  16, 0,  0, 15, 0, 7, 9, 5, 2, 0, 15, 0};
	static const uint8_t old[] = {1, 0, 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0};

	put("honest", honest, sizeof(honest));
	put_liars(put);
	put("torn", torn, sizeof(torn));
	put("old-file", old, sizeof(old));
}
