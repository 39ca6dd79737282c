/* net_takes.h - what the network (net*.c) computes: the features and the roles that its code reads. A model
 * that needs more is refused when it is loaded. */
#ifndef P4_NET_TAKES_H
#define P4_NET_TAKES_H

#include "src/arch.h"

typedef struct p4_net_takes {
    bool feature[P4_FEATURE_COUNT];
    bool role[P4_ROLE_COUNT];
} p4_net_takes;

/* What this version computes. */
extern const p4_net_takes p4_net_computes;

/* Refuses an architecture with a feature that is not in `takes`. `source` begins the message. Local. */
p4_rc p4_net_takes_arch(const p4_net_takes *takes, const p4_arch *arch, const char *source);
/* Refuses a tensor of `family` whose role is not in `takes` (p4_roles need not hold it). Local. */
p4_rc p4_net_takes_tensor(const p4_net_takes *takes, const char *family, p4_role role, const char *tensor);

#endif
