/* members.h - the texts inside one file: the file itself behind its layers, or the text files in its
 * archives.
 */
#ifndef P4_MEMBERS_H
#define P4_MEMBERS_H

#include "io/text/byte_stream.h"
#include "io/text/dataset_parts.h"

typedef struct p4_members p4_members;

/* A file that is not text is refused, by its content or its name. The caller closes. Local. */
p4_rc p4_members_open(p4_members **members, const char *path);
/* *stream: the bytes of the next text, which belong to `members` and stay valid until the next call; NULL at
 * the end. *format: P4_DATA_TEXT, P4_DATA_JSONL or P4_DATA_ARTICLES. An archive without any text is an error.
 * Local. */
p4_rc p4_members_next(p4_members *members, p4_stream **stream, p4_data_kind *format);
void p4_members_close(p4_members *members);

#endif
