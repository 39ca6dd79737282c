/* exports.h - the names that the list `exports` may hold: writers of io/export/writers.h, each alone or with
 * an option behind a colon. */
#ifndef P4_EXPORTS_H
#define P4_EXPORTS_H

#include <stdbool.h>
#include <stddef.h>

#include "src/phase4/types.h"

/* X(writer, options). */
#define P4_EXPORTS(X)                         \
    X(gguf, "q2_0", "tq1_0", "tq2_0", "i2_s") \
    X(compressed_tensors, NULL)               \
    X(mlx, NULL)                              \
    X(bitnet, NULL)

/* For messages: "gguf, gguf:q2_0, ...". Local. */
const char *p4_exports_known(char buffer[256]);
/* Is it a name, with an option that the writer knows or none? Local. */
bool p4_exports_is_known(const char *entry);
/* Bytes of the writer's name in an entry. Local. */
size_t p4_exports_name_bytes(const char *entry);
/* The entry of this writer; NULL: the list has none. Local. */
const char *p4_exports_find(const p4_list *list, const char *writer);
/* What follows the colon; "": nothing. Local. */
const char *p4_exports_option(const char *entry);

#endif
