/* Validation of a configuration: the report of problems, each row's range, and the rules between keys. */
#include "src/config.h"
#include "src/exports.h"
#include "src/phase4/config.h"
#include "src/quantizer.h"

#include <math.h>
#include <string.h>

#include "src/leaf/escape.h"

void p4_config_complain(p4_config_report *report, int line, const char *format, ...)
{
    char text[1024], where[512] = "", line_text[2048], escaped[2048];
    va_list args;
    if (report->source != NULL && line > 0 && !report->lineless) {
        snprintf(where, sizeof where, "%.480s:%d: ", report->source, line);
    } else if (report->source != NULL) {
        snprintf(where, sizeof where,
                 "%.480s: ", report->unplaced != NULL ? report->unplaced : report->source);
    }
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    report->count++;
    snprintf(line_text, sizeof line_text, "%s%s", where, text);
    (void)p4_escape(escaped, sizeof escaped, line_text, sizeof line_text);
    size_t bytes = strlen(escaped) + 1;
    if (report->left_out > 0 || bytes >= sizeof report->text - report->used) {
        report->left_out++;
        return;
    }
    int added = snprintf(report->text + report->used, sizeof report->text - report->used, "%s%s",
                         report->used > 0 ? "\n" : "", escaped);
    report->used += (size_t)added;
}

void p4_config_complain_value(p4_config_report *report, int line, const p4_config_row *row, const char *found)
{
    char expected[256];
    report->refused[row - p4_config_table] = true;
    if (row->refusal != NULL && strncmp(row->refusal, row->name, strlen(row->name)) == 0) {
        p4_config_complain(report, line, "key \"%s\": found %s, but %s", row->name, found, row->refusal);
        return;
    }
    p4_config_complain(report, line, "key \"%s\": found %s, expected %s%s%s", row->name, found,
                       p4_config_format_expected(expected, row), row->refusal != NULL ? ": " : "",
                       row->refusal != NULL ? row->refusal : "");
}

p4_rc p4_config_report_end(const p4_config_report *report)
{
    char text[sizeof report->text + 64];
    if (report->count == 0) {
        return P4_OK;
    }
    snprintf(text, sizeof text, report->left_out > 0 ? "%s\n... and %d more" : "%s", report->text,
             report->left_out);
    return p4_fail_lines(P4_E_INPUT, text);
}

/* What is wrong with a string, NULL when nothing is. Control characters would break messages and logs; bytes
 * that are not UTF-8 cannot be written as JSON. */
static const char *string_fault(const char *string)
{
    const char *at = string;
    while (*at != '\0') {
        int length = p4_utf8_char(at, NULL);
        if (length == 0) {
            return "which is not UTF-8";
        }
        if ((unsigned char)*at < 0x20 || *at == 0x7F) {
            return "which holds a control character";
        }
        at += length;
    }
    return NULL;
}

static void check_string(const p4_config_row *row, const char *string, int line, p4_config_report *report)
{
    char excerpt[80], found[160];
    size_t bytes = strnlen(string, row->bytes);
    if (bytes == row->bytes) {
        p4_config_complain_value(report, line, row, "a string without an end");
        return;
    }
    const char *fault = string_fault(string);
    if (fault != NULL) {
        snprintf(found, sizeof found, "\"%s\", %s", p4_config_format_excerpt(excerpt, string, bytes), fault);
        p4_config_complain_value(report, line, row, found);
    }
}

static void check_list(const p4_config_row *row, const p4_list *list, int line, p4_config_report *report)
{
    size_t used = 0;
    char excerpt[80], found[160];
    for (int32_t i = 0; i < list->count; i++) {
        const char *string = list->bytes + used;
        size_t bytes = strnlen(string, sizeof list->bytes - used);
        if (bytes == sizeof list->bytes - used) {
            p4_config_complain_value(report, line, row, "a list that runs over its end");
            return;
        }
        const char *fault = bytes == 0 ? "which is empty" : string_fault(string);
        if (fault != NULL) {
            snprintf(found, sizeof found, "\"%s\" as string %d, %s",
                     p4_config_format_excerpt(excerpt, string, bytes), (int)i + 1, fault);
            p4_config_complain_value(report, line, row, found);
        }
        used += bytes + 1;
    }
    if (list->count < 0) {
        p4_config_complain_value(report, line, row, "a negative count");
    }
}

static bool in_range(const p4_config_row *row, double value)
{
    if (row->word != NULL && value == row->word_value) {
        return true;
    }
    bool above = row->min_open ? value > row->min : value >= row->min;
    bool below = row->max_open ? value < row->max : value <= row->max;
    return above && below && (row->step <= 0 || fmod(value - row->min, row->step) == 0); /* NaN is neither */
}

static void check_numbers(const p4_config_row *row, const p4_numbers *numbers, int line,
                          p4_config_report *report)
{
    char number[32], found[64];
    if (numbers->count < 0 || numbers->count > P4_NUMBERS_MAX) {
        snprintf(found, sizeof found, "%d numbers", (int)numbers->count);
        p4_config_complain_value(report, line, row, found);
        return;
    }
    for (int32_t i = 0; i < numbers->count; i++) {
        if (!in_range(row, numbers->values[i])) {
            p4_config_format_real(number, numbers->values[i]);
            snprintf(found, sizeof found, "%s as element %d", number, (int)i + 1);
            p4_config_complain_value(report, line, row, found);
        }
    }
}

static bool is_set_name(const char *name)
{
    static const char alphanumeric[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t bytes = strnlen(name, P4_SET_NAME_BYTES), allowed = strspn(name, alphanumeric);
    while (allowed > 0 && allowed < bytes && strchr("._-", name[allowed]) != NULL) {
        allowed++;
        allowed += strspn(name + allowed, alphanumeric);
    }
    return bytes > 0 && bytes < P4_SET_NAME_BYTES && allowed == bytes;
}

/* The first that is wrong with the names. */
static void check_set_names(const p4_config_row *row, const p4_sets *sets, int line, p4_config_report *report)
{
    char excerpt[80], found[160] = "";
    for (int32_t i = 0; i < sets->count && found[0] == '\0'; i++) {
        const char *name = sets->names[i];
        p4_config_format_excerpt(excerpt, name, strnlen(name, P4_SET_NAME_BYTES));
        if (!is_set_name(name)) {
            snprintf(found, sizeof found, "the name \"%s\"", excerpt);
        } else if (sets->counts[i] < 1) {
            snprintf(found, sizeof found, "no file of \"%s\"", excerpt);
        }
        for (int32_t j = 0; j < i && found[0] == '\0'; j++) {
            if (strcmp(name, sets->names[j]) == 0) {
                snprintf(found, sizeof found, "the name \"%s\" twice", excerpt);
            }
        }
    }
    if (found[0] != '\0') {
        p4_config_complain_value(report, line, row, found);
    }
}

static void check_sets(const p4_config_row *row, const p4_sets *sets, int line, p4_config_report *report)
{
    int64_t strings = 0;
    char found[64];
    for (int32_t i = 0; i < sets->count && i < P4_SETS_MAX; i++) {
        strings += sets->counts[i];
    }
    if (sets->count < 0 || sets->count > P4_SETS_MAX || strings != sets->strings.count) {
        snprintf(found, sizeof found, "%d sets of %d files", (int)sets->count, (int)sets->strings.count);
        p4_config_complain_value(report, line, row, found);
        return;
    }
    check_set_names(row, sets, line, report);
    check_list(row, &sets->strings, line, report);
}

static int name_count(const p4_config_row *row)
{
    int count = 0;
    while (row->names[count] != NULL) {
        count++;
    }
    return count;
}

void p4_config_check_row(const p4_config *config, int row_index, p4_config_report *report)
{
    const p4_config_row *row = &p4_config_table[row_index];
    const char *field = (const char *)config + row->offset;
    int line = report->lines[row_index], value;
    char found[64];
    bool ok = true;
    switch (row->type) {
    case P4_CONFIG_BOOL:
    case P4_CONFIG_UINT64:
        break;
    case P4_CONFIG_INT32:
    case P4_CONFIG_INT64:
    case P4_CONFIG_REAL:
        ok = in_range(row, p4_config_number(config, row));
        break;
    case P4_CONFIG_ENUM:
        memcpy(&value, field, sizeof value);
        ok = value >= 0 && value < name_count(row);
        break;
    case P4_CONFIG_PATH:
    case P4_CONFIG_NAME:
        check_string(row, field, line, report);
        break;
    case P4_CONFIG_LIST:
        check_list(row, (const p4_list *)field, line, report);
        break;
    case P4_CONFIG_NUMBERS:
        check_numbers(row, (const p4_numbers *)(const void *)field, line, report);
        break;
    case P4_CONFIG_SETS:
        check_sets(row, (const p4_sets *)(const void *)field, line, report);
        break;
    }
    if (!ok) {
        p4_config_complain_value(report, line, row, p4_config_format_scalar(found, config, row));
    }
}

static bool was_refused(const p4_config_report *report, const char *key)
{
    return report->unreadable || report->refused[p4_config_find(key)];
}

static int line_of(const p4_config_report *report, const char *key)
{
    return report->lines[p4_config_find(key)];
}

/* Sums in a fixed order are made in host memory, and of micro-batches whose windows do not depend on the
 * ranks.
 */
static void check_exact_sums(const p4_config *config, p4_config_report *report)
{
    bool sharded = config->distill != 0 && config->distill_teacher == P4_TEACHER_SHARDED;
    if (config->exact_sums && config->device == P4_DEVICE_CUDA && !was_refused(report, "device")) {
        p4_config_complain(report, line_of(report, "device"),
                           "key \"device\": found \"cuda\", expected \"cpu\" with exact_sums");
    }
    if (config->exact_sums && sharded && !was_refused(report, "distill_teacher")) {
        p4_config_complain(report, line_of(report, "distill_teacher"),
                           "key \"distill_teacher\": found \"sharded\", expected \"resident\" or \"cached\" "
                           "with exact_sums");
    }
}

/* The outputs of blocks are compared where distillation has the whole original at hand. */
static void check_blocks(const p4_config *config, p4_config_report *report)
{
    if (config->distill_blocks <= 0 || was_refused(report, "distill_blocks")) {
        return;
    }
    if (config->distill == 0 && !was_refused(report, "distill")) {
        p4_config_complain(
            report, line_of(report, "distill_blocks"),
            "key \"distill_blocks\": found %g, expected 0 while distill is 0: there is no teacher",
            config->distill_blocks);
    } else if (config->distill_teacher == P4_TEACHER_CACHED && !was_refused(report, "distill_teacher")) {
        p4_config_complain(report, line_of(report, "distill_teacher"),
                           "key \"distill_teacher\": found \"cached\", expected \"auto\", \"resident\" or "
                           "\"sharded\" with distill_blocks: the file holds no outputs of blocks");
    }
}

void p4_config_check_rules(const p4_config *config, p4_config_report *report)
{
    check_exact_sums(config, report);
    check_blocks(config, report);
    if (config->eval_sets.count > 0 && config->eval_samples == 0 && !was_refused(report, "eval_sets") &&
        !was_refused(report, "eval_samples")) {
        p4_config_complain(report, line_of(report, "eval_sets"),
                           "key \"eval_sets\": found %d set%s, expected none with eval_samples 0",
                           (int)config->eval_sets.count, p4_plural(config->eval_sets.count));
    }
    int64_t T = config->calibration_sequence_length, tokens = config->global_batch_tokens;
    if (was_refused(report, "calibration_sequence_length") || was_refused(report, "global_batch_tokens")) {
        return;
    }
    if (config->eval_stride >= T && !was_refused(report, "eval_stride")) {
        p4_config_complain(report, line_of(report, "eval_stride"),
                           "key \"eval_stride\": found %d, expected less than calibration_sequence_length, "
                           "which is %lld",
                           config->eval_stride, (long long)T);
    }
    if (tokens > 0 && tokens % T != 0) {
        p4_config_complain(report, line_of(report, "global_batch_tokens"),
                           "key \"global_batch_tokens\": found %lld, expected a multiple of "
                           "calibration_sequence_length, which is %lld",
                           (long long)tokens, (long long)T);
    }
}

/* Calibration data are read for calibration, and for training and evaluation that have no files of their own.
 */
static void check_data(const p4_config *config, p4_config_report *report)
{
    const p4_config_row *row = &p4_config_table[p4_config_find("calibration_dataset")];
    bool calibrates = config->calibration_samples > 0;
    bool trains = config->enable_fine_tuning && config->train_files.count == 0;
    bool evaluates = config->eval_samples > 0 && config->eval_files.count == 0;
    bool custom = config->calibration_dataset == P4_DATASET_CUSTOM;
    char reasons[160], name[64];
    if (was_refused(report, "calibration_dataset") || !(calibrates || trains || evaluates)) {
        return;
    }
    snprintf(reasons, sizeof reasons, "needed by%s%s%s", calibrates ? " [calibration_samples]" : "",
             trains ? " [enable_fine_tuning without train_files]" : "",
             evaluates ? " [eval_samples without eval_files]" : "");
    p4_config_format_scalar(name, config, row);
    if (custom && config->calibration_files.count == 0 && !was_refused(report, "calibration_files")) {
        p4_config_complain(
            report, line_of(report, "calibration_files"),
            "key \"calibration_files\": found [], expected the files of calibration_dataset %s, %s", name,
            reasons);
    }
    if (!custom && config->calibration_files.count > 0) {
        bool given = p4_config_is_user_set(config, p4_config_find("calibration_dataset"));
        p4_config_complain(
            report, line_of(report, "calibration_files"),
            given ? "key \"calibration_files\": found %d %s, expected none with calibration_dataset %s: "
                    "\"custom\" reads them"
                  : "key \"calibration_files\": found %d %s, but calibration_dataset is not given, whose "
                    "default is %s: set it to \"custom\", which reads them",
            (int)config->calibration_files.count, config->calibration_files.count == 1 ? "entry" : "entries",
            name);
    } else if (!custom && config->dataset_root[0] == '\0' && !was_refused(report, "dataset_root")) {
        p4_config_complain(report, line_of(report, "dataset_root"),
                           "key \"dataset_root\": found \"\", expected the directory that holds %s "
                           "(or calibration_dataset \"custom\" with calibration_files), %s",
                           name, reasons);
    }
}

/* Each entry of a list of files has its weight, or none has. */
static void check_weights(const char *key, const p4_numbers *weights, const char *files_key,
                          const p4_list *files, p4_config_report *report)
{
    if (weights->count > 0 && weights->count != files->count && !was_refused(report, key) &&
        !was_refused(report, files_key)) {
        p4_config_complain(report, line_of(report, key),
                           "key \"%s\": found %d weight%s, expected %d: one for each entry of %s", key,
                           (int)weights->count, p4_plural(weights->count), (int)files->count, files_key);
    }
}

/* A quantizer that weighs errors by what calibration sees needs calibration. */
static void check_quantizer(const p4_config *config, p4_config_report *report)
{
    const p4_quantizer_row *row = &p4_quantizers[config->quantizer];
    if (row->needs != P4_NEEDS_NO_STATISTICS && config->calibration_samples == 0) {
        p4_config_complain(
            report, line_of(report, "calibration_samples"),
            "key \"calibration_samples\": found 0, expected at least 1: quantizer \"%s\" needs the "
            "statistics of a calibration",
            row->name);
    }
    if (config->scale_granularity != P4_SCALE_ROW && row->quantizes && !row->has_granularity) {
        p4_config_complain(
            report, line_of(report, "scale_granularity"),
            "key \"scale_granularity\": found \"%s\", expected \"row\": quantizer \"%s\" has a "
            "scale a row",
            p4_scale_granularity_names[config->scale_granularity], row->name);
    }
}

/* Known formats, each once. */
static void check_exports(const p4_config *config, p4_config_report *report)
{
    char known[256], excerpt[80];
    for (const char *entry = p4_list_next(&config->exports, NULL); entry != NULL;
         entry = p4_list_next(&config->exports, entry)) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)p4_exports_name_bytes(entry), entry);
        p4_config_format_excerpt(excerpt, entry, strlen(entry));
        if (!p4_exports_is_known(entry)) {
            p4_config_complain(report, line_of(report, "exports"),
                               "key \"exports\": found \"%s\", expected some of %s", excerpt,
                               p4_exports_known(known));
        } else if (p4_exports_find(&config->exports, name) != entry) {
            p4_config_complain(report, line_of(report, "exports"),
                               "key \"exports\": found \"%s\" after another entry of %s, expected one",
                               excerpt, name);
        }
    }
}

/* Unknown names in braces: they would become part of a directory's name. */
static void check_output_path(const p4_config *config, p4_config_report *report)
{
    char excerpt[80];
    const char *unknown = p4_config_find_unknown_brace(config->output_path);
    if (unknown != NULL) {
        const char *end = strchr(unknown, '}');
        size_t bytes = end != NULL ? (size_t)(end + 1 - unknown) : strlen(unknown);
        p4_config_complain(
            report, line_of(report, "output_path"),
            "key \"output_path\": found \"%s\", expected {model}, {date}, {jobid} or {taskid} where "
            "there are braces",
            p4_config_format_excerpt(excerpt, unknown, bytes));
    }
}

/* The user asks for a reconstruction that another key makes impossible. */
static void check_reconstruct(const p4_config *config, p4_config_report *report)
{
    const char *reason =
        !p4_quantizers[config->quantizer].quantizes ? "with quantizer \"none\" nothing is ternary"
        : config->calibration_samples == 0          ? "with calibration_samples 0 there are no windows"
                                                    : NULL;
    if (config->reconstruct && reason != NULL &&
        p4_config_is_user_set(config, p4_config_find("reconstruct"))) {
        p4_config_complain(report, line_of(report, "reconstruct"),
                           "key \"reconstruct\": found true, expected false: %s", reason);
    }
}

void p4_config_check_job(const p4_config *config, p4_config_report *report)
{
    if (config->model_path[0] == '\0' && !was_refused(report, "model_path")) {
        p4_config_complain(report, line_of(report, "model_path"),
                           "key \"model_path\": found \"\", expected the directory of a model");
    }
    if (config->output_path[0] == '\0' && !was_refused(report, "output_path")) {
        p4_config_complain(report, line_of(report, "output_path"),
                           "key \"output_path\": found \"\", expected a directory for the results");
    }
    if (!was_refused(report, "output_path")) {
        check_output_path(config, report);
    }
    check_data(config, report);
    if (!was_refused(report, "exports")) {
        check_exports(config, report);
    }
    check_weights("calibration_weights", &config->calibration_weights, "calibration_files",
                  &config->calibration_files, report);
    check_weights("train_weights", &config->train_weights, "train_files", &config->train_files, report);
    if (!was_refused(report, "quantizer") && !was_refused(report, "scale_granularity") &&
        !was_refused(report, "calibration_samples")) {
        check_quantizer(config, report);
        check_reconstruct(config, report);
    }
}

p4_rc p4_config_check(const p4_config *config)
{
    p4_config_report report = {0};
    for (int i = 0; i < p4_config_rows; i++) {
        p4_config_check_row(config, i, &report);
    }
    p4_config_check_rules(config, &report);
    return p4_config_report_end(&report);
}

p4_rc p4_config_validate(const p4_config *config)
{
    p4_error_clear();
    return p4_config_check(config);
}

p4_rc p4_config_validate_job(const p4_config *config)
{
    p4_config_report report = {0};
    p4_config_check_job(config, &report);
    return p4_config_report_end(&report);
}
