/* stop.h - requests to end a run early: a signal, a file in the output directory, a budget of time. An engine
 * asks at its borders, where all ranks decide alike, and ends with P4_STOPPED; the caller of the engine saves
 * the state. NULL stands for a run that nothing stops. Several threads may ask. */
#ifndef P4_STOP_H
#define P4_STOP_H

#include "dist/group.h"

typedef enum p4_stop_reason { P4_STOP_NONE, P4_STOP_SIGNAL, P4_STOP_TIME, P4_STOP_FILE } p4_stop_reason;

typedef struct p4_stop {
    char *file;                   /* whose presence asks to stop; NULL: none is looked for */
    double deadline_s;            /* by p4_now_s; 0: none */
    _Atomic int64_t next_look_ms; /* the file is looked for five times a second at most */
    _Atomic int reason;           /* why this rank is asked: a p4_stop_reason */
} p4_stop;

/* Is this rank asked to stop? Once it was, it stays so. Local. */
bool p4_stop_is_asked(p4_stop *stop);
/* P4_STOPPED, with the message recorded, if this rank is asked to stop: inside work that a rank does alone
 * and whose result is agreed on. Local. */
p4_rc p4_stop_check(p4_stop *stop);
/* P4_STOPPED after an agreement, with this rank's reason as the message: "stopped by SIGTERM". Local. */
p4_rc p4_stop_end(p4_stop *stop);
/* P4_STOPPED on all ranks if one of them is asked to stop. Collective. */
p4_rc p4_stop_agree(p4_stop *stop, p4_group *group);

#endif
