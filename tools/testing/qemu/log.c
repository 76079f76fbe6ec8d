/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: log of writes to guest memory.
 *
 * The log has one bit for each page of the logged ranges, and one bit for each
 * group of VIFA_LOG_SUMMARY_PAGES pages that has a dirty page. The latter makes
 * the search of a clean log fast. Each range begins with a separate group.
 *
 * The engine sets bits in the bottom half that does the DMA. The commands read
 * and clear them in a separate bottom half, so that no write is missed between
 * the two.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/host-utils.h"
#include "trace.h"
#include "vifa.h"

/* Limit of a VF's allocation: 36 MiB of bitmap, 1 TiB in 4 KiB pages. */
#define VIFA_LOG_PAGES_MAX          (256 * MiB)

/*
 * Number of bitmap bytes that are read in one step. VifaPF.bounce holds them:
 * one half for host-endian bits, the other for little-endian bits.
 */
#define VIFA_LOG_STEP_BYTES         (VIFA_BOUNCE_BYTES / 2)

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
    g_free(log->summary);
    *log = (VifaLog) { };
}

void vifa_log_reset(VifaVF *vf)
{
    vifa_log_free(&vf->log);
}

static uint64_t vifa_log_group_first(uint64_t group)
{
    return group * VIFA_LOG_SUMMARY_PAGES;
}

/* The group after the last of these pages. */
static uint64_t vifa_log_groups_end(uint64_t first, uint64_t count)
{
    return DIV_ROUND_UP(first + count, VIFA_LOG_SUMMARY_PAGES);
}

/*
 * The next group with a dirty page, starting at @group; @end if there is none.
 */
static uint64_t vifa_log_next_group(const VifaLog *log, uint64_t group,
                                    uint64_t end)
{
    return find_next_bit(log->summary, end, group);
}

static bool vifa_log_any_dirty(const VifaLog *log, uint64_t first,
                               uint64_t count)
{
    uint64_t end = first + count;

    return find_next_bit(log->bitmap, end, first) < end;
}

static void vifa_log_set(VifaLog *log, uint64_t first, uint64_t count)
{
    uint64_t group = first / VIFA_LOG_SUMMARY_PAGES;

    bitmap_set(log->bitmap, first, count);
    bitmap_set(log->summary, group, vifa_log_groups_end(first, count) - group);
}

static void vifa_log_clear(VifaLog *log, uint64_t first, uint64_t count)
{
    uint64_t end = vifa_log_groups_end(first, count);
    uint64_t group = first / VIFA_LOG_SUMMARY_PAGES;

    bitmap_clear(log->bitmap, first, count);
    while ((group = vifa_log_next_group(log, group, end)) < end) {
        if (!vifa_log_any_dirty(log, vifa_log_group_first(group),
                                VIFA_LOG_SUMMARY_PAGES)) {
            clear_bit(group, log->summary);
        }
        group++;
    }
}

/* Like vifa_log_set(), without pages that faults drop. Returns the others. */
static uint64_t vifa_log_set_undropped(VifaVF *vf, uint64_t first,
                                       uint64_t count)
{
    uint64_t end = first + count;
    uint64_t set = 0;

    while (first < end) {
        uint64_t run = vifa_fault_pass_pages(vf->pf, vf->number, end - first);

        if (run) {
            vifa_log_set(&vf->log, first, run);
        }
        set += run;
        first += run + 1;
    }

    return set;
}

static uint64_t vifa_log_range_last(const VifaLog *log,
                                    const VifaLogRange *range)
{
    return range->start + ((range->pages << log->page_shift) - 1);
}

/* The first range that does not end before @iova. */
static uint32_t vifa_log_first_range(const VifaLog *log, uint64_t iova)
{
    uint32_t low = 0, high = log->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (vifa_log_range_last(log, &log->ranges[middle]) < iova) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }

    return low;
}

/*
 * Log a write of the VF to @length bytes at @iova, or to a part of them.
 * Returns the number of pages that became dirty.
 */
uint64_t vifa_log_mark(VifaVF *vf, uint64_t iova, uint64_t length)
{
    const VifaLog *log = &vf->log;
    uint64_t last = iova + (length - 1);
    uint64_t marked = 0;

    if (!vifa_log_active(log) || log->lost || !length) {
        return 0;
    }

    for (uint32_t i = vifa_log_first_range(log, iova);
         i < log->count && log->ranges[i].start <= last; i++) {
        const VifaLogRange *range = &log->ranges[i];
        uint64_t first_page = (MAX(iova, range->start) - range->start) >>
                              log->page_shift;
        uint64_t last_page = (MIN(last, vifa_log_range_last(log, range)) -
                              range->start) >> log->page_shift;

        marked += vifa_log_set_undropped(vf, range->first + first_page,
                                         last_page - first_page + 1);
    }

    return marked;
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
 * Set the ranges of a LOG_START. Returns the number of groups of their pages;
 * 0 if the ranges are invalid or too large.
 */
static uint64_t vifa_log_set_ranges(VifaLog *log,
                                    const struct vifa_hw_range *ranges)
{
    uint64_t page_mask = (UINT64_C(1) << log->page_shift) - 1;
    uint64_t room = VIFA_LOG_PAGES_MAX;
    uint64_t groups = 0;

    for (uint32_t i = 0; i < log->count; i++) {
        uint64_t start = le64_to_cpu(ranges[i].start);
        uint64_t length = le64_to_cpu(ranges[i].length);
        uint64_t pages = length >> log->page_shift;

        if (!length || (start | length) & page_mask ||
            start + (length - 1) < start ||
            (i && start <= vifa_log_range_last(log, &log->ranges[i - 1])) ||
            pages > room) {
            return 0;
        }
        log->ranges[i] = (VifaLogRange) {
            .start = start,
            .pages = pages,
            .first = vifa_log_group_first(groups),
        };
        room -= pages;
        groups = vifa_log_groups_end(log->ranges[i].first, pages);
    }

    return groups;
}

static uint16_t vifa_log_start(VifaVF *vf, VifaCommand *command)
{
    uint64_t page_size = command->argument[0];
    uint64_t count = command->argument[1];
    uint64_t bytes = count * sizeof(struct vifa_hw_range);
    uint32_t generation = vf->generation;
    g_autofree struct vifa_hw_range *ranges = NULL;
    VifaLog log = { };
    uint64_t groups;
    uint16_t status;

    if (vifa_log_active(&vf->log)) {
        return VIFA_STATUS_INVALID_STATE;
    }
    if (!is_power_of_2(page_size) || !vifa_log_page_shift(page_size) ||
        !count || count > vf->pf->log_ranges) {
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
    groups = vifa_log_set_ranges(&log, ranges);
    if (!groups) {
        vifa_log_free(&log);
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    log.bitmap = bitmap_try_new(vifa_log_group_first(groups));
    log.summary = bitmap_try_new(groups);
    if (!log.bitmap || !log.summary) {
        vifa_log_free(&log);
        return VIFA_STATUS_DEVICE_FAILURE;
    }
    vf->log = log;
    command->result[0] = UINT64_C(1) << log.page_shift;
    trace_vifa_log_start(vf->number, log.count, groups, command->result[0]);

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

/* The pages that a command requests: a part of the log's bitmap. */
typedef struct VifaLogPages {
    uint64_t first;
    uint64_t count;
} VifaLogPages;

/*
 * Find the pages of a command that returns one bit for each @pages_per_bit of
 * them, and check that the command's buffer has room for the output.
 */
static uint16_t vifa_log_find(const VifaLog *log, VifaCommand *command,
                              uint64_t pages_per_bit, VifaLogPages *pages)
{
    uint64_t iova = command->argument[0];
    uint64_t length = command->argument[1];
    const VifaLogRange *range;
    uint64_t page, bytes;
    uint32_t i;

    if (!vifa_log_active(log)) {
        return VIFA_STATUS_INVALID_STATE;
    }
    if (!length || (iova | length) & ((UINT64_C(1) << log->page_shift) - 1)) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }

    i = vifa_log_first_range(log, iova);
    if (i == log->count || iova < log->ranges[i].start) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }
    range = &log->ranges[i];
    page = (iova - range->start) >> log->page_shift;
    pages->first = range->first + page;
    pages->count = length >> log->page_shift;
    if (pages->count > range->pages - page) {
        return VIFA_STATUS_INVALID_ARGUMENT;
    }

    bytes = DIV_ROUND_UP(DIV_ROUND_UP(pages->count, pages_per_bit), 8);
    if (command->buffer.size < bytes) {
        command->result[0] = bytes;
        return VIFA_STATUS_BUFFER_TOO_SMALL;
    }

    return VIFA_STATUS_SUCCESS;
}

/* Report the result of vifa_log_find(). */
static void vifa_log_report(const VifaLog *log, VifaCommand *command,
                            const VifaLogPages *pages)
{
    command->result[0] = pages->count;
    command->result[1] = log->lost ? VIFA_LOG_LOST : 0;
}

/* Write the bits of @count pages to the command's output, and clear them. */
static uint16_t vifa_log_move(VifaVF *vf, const VifaCommand *command,
                              uint64_t first, uint64_t count)
{
    VifaLog *log = &vf->log;
    uint64_t group = first / VIFA_LOG_SUMMARY_PAGES;
    uint64_t end = vifa_log_groups_end(first, count);
    bool dirty = vifa_log_next_group(log, group, end) < end;
    unsigned long *output = (unsigned long *)vf->pf->bounce;
    unsigned long *bits = output + VIFA_LOG_STEP_BYTES / sizeof(*bits);
    uint32_t generation = vf->generation;
    uint16_t status;

    if (dirty) {
        bitmap_copy_with_src_offset(bits, log->bitmap, first, count);
        bits[BIT_WORD(count - 1)] &= BITMAP_LAST_WORD_MASK(count);
        bitmap_to_le(output, bits, count);
    } else {
        bitmap_zero(output, count);
    }

    status = vifa_buffer_write(&command->buffer, command->done, output,
                               DIV_ROUND_UP(count, 8));
    if (status) {
        return status;
    }
    if (generation != vf->generation) {
        return VIFA_STATUS_ABORTED;
    }
    if (dirty) {
        vifa_log_clear(log, first, count);
    }

    return VIFA_STATUS_SUCCESS;
}

static uint16_t vifa_log_read_and_clear(VifaVF *vf, VifaCommand *command)
{
    uint64_t slice_end = command->done + VIFA_SLICE_BYTES;
    VifaLogPages pages;
    uint16_t status = vifa_log_find(&vf->log, command, 1, &pages);

    while (!status && command->done < DIV_ROUND_UP(pages.count, 8)) {
        uint64_t page = command->done * 8;
        uint64_t count = MIN(pages.count - page, VIFA_LOG_STEP_BYTES * 8);

        if (command->done == slice_end) {
            return VIFA_STATUS_BUSY;
        }
        status = vifa_log_move(vf, command, pages.first + page, count);
        command->done += DIV_ROUND_UP(count, 8);
    }

    if (!status) {
        vifa_log_report(&vf->log, command, &pages);
    }

    return status;
}

/*
 * Write one bit for each VIFA_LOG_SUMMARY_PAGES of the requested pages, which
 * can begin anywhere in a group. If a group is requested only in part, its
 * bitmap decides.
 */
static void vifa_log_summarize(const VifaLog *log, const VifaLogPages *pages,
                               unsigned long *summary)
{
    uint64_t pages_end = pages->first + pages->count;
    uint64_t end = vifa_log_groups_end(pages->first, pages->count);
    uint64_t group = pages->first / VIFA_LOG_SUMMARY_PAGES;

    while ((group = vifa_log_next_group(log, group, end)) < end) {
        uint64_t page = MAX(vifa_log_group_first(group), pages->first);
        uint64_t group_end = MIN(vifa_log_group_first(group + 1), pages_end);

        while (page < group_end) {
            uint64_t bit = (page - pages->first) / VIFA_LOG_SUMMARY_PAGES;
            uint64_t bit_end = MIN(pages->first + vifa_log_group_first(bit + 1),
                                   group_end);

            if (bit_end - page == VIFA_LOG_SUMMARY_PAGES ||
                vifa_log_any_dirty(log, page, bit_end - page)) {
                set_bit(bit, summary);
            }
            page = bit_end;
        }
        group++;
    }
}

static uint16_t vifa_log_summary(VifaVF *vf, VifaCommand *command)
{
    const VifaLog *log = &vf->log;
    g_autofree unsigned long *summary = NULL;
    g_autofree unsigned long *output = NULL;
    VifaLogPages pages;
    uint16_t status = vifa_log_find(log, command, VIFA_LOG_SUMMARY_PAGES,
                                    &pages);
    uint64_t bits;

    if (status) {
        return status;
    }

    bits = DIV_ROUND_UP(pages.count, VIFA_LOG_SUMMARY_PAGES);
    summary = bitmap_new(bits);
    output = bitmap_new(bits);
    vifa_log_summarize(log, &pages, summary);
    bitmap_to_le(output, summary, bits);
    vifa_log_report(log, command, &pages);

    return vifa_buffer_write(&command->buffer, 0, output,
                             DIV_ROUND_UP(bits, 8));
}

const VifaCommandType vifa_log_commands[] = {
    { VIFA_DATA_LOG_START, true, vifa_log_start },
    { VIFA_DATA_LOG_STOP, false, vifa_log_stop },
    { VIFA_DATA_LOG_READ_AND_CLEAR, true, vifa_log_read_and_clear },
    { VIFA_DATA_LOG_SUMMARY, true, vifa_log_summary },
    { }
};
