/* SPDX-License-Identifier: BSD-2-Clause */
/* The mapper's slow half: regions, validation of entries, in-use bits. See grant.h. */
#include "grant.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define HUGETLBFS_SUPER_MAGIC 0x958458f6

static uint8_t *frame_address(const struct vscsi_mapper *m, uint32_t frame, const struct vscsi_region **region)
{
    for (uint32_t i = 0; i < m->nr_regions; i++) {
        const struct vscsi_region *r = &m->regions[i];
        if (frame >= r->first_frame && frame - r->first_frame < r->nr_frames) {
            if (region)
                *region = r;
            return r->base + (size_t)(frame - r->first_frame) * VSCSI_PAGE_SIZE;
        }
    }
    return NULL;
}

/* Maps the memory of one region, whose frames number from first_frame. */
static int map_region(struct vscsi_region *r, int fd, uint32_t first_frame)
{
    struct stat st;
    struct statfs fs;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0)
        return -EINVAL; /* not a memfd */
    if (!(seals & F_SEAL_SHRINK))
        return -EPERM;
    /* Only now is the size final enough to map. */
    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return -errno;
    if ((unsigned long)fs.f_type == HUGETLBFS_SUPER_MAGIC)
        return -EINVAL;
    if (st.st_size <= 0 || st.st_size % VSCSI_PAGE_SIZE)
        return -EINVAL;
    if (st.st_size / VSCSI_PAGE_SIZE > VSCSI_MAX_FRAMES - first_frame)
        return -EFBIG;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return -errno;
    void *base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0);
    if (base == MAP_FAILED) {
        int error = -errno;
        close(copy);
        return error;
    }
    madvise(base, (size_t)st.st_size, MADV_DONTFORK);
    *r = (struct vscsi_region){ base, first_frame, (uint32_t)(st.st_size / VSCSI_PAGE_SIZE), copy };
    return 0;
}

struct vscsi_mapper *vscsi_mapper_new(const int *fds, uint32_t count, uint32_t table_frame, uint32_t table_pages,
                                      uint16_t domid, int *error)
{
    *error = -EINVAL;
    if (count == 0 || count > VSCSI_MAX_REGIONS || table_pages == 0 || table_pages > VSCSI_MAX_TABLE_PAGES)
        return NULL;
    struct vscsi_mapper *m = calloc(1, sizeof *m);
    if (!m) {
        *error = -ENOMEM;
        return NULL;
    }
    m->domid = domid;
    for (uint32_t i = 0; i < count; i++) {
        *error = map_region(&m->regions[i], fds[i], m->nr_frames);
        if (*error)
            goto fail;
        m->nr_regions++;
        m->nr_frames += m->regions[i].nr_frames;
    }
    const struct vscsi_region *r = NULL;
    uint8_t *table = frame_address(m, table_frame, &r);
    *error = -EINVAL;
    if (!table || table_pages > r->nr_frames - (table_frame - r->first_frame))
        goto fail;
    m->table = (uint64_t *)(void *)table;
    m->nr_grants = table_pages * (VSCSI_PAGE_SIZE / sizeof(struct vscsi_grant_entry));
    m->mappings = calloc(m->nr_grants, sizeof *m->mappings);
    *error = -ENOMEM;
    if (!m->mappings)
        goto fail;
    *error = 0;
    return m;
fail:
    vscsi_mapper_free(m);
    return NULL;
}

static void lock(struct vscsi_mapping *mapping)
{
    while (atomic_flag_test_and_set_explicit(&mapping->lock, memory_order_acquire))
        vscsi_cpu_relax();
}

static void unlock(struct vscsi_mapping *mapping)
{
    atomic_flag_clear_explicit(&mapping->lock, memory_order_release);
}

static uint32_t count(const _Atomic uint32_t *uses)
{
    return atomic_load_explicit(uses, memory_order_relaxed);
}

/* Under the lock; the counts are atomic only so that vscsi_mapper_in_use may look without it, and without writing to
 * each of what may be millions of untouched mappings. */
static void add(_Atomic uint32_t *uses, int n)
{
    atomic_store_explicit(uses, count(uses) + (uint32_t)n, memory_order_relaxed);
}

static bool in_use(const struct vscsi_mapping *mapping)
{
    return count(&mapping->readers) || count(&mapping->writers) ||
           atomic_load_explicit(&mapping->pinned_read, memory_order_relaxed);
}

/* A granter changes an entry now and then; one that changes it all the time is not granting anything. */
enum { CLAIM_TRIES = 64 };

/*
 * Validates the entry and sets its in-use bits in one compare-and-swap of the whole entry: on the half that holds the
 * flags alone, an entry that was revoked and granted anew for another page in between would lead to the old page.
 */
static int claim(struct vscsi_mapper *m, uint32_t gref, bool write, uint8_t **addr)
{
    uint64_t *entry = &m->table[gref];
    uint32_t bits = GTF_READING | (write ? GTF_WRITING : 0);
    for (int i = 0; i < CLAIM_TRIES; i++) {
        struct vscsi_grant_entry e = vscsi_grant_load(entry);
        if ((e.flags & GTF_TYPE_MASK) != GTF_PERMIT_ACCESS || e.flags & GTF_SUB_PAGE || e.domid != m->domid)
            return -EACCES;
        if (write && e.flags & GTF_READONLY)
            return -EACCES;
        uint8_t *page = frame_address(m, e.frame, NULL);
        if (!page)
            return -EFAULT;
        uint64_t seen = (uint64_t)e.frame << 32 | (uint32_t)e.domid << 16 | e.flags;
        if (atomic_compare_exchange_strong_explicit((_Atomic uint64_t *)entry, &seen, seen | bits, memory_order_acq_rel,
                                                    memory_order_acquire)) {
            *addr = page;
            return 0;
        }
    }
    return -EACCES;
}

static void release(struct vscsi_mapper *m, uint32_t gref, uint32_t bits)
{
    if (bits)
        atomic_fetch_and_explicit(vscsi_grant_low(&m->table[gref]), ~bits, memory_order_release);
}

int vscsi_mapper_map_slow(struct vscsi_mapper *m, uint32_t gref, bool write, bool persistent, uint8_t **addr)
{
    if (gref < VSCSI_GREF_RESERVED || gref >= m->nr_grants)
        return -ERANGE;
    struct vscsi_mapping *mapping = &m->mappings[gref];
    lock(mapping);
    int rc = claim(m, gref, write, addr);
    if (rc == 0) {
        if (persistent) {
            if (write)
                atomic_store_explicit(&mapping->pinned_write, *addr, memory_order_release);
            atomic_store_explicit(&mapping->pinned_read, *addr, memory_order_release);
        } else {
            add(write ? &mapping->writers : &mapping->readers, 1);
        }
    }
    unlock(mapping);
    return rc;
}

void vscsi_mapper_unmap_slow(struct vscsi_mapper *m, uint32_t gref, bool write)
{
    struct vscsi_mapping *mapping = &m->mappings[gref];
    lock(mapping);
    add(write ? &mapping->writers : &mapping->readers, -1);
    uint32_t bits = 0;
    if (!count(&mapping->writers) && !atomic_load_explicit(&mapping->pinned_write, memory_order_relaxed))
        bits |= GTF_WRITING;
    if (!in_use(mapping))
        bits |= GTF_READING;
    release(m, gref, bits);
    unlock(mapping);
}

uint32_t vscsi_mapper_in_use(struct vscsi_mapper *m)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->nr_grants; i++)
        n += in_use(&m->mappings[i]);
    return n;
}

void vscsi_mapper_free(struct vscsi_mapper *m)
{
    if (!m)
        return;
    for (uint32_t i = 0; m->mappings && i < m->nr_grants; i++)
        if (in_use(&m->mappings[i]))
            release(m, i, GTF_IN_USE);
    for (uint32_t i = 0; i < m->nr_regions; i++) {
        munmap(m->regions[i].base, (size_t)m->regions[i].nr_frames * VSCSI_PAGE_SIZE);
        close(m->regions[i].fd);
    }
    free(m->mappings);
    free(m);
}

void vscsi_mapper_unmap_ring(struct vscsi_mapper *m, const uint32_t *grefs, uint32_t count, uint8_t *addr)
{
    munmap(addr, (size_t)count * VSCSI_PAGE_SIZE);
    for (uint32_t i = 0; i < count; i++)
        vscsi_mapper_unmap_slow(m, grefs[i], true);
}

int vscsi_mapper_map_ring(struct vscsi_mapper *m, const uint32_t *grefs, uint32_t count, uint8_t **addr)
{
    if (count == 0 || count > VSCSI_MAX_RING_PAGES)
        return -EINVAL;
    /* Reserve the whole range first: pages of a ring are contiguous here whatever their frames are. */
    uint8_t *base = mmap(NULL, (size_t)count * VSCSI_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return -errno;
    int rc = 0;
    uint32_t done = 0;
    for (; done < count; done++) {
        uint8_t *page;
        rc = vscsi_mapper_map_slow(m, grefs[done], true, false, &page);
        if (rc)
            break;
        const struct vscsi_region *r = m->regions;
        while ((size_t)(page - r->base) >= (size_t)r->nr_frames * VSCSI_PAGE_SIZE)
            r++;
        if (mmap(base + (size_t)done * VSCSI_PAGE_SIZE, VSCSI_PAGE_SIZE, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_FIXED, r->fd, page - r->base) == MAP_FAILED) {
            rc = -errno;
            vscsi_mapper_unmap_slow(m, grefs[done], true);
            break;
        }
    }
    if (rc) {
        /* In one piece: of a hole left for a moment, another thread's mapping could be the next owner. */
        munmap(base, (size_t)count * VSCSI_PAGE_SIZE);
        while (done-- > 0)
            vscsi_mapper_unmap_slow(m, grefs[done], true);
        return rc;
    }
    madvise(base, (size_t)count * VSCSI_PAGE_SIZE, MADV_DONTFORK);
    *addr = base;
    return 0;
}
