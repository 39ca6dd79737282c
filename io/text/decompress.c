/* Layers of gzip and zstd, through zlib and libzstd. libarchive reads both too, and tar, xz and bzip2 go
 * through it (archive_stream.c), but for these two it is not good enough (3.6.2): of gzip it checks no
 * checksum, drops a second member whose header is damaged and ends at a cut trailer, all without a word; and
 * it refuses zstd frames with windows above 128 MiB, which `zstd --long=31` makes. */
#include "io/text/byte_stream.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* ---- gzip ---- */

typedef struct gzip {
    z_stream z;
    bool between; /* a member has ended, no next one has begun */
} gzip;

static bool is_gzip(const char *bytes, size_t count)
{
    return count >= 2 && memcmp(bytes, "\x1f\x8b", 2) == 0;
}

/* After a member: another one begins (RFC 1952 allows any number), or the file ends, perhaps with zero
 * padding. */
static p4_rc gzip_next_member(p4_stream *stream, bool *ended)
{
    gzip *state = stream->state;
    const char *bytes;
    size_t count;
    for (;;) {
        p4_rc rc = p4_stream_peek(stream->below, 2, &bytes, &count);
        if (rc != P4_OK) {
            return rc;
        }
        if (count == 0) {
            *ended = true;
            return P4_OK;
        }
        if (is_gzip(bytes, count)) {
            state->between = false;
            return inflateReset(&state->z) == Z_OK ? P4_OK : FAULT("%s: zlib cannot be reset", stream->name);
        }
        if (bytes[0] != '\0') {
            return FAIL(
                "%s: after a gzip member comes 0x%02x, expected another member (0x1f 0x8b) or the end",
                stream->name, (unsigned char)bytes[0]);
        }
        p4_stream_skip(stream->below, 1);
    }
}

static p4_rc produce_gzip(p4_stream *stream, char *to, size_t capacity, size_t *count)
{
    p4_rc rc = P4_OK;
    gzip *state = stream->state;
    state->z.next_out = (unsigned char *)to;
    state->z.avail_out = (unsigned)capacity;
    while (state->z.avail_out == capacity) {
        bool ended = false;
        if (state->between) {
            TRY(gzip_next_member(stream, &ended));
        }
        if (ended) {
            break;
        }
        const char *bytes;
        size_t available;
        TRY(p4_stream_peek(stream->below, 1, &bytes, &available));
        CHECK(available > 0, "%s: the gzip data ends early: the file is truncated", stream->name);
        state->z.next_in = (unsigned char *)(uintptr_t)bytes; /* zlib's pointer lacks const */
        state->z.avail_in = (unsigned)available;
        int status = inflate(&state->z, Z_NO_FLUSH);
        p4_stream_skip(stream->below, available - state->z.avail_in);
        CHECK(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR, "%s: damaged gzip data: %s",
              stream->name, state->z.msg != NULL ? state->z.msg : zError(status));
        state->between = status == Z_STREAM_END;
    }
    *count = capacity - state->z.avail_out;
done:
    return rc;
}

static void release_gzip(p4_stream *stream)
{
    gzip *state = stream->state;
    inflateEnd(&state->z);
    free(state);
}

static p4_rc gzip_open(p4_stream *stream)
{
    gzip *state = p4_alloc(1, sizeof *state);
    if (state == NULL) {
        return P4_E_SYSTEM;
    }
    if (inflateInit2(&state->z, 15 + 16) != Z_OK) { /* 15: the largest window; +16: gzip only */
        free(state);
        return FAULT("%s: zlib cannot be started", stream->name);
    }
    stream->state = state;
    stream->produce = produce_gzip;
    stream->release = release_gzip;
    return P4_OK;
}

/* ---- zstd ---- */

typedef struct zstd {
    ZSTD_DCtx *context;
    bool inside; /* a frame has begun and not ended */
} zstd;

static bool is_zstd(const char *bytes, size_t count)
{
    const unsigned char *b = (const unsigned char *)bytes;
    bool frame = count >= 4 && memcmp(b, "\x28\xb5\x2f\xfd", 4) == 0;
    bool skippable = count >= 4 && (b[0] & 0xf0) == 0x50 && memcmp(b + 1, "\x2a\x4d\x18", 3) == 0;
    return frame || skippable;
}

static p4_rc produce_zstd(p4_stream *stream, char *to, size_t capacity, size_t *count)
{
    p4_rc rc = P4_OK;
    zstd *state = stream->state;
    ZSTD_outBuffer out = {to, capacity, 0};
    while (out.pos == 0) {
        const char *bytes;
        size_t available;
        TRY(p4_stream_peek(stream->below, 1, &bytes, &available));
        if (available == 0 && !state->inside) {
            break;
        }
        ZSTD_inBuffer in = {bytes, available, 0};
        size_t status = ZSTD_decompressStream(state->context, &out, &in);
        p4_stream_skip(stream->below, in.pos);
        CHECK(!ZSTD_isError(status), "%s: damaged zstd data: %s", stream->name, ZSTD_getErrorName(status));
        state->inside = status != 0; /* 0: a frame is complete; the next begins by itself */
        CHECK(available > 0 || out.pos > 0 || !state->inside,
              "%s: the zstd data ends early: the file is truncated", stream->name);
    }
    *count = out.pos;
done:
    return rc;
}

static void release_zstd(p4_stream *stream)
{
    zstd *state = stream->state;
    ZSTD_freeDCtx(state->context);
    free(state);
}

static p4_rc zstd_open(p4_stream *stream)
{
    zstd *state = p4_alloc(1, sizeof *state);
    if (state == NULL) {
        return P4_E_SYSTEM;
    }
    state->context = ZSTD_createDCtx();
    stream->state = state;
    stream->produce = produce_zstd;
    stream->release = release_zstd;
    if (state->context == NULL) {
        return FAULT("%s: zstd cannot be started", stream->name);
    }
    /* Files made with `zstd --long=31` are common among text datasets; the library's own limit is 27. */
    size_t status = ZSTD_DCtx_setParameter(state->context, ZSTD_d_windowLogMax, 31);
    return ZSTD_isError(status) ? FAULT("%s: zstd window 31: %s", stream->name, ZSTD_getErrorName(status))
                                : P4_OK;
}

/* ---- layers ---- */

static const struct layer {
    const char *name;
    bool (*matches)(const char *bytes, size_t count);
    p4_rc (*open)(p4_stream *stream);
} layer_table[] = {{"gzip", is_gzip, gzip_open}, {"zstd", is_zstd, zstd_open}};

static p4_rc find_layer(p4_stream *stream, const struct layer **layer)
{
    const char *bytes;
    size_t count;
    p4_rc rc = p4_stream_peek(stream, 4, &bytes, &count);
    *layer = NULL;
    for (size_t i = 0; rc == P4_OK && i < sizeof layer_table / sizeof layer_table[0]; i++) {
        if (layer_table[i].matches(bytes, count)) {
            *layer = &layer_table[i];
        }
    }
    return rc;
}

p4_rc p4_stream_decompress(p4_stream **stream, int *layers)
{
    p4_rc rc = P4_OK;
    const struct layer *layer;
    TRY(find_layer(*stream, &layer));
    while (layer != NULL) {
        CHECK((*layers)-- > 0, "%s: compressed too many times over", (*stream)->name);
        p4_stream *made;
        TRY(p4_stream_create(&made, (*stream)->name));
        made->below = *stream;
        *stream = made;
        TRY(layer->open(made));
        TRY(find_layer(*stream, &layer));
    }
done:
    return rc;
}

p4_rc p4_stream_is_packed(p4_stream *stream, bool *packed)
{
    const struct layer *layer;
    const char *bytes;
    size_t count;
    p4_rc rc = find_layer(stream, &layer);
    if (rc == P4_OK && (rc = p4_stream_peek(stream, 10, &bytes, &count)) == P4_OK) {
        *packed = layer != NULL || p4_bytes_are_xz(bytes, count) || p4_bytes_are_bzip2(bytes, count);
    }
    return rc;
}
