/* pack.cu - 2-bit codes to base 3 and back. Twenty codes, 5 bytes of them, are 4 bytes of five trits u = t +
 * 1 each: a group. A block takes consecutive groups of the whole matrix: what they read and what they write
 * is one stretch of bytes each, which goes through shared memory so that global accesses are 16 bytes wide.
 */
#include "kernels/cuda/cuda.cuh"

enum {
    PACK_THREADS = 256,
    PACK_GROUPS = 1024, /* of a block */
    CODES_A_GROUP = 20,
    CODE_BYTES = 5,
    TRIT_BYTES = 4,
    STAGE_SLACK = 2 * P4_VECTOR_BYTES /* a stretch starts anywhere in its first 16 bytes */
};

typedef struct pack_task {
    uint8_t *to;
    const uint8_t *from;
    int64_t cols, row_groups, groups; /* groups: of all rows */
    int64_t to_row, from_row;         /* bytes of a row */
    float row_groups_inverse;
} pack_task;

/* A group's place. */
typedef struct group_place {
    int64_t row, group; /* group: in its row */
} group_place;

/* A block's groups and the two stretches of bytes. */
typedef struct pack_block {
    group_place first;
    int count;
    int64_t from_start, from_end, to_start, to_end;
} pack_block;

static __device__ __forceinline__ int64_t byte_of(int64_t row, int64_t group, int64_t row_bytes,
                                                  int group_bytes)
{
    return row * row_bytes + min(group * group_bytes, row_bytes);
}

/* By one thread for the block: the divisions are 64 bits wide. */
static __device__ __forceinline__ pack_block make_block(const pack_task *k, int from_bytes, int to_bytes)
{
    pack_block b;
    const int64_t start = (int64_t)blockIdx.x * PACK_GROUPS, last = min(start + PACK_GROUPS, k->groups) - 1;
    b.first.row = start / k->row_groups;
    b.first.group = start % k->row_groups;
    b.count = (int)(last - start) + 1;
    b.from_start = byte_of(b.first.row, b.first.group, k->from_row, from_bytes);
    b.to_start = byte_of(b.first.row, b.first.group, k->to_row, to_bytes);
    b.from_end = byte_of(last / k->row_groups, last % k->row_groups + 1, k->from_row, from_bytes);
    b.to_end = byte_of(last / k->row_groups, last % k->row_groups + 1, k->to_row, to_bytes);
    return b;
}

/* The position of the block's group `index`. The quotient is computed in floats, which is exact: both
 * numbers are below PACK_GROUPS. */
static __device__ __forceinline__ group_place place_of(const pack_task *k, const pack_block *b, int index)
{
    group_place place = {b->first.row, b->first.group + index};
    if (place.group >= k->row_groups) {
        place.group -= k->row_groups; /* less than a row before the block's first group */
        place.row += 1;
        if (place.group >= k->row_groups) {
            const int rows = (int)(((float)place.group + 0.5f) * k->row_groups_inverse);
            place.row += rows;
            place.group -= rows * k->row_groups;
        }
    }
    return place;
}

/* Copies a stretch into shared memory, byte `start` to stage[its address mod 16]; the offset of byte 0. */
static __device__ __forceinline__ int64_t stage_in(uint8_t *stage, const uint8_t *from, int64_t start,
                                                   int64_t end)
{
    const int skew = (int)(P4_ADDRESS(from + start) % P4_VECTOR_BYTES);
    const int bytes = (int)(end - start);
    const uint8_t *base = from + start;
    const int head = min((P4_VECTOR_BYTES - skew) % P4_VECTOR_BYTES, bytes);
    const int wide = (bytes - head) / P4_VECTOR_BYTES, tail = head + wide * P4_VECTOR_BYTES;
    for (int i = (int)threadIdx.x; i < head; i += PACK_THREADS) {
        stage[skew + i] = base[i];
    }
    for (int i = (int)threadIdx.x; i < wide; i += PACK_THREADS) {
        *(uint4 *)(stage + skew + head + i * P4_VECTOR_BYTES) =
            *(const uint4 *)(base + head + i * P4_VECTOR_BYTES);
    }
    for (int i = tail + (int)threadIdx.x; i < bytes; i += PACK_THREADS) {
        stage[skew + i] = base[i];
    }
    return skew - start;
}

/* The opposite direction. */
static __device__ __forceinline__ void stage_out(uint8_t *to, const uint8_t *stage, int64_t start,
                                                 int64_t end)
{
    const int skew = (int)(P4_ADDRESS(to + start) % P4_VECTOR_BYTES);
    const int bytes = (int)(end - start);
    uint8_t *base = to + start;
    const int head = min((P4_VECTOR_BYTES - skew) % P4_VECTOR_BYTES, bytes);
    const int wide = (bytes - head) / P4_VECTOR_BYTES, tail = head + wide * P4_VECTOR_BYTES;
    for (int i = (int)threadIdx.x; i < head; i += PACK_THREADS) {
        base[i] = stage[skew + i];
    }
    for (int i = (int)threadIdx.x; i < wide; i += PACK_THREADS) {
        *(uint4 *)(base + head + i * P4_VECTOR_BYTES) =
            *(const uint4 *)(stage + skew + head + i * P4_VECTOR_BYTES);
    }
    for (int i = tail + (int)threadIdx.x; i < bytes; i += PACK_THREADS) {
        base[i] = stage[skew + i];
    }
}

/* Eight bytes from `at` on: shared memory is read by words, and reaches beyond every stretch by STAGE_SLACK.
 */
static __device__ __forceinline__ uint64_t read_bytes(const uint8_t *stage, int at)
{
    const uint32_t *word = (const uint32_t *)(stage + (at & ~3));
    const int shift = 8 * (at & 3);
    const uint64_t low = (uint64_t)word[1] << 32 | word[0];
    return shift ? low >> shift | (uint64_t)word[2] << (64 - shift) : low;
}

/* Five codes -> byte. */
static __device__ __forceinline__ uint32_t trits_of(uint32_t codes)
{
    uint32_t spread = codes & 0xffu;
    spread = (spread | spread << 12) & 0x000f000fu;
    spread = (spread | spread << 6) & 0x03030303u; /* a code a byte */
    return __dp4a(spread, 0x03091b51u, codes >> 8 & 3u);
}

/* Two bytes b, 16 bits apart -> five codes each, 16 bits apart. With t_n = floor(b / 3^n) the codes are b - 3
 * t_1, t_1 - 3 t_2, ..., t_4, the last first: their sum by powers of 4 is 256 b - 11 (64 t_1 + 16 t_2 + 4 t_3
 * + t_4). The quotients are products with reciprocals, exact up to 255 and below 2^16. */
static __device__ __forceinline__ uint32_t codes_of(uint32_t bytes)
{
    const uint32_t t1 = bytes * 171 >> 9 & 0x007f007fu, t2 = bytes * 57 >> 9 & 0x007f007fu;
    const uint32_t t3 = bytes * 19 >> 9 & 0x007f007fu, t4 = bytes * 203 >> 14 & 0x00030003u;
    return (bytes << 8) - 11 * (64 * t1 + 16 * t2 + 4 * t3 + t4);
}

__global__ void __launch_bounds__(PACK_THREADS) pack_groups(pack_task k)
{
    alignas(16) __shared__ uint8_t from[CODE_BYTES * PACK_GROUPS + STAGE_SLACK];
    alignas(16) __shared__ uint8_t to[TRIT_BYTES * PACK_GROUPS + STAGE_SLACK];
    __shared__ pack_block b;
    if (threadIdx.x == 0) {
        b = make_block(&k, CODE_BYTES, TRIT_BYTES);
    }
    __syncthreads();
    const int64_t from_shift = stage_in(from, k.from, b.from_start, b.from_end);
    const int64_t to_shift = (int64_t)(P4_ADDRESS(k.to + b.to_start) % P4_VECTOR_BYTES) - b.to_start;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < b.count; i += PACK_THREADS) {
        const group_place place = place_of(&k, &b, i);
        const int64_t row_from = place.row * k.from_row + place.group * CODE_BYTES;
        const int64_t row_to = place.row * k.to_row + place.group * TRIT_BYTES;
        const int bytes = (int)min((int64_t)TRIT_BYTES, k.to_row - place.group * TRIT_BYTES);
        const int codes = (int)min((int64_t)CODES_A_GROUP, k.cols - place.group * CODES_A_GROUP);
        const uint64_t own = (1ull << 2 * codes) - 1; /* the codes beyond are 1 */
        const uint64_t group =
            (read_bytes(from, (int)(row_from + from_shift)) & own) | (0x5555555555ull & ~own);
        for (int t = 0; t < bytes; t++) {
            to[row_to + to_shift + t] = (uint8_t)trits_of((uint32_t)(group >> 10 * t));
        }
    }
    __syncthreads();
    stage_out(k.to, to, b.to_start, b.to_end);
}

__global__ void __launch_bounds__(PACK_THREADS) unpack_groups(pack_task k)
{
    alignas(16) __shared__ uint8_t from[TRIT_BYTES * PACK_GROUPS + STAGE_SLACK];
    alignas(16) __shared__ uint8_t to[CODE_BYTES * PACK_GROUPS + STAGE_SLACK];
    __shared__ pack_block b;
    if (threadIdx.x == 0) {
        b = make_block(&k, TRIT_BYTES, CODE_BYTES);
    }
    __syncthreads();
    const int64_t from_shift = stage_in(from, k.from, b.from_start, b.from_end);
    const int64_t to_shift = (int64_t)(P4_ADDRESS(k.to + b.to_start) % P4_VECTOR_BYTES) - b.to_start;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < b.count; i += PACK_THREADS) {
        const group_place place = place_of(&k, &b, i);
        const int64_t row_from = place.row * k.from_row + place.group * TRIT_BYTES;
        const int64_t row_to = place.row * k.to_row + place.group * CODE_BYTES;
        const int bytes = (int)min((int64_t)CODE_BYTES, k.to_row - place.group * CODE_BYTES);
        const int codes = (int)min((int64_t)CODES_A_GROUP, k.cols - place.group * CODES_A_GROUP);
        const uint32_t trits = (uint32_t)read_bytes(from, (int)(row_from + from_shift));
        const uint32_t even = codes_of(trits & 0x00ff00ffu), odd = codes_of(trits >> 8 & 0x00ff00ffu);
        const uint64_t low = (even & 0x3ffu) | (odd & 0x3ffu) << 10,
                       high = (even >> 16 & 0x3ffu) | (odd >> 16 & 0x3ffu) << 10;
        const uint64_t own = (1ull << 2 * codes) - 1;
        const uint64_t group = ((low | high << 20) & own) | (0x5555555555ull & ~own);
        for (int t = 0; t < bytes; t++) {
            to[row_to + to_shift + t] = (uint8_t)(group >> 8 * t);
        }
    }
    __syncthreads();
    stage_out(k.to, to, b.to_start, b.to_end);
}

static pack_task make_task(void *to, const void *from, int64_t rows, int64_t cols, int64_t to_row,
                           int64_t from_row)
{
    pack_task k;
    k.to = (uint8_t *)to;
    k.from = (const uint8_t *)from;
    k.cols = cols;
    k.row_groups = p4_ceil_div(cols, CODES_A_GROUP);
    k.groups = rows * k.row_groups;
    k.to_row = to_row;
    k.from_row = from_row;
    k.row_groups_inverse = 1.0f / (float)k.row_groups;
    return k;
}

void p4_cuda_pack_base3(p4_device *device, uint8_t *packed, const uint8_t *codes, int64_t rows, int64_t cols)
{
    if (rows > 0 && cols > 0) {
        const pack_task k =
            make_task(packed, codes, rows, cols, p4_ceil_div(cols, 5), p4_code_row_bytes(cols));
        pack_groups<<<(unsigned)p4_ceil_div(k.groups, PACK_GROUPS), PACK_THREADS, 0, device->stream>>>(k);
        p4_cuda_launched(device, "pack_base3");
    }
}

void p4_cuda_unpack_base3(p4_device *device, uint8_t *codes, const uint8_t *packed, int64_t rows,
                          int64_t cols)
{
    if (rows > 0 && cols > 0) {
        const pack_task k =
            make_task(codes, packed, rows, cols, p4_code_row_bytes(cols), p4_ceil_div(cols, 5));
        unpack_groups<<<(unsigned)p4_ceil_div(k.groups, PACK_GROUPS), PACK_THREADS, 0, device->stream>>>(k);
        p4_cuda_launched(device, "unpack_base3");
    }
}
