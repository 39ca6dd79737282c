/* cudnn_abi.h - the numbers of cuDNN 9's graph interface that the project sends, as cudnn_graph.h has them. */
#ifndef P4_KERNELS_CUDNN_ABI_H
#define P4_KERNELS_CUDNN_ABI_H

/* X(our name, cuDNN's name, number) */
#define P4_CUDNN_NUMBERS(X)                                                          \
    X(DATA_FP32, CUDNN_DATA_FLOAT, 0)                                                \
    X(DATA_INT32, CUDNN_DATA_INT32, 4)                                               \
    X(DATA_BF16, CUDNN_DATA_BFLOAT16, 9)                                             \
    X(DATA_BOOL, CUDNN_DATA_BOOLEAN, 11)                                             \
    X(POINTWISE_ADD, CUDNN_POINTWISE_ADD, 0)                                         \
    X(POINTWISE_MUL, CUDNN_POINTWISE_MUL, 1)                                         \
    X(POINTWISE_DIV, CUDNN_POINTWISE_DIV, 6)                                         \
    X(POINTWISE_SUB, CUDNN_POINTWISE_SUB, 9)                                         \
    X(POINTWISE_EXP, CUDNN_POINTWISE_EXP, 13)                                        \
    X(POINTWISE_LOG, CUDNN_POINTWISE_LOG, 15)                                        \
    X(POINTWISE_IDENTITY, CUDNN_POINTWISE_IDENTITY, 21)                              \
    X(POINTWISE_CMP_GT, CUDNN_POINTWISE_CMP_GT, 302)                                 \
    X(POINTWISE_CMP_GE, CUDNN_POINTWISE_CMP_GE, 303)                                 \
    X(POINTWISE_GEN_INDEX, CUDNN_POINTWISE_GEN_INDEX, 501)                           \
    X(POINTWISE_SELECT, CUDNN_POINTWISE_BINARY_SELECT, 601)                          \
    X(REDUCE_ADD, CUDNN_REDUCE_TENSOR_ADD, 0)                                        \
    X(REDUCE_MAX, CUDNN_REDUCE_TENSOR_MAX, 3)                                        \
    X(HEURISTIC_A, CUDNN_HEUR_MODE_A, 3)                                             \
    X(NOTE_NONDETERMINISTIC, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC, 4)               \
    X(NOTE_COUNT, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, 10)                               \
    X(TYPE_HANDLE, CUDNN_TYPE_HANDLE, 0)                                             \
    X(TYPE_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1)                                       \
    X(TYPE_BOOL, CUDNN_TYPE_BOOLEAN, 2)                                              \
    X(TYPE_INT64, CUDNN_TYPE_INT64, 3)                                               \
    X(TYPE_FLOAT, CUDNN_TYPE_FLOAT, 4)                                               \
    X(TYPE_POINTER, CUDNN_TYPE_VOID_PTR, 6)                                          \
    X(TYPE_HEURISTIC, CUDNN_TYPE_HEUR_MODE, 8)                                       \
    X(TYPE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, 11)                            \
    X(TYPE_POINTWISE, CUDNN_TYPE_POINTWISE_MODE, 14)                                 \
    X(TYPE_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 15)                            \
    X(TYPE_REDUCTION, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 18)                        \
    X(IS_POINTWISE, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, 0)                           \
    X(IS_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 2)                                 \
    X(IS_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, 3)                              \
    X(IS_HEURISTIC, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, 4)                          \
    X(IS_PLAN, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, 5)                           \
    X(IS_POINTWISE_OP, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, 13)             \
    X(IS_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, 15)                         \
    X(IS_PACK, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, 16)                            \
    X(IS_TENSOR, CUDNN_BACKEND_TENSOR_DESCRIPTOR, 17)                                \
    X(IS_MATMUL, CUDNN_BACKEND_MATMUL_DESCRIPTOR, 18)                                \
    X(IS_MATMUL_OP, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, 19)                   \
    X(IS_REDUCTION, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, 21)                          \
    X(IS_REDUCTION_OP, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, 22)             \
    X(IS_RESHAPE_OP, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, 31)                 \
    X(POINTWISE_MODE, CUDNN_ATTR_POINTWISE_MODE, 0)                                  \
    X(POINTWISE_MATH, CUDNN_ATTR_POINTWISE_MATH_PREC, 1)                             \
    X(POINTWISE_AXIS, CUDNN_ATTR_POINTWISE_AXIS, 9)                                  \
    X(HEURISTIC_MODE, CUDNN_ATTR_ENGINEHEUR_MODE, 200)                               \
    X(HEURISTIC_GRAPH, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, 201)                   \
    X(HEURISTIC_RESULTS, CUDNN_ATTR_ENGINEHEUR_RESULTS, 202)                         \
    X(CONFIG_ENGINE, CUDNN_ATTR_ENGINECFG_ENGINE, 300)                               \
    X(PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, 400)                            \
    X(PLAN_CONFIG, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 401)                     \
    X(PLAN_WORKSPACE, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 402)                 \
    X(POINTWISE_OP, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 750)               \
    X(POINTWISE_X, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, 751)                        \
    X(POINTWISE_B, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, 752)                        \
    X(POINTWISE_Y, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, 753)                        \
    X(POINTWISE_ALPHA1, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, 754)                  \
    X(POINTWISE_ALPHA2, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 755)                  \
    X(POINTWISE_T, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, 758)                        \
    X(GRAPH_HANDLE, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, 800)                           \
    X(GRAPH_OPS, CUDNN_ATTR_OPERATIONGRAPH_OPS, 801)                                 \
    X(TENSOR_ALIGNMENT, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 900)                       \
    X(TENSOR_TYPE, CUDNN_ATTR_TENSOR_DATA_TYPE, 901)                                 \
    X(TENSOR_DIM, CUDNN_ATTR_TENSOR_DIMENSIONS, 902)                                 \
    X(TENSOR_STRIDE, CUDNN_ATTR_TENSOR_STRIDES, 903)                                 \
    X(TENSOR_ID, CUDNN_ATTR_TENSOR_UNIQUE_ID, 906)                                   \
    X(TENSOR_INSIDE, CUDNN_ATTR_TENSOR_IS_VIRTUAL, 907)                              \
    X(TENSOR_SCALAR, CUDNN_ATTR_TENSOR_IS_BY_VALUE, 908)                             \
    X(PACK_IDS, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, 1000)                            \
    X(PACK_POINTERS, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, 1001)                    \
    X(PACK_WORKSPACE, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, 1003)                       \
    X(ENGINE_NOTES, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, 1303)                          \
    X(MATMUL_MATH, CUDNN_ATTR_MATMUL_COMP_TYPE, 1500)                                \
    X(MATMUL_A, CUDNN_ATTR_OPERATION_MATMUL_ADESC, 1520)                             \
    X(MATMUL_B, CUDNN_ATTR_OPERATION_MATMUL_BDESC, 1521)                             \
    X(MATMUL_C, CUDNN_ATTR_OPERATION_MATMUL_CDESC, 1522)                             \
    X(MATMUL_OP, CUDNN_ATTR_OPERATION_MATMUL_DESC, 1523)                             \
    X(REDUCTION_MODE, CUDNN_ATTR_REDUCTION_OPERATOR, 1600)                           \
    X(REDUCTION_MATH, CUDNN_ATTR_REDUCTION_COMP_TYPE, 1601)                          \
    X(REDUCTION_X, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, 1610)                       \
    X(REDUCTION_Y, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, 1611)                       \
    X(REDUCTION_OP, CUDNN_ATTR_OPERATION_REDUCTION_DESC, 1612)                       \
    X(RESHAPE_X, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, 2200)                           \
    X(RESHAPE_Y, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, 2201)

#define P4_CUDNN_ENUMERATOR(ours, theirs, number) N_##ours = number,
enum { P4_CUDNN_NUMBERS(P4_CUDNN_ENUMERATOR) };

#endif
