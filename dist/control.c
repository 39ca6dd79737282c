#define _GNU_SOURCE /* accept4 */
#include "dist/control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dist/address.h"
#include "dist/mpi_state.h"

enum { ADDRESSES = 8, CONNECT_MS = 5000, HELLO_MS = 10000, ACCEPT_MS = 60000 };
/* Ranks that connect before rank 0 takes their connections: a kernel may keep no more than 128 of them
 * waiting (net.core.somaxconn), and those beyond would find no way in. */
enum { WAVE = 64 };

/* Where rank 0 listens; broadcast as bytes. */
typedef struct place {
    uint64_t key[2];
    char host[64];
    uint32_t ip[ADDRESSES];
    int32_t ip_count, port; /* in network order; port 0: rank 0 cannot listen */
} place;

typedef struct hello {
    uint64_t key[2];
    int32_t rank;
    char host[64];
} hello;

struct p4_control {
    int rank, ranks;
    int socket; /* to rank 0; -1: none */
    pthread_mutex_t sends;
    int *peers;        /* rank 0: [ranks] sockets, -1: none */
    char (*hosts)[64]; /* rank 0: [ranks] */
    struct pollfd *polled;
    int next; /* the rank that is looked at first, so that none waits behind a busy one */
};

/* ---- bytes ---- */

static bool write_all(int socket, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t written = send(socket, at, bytes, MSG_NOSIGNAL);
        if (written < 0 && errno != EINTR) {
            return false;
        }
        at += written > 0 ? written : 0;
        bytes -= written > 0 ? (size_t)written : 0;
    }
    return true;
}

static bool read_all(int socket, void *data, size_t bytes)
{
    char *at = data;
    while (bytes > 0) {
        ssize_t got = recv(socket, at, bytes, 0);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return false;
        }
        at += got > 0 ? got : 0;
        bytes -= got > 0 ? (size_t)got : 0;
    }
    return true;
}

static bool send_message(int socket, const void *data, int64_t bytes)
{
    return write_all(socket, &bytes, sizeof bytes) && write_all(socket, data, (size_t)bytes);
}

/* NULL: the connection has ended, or memory is out. */
static void *read_message(int socket, int64_t *bytes)
{
    if (!read_all(socket, bytes, sizeof *bytes) || *bytes < 0 || *bytes > P4_CONTROL_MESSAGE_MAX) {
        return NULL;
    }
    void *data = p4_alloc((size_t)*bytes + 1, 1);
    if (data != NULL && !read_all(socket, data, (size_t)*bytes)) {
        free(data);
        return NULL;
    }
    return data;
}

static bool is_readable(int socket, int wait_ms)
{
    struct pollfd polled = {.fd = socket, .events = POLLIN};
    return poll(&polled, 1, wait_ms) > 0;
}

/* Small messages go at once, and a host that is lost is noticed. */
static void tune(int socket)
{
    int on = 1, idle_s = 60, every_s = 20, probes = 5;
    (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof every_s);
    (void)setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

/* ---- opening ---- */

/* -1: this host cannot listen. */
static int start_listening(place *mine, const char *host)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t bytes = sizeof any;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(mine->host, sizeof mine->host, "%s", host);
    mine->ip_count = p4_address_list(mine->ip, ADDRESSES);
    if (listener < 0 || getrandom(mine->key, sizeof mine->key, 0) != (ssize_t)sizeof mine->key ||
        bind(listener, (struct sockaddr *)(void *)&any, bytes) != 0 || listen(listener, WAVE) != 0 ||
        getsockname(listener, (struct sockaddr *)(void *)&any, &bytes) != 0) {
        if (listener >= 0) {
            close(listener);
        }
        return -1;
    }
    mine->port = any.sin_port;
    return listener;
}

/* A host may have addresses that lead nowhere from here: each is tried for a few seconds. */
static int connect_to(uint32_t ip, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = (in_port_t)port, .sin_addr.s_addr = ip};
    int failed = 0, made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t bytes = sizeof failed;
    if (made < 0) {
        return -1;
    }
    struct pollfd polled = {.fd = made, .events = POLLOUT};
    bool connected = connect(made, (struct sockaddr *)(void *)&to, sizeof to) == 0 ||
                     (errno == EINPROGRESS && poll(&polled, 1, CONNECT_MS) > 0 &&
                      getsockopt(made, SOL_SOCKET, SO_ERROR, &failed, &bytes) == 0 && failed == 0);
    if (!connected || fcntl(made, F_SETFL, 0) != 0) {
        close(made);
        return -1;
    }
    tune(made);
    return made;
}

static p4_rc connect_rank(p4_control *control, const p4_machine *machine, const place *to)
{
    hello mine = {.rank = machine->rank};
    bool same_host = strcmp(to->host, machine->host) == 0;
    memcpy(mine.key, to->key, sizeof mine.key);
    snprintf(mine.host, sizeof mine.host, "%s", machine->host);
    for (int i = same_host ? -1 : 0; to->port != 0 && i < to->ip_count && control->socket < 0; i++) {
        control->socket = connect_to(i < 0 ? htonl(INADDR_LOOPBACK) : to->ip[i], to->port);
    }
    if (control->socket < 0 || !write_all(control->socket, &mine, sizeof mine)) {
        return FAULT("no TCP connection to rank 0 on %s%s: a batch needs one from each rank (is there a "
                     "firewall between the nodes?)",
                     to->host, to->port == 0 ? ", which cannot listen" : "");
    }
    return P4_OK;
}

/* Who does not know the key is sent away. */
static void accept_one(p4_control *control, int listener, const place *mine, int *missing)
{
    hello his;
    int made = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (made < 0) {
        return;
    }
    bool knows = is_readable(made, HELLO_MS) && read_all(made, &his, sizeof his) &&
                 memcmp(his.key, mine->key, sizeof his.key) == 0 && his.rank >= 0 &&
                 his.rank < control->ranks && control->peers[his.rank] < 0;
    if (!knows) {
        close(made);
        return;
    }
    tune(made);
    control->peers[his.rank] = made;
    his.host[sizeof his.host - 1] = '\0';
    memcpy(control->hosts[his.rank], his.host, sizeof his.host);
    (*missing)--;
}

/* The ranks of a wave have connected: one that cannot has said so by MPI. Rank 0. */
static p4_rc accept_ranks(p4_control *control, int listener, const place *mine, int missing)
{
    while (missing > 0 && is_readable(listener, ACCEPT_MS)) {
        accept_one(control, listener, mine, &missing);
    }
    return missing == 0 ? P4_OK : FAULT("%d ranks did not connect to rank 0 within a minute", missing);
}

static p4_rc make(p4_control **made, const p4_machine *machine)
{
    p4_rc rc = P4_OK;
    p4_control *control = *made = p4_alloc(1, sizeof *control);
    TRY(control != NULL ? P4_OK : P4_E_SYSTEM);
    *control = (p4_control){.rank = machine->rank, .ranks = machine->ranks, .socket = -1};
    pthread_mutex_init(&control->sends, NULL);
    if (machine->rank == 0) {
        control->peers = p4_alloc((size_t)machine->ranks, sizeof *control->peers);
        control->hosts = p4_alloc((size_t)machine->ranks, sizeof *control->hosts);
        control->polled = p4_alloc((size_t)machine->ranks, sizeof *control->polled);
        TRY(control->peers != NULL && control->hosts != NULL && control->polled != NULL ? P4_OK
                                                                                        : P4_E_SYSTEM);
        for (int r = 0; r < machine->ranks; r++) {
            control->peers[r] = -1;
        }
    }
done:
    return rc;
}

p4_rc p4_control_open(p4_control **made, p4_machine *machine)
{
    p4_rc rc = P4_OK;
    place at = {.port = 0};
    int listener = -1;
    *made = NULL;
    TRY(p4_machine_agree(machine, make(made, machine)));
    if (machine->rank == 0) {
        listener = start_listening(&at, machine->host);
    }
    MPI_Bcast(&at, (int)sizeof at, MPI_BYTE, 0, machine->state->world);
    for (int first = 0; first < machine->ranks; first += WAVE) {
        int end = first + WAVE < machine->ranks ? first + WAVE : machine->ranks;
        bool mine = machine->rank >= first && machine->rank < end;
        TRY(p4_machine_agree(machine, mine ? connect_rank(*made, machine, &at) : P4_OK));
        TRY(p4_machine_agree(machine,
                             machine->rank == 0 ? accept_ranks(*made, listener, &at, end - first) : P4_OK));
    }
done:
    if (listener >= 0) {
        close(listener);
    }
    if (rc != P4_OK) {
        p4_control_close(*made);
        *made = NULL;
    }
    return rc;
}

void p4_control_close(p4_control *control)
{
    if (control == NULL) {
        return;
    }
    for (int r = 0; control->peers != NULL && r < control->ranks; r++) {
        if (control->peers[r] >= 0) {
            close(control->peers[r]);
        }
    }
    if (control->socket >= 0) {
        close(control->socket);
    }
    pthread_mutex_destroy(&control->sends);
    free(control->peers);
    free(control->hosts);
    free(control->polled);
    free(control);
}

/* ---- messages ---- */

p4_rc p4_control_send(p4_control *control, const void *data, int64_t bytes)
{
    pthread_mutex_lock(&control->sends);
    bool sent = send_message(control->socket, data, bytes);
    pthread_mutex_unlock(&control->sends);
    return sent ? P4_OK : FAULT("the connection to rank 0 has ended");
}

p4_rc p4_control_receive(p4_control *control, double seconds, void **data, int64_t *bytes)
{
    *data = NULL;
    if (!is_readable(control->socket, (int)(1000 * seconds))) {
        return P4_OK;
    }
    *data = read_message(control->socket, bytes);
    return *data != NULL ? P4_OK : FAULT("the connection to rank 0 has ended");
}

static p4_rc fail_peer(const p4_control *control, int rank)
{
    return FAULT("rank %d on %s: its connection to rank 0 has ended", rank, control->hosts[rank]);
}

p4_rc p4_control_post(p4_control *control, int rank, const void *data, int64_t bytes)
{
    return send_message(control->peers[rank], data, bytes) ? P4_OK : fail_peer(control, rank);
}

p4_rc p4_control_collect(p4_control *control, double seconds, int *rank, void **data, int64_t *bytes)
{
    *rank = -1;
    *data = NULL;
    for (int r = 0; r < control->ranks; r++) {
        control->polled[r] = (struct pollfd){.fd = control->peers[r], .events = POLLIN};
    }
    if (poll(control->polled, (nfds_t)control->ranks, (int)(1000 * seconds)) <= 0) {
        return P4_OK;
    }
    for (int i = 0; i < control->ranks && *rank < 0; i++) {
        int r = (control->next + i) % control->ranks;
        *rank = control->polled[r].revents != 0 ? r : -1;
    }
    control->next = (*rank + 1) % control->ranks;
    *data = read_message(control->peers[*rank], bytes);
    return *data != NULL ? P4_OK : fail_peer(control, *rank);
}
