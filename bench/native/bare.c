/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What ring and event channel cost by themselves: two processes, no protocol, no I/O, no grants.
 * `ring`: slots as SRP's, 64 bytes written and read in a request, 40 in a response, both ends looking all the time.
 * `pingpong`: one event there and one back, both ends asleep in between, as a channel at depth 1 without spinning.
 * Usage: bare ring|pingpong [CPU_HERE CPU_THERE]. On stdin come `struct vscsi_load_spec`s, on stdout go a status (int32)
 * and a `struct vscsi_load_result` for each; of a spec only depth, duration and number of I/Os count.
 */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event.h"
#include "load.h"
#include "ring.h"

enum { PAGES = 16, REQUEST_WORDS = 8, RESPONSE_WORDS = 5, BATCH = 64 };

struct end {
    struct vscsi_sring *shared;
    uint32_t entries;
    int event_fd;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- a bare ring ---- */

static void answer_ring(const struct end *e)
{
    struct vscsi_back_ring ring;
    vscsi_back_attach(&ring, e->shared, e->entries, VSCSI_SRP_SLOT, 0);
    for (;;) {
        int n = vscsi_back_unconsumed(&ring);
        if (n < 0)
            return;
        if (n == 0)
            vscsi_cpu_relax();
        for (int i = 0; i < n && i < BATCH; i++) {
            uint64_t words[REQUEST_WORDS];
            vscsi_slot_read(words, vscsi_back_request(&ring), sizeof words);
            vscsi_back_consume(&ring);
            vscsi_slot_write(vscsi_back_next_response(&ring), words, RESPONSE_WORDS * sizeof *words);
        }
        vscsi_back_push(&ring);
    }
}

static void send_request(struct vscsi_front_ring *ring, uint64_t number)
{
    uint64_t words[REQUEST_WORDS] = { number };
    vscsi_slot_write(vscsi_front_next_request(ring), words, sizeof words);
}

/* The ring goes on where the last run left it. */
static int load_ring(const struct end *e, struct vscsi_front_ring *ring, const struct vscsi_load_spec *spec,
                     struct vscsi_load_result *result)
{
    uint64_t sent = 0, start = vscsi_now_ns(), end = start + spec->duration_ns, now = start;
    if (spec->queue_depth == 0 || spec->queue_depth > e->entries)
        return -EINVAL;
    while (sent < spec->queue_depth)
        send_request(ring, sent++);
    vscsi_front_push(ring);
    while (result->ios < sent) {
        int n = vscsi_front_unconsumed(ring);
        if (n < 0)
            return n;
        if (n == 0)
            vscsi_cpu_relax();
        else
            now = vscsi_now_ns();
        for (int i = 0; i < n; i++) {
            uint64_t words[RESPONSE_WORDS];
            vscsi_slot_read(words, vscsi_front_response(ring), sizeof words);
            ring->rsp_cons++;
            result->ios++;
            result->errors += words[0] >= sent;
            if (now < end && (spec->max_ios == 0 || sent < spec->max_ios))
                send_request(ring, sent++);
        }
        vscsi_front_push(ring);
    }
    result->elapsed_ns = vscsi_now_ns() - start;
    return 0;
}

/* ---- events ---- */

/* Sleeps until there is an event, and takes it; false: the other end is gone. */
static bool await_event(int fd)
{
    for (;;) {
        struct pollfd p = { fd, POLLIN, 0 };
        if (ppoll(&p, 1, NULL, NULL) < 0)
            continue;
        int n = vscsi_event_drain(fd);
        if (n != 0)
            return n > 0;
    }
}

static void answer_events(const struct end *e)
{
    while (await_event(e->event_fd) && vscsi_event_send(e->event_fd) == 0)
        ;
}

static int load_events(const struct end *e, struct vscsi_front_ring *ring, const struct vscsi_load_spec *spec,
                       struct vscsi_load_result *result)
{
    (void)ring;
    uint64_t start = vscsi_now_ns(), now = start;
    while (now - start < spec->duration_ns && (spec->max_ios == 0 || result->ios < spec->max_ios)) {
        if (vscsi_event_send(e->event_fd) < 0 || !await_event(e->event_fd))
            return -EPIPE;
        uint64_t then = now;
        now = vscsi_now_ns();
        vscsi_hist_add(result, now - then);
        result->ios++;
    }
    result->elapsed_ns = now - start;
    return 0;
}

/* ---- both ---- */

static const struct kind {
    const char *name;
    void (*answer)(const struct end *e);
    int (*load)(const struct end *e, struct vscsi_front_ring *ring, const struct vscsi_load_spec *spec,
                struct vscsi_load_result *result);
} kinds[] = { { "ring", answer_ring, load_ring }, { "pingpong", answer_events, load_events } };

static void pin(const char *cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)atoi(cpu), &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        die(cpu);
}

static void take_turns(const struct kind *kind, const struct end *here, pid_t other)
{
    struct vscsi_front_ring ring;
    struct vscsi_load_spec spec;
    static struct vscsi_load_result result;
    vscsi_front_attach(&ring, here->shared, here->entries, VSCSI_SRP_SLOT, 0);
    while (fread(&spec, sizeof spec, 1, stdin) == 1) {
        memset(&result, 0, sizeof result);
        kill(other, SIGCONT);
        const uint64_t cpu = vscsi_thread_cpu_ns();
        int32_t status = kind->load(here, &ring, &spec, &result);
        result.cpu_ns = vscsi_thread_cpu_ns() - cpu;
        kill(other, SIGSTOP);       /* it must not spin while others are measured */
        fwrite(&status, sizeof status, 1, stdout);
        fwrite(&result, sizeof result, 1, stdout);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    const struct kind *kind = NULL;
    for (size_t i = 0; argc > 1 && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, argv[1]) == 0)
            kind = &kinds[i];
    if (!kind || (argc != 2 && argc != 4))
        return 2;
    int ends[2];
    void *memory = mmap(NULL, PAGES * VSCSI_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
                        -1, 0);
    if (memory == MAP_FAILED || vscsi_event_pair(ends) < 0)
        die("memory or event channel");
    struct end here = { memory, vscsi_ring_entries(PAGES, VSCSI_SRP_SLOT), ends[0] }, there = here;
    there.event_fd = ends[1];
    vscsi_ring_init(here.shared);
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            return 0;
        close(ends[0]);
        if (argc == 4)
            pin(argv[3]);
        raise(SIGSTOP);
        kind->answer(&there);
        return 0;
    }
    close(ends[1]);
    if (argc == 4)
        pin(argv[2]);
    /* Once it has stopped, or it would stop after the first SIGCONT. */
    if (waitpid(child, NULL, WUNTRACED) < 0)
        die("waitpid");
    take_turns(kind, &here, child);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return 0;
}
