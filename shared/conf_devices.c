/* devices.txt: the PCI devices that a slave passes through. */
#include "shared/conf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/conf_line.h"

#define BAR_BYTES_MIN 16u                 /* PCI: the smallest memory BAR */
#define BAR_BYTES_MAX (UINT64_C(1) << 40) /* larger than any device has */

static bool hex_digits(const char *word, const char *pattern)
{
	static const char digits[] = "0123456789abcdefABCDEF";

	for (; *pattern; pattern++, word++) {
		if (!*word || (*pattern == 'x' ? !strchr(digits, *word) : *pattern != *word))
			return false;
	}
	return !*word;
}

/* "0000:01:00.0", or without the domain. */
static int parse_pci(struct conf *c, unsigned i, char pci[16])
{
	const char *word = c->words[i];
	char full[16];
	unsigned slot, function;

	if (hex_digits(word, "xx:xx.x"))
		snprintf(full, sizeof(full), "0000:%.7s", word);
	else if (hex_digits(word, "xxxx:xx:xx.x"))
		snprintf(full, sizeof(full), "%.12s", word);
	else
		return conf_fail(c, "pci '%s' is not of the form 0000:01:00.0", word);
	slot = (unsigned)strtoul(full + 8, NULL, 16);
	function = (unsigned)strtoul(full + 11, NULL, 16);
	if (slot > 0x1f || function > 7)
		return conf_fail(c, "pci '%s' has a slot above 1f or a function above 7", word);
	for (char *p = full; *p; p++)
		*p = *p >= 'A' && *p <= 'F' ? (char)(*p + 'a' - 'A') : *p;
	memcpy(pci, full, sizeof(full));
	return 0;
}

/* A number, or the group's file as /dev/vfio/<number>. */
static int parse_group(struct conf *c, unsigned i, uint32_t *group)
{
	static const char prefix[] = "/dev/vfio/";
	uint64_t number;
	int rc;

	if (!strncmp(c->words[i], prefix, sizeof(prefix) - 1))
		c->words[i] += sizeof(prefix) - 1;
	rc = conf_number(c, i, "vfio group", 0, INT32_MAX, &number);
	if (!rc)
		*group = (uint32_t)number;
	return rc;
}

static int parse_device(struct conf *c, const struct wvm_devices *d, struct wvm_device *device)
{
	static const char *const fields[] = {"pci", "vfio group", NULL};
	int rc;

	if (d->count == WVM_DEVICES_MAX)
		return conf_fail(c, "'DEVICE' is one more than the %u that are possible",
				 WVM_DEVICES_MAX);
	*device = (struct wvm_device){.line = c->line};
	rc = conf_fields(c, fields);
	rc = rc ? rc : parse_pci(c, 1, device->pci);
	rc = rc ? rc : parse_group(c, 2, &device->group);
	for (uint32_t i = 0; i < d->count && !rc; i++) {
		if (!strcmp(d->devices[i].pci, device->pci))
			rc = conf_fail(c, "pci '%s' is that of line %u already", c->words[1],
				       d->devices[i].line);
	}
	return rc;
}

/* Both are aligned to powers of two: they overlap or lie apart. */
static bool overlap(const struct wvm_conf_bar *a, const struct wvm_conf_bar *b)
{
	return a->gpa < b->gpa + b->size && b->gpa < a->gpa + a->size;
}

/* Against every BAR so far, those of the open device included. */
static int check_bar(struct conf *c, const struct wvm_devices *d, const struct wvm_device *open,
		     const struct wvm_conf_bar *bar)
{
	for (uint32_t i = 0; i < open->bar_count; i++) {
		if (open->bars[i].index == bar->index)
			return conf_fail(c, "'%s' is in line %u already", c->words[0],
					 open->bars[i].line);
	}
	for (uint32_t i = 0; i <= d->count; i++) {
		const struct wvm_device *device = i < d->count ? &d->devices[i] : open;

		for (uint32_t k = 0; k < device->bar_count; k++) {
			if (overlap(&device->bars[k], bar))
				return conf_fail(c, "gpa '%s' overlaps the BAR of line %u",
						 c->words[1], device->bars[k].line);
		}
	}
	return 0;
}

static int parse_bar(struct conf *c, const struct wvm_devices *d, struct wvm_device *open)
{
	static const char *const fields[] = {"gpa", "size", NULL};
	const char *index = c->words[0] + 3;
	struct wvm_conf_bar bar = {.line = c->line};
	int rc;

	if (!index[0] || index[1] || index[0] < '0' || index[0] >= '0' + (int)WVM_BARS_MAX)
		return conf_fail(c, "'%s' is not BAR0 to BAR%u", c->words[0], WVM_BARS_MAX - 1);
	bar.index = (uint8_t)(index[0] - '0');
	rc = conf_fields(c, fields);
	rc = rc ? rc : conf_number_hex(c, 1, "gpa", 0, WVM_GPA_MAX - 1, &bar.gpa);
	rc = rc ? rc : conf_number_hex(c, 2, "size", BAR_BYTES_MIN, BAR_BYTES_MAX, &bar.size);
	if (rc)
		return rc;
	if (bar.size & (bar.size - 1))
		return conf_fail(c, "size '%s' is not a power of two", c->words[2]);
	if (bar.gpa & (bar.size - 1))
		return conf_fail(c, "gpa '%s' is not a multiple of the size", c->words[1]);
	rc = check_bar(c, d, open, &bar);
	if (!rc)
		open->bars[open->bar_count++] = bar;
	return rc;
}

static int close_device(struct conf *c, struct wvm_devices *d, const struct wvm_device *open)
{
	static const char *const no_fields[] = {NULL};
	struct wvm_device *devices;
	int rc = conf_fields(c, no_fields);

	if (rc)
		return rc;
	if (!open->bar_count)
		return conf_fail(c, "'END' before any BAR of the DEVICE in line %u", open->line);
	devices = reallocarray(d->devices, d->count + (size_t)1, sizeof(*devices));
	if (!devices)
		return -ENOMEM;
	d->devices = devices;
	devices[d->count++] = *open;
	return 0;
}

static int parse_line(struct conf *c, struct wvm_devices *d, struct wvm_device *open)
{
	const char *word = c->words[0];
	int rc;

	if (!strcmp(word, "DEVICE")) {
		if (open->line)
			return conf_fail(c, "'DEVICE' before the END of the one in line %u",
					 open->line);
		return parse_device(c, d, open);
	}
	if (strcmp(word, "END") != 0 && strncmp(word, "BAR", 3) != 0)
		return conf_fail(c, "'%s' is not DEVICE, BAR<n> or END", word);
	if (!open->line)
		return conf_fail(c, "'%s' outside of a DEVICE", word);
	if (word[0] == 'B')
		return parse_bar(c, d, open);
	rc = close_device(c, d, open);
	open->line = 0;
	return rc;
}

int wvm_devices_parse(struct wvm_devices *d, const char *name, const char *text, size_t len,
		      char *err, size_t errlen)
{
	struct wvm_device open = {.line = 0};
	struct conf c;
	int rc;

	*d = (struct wvm_devices){0};
	conf_start(&c, name, text, len, err, errlen);
	while ((rc = conf_next(&c)) > 0) {
		rc = parse_line(&c, d, &open);
		if (rc)
			break;
	}
	if (!rc && open.line) {
		c.line = open.line;
		rc = conf_fail(&c, "'DEVICE' without END");
	}
	if (!rc && !d->count)
		rc = conf_fail_file(&c, "there is no DEVICE line");
	if (rc == -ENOMEM)
		conf_fail_file(&c, "out of memory");
	if (rc)
		wvm_devices_free(d);
	return rc;
}

int wvm_devices_load(struct wvm_devices *d, const char *path, char *err, size_t errlen)
{
	size_t len;
	char *text;
	int rc;

	*d = (struct wvm_devices){0};
	rc = conf_read(path, &text, &len, err, errlen);
	if (rc)
		return rc;
	rc = wvm_devices_parse(d, path, text, len, err, errlen);
	free(text);
	return rc;
}

void wvm_devices_free(struct wvm_devices *d)
{
	free(d->devices);
	*d = (struct wvm_devices){0};
}
