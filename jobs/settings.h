/* settings.h - what a configuration asks of the engines (jobs/train/), as plain numbers that are resolved
 * once. */
#ifndef P4_SETTINGS_H
#define P4_SETTINGS_H

#include "jobs/train/original.h"
#include "jobs/train/pipeline.h"
#include "jobs/train/reconstruct.h"
#include "jobs/train/trainer.h"
#include "src/phase4/config.h"

p4_compute_settings p4_settings_compute(const p4_config *config);
/* statistics: of a calibration, or NULL; windows: those that it saw, or NULL. Both must outlive the plan. */
p4_quantize_plan p4_settings_quantize(const p4_config *config, const p4_statistics *statistics,
                                      const p4_windows *windows);
/* Of windows of T tokens. */
p4_pipeline_plan p4_settings_pipeline(const p4_config *config, int64_t T);
/* Windows of T tokens that blocks are reconstructed on; 0: none. */
int64_t p4_settings_reconstruct_windows(const p4_config *config, int64_t T);
/* On so many windows of T tokens. */
p4_reconstruct_plan p4_settings_reconstruct(const p4_config *config, int64_t windows, int64_t T,
                                            const p4_statistics *statistics);
/* Where fine_tune_lr and distill are "auto", the rate is 0 and the weight that of few tokens until
 * p4_settings_fit_tokens. */
p4_train_plan p4_settings_train(const p4_config *config, int64_t T, const p4_statistics *statistics);
/* The rate and the weight of distillation of "auto" (docs/quality.md 2), when an epoch has so many windows,
 * and a line that says the rate. reconstructed: the masters are those of a reconstruction, not the
 * original's. */
void p4_settings_fit_tokens(p4_train_plan *plan, const p4_config *config, const p4_model *model,
                            int64_t windows, bool reconstructed);
/* What a recipe asks for and the run does not do becomes off: distillation and reconstruction where there is
 * no original worth following, learned scales where no codes are trained. The effective configuration says
 * what runs. Local. */
void p4_settings_resolve(p4_config *config);
/* Does the configuration quantize at all (quantizer other than "none")? */
bool p4_settings_quantizes(const p4_config *config);

/* One line for each key of the length of training that has no effect, when an epoch holds so many steps;
 * INT64_MAX: it is not known how many. Local. */
void p4_warn_of_steps(const p4_config *config, int64_t steps_per_epoch);

/* Windows fit the model's positions: a default that is longer becomes as long as they are, with a line that
 * says so; a length that the user set is refused. path: the model's, for messages. Local. */
p4_rc p4_settings_fit_window(p4_config *config, const char *path, int64_t positions);
/* Opens the configuration's model, fits the windows to it, marks the tensors that become ternary, and decides
 * who owns which. P4_E_INPUT: the directory, or a rule between it and a key. The caller closes, after an
 * error too. Local. */
p4_rc p4_settings_open_original(p4_original *original, p4_config *config, int ranks);
/* Marks and owners alone, of a model that is open and whose windows fit. Local. */
p4_rc p4_settings_mark_original(p4_original *original, const p4_config *config, int ranks);

#endif
