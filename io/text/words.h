/* words.h - the words of a text as lm-eval's wikitext task counts them: len(re.split(r"\s+", text)) in
 * Python, one more than there are runs of white space. */
#ifndef P4_TEXT_WORDS_H
#define P4_TEXT_WORDS_H

#include "src/leaf/base.h"

/* The runs of white space in a text, or in a piece of one that is cut between two characters. */
typedef struct p4_white_runs {
    int64_t count;
    bool first, last; /* the text begins with one; ends with one */
} p4_white_runs;

/* Text in UTF-8; what is not UTF-8 is no white space. Local. */
p4_white_runs p4_white_runs_count(const char *text, size_t bytes);

#endif
