/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ioctl, and those of scsi/sg.h and scsi/scsi_ioctl.h: a table of numbers and functions. What they tell about a disk
 * comes from the parent, which asks the target. Others get ENOTTY, as from any driver that does not know them.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <scsi/scsi_ioctl.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "door.h"
#include "ioctl.h"

/* What the kernel's own sg 3 says. 4 and up would mean the newer driver's other ioctls. */
enum { SG_VERSION = 30536, TABLE_SIZE = 2048, OPEN_FILES = 1, MS_PER_TICK = 10 };
enum { GET_ACCESS_COUNT = 0x2289, GET_BUS_NUMBER = 0x5386, PROBE_HOST = 0x5385, GET_PCI = 0x5387, GET_IDLUN = 0x5382 };
enum { RESET_NOTHING = 0, RESET_DEVICE = 1, RESET_NO_ESCALATE = 0x100 };
enum { DOORLOCK = 0x5380, DOORUNLOCK = 0x5381 };

static int put_int(void *to, uint64_t value)
{
    int narrow = value > INT32_MAX ? INT32_MAX : (int)value;

    if (to == NULL) {
        return -EFAULT;
    }
    memcpy(to, &narrow, sizeof(narrow));
    return 0;
}

/* ---- scsi/sg.h ---- */

static int version(const struct door_file *file, void *argument)
{
    (void)file;
    return put_int(argument, SG_VERSION);
}

static int place(const struct door_file *file, uint64_t values[DOOR_VALUES])
{
    struct door_request request = {.op = DOOR_PLACE, .file = file->number};
    struct door_answer answer;
    int rc = door_ask(&request, &answer);

    memcpy(values, answer.values, sizeof(answer.values));
    return rc;
}

static int scsi_id(const struct door_file *file, void *argument)
{
    struct sg_scsi_id id = {.h_cmd_per_lun = 32, .d_queue_depth = 32};
    uint64_t values[DOOR_VALUES];
    int rc = place(file, values);

    if (rc == 0) {
        id.host_no = (int)values[0];
        id.channel = (int)values[1];
        id.scsi_id = (int)values[2];
        id.lun = (int)values[3];
        id.scsi_type = (int)values[4];
        memcpy(argument, &id, sizeof(id));
    }
    return rc;
}

static int idlun(const struct door_file *file, void *argument)
{
    uint64_t values[DOOR_VALUES];
    int rc = place(file, values);

    if (rc == 0) {
        uint32_t found[2] = {
            (uint32_t)((values[2] & 0xff) | (values[3] & 0xff) << 8 | (values[1] & 0xff) << 16 | (values[0] & 0xff) << 24),
            (uint32_t)values[0],
        };

        memcpy(argument, found, sizeof(found));
    }
    return rc;
}

static int bus_number(const struct door_file *file, void *argument)
{
    uint64_t values[DOOR_VALUES];
    int rc = place(file, values);

    return rc != 0 ? rc : put_int(argument, values[0]);
}

/* Tells that there is a host adapter, and its name as far as there is room. */
static int probe_host(const struct door_file *file, void *argument)
{
    static const char name[] = "vscsi";
    uint32_t room;

    (void)file;
    memcpy(&room, argument, sizeof(room));
    if (room > 0) {
        memcpy(argument, name, room < sizeof(name) ? room : sizeof(name));
    }
    return 1;
}

static int setting_of(const struct door_file *file, enum door_setting setting, void *argument)
{
    uint64_t value;
    int rc = door_setting(file, setting, UINT64_MAX, &value);

    return rc != 0 ? rc : put_int(argument, value);
}

static int set(const struct door_file *file, enum door_setting setting, const void *argument)
{
    int value;

    if (argument == NULL) {
        return -EFAULT;
    }
    memcpy(&value, argument, sizeof(value));
    return value < 0 ? -EINVAL : door_setting(file, setting, (uint64_t)value, NULL);
}

static int get_timeout(const struct door_file *file, void *argument)
{
    uint64_t value;
    int rc = door_setting(file, DOOR_SETTING_TIMEOUT_TICKS, UINT64_MAX, &value);

    (void)argument;
    return rc != 0 ? rc : (int)value;
}

static int set_timeout(const struct door_file *file, void *argument)
{
    return set(file, DOOR_SETTING_TIMEOUT_TICKS, argument);
}

static int get_reserved(const struct door_file *file, void *argument)
{
    return setting_of(file, DOOR_SETTING_RESERVED_NBYTES, argument);
}

static int set_reserved(const struct door_file *file, void *argument)
{
    return set(file, DOOR_SETTING_RESERVED_NBYTES, argument);
}

static int set_force_pack_id(const struct door_file *file, void *argument)
{
    return set(file, DOOR_SETTING_FORCE_PACK_ID, argument);
}

static int get_command_queue(const struct door_file *file, void *argument)
{
    return setting_of(file, DOOR_SETTING_COMMAND_QUEUE, argument);
}

static int set_command_queue(const struct door_file *file, void *argument)
{
    return set(file, DOOR_SETTING_COMMAND_QUEUE, argument);
}

static int get_keep_orphan(const struct door_file *file, void *argument)
{
    return setting_of(file, DOOR_SETTING_KEEP_ORPHAN, argument);
}

static int set_keep_orphan(const struct door_file *file, void *argument)
{
    return set(file, DOOR_SETTING_KEEP_ORPHAN, argument);
}

static int waiting(const struct door_file *file, void *argument)
{
    return put_int(argument, (uint64_t)door_sg_waiting(file));
}

static int table_size(const struct door_file *file, void *argument)
{
    (void)file;
    return put_int(argument, TABLE_SIZE);
}

static int zero(const struct door_file *file, void *argument)
{
    (void)file;
    return put_int(argument, 0);
}

static int one(const struct door_file *file, void *argument)
{
    (void)file;
    return put_int(argument, OPEN_FILES);
}

static int nothing(const struct door_file *file, void *argument)
{
    (void)file, (void)argument;
    return 0;
}

static int no_pci(const struct door_file *file, void *argument)
{
    (void)file, (void)argument;
    return -ENXIO;
}

static int reset(const struct door_file *file, void *argument)
{
    struct door_request request = {.op = DOOR_RESET, .file = file->number};
    struct door_answer answer;
    int what;

    memcpy(&what, argument, sizeof(what));
    what &= ~RESET_NO_ESCALATE;
    return what == RESET_NOTHING ? 0 : what == RESET_DEVICE ? door_ask(&request, &answer) : -EOPNOTSUPP;
}

static int send_short(const struct door_file *file, const unsigned char cdb[6])
{
    struct sg_io_hdr header = {.interface_id = 'S', .dxfer_direction = SG_DXFER_NONE, .cmd_len = 6};
    unsigned char copy[6];
    int rc;

    memcpy(copy, cdb, sizeof(copy));
    header.cmdp = copy;
    rc = door_sg_io(file, &header);
    return rc != 0 ? rc : header.host_status ? -EIO : header.status;
}

static int test_unit_ready(const struct door_file *file, void *argument)
{
    (void)argument;
    return send_short(file, (const unsigned char[6]){0x00});
}

static int start_unit(const struct door_file *file, void *argument)
{
    (void)argument;
    return send_short(file, (const unsigned char[6]){0x1b, 0, 0, 0, 1, 0});
}

static int stop_unit(const struct door_file *file, void *argument)
{
    (void)argument;
    return send_short(file, (const unsigned char[6]){0x1b, 0, 0, 0, 0, 0});
}

static int lock_door(const struct door_file *file, void *argument)
{
    (void)argument;
    return send_short(file, (const unsigned char[6]){0x1e, 0, 0, 0, 1, 0});
}

static int unlock_door(const struct door_file *file, void *argument)
{
    (void)argument;
    return send_short(file, (const unsigned char[6]){0x1e, 0, 0, 0, 0, 0});
}

static const struct door_ioctl generic_ioctls[] = {
    {SG_IO, door_sg_io, NEEDS_POINTER},
    {SG_GET_VERSION_NUM, version, NEEDS_POINTER},
    {SG_GET_SCSI_ID, scsi_id, NEEDS_POINTER},
    {SG_EMULATED_HOST, zero, NEEDS_POINTER},
    {SG_GET_TIMEOUT, get_timeout, 0},
    {SG_SET_TIMEOUT, set_timeout, NEEDS_POINTER},
    {SG_GET_RESERVED_SIZE, get_reserved, NEEDS_POINTER},
    {SG_SET_RESERVED_SIZE, set_reserved, NEEDS_POINTER},
    {SG_SET_FORCE_PACK_ID, set_force_pack_id, NEEDS_POINTER},
    {SG_GET_COMMAND_Q, get_command_queue, NEEDS_POINTER},
    {SG_SET_COMMAND_Q, set_command_queue, NEEDS_POINTER},
    {SG_GET_KEEP_ORPHAN, get_keep_orphan, NEEDS_POINTER},
    {SG_SET_KEEP_ORPHAN, set_keep_orphan, NEEDS_POINTER},
    {SG_GET_NUM_WAITING, waiting, NEEDS_POINTER},
    {SG_GET_SG_TABLESIZE, table_size, NEEDS_POINTER},
    {SG_GET_LOW_DMA, zero, NEEDS_POINTER},
    {GET_ACCESS_COUNT, one, NEEDS_POINTER},
    {SG_SET_DEBUG, nothing, NEEDS_POINTER},
    {SG_SCSI_RESET, reset, NEEDS_POINTER},
    {GET_IDLUN, idlun, NEEDS_POINTER},
    {GET_BUS_NUMBER, bus_number, NEEDS_POINTER},
    {PROBE_HOST, probe_host, NEEDS_POINTER},
    {GET_PCI, no_pci, NEEDS_POINTER},
    {SCSI_IOCTL_TEST_UNIT_READY, test_unit_ready, 0},
    {SCSI_IOCTL_START_UNIT, start_unit, 0},
    {SCSI_IOCTL_STOP_UNIT, stop_unit, 0},
    {DOORLOCK, lock_door, 0},
    {DOORUNLOCK, unlock_door, 0},
    {0, NULL, 0},
};

static const struct door_ioctl *find(unsigned long request)
{
    static const struct door_ioctl *const tables[] = {generic_ioctls, door_block_ioctls};

    for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
        for (const struct door_ioctl *row = tables[i]; row->run != NULL; row++) {
            if (row->request == request) {
                return row;
            }
        }
    }
    return NULL;
}

NEXT(int, ioctl, int, unsigned long, ...);
DOOR_EXPORT int ioctl(int fd, unsigned long request, ...)
{
    struct door_file file;
    const struct door_ioctl *row;
    void *argument;
    va_list more;

    va_start(more, request);
    argument = va_arg(more, void *);
    va_end(more);
    if (!door_file(fd, &file)) {
        return CALL(ioctl)(fd, request, argument);
    }
    row = find(request & 0xffffffffUL);
    if (row == NULL || ((row->flags & BLOCK_ONLY) && file.kind != DOOR_BLOCK)) {
        errno = ENOTTY;
        return -1;
    }
    if ((row->flags & NEEDS_POINTER) && argument == NULL) {
        errno = EFAULT;
        return -1;
    }
    return (int)door_result(row->run(&file, argument));
}
