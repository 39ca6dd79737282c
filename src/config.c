/* Defaults of the recipes, size classes, lists, and finding keys: everything about a p4_config but its
 * validation. */
#include "src/config.h"
#include "src/phase4/config.h"

#include <stdlib.h>
#include <string.h>

#include "src/leaf/base.h"

enum { WORD_BYTES = 64 }; /* longer words are compared up to here */

static double default_of(const p4_config_row *row, p4_recipe recipe)
{
    for (int i = 0; i < p4_config_differences_count; i++) {
        const p4_config_difference *d = &p4_config_differences[i];
        if (d->recipe == recipe && strcmp(d->key, row->name) == 0) {
            return d->value;
        }
    }
    return recipe == P4_RECIPE_SEED ? row->seed : row->quality;
}

static void set_default(p4_config *config, const p4_config_row *row)
{
    char *field = (char *)config + row->offset;
    double value = default_of(row, config->recipe);
    memset(field, 0, row->bytes);
    switch (row->type) {
    case P4_CONFIG_BOOL:
        *(bool *)field = value != 0;
        break;
    case P4_CONFIG_INT32:
        *(int32_t *)field = (int32_t)value;
        break;
    case P4_CONFIG_INT64:
        *(int64_t *)field = (int64_t)value;
        break;
    case P4_CONFIG_UINT64:
        *(uint64_t *)field = (uint64_t)value;
        break;
    case P4_CONFIG_REAL:
        *(double *)field = value;
        break;
    case P4_CONFIG_ENUM:
        memcpy(field, &(int){(int)value}, sizeof(int));
        break;
    case P4_CONFIG_PATH:
    case P4_CONFIG_NAME:
        memcpy(field, row->text, strlen(row->text)); /* the rest is 0 */
        break;
    case P4_CONFIG_LIST:
    case P4_CONFIG_NUMBERS:
    case P4_CONFIG_SETS:
        break; /* empty */
    }
}

void p4_config_rebase(p4_config *config)
{
    for (int i = 0; i < p4_config_rows; i++) {
        if (!p4_config_is_user_set(config, i) && p4_config_table[i].offset != offsetof(p4_config, recipe)) {
            set_default(config, &p4_config_table[i]);
        }
    }
}

void p4_config_take(p4_config *config, const p4_config *from)
{
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        uint64_t bit = (uint64_t)1 << (i % 64);
        if (!row->fixed) {
            memcpy((char *)config + row->offset, (const char *)from + row->offset, row->bytes);
            config->user_set[i / 64] &= ~bit;
            config->user_set[i / 64] |= from->user_set[i / 64] & bit;
        }
    }
}

void p4_config_recipe(p4_config *config, p4_recipe recipe)
{
    memset(config, 0, sizeof *config); /* padding too: equal configurations are equal bytes */
    config->recipe = recipe;
    p4_config_rebase(config);
}

void p4_config_default(p4_config *config)
{
    p4_config_recipe(config, P4_RECIPE_SEED);
}

bool p4_config_is_user_set(const p4_config *config, int row)
{
    return (config->user_set[row / 64] >> (row % 64) & 1) != 0;
}

bool p4_config_is_chosen(const p4_config *config, int row)
{
    const p4_config_row *r = &p4_config_table[row];
    bool chosen = p4_config_is_user_set(config, row);
    p4_config *usual = chosen ? p4_alloc(1, sizeof *usual) : NULL;
    if (usual != NULL) {
        usual->recipe = config->recipe;
        set_default(usual, r);
        chosen = memcmp((const char *)config + r->offset, (const char *)usual + r->offset, r->bytes) != 0;
    }
    free(usual);
    return chosen;
}

void p4_config_mark_user_set(p4_config *config, int row)
{
    config->user_set[row / 64] |= (uint64_t)1 << (row % 64);
}

p4_size_category p4_config_size_category(int64_t params)
{
    return params < 10000000     ? P4_SIZE_TINY
           : params < 500000000  ? P4_SIZE_SMALL
           : params < 2000000000 ? P4_SIZE_MEDIUM
                                 : P4_SIZE_LARGE;
}

const char *p4_size_category_name(p4_size_category category)
{
    static const char *const names[] = {"tiny", "small", "medium", "large"};
    return category <= P4_SIZE_LARGE ? names[category] : "unknown";
}

void p4_config_adapt_to_model_size(p4_config *config, int64_t params)
{
    static const double targets[] = {6.0, 8.0, 10.0, 12.0}, thresholds[] = {0.05, 0.10, 0.15, 0.20};
    p4_size_category category = p4_config_size_category(params);
    if (!p4_config_is_user_set(config, p4_config_find("target_compression_ratio"))) {
        config->target_compression_ratio = targets[category];
    }
    if (config->recipe == P4_RECIPE_SEED &&
        !p4_config_is_user_set(config, p4_config_find("sparsity_threshold"))) {
        config->sparsity_threshold = thresholds[category];
    }
}

const char *p4_list_next(const p4_list *list, const char *previous)
{
    const char *next = previous == NULL ? list->bytes : previous + strlen(previous) + 1;
    int32_t left = list->count;
    for (const char *string = list->bytes; left > 0 && string != next; left--) {
        string += strlen(string) + 1;
    }
    return left > 0 ? next : NULL;
}

bool p4_list_append(p4_list *list, const char *string)
{
    size_t used = 0, bytes = strlen(string) + 1;
    for (int32_t i = 0; i < list->count; i++) {
        used += strlen(list->bytes + used) + 1;
    }
    if (bytes > sizeof list->bytes - used) {
        return false;
    }
    memcpy(list->bytes + used, string, bytes);
    list->count++;
    return true;
}

bool p4_sets_add(p4_sets *sets, const char *name)
{
    size_t bytes = strlen(name);
    if (sets->count == P4_SETS_MAX || bytes >= P4_SET_NAME_BYTES) {
        return false;
    }
    memcpy(sets->names[sets->count++], name, bytes);
    return true;
}

bool p4_sets_append(p4_sets *sets, const char *string)
{
    bool fits = p4_list_append(&sets->strings, string);
    sets->counts[sets->count - 1] += fits;
    return fits;
}

const char *p4_sets_next(const p4_sets *sets, int set, const char *previous)
{
    int64_t first = 0;
    for (int i = 0; i < set; i++) {
        first += sets->counts[i];
    }
    const char *string = sets->strings.bytes;
    for (int64_t at = 0; at < first + sets->counts[set]; at++) {
        if (at >= first && (previous == NULL || string > previous)) {
            return string;
        }
        string += strlen(string) + 1;
    }
    return NULL;
}

int p4_config_find(const char *key)
{
    for (int i = 0; i < p4_config_rows; i++) {
        if (strcmp(p4_config_table[i].name, key) == 0) {
            return i;
        }
    }
    return -1;
}

/* Lower case, '-' as '_', cut: what counts when words are compared. Returns the length. */
static int fold(char folded[WORD_BYTES], const char *word)
{
    int length = 0;
    for (; word[length] != '\0' && length < WORD_BYTES - 1; length++) {
        char c = word[length];
        folded[length] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c == '-' ? '_' : c);
    }
    folded[length] = '\0';
    return length;
}

static int min3(int a, int b, int c)
{
    int least = a < b ? a : b;
    return least < c ? least : c;
}

/* Optimal string alignment: three rows of the usual table, the third for swapped neighbours. */
int p4_edit_distance(const char *from, const char *to)
{
    char a[WORD_BYTES], b[WORD_BYTES];
    int rows[3][WORD_BYTES], *before = rows[0], *last = rows[1], *now = rows[2];
    int a_length = fold(a, from), b_length = fold(b, to);
    for (int j = 0; j <= b_length; j++) {
        last[j] = j;
    }
    memcpy(before, last, sizeof rows[0]);
    for (int i = 1; i <= a_length; i++) {
        now[0] = i;
        for (int j = 1; j <= b_length; j++) {
            now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < now[j]) {
                now[j] = before[j - 2] + 1;
            }
        }
        int *oldest = before;
        before = last, last = now, now = oldest;
    }
    return last[b_length];
}

int p4_edits_likely(const char *word)
{
    char folded[WORD_BYTES];
    return (fold(folded, word) + 2) / 3;
}

const char *p4_config_nearest(const char *key)
{
    char word[WORD_BYTES];
    int least = p4_edits_likely(key) + 1, length = fold(word, key);
    const char *nearest = NULL;
    for (int i = 0; i < p4_config_rows; i++) {
        /* A part of a name ("lr") is nearer to it than any short word is by edits. */
        const char *name = p4_config_table[i].name;
        int distance = length >= 2 && strstr(name, word) != NULL ? 1 : p4_edit_distance(key, name);
        if (distance < least) {
            least = distance, nearest = name;
        }
    }
    return nearest;
}
