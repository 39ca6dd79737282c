/* api.h - what stands behind the handles of phase4.h. Inside jobs/api/ only. */
#ifndef P4_API_H
#define P4_API_H

#include "io/text/dataset.h"
#include "jobs/settings.h"
#include "jobs/train/curve.h"
#include "jobs/train/original.h"
#include "jobs/train/statistics.h"
#include "src/net.h"
#include "src/packed.h"
#include "src/phase4.h"

struct p4_session {
    p4_machine machine;
    p4_group group;
};

struct p4_checkpoint {
    p4_hf_model hf;
};

/* A model ready to compute logits: one form of the weights, and room for the largest batch asked for so far.
 */
typedef struct p4_forward_view {
    p4_device_form form;
    p4_net net;
    void *x; /* device: hidden states [B, T, C] */
    bool is_open;
} p4_forward_view;

struct p4_compressed {
    p4_session *session;
    p4_config config; /* effective */
    p4_compute compute;
    p4_original original;
    p4_packed packed;
    p4_statistics statistics; /* of p4_compressed_calibrate */
    p4_windows windows;       /* what that saw, where the quantizer needs it again; the same on every rank */
    p4_results results;       /* of the last training; what p4_compressed_save writes */
    p4_training_curve curve;  /* the same; rank 0 */
    bool was_loaded;          /* from model.h5: there are no original weights */
    p4_forward_view view;
};

struct p4_loader {
    p4_config config;   /* the calib's: device, batch, window length */
    p4_windows windows; /* the same on every rank */
    int64_t next;       /* window that the next batch starts with */
};

/* *to = rank 0's `from` (NULL: the defaults of the specification), once it is valid. Collective. */
p4_rc p4_session_share_config(p4_session *session, p4_config *to, const p4_config *from);

/* A p4_compressed with its configuration, device and ranks, without a model. Collective. */
p4_rc p4_compressed_begin(p4_compressed **compressed, p4_session *session, const p4_config *config);
/* P4_E_STATE "Model not compressed yet". Local. */
p4_rc p4_compressed_expect(const p4_compressed *compressed);
/* A loader's windows suit the model: no longer than its positions, no token outside its vocabulary. Local. */
p4_rc p4_original_accepts(const p4_original *original, const p4_loader *loader);
/* Opens the model that a checkpoint names, under the configuration, for so many ranks. Local. */
p4_rc p4_checkpoint_reopen(p4_original *original, const p4_checkpoint *checkpoint, p4_config *config,
                           int ranks);
/* Forgets the view of p4_compressed_forward: the weights change. Local. */
void p4_forward_view_close(p4_compressed *compressed);

#endif
