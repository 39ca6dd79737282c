/* defaults.h - what the keys of a batch's models meant to the versions that worked on them: a state directory
 * keeps the defaults of each (docs/formats.md). A fingerprint of a configuration leaves out what has its
 * default, so that a key that a version adds changes none; a default that a version changes then is seen by
 * comparing with these. */
#ifndef P4_BATCH_DEFAULTS_H
#define P4_BATCH_DEFAULTS_H

#include "io/file/fingerprint.h"
#include "io/json/config.h"

/* Of this version; with a directory, which is there, its file is written where it is missing. Local. */
p4_rc p4_batch_defaults_keep(char fingerprint[P4_FINGERPRINT_BYTES], const char *opt_directory);
/* Of the version with this fingerprint. P4_E_INPUT: the directory has no such file. The caller frees, after
 * an error too. Local. */
p4_rc p4_batch_defaults_read(p4_config_defaults **defaults, const char *directory, const char *fingerprint);

#endif
