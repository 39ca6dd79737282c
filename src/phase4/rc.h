/* rc.h - result codes and log levels of libphase4: all that the rest of the library needs of phase4.h. */
#ifndef PHASE4_RC_H
#define PHASE4_RC_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) && defined(P4_BUILDING)
#define P4_PUBLIC __attribute__((visibility("default")))
#else
#define P4_PUBLIC
#endif

typedef enum p4_rc {
    P4_OK = 0,
    P4_E_SYSTEM = 1, /* memory, MPI, CUDA, an internal fault */
    P4_E_INPUT = 2,  /* the configuration, a file or a directory: also the exit status of phase4_mpi */
    P4_E_STATE = 3,  /* called in the wrong order ("Model not compressed yet") */
    P4_E_HOLD = 4,   /* a run lost its output directory to another run, or it was removed: also the status */
    P4_STOPPED = 75, /* a run was asked to stop and saved its state: also the exit status of phase4_mpi */
} p4_rc;

/* What was wrong in this thread's last call that failed: one line, but for p4_config_validate and its kin,
 * which say every problem on a line of its own. Each call that can fail begins by forgetting the older
 * message; "": none. Local. */
P4_PUBLIC const char *p4_last_error(void);

/* What rank 0 says on stderr: nothing, warnings (as a session begins), or the course of the work. */
typedef enum p4_log_level { P4_LOG_QUIET, P4_LOG_WARN, P4_LOG_INFO } p4_log_level;

#ifdef __cplusplus
}
#endif
#endif
