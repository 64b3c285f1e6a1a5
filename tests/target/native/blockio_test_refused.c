/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Kernels and sandboxes that refuse. Without io_uring AUTO takes the pool, and io_uring by name is a clear error: a
 * seccomp filter makes the sandbox, for io_uring_setup and, more cunning, for io_uring_enter only. A kernel that knows
 * few set-up flags is made by standing in front of liburing's io_uring_queue_init_params.
 */
#include <dlfcn.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "blockio_test.h"

unsigned refused_flags;

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
    int (*real)(unsigned, struct io_uring *, struct io_uring_params *);
    *(void **)&real = dlsym(RTLD_NEXT, "io_uring_queue_init_params");
    return p->flags & refused_flags ? -EINVAL : real(entries, ring, p);
}

static void refuse(long number, int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(77);
}

static void in_sandbox(long number, int errno_given)
{
    refuse(number, errno_given);
    int error = 0;
    struct bio_config config = {.engine = VT_ENGINE_URING, .depth = 32};
    CHECK(bio_engine_new(&config, &error) == NULL);
    CHECK(error == -errno_given);
    config.engine = VT_ENGINE_AUTO;
    engine = bio_engine_new(&config, &error);
    CHECK(engine != NULL && error == 0 && bio_engine_kind(engine) == VT_ENGINE_POOL);
    int fd = image(8192, 0);
    fill_image(fd, 8192);
    uint8_t buffer[4096];
    struct iovec iov = {buffer, sizeof buffer};
    struct bio bio = rw(BIO_READ, fd, &iov, 1, 4096);
    run(&bio);
    CHECK(bio.error == 0 && buffer[5] == pattern(4096 + 5));
    bio_engine_free(engine);
    config.engine = 99;
    CHECK(bio_engine_new(&config, &error) == NULL && error == -EINVAL);
}

void test_refused(void)
{
    static const struct { long number; int error; } cases[] = {
        {SYS_io_uring_setup, EPERM}, {SYS_io_uring_setup, ENOSYS}, {SYS_io_uring_enter, EACCES},
    };
    bio_engine_free(engine);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        /* A filter is for good: in a child. */
        pid_t child = fork();
        if (child == 0) {
            in_sandbox(cases[i].number, cases[i].error);
            _exit(0);
        }
        int status = -1;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
        if (WEXITSTATUS(status) == 77)
            exit(77);
        CHECK(WEXITSTATUS(status) == 0);
    }
    open_engine(32);
}
