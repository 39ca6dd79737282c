/* model_file.h - model.h5 back in memory: its configuration, its parameter table, its codes. All Local; as
 * with io/h5, one thread of a process at a time. */
#ifndef P4_MODEL_FILE_H
#define P4_MODEL_FILE_H

#include "io/h5/artifact.h"
#include "io/hf/hf_model.h"
#include "src/packed.h"
#include "src/phase4/config.h"

/* *file = the path of the model.h5 that `path` names: itself, or that in a directory. P4_E_INPUT: there is
 * none. */
p4_rc p4_model_file_find(char file[P4_PATH_BYTES], const char *path);
/* The configuration of the run that wrote the file, as it was. P4_E_INPUT: there is none, or it is not valid.
 */
p4_rc p4_model_file_config(p4_config *config, p4_artifact_reader *reader, const char *path);
/* What the run measured: "pre", "post" or "final", of a set of eval_sets or (opt_set NULL) of the evaluation
 * text; tokens 0: it did not. */
p4_rc p4_model_file_evaluation(p4_evaluation *evaluation, p4_artifact_reader *reader, const char *opt_set,
                               const char *name);
/* The parameter table of the file's config.json, with the prefix that the names in the file have, into a
 * model of zeros: which tensors are ternary, no weights. hf->path is the file's. P4_E_INPUT names a tensor
 * that is missing or has another shape. The caller closes, after an error too. */
p4_rc p4_model_file_table(p4_hf_model *hf, p4_artifact_reader *reader, const char *path);
/* The codes, scales and halves of a model that p4_model_file_table opened; the conversion uses so many
 * threads. *packing: of the ternary tensors, left as it is if there are none. The caller releases, after an
 * error too. */
p4_rc p4_model_file_read(p4_packed *packed, p4_packing *packing, p4_artifact_reader *reader,
                         const p4_model *model, int threads);

#endif
