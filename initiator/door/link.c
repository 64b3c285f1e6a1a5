/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections to the parent. One carries one conversation at a time; a thread takes a free one or makes one, so that
 * as many commands are in flight as threads ask for. Taking and giving is a compare-and-swap: no lock that a fork or a
 * signal handler could find held. Knows messages and windows; knows no device.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "door.h"

enum { LINKS = 256, LOWEST_FD = 400, TOKEN_MAX = 32 };

static struct door_link links[LINKS];
static _Atomic int links_used; /* highest index ever taken, plus one */
static struct sockaddr_un place;
static socklen_t place_nbytes;
static char token[TOKEN_MAX + 1];

NEXT(int, fstat, int, struct stat *);

const char *door_token(void)
{
    return token;
}

bool door_is_open(void)
{
    return place_nbytes != 0;
}

/* In the child: its copies of the sockets belong to conversations of its parent's threads. */
static void forget(void)
{
    int used = atomic_load(&links_used);

    for (int i = 0; i < used; i++) {
        if (links[i].fd >= 0 && door_link_fd(&links[i]) >= 0) {
            close(links[i].fd);
        }
        links[i].fd = -1;
        links[i].window = NULL; /* MADV_DONTFORK: not there */
        links[i].window_nbytes = 0;
        atomic_store(&links[i].busy, 0);
    }
    door_sg_forget();
}

__attribute__((constructor)) static void start(void)
{
    const char *text = getenv(DOOR_ENVIRONMENT);
    const char *colon = text != NULL ? strchr(text, ':') : NULL;

    for (int i = 0; i < LINKS; i++) {
        links[i].fd = -1;
    }
    if (colon == NULL || colon - text > TOKEN_MAX || strlen(colon + 1) >= sizeof(place.sun_path)) {
        return;
    }
    memcpy(token, text, (size_t)(colon - text));
    place.sun_family = AF_UNIX;
    strcpy(place.sun_path, colon + 1);
    place_nbytes = sizeof(place);
    pthread_atfork(NULL, NULL, forget);
    door_streams_start();
}

/* The link's socket if it still is one: a program may close descriptors that it does not know, and reuse the number. */
int door_link_fd(struct door_link *link)
{
    struct stat found;

    if (link->fd < 0 || CALL(fstat)(link->fd, &found) != 0 || !S_ISSOCK(found.st_mode) || found.st_ino != link->ino) {
        return -1;
    }
    return link->fd;
}

static void unmap(struct door_link *link)
{
    if (link->window != NULL) {
        munmap(link->window, link->window_nbytes);
        link->window = NULL;
        link->window_nbytes = 0;
    }
}

/* Receives an answer and the descriptor that may come with it. */
static int receive(struct door_link *link, struct door_answer *answer, int *passed)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {answer, sizeof(*answer)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n;

    do {
        n = recvmsg(link->fd, &message, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == ECONNRESET ? -ENODEV : -errno;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int))) {
            int fd;

            memcpy(&fd, CMSG_DATA(c), sizeof(fd));
            if (passed != NULL && *passed < 0) {
                *passed = fd;
            } else {
                close(fd);
            }
        }
    }
    return n == sizeof(*answer) ? 0 : -ENODEV;
}

int door_link_receive(struct door_link *link, struct door_answer *answer)
{
    return receive(link, answer, NULL);
}

int door_link_send(struct door_link *link, const struct door_request *request)
{
    ssize_t n;

    do {
        n = send(link->fd, request, sizeof(*request), MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EPIPE || errno == ECONNRESET ? -ENODEV : -errno;
    }
    return 0;
}

/* Sends a request whose answer brings a window, and maps it. */
static int fetch_window(struct door_link *link, const struct door_request *request)
{
    struct door_answer answer;
    int fd = -1, rc = door_link_send(link, request);

    if (rc == 0) {
        rc = receive(link, &answer, &fd);
    }
    if (rc == 0) {
        rc = answer.error ? -answer.error : fd < 0 ? -ENODEV : 0;
    }
    if (rc == 0) {
        struct stat found;
        void *window = MAP_FAILED;

        if (CALL(fstat)(fd, &found) == 0 && found.st_size > 0) {
            window = mmap(NULL, (size_t)found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        }
        if (window == MAP_FAILED) {
            rc = -ENOMEM;
        } else {
            unmap(link);
            madvise(window, (size_t)found.st_size, MADV_DONTFORK);
            link->window = window;
            link->window_nbytes = (size_t)found.st_size;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

static int connect_link(struct door_link *link)
{
    struct door_request hello = {.op = DOOR_HELLO, .text_nbytes = sizeof(VSCSI_STAMP) - 1};
    struct stat found;
    int fd, high, rc;

    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    /* Out of the way of programs that expect the lowest numbers, or close a few by number. */
    high = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_FD);
    if (high >= 0) {
        close(fd);
        fd = high;
    }
    if (connect(fd, (struct sockaddr *)&place, place_nbytes) != 0 || CALL(fstat)(fd, &found) != 0) {
        close(fd);
        return -ENODEV;
    }
    link->fd = fd;
    link->ino = found.st_ino;
    memcpy(hello.text, VSCSI_STAMP, sizeof(VSCSI_STAMP) - 1);
    rc = fetch_window(link, &hello);
    if (rc != 0) {
        close(fd);
        link->fd = -1;
    }
    return rc;
}

struct door_link *door_link_take(void)
{
    int rc = -EMFILE;

    if (place_nbytes == 0) {
        errno = ENODEV;
        return NULL;
    }
    for (int i = 0; i < LINKS; i++) {
        struct door_link *link = &links[i];
        int idle = 0, used;

        if (!atomic_compare_exchange_strong(&link->busy, &idle, 1)) {
            continue;
        }
        used = atomic_load(&links_used);
        while (used <= i && !atomic_compare_exchange_weak(&links_used, &used, i + 1)) {
        }
        if (door_link_fd(link) >= 0) {
            return link;
        }
        link->fd = -1; /* closed behind our back, or never there */
        rc = connect_link(link);
        if (rc == 0) {
            return link;
        }
        door_link_drop(link);
        break;
    }
    errno = -rc;
    return NULL;
}

void door_link_give(struct door_link *link)
{
    atomic_store(&link->busy, 0);
}

void door_link_drop(struct door_link *link)
{
    if (door_link_fd(link) >= 0) {
        close(link->fd);
    }
    link->fd = -1;
    unmap(link);
    door_link_give(link);
}

static size_t pages(size_t nbytes)
{
    return (nbytes + DOOR_PAGE - 1) / DOOR_PAGE * DOOR_PAGE;
}

uint8_t *door_link_in(struct door_link *link, size_t out_nbytes)
{
    return link->window + pages(out_nbytes);
}

int door_link_room(struct door_link *link, size_t out_nbytes, size_t in_nbytes)
{
    struct door_request request = {.op = DOOR_WINDOW};

    if (out_nbytes > DOOR_WINDOW_MAX || in_nbytes > DOOR_WINDOW_MAX ||
        pages(out_nbytes) + pages(in_nbytes) > DOOR_WINDOW_MAX) {
        return -ENOMEM;
    }
    if (pages(out_nbytes) + pages(in_nbytes) <= link->window_nbytes) {
        return 0;
    }
    request.nbytes = DOOR_WINDOW_FIRST;
    while (request.nbytes < pages(out_nbytes) + pages(in_nbytes)) {
        request.nbytes *= 2;
    }
    return fetch_window(link, &request);
}

int door_ask(const struct door_request *request, struct door_answer *answer)
{
    struct door_link *link = door_link_take();
    int rc;

    if (link == NULL) {
        return -errno;
    }
    rc = door_link_send(link, request);
    if (rc == 0) {
        rc = door_link_receive(link, answer);
    }
    if (rc != 0) {
        door_link_drop(link);
        return rc;
    }
    door_link_give(link);
    return -answer->error;
}
