/* listen.h - what a call prints to stderr: listen_begin, the call, listen_end. */
#ifndef P4_TEST_LISTEN_H
#define P4_TEST_LISTEN_H

#include <stdio.h>
#include <unistd.h>

static FILE *listen_file;
static int listen_screen;

static inline void listen_begin(void)
{
    listen_file = tmpfile();
    listen_screen = dup(STDERR_FILENO);
    fflush(stderr);
    dup2(fileno(listen_file), STDERR_FILENO);
}

/* What was printed since, static until the next call. */
static inline const char *listen_end(void)
{
    static char said[8192];
    fflush(stderr);
    dup2(listen_screen, STDERR_FILENO);
    close(listen_screen);
    rewind(listen_file);
    said[fread(said, 1, sizeof said - 1, listen_file)] = '\0';
    fclose(listen_file);
    return said;
}

#endif
