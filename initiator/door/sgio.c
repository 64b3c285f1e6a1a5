/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SG_IO, versions 3 and 4: the caller's header and buffers to one message of the parent, and what came back as it came.
 * Knows both headers (scsi/sg.h, linux/bsg.h) and what the kernel's sg driver makes of a result; knows no command.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <limits.h>
#include <linux/bsg.h>
#include <scsi/sg.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "door.h"
#include "sgio.h"

enum { DID_TIME_OUT = 3, DRIVER_TIMEOUT = 6, DRIVER_SENSE = 8, DEFAULT_TIMEOUT_MS = 60000 };
enum { INFO_CHECK = 1 };
/* Names of sg.h that glibc's older copy of it lacks. */
enum { DXFER_UNKNOWN = -5, FLAG_MMAP_IO = 4, FLAG_NO_DXFER = 0x10000 };

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- the caller's buffers: one run of bytes, or a list of them, `nbytes` in all ---- */

static int area_set(struct sg_area *area, void *at, uint32_t count, uint64_t nbytes)
{
    *area = (struct sg_area){.at = at, .count = count, .nbytes = (size_t)nbytes};
    if (nbytes > DOOR_WINDOW_MAX) {
        return -ENOMEM;
    }
    if (count > 0) {
        const struct iovec *parts = at;
        size_t total = 0;

        if (count > IOV_MAX || at == NULL) {
            return -EINVAL;
        }
        for (uint32_t i = 0; i < count; i++) {
            if (parts[i].iov_len > DOOR_WINDOW_MAX || total + parts[i].iov_len > SIZE_MAX / 2) {
                return -EINVAL;
            }
            total += parts[i].iov_len;
        }
        area->nbytes = total < nbytes ? total : (size_t)nbytes;
    }
    return area->nbytes > 0 && at == NULL ? -EFAULT : 0;
}

static void area_copy(const struct sg_area *area, uint8_t *window, size_t nbytes, bool to_caller)
{
    struct iovec whole = {area->at, area->nbytes};
    const struct iovec *parts = area->count > 0 ? area->at : &whole;
    size_t left = nbytes < area->nbytes ? nbytes : area->nbytes;

    for (uint32_t i = 0; left > 0; i++) {
        size_t n = parts[i].iov_len < left ? parts[i].iov_len : left;

        if (n > 0) {
            memcpy(to_caller ? parts[i].iov_base : window, to_caller ? window : parts[i].iov_base, n);
        }
        window += n;
        left -= n;
    }
}

/* ---- one command ---- */

static int command_send(struct sg_command *command, const struct door_file *file, const void *cdb, size_t cdb_nbytes,
                        uint32_t timeout_ms)
{
    struct door_request request = {
        .op = DOOR_COMMAND,
        .file = file->number,
        .out_nbytes = (uint32_t)command->out.nbytes,
        .in_nbytes = (uint32_t)command->in.nbytes,
        .timeout_ms = timeout_ms ? timeout_ms : DEFAULT_TIMEOUT_MS,
        .text_nbytes = (uint32_t)cdb_nbytes,
    };
    int rc;

    command->link = door_link_take();
    if (command->link == NULL) {
        return -errno;
    }
    rc = door_link_room(command->link, command->out.nbytes, command->in.nbytes);
    if (rc != 0) {
        /* A request that was refused leaves the link as it was. */
        (rc == -ENODEV ? door_link_drop : door_link_give)(command->link);
        return rc;
    }
    memcpy(request.text, cdb, cdb_nbytes);
    if (!command->no_copy) {
        area_copy(&command->out, command->link->window, command->out.nbytes, false);
    }
    command->began_ms = now_ms();
    rc = door_link_send(command->link, &request);
    if (rc != 0) {
        door_link_drop(command->link);
    }
    return rc;
}

int sg_command_end(struct sg_command *command)
{
    struct door_answer *answer = &command->answer;
    int rc = door_link_receive(command->link, answer);

    if (rc != 0) {
        door_link_drop(command->link);
        return rc;
    }
    command->duration_ms = (uint32_t)(now_ms() - command->began_ms);
    if (answer->error == 0 && !command->no_copy) {
        size_t nbytes = command->in.nbytes;

        if (answer->in_residual > 0) {
            nbytes -= (uint64_t)answer->in_residual < nbytes ? (size_t)answer->in_residual : nbytes;
        }
        if (answer->host_status == 0) {
            area_copy(&command->in, door_link_in(command->link, command->out.nbytes), nbytes, true);
        }
    }
    door_link_give(command->link);
    return -answer->error;
}

static size_t sense_copy(const struct door_answer *answer, void *to, size_t room)
{
    size_t nbytes = answer->sense_nbytes < room ? answer->sense_nbytes : room;

    if (nbytes > DOOR_SENSE_MAX) {
        nbytes = DOOR_SENSE_MAX;
    }
    if (to == NULL) {
        return 0;
    }
    memcpy(to, answer->sense, nbytes);
    return nbytes;
}

static int clamp(int64_t value)
{
    return value > INT_MAX ? INT_MAX : value < INT_MIN ? INT_MIN : (int)value;
}

static uint32_t driver_status(const struct door_answer *answer, size_t sense_nbytes)
{
    return answer->host_status == DID_TIME_OUT ? DRIVER_TIMEOUT : sense_nbytes > 0 ? DRIVER_SENSE : 0;
}

/* ---- version 3 ---- */

int sg_v3_send(struct sg_command *command, const struct door_file *file, const struct sg_io_hdr *header)
{
    bool out = header->dxfer_direction == SG_DXFER_TO_DEV;
    bool in = header->dxfer_direction == SG_DXFER_FROM_DEV || header->dxfer_direction == SG_DXFER_TO_FROM_DEV ||
              header->dxfer_direction == DXFER_UNKNOWN;
    uint32_t timeout_ms = header->timeout;
    int rc;

    if (header->interface_id != 'S') {
        return -ENOSYS;
    }
    if (header->cmdp == NULL || header->cmd_len < 6 || header->cmd_len > 252) {
        return -EMSGSIZE;
    }
    if (header->flags & FLAG_MMAP_IO) {
        return -EINVAL;
    }
    /* Some send 0 for a command without data. */
    if (header->dxfer_len > 0 && !out && !in) {
        return -EINVAL;
    }
    memset(command, 0, sizeof(*command));
    command->no_copy = (header->flags & FLAG_NO_DXFER) != 0;
    rc = area_set(out ? &command->out : &command->in, header->dxferp, header->iovec_count,
                  out || in ? header->dxfer_len : 0);
    return rc != 0 ? rc : command_send(command, file, header->cmdp, header->cmd_len, timeout_ms);
}

void sg_v3_result(const struct sg_command *command, struct sg_io_hdr *header)
{
    const struct door_answer *answer = &command->answer;
    bool out = header->dxfer_direction == SG_DXFER_TO_DEV;

    header->status = (unsigned char)answer->status;
    header->masked_status = (unsigned char)(answer->status >> 1 & 0x1f);
    header->msg_status = 0;
    header->sb_len_wr = (unsigned char)sense_copy(answer, header->sbp, header->mx_sb_len);
    header->host_status = (unsigned short)answer->host_status;
    header->driver_status = (unsigned short)driver_status(answer, header->sb_len_wr);
    header->resid = clamp(out ? answer->out_residual : answer->in_residual);
    header->duration = command->duration_ms;
    header->info = header->masked_status || header->host_status || header->driver_status ? INFO_CHECK : 0;
}

static int v3(const struct door_file *file, struct sg_io_hdr *header)
{
    struct sg_command command;
    int rc = sg_v3_send(&command, file, header);

    if (rc == 0) {
        rc = sg_command_end(&command);
    }
    if (rc == 0) {
        sg_v3_result(&command, header);
    }
    return rc;
}

/* ---- version 4 ---- */

static int v4(const struct door_file *file, struct sg_io_v4 *header)
{
    struct sg_command command = {.link = NULL};
    const struct door_answer *answer = &command.answer;
    int rc;

    if (header->protocol != BSG_PROTOCOL_SCSI || header->subprotocol != BSG_SUB_PROTOCOL_SCSI_CMD) {
        return -EINVAL;
    }
    if (header->request == 0 || header->request_len < 6 || header->request_len > 252) {
        return -EMSGSIZE;
    }
    rc = area_set(&command.out, (void *)(uintptr_t)header->dout_xferp, header->dout_iovec_count, header->dout_xfer_len);
    if (rc == 0) {
        rc = area_set(&command.in, (void *)(uintptr_t)header->din_xferp, header->din_iovec_count, header->din_xfer_len);
    }
    if (rc == 0) {
        rc = command_send(&command, file, (const void *)(uintptr_t)header->request, header->request_len,
                          header->timeout);
    }
    if (rc == 0) {
        rc = sg_command_end(&command);
    }
    if (rc != 0) {
        return rc;
    }
    header->response_len =
        (uint32_t)sense_copy(answer, (void *)(uintptr_t)header->response, header->max_response_len);
    header->device_status = answer->status;
    header->transport_status = answer->host_status;
    header->driver_status = driver_status(answer, header->response_len);
    header->retry_delay = 0;
    header->info = answer->status || answer->host_status || header->driver_status ? INFO_CHECK : 0;
    header->duration = command.duration_ms;
    header->din_resid = clamp(answer->in_residual);
    header->dout_resid = clamp(answer->out_residual);
    return 0;
}

int door_sg_io(const struct door_file *file, void *argument)
{
    int32_t guard;

    if (argument == NULL) {
        return -EFAULT;
    }
    memcpy(&guard, argument, sizeof(guard));
    return guard == 'S' ? v3(file, argument) : guard == 'Q' ? v4(file, argument) : -ENOSYS;
}
