/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: local memory of a virtual function.
 *
 * Each granule is allocated when it is first written, so that unused memory
 * costs nothing. A granule that is not allocated is not mapped.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "vifa.h"

QEMU_BUILD_BUG_ON(sizeof(struct vifa_hw_range) != 16);

/* The part of a transfer that lies within one granule. */
typedef struct VifaLocalPiece {
    uint64_t granule;
    uint32_t start;
    uint32_t length;
} VifaLocalPiece;

static VifaLocalPiece vifa_local_piece(const VifaLocal *local, uint64_t offset,
                                       uint64_t length)
{
    uint32_t start = offset % local->granule;

    return (VifaLocalPiece) {
        .granule = offset / local->granule,
        .start = start,
        .length = MIN(length, local->granule - start),
    };
}

bool vifa_local_contains(const VifaLocal *local, uint64_t offset,
                         uint64_t length)
{
    return offset <= local->size && length <= local->size - offset;
}

void vifa_local_read(const VifaLocal *local, uint64_t offset, void *data,
                     uint64_t length)
{
    assert(vifa_local_contains(local, offset, length));

    while (length) {
        VifaLocalPiece piece = vifa_local_piece(local, offset, length);
        const uint8_t *granule = local->data[piece.granule];

        if (granule) {
            memcpy(data, granule + piece.start, piece.length);
        } else {
            memset(data, 0, piece.length);
        }
        data += piece.length;
        offset += piece.length;
        length -= piece.length;
    }
}

void vifa_local_write(VifaLocal *local, uint64_t offset, const void *data,
                      uint64_t length)
{
    assert(vifa_local_contains(local, offset, length));

    while (length) {
        VifaLocalPiece piece = vifa_local_piece(local, offset, length);
        uint8_t **granule = &local->data[piece.granule];

        if (!*granule) {
            *granule = g_malloc0(local->granule);
            set_bit(piece.granule, local->mapped);
        }
        memcpy(*granule + piece.start, data, piece.length);
        data += piece.length;
        offset += piece.length;
        length -= piece.length;
    }
}

void vifa_local_set_dirty(VifaLocal *local, uint64_t offset, uint64_t length)
{
    uint64_t first = offset / local->granule;

    if (length) {
        bitmap_set(local->dirty, first,
                   (offset + length - 1) / local->granule - first + 1);
    }
}

/* Unmap the granules from @first to @end. Granules with data become dirty. */
static void vifa_local_unmap(VifaLocal *local, uint64_t first, uint64_t end)
{
    for (uint64_t i = find_next_bit(local->mapped, end, first); i < end;
         i = find_next_bit(local->mapped, end, i + 1)) {
        g_clear_pointer(&local->data[i], g_free);
        clear_bit(i, local->mapped);
        set_bit(i, local->dirty);
    }
}

/* Unmap the granules wholly inside. Granules with data change to zeroes. */
void vifa_local_discard(VifaLocal *local, uint64_t offset, uint64_t length)
{
    assert(vifa_local_contains(local, offset, length));

    vifa_local_unmap(local, DIV_ROUND_UP(offset, local->granule),
                     (offset + length) / local->granule);
}

void vifa_local_reset(VifaLocal *local)
{
    vifa_local_unmap(local, 0, local->granules);
    bitmap_clear(local->dirty, 0, local->granules);
}

void vifa_local_init(VifaLocal *local, uint64_t size, uint32_t granule)
{
    local->size = size;
    local->granule = granule;
    local->granules = size / granule;
    local->data = g_new0(uint8_t *, local->granules);
    local->mapped = bitmap_new(local->granules);
    local->dirty = bitmap_new(local->granules);
}

void vifa_local_cleanup(VifaLocal *local)
{
    vifa_local_reset(local);
    g_free(local->data);
    g_free(local->mapped);
    g_free(local->dirty);
}

/* The bitmap that commands search for granules. */
static unsigned long *vifa_local_kind(const VifaLocal *local, bool dirty)
{
    return dirty ? local->dirty : local->mapped;
}

static bool vifa_local_tracks_dirty(const VifaVF *vf)
{
    return vifa_pf_features(vf->pf) & VIFA_HW_FEATURE_LOCAL_DIRTY;
}

/* Are a command's offset and length multiples of granules in local memory? */
static bool vifa_local_range_valid(const VifaLocal *local, uint64_t offset,
                                   uint64_t length)
{
    return length && !(offset % local->granule) && !(length % local->granule) &&
           vifa_local_contains(local, offset, length);
}

static uint16_t vifa_local_bitmap(VifaVF *vf, VifaCommand *command)
{
    VifaLocal *local = &vf->local;
    uint64_t offset = command->argument[0];
    uint64_t length = command->argument[1] & ~(uint64_t)VIFA_LOCAL_DIRTY;
    bool dirty = command->argument[1] & VIFA_LOCAL_DIRTY;
    uint32_t generation = vf->generation;
    g_autofree unsigned long *bitmap = NULL;
    g_autofree unsigned long *output = NULL;
    uint64_t first, count, bytes;
    uint16_t status;

    if (!vifa_local_range_valid(local, offset, length) ||
        (dirty && !vifa_local_tracks_dirty(vf))) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    first = offset / local->granule;
    count = length / local->granule;
    bytes = DIV_ROUND_UP(count, 8);
    if (command->buffer.size < bytes) {
        command->result[0] = bytes;
        return VIFA_STATUS_BUFFER_TOO_SMALL;
    }

    bitmap = bitmap_new(count);
    output = bitmap_new(count);
    bitmap_copy_with_src_offset(bitmap, vifa_local_kind(local, dirty), first,
                                count);
    bitmap[BIT_WORD(count - 1)] &= BITMAP_LAST_WORD_MASK(count);
    bitmap_to_le(output, bitmap, count);
    status = vifa_buffer_write(&command->buffer, 0, output, bytes);
    if (status) {
        return status;
    }
    if (dirty && generation == vf->generation) {
        bitmap_clear(local->dirty, first, count);
    }
    command->result[0] = bitmap_count_one(bitmap, count);

    return VIFA_STATUS_SUCCESS;
}

static uint16_t vifa_local_list(VifaVF *vf, VifaCommand *command)
{
    const VifaLocal *local = &vf->local;
    uint64_t offset = command->argument[0];
    bool dirty = command->argument[1];
    const unsigned long *bitmap = vifa_local_kind(local, dirty);
    uint64_t fit = command->buffer.size / sizeof(struct vifa_hw_range);
    g_autoptr(GArray) ranges = g_array_new(false, false,
                                           sizeof(struct vifa_hw_range));
    uint64_t i;

    if (offset % local->granule || offset > local->size ||
        command->argument[1] > VIFA_LOCAL_DIRTY ||
        (dirty && !vifa_local_tracks_dirty(vf))) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    if (!fit) {
        command->result[0] = sizeof(struct vifa_hw_range);
        return VIFA_STATUS_BUFFER_TOO_SMALL;
    }

    i = find_next_bit(bitmap, local->granules, offset / local->granule);
    while (i < local->granules && ranges->len < fit) {
        uint64_t end = find_next_zero_bit(bitmap, local->granules, i);
        struct vifa_hw_range range = {
            .start = cpu_to_le64(i * local->granule),
            .length = cpu_to_le64((end - i) * local->granule),
        };

        g_array_append_val(ranges, range);
        i = find_next_bit(bitmap, local->granules, end);
    }
    command->result[0] = ranges->len;
    command->result[1] = i * local->granule;

    return vifa_buffer_write(&command->buffer, 0, ranges->data,
                             ranges->len * sizeof(struct vifa_hw_range));
}

/* Check a LOCAL_READ or LOCAL_WRITE, for each of its slices. */
static uint16_t vifa_local_transfer_check(const VifaVF *vf,
                                          VifaCommand *command)
{
    uint64_t length = command->argument[1];

    if (!vifa_local_range_valid(&vf->local, command->argument[0], length)) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    if (command->buffer.size < length) {
        command->result[0] = length;
        return VIFA_STATUS_BUFFER_TOO_SMALL;
    }
    if (command->buffer.size > length) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }

    return VIFA_STATUS_SUCCESS;
}

static uint16_t vifa_local_move(VifaVF *vf, VifaCommand *command,
                                uint64_t chunk, DMADirection direction)
{
    uint64_t offset = command->argument[0] + command->done;
    uint32_t generation = vf->generation;
    void *bounce = vf->pf->bounce;
    uint16_t status;

    if (direction == DMA_DIRECTION_FROM_DEVICE) {
        vifa_local_read(&vf->local, offset, bounce, chunk);
        return vifa_buffer_write(&command->buffer, command->done, bounce,
                                 chunk);
    }

    status = vifa_buffer_read(&command->buffer, command->done, bounce, chunk);
    if (!status && generation == vf->generation) {
        vifa_local_write(&vf->local, offset, bounce, chunk);
    }

    return status;
}

static uint16_t vifa_local_transfer(VifaVF *vf, VifaCommand *command,
                                    DMADirection direction)
{
    uint16_t status = vifa_local_transfer_check(vf, command);
    uint64_t length = command->argument[1];
    uint64_t end = MIN(length, command->done + VIFA_SLICE_BYTES);

    while (!status && command->done < end) {
        uint64_t chunk = MIN(end - command->done, VIFA_BOUNCE_BYTES);

        status = vifa_local_move(vf, command, chunk, direction);
        command->done += chunk;
    }
    if (status) {
        return status;
    }

    return command->done < length ? VIFA_STATUS_BUSY : VIFA_STATUS_SUCCESS;
}

static uint16_t vifa_local_command_read(VifaVF *vf, VifaCommand *command)
{
    return vifa_local_transfer(vf, command, DMA_DIRECTION_FROM_DEVICE);
}

static uint16_t vifa_local_command_write(VifaVF *vf, VifaCommand *command)
{
    if (vf->run_state != VIFA_RUN_STATE_STOPPED) {
        return VIFA_STATUS_INVALID_STATE;
    }

    return vifa_local_transfer(vf, command, DMA_DIRECTION_TO_DEVICE);
}

static uint16_t vifa_local_clear(VifaVF *vf, VifaCommand *command)
{
    if (vf->run_state != VIFA_RUN_STATE_STOPPED) {
        return VIFA_STATUS_INVALID_STATE;
    }
    vifa_local_reset(&vf->local);

    return VIFA_STATUS_SUCCESS;
}

const VifaCommandType vifa_local_commands[] = {
    { VIFA_DATA_LOCAL_BITMAP, true, vifa_local_bitmap },
    { VIFA_DATA_LOCAL_LIST, true, vifa_local_list },
    { VIFA_DATA_LOCAL_READ, true, vifa_local_command_read },
    { VIFA_DATA_LOCAL_WRITE, true, vifa_local_command_write },
    { VIFA_DATA_LOCAL_CLEAR, false, vifa_local_clear },
    { }
};
