/* frame.h - what every page begins and ends with. All Local. */
#ifndef P4_PAGE_FRAME_H
#define P4_PAGE_FRAME_H

#include <stdio.h>

#include "src/leaf/base.h"

void p4_page_begin(FILE *to, const char *title); /* up to <body> */
void p4_page_end(FILE *to);                      /* from </main> */
/* Closes a stream of open_memstream and writes its text to the file; frees the text. */
p4_rc p4_page_store(const char *path, FILE *to, char **text, size_t *bytes);

#endif
