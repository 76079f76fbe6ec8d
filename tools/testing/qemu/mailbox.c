/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: mailboxes.
 *
 * A write to the command register latches the command and schedules the bottom
 * half that executes it, slice by slice, so that the register file stays
 * responsive, commands of different frames interleave, and a command in
 * progress can be aborted.
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/timer.h"
#include "hw/pci/msix.h"
#include "trace.h"
#include "vifa.h"

static bool vifa_mailbox_busy(const VifaMailbox *mailbox)
{
    return (mailbox->status & VIFA_MAILBOX_STATUS_CODE) == VIFA_STATUS_BUSY;
}

static uint32_t vifa_mailbox_status(uint16_t code, uint16_t tag)
{
    return code | (uint32_t)tag << 16;
}

static void vifa_mailbox_signal(const VifaMailbox *mailbox)
{
    uint32_t index = mailbox->vector & VIFA_MAILBOX_VECTOR_INDEX;

    if (mailbox->vector & VIFA_MAILBOX_VECTOR_ENABLE &&
        index < mailbox->pf->vectors) {
        msix_notify(PCI_DEVICE(mailbox->pf), index);
    }
}

static void vifa_mailbox_complete(VifaMailbox *mailbox, uint16_t code)
{
    VifaCommand *command = &mailbox->command;
    uint16_t tag = command->tag;

    if (command->faults[0].kind == VIFA_FAULT_TAG) {
        tag ^= command->faults[0].value;
    }

    trace_vifa_mailbox_complete(mailbox->vf, mailbox->kind, command->opcode,
                                tag, code, command->result[0],
                                command->result[1]);

    mailbox->generation++;
    mailbox->aborting = false;
    mailbox->result[0] = command->result[0];
    mailbox->result[1] = command->result[1];
    mailbox->status = vifa_mailbox_status(code, tag);
    qemu_bh_cancel(mailbox->bh);
    timer_del(mailbox->timer);

    if (command->faults[0].kind != VIFA_FAULT_NO_INTERRUPT) {
        vifa_mailbox_signal(mailbox);
    }
}

static const VifaCommandType *vifa_mailbox_lookup(const VifaMailbox *mailbox,
                                                  uint16_t opcode)
{
    uint32_t features = vifa_pf_features(mailbox->pf);
    const VifaCommandType *tables[2] = { };

    if (mailbox->kind == VIFA_MAILBOX_ID_CONTROL) {
        tables[0] = vifa_control_commands;
    } else {
        if (features & VIFA_HW_FEATURE_DIRTY_LOG) {
            tables[0] = vifa_log_commands;
        }
        if (features & VIFA_HW_FEATURE_LOCAL_MEMORY) {
            tables[1] = vifa_local_commands;
        }
    }

    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        for (const VifaCommandType *type = tables[i]; type && type->run;
             type++) {
            if (type->opcode == opcode) {
                return type;
            }
        }
    }

    return NULL;
}

/* The first slice of a command: everything that all kinds have in common. */
static uint16_t vifa_mailbox_begin(VifaMailbox *mailbox, VifaVF *vf)
{
    VifaCommand *command = &mailbox->command;
    const VifaFault *fault = command->faults;
    const VifaCommandType *type = vifa_mailbox_lookup(mailbox, command->opcode);
    uint16_t status;

    if (!type) {
        return VIFA_STATUS_UNKNOWN_COMMAND;
    }
    if (fault->kind == VIFA_FAULT_STATUS) {
        return fault->value;
    }
    if (fault->kind == VIFA_FAULT_LOG_LOST) {
        vf->log.lost = true;
    }
    if (type->has_buffer) {
        status = vifa_buffer_init(&command->buffer, PCI_DEVICE(mailbox->pf),
                                  command->scatter, command->scatter_count,
                                  mailbox->pf->scatter_max);
        if (status) {
            return status;
        }
        if (fault->kind == VIFA_FAULT_SHORT_DATA) {
            command->buffer.writable -= MIN(fault->value, command->buffer.size);
        }
    }
    command->type = type;

    return VIFA_STATUS_SUCCESS;
}

static void vifa_mailbox_patch(VifaCommand *command, const VifaFault *fault)
{
    uint64_t patch = cpu_to_le64(fault->value);

    if (command->type->has_buffer &&
        fault->offset + (uint64_t)fault->width <= command->buffer.size) {
        vifa_buffer_write(&command->buffer, fault->offset, &patch,
                          fault->width);
    }
}

/* Change the results of a command that has succeeded as its faults require. */
static void vifa_mailbox_falsify(VifaCommand *command)
{
    const VifaFault *fault = command->faults;

    switch (fault->kind) {
    case VIFA_FAULT_SHORT_RESULT:
        command->result[0] -= MIN(fault->value, command->result[0]);
        break;
    case VIFA_FAULT_RESULT:
        command->result[0] = fault->value;
        break;
    case VIFA_FAULT_PATCH:
        for (size_t i = 0; i < ARRAY_SIZE(command->faults) &&
                           fault[i].kind == VIFA_FAULT_PATCH; i++) {
            vifa_mailbox_patch(command, &fault[i]);
        }
        break;
    }
}

static void vifa_mailbox_run(void *opaque)
{
    VifaMailbox *mailbox = opaque;
    VifaCommand *command = &mailbox->command;
    uint32_t generation = mailbox->generation;
    VifaVF *vf = vifa_pf_vf(mailbox->pf, mailbox->vf);
    uint16_t status = VIFA_STATUS_SUCCESS;

    if (!vifa_mailbox_busy(mailbox)) {
        return;
    }
    if (mailbox->aborting) {
        if (command->faults[0].kind != VIFA_FAULT_HANG_ABORT) {
            vifa_mailbox_complete(mailbox, VIFA_STATUS_ABORTED);
        }
        return;
    }
    if (!vf) {
        vifa_mailbox_complete(mailbox, VIFA_STATUS_INVALID_STATE);
        return;
    }
    if (command->faults[0].kind == VIFA_FAULT_HANG ||
        command->faults[0].kind == VIFA_FAULT_HANG_ABORT) {
        return;
    }
    if (command->faults[0].kind == VIFA_FAULT_FLOOD) {
        vifa_mailbox_signal(mailbox);
        return;
    }

    if (!command->type) {
        status = vifa_mailbox_begin(mailbox, vf);
    }
    if (command->type && generation == mailbox->generation) {
        status = command->type->run(vf, command);
    }
    if (status == VIFA_STATUS_SUCCESS && generation == mailbox->generation) {
        vifa_mailbox_falsify(command);
    }
    if (generation != mailbox->generation) {
        return;
    }

    if (status == VIFA_STATUS_BUSY) {
        timer_mod(mailbox->timer,
                  qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + VIFA_PAUSE_NS);
    } else {
        vifa_mailbox_complete(mailbox, status);
    }
}

static void vifa_mailbox_tick(void *opaque)
{
    VifaMailbox *mailbox = opaque;

    qemu_bh_schedule(mailbox->bh);
}

static void vifa_mailbox_start(VifaMailbox *mailbox, uint32_t value)
{
    VifaCommand *command = &mailbox->command;
    uint16_t tag;

    if (vifa_mailbox_busy(mailbox)) {
        qemu_log_mask(LOG_GUEST_ERROR,
                      "%s: VF %u: command 0x%x while another is in progress\n",
                      TYPE_VIFA_PF, mailbox->vf, value);
        return;
    }

    command->type = NULL;
    command->opcode = value & VIFA_MAILBOX_COMMAND_OPCODE;
    command->tag = (value & VIFA_MAILBOX_COMMAND_TAG) >> 16;
    command->scatter = mailbox->scatter;
    command->scatter_count = mailbox->scatter_count;
    command->argument[0] = mailbox->argument[0];
    command->argument[1] = mailbox->argument[1];
    command->result[0] = 0;
    command->result[1] = 0;
    command->done = 0;
    vifa_fault_for_command(mailbox->pf, mailbox->vf, mailbox->kind,
                           command->opcode, command->faults);
    tag = command->tag;
    if (command->faults[0].kind == VIFA_FAULT_HANG) {
        tag ^= command->faults[0].value;
    }
    mailbox->status = vifa_mailbox_status(VIFA_STATUS_BUSY, tag);

    trace_vifa_mailbox_command(mailbox->vf, mailbox->kind, command->opcode,
                               command->tag, command->argument[0],
                               command->argument[1]);

    if (command->faults[0].kind == VIFA_FAULT_DELAY) {
        timer_mod(mailbox->timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
                  command->faults[0].value * SCALE_MS);
    } else {
        qemu_bh_schedule(mailbox->bh);
    }
}

/* The registers after the mailbox of a control frame. */
static uint32_t vifa_mailbox_read_control(const VifaMailbox *mailbox,
                                          hwaddr address)
{
    const VifaVF *vf = vifa_pf_vf(mailbox->pf, mailbox->vf);

    if (mailbox->kind != VIFA_MAILBOX_ID_CONTROL || !vf) {
        return 0;
    }

    switch (address) {
    case VIFA_CONTROL_RUN_STATE:
        return vf->run_state;
    case VIFA_CONTROL_CONFIGURATIONS:
        return vf->engine.configurations;
    default:
        return 0;
    }
}

uint32_t vifa_mailbox_read(const VifaMailbox *mailbox, hwaddr address)
{
    switch (address) {
    case VIFA_MAILBOX_ID:
        return mailbox->kind | mailbox->vf;
    case VIFA_MAILBOX_VECTOR:
        return mailbox->vector;
    case VIFA_MAILBOX_SCATTER_LOW:
        return mailbox->scatter;
    case VIFA_MAILBOX_SCATTER_HIGH:
        return mailbox->scatter >> 32;
    case VIFA_MAILBOX_SCATTER_COUNT:
        return mailbox->scatter_count;
    case VIFA_MAILBOX_ARGUMENT0_LOW:
        return mailbox->argument[0];
    case VIFA_MAILBOX_ARGUMENT0_HIGH:
        return mailbox->argument[0] >> 32;
    case VIFA_MAILBOX_ARGUMENT1_LOW:
        return mailbox->argument[1];
    case VIFA_MAILBOX_ARGUMENT1_HIGH:
        return mailbox->argument[1] >> 32;
    case VIFA_MAILBOX_STATUS:
        if (vifa_mailbox_busy(mailbox) &&
            mailbox->command.faults[0].kind == VIFA_FAULT_FLOOD) {
            vifa_mailbox_signal(mailbox);
        }
        return mailbox->status;
    case VIFA_MAILBOX_RESULT0_LOW:
        return mailbox->result[0];
    case VIFA_MAILBOX_RESULT0_HIGH:
        return mailbox->result[0] >> 32;
    case VIFA_MAILBOX_RESULT1_LOW:
        return mailbox->result[1];
    case VIFA_MAILBOX_RESULT1_HIGH:
        return mailbox->result[1] >> 32;
    case VIFA_MAILBOX_ABORT:
        return mailbox->aborting;
    default:
        return vifa_mailbox_read_control(mailbox, address);
    }
}

void vifa_mailbox_write(VifaMailbox *mailbox, hwaddr address, uint32_t value)
{
    switch (address) {
    case VIFA_MAILBOX_VECTOR:
        mailbox->vector = value & (VIFA_MAILBOX_VECTOR_ENABLE |
                                   VIFA_MAILBOX_VECTOR_INDEX);
        break;
    case VIFA_MAILBOX_SCATTER_LOW:
        mailbox->scatter = deposit64(mailbox->scatter, 0, 32, value);
        break;
    case VIFA_MAILBOX_SCATTER_HIGH:
        mailbox->scatter = deposit64(mailbox->scatter, 32, 32, value);
        break;
    case VIFA_MAILBOX_SCATTER_COUNT:
        mailbox->scatter_count = value;
        break;
    case VIFA_MAILBOX_ARGUMENT0_LOW:
        mailbox->argument[0] = deposit64(mailbox->argument[0], 0, 32, value);
        break;
    case VIFA_MAILBOX_ARGUMENT0_HIGH:
        mailbox->argument[0] = deposit64(mailbox->argument[0], 32, 32, value);
        break;
    case VIFA_MAILBOX_ARGUMENT1_LOW:
        mailbox->argument[1] = deposit64(mailbox->argument[1], 0, 32, value);
        break;
    case VIFA_MAILBOX_ARGUMENT1_HIGH:
        mailbox->argument[1] = deposit64(mailbox->argument[1], 32, 32, value);
        break;
    case VIFA_MAILBOX_COMMAND:
        vifa_mailbox_start(mailbox, value);
        break;
    case VIFA_MAILBOX_ABORT:
        if (value & 1 && vifa_mailbox_busy(mailbox)) {
            mailbox->aborting = true;
            qemu_bh_schedule(mailbox->bh);
        }
        break;
    }
}

/*
 * End the command in progress, ignoring its faults: the VF is gone or reset.
 */
void vifa_mailbox_cancel(VifaMailbox *mailbox)
{
    if (vifa_mailbox_busy(mailbox)) {
        memset(mailbox->command.faults, 0, sizeof(mailbox->command.faults));
        mailbox->command.result[0] = 0;
        mailbox->command.result[1] = 0;
        vifa_mailbox_complete(mailbox, VIFA_STATUS_ABORTED);
    }
}

/* Reset the registers too, without an interrupt: the PF is reset. */
void vifa_mailbox_reset(VifaMailbox *mailbox)
{
    qemu_bh_cancel(mailbox->bh);
    timer_del(mailbox->timer);
    mailbox->generation++;
    mailbox->vector = 0;
    mailbox->scatter = 0;
    mailbox->scatter_count = 0;
    memset(mailbox->argument, 0, sizeof(mailbox->argument));
    memset(mailbox->result, 0, sizeof(mailbox->result));
    mailbox->status = 0;
    mailbox->aborting = false;
}

void vifa_mailbox_init(VifaMailbox *mailbox, VifaPF *pf, uint16_t vf,
                       uint32_t kind)
{
    mailbox->pf = pf;
    mailbox->vf = vf;
    mailbox->kind = kind;
    mailbox->bh = qemu_bh_new_guarded(vifa_mailbox_run, mailbox,
                                      &DEVICE(pf)->mem_reentrancy_guard);
    mailbox->timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, vifa_mailbox_tick,
                                  mailbox);
}

void vifa_mailbox_cleanup(VifaMailbox *mailbox)
{
    timer_free(mailbox->timer);
    qemu_bh_delete(mailbox->bh);
}
