/* Rows picked by number: exact, some more than once, and nothing beside them. */
#include "ops_cases.h"

static void check_gather_rows(rig *r)
{
    static const struct {
        int64_t rows, count, row_bytes, at; /* at: bytes by which both arrays are off a multiple of 16 */
    } shapes[] = {{9, 5, 4096, 0},  {4, 7, 18, 0}, {700, 600, 48, 0},
                  {3, 2, 70000, 0}, {6, 6, 64, 2}, {1, 1, 2, 0}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t each = shapes[s].row_bytes, count = shapes[s].count, at = shapes[s].at;
        int64_t from_bytes = at + shapes[s].rows * each, to_bytes = at + count * each + 32;
        uint8_t *from = rig_host(r, from_bytes), *want = rig_host(r, to_bytes);
        int64_t *picked = rig_host(r, count * (int64_t)sizeof *picked);
        for (int64_t i = 0; i < from_bytes; i++) {
            from[i] = (uint8_t)p4_rng_below(&r->rng, 256);
        }
        memset(want, 0xff, (size_t)to_bytes);
        for (int64_t i = 0; i < count; i++) {
            picked[i] = (int64_t)p4_rng_below(&r->rng, (uint64_t)shapes[s].rows);
            memcpy(want + at + i * each, from + at + picked[i] * each, (size_t)each);
        }
        char *to = rig_put(r, NULL, to_bytes), *x = rig_put(r, from, from_bytes);
        r->ops->gather_rows(r->device, to + at, x + at, picked, count, each);
        EXPECT(memcmp(rig_get(r, to, to_bytes), want, (size_t)to_bytes) == 0,
               "gather_rows: shape %zu differs", s);
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"gather_rows", check_gather_rows}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
