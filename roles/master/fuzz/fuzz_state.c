/*
 * A boot file of any content: it is refused with one line and stays as it is,
 * or the next boot number is one more, and the file holds exactly that.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "roles/master/fuzz/own_shm.h"
#include "roles/master/state.h"
#include "shared/fuzz/fuzz.h"

#define NODE 3u

static char dir[64], path[96];

static void put_file(const uint8_t *data, size_t len)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	FUZZ_CHECK(fd >= 0 && write(fd, data, len) == (ssize_t)len && !close(fd), "%s: %s", path,
		   strerror(errno));
}

static size_t get_file(uint8_t *out, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, room);

	FUZZ_CHECK(n >= 0, "%s: %s", path, strerror(errno));
	close(fd);
	return (size_t)n;
}

static void remove_files(void)
{
	unlink(path);
	rmdir(dir);
}

static void check_next(uint16_t boot)
{
	char want[16];
	uint8_t have[32];
	int n = snprintf(want, sizeof(want), "%u\n", boot);
	size_t len = get_file(have, sizeof(have));

	FUZZ_CHECK(boot, "boot 0");
	FUZZ_CHECK(len == (size_t)n && !memcmp(have, want, len), "boot %u: %.*s", boot, (int)len,
		   (const char *)have);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t after[4096];
	uint16_t boot = 0, next = 0;
	char err[256] = "";
	int rc;

	if (len > sizeof(after) - 1)
		return 0;
	fuzz_own_shm();
	snprintf(dir, sizeof(dir), "/dev/shm/wvm-fuzz-state.%d", (int)getpid());
	snprintf(path, sizeof(path), "%s/boot.%u", dir, NODE);
	FUZZ_CHECK(!mkdir(dir, 0700) || errno == EEXIST, "%s: %s", dir, strerror(errno));
	put_file(data, len);
	rc = wvm_state_boot(dir, NODE, &boot, err, sizeof(err));
	if (rc) {
		FUZZ_CHECK(rc == -EINVAL && strstr(err, path) && !strchr(err, '\n'), "%d, '%s'", rc,
			   err);
		FUZZ_CHECK(get_file(after, sizeof(after)) == len && !memcmp(after, data, len),
			   "a refused file was changed");
	} else {
		unsigned long last = 0;
		size_t digits = 0;

		/* What was taken is a number, a line's end, and nothing else. */
		while (digits < len && data[digits] >= '0' && data[digits] <= '9')
			last = last * 10 + (unsigned long)(data[digits++] - '0');
		FUZZ_CHECK(digits && digits + 1 == len && data[digits] == '\n' &&
				   last <= UINT16_MAX,
			   "taken, but not a boot number");
		FUZZ_CHECK(boot == (last == UINT16_MAX ? 1 : last + 1), "boot %u after %lu", boot,
			   last);
		check_next(boot);
		FUZZ_CHECK(!wvm_state_boot(dir, NODE, &next, err, sizeof(err)), "%s", err);
		FUZZ_CHECK(next == (boot == UINT16_MAX ? 1 : boot + 1), "boot %u after %u", next,
			   boot);
	}
	remove_files();
	return 0;
}

void wvm_fuzz_seeds(wvm_fuzz_put *put)
{
	put("first", "0\n", 2);
	put("some", "12345\n", 6);
	put("last", "65535\n", 6);
	put("above", "65536\n", 6);
	put("torn", "123", 3);
	put("signed", "-1\n", 3);
	put("none", "", 0);
}
