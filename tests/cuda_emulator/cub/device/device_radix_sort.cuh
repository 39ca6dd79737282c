#pragma once
#include <algorithm>
#include <numeric>
#include <vector>
namespace cub {
struct DeviceRadixSort {
    template <typename K, typename V>
    static cudaError_t SortPairs(void *temp, size_t &bytes, const K *in, K *out, const V *vin, V *vout, int n, int, int end_bit, cudaStream_t stream)
    {
        if (!temp) { bytes = 1000; return cudaSuccess; }
        const size_t used = bytes;
        emu_queue(stream, [=]() {
            emu_access access;
            std::vector<int> order(n);
            std::iota(order.begin(), order.end(), 0);
            K mask = (K)((1ll << end_bit) - 1);
            std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return (in[a] & mask) < (in[b] & mask); });
            for (int i = 0; i < n; i++) { out[i] = in[order[i]]; vout[i] = vin[order[i]]; }
            memset(temp, 0xee, used);
        });
        return cudaSuccess;
    }
};
}
