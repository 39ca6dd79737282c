/* activation.h - the activation functions of an MLP: architectures name them, ops compute them. */
#ifndef P4_ACTIVATION_H
#define P4_ACTIVATION_H

typedef enum p4_activation {
    P4_GELU_TANH, /* x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 */
    P4_GELU_ERF,  /* x (1 + erf(x / sqrt(2))) / 2 */
    P4_SILU,      /* x sigmoid(x) */
    P4_RELU,      /* max(x, 0); slope 0 at 0 */
    P4_RELU_SQ,   /* max(x, 0)^2 */
    P4_ACTIVATION_COUNT
} p4_activation;

#endif
