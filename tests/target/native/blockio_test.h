/* SPDX-License-Identifier: BSD-2-Clause */
/* What the C tests of block I/O include, and the check that names its line and ends the run with status 1. */
#ifndef BLOCKIO_TEST_H
#define BLOCKIO_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "blockio.h"
#include "target.h"

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);  \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

struct topic {
    const char *name;
    void (*run)(void);
};

#endif
