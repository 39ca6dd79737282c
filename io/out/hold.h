/* hold.h - one output directory, one run at a time.
 *
 * The holder keeps the file .phase4_hold in the directory. It is locked (an open file description lock) where
 * the file system has locks, so that the hold ends with its process however that ends. The file also names
 * its holder, and a thread renews its modification time: this is the proof of life where there are no locks,
 * or where each machine has locks of its own (NFS mounted with nolock). */
#ifndef P4_HOLD_H
#define P4_HOLD_H

#include "src/leaf/base.h"

#define P4_HOLD_FILE ".phase4_hold"

typedef struct p4_hold p4_hold;

/* Takes the hold on an existing directory; renews the file's time every beat_s seconds (P4_HOLD_BEAT_S except
 * in tests). P4_E_INPUT: another run holds the directory (the message names its host, process, job and since
 * when), or the file cannot be written. Without locks, a holder on another machine is believed dead after
 * P4_HOLD_STALE_BEATS beats without a sign of life; a dead holder on this machine is known at once. The
 * caller releases. Local. */
p4_rc p4_hold_take(p4_hold **hold, const char *directory, double beat_s);
/* P4_E_INPUT: another run holds the directory now, as above. For questions before a run: changes nothing, so
 * a holder on another machine is judged by this machine's clock. Local. */
p4_rc p4_hold_examine(const char *directory);
/* P4_E_HOLD: the directory is no longer this run's, because the file was removed or another run took it over,
 * which the message names. Before everything that the run writes there. From any thread. Local. */
p4_rc p4_hold_check(p4_hold *hold);
/* Gives the directory back and removes the file; NULL is fine. Local. */
void p4_hold_release(p4_hold *hold);

#define P4_HOLD_BEAT_S 10.0
enum { P4_HOLD_STALE_BEATS = 30, P4_HOLD_WATCH_BEATS = 3 };

#endif
