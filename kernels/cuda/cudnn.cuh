/* cudnn.cuh - cuDNN 9, loaded when the program runs, and what the project uses of its graph interface:
 * operations on tensors of four dimensions are put into a graph, cuDNN's heuristics name engines for it, and
 * the first engine that accepts the graph becomes a plan. Neither cuDNN's headers nor its library are needed
 * to build or to start the program. The constants are those of the stable interface of cuDNN 9;
 * tests/test_cudnn_abi.c compares them with the headers. */
#ifndef P4_KERNELS_CUDNN_CUH
#define P4_KERNELS_CUDNN_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/cudnn_abi.h"

enum {
    CUDNN_OLDEST =
        91600, /* before: ragged lengths need a padding mask, and some versions have known errors */
    CUDNN_GRAPH_OPS = 32,     /* operations of one graph */
    CUDNN_GRAPH_MADE = 160,   /* descriptors of one graph */
    CUDNN_GRAPH_CONFIGS = 16, /* engines that are tried */
    CUDNN_BINDINGS = 24       /* arrays and scalars of one graph */
};

typedef struct p4_cudnn_functions {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, cudaStream_t stream);
    size_t (*version)(void);
    const char *(*error_string)(int status);
    int (*create_descriptor)(int type, void **descriptor);
    int (*destroy_descriptor)(void *descriptor);
    int (*set)(void *descriptor, int name, int type, int64_t count, const void *values);
    int (*get)(const void *descriptor, int name, int type, int64_t asked, int64_t *count, void *values);
    int (*finalize)(void *descriptor);
    int (*execute)(void *handle, void *plan, void *pack);
} p4_cudnn_functions;

struct p4_cudnn {
    p4_cudnn_functions call;
    void *handle;
    int version;                  /* 91900: 9.19.0 */
    bool any_order;               /* P4_ATTENTION=cudnn-any-order */
    struct attention_plan *plans; /* host heap, one a shape (kernels/cuda/attention_cudnn.cu) */
};

/* A tensor of a graph. `id` names it when the plan runs. */
typedef struct cudnn_tensor {
    void *descriptor;
    int64_t id;
    int64_t dim[4], stride[4]; /* in elements */
} cudnn_tensor;
typedef enum cudnn_tensor_kind { CUDNN_ARRAY, CUDNN_INSIDE, CUDNN_SCALAR } cudnn_tensor_kind;

/* A graph and its plan. `status` keeps the first failure, after which calls do nothing. Owns its
 * descriptors. */
typedef struct cudnn_graph {
    struct p4_cudnn *cudnn;
    int status, op_count, made_count;
    void *ops[CUDNN_GRAPH_OPS], *made[CUDNN_GRAPH_MADE];
    int64_t next_id;
    void *plan;              /* among `made`; NULL when no engine accepts the graph */
    int64_t workspace_bytes; /* that the plan asks for */
} cudnn_graph;

/* One array (device) or scalar (host) that a plan runs with. */
typedef struct cudnn_bindings {
    int count;
    int64_t id[CUDNN_BINDINGS];
    void *at[CUDNN_BINDINGS];
} cudnn_bindings;

/* kernels/cuda/cudnn.cu. Loads cuDNN for a device of this major compute capability and its stream. `why`: why
 * it cannot be used, and *cudnn is NULL; "" when it can. An error is a failure of the host. The caller
 * closes. */
p4_rc p4_cudnn_open(struct p4_cudnn **cudnn, cudaStream_t stream, int major, char *why, size_t why_bytes);
void p4_cudnn_close(struct p4_cudnn *cudnn);

/* Tensors get ids in the order in which they are made, from 1. */
cudnn_tensor p4_cudnn_tensor(cudnn_graph *graph, cudnn_tensor_kind kind, int data_type, const int64_t dim[4],
                             const int64_t stride[4]);
/* y = mode(x, b); b and select: NULL where the mode has none; math: the data type computed in; axis: of
 * GEN_INDEX, else -1. */
void p4_cudnn_pointwise(cudnn_graph *graph, int mode, int math, int64_t axis, const cudnn_tensor *x,
                        const cudnn_tensor *b, const cudnn_tensor *select, const cudnn_tensor *y);
/* c = a b over the last two dimensions, summed in fp32. With fewer heads in b, each of them multiplies as
 * many heads of a. */
void p4_cudnn_matmul(cudnn_graph *graph, const cudnn_tensor *a, const cudnn_tensor *b, const cudnn_tensor *c);
/* y = x summed (or its maximum) over the dimensions in which y is smaller. */
void p4_cudnn_reduce(cudnn_graph *graph, int operation, const cudnn_tensor *x, const cudnn_tensor *y);
/* y = x, reinterpreted with y's dimensions and strides. */
void p4_cudnn_view(cudnn_graph *graph, const cudnn_tensor *x, const cudnn_tensor *y);
/* Finds the plan. deterministic: skips engines that say that their bits differ between runs. */
void p4_cudnn_plan(cudnn_graph *graph, bool deterministic);
void p4_cudnn_graph_close(cudnn_graph *graph);
/* Queues the plan on the device's stream; `workspace`: device memory, 16-byte aligned. Returns cuDNN's
 * status. */
int p4_cudnn_run(const cudnn_graph *graph, const cudnn_bindings *bindings, void *workspace);

#endif
