/* phase4_generate - a model continues a text: arguments -> model -> prompt -> text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "io/file/files.h"
#include "jobs/generate.h"
#include "jobs/process.h"
#include "src/config.h"
#include "src/phase4.h"

enum { PROMPT_BYTES_MAX = 64 << 20, PAGE_WIDTH = 100 };

/* --- the command line -------------------------------------------------------------------------- */

/* Option `number` as a number from `low` to `high`, if it is given. */
static p4_rc read_real(double *value, const p4_arguments *a, int number, double low, double high)
{
    const char *text = a->values[number];
    char *end = NULL;
    double found = text != NULL ? strtod(text, &end) : 0;
    if (text == NULL) {
        return P4_OK;
    }
    if (end == text || *end != '\0' || !(found >= low && found <= high)) {
        char least[32], most[32];
        return FAIL("option \"%s\": found \"%.40s\", expected a number from %s to %s",
                    p4_generate_program.options[number - P4_OPTION_OWN].name, text,
                    p4_config_format_real(least, low), p4_config_format_real(most, high));
    }
    *value = found;
    return P4_OK;
}

static p4_rc read_whole(int64_t *value, const p4_arguments *a, int number, int64_t low, int64_t high)
{
    double found = (double)*value;
    p4_rc rc = read_real(&found, a, number, (double)low, (double)high);
    if (rc == P4_OK && found != floor(found)) {
        return FAIL("option \"%s\": found \"%.40s\", expected a whole number",
                    p4_generate_program.options[number - P4_OPTION_OWN].name, a->values[number]);
    }
    *value = rc == P4_OK ? (int64_t)found : *value;
    return rc;
}

static p4_rc read_names(p4_generate_settings *s, const p4_arguments *a)
{
    p4_rc rc = P4_OK;
    const char *device = a->values[P4_GENERATE_DEVICE], *cache = a->values[P4_GENERATE_CACHE];
    CHECK(device == NULL || strcmp(device, "cpu") == 0 || strcmp(device, "cuda") == 0,
          "option \"--device\": found \"%.40s\", expected cpu or cuda", device);
    CHECK(cache == NULL || strcmp(cache, "f16") == 0 || strcmp(cache, "f32") == 0,
          "option \"--cache\": found \"%.40s\", expected f16 or f32", cache);
    s->device = device != NULL ? device : "cpu";
    s->cache_type = cache != NULL && strcmp(cache, "f32") == 0 ? P4_F32 : P4_F16;
done:
    return rc;
}

static p4_rc read_settings(p4_generate_settings *s, const p4_arguments *a)
{
    p4_rc rc = P4_OK;
    int64_t threads = 0, bits = 8, seed = 42;
    *s = (p4_generate_settings){.tokens = 128, .chat = a->given[P4_GENERATE_CHAT]};
    s->sampling = (p4_sampling){.temperature = 0.8, .top_p = 0.95, .top_k = 40};
    TRY(read_names(s, a));
    TRY(read_whole(&s->tokens, a, P4_GENERATE_TOKENS, 1, 1 << 24));
    TRY(read_real(&s->sampling.temperature, a, P4_GENERATE_TEMPERATURE, 0, 100));
    TRY(read_real(&s->sampling.top_p, a, P4_GENERATE_TOP_P, 0, 1));
    TRY(read_whole(&s->sampling.top_k, a, P4_GENERATE_TOP_K, 0, 1 << 24));
    TRY(read_whole(&seed, a, P4_GENERATE_SEED, 0, (int64_t)1 << 53));
    TRY(read_whole(&threads, a, P4_GENERATE_THREADS, 1, 1024));
    TRY(read_whole(&bits, a, P4_GENERATE_ACTIVATIONS, 0, 16));
    CHECK(bits == 0 || bits == 8 || bits == 16,
          "option \"--activation-bits\": found %lld, expected 0, 8 or 16", (long long)bits);
    s->activation_bits = bits == 8 ? 8 : 0;
    s->threads = (int)threads;
    s->sampling.seed = (uint64_t)seed;
    s->sampling.temperature = a->given[P4_GENERATE_GREEDY] ? 0 : s->sampling.temperature;
    CHECK(a->word_count == 1 || a->word_count == 2,
          "found %d argument%s, expected a model and a prompt; usage: %s %s", a->word_count,
          p4_plural(a->word_count), p4_generate_program.name, p4_generate_program.usage);
    CHECK(a->word_count == 1 || !a->given[P4_GENERATE_FILE],
          "found a prompt and option \"--file\", expected one of them");
done:
    return rc;
}

/* Standard input up to its end. */
static p4_rc read_input(char **text)
{
    p4_rc rc = P4_OK;
    size_t room = 0, bytes = 0;
    do {
        room = room == 0 ? 4096 : 2 * room;
        char *grown = p4_resize(*text, room, 1);
        TRY(grown != NULL ? P4_OK : P4_E_SYSTEM);
        *text = grown;
        bytes += fread(*text + bytes, 1, room - 1 - bytes, stdin);
        (*text)[bytes] = '\0';
    } while (bytes == room - 1 && bytes < PROMPT_BYTES_MAX);
    CHECK(ferror(stdin) == 0, "standard input cannot be read");
    CHECK(strlen(*text) == bytes && bytes < PROMPT_BYTES_MAX,
          "standard input: expected text of less than %d bytes, without NUL characters", PROMPT_BYTES_MAX);
done:
    return rc;
}

static p4_rc read_prompt(char **prompt, const p4_arguments *a)
{
    size_t bytes;
    if (a->word_count == 2) {
        *prompt = p4_strdup(a->words[1]);
        return *prompt != NULL ? P4_OK : P4_E_SYSTEM;
    }
    if (!a->given[P4_GENERATE_FILE] && isatty(STDIN_FILENO)) {
        fputs("no prompt was given: type one and end it with Ctrl-D (at the start of a line)\n", stderr);
    }
    return a->given[P4_GENERATE_FILE]
               ? p4_file_read(prompt, &bytes, a->values[P4_GENERATE_FILE], PROMPT_BYTES_MAX)
               : read_input(prompt);
}

/* --- the work ---------------------------------------------------------------------------------- */

static void show(void *user, const char *text)
{
    (void)user;
    fputs(text, stdout);
    fflush(stdout);
}

static void say_speed(const p4_generation *g)
{
    char bytes[32], rate[P4_NUMBER_BYTES];
    double steps_s = p4_generation_rate(g);
    INFO("%s: prompt of %lld token%s in %.2f s; %lld token%s%s; %s tokens/s; %s of weights read per token",
         g->model, (long long)g->prompt_tokens, p4_plural(g->prompt_tokens), g->prompt_s,
         (long long)g->ids.count, p4_plural(g->ids.count), g->ended ? " to the end of the text" : "",
         isnan(steps_s) ? "-" : p4_format_number(rate, steps_s, 2),
         p4_format_bytes(bytes, g->bytes_per_token));
}

static p4_rc run_model(p4_generation *out, const char *path, const p4_generate_settings *settings,
                       const char *prompt, p4_generate_show to)
{
    p4_rc rc = P4_OK;
    p4_language_model m;
    TRY(p4_language_model_open(&m, path, settings->threads));
    TRY(p4_generate(out, &m, settings, prompt, to, NULL));
done:
    p4_language_model_close(&m);
    return rc;
}

static int page_width(void)
{
    struct winsize size;
    return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0
               ? size.ws_col
               : PAGE_WIDTH;
}

static p4_rc print_json(const char *prompt, const p4_generation *text, const p4_generation *original)
{
    char *json = p4_generation_json(prompt, text, original);
    if (json != NULL) {
        fputs(json, stdout);
    }
    free(json);
    return json != NULL ? P4_OK : P4_E_SYSTEM;
}

static p4_rc generate(const p4_arguments *a)
{
    p4_rc rc = P4_OK;
    p4_generate_settings settings;
    p4_generation text = {0}, original = {0};
    char *prompt = NULL;
    bool compare = a->given[P4_GENERATE_COMPARE], json = a->given[P4_GENERATE_JSON];
    TRY(read_settings(&settings, a));
    TRY(read_prompt(&prompt, a));
    if (compare) {
        TRY(run_model(&original, a->values[P4_GENERATE_COMPARE], &settings, prompt, NULL));
    }
    TRY(run_model(&text, a->words[0], &settings, prompt, compare || json ? NULL : show));
    if (json) {
        TRY(print_json(prompt, &text, compare ? &original : NULL));
    } else if (compare) {
        p4_columns_print(stdout, original.model, original.text, text.model, text.text, page_width());
    } else {
        putchar('\n');
    }
    fflush(stdout);
    if (compare) {
        say_speed(&original);
    }
    say_speed(&text);
done:
    free(prompt);
    p4_generation_free(&text);
    p4_generation_free(&original);
    return rc;
}

int main(int argc, char **argv)
{
    static p4_arguments arguments;
    p4_process_let_threads_sleep(argv);
    p4_process_start();
    p4_rc rc = p4_program_parse(&arguments, &p4_generate_program, argc, argv);
    bool quiet = arguments.given[P4_GENERATE_QUIET] || arguments.given[P4_GENERATE_JSON];
    p4_log_setup(quiet ? P4_LOG_WARN : P4_LOG_INFO, true);
    if (rc == P4_OK && arguments.given[P4_OPTION_HELP]) {
        p4_program_print_help(stdout, &p4_generate_program);
    } else if (rc == P4_OK && arguments.given[P4_OPTION_VERSION]) {
        printf("%s %s\n", p4_generate_program.name, p4_version());
    } else if (rc == P4_OK) {
        rc = generate(&arguments);
    }
    if (rc != P4_OK) {
        p4_error_print();
    }
    return p4_process_end(rc != P4_OK ? p4_process_status(rc) : EXIT_SUCCESS);
}
