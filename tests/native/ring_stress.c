/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A producer and a consumer on one ring, as two processes or as two threads: sequence, payload, no lost wake-up.
 * Usage: ring_stress process|thread SECONDS ENTRIES SEED START SLOT_NBYTES PAGES
 * Ends after SECONDS or ENTRIES, whichever comes first. START is the first index (near 2^32 for the wrap-around).
 *
 * Slots are atomics, so ThreadSanitizer cannot see an ordering that is missing there. Each entry therefore also has a
 * plain cell beside the ring: it is written before the index is published and read after the index was seen.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "stress.h"

#define MAX_ENTRIES 2048
#define STOP (UINT64_MAX)

struct shared {
    uint8_t ring[VSCSI_MAX_RING_PAGES * VSCSI_PAGE_SIZE] __attribute__((aligned(4096)));
    uint64_t request_cell[MAX_ENTRIES]; /* plain on purpose */
    uint64_t response_cell[MAX_ENTRIES];
};

static struct shared *shared;
static uint32_t nr_ents, slot_nbytes, start;
static uint64_t seed, max_entries;
static double seconds;
static int ends[2];

static void fill(uint64_t *words, uint64_t sequence, uint64_t salt)
{
    words[0] = sequence;
    for (uint32_t i = 1; i < slot_nbytes / 8; i++)
        words[i] = mix(sequence ^ salt ^ (uint64_t)i << 32);
}

static void check(const uint64_t *words, uint64_t salt, const char *what)
{
    for (uint32_t i = 1; i < slot_nbytes / 8; i++)
        if (words[i] != mix(words[0] ^ salt ^ (uint64_t)i << 32))
            fail("%s: entry %llu: word %u is torn or stale", what, (unsigned long long)words[0], i);
}

static void kick(int fd)
{
    int rc = vscsi_event_send(fd);
    if (rc && rc != -EPIPE)
        fail("send: %s", strerror(-rc));
}

/* No event came. The side that has work waiting knows why, and speaks; the other gives it time to. */
static void give_up(const char *side, int work)
{
    static _Thread_local int times;
    if (work)
        fail("%s: %d entries wait and no event came: LOST WAKE-UP", side, work);
    if (++times == 4)
        fail("%s: no event, and nothing to do", side);
}

/* ---- the side that makes requests ---- */

static struct vscsi_front_ring front;
static uint64_t sent, received, front_sleeps, front_kicks;
static uint8_t outstanding[MAX_ENTRIES * 2]; /* by sequence; twice the ring, so that a stray answer is noticed */

static void produce(uint64_t *random, bool *stopping, double end)
{
    uint32_t batch = chance(random, chance(random, 8) ? 8 : nr_ents) + 1;
    uint64_t words[VSCSI_PAGE_SIZE / 8];
    while (batch-- > 0 && !*stopping && vscsi_front_free(&front)) {
        uint32_t index = front.req_prod_pvt;
        void *slot = vscsi_front_next_request(&front);
        *stopping = sent == max_entries || (sent % 1024 == 0 && now() > end);
        fill(words, *stopping ? STOP : sent, 1);
        shared->request_cell[index & (nr_ents - 1)] = mix(words[0]);
        vscsi_slot_write(slot, words, slot_nbytes);
        if (!*stopping && outstanding[sent % (MAX_ENTRIES * 2)]++)
            fail("entry %llu was never answered", (unsigned long long)(sent - MAX_ENTRIES * 2));
        sent += !*stopping;
        dawdle(random);
    }
    if (vscsi_front_push(&front)) {
        front_kicks++;
        kick(ends[0]);
    }
}

/* True once the answer to STOP was seen. */
static bool reap(uint64_t *random, uint32_t n)
{
    bool stopped = false;
    uint64_t words[VSCSI_PAGE_SIZE / 8];
    while (n-- > 0) {
        uint32_t index = front.rsp_cons;
        vscsi_slot_read(words, vscsi_front_response(&front), slot_nbytes);
        check(words, 2, "response");
        if (shared->response_cell[index & (nr_ents - 1)] != mix(~words[0]))
            fail("response %llu: stale plain cell", (unsigned long long)words[0]);
        front.rsp_cons++;
        if (words[0] == STOP) {
            stopped = true;
            continue;
        }
        if (words[0] >= sent || !outstanding[words[0] % (MAX_ENTRIES * 2)])
            fail("entry %llu answered without being asked", (unsigned long long)words[0]);
        outstanding[words[0] % (MAX_ENTRIES * 2)] = 0;
        received++;
        dawdle(random);
    }
    return stopped;
}

static void run_front(void)
{
    uint64_t random = seed;
    bool stopping = false, stopped = false, draining = false;
    double end = now() + seconds;
    while (!stopped) {
        /* Mostly keep the ring full; sometimes let it run empty, so that the other side sleeps too. */
        if (vscsi_front_free(&front) == nr_ents)
            draining = false;
        if (!draining)
            produce(&random, &stopping, end);
        draining = draining || chance(&random, 16) == 0;
        int n = vscsi_front_unconsumed(&front);
        if (n == 0 && (stopping || draining || vscsi_front_free(&front) == 0)) {
            /* Any point up to the last outstanding answer is a fair one to be woken at. */
            uint32_t due = front.req_published - front.rsp_cons;
            n = vscsi_front_final_check(&front, chance(&random, 4) ? 1 : chance(&random, due) + 1);
            if (n == 0) {
                front_sleeps++;
                if (!wait_event(ends[0]))
                    give_up("front", vscsi_front_unconsumed(&front));
                continue;
            }
        }
        if (n < 0)
            fail("front: the ring is broken");
        stopped = reap(&random, (uint32_t)n);
    }
    if (received != sent || vscsi_front_free(&front) != nr_ents)
        fail("%llu sent, %llu answered", (unsigned long long)sent, (unsigned long long)received);
}

/* ---- the side that answers ---- */

static struct vscsi_back_ring back;

static void *run_back(void *unused)
{
    (void)unused;
    uint64_t random = mix(seed);
    static uint64_t pending[MAX_ENTRIES];
    uint64_t expected = 0, words[VSCSI_PAGE_SIZE / 8];
    uint32_t waiting = 0;
    bool stopping = false;
    for (;;) {
        int n = vscsi_back_unconsumed(&back);
        if (n == 0 && waiting == 0) {
            if (stopping)
                return NULL;
            n = vscsi_back_final_check(&back);
            if (n == 0) {
                if (!wait_event(ends[1]))
                    give_up("back", vscsi_back_unconsumed(&back));
                continue;
            }
        }
        if (n < 0)
            fail("back: the ring is broken");
        for (uint32_t take = n ? chance(&random, (uint32_t)n) + 1 : 0; take > 0; take--) {
            uint32_t index = back.req_cons;
            vscsi_slot_read(words, vscsi_back_request(&back), slot_nbytes);
            check(words, 1, "request");
            if (shared->request_cell[index & (nr_ents - 1)] != mix(words[0]))
                fail("request %llu: stale plain cell", (unsigned long long)words[0]);
            vscsi_back_consume(&back);
            if (words[0] == STOP)
                stopping = true;
            else if (words[0] != expected++)
                fail("request %llu where %llu was due", (unsigned long long)words[0], (unsigned long long)expected - 1);
            pending[waiting++] = words[0];
            dawdle(&random);
        }
        /* STOP is answered last; everything else in any order, some of it now and some of it later. */
        for (uint32_t give = waiting ? chance(&random, waiting) + 1 : 0; give > 0; give--) {
            uint32_t which = chance(&random, waiting);
            if (pending[which] == STOP && waiting > 1)
                which = which ? which - 1 : 1;
            uint32_t index = back.rsp_prod_pvt;
            void *slot = vscsi_back_next_response(&back);
            if (!slot)
                fail("back: no slot for an answer that is due");
            fill(words, pending[which], 2);
            pending[which] = pending[--waiting];
            shared->response_cell[index & (nr_ents - 1)] = mix(~words[0]);
            vscsi_slot_write(slot, words, slot_nbytes);
            dawdle(&random);
        }
        if (vscsi_back_push(&back))
            kick(ends[1]);
    }
}

int main(int argc, char **argv)
{
    if (argc != 8)
        fail("usage: ring_stress process|thread SECONDS ENTRIES SEED START SLOT_NBYTES PAGES");
    bool threads = !strcmp(argv[1], "thread");
    seconds = atof(argv[2]);
    max_entries = strtoull(argv[3], NULL, 0);
    seed = strtoull(argv[4], NULL, 0);
    start = (uint32_t)strtoul(argv[5], NULL, 0);
    slot_nbytes = (uint32_t)strtoul(argv[6], NULL, 0);
    uint32_t pages = (uint32_t)strtoul(argv[7], NULL, 0);
    nr_ents = vscsi_ring_entries(pages, slot_nbytes);
    if (!nr_ents || nr_ents > MAX_ENTRIES || slot_nbytes % 8)
        fail("no such ring");

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || vscsi_event_pair(ends))
        return 77;
    struct vscsi_sring *sring = (struct vscsi_sring *)shared->ring;
    vscsi_ring_init(sring);
    vscsi_store_relaxed(&sring->req_prod, start);
    vscsi_store_relaxed(&sring->rsp_prod, start);
    vscsi_store_relaxed(&sring->req_event, start + 1);
    vscsi_store_relaxed(&sring->rsp_event, start + 1);
    vscsi_front_attach(&front, sring, nr_ents, slot_nbytes, start);
    vscsi_back_attach(&back, sring, nr_ents, slot_nbytes, start);

    if (threads) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, run_back, NULL))
            return 77;
        run_front();
        pthread_join(thread, NULL);
    } else {
        pid_t child = fork();
        if (child < 0)
            return 77;
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(ends[0]);
            run_back(NULL);
            exit(0);
        }
        close(ends[1]);
        run_front();
        int status;
        if (waitpid(child, &status, 0) != child || status)
            fail("the other process failed");
    }
    if (threads)
        close(ends[1]);
    close(ends[0]);
    munmap(shared, sizeof *shared);
    printf("entries=%llu sleeps=%llu kicks=%llu\n", (unsigned long long)received, (unsigned long long)front_sleeps,
           (unsigned long long)front_kicks);
    return 0;
}
