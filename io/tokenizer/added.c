#include "io/tokenizer/added.h"

#include <stdlib.h>

#include "io/tokenizer/unicode.h"

int32_t p4_tok_added_id(int32_t *last, p4_tok_text content, const p4_tok_map *vocab, int32_t model_tokens)
{
    int32_t id = p4_tok_map_find(vocab, content.data, content.bytes);
    if (id < 0) {
        id = *last >= model_tokens ? *last + 1 : model_tokens;
    }
    *last = id > *last ? id : *last;
    return id;
}

/* The node for `byte` in the list that begins at `first`, created before it if needed; 0 when memory runs
 * out. */
static int32_t step_or_make(p4_tok_trie *trie, int32_t first, unsigned char byte)
{
    for (int32_t node = first; node != 0; node = trie->nodes[node].sibling) {
        if (trie->nodes[node].byte == byte) {
            return node;
        }
    }
    int32_t count = trie->count > 0 ? trie->count : 1; /* node 0 stands for none */
    if (count >= trie->capacity) {
        int32_t capacity = count < 64 ? 64 : count + count / 2;
        p4_tok_node *grown = p4_resize(trie->nodes, (size_t)capacity, sizeof *grown);
        if (grown == NULL) {
            return 0;
        }
        trie->nodes = grown;
        trie->capacity = capacity;
    }
    trie->nodes[count] = (p4_tok_node){.sibling = first, .added = -1, .byte = byte};
    trie->count = count + 1;
    return count;
}

p4_rc p4_tok_trie_add(p4_tok_trie *trie, p4_tok_text pattern, int32_t added)
{
    int32_t node = 0;
    for (size_t i = 0; i < pattern.bytes; i++) {
        unsigned char byte = (unsigned char)pattern.data[i];
        int32_t first = i == 0 ? trie->root[byte] : trie->nodes[node].child;
        int32_t made_before = trie->count;
        int32_t next = step_or_make(trie, first, byte);
        if (next == 0) {
            return P4_E_SYSTEM;
        }
        if (trie->count != made_before && i == 0) {
            trie->root[byte] = next;
        } else if (trie->count != made_before) {
            trie->nodes[node].child = next;
        }
        node = next;
    }
    if (node != 0 && trie->nodes[node].added < 0) { /* of two equal patterns the first one counts */
        trie->nodes[node].added = added;
    }
    return P4_OK;
}

/* The longest pattern at `at`: its added token and *length, or -1. */
static int32_t longest_at(const p4_tok_trie *trie, const char *at, const char *end, size_t *length)
{
    int32_t found = -1;
    int32_t node = trie->root[(unsigned char)*at];
    for (const char *p = at + 1; node != 0; p++) {
        if (trie->nodes[node].added >= 0) {
            found = trie->nodes[node].added;
            *length = (size_t)(p - at);
        }
        if (p == end) {
            break;
        }
        node = trie->nodes[node].child;
        while (node != 0 && trie->nodes[node].byte != (unsigned char)*p) {
            node = trie->nodes[node].sibling;
        }
    }
    return found;
}

void p4_tok_scan_start(p4_tok_scan *scan, const p4_tok_trie *trie, const p4_tok_added *added,
                       p4_tok_text text)
{
    *scan = (p4_tok_scan){.trie = trie, .added = added, .text = text, .waiting = -1};
    if (trie->count == 0) {
        scan->searched = text.bytes; /* nothing to look for */
    }
}

/* The next match that its token's conditions allow; false: none. [*start, *stop) includes the white space
 * that lstrip and rstrip remove. */
static bool next_match(p4_tok_scan *scan, int32_t *token, size_t *start, size_t *stop)
{
    const char *data = scan->text.data;
    size_t bytes = scan->text.bytes;
    while (scan->searched < bytes) {
        size_t length = 0, at = scan->searched;
        *token = longest_at(scan->trie, data + at, data + bytes, &length);
        if (*token < 0) {
            scan->searched++;
            continue;
        }
        const p4_tok_added *added = &scan->added[*token];
        *start = at;
        *stop = scan->searched = at + length;
        if (added->single_word &&
            (p4_tok_word_at_end(data, *start) || p4_tok_word_at_start(data + *stop, bytes - *stop))) {
            continue; /* the reference does not try a shorter token either */
        }
        if (added->lstrip) {
            size_t behind = *start > scan->emitted ? *start - scan->emitted : 0;
            *start = behind == 0 ? scan->emitted : *start - p4_tok_space_at_end(data + scan->emitted, behind);
        }
        if (added->rstrip) {
            if (*stop < scan->space_from || *stop > scan->space_to) {
                scan->space_from = *stop;
                scan->space_to = *stop + p4_tok_space_at_start(data + *stop, bytes - *stop);
            }
            *stop = scan->space_to;
        }
        return true;
    }
    return false;
}

bool p4_tok_scan_next(p4_tok_scan *scan, int32_t *token, p4_tok_text *piece, size_t *offset)
{
    *token = scan->waiting;
    scan->waiting = -1;
    if (*token >= 0) {
        return true;
    }
    size_t start, stop;
    int32_t found;
    size_t from = scan->emitted;
    if (next_match(scan, &found, &start, &stop)) {
        scan->emitted = stop;
        if (from >= start) {
            *token = found;
            return true;
        }
        scan->waiting = found;
    } else {
        start = scan->text.bytes;
        if (from >= start) {
            return false;
        }
        scan->emitted = start;
    }
    *offset = from;
    *piece = (p4_tok_text){scan->text.data + from, start - from};
    return true;
}

void p4_tok_trie_free(p4_tok_trie *trie)
{
    free(trie->nodes);
    *trie = (p4_tok_trie){0};
}
