/* thread.h - threads that take no signals: those are for the program's own threads. */
#ifndef P4_THREAD_H
#define P4_THREAD_H

#include <pthread.h>

/* pthread_create of a thread on which every signal is blocked. Returns 0 or an error number. Local. */
int p4_thread_start(pthread_t *thread, void *(*work)(void *user), void *user);

#endif
