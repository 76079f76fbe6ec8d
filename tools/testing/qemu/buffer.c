/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: command buffers.
 *
 * A command's scatter list contains the addresses of its data, in the DMA
 * address space of the physical function.
 */
#include "qemu/osdep.h"
#include "vifa.h"

QEMU_BUILD_BUG_ON(sizeof(struct vifa_hw_scatter) != 16);

/*
 * Read and check the scatter list of @count entries at @list.
 * Returns a VIFA_STATUS_*.
 */
uint16_t vifa_buffer_init(VifaBuffer *buffer, PCIDevice *device,
                          uint64_t list, uint32_t count, uint32_t count_max)
{
    struct vifa_hw_scatter entries[VIFA_SCATTER_MAX];

    assert(count_max <= VIFA_SCATTER_MAX);

    if (!count || count > count_max || list % sizeof(entries[0])) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    if (pci_dma_read(device, list, entries, count * sizeof(entries[0]))) {
        return VIFA_STATUS_DMA_FAULT;
    }

    buffer->device = device;
    buffer->count = count;
    buffer->size = 0;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t address = le64_to_cpu(entries[i].address);
        uint32_t length = le32_to_cpu(entries[i].length);

        if (!length || entries[i].reserved ||
            address + (length - 1) < address) {
            return VIFA_STATUS_INVALID_ARGUMENT;
        }
        buffer->pieces[i].address = address;
        buffer->pieces[i].length = length;
        buffer->size += length;
    }
    buffer->writable = buffer->size;

    return VIFA_STATUS_SUCCESS;
}

static uint16_t vifa_buffer_move(const VifaBuffer *buffer, uint64_t offset,
                                 uint8_t *data, uint64_t length,
                                 DMADirection direction)
{
    assert(offset <= buffer->size && length <= buffer->size - offset);

    for (uint32_t i = 0; i < buffer->count && length; i++) {
        uint64_t piece = buffer->pieces[i].length;
        uint64_t chunk;

        if (offset >= piece) {
            offset -= piece;
            continue;
        }
        chunk = MIN(length, piece - offset);
        if (pci_dma_rw(buffer->device, buffer->pieces[i].address + offset,
                       data, chunk, direction, MEMTXATTRS_UNSPECIFIED)) {
            return VIFA_STATUS_DMA_FAULT;
        }
        data += chunk;
        length -= chunk;
        offset = 0;
    }

    return VIFA_STATUS_SUCCESS;
}

/* The caller has checked offset and length against the size of the buffer. */
uint16_t vifa_buffer_read(const VifaBuffer *buffer, uint64_t offset,
                          void *data, uint64_t length)
{
    return vifa_buffer_move(buffer, offset, data, length,
                            DMA_DIRECTION_TO_DEVICE);
}

uint16_t vifa_buffer_write(const VifaBuffer *buffer, uint64_t offset,
                           const void *data, uint64_t length)
{
    if (offset >= buffer->writable) {
        return VIFA_STATUS_SUCCESS;
    }

    return vifa_buffer_move(buffer, offset, (uint8_t *)data,
                            MIN(length, buffer->writable - offset),
                            DMA_DIRECTION_FROM_DEVICE);
}
