/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The asynchronous half of SG_IO version 3: write() of a header starts a command, read() of one waits for its end and
 * fetches it, by pack_id where SG_SET_FORCE_PACK_ID asks for that. What is in flight belongs to the process that began
 * it. A compare-and-swap on its state decides who has an entry; there is no lock.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include "door.h"
#include "sgio.h"

enum { ENTRIES = 128 };
enum state { FREE, FILLING, FLYING, FETCHING };

struct entry {
    _Atomic int state;
    uint32_t file;
    uint64_t order;
    struct sg_command command;
    struct sg_io_hdr header;
};

static struct entry entries[ENTRIES];
static _Atomic uint64_t orders;

NEXT(int, poll, struct pollfd *, nfds_t, int);

static bool take(struct entry *entry, int from, int to)
{
    return atomic_compare_exchange_strong(&entry->state, &from, to);
}

void door_sg_forget(void)
{
    for (int i = 0; i < ENTRIES; i++) {
        atomic_store(&entries[i].state, FREE);
    }
}

ssize_t door_sg_write(const struct door_file *file, const void *data, size_t nbytes)
{
    struct sg_io_hdr header;

    if (nbytes < sizeof(header)) {
        return -EIO;
    }
    memcpy(&header, data, sizeof(header));
    for (int i = 0; i < ENTRIES; i++) {
        struct entry *entry = &entries[i];
        int rc;

        if (!take(entry, FREE, FILLING)) {
            continue;
        }
        entry->file = file->number;
        entry->header = header;
        entry->order = atomic_fetch_add(&orders, 1);
        rc = sg_v3_send(&entry->command, file, &header);
        atomic_store(&entry->state, rc == 0 ? FLYING : FREE);
        return rc == 0 ? (ssize_t)nbytes : rc;
    }
    return -EDOM; /* what sg says when its queue is full */
}

/* Entries of this file in flight, oldest first; `pack_id` -1: any. */
static int flying(const struct door_file *file, int pack_id, struct entry *found[ENTRIES])
{
    int n = 0;

    for (int i = 0; i < ENTRIES; i++) {
        struct entry *entry = &entries[i];

        if (atomic_load(&entry->state) == FLYING && entry->file == file->number &&
            (pack_id == -1 || entry->header.pack_id == pack_id)) {
            int at = n++;

            for (; at > 0 && found[at - 1]->order > entry->order; at--) {
                found[at] = found[at - 1];
            }
            found[at] = entry;
        }
    }
    return n;
}

int door_sg_waiting(const struct door_file *file)
{
    struct entry *found[ENTRIES];

    return flying(file, -1, found);
}

/* The first of those that have an answer, NULL after the time. */
static struct entry *ready(struct entry *found[ENTRIES], int n, int timeout_ms)
{
    struct pollfd fds[ENTRIES];

    for (int i = 0; i < n; i++) {
        fds[i] = (struct pollfd){.fd = found[i]->command.link->fd, .events = POLLIN};
    }
    if (CALL(poll)(fds, (nfds_t)n, timeout_ms) > 0) {
        for (int i = 0; i < n; i++) {
            if (fds[i].revents) {
                return found[i];
            }
        }
    }
    return NULL;
}

bool door_sg_ready(const struct door_file *file, int timeout_ms)
{
    struct entry *found[ENTRIES];
    int n = flying(file, -1, found);

    return n > 0 && ready(found, n, timeout_ms) != NULL;
}

ssize_t door_sg_read(const struct door_file *file, void *data, size_t nbytes, bool wait)
{
    struct entry *found[ENTRIES], *entry;
    struct sg_io_hdr header;
    uint64_t force = 0;
    int n, rc;

    if (nbytes < sizeof(header)) {
        return -EIO;
    }
    memcpy(&header, data, sizeof(header));
    rc = door_setting(file, DOOR_SETTING_FORCE_PACK_ID, UINT64_MAX, &force);
    if (rc != 0) {
        return rc;
    }
    for (;;) {
        n = flying(file, force ? header.pack_id : -1, found);
        if (n == 0) {
            return -EAGAIN;
        }
        entry = ready(found, n, wait ? -1 : 0);
        if (entry == NULL && !wait) {
            return -EAGAIN;
        }
        if (entry == NULL) {
            return -EINTR;
        }
        if (take(entry, FLYING, FETCHING)) {
            break;
        }
    }
    rc = sg_command_end(&entry->command);
    header = entry->header;
    if (rc == 0) {
        sg_v3_result(&entry->command, &header);
        memcpy(data, &header, sizeof(header));
    }
    atomic_store(&entry->state, FREE);
    return rc == 0 ? (ssize_t)nbytes : rc;
}
