/* Text from outside in messages: no control code, no new line, no broken UTF-8. */
#include <stdlib.h>

#include "check.h"
#include "src/leaf/base.h"
#include "src/leaf/escape.h"
#include "src/leaf/shell.h"

static void test_cases(void)
{
    static const struct {
        const char *text, *want;
    } cases[] = {{"", ""},
                 {"plain C:\\n text", "plain C:\\n text"},
                 {"\xc3\xa9 \xe4\xb8\x80 \xf0\x9f\x98\x80", "\xc3\xa9 \xe4\xb8\x80 \xf0\x9f\x98\x80"},
                 {"a\nb\tc\rd", "a\\nb\\tc\\rd"},
                 {"\x1b[31mred\x7f\x07", "\\x1b[31mred\\x7f\\x07"},
                 {"\xc2\x9b"
                  "31m",
                  "\\x9b31m"}, /* CSI as one C1 character */
                 {"\xe2\x80\xae"
                  "abc\xe2\x81\xa6\xe2\x80\xa8",
                  "\\u202eabc\\u2066\\u2028"},
                 {"\xff\xc3", "\\xff\\xc3"},
                 {"\xc0\x8a", "\\xc0\\x8a"},          /* an overlong newline */
                 {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, /* a surrogate */
                 {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}};
    char got[64], again[64];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        EXPECT(p4_escape(got, sizeof got, cases[i].text, 64) && strcmp(got, cases[i].want) == 0,
               "\"%s\" instead of \"%s\"", got, cases[i].want);
        EXPECT(p4_escape(again, sizeof again, got, 64) && strcmp(got, again) == 0, "twice: \"%s\"", again);
    }
}

static void test_bounds(void)
{
    char got[8];
    EXPECT(p4_escape(got, 4, "abc", 3) && strcmp(got, "abc") == 0, "exactly full: %s", got);
    EXPECT(!p4_escape(got, 3, "abc", 3) && strcmp(got, "ab") == 0, "one short: %s", got);
    EXPECT(!p4_escape(got, 5, "a\x1b", 9) && strcmp(got, "a") == 0, "an escape is not cut: %s", got);
    EXPECT(!p4_escape(got, 3, "a\xc3\xa9", 9) && strcmp(got, "a") == 0, "a character is not cut: %s", got);
    EXPECT(p4_escape(got, sizeof got, "a\xc3\xa9", 2) && strcmp(got, "a\\xc3") == 0, "bytes: %s", got);
}

static void test_shell_words(void)
{
    static const struct {
        const char *name, *want;
    } cases[] = {{"out/model-1.5_b", "out/model-1.5_b"},
                 {"my out", "'my out'"},
                 {"a$(b);c", "'a$(b);c'"},
                 {"it's", "'it'\\''s'"},
                 {"", "''"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *got = p4_shell_word(cases[i].name);
        EXPECT(got != NULL && strcmp(got, cases[i].want) == 0, "%s instead of %s", got, cases[i].want);
        free(got);
    }
}

static void test_messages(void)
{
    p4_error_clear();
    (void)FAIL("%s: bad", "x\nphase4: error: forged");
    EXPECT(strcmp(p4_last_error(), "x\\nphase4: error: forged: bad") == 0, "%s", p4_last_error());
    p4_error_clear();
    (void)p4_fail_lines(P4_E_INPUT, "one\ntwo");
    (void)FAIL("later");
    EXPECT(strcmp(p4_last_error(), "one\ntwo") == 0, "%s", p4_last_error());
    p4_error_clear();
}

int main(void)
{
    test_cases();
    test_bounds();
    test_shell_words();
    test_messages();
    return TEST_END();
}
