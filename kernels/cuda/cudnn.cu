/* cudnn.cu - cuDNN loaded at run time: its functions, graphs of operations, plans and their execution. */
#include "kernels/cuda/cudnn.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "src/leaf/import.h"
}

static p4_import library = {"libcudnn.so.9"};

/* --- open and close --------------------------------------------------------------------------- */

static bool find_functions(p4_cudnn_functions *call)
{
    const p4_import_function wanted[] = {
        {"cudnnCreate", &call->create},
        {"cudnnDestroy", &call->destroy},
        {"cudnnSetStream", &call->set_stream},
        {"cudnnGetVersion", &call->version},
        {"cudnnGetErrorString", &call->error_string},
        {"cudnnBackendCreateDescriptor", &call->create_descriptor},
        {"cudnnBackendDestroyDescriptor", &call->destroy_descriptor},
        {"cudnnBackendSetAttribute", &call->set},
        {"cudnnBackendGetAttribute", &call->get},
        {"cudnnBackendFinalize", &call->finalize},
        {"cudnnBackendExecute", &call->execute},
    };
    return p4_import_functions(&library, wanted, sizeof wanted / sizeof wanted[0]);
}

/* Writes why cuDNN cannot be used to `why`; "" when it can and `opened` is ready. */
static void open_library(struct p4_cudnn *opened, cudaStream_t stream, int major, char *why, size_t why_bytes)
{
    int status = 0;
    why[0] = '\0';
    if (major != 9) { /* the only generation on which this column's graphs have been tested */
        snprintf(why, why_bytes, "compute capability %d, expected 9", major);
    } else if (!find_functions(&opened->call)) {
        snprintf(why, why_bytes, "%s %s", library.file,
                 library.handle ? "lacks functions of version 9" : "cannot be loaded");
    } else if ((opened->version = (int)opened->call.version()) < CUDNN_OLDEST) {
        snprintf(why, why_bytes, "%s is version %d, expected at least %d", library.file, opened->version,
                 CUDNN_OLDEST);
    } else if ((status = opened->call.create(&opened->handle)) != 0 ||
               (status = opened->call.set_stream(opened->handle, stream)) != 0) {
        snprintf(why, why_bytes, "%s: %s", library.file, opened->call.error_string(status));
    }
}

p4_rc p4_cudnn_open(struct p4_cudnn **cudnn, cudaStream_t stream, int major, char *why, size_t why_bytes)
{
    struct p4_cudnn *opened = (struct p4_cudnn *)p4_alloc(1, sizeof *opened);
    *cudnn = NULL;
    if (!opened) {
        return P4_E_SYSTEM;
    }
    open_library(opened, stream, major, why, why_bytes);
    if (why[0]) {
        p4_cudnn_close(opened);
        return P4_OK;
    }
    *cudnn = opened;
    return P4_OK;
}

void p4_cudnn_close(struct p4_cudnn *cudnn)
{
    if (cudnn && cudnn->handle) {
        cudnn->call.destroy(cudnn->handle);
    }
    free(cudnn);
}

/* --- descriptors ------------------------------------------------------------------------------ */

/* A new descriptor that the graph owns; NULL after a failure. */
static void *make(cudnn_graph *graph, int type)
{
    void *made = NULL;
    if (graph->status == 0 && graph->made_count == CUDNN_GRAPH_MADE) {
        graph->status = -1;
    }
    if (graph->status == 0) {
        graph->status = graph->cudnn->call.create_descriptor(type, &made);
    }
    if (graph->status == 0) {
        graph->made[graph->made_count++] = made;
    }
    return made;
}

static void set(cudnn_graph *graph, void *descriptor, int name, int type, int64_t count, const void *values)
{
    if (graph->status == 0) {
        graph->status = graph->cudnn->call.set(descriptor, name, type, count, values);
    }
}

static void set_descriptor(cudnn_graph *graph, void *descriptor, int name, void *value)
{
    set(graph, descriptor, name, N_TYPE_DESCRIPTOR, 1, &value);
}

/* A number of an enumeration: data type, mode, operator. */
static void set_number(cudnn_graph *graph, void *descriptor, int name, int type, int value)
{
    set(graph, descriptor, name, type, 1, &value);
}

static void finalize(cudnn_graph *graph, void *descriptor)
{
    if (graph->status == 0) {
        graph->status = graph->cudnn->call.finalize(descriptor);
    }
}

static void add_operation(cudnn_graph *graph, void *op)
{
    finalize(graph, op);
    if (graph->status == 0 && graph->op_count == CUDNN_GRAPH_OPS) {
        graph->status = -1;
    }
    if (graph->status == 0) {
        graph->ops[graph->op_count++] = op;
    }
}

/* --- operations ------------------------------------------------------------------------------- */

cudnn_tensor p4_cudnn_tensor(cudnn_graph *graph, cudnn_tensor_kind kind, int data_type, const int64_t dim[4],
                             const int64_t stride[4])
{
    const int64_t alignment = P4_VECTOR_BYTES;
    const bool yes = true;
    cudnn_tensor tensor = {};
    tensor.descriptor = make(graph, N_IS_TENSOR);
    tensor.id = ++graph->next_id;
    memcpy(tensor.dim, dim, sizeof tensor.dim);
    memcpy(tensor.stride, stride, sizeof tensor.stride);
    set_number(graph, tensor.descriptor, N_TENSOR_TYPE, N_TYPE_DATA_TYPE, data_type);
    set(graph, tensor.descriptor, N_TENSOR_DIM, N_TYPE_INT64, 4, dim);
    set(graph, tensor.descriptor, N_TENSOR_STRIDE, N_TYPE_INT64, 4, stride);
    set(graph, tensor.descriptor, N_TENSOR_ID, N_TYPE_INT64, 1, &tensor.id);
    set(graph, tensor.descriptor, N_TENSOR_ALIGNMENT, N_TYPE_INT64, 1, &alignment);
    if (kind != CUDNN_ARRAY) {
        set(graph, tensor.descriptor, kind == CUDNN_INSIDE ? N_TENSOR_INSIDE : N_TENSOR_SCALAR, N_TYPE_BOOL,
            1, &yes);
    }
    finalize(graph, tensor.descriptor);
    return tensor;
}

void p4_cudnn_pointwise(cudnn_graph *graph, int mode, int math, int64_t axis, const cudnn_tensor *x,
                        const cudnn_tensor *b, const cudnn_tensor *select, const cudnn_tensor *y)
{
    const float one = 1.0f;
    void *what = make(graph, N_IS_POINTWISE);
    set_number(graph, what, N_POINTWISE_MODE, N_TYPE_POINTWISE, mode);
    set_number(graph, what, N_POINTWISE_MATH, N_TYPE_DATA_TYPE, math);
    if (axis >= 0) {
        set(graph, what, N_POINTWISE_AXIS, N_TYPE_INT64, 1, &axis);
    }
    finalize(graph, what);
    void *op = make(graph, N_IS_POINTWISE_OP);
    set_descriptor(graph, op, N_POINTWISE_OP, what);
    set_descriptor(graph, op, N_POINTWISE_X, x->descriptor);
    if (b) {
        set_descriptor(graph, op, N_POINTWISE_B, b->descriptor);
    }
    if (select) {
        set_descriptor(graph, op, N_POINTWISE_T, select->descriptor);
    }
    set_descriptor(graph, op, N_POINTWISE_Y, y->descriptor);
    set(graph, op, N_POINTWISE_ALPHA1, N_TYPE_FLOAT, 1, &one);
    set(graph, op, N_POINTWISE_ALPHA2, N_TYPE_FLOAT, 1, &one);
    add_operation(graph, op);
}

void p4_cudnn_matmul(cudnn_graph *graph, const cudnn_tensor *a, const cudnn_tensor *b, const cudnn_tensor *c)
{
    void *what = make(graph, N_IS_MATMUL);
    set_number(graph, what, N_MATMUL_MATH, N_TYPE_DATA_TYPE, N_DATA_FP32);
    finalize(graph, what);
    void *op = make(graph, N_IS_MATMUL_OP);
    set_descriptor(graph, op, N_MATMUL_A, a->descriptor);
    set_descriptor(graph, op, N_MATMUL_B, b->descriptor);
    set_descriptor(graph, op, N_MATMUL_C, c->descriptor);
    set_descriptor(graph, op, N_MATMUL_OP, what);
    add_operation(graph, op);
}

void p4_cudnn_reduce(cudnn_graph *graph, int operation, const cudnn_tensor *x, const cudnn_tensor *y)
{
    void *what = make(graph, N_IS_REDUCTION);
    set_number(graph, what, N_REDUCTION_MATH, N_TYPE_DATA_TYPE, N_DATA_FP32);
    set_number(graph, what, N_REDUCTION_MODE, N_TYPE_REDUCTION, operation);
    finalize(graph, what);
    void *op = make(graph, N_IS_REDUCTION_OP);
    set_descriptor(graph, op, N_REDUCTION_X, x->descriptor);
    set_descriptor(graph, op, N_REDUCTION_Y, y->descriptor);
    set_descriptor(graph, op, N_REDUCTION_OP, what);
    add_operation(graph, op);
}

void p4_cudnn_view(cudnn_graph *graph, const cudnn_tensor *x, const cudnn_tensor *y)
{
    void *op = make(graph, N_IS_RESHAPE_OP);
    set_descriptor(graph, op, N_RESHAPE_X, x->descriptor);
    set_descriptor(graph, op, N_RESHAPE_Y, y->descriptor);
    add_operation(graph, op);
}

/* --- plans ------------------------------------------------------------------------------------ */

/* Does the engine of this configuration say that its bits may differ between runs? Notes that cannot be
 * read count as yes. */
static bool is_nondeterministic(cudnn_graph *graph, void *config)
{
    const p4_cudnn_functions *call = &graph->cudnn->call;
    int notes[N_NOTE_COUNT];
    int64_t count = 0;
    void *engine = make(graph, N_IS_ENGINE);
    if (!engine || call->get(config, N_CONFIG_ENGINE, N_TYPE_DESCRIPTOR, 1, &count, &engine) != 0 ||
        call->get(engine, N_ENGINE_NOTES, N_TYPE_NUMERICAL_NOTE, N_NOTE_COUNT, &count, notes) != 0) {
        return true;
    }
    for (int64_t i = 0; i < count; i++) {
        if (notes[i] == N_NOTE_NONDETERMINISTIC) {
            return true;
        }
    }
    return false;
}

/* Makes the plan of one configuration. It is no failure of the graph when an engine does not accept it. */
static bool try_config(cudnn_graph *graph, void *config)
{
    int64_t count = 0;
    void *plan = make(graph, N_IS_PLAN);
    set(graph, plan, N_PLAN_HANDLE, N_TYPE_HANDLE, 1, &graph->cudnn->handle);
    set_descriptor(graph, plan, N_PLAN_CONFIG, config);
    if (graph->status == 0 && graph->cudnn->call.finalize(plan) == 0 &&
        graph->cudnn->call.get(plan, N_PLAN_WORKSPACE, N_TYPE_INT64, 1, &count, &graph->workspace_bytes) ==
            0) {
        graph->plan = plan;
    }
    return graph->plan != NULL;
}

void p4_cudnn_plan(cudnn_graph *graph, bool deterministic)
{
    void *configs[CUDNN_GRAPH_CONFIGS];
    int64_t count = 0;
    void *operations = make(graph, N_IS_GRAPH);
    set(graph, operations, N_GRAPH_HANDLE, N_TYPE_HANDLE, 1, &graph->cudnn->handle);
    set(graph, operations, N_GRAPH_OPS, N_TYPE_DESCRIPTOR, graph->op_count, graph->ops);
    finalize(graph, operations);
    void *heuristic = make(graph, N_IS_HEURISTIC);
    set_descriptor(graph, heuristic, N_HEURISTIC_GRAPH, operations);
    set_number(graph, heuristic, N_HEURISTIC_MODE, N_TYPE_HEURISTIC, N_HEURISTIC_A);
    finalize(graph, heuristic);
    for (int i = 0; i < CUDNN_GRAPH_CONFIGS; i++) {
        configs[i] = make(graph, N_IS_CONFIG);
    }
    if (graph->status == 0) {
        graph->status = graph->cudnn->call.get(heuristic, N_HEURISTIC_RESULTS, N_TYPE_DESCRIPTOR,
                                               CUDNN_GRAPH_CONFIGS, &count, configs);
    }
    for (int64_t i = 0; graph->status == 0 && i < count; i++) {
        if (!(deterministic && is_nondeterministic(graph, configs[i])) && try_config(graph, configs[i])) {
            break;
        }
    }
}

void p4_cudnn_graph_close(cudnn_graph *graph)
{
    while (graph->made_count > 0) {
        graph->cudnn->call.destroy_descriptor(graph->made[--graph->made_count]);
    }
    graph->plan = NULL;
}

int p4_cudnn_run(const cudnn_graph *graph, const cudnn_bindings *bindings, void *workspace)
{
    const p4_cudnn_functions *call = &graph->cudnn->call;
    void *pack = NULL;
    int status = call->create_descriptor(N_IS_PACK, &pack);
    if (status != 0) {
        return status;
    }
    status = call->set(pack, N_PACK_POINTERS, N_TYPE_POINTER, bindings->count, bindings->at);
    if (status == 0) {
        status = call->set(pack, N_PACK_IDS, N_TYPE_INT64, bindings->count, bindings->id);
    }
    if (status == 0) {
        status = call->set(pack, N_PACK_WORKSPACE, N_TYPE_POINTER, 1, &workspace);
    }
    if (status == 0) {
        status = call->finalize(pack);
    }
    if (status == 0) {
        status = call->execute(graph->cudnn->handle, graph->plan, pack);
    }
    call->destroy_descriptor(pack);
    return status;
}
