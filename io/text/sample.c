#include "io/text/sample.h"

#include "io/file/files.h"
#include "io/text/byte_stream.h"
#include "io/text/dataset_parts.h"
#include "src/leaf/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAST_BLOCK_BYTES = 16 << 10,
    BLOCK_BYTES_A_TOKEN = 32, /* a block holds several windows, so that few of them cross its ends */
    SPREAD_BLOCKS = 4096,
    MOST_BYTES_A_TOKEN = 8, /* of text, in its file; what has more falls short and is drawn again */
    PACKED_RATIO = 2,       /* bytes of text a byte of a compressed file, at least */
};

/* Streams of random numbers under the run's seed; the low 32 bits number the files. */
static const uint64_t block_stream = UINT64_C(0x626c6f6300000000), pick_stream = UINT64_C(0x7069636b00000000),
                      share_stream = UINT64_C(0x7368617200000000);

/* ---- dividing ---- */

/* Adds `count` units to shares[i], in proportion to weights[i], as far as caps[i] allows; returns how many
 * found no room. The phase in [0, 1) decides who gets the fractions. */
static int64_t divide(int64_t *shares, const double *weights, const int64_t *caps, int64_t parts,
                      int64_t count, double phase)
{
    double total = 0, sum = 0;
    int64_t given = 0, left = count;
    for (int64_t i = 0; i < parts; i++) {
        total += weights[i];
    }
    for (int64_t i = 0; i < parts && total > 0; i++) {
        sum += weights[i];
        int64_t upto = p4_min_i64(count, (int64_t)floor(sum / total * (double)count + phase));
        int64_t share = p4_min_i64(upto - given, caps[i] - shares[i]);
        given = upto;
        shares[i] += share;
        left -= share;
    }
    return left;
}

/* shares [parts]: `count` units divided in proportion to weights, 1 at least for each part if count allows,
 * caps[i] at most. The caps together are no less than count; what has no room has no weight. Local. */
static p4_rc apportion(int64_t *shares, const double *weights, const int64_t *caps, int64_t parts,
                       int64_t count, uint64_t seed)
{
    p4_rng rng = {.seed = seed, .stream = share_stream};
    double phase = p4_rng_uniform(&rng);
    int64_t open = 0;
    for (int64_t i = 0; i < parts; i++) {
        open += caps[i] > 0;
    }
    int64_t least = count >= open ? 1 : 0, left = count - least * open;
    for (int64_t i = 0; i < parts; i++) {
        shares[i] = caps[i] > 0 ? least : 0;
    }
    left = divide(shares, weights, caps, parts, left, phase);
    if (left == 0) {
        return P4_OK;
    }
    double *room = p4_alloc((size_t)parts, sizeof *room);
    if (room == NULL) {
        return P4_E_SYSTEM;
    }
    while (left > 0) { /* to those that have room, in proportion to it */
        for (int64_t i = 0; i < parts; i++) {
            room[i] = (double)(caps[i] - shares[i]);
        }
        int64_t before = left;
        left = divide(shares, room, caps, parts, left, phase);
        phase = left == before ? 1 - 1e-9 : phase;
    }
    free(room);
    return P4_OK;
}

/* ---- text ---- */

/* An estimate of the bytes of text in a file; 0: a token file. */
static p4_rc estimate_bytes(int64_t *bytes, const char *path)
{
    p4_rc rc = P4_OK;
    p4_stream *stream = NULL;
    bool packed;
    *bytes = 0;
    if (p4_data_kind_of(path) == P4_DATA_TOKENS) {
        return P4_OK;
    }
    TRY(p4_stream_open(&stream, path));
    TRY(p4_stream_is_packed(stream, &packed));
    TRY(p4_file_bytes(bytes, path));
    *bytes = p4_max_i64(1, *bytes * (packed ? PACKED_RATIO : 1));
done:
    p4_stream_close(stream);
    return rc;
}

/* a * b, or INT64_MAX. */
static int64_t product(int64_t a, int64_t b)
{
    int64_t value;
    return __builtin_mul_overflow(a, b, &value) ? INT64_MAX : value;
}

static int64_t block_bytes_of(int64_t T)
{
    return p4_max_i64(LEAST_BLOCK_BYTES, BLOCK_BYTES_A_TOKEN * T);
}

/* Blocks for so many windows. */
static int64_t blocks_for(int64_t windows, int64_t T)
{
    int64_t bytes = product(product(windows, T), MOST_BYTES_A_TOKEN);
    return p4_max_i64(p4_min_i64(windows, SPREAD_BLOCKS), bytes / block_bytes_of(T) + 1);
}

/* To pass over less than half is not worth it. */
static bool draws_all(int64_t wanted, int64_t blocks)
{
    return wanted >= blocks / 2;
}

double p4_drawn_bytes(double bytes, int64_t windows, int64_t T)
{
    double block_bytes = (double)block_bytes_of(T);
    int64_t wanted = blocks_for(windows, T), blocks = (int64_t)ceil(bytes / block_bytes);
    return draws_all(wanted, blocks) ? bytes : (double)wanted * block_bytes;
}

p4_rc p4_plan_draws(p4_draw **draws, char *const *paths, int64_t path_count, const p4_windowing *how,
                    int64_t windows, int attempt)
{
    p4_rc rc = P4_OK;
    const int64_t block_bytes = block_bytes_of(how->T);
    int64_t wanted = blocks_for(windows, how->T), total = 0;
    int64_t *caps = p4_alloc((size_t)path_count, sizeof *caps);
    int64_t *shares = p4_alloc((size_t)path_count, sizeof *shares);
    double *blocks = p4_alloc((size_t)path_count, sizeof *blocks);
    double *weights = p4_alloc((size_t)path_count, sizeof *weights);
    p4_draw *made = p4_alloc((size_t)path_count, sizeof *made);
    *draws = NULL;
    TRY(caps != NULL && shares != NULL && blocks != NULL && weights != NULL && made != NULL ? P4_OK
                                                                                            : P4_E_SYSTEM);
    for (int i = 0; i < attempt; i++) {
        wanted = product(wanted, 2);
    }
    for (int64_t i = 0; i < path_count; i++) {
        TRY(estimate_bytes(&caps[i], paths[i]));
        blocks[i] = (double)caps[i] / (double)block_bytes;
        caps[i] = p4_ceil_div(caps[i], block_bytes);
        total += caps[i];
    }
    if (draws_all(wanted, total)) {
        goto done;
    }
    memcpy(weights, blocks, (size_t)path_count * sizeof *weights);
    p4_mixture_apply(how->opt_mixture, weights, path_count);
    TRY(apportion(shares, weights, caps, path_count, wanted, how->seed));
    for (int64_t i = 0; i < path_count; i++) {
        made[i] = (p4_draw){.block_bytes = block_bytes,
                            .stride = shares[i] > 0 ? fmax(1, blocks[i] / (double)shares[i]) : 0,
                            .seed = how->seed,
                            .stream = block_stream | (uint64_t)i};
    }
    *draws = made;
    made = NULL;
done:
    free(made);
    free(weights);
    free(blocks);
    free(shares);
    free(caps);
    return rc;
}

/* ---- windows ---- */

/* i * whole / parts without overflow, for i <= parts. */
static int64_t scaled(int64_t i, int64_t whole, int64_t parts)
{
    return whole / parts * i + (int64_t)((double)(whole % parts) * (double)i / (double)parts);
}

p4_rc p4_pick_windows(int64_t *picks, int64_t wanted, const p4_window_range *ranges, int64_t range_count,
                      const p4_mixture *opt_mixture, uint64_t seed)
{
    p4_rc rc = P4_OK;
    int64_t first = 0;
    int64_t *caps = p4_alloc((size_t)range_count, sizeof *caps);
    int64_t *shares = p4_alloc((size_t)range_count, sizeof *shares);
    double *weights = p4_alloc((size_t)range_count, sizeof *weights);
    TRY(caps != NULL && shares != NULL && weights != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < range_count; i++) {
        caps[i] = ranges[i].count;
        weights[i] = (double)ranges[i].count * ranges[i].weight;
    }
    p4_mixture_apply(opt_mixture, weights, range_count);
    TRY(apportion(shares, weights, caps, range_count, wanted, seed));
    for (int64_t i = 0; i < range_count; i++) {
        p4_rng rng = {.seed = seed, .stream = pick_stream | (uint64_t)i};
        for (int64_t j = 0; j < shares[i]; j++) { /* one of each of shares[i] equal parts */
            int64_t low = scaled(j, caps[i], shares[i]), high = scaled(j + 1, caps[i], shares[i]);
            *picks++ = first + low + (int64_t)p4_rng_below(&rng, (uint64_t)(high - low));
        }
        first += caps[i];
    }
done:
    free(weights);
    free(shares);
    free(caps);
    return rc;
}
