/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: commands of the control frames.
 *
 * Identity, run state, and the control plane as records.
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "vifa.h"

#define VIFA_RECORD_VERSION         1
#define VIFA_RECORD_ALIGN           8

/* Number of bytes of a record of @type, including header and padding. */
#define VIFA_RECORD_BYTES(type) \
    ROUND_UP(sizeof(struct vifa_hw_record) + sizeof(type), VIFA_RECORD_ALIGN)

#define VIFA_CONTROL_PLANE_MAX \
    (VIFA_RECORD_BYTES(struct vifa_reference_configuration) + \
     VIFA_RECORD_BYTES(struct vifa_reference_queue) + \
     VIFA_RECORD_BYTES(struct vifa_reference_interrupt) + \
     VIFA_RECORD_BYTES(struct vifa_reference_unfinished))

typedef union VifaRecordBody {
    struct vifa_reference_configuration configuration;
    struct vifa_reference_queue queue;
    struct vifa_reference_interrupt interrupt;
    struct vifa_reference_unfinished unfinished;
} VifaRecordBody;

/* More than any valid control plane. Longer data is not even read. */
#define VIFA_LOAD_MAX               (4 * KiB)

QEMU_BUILD_BUG_ON(sizeof(struct vifa_hw_identity) != 120);
QEMU_BUILD_BUG_ON(sizeof(struct vifa_hw_record) != 16);
QEMU_BUILD_BUG_ON(sizeof(struct vifa_reference_configuration) != 80);
QEMU_BUILD_BUG_ON(sizeof(struct vifa_reference_queue) != 40);
QEMU_BUILD_BUG_ON(sizeof(struct vifa_reference_interrupt) != 8);
QEMU_BUILD_BUG_ON(sizeof(struct vifa_reference_unfinished) != 80);
QEMU_BUILD_BUG_ON(VIFA_CONTROL_PLANE_MAX > VIFA_LOAD_MAX);

/* Write @length bytes as the command's output, or report their number. */
static uint16_t vifa_control_answer(VifaCommand *command, const void *data,
                                    size_t length)
{
    command->result[0] = length;
    if (command->buffer.size < length) {
        return VIFA_STATUS_BUFFER_TOO_SMALL;
    }

    return vifa_buffer_write(&command->buffer, 0, data, length);
}

static uint16_t vifa_control_identify(VifaVF *vf, VifaCommand *command)
{
    const VifaPF *pf = vf->pf;
    struct vifa_hw_identity identity = {
        .vendor = cpu_to_le16(pf->vendor_id),
        .device = cpu_to_le16(pf->vf_device_id),
        .subsystem_vendor = cpu_to_le16(pf->vf_subsystem_vendor_id),
        .subsystem = cpu_to_le16(pf->vf_subsystem_id),
        .revision_id = pf->vf_revision_id,
        .vifa_revision = cpu_to_le16(VIFA_HW_REVISION),
        .features = cpu_to_le32(vifa_pf_features(pf)),
        .interrupt_vectors = cpu_to_le16(VIFA_REFERENCE_VECTORS),
        .queues = cpu_to_le16(1),
        .granule = cpu_to_le32(vf->local.size ? vf->local.granule : 0),
        .local_memory = cpu_to_le64(vf->local.size),
        .control_plane_max = cpu_to_le32(VIFA_CONTROL_PLANE_MAX),
    };

    for (int i = 0; i < VIFA_HW_BARS; i++) {
        identity.bar_size[i] = cpu_to_le64(pf->vf_bar_size[i]);
    }
    for (int i = VIFA_RECORD_CONFIGURATION; i <= VIFA_RECORD_PRIVATE; i++) {
        identity.record_version[i] = cpu_to_le16(VIFA_RECORD_VERSION);
    }

    return vifa_control_answer(command, &identity, sizeof(identity));
}

static uint16_t vifa_control_set_run_state(VifaVF *vf, VifaCommand *command)
{
    switch (command->argument[0]) {
    case VIFA_RUN_STATE_P2P:
        if (!vf->pf->p2p) {
            return VIFA_STATUS_INVALID_ARGUMENT;
        }
        break;
    case VIFA_RUN_STATE_RUNNING:
    case VIFA_RUN_STATE_STOPPED:
        break;
    default:
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    vifa_vf_set_run_state(vf, command->argument[0]);

    return VIFA_STATUS_SUCCESS;
}

static void vifa_control_put(GByteArray *records, uint16_t type,
                             const void *body, uint32_t length)
{
    static const uint8_t padding[VIFA_RECORD_ALIGN];
    struct vifa_hw_record header = {
        .type = cpu_to_le16(type),
        .version = cpu_to_le16(VIFA_RECORD_VERSION),
        .length = cpu_to_le32(length),
    };

    g_byte_array_append(records, (const uint8_t *)&header, sizeof(header));
    g_byte_array_append(records, body, length);
    g_byte_array_append(records, padding,
                        ROUND_UP(records->len, VIFA_RECORD_ALIGN) -
                        records->len);
}

static uint16_t vifa_control_save(VifaVF *vf, VifaCommand *command)
{
    const VifaEngineState *state = &vf->engine.state;
    struct vifa_reference_configuration configuration = {
        .control = cpu_to_le32(state->control),
        .status = cpu_to_le32(state->status),
        .speed = cpu_to_le32(state->speed),
    };
    struct vifa_reference_queue queue = {
        .submission = cpu_to_le64(state->submission),
        .completion = cpu_to_le64(state->completion),
        .entries = cpu_to_le32(state->entries),
        .submission_tail = cpu_to_le32(state->submission_tail),
        .submission_head = cpu_to_le32(state->submission_head),
        .completion_tail = cpu_to_le32(state->completion_tail),
        .completion_head = cpu_to_le32(state->completion_head),
    };
    struct vifa_reference_interrupt interrupt = {
        .pending = cpu_to_le32(state->interrupt),
    };
    struct vifa_reference_unfinished unfinished = {
        .command = {
            .opcode = cpu_to_le16(state->work.opcode),
            .id = cpu_to_le32(state->work.id),
            .source = cpu_to_le64(state->work.source),
            .destination = cpu_to_le64(state->work.destination),
            .length = cpu_to_le64(state->work.length),
            .pattern = cpu_to_le64(state->work.pattern),
        },
        .done = cpu_to_le64(state->work.done),
        .checksum = cpu_to_le32(state->work.checksum),
    };
    g_autoptr(GByteArray) records = g_byte_array_new();

    if (vf->run_state != VIFA_RUN_STATE_STOPPED) {
        return VIFA_STATUS_INVALID_STATE;
    }

    for (int i = 0; i < VIFA_REFERENCE_SCRATCHES; i++) {
        configuration.scratch[i] = cpu_to_le32(state->scratch[i]);
    }

    vifa_control_put(records, VIFA_RECORD_CONFIGURATION, &configuration,
                     sizeof(configuration));
    vifa_control_put(records, VIFA_RECORD_QUEUE, &queue, sizeof(queue));
    vifa_control_put(records, VIFA_RECORD_INTERRUPT, &interrupt,
                     sizeof(interrupt));
    if (state->unfinished) {
        vifa_control_put(records, VIFA_RECORD_PRIVATE, &unfinished,
                         sizeof(unfinished));
    }

    return vifa_control_answer(command, records->data, records->len);
}

static bool vifa_control_get_configuration(
    VifaEngineState *state, const struct vifa_reference_configuration *record)
{
    state->control = le32_to_cpu(record->control);
    state->status = le32_to_cpu(record->status);
    state->speed = le32_to_cpu(record->speed);
    for (int i = 0; i < VIFA_REFERENCE_SCRATCHES; i++) {
        state->scratch[i] = le32_to_cpu(record->scratch[i]);
    }

    return !record->reserved;
}

static bool vifa_control_get_queue(VifaEngineState *state,
                                   const struct vifa_reference_queue *record)
{
    state->submission = le64_to_cpu(record->submission);
    state->completion = le64_to_cpu(record->completion);
    state->entries = le32_to_cpu(record->entries);
    state->submission_tail = le32_to_cpu(record->submission_tail);
    state->submission_head = le32_to_cpu(record->submission_head);
    state->completion_tail = le32_to_cpu(record->completion_tail);
    state->completion_head = le32_to_cpu(record->completion_head);

    return !record->reserved;
}

static bool vifa_control_get_interrupt(
    VifaEngineState *state, const struct vifa_reference_interrupt *record)
{
    state->interrupt = record->pending;

    return le32_to_cpu(record->pending) <= 1 && !record->reserved;
}

static bool vifa_control_get_unfinished(
    VifaEngineState *state, const struct vifa_reference_unfinished *record)
{
    const struct vifa_reference_submission *command = &record->command;

    state->unfinished = true;
    state->work = (VifaWork) {
        .opcode = le16_to_cpu(command->opcode),
        .id = le32_to_cpu(command->id),
        .source = le64_to_cpu(command->source),
        .destination = le64_to_cpu(command->destination),
        .length = le64_to_cpu(command->length),
        .pattern = le64_to_cpu(command->pattern),
        .done = le64_to_cpu(record->done),
        .checksum = le32_to_cpu(record->checksum),
    };

    return !command->reserved0 && !record->reserved &&
           buffer_is_zero(command->reserved1, sizeof(command->reserved1));
}

/* The length of a record of this type; 0 for an unknown type. */
static uint32_t vifa_control_record_length(uint16_t type)
{
    switch (type) {
    case VIFA_RECORD_CONFIGURATION:
        return sizeof(struct vifa_reference_configuration);
    case VIFA_RECORD_QUEUE:
        return sizeof(struct vifa_reference_queue);
    case VIFA_RECORD_INTERRUPT:
        return sizeof(struct vifa_reference_interrupt);
    case VIFA_RECORD_PRIVATE:
        return sizeof(struct vifa_reference_unfinished);
    default:
        return 0;
    }
}

static bool vifa_control_get(VifaEngineState *state, uint16_t type,
                             const VifaRecordBody *body)
{
    switch (type) {
    case VIFA_RECORD_CONFIGURATION:
        return vifa_control_get_configuration(state, &body->configuration);
    case VIFA_RECORD_QUEUE:
        return vifa_control_get_queue(state, &body->queue);
    case VIFA_RECORD_INTERRUPT:
        return vifa_control_get_interrupt(state, &body->interrupt);
    case VIFA_RECORD_PRIVATE:
        return vifa_control_get_unfinished(state, &body->unfinished);
    default:
        return false;
    }
}

/*
 * Parse @length bytes of records. If they are not one control plane, return
 * false and the type of the record that is missing or invalid (0 if unknown).
 */
static bool vifa_control_parse(const uint8_t *records, uint64_t length,
                               VifaEngineState *state, uint16_t *refused)
{
    unsigned int seen = 0;

    while (length) {
        struct vifa_hw_record header;
        VifaRecordBody body;
        uint32_t body_length;
        uint64_t padded;

        *refused = 0;
        if (length < sizeof(header)) {
            return false;
        }
        memcpy(&header, records, sizeof(header));
        records += sizeof(header);
        length -= sizeof(header);

        *refused = le16_to_cpu(header.type);
        body_length = vifa_control_record_length(*refused);
        padded = ROUND_UP(body_length, VIFA_RECORD_ALIGN);
        if (!body_length || seen & BIT(*refused) ||
            le16_to_cpu(header.version) != VIFA_RECORD_VERSION ||
            header.index || header.reserved ||
            le32_to_cpu(header.length) != body_length || length < padded ||
            !buffer_is_zero(records + body_length, padded - body_length)) {
            return false;
        }
        seen |= BIT(*refused);

        memcpy(&body, records, body_length);
        if (!vifa_control_get(state, *refused, &body)) {
            return false;
        }
        records += padded;
        length -= padded;
    }

    for (*refused = VIFA_RECORD_CONFIGURATION;
         *refused <= VIFA_RECORD_INTERRUPT; (*refused)++) {
        if (!(seen & BIT(*refused))) {
            return false;
        }
    }

    return true;
}

static uint16_t vifa_control_load(VifaVF *vf, VifaCommand *command)
{
    uint64_t length = command->argument[0];
    uint8_t records[VIFA_LOAD_MAX];
    VifaEngineState state = { };
    uint32_t generation = vf->generation;
    uint16_t status, refused;

    if (vf->run_state != VIFA_RUN_STATE_STOPPED) {
        return VIFA_STATUS_INVALID_STATE;
    }
    if (length > sizeof(records) || length > command->buffer.size) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    status = vifa_buffer_read(&command->buffer, 0, records, length);
    if (status) {
        return status;
    }
    if (generation != vf->generation) {
        return VIFA_STATUS_ABORTED;
    }

    if (vifa_control_parse(records, length, &state, &refused)) {
        refused = vifa_engine_check(vf, &state);
        if (!refused) {
            vifa_engine_load(vf, &state);
            return VIFA_STATUS_SUCCESS;
        }
    }
    command->result[0] = refused;

    return VIFA_STATUS_INVALID_RECORD;
}

const VifaCommandType vifa_control_commands[] = {
    { VIFA_CONTROL_IDENTIFY, true, vifa_control_identify },
    { VIFA_CONTROL_SET_RUN_STATE, false, vifa_control_set_run_state },
    { VIFA_CONTROL_SAVE, true, vifa_control_save },
    { VIFA_CONTROL_LOAD, true, vifa_control_load },
    { }
};
