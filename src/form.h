/* form.h - puts one form of a model's weights (net.h) on a device. */
#ifndef P4_FORM_H
#define P4_FORM_H

#include "src/net.h"

/* A form and the memory behind it. */
typedef struct p4_device_form {
    p4_form form;
    void *memory; /* device */
    int64_t memory_bytes;
    p4_device *device;
    const p4_ops *ops;
} p4_device_form;

/* From host views (source[params_count]: a mapped file, packed codes, halves; data NULL: not here). Vectors
 * become fp32. On the CPU matrices stay where they are and source must outlive the form; on other devices
 * they are copied. The caller closes. Local. */
p4_rc p4_device_form_open(p4_device_form *form, const p4_ops *ops, p4_device *device, const p4_model *model,
                          const p4_weight *source);
/* The same with the matrices of blocks in the activations' type, the parts of a slot one after another, so
 * that products use them as they are. Local. */
p4_rc p4_device_form_open_dense(p4_device_form *form, const p4_ops *ops, p4_device *device,
                                const p4_model *model, const p4_weight *source);
/* The device memory that each takes, bytes; -1: out of host memory. Of `source` only which data are there
 * counts. Local. */
int64_t p4_device_form_bytes(const p4_ops *ops, p4_device *device, const p4_model *model,
                             const p4_weight *source);
int64_t p4_dense_form_bytes(const p4_ops *ops, p4_device *device, const p4_model *model,
                            const p4_weight *source);
void p4_device_form_close(p4_device_form *form);

#endif
