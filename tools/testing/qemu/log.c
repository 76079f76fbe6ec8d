/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: log of writes to guest memory.
 *
 * One bit for each page of the ranges that are logged. The engine sets bits in
 * the bottom half that does the DMA, and the commands read and clear them in a
 * bottom half of their own, so that no write falls between the two.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/host-utils.h"
#include "trace.h"
#include "vifa.h"

/* What one VF may make us allocate: 8 MiB of bitmap, 256 GiB in 4 KiB pages. */
#define VIFA_LOG_PAGES_MAX          (64 * MiB)
#define VIFA_LOG_RANGES_MAX         1024

/* The page sizes that the log supports, largest first: 2 MiB, 64 and 4 KiB. */
static const unsigned int vifa_log_page_shifts[] = { 21, 16, 12 };

static bool vifa_log_active(const VifaLog *log)
{
    return log->ranges != NULL;
}

static void vifa_log_free(VifaLog *log)
{
    g_free(log->ranges);
    g_free(log->bitmap);
    *log = (VifaLog) { };
}

void vifa_log_reset(VifaVF *vf)
{
    vifa_log_free(&vf->log);
}

/* The VF has written @length bytes at @iova, or a part of them. */
void vifa_log_mark(VifaVF *vf, uint64_t iova, uint64_t length)
{
    const VifaLog *log = &vf->log;
    uint64_t last = iova + (length - 1);

    if (!vifa_log_active(log) || log->lost || !length) {
        return;
    }

    for (uint32_t i = 0; i < log->count; i++) {
        const VifaLogRange *range = &log->ranges[i];
        uint64_t range_last = range->start +
                              ((range->pages << log->page_shift) - 1);
        uint64_t first_page, last_page;

        if (last < range->start) {
            break;
        }
        if (iova > range_last) {
            continue;
        }
        first_page = (MAX(iova, range->start) - range->start) >>
                     log->page_shift;
        last_page = (MIN(last, range_last) - range->start) >> log->page_shift;
        for (uint64_t page = first_page; page <= last_page; page++) {
            if (!vifa_fault_drops_page(vf->pf, vf->number)) {
                set_bit(range->first + page, log->bitmap);
            }
        }
    }
}

/* The largest page size at or below @page_size; 0 if there is none. */
static unsigned int vifa_log_page_shift(uint64_t page_size)
{
    for (size_t i = 0; i < ARRAY_SIZE(vifa_log_page_shifts); i++) {
        if (page_size >> vifa_log_page_shifts[i]) {
            return vifa_log_page_shifts[i];
        }
    }

    return 0;
}

/*
 * Take over the ranges of a LOG_START. Returns the number of pages in them; 0
 * when they are not valid or too large.
 */
static uint64_t vifa_log_set_ranges(VifaLog *log,
                                    const struct vifa_hw_range *ranges)
{
    uint64_t page_mask = (UINT64_C(1) << log->page_shift) - 1;
    uint64_t pages = 0;

    for (uint32_t i = 0; i < log->count; i++) {
        uint64_t start = le64_to_cpu(ranges[i].start);
        uint64_t length = le64_to_cpu(ranges[i].length);

        if (!length || (start | length) & page_mask ||
            start + (length - 1) < start ||
            (i && start < le64_to_cpu(ranges[i - 1].start) +
                          le64_to_cpu(ranges[i - 1].length)) ||
            length >> log->page_shift > VIFA_LOG_PAGES_MAX - pages) {
            return 0;
        }
        log->ranges[i] = (VifaLogRange) {
            .start = start,
            .pages = length >> log->page_shift,
            .first = pages,
        };
        pages += log->ranges[i].pages;
    }

    return pages;
}

static uint16_t vifa_log_start(VifaVF *vf, VifaCommand *command)
{
    uint64_t page_size = command->argument[0];
    uint64_t count = command->argument[1];
    uint64_t bytes = count * sizeof(struct vifa_hw_range);
    uint32_t generation = vf->generation;
    g_autofree struct vifa_hw_range *ranges = NULL;
    VifaLog log = { };
    uint64_t pages;
    uint16_t status;

    if (vifa_log_active(&vf->log)) {
        return VIFA_STATUS_INVALID_STATE;
    }
    if (!is_power_of_2(page_size) || !vifa_log_page_shift(page_size) ||
        !count || count > VIFA_LOG_RANGES_MAX) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    if (command->buffer.size < bytes) {
        command->result[0] = bytes;
        return VIFA_STATUS_BUFFER_TOO_SMALL;
    }

    ranges = g_malloc(bytes);
    status = vifa_buffer_read(&command->buffer, 0, ranges, bytes);
    if (status) {
        return status;
    }
    if (generation != vf->generation) {
        return VIFA_STATUS_ABORTED;
    }

    log.page_shift = vifa_log_page_shift(page_size);
    log.count = count;
    log.ranges = g_new(VifaLogRange, count);
    pages = vifa_log_set_ranges(&log, ranges);
    if (!pages) {
        vifa_log_free(&log);
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    log.bitmap = bitmap_try_new(pages);
    if (!log.bitmap) {
        vifa_log_free(&log);
        return VIFA_STATUS_DEVICE_FAILURE;
    }
    vf->log = log;
    command->result[0] = UINT64_C(1) << log.page_shift;
    trace_vifa_log_start(vf->number, log.count, pages, command->result[0]);

    return VIFA_STATUS_SUCCESS;
}

static uint16_t vifa_log_stop(VifaVF *vf, VifaCommand *command)
{
    if (!vifa_log_active(&vf->log)) {
        return VIFA_STATUS_INVALID_STATE;
    }
    vifa_log_free(&vf->log);
    trace_vifa_log_stop(vf->number);

    return VIFA_STATUS_SUCCESS;
}

/* The pages that a command asks for: a part of the log's bitmap. */
typedef struct VifaLogPages {
    uint64_t first;
    uint64_t count;
} VifaLogPages;

static uint16_t vifa_log_find(const VifaLog *log, const VifaCommand *command,
                              VifaLogPages *pages)
{
    uint64_t iova = command->argument[0];
    uint64_t length = command->argument[1];

    if (!vifa_log_active(log)) {
        return VIFA_STATUS_INVALID_STATE;
    }
    if (!length || (iova | length) & ((UINT64_C(1) << log->page_shift) - 1)) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }

    pages->count = length >> log->page_shift;
    for (uint32_t i = 0; i < log->count; i++) {
        const VifaLogRange *range = &log->ranges[i];
        uint64_t page = (iova - range->start) >> log->page_shift;

        if (iova >= range->start && page < range->pages &&
            pages->count <= range->pages - page) {
            pages->first = range->first + page;
            return VIFA_STATUS_SUCCESS;
        }
    }

    return VIFA_STATUS_INVALID_ARGUMENT;
}

/* Write the first @bits of @bitmap as the command's output. */
static uint16_t vifa_log_answer(const VifaCommand *command,
                                const unsigned long *bitmap, uint64_t bits)
{
    g_autofree unsigned long *output = bitmap_new(bits);

    bitmap_to_le(output, bitmap, bits);

    return vifa_buffer_write(&command->buffer, 0, output,
                             DIV_ROUND_UP(bits, 8));
}

static uint16_t vifa_log_read_and_clear(VifaVF *vf, VifaCommand *command)
{
    VifaLog *log = &vf->log;
    uint32_t generation = vf->generation;
    g_autofree unsigned long *bitmap = NULL;
    VifaLogPages pages;
    uint16_t status = vifa_log_find(log, command, &pages);

    if (status) {
        return status;
    }
    if (command->buffer.size < DIV_ROUND_UP(pages.count, 8)) {
        command->result[0] = DIV_ROUND_UP(pages.count, 8);
        return VIFA_STATUS_BUFFER_TOO_SMALL;
    }

    bitmap = bitmap_new(pages.count);
    bitmap_copy_with_src_offset(bitmap, log->bitmap, pages.first, pages.count);
    status = vifa_log_answer(command, bitmap, pages.count);
    if (status) {
        return status;
    }
    if (generation != vf->generation) {
        return VIFA_STATUS_ABORTED;
    }

    bitmap_clear(log->bitmap, pages.first, pages.count);
    command->result[0] = pages.count;
    command->result[1] = log->lost ? VIFA_LOG_LOST : 0;

    return VIFA_STATUS_SUCCESS;
}

static uint16_t vifa_log_summary(VifaVF *vf, VifaCommand *command)
{
    const VifaLog *log = &vf->log;
    g_autofree unsigned long *summary = NULL;
    VifaLogPages pages;
    uint16_t status = vifa_log_find(log, command, &pages);
    uint64_t bits, end;

    if (status) {
        return status;
    }
    bits = DIV_ROUND_UP(pages.count, VIFA_LOG_SUMMARY_PAGES);
    if (command->buffer.size < DIV_ROUND_UP(bits, 8)) {
        command->result[0] = DIV_ROUND_UP(bits, 8);
        return VIFA_STATUS_BUFFER_TOO_SMALL;
    }

    summary = bitmap_new(bits);
    end = pages.first + pages.count;
    for (uint64_t i = 0; i < bits; i++) {
        uint64_t first = pages.first + i * VIFA_LOG_SUMMARY_PAGES;
        uint64_t limit = MIN(first + VIFA_LOG_SUMMARY_PAGES, end);

        if (find_next_bit(log->bitmap, limit, first) < limit) {
            set_bit(i, summary);
        }
    }
    command->result[0] = pages.count;
    command->result[1] = log->lost ? VIFA_LOG_LOST : 0;

    return vifa_log_answer(command, summary, bits);
}

const VifaCommandType vifa_log_commands[] = {
    { VIFA_DATA_LOG_START, true, vifa_log_start },
    { VIFA_DATA_LOG_STOP, false, vifa_log_stop },
    { VIFA_DATA_LOG_READ_AND_CLEAR, true, vifa_log_read_and_clear },
    { VIFA_DATA_LOG_SUMMARY, true, vifa_log_summary },
    { }
};
