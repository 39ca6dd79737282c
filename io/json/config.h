/* config.h - cfg.json and the key=value arguments beside it <-> p4_config, by the configuration table. */
#ifndef P4_JSON_CONFIG_H
#define P4_JSON_CONFIG_H

#include "src/config.h"
#include "src/phase4/config.h"

/* The configuration of a job: the defaults of the recipe that the file or an override names (else `recipe`),
 * the file's keys, then `count` overrides "key=value" in order (the last of a key wins). All errors of the
 * three and of the checks between keys are reported at once; *config is written only when there are none.
 * Local. */
p4_rc p4_config_read_file(p4_config *config, const char *path, p4_recipe recipe, char *const *overrides,
                          int count);

/* The same from the text of such a file; `source` names it in messages, with lines unless the text is
 * `lineless`: composed of parts, so that its lines are none that the user can find. Local. */
p4_rc p4_config_read_text(p4_config *config, const char *text, size_t bytes, const char *source,
                          bool lineless, p4_recipe recipe, char *const *overrides, int count);

/* What p4_config_from_json, p4_config_to_json and p4_config_set of phase4.h do, without their first step,
 * which clears the recorded error: for calls inside the library. Local. */
p4_rc p4_config_parse(p4_config *config, const char *json, size_t json_bytes, const char *source,
                      p4_recipe recipe);
p4_rc p4_config_print(const p4_config *config, char **json);
/* Relative paths become absolute, as they are meant in the working directory: ".." at their start is
 * resolved, links are not. P4_E_INPUT: the directory is not known, or a key has no room for longer paths and
 * keeps what it has. Local. */
p4_rc p4_config_anchor(p4_config *config);
/* The text that is recorded beside results: p4_config_print with absolute paths, so that it means the same
 * files wherever it is read. What p4_config_anchor refuses is a warning. Local. */
p4_rc p4_config_print_anchored(const p4_config *config, char **json);
/* The defaults of both recipes, which may be those of another version: {"quality": {key: text}, "seed":
 * {...}}, each text the value as JSON. The caller frees *json. Local. */
p4_rc p4_config_print_defaults(char **json);
typedef struct p4_config_defaults p4_config_defaults;
p4_rc p4_config_read_defaults(p4_config_defaults **defaults, const char *json, size_t bytes,
                              const char *source);
void p4_config_free_defaults(p4_config_defaults *defaults); /* NULL is fine. */

/* What the user chose, on one line: the recipe and the keys whose values differ from its defaults, in the
 * order of their names, without those that decide no result (no_result of the table). A key that a later
 * version adds does not change the text. opt_defaults: those of the version that is asked, NULL: of this one;
 * a key that it does not know has this one's. The caller frees *json. Local. */
p4_rc p4_config_print_chosen(const p4_config *config, const p4_config_defaults *opt_defaults, char **json);
p4_rc p4_config_set_key(p4_config *config, const char *key, const char *value);

#endif
