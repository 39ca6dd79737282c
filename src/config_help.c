/* Text of configuration values, and the two renderings of the table: --help and docs/configuration.md. */
#include "src/config.h"
#include "src/phase4/config.h"

#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/leaf/escape.h"

char *p4_config_format_real(char buffer[32], double value)
{
    if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(buffer, 32, "%.0f", value); /* 600 instead of 6e+02 */
        return buffer;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buffer, 32, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value) {
            break;
        }
    }
    char *point = strchr(buffer, ','); /* the caller's locale may use a decimal comma */
    if (point != NULL) {
        *point = '.';
    }
    return buffer;
}

double p4_config_number(const p4_config *config, const p4_config_row *row)
{
    const char *field = (const char *)config + row->offset;
    switch (row->type) {
    case P4_CONFIG_INT32:
        return *(const int32_t *)field;
    case P4_CONFIG_INT64:
        return (double)*(const int64_t *)field;
    case P4_CONFIG_REAL:
        return *(const double *)field;
    default:
        return 0;
    }
}

static void format_enum(char buffer[64], const p4_config_row *row, int value)
{
    int count = 0;
    while (row->names[count] != NULL) {
        count++;
    }
    if (value >= 0 && value < count) {
        snprintf(buffer, 64, "\"%s\"", row->names[value]);
    } else {
        snprintf(buffer, 64, "%d", value);
    }
}

bool p4_config_is_word(const p4_config_row *row, const char *text)
{
    return row->word != NULL && strcmp(row->word, text) == 0;
}

char *p4_config_format_scalar(char buffer[64], const p4_config *config, const p4_config_row *row)
{
    const char *field = (const char *)config + row->offset;
    int value;
    buffer[0] = '\0';
    if (row->word != NULL && p4_config_number(config, row) == row->word_value) {
        snprintf(buffer, 64, "\"%s\"", row->word);
        return buffer;
    }
    switch (row->type) {
    case P4_CONFIG_BOOL:
        snprintf(buffer, 64, "%s", *(const bool *)field ? "true" : "false");
        break;
    case P4_CONFIG_INT32:
        snprintf(buffer, 64, "%ld", (long)*(const int32_t *)field);
        break;
    case P4_CONFIG_INT64:
        snprintf(buffer, 64, "%lld", (long long)*(const int64_t *)field);
        break;
    case P4_CONFIG_UINT64:
        snprintf(buffer, 64, "%llu", (unsigned long long)*(const uint64_t *)field);
        break;
    case P4_CONFIG_REAL:
        p4_config_format_real(buffer, *(const double *)field);
        break;
    case P4_CONFIG_ENUM:
        memcpy(&value, field, sizeof value);
        format_enum(buffer, row, value);
        break;
    case P4_CONFIG_PATH:
    case P4_CONFIG_NAME:
    case P4_CONFIG_LIST:
    case P4_CONFIG_NUMBERS:
    case P4_CONFIG_SETS:
        break;
    }
    return buffer;
}

static void format_range(char *buffer, size_t room, const p4_config_row *row)
{
    char low[32], high[32];
    p4_config_format_real(low, row->min);
    p4_config_format_real(high, row->max);
    if (row->min == row->max) {
        snprintf(buffer, room, "%s", low);
    } else if (row->step > 0 && row->max - row->min == row->step) {
        snprintf(buffer, room, "%s or %s", low, high);
    } else {
        int used = row->word == NULL ? 0 : snprintf(buffer, room, "\"%s\" or ", row->word);
        snprintf(buffer + used, room - (size_t)used, "%s in %c%s, %s%c",
                 row->type == P4_CONFIG_REAL || row->type == P4_CONFIG_NUMBERS ? "a number"
                                                                               : "a whole number",
                 row->min_open ? '(' : '[', low, high, row->max_open ? ')' : ']');
    }
}

char *p4_config_format_expected(char buffer[256], const p4_config_row *row)
{
    size_t used = 0;
    switch (row->type) {
    case P4_CONFIG_BOOL:
        snprintf(buffer, 256, "true or false");
        break;
    case P4_CONFIG_INT32:
    case P4_CONFIG_INT64:
    case P4_CONFIG_REAL:
        format_range(buffer, 256, row);
        break;
    case P4_CONFIG_UINT64:
        snprintf(buffer, 256, "a whole number in [0, %llu]", (unsigned long long)UINT64_MAX);
        break;
    case P4_CONFIG_ENUM:
        for (int i = 0; row->names[i] != NULL && used < 200; i++) {
            const char *before = i == 0 ? "" : row->names[i + 1] == NULL ? " or " : ", ";
            const char *same = row->true_name == 0   ? ""
                               : i == 0              ? " (false)"
                               : i == row->true_name ? " (true)"
                                                     : "";
            used += (size_t)snprintf(buffer + used, 256 - used, "%s\"%s\"%s", before, row->names[i], same);
        }
        break;
    case P4_CONFIG_PATH:
    case P4_CONFIG_NAME:
        snprintf(buffer, 256, "a string of at most %zu bytes", row->bytes - 1);
        break;
    case P4_CONFIG_LIST:
        snprintf(buffer, 256, "a string or a list of strings, together below %d bytes", (int)P4_LIST_BYTES);
        break;
    case P4_CONFIG_NUMBERS:
        used = (size_t)snprintf(buffer, 256, "a list of up to %d of: ", P4_NUMBERS_MAX);
        format_range(buffer + used, 256 - used, row);
        break;
    case P4_CONFIG_SETS:
        snprintf(buffer, 256,
                 "an object of up to %d names, each with a file or a list of files; a name has up to %d "
                 "letters, digits, '.', '_' and '-', and begins with one of the first two",
                 (int)P4_SETS_MAX, P4_SET_NAME_BYTES - 1);
        break;
    }
    return buffer;
}

char *p4_config_format_excerpt(char buffer[80], const char *text, size_t bytes)
{
    size_t kept = bytes <= 60 ? bytes : 57;
    while (kept < bytes && kept > 0 && ((unsigned char)text[kept] & 0xC0) == 0x80) {
        kept--; /* do not cut inside a UTF-8 character */
    }
    bool whole = p4_escape(buffer, 77, text, kept) && kept == bytes;
    size_t used = strlen(buffer);
    snprintf(buffer + used, 80 - used, "%s", whole ? "" : "...");
    return buffer;
}

/* A row's default in a recipe, as JSON. */
static const char *default_text(char buffer[256], const p4_config_row *row, p4_recipe recipe)
{
    p4_config config;
    p4_config_recipe(&config, recipe);
    if (row->type == P4_CONFIG_LIST || row->type == P4_CONFIG_NUMBERS) {
        snprintf(buffer, 256, "[]");
    } else if (row->type == P4_CONFIG_SETS) {
        snprintf(buffer, 256, "{}");
    } else if (row->text != NULL) {
        snprintf(buffer, 256, "\"%s\"", row->text);
    } else {
        p4_config_format_scalar(buffer, &config, row);
    }
    return buffer;
}

/* The defaults of the other recipes that are not quality's, as "quick: 512, seed: 1000"; tick: a character
 * around each word and value, or "". */
static const char *others_text(char buffer[256], const p4_config_row *row, const char *tick)
{
    char quality[256], other[256];
    size_t used = 0;
    buffer[0] = '\0';
    default_text(quality, row, P4_RECIPE_QUALITY);
    for (int r = 0; p4_recipe_names[r] != NULL; r++) {
        default_text(other, row, (p4_recipe)r);
        if (used < 256 && row->offset != offsetof(p4_config, recipe) && strcmp(quality, other) != 0) {
            used += (size_t)snprintf(buffer + used, 256 - used, "%s%s%s%s: %s%s%s", used > 0 ? ", " : "",
                                     tick, p4_recipe_names[r], tick, tick, other, tick);
        }
    }
    return buffer;
}

/* The allowed values; shorter than in an error message where the type alone is enough. */
static const char *allowed_text(char buffer[256], const p4_config_row *row)
{
    switch (row->type) {
    case P4_CONFIG_PATH:
        return "a path";
    case P4_CONFIG_NAME:
        return "a string";
    case P4_CONFIG_LIST:
        return "a string or a list of strings";
    case P4_CONFIG_NUMBERS:
        return "a list of numbers";
    case P4_CONFIG_SETS:
        return "lists of strings by name";
    case P4_CONFIG_UINT64:
        return "a whole number of at most 64 bits";
    default:
        return p4_config_format_expected(buffer, row);
    }
}

enum { HELP_COLUMNS = 110 };

static void print_row_help(FILE *out, const p4_config_row *row)
{
    char quality[256], others[256], allowed[256];
    default_text(quality, row, P4_RECIPE_QUALITY);
    others_text(others, row, "");
    int width = fprintf(out, "  %-29s %s,", row->name, allowed_text(allowed, row));
    int tail = (int)(strlen(" default ") + strlen(quality) +
                     (others[0] == '\0' ? 0 : strlen(" (recipe )") + strlen(others)));
    if (width + tail > HELP_COLUMNS) { /* the default goes under the allowed values */
        fprintf(out, "\n%31s", "");
    }
    fprintf(out, " default %s", quality);
    if (others[0] != '\0') {
        fprintf(out, " (recipe %s)", others);
    }
    fprintf(out, "\n      %s\n", row->help);
}

void p4_config_print_help(FILE *out)
{
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        if (row->group != NULL) {
            fprintf(out, "%s%s:\n", i > 0 ? "\n" : "", row->group);
        }
        print_row_help(out, row);
    }
}

/* The first row of the group of row i. */
static int group_of(int i)
{
    while (p4_config_table[i].group == NULL) {
        i--;
    }
    return i;
}

void p4_config_print_groups(FILE *out)
{
    for (int first = 0, i = 1; i <= p4_config_rows; i++) {
        if (i == p4_config_rows || p4_config_table[i].group != NULL) {
            fprintf(out, "  %-15s %2d: %s, ...\n", p4_config_table[first].group, i - first,
                    p4_config_table[first].name);
            first = i;
        }
    }
}

/* Does a topic name row i? */
static bool names_row(const char *topic, int i)
{
    const char *name = p4_config_table[i].name, *group = p4_config_table[group_of(i)].group;
    char word[P4_NAME_BYTES];
    size_t bytes = strlen(topic);
    if (bytes == 0 || bytes >= sizeof word) {
        return false;
    }
    for (size_t b = 0; b <= bytes; b++) {
        char c = topic[b];
        word[b] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c == '-' ? '_' : c);
    }
    return strncmp(name, word, bytes) == 0 || fnmatch(word, name, 0) == 0 ||
           (strlen(group) == bytes && p4_edit_distance(topic, group) == 0);
}

p4_rc p4_config_check_topic(const char *topic)
{
    char excerpt[80];
    for (int i = 0; i < p4_config_rows; i++) {
        if (names_row(topic, i)) {
            return P4_OK;
        }
    }
    const char *nearest = p4_config_nearest(topic);
    p4_config_format_excerpt(excerpt, topic, strlen(topic));
    return nearest != NULL
               ? FAIL("--help: unknown key \"%s\", the nearest known key is \"%s\"", excerpt, nearest)
               : FAIL("--help: found \"%s\", expected a key of cfg.json, the beginning of keys, a group of "
                      "keys, \"keys\" for all of them, or \"families\"",
                      excerpt);
}

void p4_config_print_topics(FILE *out, char *const *topics, int count)
{
    int group = -1; /* of the row before */
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        bool named = false;
        for (int t = 0; t < count; t++) {
            named = named || names_row(topics[t], i);
        }
        if (named && group_of(i) != group) {
            const p4_config_row *first = &p4_config_table[group_of(i)];
            fprintf(out, "%s%s (more in %s):\n", group >= 0 ? "\n" : "", first->group, first->more);
            group = group_of(i);
        }
        if (named) {
            print_row_help(out, row);
            fputs(row->may_change ? "      A run may continue from a checkpoint with another value.\n" : "",
                  out);
        }
    }
}

/* A paragraph, in lines of up to 120 characters. */
static void print_may_change(FILE *out)
{
    size_t used = (size_t)fprintf(out, "\nA run may continue from a checkpoint with other values of");
    for (int i = 0; i < p4_config_rows; i++) {
        const char *name = p4_config_table[i].name;
        if (p4_config_table[i].may_change) {
            bool fits = used + strlen(name) + 4 <= 120;
            used = (fits ? used : 0) + (size_t)fprintf(out, "%s`%s`,", fits ? " " : "\n", name);
        }
    }
    fputs("\nand of no other key. The files of `eval_sets` may lie elsewhere, as those of the other texts: "
          "what is in them must be\nthe same.\n",
          out);
}

void p4_config_print_markdown(FILE *out)
{
    char quality[256], others[256], allowed[256];
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        if (row->group != NULL) {
            fprintf(out,
                    "%s### %s\n\n| key | default | in other recipes | allowed | meaning "
                    "|\n|---|---|---|---|---|\n",
                    i > 0 ? "\n" : "", row->group);
        }
        default_text(quality, row, P4_RECIPE_QUALITY);
        fprintf(out, "| `%s` | `%s` | %s | %s | %s |\n", row->name, quality, others_text(others, row, "`"),
                allowed_text(allowed, row), row->help);
    }
    print_may_change(out);
}

void p4_man_print(FILE *out, const char *text)
{
    bool line_start = true;
    for (; *text != '\0'; text++) {
        if (line_start && (*text == '.' || *text == '\'')) {
            fputs("\\&", out);
        }
        if (*text == '-' || *text == '\\') {
            fputs(*text == '-' ? "\\-" : "\\e", out);
        } else {
            fputc(*text, out);
        }
        line_start = *text == '\n';
    }
}

void p4_config_print_man(FILE *out)
{
    char quality[256], others[256], allowed[256];
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        if (row->group != NULL) {
            fprintf(out, ".SS %s\n", row->group);
        }
        default_text(quality, row, P4_RECIPE_QUALITY);
        others_text(others, row, "");
        fprintf(out, ".TP\n.B %s\n", row->name);
        p4_man_print(out, row->help);
        fputc('\n', out);
        p4_man_print(out, allowed_text(allowed, row));
        fputs("; default ", out);
        p4_man_print(out, quality);
        if (others[0] != '\0') {
            fputs(" (recipe ", out);
            p4_man_print(out, others);
            fputc(')', out);
        }
        fputs(".\n", out);
    }
}
