#include "io/out/generation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/json/write.h"

void p4_generation_free(p4_generation *g)
{
    free(g->model);
    free(g->text);
    p4_ids_free(&g->ids);
    *g = (p4_generation){0};
}

void p4_sample_free(p4_sample *sample)
{
    free(sample->prompt);
    p4_generation_free(&sample->original);
    p4_generation_free(&sample->packed);
    *sample = (p4_sample){0};
}

double p4_generation_rate(const p4_generation *g)
{
    int64_t steps = g->ids.count + (g->ended ? 1 : 0) - 1;
    return steps > 0 && g->text_s > 0 ? (double)steps / g->text_s : NAN;
}

static bool put_ids(cJSON *to, const p4_ids *ids)
{
    cJSON *list = cJSON_AddArrayToObject(to, "ids");
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < ids->count; i++) {
        ok = cJSON_AddItemToArray(list, cJSON_CreateNumber((double)ids->ids[i]));
    }
    return ok;
}

static bool put_generation(cJSON *to, const p4_generation *g)
{
    const p4_json_real reals[] = {
        {"prompt_s", g->prompt_s},
        {"text_s", g->text_s},
        {"text_cpu_s", g->text_cpu_s},
        {"tokens_per_s", p4_generation_rate(g)},
        {"weight_bytes_per_token", g->bytes_per_token},
    };
    return to != NULL && p4_json_put_text(to, "model", g->model) && p4_json_put_text(to, "text", g->text) &&
           put_ids(to, &g->ids) && p4_json_put_text(to, "stopped_by", g->ended ? "end of text" : "tokens") &&
           p4_json_put_whole(to, "prompt_tokens", g->prompt_tokens) &&
           p4_json_put_reals(to, reals, sizeof reals / sizeof reals[0]);
}

char *p4_generation_json(const char *prompt, const p4_generation *generation, const p4_generation *original)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root != NULL && p4_json_put_text(root, "prompt", prompt) &&
              (original == NULL || put_generation(cJSON_AddObjectToObject(root, "original"), original)) &&
              put_generation(cJSON_AddObjectToObject(root, "generation"), generation);
    return p4_json_print(root, ok, true);
}

static bool put_sample(cJSON *to, const p4_sample *s)
{
    const p4_json_real reals[] = {
        {"original_tokens_per_s", p4_generation_rate(&s->original)},
        {"ternary_tokens_per_s", p4_generation_rate(&s->packed)},
        {"original_weight_bytes_per_token", s->original.bytes_per_token},
        {"ternary_weight_bytes_per_token", s->packed.bytes_per_token},
    };
    return p4_json_put_text(to, "prompt", s->prompt) && p4_json_put_text(to, "original", s->original.text) &&
           p4_json_put_text(to, "ternary", s->packed.text) &&
           p4_json_put_reals(to, reals, sizeof reals / sizeof reals[0]);
}

char *p4_samples_json(const p4_sample *samples, int64_t count, int activation_bits)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root != NULL && p4_json_put_whole(root, "activation_bits", activation_bits);
    cJSON *list = ok ? cJSON_AddArrayToObject(root, "samples") : NULL;
    ok = ok && list != NULL;
    for (int64_t i = 0; ok && i < count; i++) {
        cJSON *one = cJSON_CreateObject();
        ok = one != NULL && cJSON_AddItemToArray(list, one) && put_sample(one, &samples[i]);
    }
    return p4_json_print(root, ok, true);
}

/* ---- columns ---- */

/* Bytes of the character that starts here: what continues one belongs to it. */
static size_t character(const char *at)
{
    size_t bytes = 1;
    while (((unsigned char)at[bytes] & 0xc0) == 0x80) {
        bytes++;
    }
    return bytes;
}

/* Prints the next line of *text, at most `width` characters, and fills the column up. */
static void put_line(FILE *to, const char **text, int width)
{
    const char *at = *text, *space = NULL;
    int count = 0, at_space = 0;
    while (*at != '\0' && *at != '\n' && count < width) {
        if (*at == ' ') {
            space = at;
            at_space = count;
        }
        at += character(at);
        count++;
    }
    bool cut = *at != '\0' && *at != '\n' && *at != ' ';
    if (cut && space != NULL && space > *text) {
        at = space;
        count = at_space;
    }
    for (const char *c = *text; c < at; c++) { /* a terminal must not act on what a model wrote */
        fputc((unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c, to);
    }
    fprintf(to, "%*s", width - count, "");
    *text = *at == ' ' || *at == '\n' ? at + 1 : at;
}

void p4_columns_print(FILE *to, const char *left_title, const char *left, const char *right_title,
                      const char *right, int width)
{
    int column = (width - 3) / 2;
    column = column < 10 ? 10 : column;
    put_line(to, &left_title, column);
    fputs(" | ", to);
    fprintf(to, "%s\n", right_title);
    for (int i = 0; i < 2 * column + 3; i++) {
        fputc(i == column + 1 ? '+' : '-', to);
    }
    fputc('\n', to);
    while (*left != '\0' || *right != '\0') {
        put_line(to, &left, column);
        fputs(" | ", to);
        put_line(to, &right, column);
        fputc('\n', to);
    }
}
