#include "io/json/text.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_DEPTH = 64 };

const char *p4_json_skip_mark(const char *json)
{
    static const char mark[] = "\xEF\xBB\xBF";
    return strncmp(json, mark, sizeof mark - 1) == 0 ? json + sizeof mark - 1 : json;
}

static void advance(p4_json_cursor *cursor)
{
    cursor->line += *cursor->at == '\n';
    cursor->at += *cursor->at != '\0';
}

/* White space as cJSON sees it, and the punctuation between members. */
static void skip_to_token(p4_json_cursor *cursor)
{
    while (*cursor->at != '\0' && ((unsigned char)*cursor->at <= ' ' || strchr(",:", *cursor->at) != NULL)) {
        advance(cursor);
    }
}

static void skip_string(p4_json_cursor *cursor)
{
    advance(cursor);
    while (*cursor->at != '"' && *cursor->at != '\0') {
        if (*cursor->at == '\\') {
            advance(cursor);
        }
        advance(cursor);
    }
    advance(cursor);
}

static void skip_value(p4_json_cursor *cursor)
{
    int depth = 0;
    do {
        char c = *cursor->at;
        if (c == '"') {
            skip_string(cursor);
            continue;
        }
        depth += (c == '[' || c == '{') - (c == ']' || c == '}');
        advance(cursor);
    } while (*cursor->at != '\0' && (depth > 0 || (strchr(",]}", *cursor->at) == NULL && *cursor->at > ' ')));
}

p4_json_value p4_json_next_value(p4_json_cursor *cursor, const cJSON *item)
{
    skip_to_token(cursor);
    p4_json_value value = {.item = item, .raw = cursor->at, .line = cursor->line};
    skip_value(cursor);
    value.raw_bytes = (size_t)(cursor->at - value.raw);
    return value;
}

void p4_json_enter(p4_json_cursor *cursor)
{
    skip_to_token(cursor);
    advance(cursor);
}

void p4_json_leave(p4_json_cursor *cursor)
{
    skip_to_token(cursor);
    advance(cursor);
}

int p4_json_next_key(p4_json_cursor *cursor)
{
    skip_to_token(cursor);
    int line = cursor->line;
    skip_string(cursor);
    return line;
}

static const char *skip_digits(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9') {
        at++;
    }
    return at;
}

size_t p4_json_number_bytes(const char *raw, size_t bytes)
{
    const char *end = raw + bytes, *at = raw + (bytes > 0 && *raw == '-');
    const char *digits = at;
    at = skip_digits(at, end);
    bool ok = at > digits && (*digits != '0' || at == digits + 1);
    if (ok && at < end && *at == '.') {
        digits = at + 1;
        at = skip_digits(digits, end);
        ok = at > digits;
    }
    if (ok && at < end && (*at == 'e' || *at == 'E')) {
        digits = at + 1 + (at + 1 < end && (at[1] == '+' || at[1] == '-'));
        at = skip_digits(digits, end);
        ok = at > digits;
    }
    return ok ? (size_t)(at - raw) : 0;
}

bool p4_json_is_number(const p4_json_value *value)
{
    return cJSON_IsNumber(value->item) &&
           p4_json_number_bytes(value->raw, value->raw_bytes) == value->raw_bytes;
}

bool p4_json_underflows(const p4_json_value *value)
{
    size_t mantissa = 0;
    while (mantissa < value->raw_bytes && strchr("-.0", value->raw[mantissa]) != NULL) {
        mantissa++;
    }
    return cJSON_IsNumber(value->item) && value->item->valuedouble == 0 && mantissa < value->raw_bytes &&
           value->raw[mantissa] >= '1' && value->raw[mantissa] <= '9';
}

bool p4_json_whole(const p4_json_value *value, bool *negative, uint64_t *magnitude)
{
    char digits[32];
    if (!p4_json_is_number(value)) {
        return false;
    }
    size_t sign = *value->raw == '-';
    *negative = sign == 1;
    if (skip_digits(value->raw + sign, value->raw + value->raw_bytes) == value->raw + value->raw_bytes) {
        if (value->raw_bytes >= sizeof digits) {
            return false;
        }
        memcpy(digits, value->raw, value->raw_bytes);
        digits[value->raw_bytes] = '\0';
        errno = 0;
        *magnitude = strtoull(digits + sign, NULL, 10);
        return errno == 0;
    }
    double size = fabs(value->item->valuedouble);
    if (!(size <= 0x1p53) || size != floor(size)) {
        return false;
    }
    *magnitude = (uint64_t)size;
    return true;
}

/* Checks what cJSON accepts or does not explain: control characters, \u0000 (which would cut a string short)
 * and depth. */
static bool scan_text(const char *json, size_t bytes, p4_config_report *report)
{
    int line = 1, depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        char c = json[i];
        if ((unsigned char)c < ' ' && (in_string || strchr("\t\r\n", c) == NULL || c == '\0')) {
            p4_config_complain(report, line,
                               "found the control character 0x%02X%s, expected JSON text in UTF-8",
                               (unsigned)c, in_string ? " in a string" : "");
            return false;
        }
        line += c == '\n';
        if (in_string && c == '\\') {
            if (strncmp(json + i, "\\u0000", 6) == 0) {
                p4_config_complain(report, line, "found \\u0000 in a string, expected text without NUL");
                return false;
            }
            i += i + 1 < bytes && (unsigned char)json[i + 1] >= ' ';
        } else if (c == '"') {
            in_string = !in_string;
        } else if (!in_string) {
            depth += (c == '[' || c == '{') - (c == ']' || c == '}');
        }
        if (depth > MAX_DEPTH) {
            p4_config_complain(report, line,
                               "found lists or objects more than %d deep, expected keys with plain values",
                               (int)MAX_DEPTH);
            return false;
        }
    }
    return true;
}

static int line_at(const char *json, const char *at, const char **line_start)
{
    int line = 1;
    *line_start = json;
    for (const char *c = json; c < at; c++) {
        if (*c == '\n') {
            line++;
            *line_start = c + 1;
        }
    }
    return line;
}

static bool starts_with_word(const char *at, const char *word)
{
    return strncasecmp(at, word, strlen(word)) == 0;
}

static const char *skip_space_back(const char *json, const char *at)
{
    while (at > json && (unsigned char)at[-1] <= ' ') {
        at--;
    }
    return at;
}

/* The place of the error, from where cJSON stopped: one late if the character cannot start a key. */
static const char *syntax_place(const char *json, const char *stop)
{
    if (stop == json || stop[-1] == '"' || (unsigned char)stop[-1] <= ' ') {
        return stop;
    }
    const char *before = skip_space_back(json, stop - 1);
    return before > json && (before[-1] == '{' || before[-1] == ',') ? stop - 1 : stop;
}

static const char *syntax_hint(const char *json, const char *at)
{
    const char *before = skip_space_back(json, at);
    bool after_comma = before > json && before[-1] == ',';
    if (starts_with_word(at, "nan") || starts_with_word(at, "inf") || starts_with_word(at, "-inf")) {
        return " (NaN and infinity are no JSON numbers)";
    }
    if (starts_with_word(at, "true") || starts_with_word(at, "false")) {
        return " (true and false are written in lower case)";
    }
    switch (*at) {
    case '\0':
        return " (the text ends too early)";
    case '\'':
        return " (strings take double quotes)";
    case '/':
    case '#':
        return " (JSON has no comments)";
    case '}':
    case ']':
        return after_comma ? " (a comma too much before it)" : "";
    case '"':
        return " (a comma or colon missing before it, or a bad escape or no end in it)";
    default:
        return "";
    }
}

static void complain_syntax(const char *json, const char *stop, p4_config_report *report)
{
    char excerpt[80];
    const char *line_start, *at = syntax_place(json, stop);
    int line = line_at(json, at, &line_start);
    p4_config_complain(report, line, "not valid JSON at column %td, near \"%s\"%s", at - line_start + 1,
                       p4_config_format_excerpt(excerpt, at, strnlen(at, 20)), syntax_hint(json, at));
}

cJSON *p4_json_parse(const char *json, size_t bytes, p4_config_report *report)
{
    const char *end = json, *line_start;
    char excerpt[80];
    if (!scan_text(json, bytes, report)) {
        return NULL;
    }
    if (json[strspn(json, " \t\r\n")] == '\0') {
        p4_config_complain(report, 0, "is empty, expected a JSON object");
        return NULL;
    }
    cJSON *tree = cJSON_ParseWithLengthOpts(json, bytes + 1, &end, false);
    if (tree == NULL) {
        complain_syntax(json, end, report);
        return NULL;
    }
    end += strspn(end, " \t\r\n");
    if (*end != '\0') {
        p4_config_complain(report, line_at(json, end, &line_start),
                           "found \"%s\" after the end of the JSON value, expected nothing",
                           p4_config_format_excerpt(excerpt, end, strnlen(end, 40)));
        cJSON_Delete(tree);
        return NULL;
    }
    return tree;
}
