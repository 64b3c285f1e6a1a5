/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory of a peer. See fuzz.h. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "race.h"

static void make(struct domain *d)
{
    d->fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    PROMISE(d->fd >= 0 && ftruncate(d->fd, FRAMES * VSCSI_PAGE_SIZE) == 0, "no memfd");
    PROMISE(fcntl(d->fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0, "no seal");
    d->base = mmap(NULL, FRAMES * VSCSI_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, 0);
    PROMISE(d->base != MAP_FAILED, "no memory");
}

static const uint32_t secrets[] = { SECRET_A, SECRET_B, SECRET_C };

void domain_open(struct domain *d, uint16_t domid)
{
    if (!d->base)
        make(d);
    memset(d->base, 0, FRAMES * VSCSI_PAGE_SIZE);
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
        memset(domain_page(d, secrets[i]), SECRET_BYTE, VSCSI_PAGE_SIZE);
    memset(d->readers, 0, sizeof d->readers);
    memset(d->writers, 0, sizeof d->writers);
    memset(d->uses, 0, sizeof d->uses);
    d->table_granted = d->ambiguous = false;
    d->granter = (struct vscsi_granter){ (uint64_t *)(void *)d->base, VSCSI_PAGE_SIZE / 8 };
    /* The last third of the data is for reading only. */
    for (uint32_t frame = RING_FRAME; frame < DATA_FRAME + DATA_FRAMES; frame++)
        if (frame != SECRET_A)
            vscsi_granter_grant(&d->granter, GREF + frame, domid, frame, frame >= DATA_FRAME + DATA_FRAMES * 2 / 3);
    int error = 0;
    d->mapper = vscsi_mapper_new(&d->fd, 1, TABLE_FRAME, 1, domid, &error);
    PROMISE(d->mapper, "no mapper: %d", error);
    d->open = true;
}

void domain_close(struct domain *d, bool persistent)
{
    static uint8_t secret[VSCSI_PAGE_SIZE];
    memset(secret, SECRET_BYTE, sizeof secret);
    PROMISE(persistent || vscsi_mapper_in_use(d->mapper) == 0, "%u grants are still in use",
            vscsi_mapper_in_use(d->mapper));
    for (uint32_t gref = 0; gref < GREFS; gref++)
        PROMISE(!d->uses[gref], "reference %u is still in use", gref);
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets && !d->table_granted; i++)
        PROMISE(memcmp(domain_page(d, secrets[i]), secret, sizeof secret) == 0, "frame %u was overwritten", secrets[i]);
    vscsi_mapper_free(d->mapper);
    d->mapper = NULL;
    d->open = false;
}

int domain_frame(const struct domain *d, const void *address)
{
    if (!d->open || !d->mapper)
        return -1;
    const uint8_t *at = address, *base = d->mapper->regions[0].base;
    if (at < base || at >= base + FRAMES * VSCSI_PAGE_SIZE)
        return -1;
    return (int)((size_t)(at - base) / VSCSI_PAGE_SIZE);
}

void domain_mapped(struct domain *d, uint32_t gref, int write, int persistent, const uint8_t *page)
{
    int frame = domain_frame(d, page);
    PROMISE(frame >= 0 && gref >= GREF && gref < GREFS, "a page outside its owner's memory was mapped");
    d->table_granted |= frame == TABLE_FRAME;
    bool secret = frame == SECRET_A || frame == SECRET_B || frame == SECRET_C;
    PROMISE(!secret || d->table_granted, "frame %d was never granted", frame);
    uint32_t *count = write ? &d->writers[frame] : &d->readers[frame];
    /* Nothing has come in between: the entry is what was found good, with its in-use bits. */
    struct vscsi_grant_entry e;
    memcpy(&e, &d->granter.table[gref], sizeof e);
    uint16_t wanted = write ? GTF_READING | GTF_WRITING : GTF_READING;
    bool ours = (e.flags & (GTF_TYPE_MASK | GTF_SUB_PAGE)) == GTF_PERMIT_ACCESS && e.domid == d->mapper->domid;
    bool good = ours && e.frame == (uint32_t)frame && (e.flags & wanted) == wanted &&
                !(write && e.flags & GTF_READONLY);
    PROMISE(persistent || good || racing, "reference %u was mapped for %s, but says %#x, %u, %u", gref,
            write ? "writing" : "reading", e.flags, e.domid, e.frame);
    if (persistent) {
        *count |= 1u << 31;     /* for good */
        return;
    }
    d->ambiguous |= d->uses[gref] && d->frame_of[gref] != frame;
    d->frame_of[gref] = (uint8_t)frame;
    d->uses[gref]++;
    ++*count;
}

void domain_unmapped(struct domain *d, uint32_t gref, int write, int persistent)
{
    if (persistent)
        return;
    PROMISE(gref < GREFS && d->uses[gref], "reference %u is unmapped, but was not mapped", gref);
    d->uses[gref]--;
    uint8_t frame = d->frame_of[gref];
    uint32_t *count = write ? &d->writers[frame] : &d->readers[frame];
    PROMISE(d->ambiguous || *count, "frame %u is unmapped, but was not mapped", frame);
    *count -= *count != 0;
}

void domain_moves(const struct domain *d, const void *address, size_t nbytes, bool write)
{
    int frame = domain_frame(d, address), last = domain_frame(d, (const uint8_t *)address + nbytes - 1);
    PROMISE(frame >= 0 && last >= frame, "data outside its owner's memory");
    for (; frame <= last && !d->ambiguous; frame++)
        PROMISE(d->writers[frame] || (!write && d->readers[frame]), "data in frame %d, which is not %s", frame,
                write ? "in use for writing" : "in use");
}
