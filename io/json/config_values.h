/* config_values.h - the value of a key, from JSON. */
#ifndef P4_CONFIG_VALUES_H
#define P4_CONFIG_VALUES_H

#include "io/json/text.h"
#include "src/config.h"

/* Reads one row's value and checks its range. A refused value is reported and its user_set bit left as it is.
 * Local. */
void p4_config_read_row(p4_config *config, int row, const p4_json_value *value, p4_config_report *report);

#endif
