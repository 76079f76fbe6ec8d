/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: DMA engine of a virtual function.
 *
 * Takes commands from the submission ring one at a time, moves their data in
 * slices, and writes a completion for each. At any observable moment, a command
 * is in exactly one of three places: in the submission ring, in
 * VifaEngineState.work, or in the completion ring. Therefore it completes
 * exactly once, even if the VF is stopped, saved and loaded into another VF.
 *
 * The guest is not trusted: it owns the rings and all registers.
 */
#include "qemu/osdep.h"
#include "qemu/crc32c.h"
#include "qemu/host-utils.h"
#include "qemu/log.h"
#include "qemu/timer.h"
#include "hw/pci/msix.h"
#include "trace.h"
#include "vifa.h"

#define VIFA_ENGINE_REVISION        1
#define VIFA_ENGINE_RING_ALIGN      64
#define VIFA_ENGINE_RING_MIN        2
#define VIFA_ENGINE_WORD            sizeof(uint64_t)

/*
 * Maximum number of bytes that one slice moves. All VFs can have a slice in
 * the same turn of the main loop.
 */
#define VIFA_ENGINE_SLICE_BYTES     (256 * KiB)

/*
 * The minimum cost of a transfer, and the cost of taking a command, including
 * its completion, in bytes of a slice.
 */
#define VIFA_ENGINE_TRANSFER_COST   512

/* Time for which credit accumulates while there is nothing to move. */
#define VIFA_ENGINE_CREDIT_MS       4

QEMU_BUILD_BUG_ON(sizeof(struct vifa_reference_submission) != 64);
QEMU_BUILD_BUG_ON(sizeof(struct vifa_reference_completion) != 16);

static bool vifa_engine_enabled(const VifaEngineState *state)
{
    return state->status == VIFA_REFERENCE_STATUS_ENABLED;
}

static bool vifa_engine_interrupts(const VifaEngineState *state)
{
    return state->control & VIFA_REFERENCE_CONTROL_INTERRUPT;
}

static void vifa_engine_kick(VifaVF *vf)
{
    if (vf->run_state == VIFA_RUN_STATE_RUNNING) {
        qemu_bh_schedule(vf->engine.bh);
    }
}

static bool vifa_engine_read_memory(VifaVF *vf, uint64_t address, void *data,
                                    uint64_t length)
{
    return pci_dma_read(PCI_DEVICE(vf), address, data, length) == MEMTX_OK;
}

/* A failed write may have written a part of the data. */
static bool vifa_engine_write_memory(VifaVF *vf, uint64_t address,
                                     const void *data, uint64_t length)
{
    MemTxResult result = pci_dma_write(PCI_DEVICE(vf), address, data, length);

    vifa_log_mark(vf, address, length);

    return result == MEMTX_OK;
}

static bool vifa_engine_ring_valid(uint64_t base, uint32_t entries,
                                   size_t entry_size)
{
    return base % VIFA_ENGINE_RING_ALIGN == 0 &&
           base + ((uint64_t)entries * entry_size - 1) >= base;
}

static bool vifa_engine_rings_valid(const VifaEngineState *state)
{
    return is_power_of_2(state->entries) &&
           state->entries >= VIFA_ENGINE_RING_MIN &&
           state->entries <= VIFA_REFERENCE_RING_MAX &&
           vifa_engine_ring_valid(state->submission, state->entries,
                                  sizeof(struct vifa_reference_submission)) &&
           vifa_engine_ring_valid(state->completion, state->entries,
                                  sizeof(struct vifa_reference_completion));
}

static bool vifa_engine_indices_valid(const VifaEngineState *state)
{
    uint32_t submitted = state->submission_tail - state->submission_head;
    uint32_t uncompleted = state->submission_head - state->completion_tail;
    uint32_t unconsumed = state->completion_tail - state->completion_head;

    return submitted <= state->entries && uncompleted == state->unfinished &&
           unconsumed <= state->entries - uncompleted;
}

static bool vifa_engine_memory_valid(uint64_t address, uint64_t length)
{
    return address + length >= address;
}

/* The memory over which a SCATTER writes; its length is in the source. */
static bool vifa_engine_window_valid(const VifaWork *work)
{
    return work->source && work->source % VIFA_ENGINE_WORD == 0 &&
           vifa_engine_memory_valid(work->destination, work->source);
}

/* The status of a command that must not begin; 0 if it may begin. */
static uint16_t vifa_engine_check_work(VifaVF *vf, const VifaWork *work)
{
    const VifaLocal *local = &vf->local;
    bool valid;

    switch (work->opcode) {
    case VIFA_REFERENCE_NOP:
        return VIFA_REFERENCE_COMPLETION_SUCCESS;
    case VIFA_REFERENCE_FILL:
        valid = vifa_engine_memory_valid(work->destination, work->length);
        break;
    case VIFA_REFERENCE_COPY:
        valid = vifa_engine_memory_valid(work->source, work->length) &&
                vifa_engine_memory_valid(work->destination, work->length);
        break;
    case VIFA_REFERENCE_CHECKSUM:
        valid = vifa_engine_memory_valid(work->source, work->length);
        break;
    case VIFA_REFERENCE_LOCAL_WRITE:
        valid = vifa_engine_memory_valid(work->source, work->length) &&
                vifa_local_contains(local, work->destination, work->length);
        break;
    case VIFA_REFERENCE_LOCAL_READ:
        valid = vifa_local_contains(local, work->source, work->length) &&
                vifa_engine_memory_valid(work->destination, work->length);
        break;
    case VIFA_REFERENCE_LOCAL_DISCARD:
        valid = vifa_local_contains(local, work->destination, work->length);
        break;
    case VIFA_REFERENCE_SCATTER:
        valid = vifa_engine_window_valid(work);
        break;
    default:
        return VIFA_REFERENCE_COMPLETION_UNKNOWN;
    }

    return valid && work->length <= VIFA_REFERENCE_LENGTH_MAX &&
           work->length % VIFA_ENGINE_WORD == 0 ?
           VIFA_REFERENCE_COMPLETION_SUCCESS :
           VIFA_REFERENCE_COMPLETION_INVALID;
}

/*
 * Number of bytes that the command moves; 0 for commands that complete
 * immediately.
 */
static uint64_t vifa_engine_work_length(const VifaWork *work)
{
    switch (work->opcode) {
    case VIFA_REFERENCE_NOP:
    case VIFA_REFERENCE_LOCAL_DISCARD:
        return 0;
    default:
        return work->length;
    }
}

/*
 * Check a control plane before it is loaded. Returns the type of the invalid
 * record, or 0.
 */
uint16_t vifa_engine_check(VifaVF *vf, const VifaEngineState *state)
{
    bool control_enabled = state->control & VIFA_REFERENCE_CONTROL_ENABLE;
    const VifaWork *work = &state->work;

    if (state->control & ~(VIFA_REFERENCE_CONTROL_ENABLE |
                           VIFA_REFERENCE_CONTROL_INTERRUPT)) {
        return VIFA_RECORD_CONFIGURATION;
    }
    switch (state->status) {
    case 0:
        if (control_enabled) {
            return VIFA_RECORD_CONFIGURATION;
        }
        break;
    case VIFA_REFERENCE_STATUS_ENABLED:
    case VIFA_REFERENCE_STATUS_FAILED:
        if (!control_enabled) {
            return VIFA_RECORD_CONFIGURATION;
        }
        break;
    default:
        return VIFA_RECORD_CONFIGURATION;
    }

    if (state->interrupt && !vifa_engine_interrupts(state)) {
        return VIFA_RECORD_INTERRUPT;
    }

    if (!vifa_engine_enabled(state)) {
        return state->unfinished ? VIFA_RECORD_PRIVATE : 0;
    }
    if (!vifa_engine_rings_valid(state)) {
        return VIFA_RECORD_QUEUE;
    }
    if (state->unfinished &&
        (vifa_engine_check_work(vf, work) ||
         work->done % VIFA_ENGINE_WORD ||
         work->done >= vifa_engine_work_length(work))) {
        return VIFA_RECORD_PRIVATE;
    }
    if (!vifa_engine_indices_valid(state)) {
        return VIFA_RECORD_QUEUE;
    }

    return 0;
}

static void vifa_engine_fail(VifaVF *vf, const char *ring)
{
    VifaEngineState *state = &vf->engine.state;

    trace_vifa_engine_fail(vf->number, ring);
    vf->engine.generation++;
    state->status = VIFA_REFERENCE_STATUS_FAILED;
    state->unfinished = false;
    state->interrupt = vifa_engine_interrupts(state);
}

/*
 * Take the next command, if there is one and there is room for its completion.
 */
static bool vifa_engine_take(VifaVF *vf)
{
    VifaEngineState *state = &vf->engine.state;
    uint32_t generation = vf->engine.generation;
    uint32_t index = state->submission_head & (state->entries - 1);
    struct vifa_reference_submission command;
    VifaWork *work = &state->work;
    bool accessible;

    if (state->submission_head == state->submission_tail ||
        state->completion_tail - state->completion_head == state->entries) {
        return false;
    }

    accessible = vifa_engine_read_memory(vf, state->submission +
                                         index * sizeof(command),
                                         &command, sizeof(command));
    if (generation != vf->engine.generation) {
        return false;
    }
    if (!accessible) {
        vifa_engine_fail(vf, "submission");
        return false;
    }

    *work = (VifaWork) {
        .opcode = le16_to_cpu(command.opcode),
        .id = le32_to_cpu(command.id),
        .source = le64_to_cpu(command.source),
        .destination = le64_to_cpu(command.destination),
        .length = le64_to_cpu(command.length),
        .pattern = le64_to_cpu(command.pattern),
    };
    state->submission_head++;
    state->unfinished = true;
    trace_vifa_engine_take(vf->number, index, work->opcode, work->id,
                           work->source, work->destination, work->length);

    return true;
}

/* Write the completion of the current command; write the phase last. */
static bool vifa_engine_complete(VifaVF *vf, uint16_t status)
{
    VifaEngineState *state = &vf->engine.state;
    uint32_t generation = vf->engine.generation;
    uint32_t index = state->completion_tail & (state->entries - 1);
    uint64_t address = state->completion +
                       index * sizeof(struct vifa_reference_completion);
    uint16_t phase = !(state->completion_tail / state->entries % 2);
    bool checksum = state->work.opcode == VIFA_REFERENCE_CHECKSUM &&
                    status == VIFA_REFERENCE_COMPLETION_SUCCESS;
    struct vifa_reference_completion completion = {
        .result = cpu_to_le64(checksum ? state->work.checksum : 0),
        .id = cpu_to_le32(state->work.id),
        .status = cpu_to_le16(status),
        .phase = cpu_to_le16(phase),
    };
    const size_t phase_offset = offsetof(struct vifa_reference_completion,
                                         phase);
    bool accessible;

    accessible = vifa_engine_write_memory(vf, address, &completion,
                                          phase_offset) &&
                 vifa_engine_write_memory(vf, address + phase_offset,
                                          &completion.phase,
                                          sizeof(completion.phase));
    if (generation != vf->engine.generation) {
        return false;
    }
    if (!accessible) {
        vifa_engine_fail(vf, "completion");
        return false;
    }

    state->completion_tail++;
    state->unfinished = false;
    state->interrupt |= vifa_engine_interrupts(state);
    trace_vifa_engine_complete(vf->number, index, state->work.id, status,
                               le64_to_cpu(completion.result));

    return true;
}

static void vifa_engine_fill(void *data, uint64_t first, uint64_t length)
{
    for (uint64_t i = 0; i < length / VIFA_ENGINE_WORD; i++) {
        stq_le_p(data + i * VIFA_ENGINE_WORD, first + i);
    }
}

/* The generator splitmix64: number @x of its sequence. */
static uint64_t vifa_engine_random(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);

    return x ^ (x >> 31);
}

/* Write the next @chunk bytes of a SCATTER, word by word. */
static bool vifa_engine_scatter(VifaVF *vf, uint64_t chunk)
{
    uint32_t generation = vf->engine.generation;
    const VifaWork *work = &vf->engine.state.work;
    uint64_t window = work->source / VIFA_ENGINE_WORD;
    uint64_t base = work->destination;
    uint64_t value = work->pattern + work->done / VIFA_ENGINE_WORD;
    uint64_t end = value + chunk / VIFA_ENGINE_WORD;

    for (; value != end && generation == vf->engine.generation; value++) {
        uint64_t offset = vifa_engine_random(value) % window * VIFA_ENGINE_WORD;
        uint64_t word = cpu_to_le64(value);

        if (!vifa_engine_write_memory(vf, base + offset, &word, sizeof(word))) {
            return false;
        }
    }

    return true;
}

/* Move the next @chunk bytes of the command. Returns false on a DMA fault. */
static bool vifa_engine_move(VifaVF *vf, uint64_t chunk)
{
    uint32_t generation = vf->engine.generation;
    VifaWork *work = &vf->engine.state.work;
    uint64_t source = work->source + work->done;
    uint64_t destination = work->destination + work->done;
    uint8_t *bounce = vf->pf->bounce;

    switch (work->opcode) {
    case VIFA_REFERENCE_FILL:
        vifa_engine_fill(bounce, work->pattern + work->done / VIFA_ENGINE_WORD,
                         chunk);
        return vifa_engine_write_memory(vf, destination, bounce, chunk);
    case VIFA_REFERENCE_COPY:
        return vifa_engine_read_memory(vf, source, bounce, chunk) &&
               generation == vf->engine.generation &&
               vifa_engine_write_memory(vf, destination, bounce, chunk);
    case VIFA_REFERENCE_CHECKSUM:
        if (!vifa_engine_read_memory(vf, source, bounce, chunk)) {
            return false;
        }
        work->checksum = crc32c(~work->checksum, bounce, chunk);
        return true;
    case VIFA_REFERENCE_LOCAL_WRITE:
        if (!vifa_engine_read_memory(vf, source, bounce, chunk) ||
            generation != vf->engine.generation) {
            return false;
        }
        vifa_local_write(&vf->local, destination, bounce, chunk);
        vifa_local_set_dirty(&vf->local, destination, chunk);
        return true;
    case VIFA_REFERENCE_LOCAL_READ:
        vifa_local_read(&vf->local, source, bounce, chunk);
        return vifa_engine_write_memory(vf, destination, bounce, chunk);
    case VIFA_REFERENCE_SCATTER:
        return vifa_engine_scatter(vf, chunk);
    default:
        g_assert_not_reached();
    }
}

/*
 * If the destination of a copy begins inside its source, a transfer must not
 * read bytes that an earlier word has yet to overwrite. Thus the outcome of an
 * ascending copy does not depend on the length of the transfers.
 */
static uint64_t vifa_engine_copy_limit(const VifaWork *work)
{
    uint64_t distance = work->destination - work->source;

    return work->opcode == VIFA_REFERENCE_COPY && distance ?
           MAX(distance, VIFA_ENGINE_WORD) : UINT64_MAX;
}

/* The cost of moving @chunk bytes, in bytes of a slice's budget. */
static uint64_t vifa_engine_cost(const VifaWork *work, uint64_t chunk)
{
    uint64_t transfers = work->opcode == VIFA_REFERENCE_SCATTER ?
                         chunk / VIFA_ENGINE_WORD : 1;

    return MAX(chunk, transfers * VIFA_ENGINE_TRANSFER_COST);
}

static void vifa_engine_spend(uint64_t *budget, uint64_t cost)
{
    *budget -= MIN(*budget, cost);
}

/*
 * Number of bytes that the slice, the speed and the bounce buffer allow now.
 */
static uint64_t vifa_engine_chunk(const VifaEngine *engine, uint64_t budget)
{
    const VifaWork *work = &engine->state.work;
    uint64_t chunk = MIN(vifa_engine_work_length(work) - work->done, budget);

    if (work->opcode == VIFA_REFERENCE_SCATTER) {
        chunk = MIN(chunk, DIV_ROUND_UP(budget, VIFA_ENGINE_TRANSFER_COST) *
                           VIFA_ENGINE_WORD);
    }
    chunk = MIN(chunk, VIFA_BOUNCE_BYTES);
    chunk = MIN(chunk, vifa_engine_copy_limit(work));
    if (engine->state.speed) {
        chunk = MIN(chunk, engine->credit);
    }

    return ROUND_DOWN(chunk, VIFA_ENGINE_WORD);
}

/*
 * Work on the current command. Returns true if it is completed, false if it
 * has to wait or the engine has stopped.
 */
static bool vifa_engine_advance(VifaVF *vf, uint64_t *budget)
{
    VifaEngine *engine = &vf->engine;
    VifaWork *work = &engine->state.work;
    uint32_t generation = engine->generation;
    uint16_t status = vifa_engine_check_work(vf, work);

    if (status) {
        return vifa_engine_complete(vf, status);
    }

    while (work->done < vifa_engine_work_length(work)) {
        uint64_t chunk = vifa_engine_chunk(engine, *budget);
        bool moved;

        if (!chunk) {
            return false;
        }
        moved = vifa_engine_move(vf, chunk);
        if (generation != engine->generation) {
            return false;
        }
        if (!moved) {
            return vifa_engine_complete(vf, VIFA_REFERENCE_COMPLETION_FAULT);
        }
        work->done += chunk;
        vifa_engine_spend(budget, vifa_engine_cost(work, chunk));
        engine->credit -= MIN(chunk, engine->credit);
    }

    if (work->opcode == VIFA_REFERENCE_LOCAL_DISCARD) {
        vifa_local_discard(&vf->local, work->destination, work->length);
    }

    return vifa_engine_complete(vf, VIFA_REFERENCE_COMPLETION_SUCCESS);
}

/* Update the credit. A fraction of a byte remains due. */
static void vifa_engine_accrue(VifaEngine *engine)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    uint32_t speed = engine->state.speed;
    uint64_t most = MAX((uint64_t)speed * VIFA_ENGINE_CREDIT_MS,
                        VIFA_ENGINE_WORD);
    uint64_t earned;

    if (!speed) {
        return;
    }

    earned = muldiv64(MIN(now - engine->credited, NANOSECONDS_PER_SECOND),
                      speed, SCALE_MS);
    if (engine->credit + earned >= most) {
        engine->credit = most;
        engine->credited = now;
    } else {
        engine->credit += earned;
        engine->credited += muldiv64(earned, SCALE_MS, speed);
    }
}

static void vifa_engine_forget_credit(VifaEngine *engine)
{
    engine->credit = 0;
    engine->credited = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
}

/* Schedule the continuation of a command that has to wait. */
static void vifa_engine_wait(VifaEngine *engine)
{
    uint32_t speed = engine->state.speed;
    int64_t delay = VIFA_PAUSE_NS;

    if (speed && engine->credit < VIFA_ENGINE_WORD) {
        delay = MAX(SCALE_MS, muldiv64(VIFA_ENGINE_WORD - engine->credit,
                                       SCALE_MS, speed));
    }
    timer_mod(engine->timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + delay);
}

static void vifa_engine_signal(VifaVF *vf)
{
    VifaEngineState *state = &vf->engine.state;

    if (state->interrupt) {
        state->interrupt = false;
        trace_vifa_engine_signal(vf->number);
        msix_notify(PCI_DEVICE(vf), 0);
    }
}

/* Run one slice. */
static void vifa_engine_run(void *opaque)
{
    VifaVF *vf = opaque;
    VifaEngine *engine = &vf->engine;
    VifaEngineState *state = &engine->state;
    uint64_t budget = VIFA_ENGINE_SLICE_BYTES;
    bool wait = false;

    if (vf->run_state != VIFA_RUN_STATE_RUNNING) {
        return;
    }

    vifa_engine_accrue(engine);
    while (vifa_engine_enabled(state)) {
        if (!state->unfinished) {
            if (!budget) {
                wait = true;
                break;
            }
            if (!vifa_engine_take(vf)) {
                break;
            }
            vifa_engine_spend(&budget, VIFA_ENGINE_TRANSFER_COST);
        }
        if (!vifa_engine_advance(vf, &budget)) {
            wait = vifa_engine_enabled(state) && state->unfinished;
            break;
        }
    }

    vifa_engine_signal(vf);
    if (wait) {
        vifa_engine_wait(engine);
    }
}

static void vifa_engine_tick(void *opaque)
{
    VifaVF *vf = opaque;

    vifa_engine_kick(vf);
}

/* The VF runs again: signal too often rather than too rarely. */
void vifa_engine_resume(VifaVF *vf)
{
    VifaEngineState *state = &vf->engine.state;

    if (vifa_engine_enabled(state) && vifa_engine_interrupts(state) &&
        state->completion_tail != state->completion_head) {
        state->interrupt = true;
    }
    vifa_engine_forget_credit(&vf->engine);
    vifa_engine_kick(vf);
}

/*
 * Stop DMA and interrupts of the VF. This includes an interrupt that waits in
 * the MSI-X pending bits for its vector to be unmasked.
 */
void vifa_engine_suspend(VifaVF *vf)
{
    PCIDevice *device = PCI_DEVICE(vf);

    qemu_bh_cancel(vf->engine.bh);
    timer_del(vf->engine.timer);
    if (device->msix_pba[0] & 1) {
        msix_clr_pending(device, 0);
        vf->engine.state.interrupt = vifa_engine_interrupts(&vf->engine.state);
    }
}

void vifa_engine_load(VifaVF *vf, const VifaEngineState *state)
{
    vf->engine.generation++;
    vf->engine.state = *state;
}

void vifa_engine_reset(VifaVF *vf)
{
    qemu_bh_cancel(vf->engine.bh);
    timer_del(vf->engine.timer);
    vifa_engine_load(vf, &(VifaEngineState) { });
    vf->engine.configurations = 0;
    vifa_engine_forget_credit(&vf->engine);
}

static void vifa_engine_enable(VifaVF *vf)
{
    VifaEngineState *state = &vf->engine.state;

    state->submission_tail = 0;
    state->submission_head = 0;
    state->completion_tail = 0;
    state->completion_head = 0;
    if (vifa_engine_rings_valid(state)) {
        state->status = VIFA_REFERENCE_STATUS_ENABLED;
        trace_vifa_engine_enable(vf->number, state->submission,
                                 state->completion, state->entries);
        vifa_engine_forget_credit(&vf->engine);
    } else {
        state->status = VIFA_REFERENCE_STATUS_FAILED;
        qemu_log_mask(LOG_GUEST_ERROR, "%s %u: invalid rings\n",
                      TYPE_VIFA_VF, vf->number);
    }
}

static void vifa_engine_disable(VifaVF *vf)
{
    VifaEngineState *state = &vf->engine.state;

    trace_vifa_engine_disable(vf->number);
    vf->engine.generation++;
    timer_del(vf->engine.timer);
    state->status = 0;
    state->unfinished = false;
    state->interrupt = false;
}

static void vifa_engine_write_control(VifaVF *vf, uint32_t value)
{
    VifaEngineState *state = &vf->engine.state;
    uint32_t changed = state->control ^ value;

    state->control = value & (VIFA_REFERENCE_CONTROL_ENABLE |
                              VIFA_REFERENCE_CONTROL_INTERRUPT);

    if (changed & VIFA_REFERENCE_CONTROL_ENABLE) {
        if (value & VIFA_REFERENCE_CONTROL_ENABLE) {
            vf->engine.configurations++;
            vifa_engine_enable(vf);
        } else {
            vifa_engine_disable(vf);
        }
    }
    if (changed & VIFA_REFERENCE_CONTROL_INTERRUPT) {
        state->interrupt = vifa_engine_interrupts(state) &&
                           vifa_engine_enabled(state) &&
                           state->completion_tail != state->completion_head;
        vifa_engine_kick(vf);
    }
}

/* Set an index that the guest owns, or log an error if it is invalid. */
static void vifa_engine_write_index(VifaVF *vf, uint32_t *index, uint32_t value,
                                    uint32_t from, uint32_t room)
{
    if (!vifa_engine_enabled(&vf->engine.state) || value - from > room) {
        qemu_log_mask(LOG_GUEST_ERROR, "%s %u: invalid index %u\n",
                      TYPE_VIFA_VF, vf->number, value);
        return;
    }
    *index = value;
    vifa_engine_kick(vf);
}

/* Ring registers are read-only while the rings are in use. */
static void vifa_engine_write_ring(VifaVF *vf, hwaddr address, uint32_t value)
{
    VifaEngineState *state = &vf->engine.state;

    if (state->control & VIFA_REFERENCE_CONTROL_ENABLE) {
        return;
    }

    switch (address) {
    case VIFA_REFERENCE_RING_ENTRIES:
        state->entries = value;
        break;
    case VIFA_REFERENCE_SUBMISSION_LOW:
        state->submission = deposit64(state->submission, 0, 32, value);
        break;
    case VIFA_REFERENCE_SUBMISSION_HIGH:
        state->submission = deposit64(state->submission, 32, 32, value);
        break;
    case VIFA_REFERENCE_COMPLETION_LOW:
        state->completion = deposit64(state->completion, 0, 32, value);
        break;
    case VIFA_REFERENCE_COMPLETION_HIGH:
        state->completion = deposit64(state->completion, 32, 32, value);
        break;
    }
}

/* The number of the scratch register at @address, or -1. */
static int vifa_engine_scratch(hwaddr address)
{
    hwaddr number = (address - VIFA_REFERENCE_SCRATCH) / sizeof(uint32_t);

    return address >= VIFA_REFERENCE_SCRATCH &&
           number < VIFA_REFERENCE_SCRATCHES ? number : -1;
}

uint32_t vifa_engine_read(VifaVF *vf, hwaddr address)
{
    const VifaEngineState *state = &vf->engine.state;
    int scratch = vifa_engine_scratch(address);

    if (scratch >= 0) {
        return state->scratch[scratch];
    }

    switch (address) {
    case VIFA_REFERENCE_MAGIC:
        return VIFA_REFERENCE_MAGIC_VALUE;
    case VIFA_REFERENCE_REVISION:
        return VIFA_ENGINE_REVISION;
    case VIFA_REFERENCE_CONTROL:
        return state->control;
    case VIFA_REFERENCE_STATUS:
        return state->status;
    case VIFA_REFERENCE_RING_ENTRIES:
        return state->entries;
    case VIFA_REFERENCE_SUBMISSION_LOW:
        return state->submission;
    case VIFA_REFERENCE_SUBMISSION_HIGH:
        return state->submission >> 32;
    case VIFA_REFERENCE_COMPLETION_LOW:
        return state->completion;
    case VIFA_REFERENCE_COMPLETION_HIGH:
        return state->completion >> 32;
    case VIFA_REFERENCE_SUBMISSION_TAIL:
        return state->submission_tail;
    case VIFA_REFERENCE_SUBMISSION_HEAD:
        return state->submission_head;
    case VIFA_REFERENCE_COMPLETION_TAIL:
        return state->completion_tail;
    case VIFA_REFERENCE_COMPLETION_HEAD:
        return state->completion_head;
    case VIFA_REFERENCE_SPEED:
        return state->speed;
    case VIFA_REFERENCE_LOCAL_LOW:
        return vf->local.size;
    case VIFA_REFERENCE_LOCAL_HIGH:
        return vf->local.size >> 32;
    default:
        return 0;
    }
}

void vifa_engine_write(VifaVF *vf, hwaddr address, uint32_t value)
{
    VifaEngineState *state = &vf->engine.state;
    int scratch = vifa_engine_scratch(address);

    if (scratch >= 0) {
        state->scratch[scratch] = value;
        return;
    }

    switch (address) {
    case VIFA_REFERENCE_CONTROL:
        vifa_engine_write_control(vf, value);
        break;
    case VIFA_REFERENCE_RING_ENTRIES:
    case VIFA_REFERENCE_SUBMISSION_LOW:
    case VIFA_REFERENCE_SUBMISSION_HIGH:
    case VIFA_REFERENCE_COMPLETION_LOW:
    case VIFA_REFERENCE_COMPLETION_HIGH:
        vifa_engine_write_ring(vf, address, value);
        break;
    case VIFA_REFERENCE_SUBMISSION_TAIL:
        vifa_engine_write_index(vf, &state->submission_tail, value,
                                state->submission_head, state->entries);
        break;
    case VIFA_REFERENCE_COMPLETION_HEAD:
        vifa_engine_write_index(vf, &state->completion_head, value,
                                state->completion_head,
                                state->completion_tail -
                                state->completion_head);
        break;
    case VIFA_REFERENCE_SPEED:
        state->speed = value;
        vifa_engine_forget_credit(&vf->engine);
        vifa_engine_kick(vf);
        break;
    }
}

void vifa_engine_init(VifaVF *vf)
{
    vf->engine.bh = qemu_bh_new_guarded(vifa_engine_run, vf,
                                        &DEVICE(vf)->mem_reentrancy_guard);
    vf->engine.timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, vifa_engine_tick, vf);
}

void vifa_engine_cleanup(VifaVF *vf)
{
    timer_free(vf->engine.timer);
    qemu_bh_delete(vf->engine.bh);
}
