/* fingerprint.h - short identities of input files, to tell whether a file has changed since a run read it. */
#ifndef P4_FINGERPRINT_H
#define P4_FINGERPRINT_H

#include "src/leaf/base.h"

enum { P4_FINGERPRINT_BYTES = 48, P4_FILE_VERSION_BYTES = 112 };

/* "crc32:<8 hex digits>:<bytes>" of a file up to 16 MiB, over all of it; of a larger one
 * "crc32x16:<...>:<bytes>", over 16 blocks of 1 MiB: block i begins at byte (bytes - 1 MiB) / 15 * i, the
 * last one at bytes - 1 MiB. It covers a safetensors header and samples all of the weights, and takes no
 * longer for 100 GB than for 16 MiB. It detects an exchanged or damaged file, not a forged one. Local. */
p4_rc p4_fingerprint_file(char fingerprint[P4_FINGERPRINT_BYTES], const char *path);
/* What a file on this system held when it was read: the fingerprint of a file up to 16 MiB, which covers
 * every byte. Of a larger one "<fingerprint>:<mtime in seconds>.<nanoseconds>:<inode>": a change between the
 * sampled blocks shows in the time of the last write or in the inode. A copy of a large file is therefore
 * another version. Local. */
p4_rc p4_fingerprint_version(char version[P4_FILE_VERSION_BYTES], const char *path);
/* "crc32:<8 hex digits>:<bytes>" of bytes in memory, or of a text, as of a file that holds them. Local. */
void p4_fingerprint_bytes(char fingerprint[P4_FINGERPRINT_BYTES], const void *bytes, size_t count);
void p4_fingerprint_text(char fingerprint[P4_FINGERPRINT_BYTES], const char *text);

#endif
