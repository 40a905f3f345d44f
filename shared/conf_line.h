/*
 * What the configuration files have in common: lines of words with `#`
 * comments, strict numbers, and errors that name file, line and field. Used by
 * shared/conf*.c alone. Not thread-safe per parse; no state is shared.
 */
#ifndef WVM_CONF_LINE_H
#define WVM_CONF_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONF_LINE_MAX  255 /* characters, comment included */
#define CONF_WORDS_MAX 16

/* One pass over one text. Only conf_next() moves on; words stay valid until then. */
struct conf {
	const char *name; /* of the file, for errors */
	const char *at, *end;
	char *err; /* the error text, errlen bytes */
	size_t errlen;
	unsigned line; /* of the words, from 1 */
	unsigned count;
	char *words[CONF_WORDS_MAX];
	char text[CONF_LINE_MAX + 1];
};

/* Starts over the len bytes at text, which stay unchanged while they are parsed. */
void conf_start(struct conf *c, const char *name, const char *text, size_t len, char *err,
		size_t errlen);

/* Splits the next line that has words. 1, 0 at the end, or -EINVAL with the error text. */
int conf_next(struct conf *c);

/* Writes "NAME:LINE: …" as the error text; always returns -EINVAL. */
int conf_fail(struct conf *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same without a line, for what concerns the whole file. */
int conf_fail_file(struct conf *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Checks that the words after the keyword are those named by fields (ended by
 * NULL), no fewer and no more. 0 or -EINVAL with the error text.
 */
int conf_fields(struct conf *c, const char *const *fields);

/*
 * Word i as a number from low to high: decimal digits or, if hex, also 0x and
 * hexadecimal ones; no sign, no space, nothing behind. 0 or -EINVAL with the error text.
 */
int conf_number(struct conf *c, unsigned i, const char *field, uint64_t low, uint64_t high,
		uint64_t *out);
int conf_number_hex(struct conf *c, unsigned i, const char *field, uint64_t low, uint64_t high,
		    uint64_t *out);

/* Word i as a dotted IPv4 address that one host can have, in host order. */
int conf_ipv4(struct conf *c, unsigned i, uint32_t *out);

/* Makes room for one more of size bytes in an array that doubles. NULL when out of memory. */
void *conf_grow(void *array, uint32_t count, size_t size);

/*
 * Reads a whole regular file. 0 with *text (malloc'ed, the caller frees it)
 * and *len, or -errno with the error text: -EFBIG for more than 128 MiB,
 * -EINVAL if it is not a regular file.
 */
int conf_read(const char *path, char **text, size_t *len, char *err, size_t errlen);

#endif
