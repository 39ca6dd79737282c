#include "io/tokenizer/charsmap.h"

#include <stdlib.h>
#include <string.h>

#include "io/utf8/utf8.h"

enum {
    CLUSTER_BYTES_MAX = 5
}; /* longer grapheme clusters are taken character by character, as in the reference */

/* --- base64 --- */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *p4_tok_base64(const uint8_t *data, size_t bytes)
{
    char *text = p4_alloc(bytes / 3 * 4 + 5, 1), *to = text;
    for (size_t at = 0; text != NULL && at < bytes; at += 3) {
        size_t count = bytes - at < 3 ? bytes - at : 3;
        uint32_t group = (uint32_t)data[at] << 16 | (count > 1 ? (uint32_t)data[at + 1] << 8 : 0) |
                         (count > 2 ? (uint32_t)data[at + 2] : 0);
        for (size_t i = 0; i < 4; i++) {
            *to++ = i <= count ? digits[group >> (18 - 6 * i) & 63] : '=';
        }
    }
    return text;
}

/* The bytes of a base64 text; false: it is none. `to` has room for three bytes for every four characters. */
static bool base64_decode(uint8_t *to, size_t *bytes, const char *text, size_t length)
{
    uint32_t group = 0;
    int count = 0;
    *bytes = 0;
    while (length > 0 && text[length - 1] == '=') {
        length--;
    }
    for (size_t i = 0; i < length; i++) {
        const char *digit = strchr(digits, text[i]);
        if (text[i] == '\0' || digit == NULL) {
            return false;
        }
        group = group << 6 | (uint32_t)(digit - digits);
        count += 6;
        if (count >= 8) {
            count -= 8;
            to[(*bytes)++] = (uint8_t)(group >> count);
        }
    }
    return count < 6;
}

/* --- reading --- */

static uint32_t little_endian(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

p4_rc p4_tok_charsmap_read(p4_tok_charsmap *map, const char *base64, const char *source, const char *where)
{
    p4_rc rc = P4_OK;
    size_t length = strlen(base64), bytes = 0;
    uint8_t *table = p4_alloc(length / 4 * 3 + 4, 1);
    *map = (p4_tok_charsmap){0};
    if (table == NULL) {
        return P4_E_SYSTEM;
    }
    CHECK(base64_decode(table, &bytes, base64, length), "%s: %s.precompiled_charsmap is not base64", source,
          where);
    size_t trie_bytes = bytes >= 4 ? little_endian(table) : 0;
    CHECK(bytes >= 4 && trie_bytes >= 4 && trie_bytes % 4 == 0 && trie_bytes <= bytes - 4,
          "%s: %s.precompiled_charsmap has %zu bytes and says that its trie has %zu", source, where, bytes,
          trie_bytes);
    map->unit_count = trie_bytes / 4;
    map->replacement_bytes = bytes - 4 - trie_bytes;
    map->units = p4_alloc(map->unit_count, sizeof *map->units);
    map->replacements = p4_alloc(map->replacement_bytes + 1, 1);
    if (map->units == NULL || map->replacements == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (size_t i = 0; i < map->unit_count; i++) {
        map->units[i] = little_endian(table + 4 + 4 * i);
    }
    memcpy(map->replacements, table + 4 + trie_bytes, map->replacement_bytes);
    CHECK(p4_utf8_valid_bytes(map->replacements, map->replacement_bytes) == map->replacement_bytes,
          "%s: %s.precompiled_charsmap has replacements that are not UTF-8", source, where);
done:
    free(table);
    if (rc != P4_OK) {
        p4_tok_charsmap_free(map);
    }
    return rc;
}

void p4_tok_charsmap_free(p4_tok_charsmap *map)
{
    free(map->units);
    free(map->replacements);
    *map = (p4_tok_charsmap){0};
}

/* --- applying --- */

static size_t unit_offset(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1U << 9)) >> 6);
}

/* The replacement of the shortest sequence in the trie that `text` begins with; NULL: there is none. */
static const char *find(const p4_tok_charsmap *map, p4_tok_text text)
{
    size_t node = unit_offset(map->units[0]);
    for (size_t i = 0; i < text.bytes && text.data[i] != '\0'; i++) {
        unsigned char byte = (unsigned char)text.data[i];
        node ^= byte;
        if (node >= map->unit_count || (map->units[node] & ((1U << 31) | 0xFF)) != byte) {
            return NULL;
        }
        uint32_t unit = map->units[node];
        node ^= unit_offset(unit);
        if ((unit >> 8 & 1) != 0) {
            size_t at = node < map->unit_count ? map->units[node] & 0x7FFFFFFF : map->replacement_bytes;
            /* A replacement begins with a character: in the middle of one the result would not be UTF-8. */
            bool inside =
                at < map->replacement_bytes && ((unsigned char)map->replacements[at] & 0xC0) == 0x80;
            return at < map->replacement_bytes && !inside ? map->replacements + at : NULL;
        }
    }
    return NULL;
}

static p4_rc put(const p4_tok_charsmap *map, p4_tok_buffer *buffer, p4_tok_text character)
{
    const char *replacement = find(map, character);
    return replacement != NULL ? p4_tok_buffer_append(buffer, replacement, strlen(replacement))
                               : p4_tok_buffer_append(buffer, character.data, character.bytes);
}

p4_rc p4_tok_charsmap_apply(const p4_tok_charsmap *map, p4_tok_buffer *buffer, p4_tok_text text)
{
    p4_rc rc = P4_OK;
    size_t length;
    for (size_t start = 0, stop; start < text.bytes; start = stop) {
        utf8proc_int32_t state = 0;
        int32_t c = p4_utf8_decode(text.data + start, text.bytes - start, &length);
        int characters = 1;
        for (stop = start + length; stop < text.bytes; stop += length, characters++) {
            int32_t next = p4_utf8_decode(text.data + stop, text.bytes - stop, &length);
            if (utf8proc_grapheme_break_stateful(c, next, &state)) {
                break;
            }
            c = next;
        }
        p4_tok_text cluster = {text.data + start, stop - start};
        const char *replacement =
            characters > 1 && cluster.bytes <= CLUSTER_BYTES_MAX ? find(map, cluster) : NULL;
        if (replacement != NULL) {
            TRY(p4_tok_buffer_append(buffer, replacement, strlen(replacement)));
            continue;
        }
        for (size_t at = start; at < stop; at += length) {
            (void)p4_utf8_decode(text.data + at, stop - at, &length);
            TRY(put(map, buffer, (p4_tok_text){text.data + at, length}));
        }
    }
done:
    return rc;
}
