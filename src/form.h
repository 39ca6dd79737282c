/* form.h - puts one form of a model's weights (net.h) on a device. */
#ifndef P4_FORM_H
#define P4_FORM_H

#include "src/net.h"

/* A form and the memory behind it. */
typedef struct p4_device_form {
    p4_form form;
    void *memory; /* device */
    p4_device *device;
    const p4_ops *ops;
} p4_device_form;

/* From host views (source[params_count]: a mapped file, packed codes, halves; data NULL: not here). Vectors
 * become fp32. On the CPU matrices stay where they are and source must outlive the form; on other devices
 * they are copied. The caller closes. Local. */
p4_rc p4_device_form_open(p4_device_form *form, const p4_ops *ops, p4_device *device, const p4_model *model,
                          const p4_weight *source);
void p4_device_form_close(p4_device_form *form);

#endif
