/* Fuzzes the reader of cfg.json and of key=value arguments. What is accepted must be valid, must be written
 * and read back the same; what is refused must say why and leave the configuration alone. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/json/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static p4_config config, again, untouched;

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void require_round_trip(void)
{
    char *json = NULL;
    require(p4_config_validate(&config) == P4_OK);
    require(p4_config_to_json(&config, &json) == P4_OK);
    require(p4_config_from_json(&again, json, strlen(json), "again.json", P4_RECIPE_SEED) == P4_OK);
    memcpy(again.user_set, config.user_set, sizeof again.user_set);
    require(memcmp(&again, &config, sizeof config) == 0);
    free(json);
}

static void require_refusal(p4_rc rc)
{
    require(rc == P4_E_INPUT && p4_last_error()[0] != '\0');
    require(memcmp(&config, &untouched, sizeof config) == 0);
    p4_error_clear();
}

/* The input as an argument: the text before its first '=' is the key, what follows the value. */
static void set_argument(const uint8_t *data, size_t bytes)
{
    char *argument = p4_alloc(bytes + 1, 1);
    require(argument != NULL);
    memcpy(argument, data, bytes);
    char *equals = strchr(argument, '=');
    if (equals != NULL) {
        *equals = '\0';
        p4_config_recipe(&config, P4_RECIPE_QUALITY);
        memcpy(&untouched, &config, sizeof config);
        p4_rc rc = p4_config_set(&config, argument, equals + 1);
        if (rc != P4_OK) {
            require_refusal(rc);
        } else if (p4_config_validate(&config) == P4_OK) {
            require_round_trip();
        } else {
            p4_error_clear(); /* one key is set; the rules between keys are the caller's to check */
        }
    }
    free(argument);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    p4_config_recipe(&config, P4_RECIPE_QUALITY);
    memcpy(&untouched, &config, sizeof config);
    p4_rc rc = p4_config_from_json(&config, (const char *)data, bytes, "cfg.json", P4_RECIPE_QUALITY);
    if (rc == P4_OK) {
        require_round_trip();
    } else {
        require_refusal(rc);
    }
    set_argument(data, bytes);
    return 0;
}
