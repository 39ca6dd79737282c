/* wandb_log.h - the framing of a .wandb file: records in blocks of 32 KiB, as LevelDB's log has them, with
 * CRC-32 and a header of its own. All Local. */
#ifndef P4_METRICS_WANDB_LOG_H
#define P4_METRICS_WANDB_LOG_H

#include "src/leaf/base.h"

typedef struct p4_wandb_log {
    int fd; /* -1: not open */
    char *path;
    int64_t bytes; /* of the file: all of them complete records */
} p4_wandb_log;

/* Makes the file, which must not exist, with its header. p4_wandb_log_close must follow, also after an error.
 */
p4_rc p4_wandb_log_open(p4_wandb_log *log, const char *path);
/* Appends one record. After an error the file ends with the record before it, if the file system can cut it.
 */
p4_rc p4_wandb_log_write(p4_wandb_log *log, const void *record, size_t record_bytes);
p4_rc p4_wandb_log_close(p4_wandb_log *log); /* Of zeros: nothing. */

#endif
