/* resume_state.h - what jobs/resume.c, which continues from checkpoints, and jobs/save.c, which writes them,
 * share. */
#ifndef P4_RESUME_STATE_H
#define P4_RESUME_STATE_H

#include "io/h5/arrays.h"
#include "io/out/checkpoints.h"
#include "io/out/manifest.h"
#include "src/phase4/config.h"

struct p4_resume {
    const char *stages[P4_MAX_STAGES];     /* keys of those whose outcome a checkpoint holds, else NULL */
    p4_config given;                       /* the configuration before the model's size class */
    char *folder;                          /* of checkpoints */
    char owner[P4_CHECKPOINT_OWNER_BYTES]; /* of the directories that this run fills: rank 0's */
    char *last;                /* directory of the checkpoint saved or taken last, heap; NULL: none */
    double started_s, saved_s; /* by p4_now_s: this process, its last checkpoint or its start */
    double earlier_s;          /* that the processes before worked on the run */
    p4_manifest inputs;        /* rank 0: fingerprints of the model, the tokenizer and the text */
    p4_manifest manifest;      /* of the checkpoint that the run continues from */
    p4_arrays *arrays;         /* its parts; NULL: there is none, or all is taken */
    bool training;             /* they hold a training that is not taken yet */
    struct p4_saving *saving;  /* jobs/save.c: a checkpoint on its way; NULL: there is none */
};

#endif
