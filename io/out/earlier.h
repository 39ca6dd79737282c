/* earlier.h - the run whose results are in an output directory, beside one that wants to write there. */
#ifndef P4_OUT_EARLIER_H
#define P4_OUT_EARLIER_H

#include "src/leaf/base.h"
#include "src/phase4/config.h"

/* Always an error, P4_E_INPUT unless memory is out: another run's results are there. It says that the run is
 * complete where its configuration is opt_config, and else in which keys that differs; `files`, a list of
 * what is there, where either is not known (also opt_config NULL). Local. */
p4_rc p4_earlier_refuse(const char *output_path, const p4_config *opt_config, const char *files);

#endif
