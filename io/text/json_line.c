#include "io/text/json_line.h"

#include <stdio.h>
#include <string.h>

enum { DEEPEST = 512 };

static const char *const field_names[] = {"text", "content", "raw_content", "document"};
enum { FIELDS = sizeof field_names / sizeof field_names[0] };

typedef struct scanner {
    char *begin, *at, *end;
    const char *source;
    int64_t line_number;
} scanner;

/* A string between its quotes, still escaped. */
typedef struct span {
    char *at;
    size_t bytes;
    bool escaped;
} span;

static p4_rc refuse(const scanner *s, const char *expected)
{
    char found[32] = "the end of the line";
    if (s->at < s->end) {
        unsigned char byte = (unsigned char)*s->at;
        snprintf(found, sizeof found, byte >= 0x20 && byte < 0x7f ? "'%c'" : "byte 0x%02x", byte);
    }
    return FAIL("%s line %lld column %lld: found %s, expected %s", s->source, (long long)s->line_number,
                (long long)(s->at - s->begin + 1), found, expected);
}

static void skip_space(scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\r' || *s->at == '\n')) {
        s->at++;
    }
}

static bool take(scanner *s, char byte)
{
    bool there = s->at < s->end && *s->at == byte;
    s->at += there;
    return there;
}

static int hex_value(char c)
{
    int value = c >= '0' && c <= '9'                     ? c - '0'
                : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                         : -1;
    return value;
}

static p4_rc check_escape(scanner *s)
{
    s->at++;
    if (s->at < s->end && *s->at == 'u') {
        s->at++;
        for (int i = 0; i < 4; i++, s->at++) {
            if (s->at >= s->end || hex_value(*s->at) < 0) {
                return refuse(s, "four hexadecimal digits after \\u");
            }
        }
        return P4_OK;
    }
    if (s->at >= s->end || *s->at == '\0' || strchr("\"\\/bfnrt", *s->at) == NULL) {
        return refuse(s, "one of \" \\ / b f n r t u after a backslash");
    }
    s->at++;
    return P4_OK;
}

static p4_rc scan_string(scanner *s, span *string)
{
    if (!take(s, '"')) {
        return refuse(s, "'\"'");
    }
    string->at = s->at;
    string->escaped = false;
    for (;;) {
        char *at = s->at, *end = s->end;
        while (at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= 0x20) {
            at++;
        }
        s->at = at;
        if (at == end) {
            return refuse(s, "the rest of a string and '\"' (is the file truncated?)");
        }
        if (*at == '"') {
            string->bytes = (size_t)(at - string->at);
            s->at++;
            return P4_OK;
        }
        if (*at != '\\') {
            return refuse(s,
                          "an escape such as \\n or \\t: control characters do not stand in a JSON string");
        }
        string->escaped = true;
        p4_rc rc = check_escape(s);
        if (rc != P4_OK) {
            return rc;
        }
    }
}

static bool take_digits(scanner *s)
{
    char *from = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') {
        s->at++;
    }
    return s->at > from;
}

static p4_rc scan_number(scanner *s)
{
    (void)take(s, '-');
    if (!take(s, '0') && !take_digits(s)) {
        return refuse(s, "a digit");
    }
    if (take(s, '.') && !take_digits(s)) {
        return refuse(s, "a digit after the decimal point");
    }
    if (take(s, 'e') || take(s, 'E')) {
        (void)(take(s, '+') || take(s, '-'));
        if (!take_digits(s)) {
            return refuse(s, "a digit in the exponent");
        }
    }
    return P4_OK;
}

/* A string, number or word. NaN and Infinity are no JSON, but Python's json module writes them. */
static p4_rc scan_scalar(scanner *s)
{
    static const char *const words[] = {"true", "false", "null", "NaN", "Infinity", "-Infinity"};
    if (s->at < s->end && *s->at == '"') {
        span ignored;
        return scan_string(s, &ignored);
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t length = strlen(words[i]);
        if ((size_t)(s->end - s->at) >= length && memcmp(s->at, words[i], length) == 0) {
            s->at += length;
            return P4_OK;
        }
    }
    if (s->at < s->end && (*s->at == '-' || (*s->at >= '0' && *s->at <= '9'))) {
        return scan_number(s);
    }
    return refuse(s, "a value");
}

static p4_rc scan_key(scanner *s, span *key)
{
    skip_space(s);
    if (s->at >= s->end || *s->at != '"') {
        return refuse(s, "'\"' and the name of a field");
    }
    p4_rc rc = scan_string(s, key);
    if (rc == P4_OK) {
        skip_space(s);
        rc = take(s, ':') ? P4_OK : refuse(s, "':'");
    }
    return rc;
}

/* Passes over one value of any kind. What is open is a bit each (1: an object) instead of recursion, so that
 * depth costs no stack. */
static p4_rc skip_value(scanner *s)
{
    uint64_t objects[DEEPEST / 64] = {0};
    int depth = 0;
    span key;
    p4_rc rc;
    for (;;) {
        skip_space(s);
        bool object = s->at < s->end && *s->at == '{', array = s->at < s->end && *s->at == '[';
        bool opened = false; /* and not empty: a value follows */
        if (object || array) {
            if (depth == DEEPEST) {
                return refuse(s, "at most 512 objects and arrays inside one another");
            }
            s->at++;
            skip_space(s);
            opened = !take(s, object ? '}' : ']');
        } else if ((rc = scan_scalar(s)) != P4_OK) {
            return rc;
        }
        if (opened) {
            uint64_t bit = UINT64_C(1) << (depth % 64);
            objects[depth / 64] = object ? objects[depth / 64] | bit : objects[depth / 64] & ~bit;
            depth++;
        }
        bool more = opened;
        while (!more && depth > 0) { /* after a value: a comma, or the ends of what is open */
            object = (objects[(depth - 1) / 64] >> ((depth - 1) % 64) & 1) != 0;
            skip_space(s);
            more = take(s, ',');
            if (!more && !take(s, object ? '}' : ']')) {
                return refuse(s, object ? "',' or '}'" : "',' or ']'");
            }
            depth -= !more;
        }
        if (!more) {
            return P4_OK;
        }
        if (object && (rc = scan_key(s, &key)) != P4_OK) {
            return rc;
        }
    }
}

static char *put_utf8(char *to, uint32_t point)
{
    if (point < 0x80) {
        *to++ = (char)point;
    } else if (point < 0x800) {
        *to++ = (char)(0xc0 | point >> 6);
        *to++ = (char)(0x80 | (point & 0x3f));
    } else if (point < 0x10000) {
        *to++ = (char)(0xe0 | point >> 12);
        *to++ = (char)(0x80 | (point >> 6 & 0x3f));
        *to++ = (char)(0x80 | (point & 0x3f));
    } else {
        *to++ = (char)(0xf0 | point >> 18);
        *to++ = (char)(0x80 | (point >> 12 & 0x3f));
        *to++ = (char)(0x80 | (point >> 6 & 0x3f));
        *to++ = (char)(0x80 | (point & 0x3f));
    }
    return to;
}

static uint32_t hex4(const char *at)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        value = value << 4 | (uint32_t)hex_value(at[i]);
    }
    return value;
}

/* \uXXXX at `from`, which points behind the u; a high half takes the low half that follows it. */
static const char *unescape_unicode(const char *from, const char *end, char **to, int64_t *replaced)
{
    uint32_t point = hex4(from);
    from += 4;
    if (point >= 0xd800 && point < 0xdc00 && end - from >= 6 && from[0] == '\\' && from[1] == 'u') {
        uint32_t low = hex4(from + 2);
        if (low >= 0xdc00 && low < 0xe000) {
            point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
            from += 6;
        }
    }
    if (point >= 0xd800 && point < 0xe000) {
        point = 0xfffd;
        (*replaced)++;
    }
    *to = put_utf8(*to, point);
    return from;
}

/* In place: an escape is never shorter than what it stands for. */
static void unescape(span *string, int64_t *replaced)
{
    const char *from = string->at, *end = from + string->bytes;
    char *to = string->at;
    while (string->escaped && from < end) {
        const char *next = memchr(from, '\\', (size_t)(end - from));
        size_t plain = (size_t)((next != NULL ? next : end) - from);
        memmove(to, from, plain);
        to += plain;
        from += plain;
        if (next == NULL) {
            break;
        }
        char kind = from[1];
        from += 2;
        if (kind == 'u') {
            from = unescape_unicode(from, end, &to, replaced);
        } else {
            static const char letters[] = "bfnrt", meanings[] = "\b\f\n\r\t";
            const char *letter = strchr(letters, kind);
            *to++ = letter != NULL ? meanings[letter - letters] : kind;
        }
    }
    if (string->escaped) {
        string->bytes = (size_t)(to - string->at);
        string->escaped = false;
    }
}

static int field_index(span *key)
{
    int64_t ignored = 0;
    unescape(key, &ignored);
    for (int i = 0; i < FIELDS; i++) {
        if (key->bytes == strlen(field_names[i]) && memcmp(key->at, field_names[i], key->bytes) == 0) {
            return i;
        }
    }
    return -1;
}

/* One field of the outer object. Only `text` must be a string: the others are fallbacks. */
static p4_rc scan_field(scanner *s, span found[FIELDS])
{
    span key;
    p4_rc rc = scan_key(s, &key);
    if (rc != P4_OK) {
        return rc;
    }
    skip_space(s);
    int field = field_index(&key);
    if (field >= 0 && s->at < s->end && *s->at == '"') {
        return scan_string(s, &found[field]);
    }
    return field == 0 ? refuse(s, "a string as field \"text\"") : skip_value(s);
}

p4_rc p4_json_line_text(char *line, size_t bytes, const char *source, int64_t line_number, char **text,
                        size_t *text_bytes, int64_t *replaced)
{
    p4_rc rc = P4_OK;
    scanner s = {line, line, line + bytes, source, line_number};
    span found[FIELDS] = {{NULL, 0, false}};
    skip_space(&s);
    if (!take(&s, '{')) {
        return refuse(&s, "'{': one JSON object a line (JSONL)");
    }
    skip_space(&s);
    if (!take(&s, '}')) {
        do {
            TRY(scan_field(&s, found));
            skip_space(&s);
        } while (take(&s, ','));
        if (!take(&s, '}')) {
            return refuse(&s, "',' or '}'");
        }
    }
    skip_space(&s);
    if (s.at < s.end) {
        return refuse(&s, "the end of the line: one JSON object a line (JSONL)");
    }
    for (int i = 0; i < FIELDS; i++) {
        if (found[i].at != NULL) {
            unescape(&found[i], replaced);
            *text = found[i].at;
            *text_bytes = found[i].bytes;
            return P4_OK;
        }
    }
    rc = FAIL("%s line %lld: the object has no string field \"text\" (nor content, raw_content, document)",
              source, (long long)line_number);
done:
    return rc;
}
