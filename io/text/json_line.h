/* json_line.h - the text of one line of JSONL. */
#ifndef P4_JSON_LINE_H
#define P4_JSON_LINE_H

#include "io/text/chat.h"
#include "src/leaf/base.h"

/* Where a line stands, for messages. */
typedef struct p4_line_place {
    const char *source;
    int64_t number;   /* from 1; 0: not known, because the lines before it were not read */
    int64_t at_bytes; /* offset of its first byte */
} p4_line_place;

/* Which field of an object is the text. */
typedef struct p4_json_reading {
    const char
        *opt_field; /* NULL or "": "text", else "content", "raw_content", "document", or a conversation */
    const p4_chat *chat; /* that renders conversations; NULL: they are refused */
} p4_json_reading;

/* *text: the text of the JSON object in `line`: the string in a field, which is unescaped into `line` itself,
 * whose bytes are overwritten; or a conversation (conversation.h), rendered into *rendered, a heap string
 * that the caller frees, otherwise NULL. A field that is named may hold either. Of two fields with the same
 * name the later one counts. NaN, Infinity and -Infinity are accepted as values of other fields, because
 * Python's json module writes them. Half a surrogate pair and the escape \u0000 become U+FFFD and are counted
 * in *replaced, in whichever field they stand. Errors name the source, the line and the column (from 1).
 * Local.
 */
p4_rc p4_json_line_text(char *line, size_t bytes, const p4_line_place *place, const p4_json_reading *how,
                        char **text, size_t *text_bytes, char **rendered, int64_t *replaced);

#endif
