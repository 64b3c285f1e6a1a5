/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Both ends of a channel in one thread, turn by turn, so that what an I/O costs can be counted instead of timed: under
 * callgrind its instructions (`initiators_turn` and `targets_turn`, the warm-up is neither), by itself allocations
 * and locks, and with `sealed` no system call survives. The C is the project's own, the loop's thread apart.
 * Usage: hot_path srp|blkif READ_PERCENT IMAGE|null DEPTH TURNS [sealed]
 */
#include "loop.c"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "channel.h"

enum { TABLE_PAGES = 2, FRAMES = 1024, BLOCK = 4096, FIRST_BUFFER = 64, WARM_UP = 8, NULL_BLOCKS = 16384 };

/* ---- what is counted: the linker sends every call of ours here (--wrap) ---- */

static uint64_t allocations, locks;

void *__real_malloc(size_t nbytes);
void *__real_calloc(size_t count, size_t nbytes);
void *__real_realloc(void *old, size_t nbytes);
void *__real_aligned_alloc(size_t align, size_t nbytes);
int __real_pthread_mutex_lock(pthread_mutex_t *mutex);

void *__wrap_malloc(size_t nbytes);
void *__wrap_calloc(size_t count, size_t nbytes);
void *__wrap_realloc(void *old, size_t nbytes);
void *__wrap_aligned_alloc(size_t align, size_t nbytes);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);

void *__wrap_malloc(size_t nbytes)
{
    allocations++;
    return __real_malloc(nbytes);
}

void *__wrap_calloc(size_t count, size_t nbytes)
{
    allocations++;
    return __real_calloc(count, nbytes);
}

void *__wrap_realloc(void *old, size_t nbytes)
{
    allocations++;
    return __real_realloc(old, nbytes);
}

void *__wrap_aligned_alloc(size_t align, size_t nbytes)
{
    allocations++;
    return __real_aligned_alloc(align, nbytes);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    locks++;
    return __real_pthread_mutex_lock(mutex);
}

/* ---- the two ends ---- */

struct ends {
    struct vt_target *target;
    struct vt_loop *loop;
    struct vi_channel *initiator;
    struct vi_request request;
    struct vi_segment segment;
    struct vscsi_load_spec spec;
    struct vscsi_pattern pattern;
    uint32_t idle[128];
    uint32_t idle_count;
    uint64_t done;
    uint64_t failed;
};

static void must(int64_t rc, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "%s: %lld\n", what, (long long)rc);
    exit(1);
}

static void boot_without_thread(struct vt_loop *loop)
{
    const struct bio_config config = { VT_ENGINE_POOL, 256, 1 };
    int error = 0;
    loop->engine = bio_engine_new(&config, &error);
    must(error, "engine");
    must(bio_watch(loop->engine, loop->wake_fd, loop), "watch");
}

static void add_commands(struct vt_target *t)
{
    const struct vt_command read10 = { .opcode = 0x28, .cdb_nbytes = 10, .op = VT_OP_READ, .conflict = VT_CONFLICT_READ,
        .flags = VT_CMD_NEEDS_READY, .lba_offset = 2, .lba_nbytes = 4, .length_offset = 7, .length_nbytes = 2,
        .fua_mask = 8, .escape_mask = 0xe0,
        .usage = { 0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x07 } };
    struct vt_command write10 = read10;
    write10.opcode = write10.usage[0] = 0x2a;
    write10.op = VT_OP_WRITE;
    write10.conflict = VT_CONFLICT_WRITE;
    write10.flags |= VT_CMD_WRITES;
    must(vt_command_add(t, &read10), "READ(10)");
    must(vt_command_add(t, &write10), "WRITE(10)");
}

static void connect_ends(struct ends *e, bool srp, const char *image)
{
    const struct vt_config config = { .loops = 1, .engine = VT_ENGINE_POOL, .nowait = 1 };
    int error = 0, fd = -1, events[2];
    struct vt_target *t = e->target = vt_new(&config, &error);
    must(error, "target");
    e->loop = &t->loops[0];
    boot_without_thread(e->loop);
    add_commands(t);
    if (strcmp(image, "null") != 0) {
        must(fd = open(image, O_RDWR | O_CLOEXEC), image);
        e->spec.span_nbytes = (uint64_t)lseek(fd, 0, SEEK_END) / BLOCK * BLOCK;
    }
    const struct vt_lu_config unit = { .fd = fd, .block_nbytes = 512, .blocks = e->spec.span_nbytes / 512,
                                       .flags = VT_LU_WRITE_CACHE | (fd < 0 ? VT_LU_NULL : 0) };
    int lu = vt_lu_add(t, &unit), nexus = vt_nexus_add(t);
    must(lu, "unit");
    must(nexus, "nexus");

    int memfd = memfd_create("hot_path", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    must(memfd, "memfd");
    must(ftruncate(memfd, FRAMES * BLOCK), "ftruncate");
    must(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK), "seal");
    uint8_t *memory = mmap(NULL, FRAMES * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memfd, 0);
    if (memory == MAP_FAILED)
        must(-1, "mmap");
    static struct vscsi_granter granter;
    granter = (struct vscsi_granter){ (uint64_t *)(void *)memory, TABLE_PAGES * BLOCK / 8 };
    const uint32_t pages = srp ? 16 : 8, first = 32, base = VSCSI_GREF_RESERVED;
    uint32_t grefs[16];
    for (uint32_t i = 0; i < pages; i++)
        grefs[i] = base + first + i;
    for (uint32_t frame = first; frame < FRAMES - base; frame++)
        must(vscsi_grant_access(&granter, base + frame, VSCSI_TARGET_DOMID, frame, false), "grant");
    vscsi_ring_init((struct vscsi_sring *)(void *)(memory + first * BLOCK));
    struct vscsi_mapper *mapper = vscsi_mapper_new(&memfd, 1, 0, TABLE_PAGES, VSCSI_TARGET_DOMID, &error);
    must(error, "mapper");
    uint8_t *ring;
    must(vscsi_mapper_map_ring(mapper, grefs, pages, &ring), "ring");
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, events), "events");

    const struct vi_config mine = { .protocol = srp ? VI_PROTOCOL_SRP : VI_PROTOCOL_BLKIF, .ring_pages = pages,
        .ring = memory + first * BLOCK, .event_fd = events[0], .persistent = 1, .granter = &granter, .memory = memory,
        .memory_nbytes = FRAMES * BLOCK, .gref_base = base };
    e->initiator = vi_channel_new(&mine, &error);
    must(error, "initiator");
    const struct vt_channel_config its = { .protocol = srp ? VT_PROTOCOL_SRP : VT_PROTOCOL_BLKIF, .event_fd = events[1],
        .mapper = mapper, .ring = ring, .ring_pages = pages, .persistent = 1, .loop = 0, .nexus = (uint32_t)nexus,
        .lu = (uint32_t)lu };
    int channel = vt_channel_add(t, &its);
    must(channel, "channel");
    if (srp) {
        must(vt_channel_login(t, (uint32_t)channel, (uint32_t)nexus, 254), "login");
        must(vi_channel_live(e->initiator, 254, VSCSI_SRP_SLOT), "live");
    }
    pass(e->loop);
}

/* What the load generator does in a turn: take, book, send, publish once. */
static void take_and_send(struct ends *e)
{
    struct vi_channel *c = e->initiator;
    struct vi_request *q = &e->request;
    pthread_mutex_lock(&c->mutex);
    must(vi_pump(c), "pump");
    for (struct vi_slot *slot; (slot = vi_list_pop(c, &c->done[VI_OWNER_LOAD])); e->done++) {
        const struct vi_completion *d = &slot->completion;
        e->failed += d->error || d->status || d->blkif_status || d->in_residual || d->out_residual;
        e->idle[e->idle_count++] = (uint32_t)d->cookie;
        vi_slot_put(c, slot);
    }
    while (e->idle_count) {
        struct vi_slot *slot;
        bool read;
        uint32_t buffer = e->idle[--e->idle_count];
        uint64_t at = vscsi_pattern_next(&e->pattern, &e->spec, &read);
        e->segment.offset = (FIRST_BUFFER + (uint64_t)buffer) * BLOCK;
        q->cookie = buffer;
        q->in_count = read;
        q->out_count = !read;
        q->operation = read ? BLKIF_OP_READ : BLKIF_OP_WRITE;
        q->sector = at / VSCSI_SECTOR_SIZE;
        q->cdb[0] = read ? 0x28 : 0x2a;
        vscsi_put_be(q->cdb + 2, at / 512, 4);
        must(vi_enqueue(c, q, VI_OWNER_LOAD, &slot), "enqueue");
    }
    vi_push(c);
    pthread_mutex_unlock(&c->mutex);
}

__attribute__((noipa)) static void initiators_turn(struct ends *e)
{
    take_and_send(e);
    __asm__ volatile("" ::: "memory");      /* no tail call: callgrind must see us return */
}

__attribute__((noipa)) static void targets_turn(struct ends *e)
{
    pass(e->loop);
    __asm__ volatile("" ::: "memory");
}

static uint64_t target_locks;

static void turns(struct ends *e, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        initiators_turn(e);
        uint64_t before = locks;
        targets_turn(e);
        target_locks += locks - before;
    }
}

/* From here on a system call other than write and exit_group is the end. */
static void seal(void)
{
#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter code[] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                  ALLOW(SYS_exit_group), ALLOW(SYS_write),
                                  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS) };
    struct sock_fprog program = { sizeof code / sizeof *code, code };
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), "seccomp");
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    static struct ends e;
    const uint32_t depth = (uint32_t)atoi(argv[4]), count = (uint32_t)atoi(argv[5]);
    if (depth == 0 || depth > 128)
        return 2;
    e.segment.nbytes = BLOCK;
    e.request.in = e.request.out = &e.segment;
    e.request.cdb_nbytes = 10;
    e.request.cdb[8] = BLOCK / 512;
    e.spec = (struct vscsi_load_spec){ .block_nbytes = BLOCK, .queue_depth = depth, .random = 1,
        .read_percent = (uint32_t)atoi(argv[2]), .span_nbytes = NULL_BLOCKS * BLOCK, .seed = 1 };
    while (e.idle_count < depth) {
        e.idle[e.idle_count] = e.idle_count;
        e.idle_count++;
    }
    connect_ends(&e, strcmp(argv[1], "srp") == 0, argv[3]);
    vscsi_pattern_init(&e.pattern, &e.spec);
    for (int i = 0; i < WARM_UP; i++) {
        take_and_send(&e);
        pass(e.loop);
    }
    e.done = e.failed = 0;
    allocations = locks = 0;
    if (argc > 6)
        seal();
    turns(&e, count);
    char text[128];
    int nbytes = snprintf(text, sizeof text, "done=%llu failed=%llu allocations=%llu target_locks=%llu initiator_locks=%llu\n",
                          (unsigned long long)e.done, (unsigned long long)e.failed, (unsigned long long)allocations,
                          (unsigned long long)target_locks, (unsigned long long)(locks - target_locks));
    ssize_t ignored = write(STDOUT_FILENO, text, (size_t)nbytes);
    (void)ignored;
    _exit(e.failed ? 1 : 0);
}
