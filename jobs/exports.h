/* exports.h - a compressed model in the formats of other programs (io/export), as the list `exports` asks
 * for. */
#ifndef P4_JOB_EXPORTS_H
#define P4_JOB_EXPORTS_H

#include "io/export/source.h"
#include "src/phase4/config.h"

/* Can every format be written for this model? P4_E_INPUT: the reasons, one a line. tokenizer: NULL, there is
 * none. Local. */
p4_rc p4_exports_check(const p4_config *config, const p4_hf_model *hf, const p4_tokenizer *tokenizer);
/* Bytes of all of them, of which copied_bytes, of files that go along, are in each directory. Local. */
double p4_exports_bytes(const p4_config *config, const p4_hf_model *hf, double copied_bytes);
/* Can the format `writer` of the list hold these weights? source: all but its option. P4_E_INPUT: no, and
 * which tensor is why. Local. */
p4_rc p4_exports_check_weights(const p4_config *config, const char *writer, const p4_export_source *source);
/* Writes the format `writer` of the list to `path`. source: all but its option. Local. */
p4_rc p4_exports_write(const p4_config *config, const char *writer, const p4_export_source *source,
                       const char *path);

#endif
