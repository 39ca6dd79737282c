/* html.h - text and numbers as HTML. Strings that come from files pass p4_html_text: nothing in them is
 * markup. All Local; an error of the stream is the caller's to find (ferror). */
#ifndef P4_PAGE_HTML_H
#define P4_PAGE_HTML_H

#include <stdio.h>

#include "src/leaf/base.h"

/* UTF-8 text, escaped for an element or a quoted attribute. A byte that is not UTF-8 and a control character
 * become U+FFFD. NULL: nothing. */
void p4_html_text(FILE *to, const char *text);
/* The same as a piece whose direction of writing does not affect what is around it. */
void p4_html_foreign(FILE *to, const char *text);

/* A value with its decimals and unit; a dash for NaN. */
void p4_html_number(FILE *to, double value, int decimals, const char *unit);
/* With three or four significant digits, for values of any scale. */
void p4_html_general(FILE *to, double value);
/* 1,234,567 */
void p4_html_count(FILE *to, double value);
/* "850 KiB", "12.3 MiB" of bytes; "4 min 12 s" of seconds. */
void p4_html_bytes(FILE *to, double bytes);
void p4_html_duration(FILE *to, double seconds);
/* "+7.9 %" of a ratio; every minus sign of a page is U+2212. */
void p4_html_change(FILE *to, double ratio);
/* "+3.1 to +9.4 %" of two ratios; nothing where one is not finite. before: what is put in front of it. */
void p4_html_interval(FILE *to, const char *before, double low, double high, const char *after);

/* A section of the page with its heading; p4_html_end_section closes it. Titles are literals. */
void p4_html_section(FILE *to, const char *id, const char *title);
void p4_html_end_section(FILE *to);
/* A table in a box that scrolls sideways where it is too wide. p4_html_end_table closes both. `head`: the
 * cells of the header row, separated by '|'; a cell that begins with '#' is of a column of numbers. */
void p4_html_table(FILE *to, const char *caption, const char *head);
void p4_html_end_table(FILE *to);

#endif
