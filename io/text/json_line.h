/* json_line.h - the text of one line of JSONL. */
#ifndef P4_JSON_LINE_H
#define P4_JSON_LINE_H

#include "src/leaf/base.h"

/* Where a line stands, for messages. */
typedef struct p4_line_place {
    const char *source;
    int64_t number;   /* from 1; 0: not known, because the lines before it were not read */
    int64_t at_bytes; /* offset of its first byte */
} p4_line_place;

/* *text: the string field "text" of the JSON object in `line`, else "content", "raw_content" or "document".
 * Of two fields with the same name the later one counts. The text is unescaped into `line` itself, whose
 * bytes are overwritten. NaN, Infinity and -Infinity are accepted as values of other fields, because Python's
 * json module writes them. Half a surrogate pair and the escape \u0000 become U+FFFD and are counted in
 * *replaced, in whichever field they stand. Errors name the source, the line and the column (from 1). Local.
 */
p4_rc p4_json_line_text(char *line, size_t bytes, const p4_line_place *place, char **text, size_t *text_bytes,
                        int64_t *replaced);

#endif
