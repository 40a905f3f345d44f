/* Lines, words, numbers and addresses of the configuration files. */
#include "shared/conf_line.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (128 << 20) /* a million NODE lines at their longest */

void conf_start(struct conf *c, const char *name, const char *text, size_t len, char *err,
		size_t errlen)
{
	*c = (struct conf){
		.name = name,
		.at = text,
		.end = text + len,
		.err = err,
		.errlen = errlen,
	};
	if (errlen)
		err[0] = '\0';
}

static void put_error(struct conf *c, const char *where, const char *format, va_list args)
{
	int used = snprintf(c->err, c->errlen, "%s: ", where);

	if (used >= 0 && (size_t)used < c->errlen)
		vsnprintf(c->err + used, c->errlen - (size_t)used, format, args);
}

int conf_fail(struct conf *c, const char *format, ...)
{
	char where[4096];
	va_list args;

	snprintf(where, sizeof(where), "%s:%u", c->name, c->line);
	va_start(args, format);
	put_error(c, where, format, args);
	va_end(args);
	return -EINVAL;
}

int conf_fail_file(struct conf *c, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	put_error(c, c->name, format, args);
	va_end(args);
	return -EINVAL;
}

/* Copies the line [at, end) without its comment to c->text. */
static int take_line(struct conf *c, const char *end)
{
	size_t len = (size_t)(end - c->at);

	if (len && c->at[len - 1] == '\r')
		len--;
	if (len > CONF_LINE_MAX)
		return conf_fail(c, "line is longer than %d characters", CONF_LINE_MAX);
	for (size_t i = 0; i < len; i++) {
		unsigned char byte = (unsigned char)c->at[i];

		if ((byte < ' ' && byte != '\t') || byte == 0x7f)
			return conf_fail(c, "character %zu (0x%02x) is not text", i + 1, byte);
		c->text[i] = c->at[i];
	}
	c->text[len] = '\0';
	c->text[strcspn(c->text, "#")] = '\0';
	return 0;
}

static int split(struct conf *c)
{
	char *rest = c->text, *word;

	c->count = 0;
	while ((word = strtok_r(NULL, " \t", &rest))) {
		if (c->count == CONF_WORDS_MAX)
			return conf_fail(c, "too many fields, beginning with '%s'", word);
		c->words[c->count++] = word;
	}
	return 0;
}

int conf_next(struct conf *c)
{
	while (c->at < c->end) {
		const char *end = memchr(c->at, '\n', (size_t)(c->end - c->at));
		int rc;

		if (!end)
			end = c->end;
		c->line++;
		rc = take_line(c, end);
		if (!rc)
			rc = split(c);
		if (rc)
			return rc;
		c->at = end < c->end ? end + 1 : end;
		if (c->count)
			return 1;
	}
	return 0;
}

int conf_fields(struct conf *c, const char *const *fields)
{
	unsigned i;

	for (i = 1; fields[i - 1]; i++) {
		if (i >= c->count)
			return conf_fail(c, "field %s is missing after '%s'", fields[i - 1],
					 c->words[c->count - 1]);
	}
	if (c->count > i)
		return conf_fail(c, "unexpected field '%s' after %s", c->words[i],
				 i > 1 ? fields[i - 2] : c->words[0]);
	return 0;
}

/* The digits of a whole word; false if it is not a number. Saturates. */
static bool to_number(const char *word, unsigned base, uint64_t *out)
{
	uint64_t value = 0;

	if (!*word)
		return false;
	for (; *word; word++) {
		unsigned digit;

		if (*word >= '0' && *word <= '9')
			digit = (unsigned)(*word - '0');
		else if (*word >= 'a' && *word <= 'f')
			digit = (unsigned)(*word - 'a') + 10;
		else if (*word >= 'A' && *word <= 'F')
			digit = (unsigned)(*word - 'A') + 10;
		else
			return false;
		if (digit >= base)
			return false;
		if (value > (UINT64_MAX - digit) / base)
			value = UINT64_MAX;
		else
			value = value * base + digit;
	}
	*out = value;
	return true;
}

static int in_range(struct conf *c, unsigned i, const char *field, uint64_t value, uint64_t low,
		    uint64_t high)
{
	if (value >= low && value <= high)
		return 0;
	return conf_fail(c, "%s '%s' is not in the range %" PRIu64 " to %" PRIu64, field,
			 c->words[i], low, high);
}

int conf_number(struct conf *c, unsigned i, const char *field, uint64_t low, uint64_t high,
		uint64_t *out)
{
	if (!to_number(c->words[i], 10, out))
		return conf_fail(c, "%s '%s' is not a decimal number", field, c->words[i]);
	return in_range(c, i, field, *out, low, high);
}

int conf_number_hex(struct conf *c, unsigned i, const char *field, uint64_t low, uint64_t high,
		    uint64_t *out)
{
	const char *word = c->words[i];
	bool hex = word[0] == '0' && (word[1] == 'x' || word[1] == 'X');

	if (!to_number(hex ? word + 2 : word, hex ? 16 : 10, out))
		return conf_fail(c, "%s '%s' is neither a decimal nor a 0x… number", field, word);
	return in_range(c, i, field, *out, low, high);
}

int conf_ipv4(struct conf *c, unsigned i, uint32_t *out)
{
	struct in_addr addr;

	if (strchr(c->words[i], ':'))
		return conf_fail(c, "ip '%s' is not an IPv4 address (IPv6 is not supported)",
				 c->words[i]);
	if (inet_pton(AF_INET, c->words[i], &addr) != 1)
		return conf_fail(c, "ip '%s' is not an IPv4 address", c->words[i]);
	*out = ntohl(addr.s_addr);
	/* 0.0.0.0/8 is no destination, 224 and up are groups and broadcast (RFC 6890) */
	if (*out >> 24 == 0 || *out >> 24 >= 224)
		return conf_fail(c, "ip '%s' is not the address of a host", c->words[i]);
	return 0;
}

void *conf_grow(void *array, uint32_t count, size_t size)
{
	if (count & (count - 1))
		return array;
	return reallocarray(array, count ? 2 * (size_t)count : 1, size);
}

static int read_all(int fd, char *text, size_t size, size_t *len)
{
	for (*len = 0; *len < size;) {
		ssize_t got = read(fd, text + *len, size - *len);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			break;
		*len += (size_t)got;
	}
	return 0;
}

int conf_read(const char *path, char **text, size_t *len, char *err, size_t errlen)
{
	struct stat st;
	int rc, fd;

	*text = NULL;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st)) {
		rc = -errno;
		snprintf(err, errlen, "%s: %s", path, strerror(errno));
		goto out;
	}
	rc = -EINVAL;
	if (!S_ISREG(st.st_mode)) {
		snprintf(err, errlen, "%s: not a regular file", path);
		goto out;
	}
	rc = -EFBIG;
	if (st.st_size > FILE_BYTES_MAX) {
		snprintf(err, errlen, "%s: larger than %d MiB", path, FILE_BYTES_MAX >> 20);
		goto out;
	}
	rc = -ENOMEM;
	*text = malloc((size_t)st.st_size + 1);
	if (*text)
		rc = read_all(fd, *text, (size_t)st.st_size, len);
	if (rc)
		snprintf(err, errlen, "%s: %s", path, strerror(-rc));
out:
	if (rc) {
		free(*text);
		*text = NULL;
	}
	if (fd >= 0)
		close(fd);
	return rc;
}
