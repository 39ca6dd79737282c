/* process.h - a program's standard streams and the signals that would end it without a message. */
#ifndef P4_PROCESS_H
#define P4_PROCESS_H

#include "src/phase4/rc.h"

/* OpenMP's threads wait by spinning, for milliseconds: that costs little on idle cores, and most of the time
 * of a job whose cores other work shares. Unless the user has chosen, they spin for some 50 microseconds and
 * then sleep; on a machine that is busy already they sleep at once. The OpenMP library reads its environment
 * before main, so the program starts itself once more; where it cannot, it goes on and is only slower. Call
 * before p4_process_start. Local. */
void p4_process_let_threads_sleep(char **argv);
/* Call first. Standard streams that are closed are opened on something that refuses what is written, so that
 * no file gets their numbers. A reader of the log that ends, or a limit on the size of files, makes a write
 * fail in place of ending the process, and a failed write of an HDF5 file does not crash its end. Local. */
void p4_process_start(void);
/* From here on memory that is freed stays with the process, for a program that takes and frees lists of tens
 * of thousands of entries hundreds of times and holds little. Call after p4_process_start. Local. */
void p4_process_keep_memory(void);
/* The exit status of a program that ends with this code: docs/running.md has the table. A call in the wrong
 * order is a fault of the program, and 3 is the status of a verdict. Local. */
int p4_process_status(p4_rc rc);
/* Call last, with the exit status: that status, or 1 with a line on standard error if standard output did not
 * take all that was written to it; a reader that has ended, as `head` does, is no error. Local. */
int p4_process_end(int status);

#endif
