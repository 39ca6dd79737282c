#include "io/page/html.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "io/utf8/utf8.h"

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */
static const char dash[] = "<span class=\"none\" title=\"not measured\">\xE2\x80\x93</span>";

static const char minus[] = "\xE2\x88\x92";

static void put_character(FILE *to, unsigned char c)
{
    switch (c) {
    case '&':
        fputs("&amp;", to);
        break;
    case '<':
        fputs("&lt;", to);
        break;
    case '>':
        fputs("&gt;", to);
        break;
    case '"':
        fputs("&quot;", to);
        break;
    case '\'':
        fputs("&#39;", to);
        break;
    default:
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
            fputs(replacement, to);
        } else {
            putc(c, to);
        }
    }
}

void p4_html_text(FILE *to, const char *text)
{
    size_t bytes = text != NULL ? strlen(text) : 0;
    for (size_t at = 0; at < bytes;) {
        size_t end = at + p4_utf8_valid_bytes(text + at, bytes - at);
        while (at < end) {
            put_character(to, (unsigned char)text[at++]);
        }
        if (at < bytes) {
            fputs(replacement, to);
            at++;
        }
    }
}

void p4_html_foreign(FILE *to, const char *text)
{
    fputs("<bdi>", to);
    p4_html_text(to, text);
    fputs("</bdi>", to);
}

void p4_html_number(FILE *to, double value, int decimals, const char *unit)
{
    char number[P4_NUMBER_BYTES];
    if (isnan(value)) {
        fputs(dash, to);
    } else {
        const char *digits = p4_format_number(number, value, decimals);
        bool negative = digits[0] == '-';
        fprintf(to, "%s%s%s", negative ? minus : "", digits + negative, isfinite(value) ? unit : "");
    }
}

void p4_html_general(FILE *to, double value)
{
    if (!isfinite(value)) {
        p4_html_number(to, value, 0, "");
    } else {
        const char *sign = value < 0 ? minus : "";
        fputs(sign, to);
        fprintf(to, fabs(value) >= 1000 && fabs(value) < 1e6 ? "%.0f" : "%.3g", fabs(value));
    }
}

void p4_html_count(FILE *to, double value)
{
    char digits[32];
    if (!(fabs(value) < 1e18)) {
        fputs(dash, to);
        return;
    }
    int length = snprintf(digits, sizeof digits, "%" PRId64, (int64_t)value);
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0 && digits[i - 1] != '-') {
            putc(',', to);
        }
        putc(digits[i], to);
    }
}

void p4_html_bytes(FILE *to, double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    if (isnan(bytes)) {
        fputs(dash, to);
        return;
    }
    while (bytes >= 1024 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    fprintf(to, "%.*f&nbsp;%s", unit == 0 ? 0 : bytes < 10 ? 2 : bytes < 100 ? 1 : 0, bytes, units[unit]);
}

void p4_html_duration(FILE *to, double seconds)
{
    if (!(seconds >= 0 && seconds < 1e9)) {
        fputs(dash, to);
    } else if (seconds < 60) {
        fprintf(to, "%.*f&nbsp;s", seconds < 10 ? 2 : 1, seconds);
    } else if (seconds < 3600) {
        fprintf(to, "%d&nbsp;min&nbsp;%d&nbsp;s", (int)seconds / 60, (int)seconds % 60);
    } else {
        fprintf(to, "%d&nbsp;h&nbsp;%d&nbsp;min", (int)(seconds / 3600), (int)fmod(seconds / 60, 60));
    }
}

/* In percent. */
static void put_signed(FILE *to, double ratio)
{
    fprintf(to, "%s%.1f", ratio < 0 ? minus : "+", 100 * fabs(ratio));
}

void p4_html_change(FILE *to, double ratio)
{
    if (!isfinite(ratio)) {
        p4_html_number(to, ratio, 0, "");
    } else {
        put_signed(to, ratio);
        fputs("&nbsp;%", to);
    }
}

void p4_html_interval(FILE *to, const char *before, double low, double high, const char *after)
{
    if (isfinite(low) && isfinite(high)) {
        fputs(before, to);
        put_signed(to, low);
        fputs(" to ", to);
        put_signed(to, high);
        fprintf(to, "&nbsp;%%%s", after);
    }
}

void p4_html_section(FILE *to, const char *id, const char *title)
{
    fprintf(to, "<section id=\"%s\" aria-labelledby=\"%s-h\">\n<h2 id=\"%s-h\">%s</h2>\n", id, id, id, title);
}

void p4_html_end_section(FILE *to)
{
    fputs("</section>\n", to);
}

void p4_html_table(FILE *to, const char *caption, const char *head)
{
    enum { FIT = 6 }; /* columns that fit on a phone: of more, the first one stays in place */
    int columns = 1;
    for (const char *c = head; *c != '\0'; c++) {
        columns += *c == '|';
    }
    fprintf(to,
            "<div class=\"scroll%s\" tabindex=\"0\" role=\"region\" aria-label=\"%s\">\n<table>\n"
            "<caption>%s</caption>\n<thead><tr>",
            columns > FIT ? " wide" : "", caption, caption);
    for (const char *cell = head; cell != NULL;) {
        const char *end = strchr(cell, '|');
        size_t length = end != NULL ? (size_t)(end - cell) : strlen(cell);
        bool number = *cell == '#';
        fprintf(to, "<th scope=\"col\"%s>%.*s</th>", number ? " class=\"n\"" : "", (int)length - number,
                cell + number);
        cell = end != NULL ? end + 1 : NULL;
    }
    fputs("</tr></thead>\n<tbody>\n", to);
}

void p4_html_end_table(FILE *to)
{
    fputs("</tbody>\n</table>\n</div>\n", to);
}
