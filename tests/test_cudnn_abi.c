/* The numbers that kernels/cuda/cudnn_abi.h repeats are cuDNN's, where its headers are here. */
#include <stdio.h>

#include "check.h"
#include "kernels/cuda/cudnn_abi.h"

#if __has_include(<cudnn_graph.h>) && __has_include(<cuda_runtime.h>)
#include <cudnn_graph.h>
#define SAME(ours, theirs, number) _Static_assert((int)(theirs) == (number), #theirs);
P4_CUDNN_NUMBERS(SAME)

int main(void)
{
    printf("compared with the headers of cuDNN %d.%d\n", CUDNN_MAJOR, CUDNN_MINOR);
    EXPECT(sizeof(cudnnDataType_t) == sizeof(int) && sizeof(cudnnStatus_t) == sizeof(int),
           "enumerations are not int");
    return TEST_END();
}
#else
int main(void)
{
    printf("cuDNN's headers are not here\n");
    return 77;
}
#endif
