/* The live progress line, which fits the terminal that it is drawn on, whose width may change; and log lines
 * with the time. A pseudo-terminal stands for the terminal. */
#define _GNU_SOURCE /* posix_openpt, ptsname */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "check.h"
#include "src/leaf/base.h"
#include "src/leaf/count.h"
#include "src/leaf/log_sink.h"

static int terminal = -1, side = -1, error_output = -1;

static void open_terminal(void)
{
    terminal = posix_openpt(O_RDWR | O_NOCTTY);
    EXPECT(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0, "no terminal: %s",
           strerror(errno));
    side = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    error_output = dup(STDERR_FILENO);
    EXPECT(side >= 0 && error_output >= 0, "no terminal: %s", strerror(errno));
}

/* Standard error is the terminal, or again what it was. */
static void use_terminal(bool use)
{
    fflush(stderr);
    (void)dup2(use ? side : error_output, STDERR_FILENO);
}

static void set_columns(unsigned short columns)
{
    struct winsize size = {.ws_row = 24, .ws_col = columns};
    EXPECT(ioctl(terminal, TIOCSWINSZ, &size) == 0, "the terminal cannot be resized: %s", strerror(errno));
}

/* What was drawn since the last call. The kernel hands it on in its own time, and in pieces: a mark ends it.
 */
static void take(char *text, size_t bytes)
{
    static const char mark = '\a';
    size_t used = 0;
    EXPECT(write(side, &mark, 1) == 1, "the terminal takes nothing: %s", strerror(errno));
    while (used < bytes - 1 && (used == 0 || text[used - 1] != mark)) {
        ssize_t count = read(terminal, text + used, bytes - 1 - used);
        if (count <= 0) {
            break;
        }
        used += (size_t)count;
    }
    EXPECT(used > 0 && text[used - 1] == mark, "%zu bytes without an end", used);
    text[used > 0 ? used - 1 : 0] = '\0';
}

static void draw(char *text, size_t bytes, double after, double from)
{
    p4_progress progress;
    use_terminal(true);
    p4_progress_set_after(after);
    p4_progress_start(&progress, "fine-tune", "tokens", 5050080);
    progress.started_s -= 24000; /* 200.4 tokens/s; 100 s later, on a busy machine, it is still above 199.5 */
    progress.shown_s -= 1;
    progress.from = from;
    p4_progress_update(&progress, 4809600, "step 600/3600, loss 3.4512, KL 0.1201");
    take(text, bytes);
    p4_progress_end(&progress);
    use_terminal(false);
    char end[64];
    take(end, sizeof end);
}

static void test_widths(void)
{
    static const struct {
        unsigned short columns;
        const char *want;
    } cases[] = {
        {200, "  fine-tune 4,809,600/5,050,080 tokens (95 %), 200 tokens/s, 20 min left, step 600/3600, "
              "loss 3.4512, KL 0.1201"},
        {90, "  fine-tune 95 %, 200 tokens/s, 20 min left, step 600/3600, loss 3.4512, KL 0.1201"},
        {80, "  fine-tune 95 %, 20 min left, step 600/3600, loss 3.4512, KL 0.1201"},
        {40, "  fine-tune 95 %, 20 min left, step 600"},
        {0, "  fine-tune 95 %, 20 min left, step 600/3600, loss 3.4512, KL 0.1201"}, /* unknown: 80 */
    };
    char text[1024], want[1024];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        set_columns(cases[i].columns);
        draw(text, sizeof text, NAN, 0);
        snprintf(want, sizeof want, "\r\033[K%s", cases[i].want);
        EXPECT(strcmp(text, want) == 0, "%d columns: got \"%s\"", cases[i].columns, text + 1);
    }
    set_columns(200);
    draw(text, sizeof text, 6000.0, 0);
    EXPECT(strstr(text, ", 20 min left (run 2.0 h), step") != NULL, "got \"%s\"", text + 1);
    /* A run that continues: a quarter of it was done by the process before. */
    draw(text, sizeof text, NAN, 1200000);
    EXPECT(strstr(text, "150 tokens/s, 27 min left, step") != NULL, "got \"%s\"", text + 1);
}

static void test_times(void)
{
    char text[1024];
    int year = 0, seconds = -1, length = 0;
    use_terminal(true);
    p4_log_set_times(true);
    INFO("a line");
    use_terminal(false);
    take(text, sizeof text);
    EXPECT(sscanf(text, "%4d-%*2d-%*2dT%*2d:%*2d:%2dZ a line%n", &year, &seconds, &length) == 2 &&
               year > 2000 && length > 0,
           "got \"%s\"", text);
    p4_log_set_times(false);
    use_terminal(true);
    INFO("a line");
    use_terminal(false);
    take(text, sizeof text);
    EXPECT(strcmp(text, "a line\r\n") == 0, "got \"%s\"", text);
}

static int warnings_seen;

static void see(const char *text, void *user)
{
    warnings_seen += strcmp(text, user) == 0;
}

/* Whoever collects warnings gets those that the log hides, from the rank that speaks. */
static void test_hidden_warnings(void)
{
    static char want[] = "warning: a\\nb";
    char text[64];
    use_terminal(true);
    p4_warning_observe(see, want);
    p4_log_setup(P4_LOG_QUIET, true);
    WARN("warning: %s", "a\nb");
    INFO("no warning");
    EXPECT(warnings_seen == 1, "%d warnings were seen", warnings_seen);
    p4_log_setup(P4_LOG_WARN, false);
    WARN("warning: %s", "a\nb");
    EXPECT(warnings_seen == 1, "a rank that does not speak has warned");
    p4_warning_observe(NULL, NULL);
    p4_log_setup(P4_LOG_INFO, true);
    use_terminal(false);
    take(text, sizeof text);
    EXPECT(text[0] == '\0', "a hidden line was drawn: \"%s\"", text);
}

static void test_counts(void)
{
    static const struct {
        int64_t value;
        const char *text;
    } cases[] = {{0, "0"},
                 {999, "999"},
                 {1000, "1,000"},
                 {-1000, "-1,000"},
                 {-123456, "-123,456"},
                 {1234567, "1,234,567"},
                 {INT64_MIN, "-9,223,372,036,854,775,808"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[P4_COUNT_BYTES];
        EXPECT(strcmp(p4_format_count(text, cases[i].value), cases[i].text) == 0, "got %s, expected %s", text,
               cases[i].text);
    }
}

int main(void)
{
    open_terminal();
    test_widths();
    test_times();
    test_hidden_warnings();
    test_counts();
    return TEST_END();
}
