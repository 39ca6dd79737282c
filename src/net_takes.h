/* net_takes.h - the features and the parameter roles that the network (net*.c) computes. A model that needs
 * another is refused when it is loaded. */
#ifndef P4_NET_TAKES_H
#define P4_NET_TAKES_H

#include "src/arch.h"

typedef struct p4_net_takes {
    bool feature[P4_FEATURE_COUNT];
    bool role[P4_ROLE_COUNT];
} p4_net_takes;

extern const p4_net_takes p4_net_computes;

/* Refuses an architecture that has a feature that is not in `takes`. The message begins with `source`.
 * Local. */
p4_rc p4_net_check_arch(const p4_net_takes *takes, const p4_arch *arch, const char *source);
/* Refuses a tensor of `family` if its role is not in `takes`. The role may lie outside the list of roles.
 * Local. */
p4_rc p4_net_check_tensor(const p4_net_takes *takes, const char *family, p4_role role, const char *tensor);

#endif
