/* Small files that are replaced whole, and outlive a power cut. Any thread; blocks for the disk. */
#ifndef WVM_REPLACE_FILE_H
#define WVM_REPLACE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define WVM_REPLACE_PATH 256u /* bytes of a path, with its end */

/*
 * Replaces path, a file in dir, which exists. When this returns 0 the new bytes outlive a power
 * cut; else (-errno) it has the old ones or the new ones. One thread at a time for one path.
 */
int wvm_file_replace(const char *dir, const char *path, const uint8_t *bytes, size_t len);

/* Reads at most room bytes: one more than it should have, so that a longer file is noticed.
 * The bytes that were read, or -errno. */
ssize_t wvm_file_read(const char *path, uint8_t *out, size_t room);

#endif
