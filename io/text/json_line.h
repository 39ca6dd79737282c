/* json_line.h - the text field of one line of JSONL: a strict scanner (RFC 8259), far faster than building a
 * tree. */
#ifndef P4_JSON_LINE_H
#define P4_JSON_LINE_H

#include "src/leaf/base.h"

/* *text: the unescaped string field "text" of the object in `line`, else "content", "raw_content" or
 * "document" (the later of two fields of one name), unescaped in place: it points into `line`, whose bytes
 * are changed. Other fields are checked and ignored. Half a surrogate pair becomes U+FFFD and is counted in
 * *replaced. Errors name `source`, the line and the column (both from 1). Local. */
p4_rc p4_json_line_text(char *line, size_t bytes, const char *source, int64_t line_number, char **text,
                        size_t *text_bytes, int64_t *replaced);

#endif
