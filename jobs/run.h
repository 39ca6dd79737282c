/* run.h - one model's work in a group of ranks, from its configuration to its outputs. The stages
 * (jobs/stages/) read and fill it; the engines (jobs/train/) never see it. */
#ifndef P4_RUN_H
#define P4_RUN_H

#include "io/file/inputs.h"
#include "io/out/details.h"
#include "io/out/hold.h"
#include "io/out/report.h"
#include "io/out/warnings.h"
#include "io/text/chat.h"
#include "io/text/training_set.h"
#include "io/tokenizer/tokenizer.h"
#include "jobs/settings.h"
#include "jobs/train/curve.h"
#include "jobs/train/evaluate.h"
#include "jobs/train/masters.h"
#include "jobs/train/statistics.h"
#include "src/packed.h"
#include "src/phase4/config.h"

/* Who watches the run (watch.h). */
typedef struct p4_run_watch {
    bool opened;
    struct p4_wandb *wandb;       /* NULL: off, or lost */
    struct p4_tensorboard *board; /* the same */
    double runtime_s;             /* of the last measurement */
} p4_run_watch;

/* The stages that ran in this process, in their order. */
typedef struct p4_run_timeline {
    int64_t count;
    const char *keys[P4_MAX_STAGES]; /* static */
    p4_stage_detail stages[P4_MAX_STAGES];
} p4_run_timeline;

/* A text of eval_sets; its measurements are in the results. */
typedef struct p4_run_set {
    p4_windows windows; /* the same on every rank */
    p4_part_losses original_losses;
} p4_run_set;

typedef struct p4_run {
    p4_config config; /* effective */
    p4_hold *hold;    /* rank 0: on output_path */
    p4_compute compute;
    p4_original original;
    p4_inputs inputs;             /* the files read: of the model on every rank, of the text on rank 0 */
    p4_tokenizer *tokenizer;      /* rank 0; NULL when all data are token files */
    p4_chat *chat;                /* rank 0, beside the tokenizer: how it renders conversations */
    p4_windows calibration, eval; /* the same on every rank */
    p4_windows reconstruction;    /* the same; none: blocks are not reconstructed */
    int64_t text_windows;         /* of training text that are tokenized at most; 0: all */
    double lr, distill;           /* of fine-tuning, once it has begun: peak rate, weight of the KL */
    p4_training_set *train; /* NULL: nothing is trained. Without train_files it may be of `calibration` */
    p4_packed packed;
    p4_masters masters;             /* what training starts from where that is not the original; else zeros */
    p4_statistics statistics;       /* after calibration, the same on every rank */
    p4_part_losses original_losses; /* of the evaluation windows, once the original is evaluated */
    p4_run_set sets[P4_SETS_MAX];   /* as many as the configuration has */
    int64_t texts_evaluated; /* by a stage that is not finished: first the evaluation text, then the sets */
    p4_results results;      /* the same on every rank where stages decide by it */
    p4_warnings warnings;    /* on the rank that speaks; results have a copy */
    p4_training_curve curve; /* rank 0 */
    p4_metrics_log metrics_log; /* rank 0 */
    p4_run_watch watch;         /* rank 0 */
    p4_log_callback log_callback;
    void *log_user;
    p4_stop stop;                    /* compute's */
    struct p4_resume *resume;        /* jobs/resume.h */
    bool done[P4_MAX_STAGES];        /* which stages are done, in the order of the table in run.c */
    double planned_s[P4_MAX_STAGES]; /* rank 0: what each will take by the plan, in the same order */
    int64_t planned_steps;           /* rank 0: of the training */
    double output_bytes, scratch_bytes, checkpoints_bytes; /* rank 0: on the disk; of checkpoints at most */
    bool only_evaluates;                                   /* phase4_evaluate: no stage but evaluations */
    bool in_batch;            /* phase4_batch has started it, whose command line is another */
    bool unfit;               /* rank 0: no format that the run writes can hold its weights */
    double started_s;         /* p4_now_s when this process took up the run */
    p4_run_timeline timeline; /* of this rank in this process */
} p4_run;

/* Opens the device and makes the checks that come before the work (check.h): every error at once, one a line.
 * Nothing on the disk changes. measures: the time that is estimated comes from how fast this machine's CPUs
 * are, which takes 0.1 s; else from a table. Collective. */
p4_rc p4_run_check(p4_group *group, const p4_config *config, bool measures);

/* Opens device and threads, runs every stage that is not done, and writes results.json. *results is the same
 * on every rank, filled as far as the run came; the caller frees it with p4_results_free. log_callback (rank
 * 0, NULL: none) sees each logged training step. measures: as of p4_run_check; no result depends on it.
 * in_batch: messages say how a batch goes on. Collective. */
p4_rc p4_run_execute(p4_group *group, const p4_config *config, bool measures, bool in_batch,
                     p4_log_callback log_callback, void *log_user, p4_results *results);

#endif
