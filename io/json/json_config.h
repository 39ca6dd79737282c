/* json_config.h - cfg.json and the key=value arguments beside it -> p4_config. The reader of JSON text and
 * the writer are public: p4_config_from_json, p4_config_to_json and p4_config_set in phase4.h. */
#ifndef P4_JSON_CONFIG_H
#define P4_JSON_CONFIG_H

#include "src/config.h"
#include "src/phase4/config.h"

/* The configuration of a job: the defaults of the recipe that the file or an override names (else `recipe`),
 * the file's keys, then `count` overrides "key=value" in order (the last of a key wins), then
 * p4_config_validate and p4_config_validate_job. All errors are reported at once; *config is written only
 * when there are none. Local. */
p4_rc p4_config_read_file(p4_config *config, const char *path, p4_recipe recipe, char *const *overrides,
                          int count);

#endif
