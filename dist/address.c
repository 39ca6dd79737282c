#include "dist/address.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

int p4_address_list(uint32_t *ip, int most)
{
    struct ifaddrs *all = NULL;
    int count = 0;
    if (getifaddrs(&all) != 0) {
        return 0;
    }
    for (const struct ifaddrs *i = all; i != NULL && count < most; i = i->ifa_next) {
        bool usable = (i->ifa_flags & IFF_UP) != 0 && (i->ifa_flags & IFF_LOOPBACK) == 0;
        if (usable && i->ifa_addr != NULL && i->ifa_addr->sa_family == AF_INET) {
            const struct sockaddr_in *address = (const void *)i->ifa_addr;
            ip[count++] = address->sin_addr.s_addr;
        }
    }
    freeifaddrs(all);
    return count;
}
