/* mixture.h - text from several sources in given shares. */
#ifndef P4_MIXTURE_H
#define P4_MIXTURE_H

#include "src/leaf/base.h"
#include "src/phase4/types.h"

/* Which source each file belongs to: the entry of the list that named it. Files of one source stand together.
 */
typedef struct p4_mixture {
    int64_t source_count;         /* 0: no shares are given, files count by their sizes */
    double share[P4_NUMBERS_MAX]; /* of each source; together 1 */
    int32_t *source;              /* [files] */
} p4_mixture;

/* weights [count], of `count` files, in proportion to which windows or bytes are drawn: rescaled so that
 * those of each source have its share together, and keep their proportions. Sources that have none leave
 * theirs to the others. Local. */
void p4_mixture_apply(const p4_mixture *mixture, double *weights, int64_t count);

/* Windows by sources: source s has [end[s - 1], end[s]) of them. */
typedef struct p4_mixed_windows {
    int64_t source_count; /* 0: they are not mixed */
    int64_t end[P4_NUMBERS_MAX];
    double share[P4_NUMBERS_MAX];
} p4_mixed_windows;

/* order [count]: the windows that an epoch takes, as many as there are, in random order; count is the end of
 * the last source. A source gives its share, whether it has as many windows or not: it goes through all of
 * them, each time in another order, before any comes again, from one epoch to the next. Each has a window at
 * least. work [2 * count] is overwritten. Local. */
void p4_mixed_order(uint32_t *order, uint32_t *work, const p4_mixed_windows *windows, uint64_t seed,
                    int64_t epoch);

void p4_mixture_free(p4_mixture *mixture);

#endif
