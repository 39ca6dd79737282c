/* check.h - the smallest test harness: EXPECT counts and reports, TEST_END prints the tally and is the exit
 * status. */
#ifndef P4_CHECK_H
#define P4_CHECK_H

#include <math.h>
#include <stdio.h>
#include <string.h>

static int check_passed, check_failed;

#define EXPECT(ok, ...)                                              \
    do {                                                             \
        if (ok) {                                                    \
            check_passed++;                                          \
        } else {                                                     \
            check_failed++;                                          \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #ok); \
            fprintf(stderr, __VA_ARGS__);                            \
            fputc('\n', stderr);                                     \
        }                                                            \
    } while (0)
#define EXPECT_OK(call) EXPECT((call) == P4_OK, "%s", p4_last_error())
#define EXPECT_NEAR(got, want, bound)                                                          \
    EXPECT(fabs((double)(got) - (double)(want)) <= (bound), "got %.9g, want %.9g within %.3g", \
           (double)(got), (double)(want), (double)(bound))
/* The call fails and its message holds `part`. */
#define EXPECT_REFUSED(call, part)                                                                           \
    do {                                                                                                     \
        p4_error_clear();                                                                                    \
        EXPECT((call) != P4_OK, "was accepted, expected a refusal with \"%s\"", part);                       \
        EXPECT(strstr(p4_last_error(), part) != NULL, "message \"%s\" lacks \"%s\"", p4_last_error(), part); \
        p4_error_clear();                                                                                    \
    } while (0)
#define TEST_END() (printf("%d passed, %d failed\n", check_passed, check_failed), check_failed != 0)

#endif
