/*
 * The first process of the demo's guest. Parameters on the kernel's command line:
 *   wvm.mode=test|boot|bench|compute|shell  test the machine and power off; power off at once;
 * measure memory (bench.c) and power off; a shell wvm.mib=N      MiB of memory to test (default:
 * 7/8 of what is free) wvm.seconds=N  how long the stress test runs (default: 3; 0: not at all)
 *   wvm.seed=N     seed of all patterns (default: 1)
 *   wvm.disk=1     test the disk (/dev/vda or /dev/sda), made by init --make-disk
 *   wvm.swap=1     swap to the disk (/dev/vda)
 *   wvm.node=N     take the memory to test from NUMA node N
 *   wvm.cpus=work  count what each processor gets done while all of them work (cpus.c)
 *   wvm.cpus=1     so, and test what processors on different hosts could get wrong
 *   wvm.litmus=1   the memory model, by the litmus tests, a thread on each processor (litmus.c)
 *   wvm.litmus=disordered  the same by threads that keep no order, which has to be noticed
 *   wvm.net=1      test two joined network interfaces (eth0, eth1)
 * The last line before power-off is "verified N MiB, E errors".
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPORTS_MAX 20

struct guest guest = {.seed = 1, .seconds = 3, .cpus = 1, .mode = "test"};
atomic_ullong errors;

void report(const char *format, ...)
{
	const unsigned long long number = atomic_fetch_add(&errors, 1) + 1;
	char line[256];
	va_list args;

	if (number > REPORTS_MAX)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	printf("error %llu: %s\n", number, line);
	if (number == REPORTS_MAX)
		printf("further errors are only counted\n");
}

static void parse_parameter(const char *word)
{
	char value[32];

	if (sscanf(word, "wvm.mode=%15s", guest.mode) == 1)
		return;
	if (sscanf(word, "wvm.mib=%31s", value) == 1)
		guest.mib = strtoull(value, NULL, 0);
	else if (sscanf(word, "wvm.seconds=%31s", value) == 1)
		guest.seconds = (unsigned)strtoul(value, NULL, 0);
	else if (sscanf(word, "wvm.seed=%31s", value) == 1)
		guest.seed = strtoull(value, NULL, 0);
	else if (sscanf(word, "wvm.disk=%31s", value) == 1)
		guest.disk = value[0] == '1';
	else if (sscanf(word, "wvm.net=%31s", value) == 1)
		guest.net = value[0] == '1';
	else if (sscanf(word, "wvm.cpus=%31s", value) == 1) {
		guest.test_cpus = value[0] == '1';
		guest.count_work = guest.test_cpus || !strcmp(value, "work");
	} else if (sscanf(word, "wvm.litmus=%31s", value) == 1) {
		guest.litmus_disordered = !strcmp(value, "disordered");
		guest.test_litmus = value[0] == '1' || guest.litmus_disordered;
	} else if (sscanf(word, "wvm.swap=%31s", value) == 1)
		guest.swap = value[0] == '1';
	else if (sscanf(word, "wvm.node=%31s", value) == 1) {
		guest.bound = true;
		guest.node = (unsigned)strtoul(value, NULL, 0);
	} else if (!strncmp(word, "wvm.", 4))
		report("parameter %s is unknown", word);
}

static void parse_command_line(void)
{
	char line[4096], *word, *rest = line;
	const int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	const ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);

	if (n < 0) {
		report("/proc/cmdline: %s", strerror(errno));
		return;
	}
	close(fd);
	line[n] = '\0';
	while ((word = strsep(&rest, " \n")))
		parse_parameter(word);
}

static void mount_all(void)
{
	static const char *const mounts[][2] = {
		{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i][0], 0755);
		if (mount(mounts[i][1], mounts[i][0], mounts[i][1], 0, NULL))
			report("mount %s: %s", mounts[i][0], strerror(errno));
	}
}

static void use_console(void)
{
	const int fd = open("/dev/console", O_RDWR);

	if (fd < 0)
		return;
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/* /modules/order names them so that each follows what it needs. */
static void load_modules(void)
{
	FILE *order = fopen("/modules/order", "re");
	char name[64], path[96];

	while (order && fscanf(order, "%63s", name) == 1) {
		int fd;

		snprintf(path, sizeof(path), "/modules/%s", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if ((fd < 0 || syscall(SYS_finit_module, fd, "", 0)) && errno != EEXIST)
			report("module %s: %s", name, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	if (order)
		fclose(order);
}

static void run_shell(void)
{
	const pid_t child = fork();

	if (child == 0) {
		setsid();
		execl("/bin/busybox", "sh", "-i", (char *)NULL);
		_exit(127);
	}
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		continue;
}

static void run_tests(void)
{
	uint64_t mib;

	if (guest.disk || guest.net || guest.swap)
		load_modules();
	if (guest.swap)
		use_swap();
	if (guest.disk)
		test_disk();
	if (guest.net)
		test_net();
	if (guest.bound)
		bind_memory(guest.node);
	if (guest.count_work)
		test_together();
	if (guest.test_cpus)
		test_cpus();
	if (guest.test_litmus)
		test_litmus();
	mib = test_memory();
	printf("verified %llu MiB, %llu errors\n", (unsigned long long)mib, errors);
}

static void run_guest(void)
{
	mount_all();
	use_console();
	parse_command_line();
	guest.cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	printf("guest      %u processors, %ld MiB of memory, mode %s, seed %llu\n", guest.cpus,
	       sysconf(_SC_PHYS_PAGES) / (long)(MIB / PAGE_SIZE), guest.mode,
	       (unsigned long long)guest.seed);
	show_nodes();
	if (!strcmp(guest.mode, "test"))
		run_tests();
	else if (!strcmp(guest.mode, "shell"))
		run_shell();
	else if (!strcmp(guest.mode, "bench"))
		run_bench();
	else if (!strcmp(guest.mode, "compute"))
		run_compute();
	else if (strcmp(guest.mode, "boot"))
		report("mode %s is unknown", guest.mode);
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
}

int main(int argc, char **argv)
{
	if (getpid() == 1) {
		run_guest();
		return 1;
	}
	if (argc == 2 && !strcmp(argv[1], "--status"))
		return exec_status();
	if (argc < 4 || argc > 5 || strcmp(argv[1], "--make-disk")) {
		fprintf(stderr, "usage: %s --make-disk FILE MIB [SEED]\n", argv[0]);
		return 2;
	}
	if (argc == 5)
		guest.seed = strtoull(argv[4], NULL, 0);
	return make_disk(argv[2], strtoull(argv[3], NULL, 0));
}
