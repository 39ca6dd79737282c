#include "io/gguf/gguf_view.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file/files.h"
#include "io/gguf/gguf_blocks.h"
#include "src/leaf/mapped.h"

enum { ALIGNMENT = 32, LEAST_KEY_BYTES = 13, LEAST_TENSOR_BYTES = 32 };

/* Bytes of a value of each type; 0: a text or a list. */
static const uint8_t value_bytes[P4_GGUF_VIEW_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* --- the bytes --------------------------------------------------------------------------------- */

typedef struct cursor {
    const char *path;
    const uint8_t *start, *at, *end;
} cursor;

static p4_rc take(cursor *c, void *to, uint64_t bytes)
{
    if ((uint64_t)(c->end - c->at) < bytes) {
        return FAIL("%s: the file ends at byte %lld, where more of its header was expected", c->path,
                    (long long)(c->end - c->start));
    }
    if (to != NULL) {
        memcpy(to, c->at, (size_t)bytes);
    }
    c->at += bytes;
    return P4_OK;
}

static p4_rc take_text(cursor *c, p4_gguf_text *text)
{
    p4_rc rc = P4_OK;
    uint64_t bytes = 0;
    TRY(take(c, &bytes, sizeof bytes));
    *text = (p4_gguf_text){(const char *)c->at, (size_t)bytes};
    TRY(take(c, NULL, bytes));
done:
    return rc;
}

/* Skips `count` values; texts one by one. */
static p4_rc skip_values(cursor *c, uint32_t type, uint64_t count)
{
    p4_rc rc = P4_OK;
    p4_gguf_text text;
    if (type == P4_GGUF_VIEW_TEXT) {
        for (uint64_t i = 0; i < count; i++) {
            TRY(take_text(c, &text));
        }
        return P4_OK;
    }
    CHECK(count <= UINT64_MAX / 8, "%s: a list of %llu values at byte %lld", c->path,
          (unsigned long long)count, (long long)(c->at - c->start));
    TRY(take(c, NULL, count * value_bytes[type]));
done:
    return rc;
}

static p4_rc take_key(cursor *c, p4_gguf_key *key)
{
    p4_rc rc = P4_OK;
    TRY(take_text(c, &key->name));
    TRY(take(c, &key->type, sizeof key->type));
    key->count = 1;
    key->is_list = key->type == P4_GGUF_VIEW_LIST;
    if (key->is_list) {
        TRY(take(c, &key->type, sizeof key->type));
        TRY(take(c, &key->count, sizeof key->count));
    }
    CHECK(key->type < P4_GGUF_VIEW_TYPES && key->type != P4_GGUF_VIEW_LIST,
          "%s: key \"%.*s\" holds values of type %u, expected one of the format's", c->path,
          (int)p4_min_i64((int64_t)key->name.bytes, 64), key->name.data, key->type);
    key->data = c->at;
    TRY(skip_values(c, key->type, key->count));
done:
    return rc;
}

/* --- tensors ----------------------------------------------------------------------------------- */

static p4_rc take_tensor(cursor *c, p4_gguf_stored *t, uint64_t *offset)
{
    p4_rc rc = P4_OK;
    p4_gguf_text name;
    uint32_t rank = 0;
    uint64_t elements[P4_GGUF_VIEW_RANK] = {1, 1, 1, 1}, product;
    TRY(take_text(c, &name));
    CHECK(name.bytes > 0 && name.bytes < sizeof t->name,
          "%s: a tensor's name has %zu bytes, expected 1 to %zu", c->path, name.bytes, sizeof t->name - 1);
    memcpy(t->name, name.data, name.bytes);
    t->name[name.bytes] = '\0';
    TRY(take(c, &rank, sizeof rank));
    CHECK(rank >= 1 && rank <= P4_GGUF_VIEW_RANK, "%s: tensor \"%s\" has %u dimensions, expected 1 to %d",
          c->path, t->name, rank, P4_GGUF_VIEW_RANK);
    for (uint32_t d = 0; d < rank; d++) {
        TRY(take(c, &elements[d], sizeof elements[d]));
    }
    TRY(take(c, &t->type, sizeof t->type));
    TRY(take(c, offset, sizeof *offset));
    CHECK(p4_mul3(&product, elements[1], elements[2], elements[3]) && product > 0 &&
              product < (uint64_t)1 << 48 && elements[0] > 0 && elements[0] < (uint64_t)1 << 48,
          "%s: tensor \"%s\" has an impossible shape", c->path, t->name);
    t->rank = (int)rank;
    t->cols = (int64_t)elements[0];
    t->rows = (int64_t)product;
done:
    return rc;
}

/* Where the data lies. A type that is not known has no size: it is refused where it is used. */
static p4_rc place_tensor(p4_gguf_view *view, p4_gguf_stored *t, uint64_t data_start, uint64_t offset)
{
    p4_rc rc = P4_OK;
    const p4_gguf_block *block = p4_gguf_block_of(t->type);
    uint64_t bytes = 0, left = view->mapping_bytes - data_start;
    if (block != NULL) {
        CHECK(t->cols % block->elements == 0,
              "%s: tensor \"%s\" of type %s has rows of %lld elements, not whole blocks of %d", view->path,
              t->name, block->name, (long long)t->cols, block->elements);
        CHECK(
            p4_mul3(&bytes, (uint64_t)(t->cols / block->elements), (uint64_t)block->bytes, (uint64_t)t->rows),
            "%s: tensor \"%s\" has an impossible shape", view->path, t->name);
    }
    CHECK(offset <= left && bytes <= left - offset,
          "%s: tensor \"%s\" ends behind the file: it begins at byte %llu of the data and has %llu bytes, of "
          "%llu",
          view->path, t->name, (unsigned long long)offset, (unsigned long long)bytes,
          (unsigned long long)left);
    t->data = (const uint8_t *)view->mapping + data_start + offset;
    t->bytes = (int64_t)bytes;
done:
    return rc;
}

static p4_rc find_alignment(const p4_gguf_view *view, uint64_t *alignment)
{
    p4_rc rc = P4_OK;
    double value = ALIGNMENT;
    bool found;
    TRY(p4_gguf_view_number(view, "general.alignment", &value, &found));
    CHECK(value >= 1 && value <= 1 << 20, "%s: general.alignment is %g", view->path, value);
    *alignment = (uint64_t)value;
done:
    return rc;
}

static p4_rc parse(p4_gguf_view *view)
{
    p4_rc rc = P4_OK;
    const uint8_t *bytes = view->mapping;
    cursor c = {view->path, bytes, bytes, bytes + view->mapping_bytes};
    char magic[4] = {0};
    uint32_t version = 0;
    uint64_t tensors = 0, keys = 0, alignment = ALIGNMENT, *offsets = NULL;
    TRY(take(&c, magic, sizeof magic));
    TRY(take(&c, &version, sizeof version));
    CHECK(memcmp(magic, "GGUF", 4) == 0, "%s: is no GGUF file", view->path);
    CHECK(version == 2 || version == 3, "%s: is of version %u of GGUF, expected 2 or 3", view->path, version);
    TRY(take(&c, &tensors, sizeof tensors));
    TRY(take(&c, &keys, sizeof keys));
    CHECK(keys <= view->mapping_bytes / LEAST_KEY_BYTES &&
              tensors <= view->mapping_bytes / LEAST_TENSOR_BYTES,
          "%s: says that it holds %llu keys and %llu tensors, more than its bytes can", view->path,
          (unsigned long long)keys, (unsigned long long)tensors);
    view->keys = p4_alloc((size_t)keys, sizeof *view->keys);
    view->tensors = p4_alloc((size_t)tensors, sizeof *view->tensors);
    offsets = p4_alloc((size_t)tensors, sizeof *offsets);
    TRY(view->keys != NULL && view->tensors != NULL && offsets != NULL ? P4_OK : P4_E_SYSTEM);
    for (; view->key_count < (int64_t)keys; view->key_count++) {
        TRY(take_key(&c, &view->keys[view->key_count]));
    }
    for (; view->tensor_count < (int64_t)tensors; view->tensor_count++) {
        TRY(take_tensor(&c, &view->tensors[view->tensor_count], &offsets[view->tensor_count]));
    }
    TRY(find_alignment(view, &alignment));
    uint64_t header = (uint64_t)(c.at - c.start), start = (header + alignment - 1) / alignment * alignment;
    CHECK(start <= view->mapping_bytes || tensors == 0, "%s: the file ends before its data", view->path);
    for (int64_t i = 0; i < view->tensor_count; i++) {
        TRY(place_tensor(view, &view->tensors[i], start, offsets[i]));
    }
done:
    free(offsets);
    return rc;
}

/* --- opening ----------------------------------------------------------------------------------- */

bool p4_gguf_view_is(const char *path)
{
    char magic[4];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool is =
        fd >= 0 && read(fd, magic, sizeof magic) == (ssize_t)sizeof magic && memcmp(magic, "GGUF", 4) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return is;
}

p4_rc p4_gguf_view_parse(p4_gguf_view *view, const char *path, const void *bytes, uint64_t byte_count)
{
    p4_rc rc = P4_OK;
    *view = (p4_gguf_view){.path = p4_strdup(path)};
    TRY(view->path != NULL ? P4_OK : P4_E_SYSTEM);
    view->mapping = (void *)(uintptr_t)bytes;
    view->mapping_bytes = byte_count;
    rc = parse(view);
    if (rc != P4_OK) {
        view->mapping = NULL; /* the caller's */
        p4_gguf_view_close(view);
    }
done:
    return rc;
}

p4_rc p4_gguf_view_open(p4_gguf_view *view, const char *path)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    *view = (p4_gguf_view){.path = p4_strdup(path)};
    TRY(view->path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_file_open(&fd, &view->mapping_bytes, path));
    CHECK(view->mapping_bytes > 0, "%s: is empty", path);
    TRY(p4_map_file(&view->mapping, fd, view->mapping_bytes, path));
    TRY(parse(view));
done:
    if (fd >= 0) {
        close(fd);
    }
    if (rc != P4_OK) {
        p4_gguf_view_close(view);
    }
    return rc;
}

void p4_gguf_view_close(p4_gguf_view *view)
{
    p4_unmap_file(view->mapping, view->mapping_bytes);
    free(view->keys);
    free(view->tensors);
    free(view->path);
    *view = (p4_gguf_view){0};
}

/* --- looking up -------------------------------------------------------------------------------- */

const p4_gguf_key *p4_gguf_view_key(const p4_gguf_view *view, const char *name)
{
    for (int64_t i = 0; i < view->key_count; i++) {
        if (view->keys[i].name.bytes == strlen(name) &&
            memcmp(view->keys[i].name.data, name, strlen(name)) == 0) {
            return &view->keys[i];
        }
    }
    return NULL;
}

const p4_gguf_stored *p4_gguf_view_tensor(const p4_gguf_view *view, const char *name)
{
    for (int64_t i = 0; i < view->tensor_count; i++) {
        if (strcmp(view->tensors[i].name, name) == 0) {
            return &view->tensors[i];
        }
    }
    return NULL;
}

double p4_gguf_view_element(const p4_gguf_key *key, uint64_t at)
{
    const uint8_t *from = key->data + at * value_bytes[key->type];
    union {
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } v;
    memcpy(&v, from, value_bytes[key->type]);
    switch (key->type) {
    case P4_GGUF_VIEW_I8:
        return (int8_t)*from;
    case P4_GGUF_VIEW_U16:
        return v.u16;
    case P4_GGUF_VIEW_I16:
        return v.i16;
    case P4_GGUF_VIEW_U32:
        return v.u32;
    case P4_GGUF_VIEW_I32:
        return v.i32;
    case P4_GGUF_VIEW_F32:
        return (double)v.f32;
    case P4_GGUF_VIEW_U64:
        return (double)v.u64;
    case P4_GGUF_VIEW_I64:
        return (double)v.i64;
    case P4_GGUF_VIEW_F64:
        return v.f64;
    default: /* u8, bool */
        return *from;
    }
}

p4_rc p4_gguf_view_number(const p4_gguf_view *view, const char *name, double *value, bool *found)
{
    p4_rc rc = P4_OK;
    const p4_gguf_key *key = p4_gguf_view_key(view, name);
    if (found != NULL) {
        *found = key != NULL;
    }
    CHECK(key != NULL || found != NULL, "%s: has no key %s", view->path, name);
    CHECK(key == NULL || (!key->is_list && key->type != P4_GGUF_VIEW_TEXT), "%s: key %s is not a number",
          view->path, name);
    if (key != NULL) {
        *value = p4_gguf_view_element(key, 0);
    }
done:
    return rc;
}

p4_rc p4_gguf_view_string(const p4_gguf_view *view, const char *name, p4_gguf_text *text, bool *found)
{
    p4_rc rc = P4_OK;
    const p4_gguf_key *key = p4_gguf_view_key(view, name);
    if (found != NULL) {
        *found = key != NULL;
    }
    *text = (p4_gguf_text){"", 0};
    CHECK(key != NULL || found != NULL, "%s: has no key %s", view->path, name);
    CHECK(key == NULL || (!key->is_list && key->type == P4_GGUF_VIEW_TEXT), "%s: key %s is not a text",
          view->path, name);
    if (key != NULL) {
        const uint8_t *at = key->data;
        *text = p4_gguf_view_next_text(&at);
    }
done:
    return rc;
}

p4_gguf_text p4_gguf_view_next_text(const uint8_t **at)
{
    uint64_t bytes;
    memcpy(&bytes, *at, sizeof bytes);
    p4_gguf_text text = {(const char *)*at + sizeof bytes, (size_t)bytes};
    *at += sizeof bytes + bytes;
    return text;
}
