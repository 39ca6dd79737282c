/* results_read.h - results.json of an output directory, read again. */
#ifndef P4_RESULTS_READ_H
#define P4_RESULTS_READ_H

#include <cjson/cJSON.h>

/* NULL: it is not there or cannot be read, which is no error here. The caller deletes it. Local. */
cJSON *p4_results_read(const char *output_path);

#endif
