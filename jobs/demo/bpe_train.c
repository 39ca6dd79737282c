/* bpe_train.c - learns a byte-level BPE. Distinct pieces are kept once with how often they came, so the work
 * depends on the words of a text and hardly on its length. */
#include "jobs/demo/demo.h"

#include <stdlib.h>
#include <string.h>

#include "src/leaf/hash.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define END_OF_TEXT "<|endoftext|>"

enum { FIRST_BYTE_ID = 1, FIRST_MERGE_ID = 257, MAX_VOCAB = 8192 };

typedef struct piece {
    size_t first, bytes; /* in trainer.bytes; as many symbols, from the same place, when learning starts */
    int64_t count;
} piece;

typedef struct merge {
    int32_t left, right;
} merge;

struct p4_bpe_trainer {
    pcre2_code *pattern;
    pcre2_match_data *match;
    p4_text bytes; /* of all pieces, one after another */
    piece *pieces;
    size_t piece_count;
    int64_t piece_capacity;
    size_t *slots; /* hash table: index of a piece + 1, 0 is free; slot_count is a power of two */
    size_t slot_count;
    int32_t *symbols;    /* [bytes.bytes]: a piece's token ids, shrinking in place as pairs merge */
    int64_t *pair_count; /* [vocab * vocab] */
    p4_text token_bytes; /* of all tokens but the end of text, one after another */
    size_t token_first[MAX_VOCAB + 1];
    int vocab_count;
    merge *merges;
    size_t merge_count;
    int64_t merge_capacity;
};

/* Code point that stands for a byte in tokenizer.json: printable Latin-1 stands for itself, the rest from
 * U+0100 on. */
static int stand_in(int byte)
{
    int others = 0;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte) {
            return printable ? byte : 0x100 + others;
        }
        others += !printable;
    }
    return byte;
}

p4_rc p4_bpe_open(p4_bpe_trainer **trainer)
{
    p4_rc rc = P4_OK;
    int error = 0;
    PCRE2_SIZE error_at = 0;
    p4_bpe_trainer *t = *trainer = p4_alloc(1, sizeof *t);
    if (t == NULL) {
        return P4_E_SYSTEM;
    }
    t->pattern = pcre2_compile((PCRE2_SPTR)GPT2_PATTERN, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                               &error_at, NULL);
    t->match = t->pattern != NULL ? pcre2_match_data_create_from_pattern(t->pattern, NULL) : NULL;
    t->slot_count = 1024;
    t->slots = p4_alloc(t->slot_count, sizeof *t->slots);
    if (t->match == NULL || t->slots == NULL) {
        rc = FAULT("PCRE2 refused the split pattern (error %d) or memory is out", error);
        p4_bpe_close(t);
        *trainer = NULL;
    } else {
        pcre2_jit_compile(t->pattern, PCRE2_JIT_COMPLETE); /* slower without, not wrong */
    }
    return rc;
}

void p4_bpe_close(p4_bpe_trainer *t)
{
    if (t == NULL) {
        return;
    }
    pcre2_match_data_free(t->match);
    pcre2_code_free(t->pattern);
    free(t->bytes.text);
    free(t->pieces);
    free(t->slots);
    free(t->symbols);
    free(t->pair_count);
    free(t->token_bytes.text);
    free(t->merges);
    free(t);
}

static p4_rc add_merge(p4_bpe_trainer *t, merge pair)
{
    merge *merges = p4_grow(t->merges, (int64_t)t->merge_count, &t->merge_capacity, sizeof *merges);
    if (merges == NULL) {
        return P4_E_SYSTEM;
    }
    t->merges = merges;
    merges[t->merge_count++] = pair;
    return P4_OK;
}

static uint64_t hash_bytes(const char *bytes, size_t byte_count)
{
    uint64_t hash = p4_hash(P4_HASH_START, bytes, byte_count);
    return hash ^ hash >> 32;
}

/* The slot that holds this piece, or the free one where it belongs. */
static size_t find_slot(const p4_bpe_trainer *t, const char *bytes, size_t byte_count)
{
    size_t slot = (size_t)hash_bytes(bytes, byte_count) & (t->slot_count - 1);
    while (t->slots[slot] != 0) {
        const piece *p = &t->pieces[t->slots[slot] - 1];
        if (p->bytes == byte_count && memcmp(t->bytes.text + p->first, bytes, byte_count) == 0) {
            break;
        }
        slot = (slot + 1) & (t->slot_count - 1);
    }
    return slot;
}

static p4_rc grow_slots(p4_bpe_trainer *t)
{
    size_t *slots = p4_alloc(2 * t->slot_count, sizeof *slots);
    if (slots == NULL) {
        return P4_E_SYSTEM;
    }
    free(t->slots);
    t->slots = slots;
    t->slot_count *= 2;
    for (size_t i = 0; i < t->piece_count; i++) {
        t->slots[find_slot(t, t->bytes.text + t->pieces[i].first, t->pieces[i].bytes)] = i + 1;
    }
    return P4_OK;
}

static p4_rc count_piece(p4_bpe_trainer *t, const char *bytes, size_t byte_count)
{
    p4_rc rc = P4_OK;
    size_t slot = find_slot(t, bytes, byte_count);
    if (t->slots[slot] == 0) {
        piece *pieces = p4_grow(t->pieces, (int64_t)t->piece_count, &t->piece_capacity, sizeof *pieces);
        TRY(pieces != NULL ? P4_OK : P4_E_SYSTEM);
        t->pieces = pieces;
        pieces[t->piece_count] = (piece){t->bytes.bytes, byte_count, 0};
        TRY(p4_text_append(&t->bytes, bytes, byte_count));
        t->slots[slot] = ++t->piece_count;
    }
    t->pieces[t->slots[slot] - 1].count++;
    if (2 * t->piece_count > t->slot_count) {
        TRY(grow_slots(t));
    }
done:
    return rc;
}

p4_rc p4_bpe_feed(p4_bpe_trainer *t, const char *text, size_t bytes)
{
    p4_rc rc = P4_OK;
    uint32_t options = 0; /* the first match checks that the text is UTF-8 */
    for (size_t at = 0; at < bytes;) {
        int groups = pcre2_match(t->pattern, (PCRE2_SPTR)text, bytes, at, options, t->match, NULL);
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(t->match);
        /* the pattern covers every character, so each match starts where the last one ended */
        CHECK(groups > 0 && span[0] == at && span[1] > at,
              "text to train on: not UTF-8 at byte %zu (PCRE2 %d)", at, groups);
        TRY(count_piece(t, text + at, span[1] - at));
        at = span[1];
        options = PCRE2_NO_UTF_CHECK;
    }
done:
    return rc;
}

/* The id of left followed by right: a new one, unless another merge already made the same bytes. */
static p4_rc join_tokens(p4_bpe_trainer *t, int32_t *made, int32_t left, int32_t right)
{
    p4_rc rc = P4_OK;
    const int32_t halves[2] = {left, right};
    size_t first = t->token_bytes.bytes;
    for (int i = 0; i < 2; i++) {
        size_t from = t->token_first[halves[i]], count = t->token_first[halves[i] + 1] - from;
        char copy[256];
        CHECK(count <= sizeof copy, "text to train on: a piece of more than %zu bytes repeats", sizeof copy);
        memcpy(copy, t->token_bytes.text + from, count); /* the text may move while it grows */
        TRY(p4_text_append(&t->token_bytes, copy, count));
    }
    size_t bytes = t->token_bytes.bytes - first;
    for (int32_t id = FIRST_BYTE_ID; id < t->vocab_count; id++) {
        if (t->token_first[id + 1] - t->token_first[id] == bytes &&
            memcmp(t->token_bytes.text + t->token_first[id], t->token_bytes.text + first, bytes) == 0) {
            t->token_bytes.bytes = first;
            *made = id;
            goto done;
        }
    }
    *made = t->vocab_count++;
    t->token_first[t->vocab_count] = t->token_bytes.bytes;
done:
    return rc;
}

/* Adds sign * count to every pair of neighbours in a piece. */
static void count_pairs(p4_bpe_trainer *t, const piece *p, size_t vocab, int sign)
{
    const int32_t *symbols = t->symbols + p->first;
    for (size_t i = 0; i + 1 < p->bytes; i++) {
        t->pair_count[(size_t)symbols[i] * vocab + (size_t)symbols[i + 1]] += sign * p->count;
    }
}

/* Replaces left, right by made in one piece (piece.bytes is its number of symbols now). */
static void merge_piece(p4_bpe_trainer *t, piece *p, size_t vocab, merge pair, int32_t made)
{
    int32_t *symbols = t->symbols + p->first;
    size_t at = 0;
    while (at + 1 < p->bytes && (symbols[at] != pair.left || symbols[at + 1] != pair.right)) {
        at++;
    }
    if (at + 1 >= p->bytes) {
        return;
    }
    count_pairs(t, p, vocab, -1);
    size_t kept = 0;
    for (size_t i = 0; i < p->bytes; i++) {
        bool hit = i + 1 < p->bytes && symbols[i] == pair.left && symbols[i + 1] == pair.right;
        symbols[kept++] = hit ? made : symbols[i];
        i += hit;
    }
    p->bytes = kept;
    count_pairs(t, p, vocab, 1);
}

/* The commonest pair; of equals the first in (left, right) order. */
static int64_t best_pair(const p4_bpe_trainer *t, size_t vocab, merge *best)
{
    int64_t best_count = 0;
    for (int32_t left = FIRST_BYTE_ID; left < t->vocab_count; left++) {
        const int64_t *row = t->pair_count + (size_t)left * vocab;
        for (int32_t right = FIRST_BYTE_ID; right < t->vocab_count; right++) {
            if (row[right] > best_count) {
                best_count = row[right];
                *best = (merge){left, right};
            }
        }
    }
    return best_count;
}

/* Token ids 1 to 256 in the order of their stand-ins, and the pieces as such ids. */
static p4_rc start_symbols(p4_bpe_trainer *t)
{
    p4_rc rc = P4_OK;
    int32_t id_of_byte[256] = {0};
    t->vocab_count = FIRST_BYTE_ID;
    for (int code_point = 0x21; code_point < 0x144; code_point++) {
        for (int byte = 0; byte < 256; byte++) {
            if (stand_in(byte) == code_point) {
                char character = (char)byte;
                TRY(p4_text_append(&t->token_bytes, &character, 1));
                id_of_byte[byte] = t->vocab_count++;
                t->token_first[t->vocab_count] = t->token_bytes.bytes;
            }
        }
    }
    for (size_t i = 0; i < t->bytes.bytes; i++) {
        t->symbols[i] = id_of_byte[(unsigned char)t->bytes.text[i]];
    }
done:
    return rc;
}

p4_rc p4_bpe_learn(p4_bpe_trainer *t, int vocab_count)
{
    p4_rc rc = P4_OK;
    size_t vocab = (size_t)vocab_count;
    CHECK(vocab_count >= FIRST_MERGE_ID && vocab_count <= MAX_VOCAB,
          "vocabulary of %d entries: expected %d to %d", vocab_count, FIRST_MERGE_ID, MAX_VOCAB);
    t->symbols = p4_alloc(t->bytes.bytes + 1, sizeof *t->symbols);
    t->pair_count = p4_alloc(vocab * vocab, sizeof *t->pair_count);
    if (t->symbols == NULL || t->pair_count == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    TRY(start_symbols(t));
    for (size_t i = 0; i < t->piece_count; i++) {
        count_pairs(t, &t->pieces[i], vocab, 1);
    }
    while (t->vocab_count < vocab_count) {
        merge pair = {0, 0};
        int32_t made = 0;
        CHECK(best_pair(t, vocab, &pair) > 1,
              "the text repeats too little for a vocabulary of %d entries: it ends at %d", vocab_count,
              t->vocab_count);
        TRY(join_tokens(t, &made, pair.left, pair.right));
        TRY(add_merge(t, pair));
        for (size_t i = 0; i < t->piece_count; i++) {
            merge_piece(t, &t->pieces[i], vocab, pair, made);
        }
    }
done:
    return rc;
}

/* A token as a JSON string of stand-ins. */
static void write_token(const p4_bpe_trainer *t, int32_t id, FILE *file)
{
    fputc('"', file);
    for (size_t i = t->token_first[id]; i < t->token_first[id + 1]; i++) {
        int code_point = stand_in((unsigned char)t->token_bytes.text[i]);
        if (code_point == '"' || code_point == '\\') {
            fputc('\\', file);
        }
        if (code_point < 0x80) {
            fputc(code_point, file);
        } else { /* two bytes of UTF-8 */
            fputc(0xc0 | code_point >> 6, file);
            fputc(0x80 | (code_point & 0x3f), file);
        }
    }
    fputc('"', file);
}

void p4_bpe_write(const p4_bpe_trainer *t, FILE *file)
{
    static const char byte_level[] =
        "\"type\": \"ByteLevel\",\n    \"add_prefix_space\": false,\n    \"trim_offsets\": true,\n"
        "    \"use_regex\": true";
    fprintf(file,
            "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": "
            "[\n    {\n"
            "      \"id\": 0,\n      \"content\": \"%s\",\n      \"single_word\": false,\n      \"lstrip\": "
            "false,\n"
            "      \"rstrip\": false,\n      \"normalized\": false,\n      \"special\": true\n    }\n  ],\n"
            "  \"normalizer\": null,\n  \"pre_tokenizer\": {\n    %s\n  },\n  \"post_processor\": null,\n"
            "  \"decoder\": {\n    %s\n  },\n",
            END_OF_TEXT, byte_level, byte_level);
    fprintf(
        file,
        "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
        "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": "
        "false,\n"
        "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {\n      \"" END_OF_TEXT
        "\": 0");
    for (int32_t id = FIRST_BYTE_ID; id < t->vocab_count; id++) {
        fputs(",\n      ", file);
        write_token(t, id, file);
        fprintf(file, ": %d", id);
    }
    fputs("\n    },\n    \"merges\": [", file);
    for (size_t i = 0; i < t->merge_count; i++) {
        fputs(i > 0 ? ",\n      [\n        " : "\n      [\n        ", file);
        write_token(t, t->merges[i].left, file);
        fputs(",\n        ", file);
        write_token(t, t->merges[i].right, file);
        fputs("\n      ]", file);
    }
    fputs("\n    ]\n  }\n}\n", file);
}
