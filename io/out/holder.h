/* holder.h - who holds an output directory (hold.h): one line of JSON in the hold's file. */
#ifndef P4_HOLDER_H
#define P4_HOLDER_H

#include "src/leaf/base.h"

typedef struct p4_holder {
    bool empty; /* the file names nobody */
    char host[64], job[64], since[40];
    char place[160]; /* machine since its boot, and its process numbers (a container may have its own) */
    int64_t process;
    int64_t
        born; /* of the process: clock ticks after boot. A number that was given again is another process */
} p4_holder;

typedef enum p4_life {
    P4_LIFE_RUNS,      /* the process is there */
    P4_LIFE_ENDED,     /* it was of this machine and is gone */
    P4_LIFE_HERE,      /* of this machine, but its process numbers are not this process's: cannot be told */
    P4_LIFE_ELSEWHERE, /* of another machine, or of this one before it was started again */
} p4_life;

/* This process, as the text of the file, heap. Local. */
char *p4_holder_self_text(void);
/* What the file behind fd says. Local. */
void p4_holder_read(p4_holder *holder, int fd);
p4_life p4_holder_life(const p4_holder *holder);

/* "host n1, process 17, job 42, since 2026-01-31 12:00:00 +0100"; the buffer is returned. */
enum { P4_HOLDER_TEXT_BYTES = 512 };
char *p4_holder_describe(char text[P4_HOLDER_TEXT_BYTES], const p4_holder *holder);

#endif
