/* token_stream.h - the tokens of several files, wherever each lies in memory, as one stream of which any part
 * can be read. */
#ifndef P4_TOKEN_STREAM_H
#define P4_TOKEN_STREAM_H

#include "src/leaf/base.h"

/* Tokens of one file, which somebody else owns. */
typedef struct p4_token_part {
    const void *ids; /* [count] of id_bytes, 2 or 4 */
    int id_bytes;
    int64_t first, count; /* tokens [first, first + count) of the stream */
} p4_token_part;

typedef struct p4_token_stream {
    p4_token_part *parts; /* [part_count], in order; a part may be empty */
    int64_t part_count, capacity;
    int64_t count; /* of all tokens */
} p4_token_stream;

/* Appends a part. Local. */
p4_rc p4_token_stream_add(p4_token_stream *stream, const void *ids, int id_bytes, int64_t count);
/* The index of the part that holds token `at`, below stream->count. Local. */
int64_t p4_token_stream_find(const p4_token_stream *stream, int64_t at);
/* ids [count]: tokens [first, first + count), which the stream holds. Local. */
void p4_token_stream_read(const p4_token_stream *stream, int32_t *ids, int64_t first, int64_t count);
void p4_token_stream_free(p4_token_stream *stream);

#endif
