/* fingerprint.h - telling whether an input file is the one a run was made from. */
#ifndef P4_FINGERPRINT_H
#define P4_FINGERPRINT_H

#include "src/leaf/base.h"

enum { P4_FINGERPRINT_BYTES = 48 };

/* "crc32:<8 hex digits>:<bytes>" of a file up to 16 MiB, over all of it; of a larger one
 * "crc32x16:<...>:<bytes>", over 16 blocks of 1 MiB: block i begins at byte (bytes - 1 MiB) / 15 * i, the
 * last one at bytes - 1 MiB. So a safetensors header and every part of the weights count, and a 100 GB model
 * takes no longer than a small one. It finds an exchanged or damaged file, it does not withstand a forger.
 * Local. */
p4_rc p4_fingerprint_file(char fingerprint[P4_FINGERPRINT_BYTES], const char *path);
/* "crc32:<8 hex digits>:<bytes>" of a text, as of a file that holds it: the identity of a configuration.
 * Local. */
void p4_fingerprint_text(char fingerprint[P4_FINGERPRINT_BYTES], const char *text);

#endif
