#define _GNU_SOURCE /* pipe2 */
#include "dist/pulse.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "dist/address.h"
#include "src/leaf/thread.h"

/* The thread answers from the moment that it knows the key; it is awake only when a packet comes. */
struct p4_pulse {
    int rank, ranks, socket, end[2]; /* end: a pipe; a byte ends the thread */
    bool running;                    /* the thread must be joined */
    pthread_t thread;
    _Atomic uint64_t key;  /* of the job; 0: not known yet */
    _Atomic bool *heard;   /* [ranks]: has it answered since the last look? */
    bool *watched;         /* [ranks] */
    double *silent_s;      /* [ranks] */
    p4_pulse_address *all; /* [ranks] */
};

typedef struct packet {
    uint64_t key;
    int32_t answers; /* 0: asks */
    int32_t from, to;
} packet;

static const double TRY_S = 3.0, TRY_EVERY_S = 0.05; /* at the start */

/* ---- the thread ---- */

static void take_packet(p4_pulse *pulse)
{
    packet p;
    struct sockaddr_in from;
    socklen_t from_bytes = sizeof from;
    ssize_t got =
        recvfrom(pulse->socket, &p, sizeof p, MSG_DONTWAIT, (struct sockaddr *)(void *)&from, &from_bytes);
    uint64_t key = atomic_load(&pulse->key);
    if (got != (ssize_t)sizeof p || key == 0 || p.key != key || p.to != pulse->rank || p.from < 0 ||
        p.from >= pulse->ranks) {
        return;
    }
    if (p.answers) {
        atomic_store(&pulse->heard[p.from], true);
    } else {
        packet answer = {.key = key, .answers = 1, .from = pulse->rank, .to = p.from};
        (void)sendto(pulse->socket, &answer, sizeof answer, MSG_DONTWAIT, (struct sockaddr *)(void *)&from,
                     from_bytes);
    }
}

static void *answer(void *user)
{
    p4_pulse *pulse = user;
    struct pollfd polled[2] = {{.fd = pulse->socket, .events = POLLIN},
                               {.fd = pulse->end[0], .events = POLLIN}};
    for (;;) {
        if (poll(polled, 2, -1) > 0) {
            if (polled[1].revents != 0) {
                return NULL;
            }
            take_packet(pulse);
        }
    }
}

/* ---- open and close ---- */

/* False: there is none here. */
static bool open_socket(p4_pulse *pulse, p4_pulse_address *mine)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t bytes = sizeof any;
    pulse->socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (pulse->socket < 0 || pipe2(pulse->end, O_CLOEXEC) != 0 ||
        bind(pulse->socket, (struct sockaddr *)(void *)&any, bytes) != 0 ||
        getsockname(pulse->socket, (struct sockaddr *)(void *)&any, &bytes) != 0) {
        return false;
    }
    mine->port = any.sin_port;
    return true;
}

static bool start_thread(p4_pulse *pulse)
{
    pulse->running = p4_thread_start(&pulse->thread, answer, pulse) == 0;
    return pulse->running;
}

p4_rc p4_pulse_open(p4_pulse **opened, p4_pulse_address *mine, const char *host, int rank, int ranks)
{
    p4_rc rc = P4_OK;
    p4_pulse *pulse = *opened = p4_alloc(1, sizeof *pulse);
    *mine = (p4_pulse_address){.key = 1};
    TRY(pulse != NULL ? P4_OK : P4_E_SYSTEM);
    *pulse = (p4_pulse){.rank = rank, .ranks = ranks, .socket = -1, .end = {-1, -1}};
    pulse->heard = p4_alloc((size_t)ranks, sizeof *pulse->heard);
    pulse->watched = p4_alloc((size_t)ranks, sizeof *pulse->watched);
    pulse->silent_s = p4_alloc((size_t)ranks, sizeof *pulse->silent_s);
    pulse->all = p4_alloc((size_t)ranks, sizeof *pulse->all);
    TRY(pulse->heard != NULL && pulse->watched != NULL && pulse->silent_s != NULL && pulse->all != NULL
            ? P4_OK
            : P4_E_SYSTEM);
    snprintf(mine->host, sizeof mine->host, "%s", host);
    if (getrandom(&mine->key, sizeof mine->key, 0) != (ssize_t)sizeof mine->key || mine->key == 0) {
        mine->key = (uint64_t)getpid() << 32 ^ (uint64_t)(1e9 * p4_now_s()) ^ 1;
    }
    mine->ip_count = p4_address_list(mine->ip, P4_PULSE_ADDRESSES);
    if (!open_socket(pulse, mine) || !start_thread(pulse)) {
        mine->port = 0;
    }
done:
    if (rc != P4_OK) {
        p4_pulse_close(pulse);
        *opened = NULL;
    }
    return rc;
}

void p4_pulse_close(p4_pulse *pulse)
{
    if (pulse == NULL) {
        return;
    }
    if (pulse->running) {
        while (write(pulse->end[1], "", 1) != 1) { /* interrupted by a signal */
        }
        pthread_join(pulse->thread, NULL);
    }
    int files[] = {pulse->socket, pulse->end[0], pulse->end[1]};
    for (int i = 0; i < 3; i++) {
        if (files[i] >= 0) {
            close(files[i]);
        }
    }
    free((void *)pulse->heard);
    free(pulse->watched);
    free(pulse->silent_s);
    free(pulse->all);
    free(pulse);
}

/* ---- asking ---- */

/* A packet that is lost is asked for again; a host that has no way to an address of the other has another. */
static void ask(p4_pulse *pulse, int rank)
{
    const p4_pulse_address *other = &pulse->all[rank];
    packet p = {.key = atomic_load(&pulse->key), .from = pulse->rank, .to = rank};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = (in_port_t)other->port};
    bool same_host = strcmp(other->host, pulse->all[pulse->rank].host) == 0;
    for (int i = same_host ? -1 : 0; i < other->ip_count; i++) {
        to.sin_addr.s_addr = i < 0 ? htonl(INADDR_LOOPBACK) : other->ip[i];
        (void)sendto(pulse->socket, &p, sizeof p, MSG_DONTWAIT, (struct sockaddr *)(void *)&to, sizeof to);
    }
}

void p4_pulse_connect(p4_pulse *pulse, const p4_pulse_address *all)
{
    memcpy(pulse->all, all, (size_t)pulse->ranks * sizeof *all);
    atomic_store(&pulse->key, all[0].key);
}

int p4_pulse_try(p4_pulse *pulse)
{
    int missing = -1;
    for (double passed_s = 0; passed_s < TRY_S; passed_s += TRY_EVERY_S) {
        missing = -1;
        for (int r = pulse->ranks - 1; r >= 0; r--) {
            pulse->watched[r] = r != pulse->rank && atomic_load(&pulse->heard[r]);
            if (r == pulse->rank || pulse->watched[r]) {
                continue;
            }
            missing = r;
            if (pulse->running && pulse->all[r].port != 0) {
                ask(pulse, r);
            }
        }
        if (missing < 0) {
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = (long)(1e9 * (passed_s > 0 ? TRY_EVERY_S : 0.001))}, NULL);
    }
    return missing;
}

void p4_pulse_begin(p4_pulse *pulse)
{
    for (int r = 0; r < pulse->ranks; r++) {
        pulse->silent_s[r] = 0;
    }
}

void p4_pulse_ask(p4_pulse *pulse, const int *ranks, int count, double seconds)
{
    for (int i = 0; i < count; i++) {
        int r = ranks[i];
        if (pulse->watched[r]) {
            pulse->silent_s[r] = atomic_exchange(&pulse->heard[r], false) ? 0 : pulse->silent_s[r] + seconds;
            ask(pulse, r);
        }
    }
}

double p4_pulse_silent_s(const p4_pulse *pulse, int rank)
{
    return pulse->silent_s[rank];
}

const char *p4_pulse_host(const p4_pulse *pulse, int rank)
{
    return pulse->all[rank].host;
}
