/* address.h - the IPv4 addresses of this host. Inside dist/ only. */
#ifndef P4_ADDRESS_H
#define P4_ADDRESS_H

#include <stdint.h>

/* Fills ip [most], in network order, with the addresses of the interfaces that are up, loopback apart;
 * returns their number. Local. */
int p4_address_list(uint32_t *ip, int most);

#endif
