/* export_result.h - a finished result in the formats of other programs: phase4_export. */
#ifndef P4_EXPORT_RESULT_H
#define P4_EXPORT_RESULT_H

#include "jobs/options.h"
#include "src/phase4/types.h"

extern const p4_program p4_export_program;
enum { P4_EXPORT_TO = P4_OPTION_OWN, P4_EXPORT_OVERWRITE, P4_EXPORT_QUIET };

/* Writes the packed model of an output directory in each format into that directory, under the names that a
 * run gives them. The tokenizer and what else goes along come from dequantized_fp16. All formats are checked
 * before the first is written. P4_E_INPUT: an unknown format, a model that one of them cannot hold, an export
 * that is there (without overwrite), a directory that is not that of a finished run. Local. */
p4_rc p4_export_result(const char *directory, const p4_list *formats, bool overwrite);

#endif
