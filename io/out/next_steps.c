/* next_steps.c - what to try after a verdict that failed because the perplexity rose too far. */
#include <inttypes.h>
#include <stdio.h>

#include "io/out/report.h"

static const double ENOUGH = 0.5; /* passes over the text from which on more of it may help */

p4_next_values p4_next_values_of(const p4_config *config, const p4_results *results)
{
    return (p4_next_values){.fine_tunes = config->enable_fine_tuning,
                            .calibration_samples = config->calibration_samples,
                            .train_files = config->train_files.count,
                            .fine_tune_max_steps = config->fine_tune_max_steps,
                            .fine_tune_epochs = config->fine_tune_epochs,
                            .passes = results->fine_tuning.ran ? results->fine_tuning.epochs_completed : 0,
                            .steps = results->fine_tuning.ran ? results->fine_tuning.steps : 0};
}

/* " (now 100)", or nothing of a value that is not known. */
static const char *now_text(char text[64], int64_t value)
{
    text[0] = '\0';
    if (value >= 0) {
        snprintf(text, 64, " (now %" PRId64 ")", value);
    }
    return text;
}

static const char *files_text(char text[64], int64_t entries)
{
    text[0] = '\0';
    if (entries == 0) {
        snprintf(text, 64, " (now none: the calibration text)");
    } else if (entries > 0) {
        snprintf(text, 64, " (now %" PRId64 " entr%s)", entries, entries == 1 ? "y" : "ies");
    }
    return text;
}

/* Whichever of the two keys ended the training: the other one alone has no effect. Both, where both would
 * have. */
static const char *tuning_text(char text[160], const p4_next_values *now)
{
    char value[64], epochs[64];
    const bool all_epochs = now->fine_tune_epochs > 0 && now->passes >= (double)now->fine_tune_epochs;
    if (now->fine_tunes == 0) {
        snprintf(text, 160, "fine-tuning: enable_fine_tuning (now false)");
    } else if (now->fine_tune_max_steps == 0 || (all_epochs && now->steps < now->fine_tune_max_steps)) {
        snprintf(text, 160, "a longer fine-tuning: fine_tune_epochs%s",
                 now_text(value, now->fine_tune_epochs));
    } else {
        snprintf(text, 160, "a longer fine-tuning: fine_tune_max_steps%s%s%s",
                 now_text(value, now->fine_tune_max_steps), all_epochs ? " and fine_tune_epochs" : "",
                 all_epochs ? now_text(epochs, now->fine_tune_epochs) : "");
    }
    return text;
}

const char *p4_next_steps(char text[P4_NEXT_STEPS_BYTES], const p4_next_values *now)
{
    char samples[64], files[64], tuning[160];
    bool has_more = now->passes > 0 && now->passes < ENOUGH; /* text that was not read */
    snprintf(
        text, P4_NEXT_STEPS_BYTES, "more calibration_samples%s, %s%s%s%s; docs/quality.md has measurements",
        now_text(samples, now->calibration_samples), has_more ? "" : "more text in train_files",
        has_more ? "" : files_text(files, now->train_files), has_more ? "" : ", ", tuning_text(tuning, now));
    return text;
}
