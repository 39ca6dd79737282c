/* manifest.h - manifest.json: what a checkpoint is of, and which files it consists of (docs/formats.md 6). It
 * is written after the parts, so a checkpoint that has one is complete. All Local. */
#ifndef P4_MANIFEST_H
#define P4_MANIFEST_H

#include "io/file/fingerprint.h"
#include "src/leaf/base.h"
#include "src/phase4/results.h"

#define P4_MANIFEST_FILE "manifest.json"
enum { P4_MANIFEST_NAME_BYTES = 256, P4_MANIFEST_MAX_INPUTS = 4096, P4_MANIFEST_MAX_PARTS = 1 << 20 };

/* A file or text that the run reads. */
typedef struct p4_manifest_input {
    char name[P4_MANIFEST_NAME_BYTES]; /* "model.safetensors", "tokenizer.json", "text of train_files" */
    char fingerprint[P4_FINGERPRINT_BYTES];
} p4_manifest_input;

typedef struct p4_manifest_part {
    int64_t rank; /* that wrote it; the file is part-RANK.h5 */
    int64_t bytes;
} p4_manifest_part;

typedef struct p4_manifest {
    char producer[128], created[32];
    char started[32];      /* of the run: by its first process */
    int64_t continued;     /* how often the run had been continued from a checkpoint */
    int64_t ranks;         /* of the group that wrote it */
    int64_t step, updates; /* training steps done; those of them that were not skipped */
    bool training;         /* the parts hold masters and optimizer state */
    double lr;             /* of that training: the peak of its schedule; 0: there is none */
    double distill;        /* of that training: the weight of distillation; -1: as the configuration says */
    int64_t text_windows;  /* of training text that were tokenized at most; 0: all */
    double elapsed_s;      /* of the run, over all its processes */
    int64_t stage_count;   /* finished ones that need not be repeated */
    char stages[P4_MAX_STAGES][32];
    int64_t time_count; /* seconds of stages so far */
    p4_stage_time times[P4_MAX_STAGES];
    int64_t input_count, part_count;
    p4_manifest_input *inputs; /* [input_count], heap */
    p4_manifest_part *parts;   /* [part_count], heap */
    char *config_json;         /* the configuration, heap */
    int64_t warning_count;
    char *warnings[P4_WARNINGS_MAX]; /* that the run has given, heap; as in p4_results */
} p4_manifest;

void p4_manifest_free(p4_manifest *manifest); /* Also of zeros, and twice. */
/* Copies the texts. P4_E_INPUT: more than P4_MANIFEST_MAX_INPUTS. */
p4_rc p4_manifest_add_input(p4_manifest *manifest, const char *name, const char *fingerprint);
/* Copies the text, of which those behind P4_WARNINGS_MAX are left out. */
p4_rc p4_manifest_add_warning(p4_manifest *manifest, const char *text);
/* Is a stage among the finished ones? */
bool p4_manifest_has_stage(const p4_manifest *manifest, const char *stage);
/* What differs between the inputs of a run and those of its checkpoint: one line each, heap. "": nothing;
 * NULL: memory is out. */
char *p4_manifest_conflicts(const p4_manifest *run, const p4_manifest *checkpoint);

p4_rc p4_manifest_write(const p4_manifest *manifest, const char *directory);
/* The caller frees, also after an error. P4_E_INPUT names the file and the place. */
p4_rc p4_manifest_read(p4_manifest *manifest, const char *directory);

#endif
