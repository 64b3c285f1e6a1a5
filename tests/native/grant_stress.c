/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A granter that revokes and grants anew against mappers that map and unmap, on a few references and pages.
 * Usage: grant_stress SECONDS SEED MAPPERS honest|hostile
 *
 * honest: a page changes owner only through a revoke that succeeded, so the granter's plain accesses and the mappers'
 * must never meet (ThreadSanitizer watches), and a mapper must never be given a page of another reference.
 * hostile: one more thread scribbles over the grant table; nothing is promised about pages then, but every call must
 * come back, with an address inside the peer's memory or one of the errors that grant.h names.
 *
 * Granter and mappers use the mapper's own addresses: ThreadSanitizer knows memory by address.
 */
#include <fcntl.h>
#include <pthread.h>

#include "stress.h"

#define FRAMES 40
#define FIRST_PAGE 1 /* frame 0 is the grant table */
#define REFS 24      /* fewer than pages: a reference often moves to another page */
#define MAX_MAPPERS 16
#define DOMID 3

struct page {
    uint64_t owner; /* the reference it is granted by; plain on purpose */
    uint64_t check;
    uint64_t written[MAX_MAPPERS]; /* one word for each mapper, since two may write at once */
};

static struct vscsi_mapper *mapper;
static struct vscsi_granter granter;
static bool hostile;
static atomic_bool stop;
static atomic_ulong mapped, refused;

static struct page *page_of(uint32_t frame)
{
    return (struct page *)(void *)(mapper->regions[0].base + (size_t)frame * VSCSI_PAGE_SIZE);
}

struct mapper_thread {
    pthread_t thread;
    uint32_t number;
    uint64_t random;
};

static void use_page(struct mapper_thread *self, uint32_t gref, bool write, uint8_t *address)
{
    struct page *page = (struct page *)(void *)address;
    if (address < mapper->regions[0].base || address >= mapper->regions[0].base + FRAMES * VSCSI_PAGE_SIZE)
        fail("reference %u: an address outside the peer's memory", gref);
    if (hostile)
        return;
    if (page->owner != gref || page->check != mix(gref))
        fail("reference %u led to a page of reference %llu", gref, (unsigned long long)page->owner);
    if (write)
        page->written[self->number]++;
    dawdle(&self->random);
    if (page->owner != gref)
        fail("reference %u: the page changed owner while it was in use", gref);
}

static void *run_mapper(void *argument)
{
    struct mapper_thread *self = argument;
    while (!atomic_load(&stop)) {
        uint32_t gref = VSCSI_GREF_RESERVED + chance(&self->random, REFS);
        bool write = chance(&self->random, 2);
        uint8_t *address;
        int rc = vscsi_mapper_map(mapper, gref, write, false, &address);
        if (rc == 0) {
            use_page(self, gref, write, address);
            vscsi_mapper_unmap(mapper, gref, write, false);
            atomic_fetch_add_explicit(&mapped, 1, memory_order_relaxed);
        } else if (rc == -EACCES || (hostile && rc == -EFAULT)) {
            atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
        } else {
            fail("map: %s", strerror(-rc));
        }
    }
    return NULL;
}

static void *run_scribbler(void *argument)
{
    uint64_t random = *(uint64_t *)argument;
    while (!atomic_load(&stop)) {
        uint64_t *entry = &mapper->table[VSCSI_GREF_RESERVED + chance(&random, REFS)];
        uint64_t word = chance(&random, 2) ? mix(random) : (uint64_t)chance(&random, FRAMES * 2) << 32 | DOMID << 16 | 1;
        atomic_store_explicit((_Atomic uint64_t *)entry, word, memory_order_relaxed);
    }
    return NULL;
}

static uint64_t revokes, busy;

static void run_granter(uint64_t random, double end)
{
    uint32_t frame_of[REFS];
    uint32_t idle[FRAMES], idle_count = 0;
    for (uint32_t frame = FIRST_PAGE; frame < FRAMES; frame++)
        idle[idle_count++] = frame;
    memset(frame_of, 0, sizeof frame_of);
    for (uint64_t turn = 0; turn % 256 || now() < end; turn++) {
        uint32_t ref = chance(&random, REFS), gref = VSCSI_GREF_RESERVED + ref;
        if (frame_of[ref]) {
            int rc = vscsi_grant_end(&granter, gref);
            if (rc == -EBUSY) {
                busy++;
                continue;
            }
            if (rc)
                fail("end: %s", strerror(-rc));
            revokes++;
            if (!hostile) {
                struct page *page = page_of(frame_of[ref]);
                if (page->owner != gref)
                    fail("reference %u: its page was given away", gref);
                memset(page, 0xee, sizeof *page);
            }
            idle[idle_count++] = frame_of[ref];
            frame_of[ref] = 0;
        }
        if (chance(&random, 8)) {
            uint32_t which = chance(&random, idle_count);
            struct page *page = page_of(idle[which]);
            if (!hostile) {
                memset(page, 0, sizeof *page);
                page->owner = gref;
                page->check = mix(gref);
            }
            int rc = vscsi_grant_access(&granter, gref, DOMID, idle[which], chance(&random, 4) == 0);
            if (rc && !hostile)
                fail("grant: %s", strerror(-rc));
            if (rc == 0) {
                frame_of[ref] = idle[which];
                idle[which] = idle[--idle_count];
            }
        }
        dawdle(&random);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        fail("usage: grant_stress SECONDS SEED MAPPERS honest|hostile");
    double end = now() + atof(argv[1]);
    uint64_t random = strtoull(argv[2], NULL, 0), scribble = mix(random);
    uint32_t count = (uint32_t)strtoul(argv[3], NULL, 0);
    hostile = !strcmp(argv[4], "hostile");
    if (count == 0 || count > MAX_MAPPERS)
        fail("1 to %d mappers", MAX_MAPPERS);

    int fd = memfd_create("grant_stress", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, FRAMES * VSCSI_PAGE_SIZE) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK))
        return 77;
    int error;
    mapper = vscsi_mapper_new(&fd, 1, 0, 1, DOMID, &error);
    if (!mapper)
        fail("mapper: %s", strerror(-error));
    close(fd);
    granter = (struct vscsi_granter){ mapper->table, mapper->nr_grants };

    struct mapper_thread threads[MAX_MAPPERS];
    pthread_t scribbler;
    for (uint32_t i = 0; i < count; i++) {
        threads[i].number = i;
        threads[i].random = mix(random + i + 1);
        if (pthread_create(&threads[i].thread, NULL, run_mapper, &threads[i]))
            return 77;
    }
    if (hostile && pthread_create(&scribbler, NULL, run_scribbler, &scribble))
        return 77;
    run_granter(random, end);
    atomic_store(&stop, true);
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i].thread, NULL);
    if (hostile)
        pthread_join(scribbler, NULL);
    uint32_t in_use = vscsi_mapper_in_use(mapper);
    if (in_use)
        fail("%u references in use with nobody using them", in_use);
    for (uint32_t ref = 0; ref < REFS && !hostile; ref++)
        if (vscsi_grant_load(&mapper->table[VSCSI_GREF_RESERVED + ref]).flags & GTF_IN_USE)
            fail("reference %u: an in-use bit was left behind", VSCSI_GREF_RESERVED + ref);
    vscsi_mapper_free(mapper);
    printf("revokes=%llu busy=%llu mapped=%lu refused=%lu\n", (unsigned long long)revokes, (unsigned long long)busy,
           atomic_load(&mapped), atomic_load(&refused));
    return 0;
}
