/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: pages marked in the log without DMA.
 *
 * A test cannot write a tebibyte of memory. It sets the contents of the log
 * through registers in the layer frame (vifa_fault.h) instead.
 */
#include "qemu/osdep.h"
#include "vifa.h"

/* Alignment of the start of a pseudo-random run within its stride. */
#define VIFA_MARK_PAGE              (4 * KiB)

/* The generator xorshift64*. */
static uint64_t vifa_mark_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;

    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static bool vifa_mark_valid(const VifaMark *mark)
{
    return mark->length && mark->start + (mark->length - 1) >= mark->start &&
           mark->run && mark->run <= mark->stride;
}

/*
 * Mark the pages that the registers describe. Returns whether there were any.
 */
static bool vifa_mark_run(VifaPF *pf)
{
    const VifaMark *mark = &pf->mark;
    VifaVF *vf = mark->vf < pf->vfs ? vifa_pf_vf(pf, mark->vf) : NULL;
    uint64_t places, offset = 0, state = mark->seed;
    uint64_t marked = 0;

    if (!vf || !vifa_mark_valid(mark)) {
        return false;
    }
    if (mark->run == mark->stride) {
        return vifa_log_mark(vf, mark->start, mark->length);
    }

    places = (mark->stride - mark->run) / VIFA_MARK_PAGE + 1;
    do {
        uint64_t first = offset;

        if (mark->seed) {
            first += vifa_mark_random(&state) % places * VIFA_MARK_PAGE;
        }
        if (first < mark->length) {
            marked += vifa_log_mark(vf, mark->start + first,
                                    MIN(mark->run, mark->length - first));
        }
        offset += mark->stride;
    } while (offset >= mark->stride && offset < mark->length);

    return marked;
}

uint32_t vifa_mark_read(const VifaPF *pf, hwaddr address)
{
    const VifaMark *mark = &pf->mark;

    switch (address) {
    case VIFA_FAULT_MARK_VF:
        return mark->vf;
    case VIFA_FAULT_MARK_SEED:
        return mark->seed;
    case VIFA_FAULT_MARK_START_LOW:
        return mark->start;
    case VIFA_FAULT_MARK_START_HIGH:
        return mark->start >> 32;
    case VIFA_FAULT_MARK_LENGTH_LOW:
        return mark->length;
    case VIFA_FAULT_MARK_LENGTH_HIGH:
        return mark->length >> 32;
    case VIFA_FAULT_MARK_STRIDE_LOW:
        return mark->stride;
    case VIFA_FAULT_MARK_STRIDE_HIGH:
        return mark->stride >> 32;
    case VIFA_FAULT_MARK_RUN_LOW:
        return mark->run;
    case VIFA_FAULT_MARK_RUN_HIGH:
        return mark->run >> 32;
    case VIFA_FAULT_MARK:
        return mark->marked;
    default:
        return 0;
    }
}

void vifa_mark_write(VifaPF *pf, hwaddr address, uint32_t value)
{
    VifaMark *mark = &pf->mark;

    switch (address) {
    case VIFA_FAULT_MARK_VF:
        mark->vf = value;
        break;
    case VIFA_FAULT_MARK_SEED:
        mark->seed = value;
        break;
    case VIFA_FAULT_MARK_START_LOW:
        mark->start = deposit64(mark->start, 0, 32, value);
        break;
    case VIFA_FAULT_MARK_START_HIGH:
        mark->start = deposit64(mark->start, 32, 32, value);
        break;
    case VIFA_FAULT_MARK_LENGTH_LOW:
        mark->length = deposit64(mark->length, 0, 32, value);
        break;
    case VIFA_FAULT_MARK_LENGTH_HIGH:
        mark->length = deposit64(mark->length, 32, 32, value);
        break;
    case VIFA_FAULT_MARK_STRIDE_LOW:
        mark->stride = deposit64(mark->stride, 0, 32, value);
        break;
    case VIFA_FAULT_MARK_STRIDE_HIGH:
        mark->stride = deposit64(mark->stride, 32, 32, value);
        break;
    case VIFA_FAULT_MARK_RUN_LOW:
        mark->run = deposit64(mark->run, 0, 32, value);
        break;
    case VIFA_FAULT_MARK_RUN_HIGH:
        mark->run = deposit64(mark->run, 32, 32, value);
        break;
    case VIFA_FAULT_MARK:
        mark->marked = vifa_mark_run(pf);
        break;
    }
}
