/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: fault injection.
 *
 * Faults are set by the property "faults" or, if the property "fault-injection"
 * is on, by registers in the layer frame (vifa_fault.h). The command that a
 * fault affects depends only on the order of the commands, never on time.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "hw/pci/pcie.h"
#include "trace.h"
#include "vifa.h"

#define VIFA_FAULT_SLOT_SIZE        (VIFA_FAULT_SLOT(1) - VIFA_FAULT_SLOT(0))
#define VIFA_FAULT_DELAY_MAX_MS     (600 * 1000)

static const char *const vifa_fault_names[] = {
    [VIFA_FAULT_STATUS] = "status",
    [VIFA_FAULT_HANG] = "hang",
    [VIFA_FAULT_HANG_ABORT] = "hang-abort",
    [VIFA_FAULT_DELAY] = "delay",
    [VIFA_FAULT_SHORT_RESULT] = "short-result",
    [VIFA_FAULT_SHORT_DATA] = "short-data",
    [VIFA_FAULT_RESULT] = "result",
    [VIFA_FAULT_PATCH] = "patch",
    [VIFA_FAULT_TAG] = "tag",
    [VIFA_FAULT_NO_INTERRUPT] = "no-interrupt",
    [VIFA_FAULT_LOG_LOST] = "log-lost",
    [VIFA_FAULT_LOG_DROP] = "log-drop",
    [VIFA_FAULT_FLOOD] = "flood",
    [VIFA_FAULT_RESET] = "reset",
};

/* Returns the name of an invalid field of a fault to be armed, or NULL. */
static const char *vifa_fault_check(const VifaFault *fault)
{
    if (!fault->kind || fault->kind >= ARRAY_SIZE(vifa_fault_names) ||
        !vifa_fault_names[fault->kind]) {
        return "kind";
    }
    if (fault->vf != VIFA_FAULT_ANY_VF && fault->vf >= VIFA_VFS_MAX) {
        return "vf";
    }
    if (fault->frame && fault->frame != VIFA_MAILBOX_ID_CONTROL &&
        fault->frame != VIFA_MAILBOX_ID_DATA) {
        return "frame";
    }
    if (fault->opcode > VIFA_MAILBOX_COMMAND_OPCODE) {
        return "opcode";
    }

    switch (fault->kind) {
    case VIFA_FAULT_HANG:
        return fault->value <= UINT16_MAX ? NULL : "value";
    case VIFA_FAULT_STATUS:
        return fault->value && fault->value < VIFA_STATUS_BUSY ? NULL : "value";
    case VIFA_FAULT_RESET:
        return fault->value <= VIFA_RUN_STATE_STOPPED ? NULL : "value";
    case VIFA_FAULT_DELAY:
        return fault->value <= VIFA_FAULT_DELAY_MAX_MS ? NULL : "value";
    case VIFA_FAULT_LOG_DROP:
        return fault->value ? NULL : "value";
    case VIFA_FAULT_PATCH:
        return fault->width >= 1 && fault->width <= 8 ? NULL : "width";
    default:
        return NULL;
    }
}

static void vifa_fault_fire(VifaPF *pf, VifaFault *fault, uint16_t vf)
{
    fault->fired++;
    if (fault->count != VIFA_FAULT_ALWAYS) {
        fault->count--;
    }
    trace_vifa_fault_fire(fault - pf->faults, fault->kind, vf);
}

static bool vifa_fault_armed(const VifaFault *fault, uint16_t vf)
{
    return fault->count && (fault->vf == VIFA_FAULT_ANY_VF || fault->vf == vf);
}

/*
 * Find the faults of a command, in an array with room for all slots: the first
 * that matches and, if that is a patch, the other patches that match.
 */
void vifa_fault_for_command(VifaPF *pf, uint16_t vf, uint32_t kind,
                            uint16_t opcode, VifaFault *faults)
{
    size_t count = 0;

    memset(faults, 0, sizeof(pf->faults));
    for (size_t i = 0; i < ARRAY_SIZE(pf->faults); i++) {
        VifaFault *fault = &pf->faults[i];

        if (!vifa_fault_armed(fault, vf) ||
            fault->kind == VIFA_FAULT_LOG_DROP ||
            fault->kind == VIFA_FAULT_RESET ||
            (fault->frame && fault->frame != kind) ||
            (fault->opcode && fault->opcode != opcode) ||
            (count && fault->kind != VIFA_FAULT_PATCH)) {
            continue;
        }
        vifa_fault_fire(pf, fault, vf);
        faults[count++] = *fault;
        if (fault->kind != VIFA_FAULT_PATCH) {
            return;
        }
    }
}

/* The run state in which a reset leaves a VF. */
uint32_t vifa_fault_for_reset(VifaPF *pf, uint16_t vf)
{
    for (size_t i = 0; i < ARRAY_SIZE(pf->faults); i++) {
        VifaFault *fault = &pf->faults[i];

        if (vifa_fault_armed(fault, vf) && fault->kind == VIFA_FAULT_RESET) {
            vifa_fault_fire(pf, fault, vf);
            return fault->value;
        }
    }

    return VIFA_RUN_STATE_RUNNING;
}

static bool vifa_fault_drops_pages(const VifaFault *fault, uint16_t vf)
{
    return vifa_fault_armed(fault, vf) && fault->kind == VIFA_FAULT_LOG_DROP;
}

/*
 * Return how many of the next @pages pages that the VF writes are logged
 * before one is not. Count these pages, and the one that is not logged.
 */
uint64_t vifa_fault_pass_pages(VifaPF *pf, uint16_t vf, uint64_t pages)
{
    uint64_t logged = pages;
    bool armed = false;

    for (size_t i = 0; i < ARRAY_SIZE(pf->faults); i++) {
        const VifaFault *fault = &pf->faults[i];

        if (vifa_fault_drops_pages(fault, vf)) {
            logged = MIN(logged, fault->value - fault->pages - 1);
            armed = true;
        }
    }
    if (!armed) {
        return pages;
    }

    for (size_t i = 0; i < ARRAY_SIZE(pf->faults); i++) {
        VifaFault *fault = &pf->faults[i];

        if (vifa_fault_drops_pages(fault, vf)) {
            fault->pages += logged;
        }
    }
    if (logged == pages) {
        return logged;
    }

    /* The dropped page counts for all slots up to the one that drops it. */
    for (size_t i = 0; i < ARRAY_SIZE(pf->faults); i++) {
        VifaFault *fault = &pf->faults[i];

        if (vifa_fault_drops_pages(fault, vf) &&
            ++fault->pages == fault->value) {
            fault->pages = 0;
            vifa_fault_fire(pf, fault, vf);
            break;
        }
    }

    return logged;
}

static VifaFault *vifa_fault_slot(VifaPF *pf, hwaddr address)
{
    hwaddr slot = (address - VIFA_FAULT_SLOT(0)) / VIFA_FAULT_SLOT_SIZE;

    return address >= VIFA_FAULT_SLOT(0) && slot < ARRAY_SIZE(pf->faults) ?
           &pf->faults[slot] : NULL;
}

/* A register of the PF's DVSEC in configuration space, or NULL. */
static uint8_t *vifa_fault_dvsec(VifaPF *pf, hwaddr address)
{
    PCIDevice *device = PCI_DEVICE(pf);
    uint16_t at = pcie_find_capability(device, PCI_EXT_CAP_ID_DVSEC);

    if (address < VIFA_FAULT_DVSEC ||
        address >= VIFA_FAULT_DVSEC + VIFA_DVSEC_LENGTH) {
        return NULL;
    }

    return device->config + at + (address - VIFA_FAULT_DVSEC);
}

uint32_t vifa_fault_read(VifaPF *pf, hwaddr address)
{
    const uint8_t *dvsec = vifa_fault_dvsec(pf, address);
    const VifaFault *fault = vifa_fault_slot(pf, address);

    if (address == VIFA_FAULT_SLOTS) {
        return ARRAY_SIZE(pf->faults);
    }
    if (address == VIFA_FAULT_SCATTER_MAX) {
        return pf->scatter_max;
    }
    if (address == VIFA_FAULT_LOG_RANGES) {
        return pf->log_ranges;
    }
    if (dvsec) {
        return pci_get_long(dvsec);
    }
    if (!fault) {
        return vifa_mark_read(pf, address);
    }

    switch (address % VIFA_FAULT_SLOT_SIZE) {
    case VIFA_FAULT_KIND:
        return fault->kind;
    case VIFA_FAULT_VF:
        return fault->vf;
    case VIFA_FAULT_FRAME:
        return fault->frame;
    case VIFA_FAULT_OPCODE:
        return fault->opcode;
    case VIFA_FAULT_VALUE_LOW:
        return fault->value;
    case VIFA_FAULT_VALUE_HIGH:
        return fault->value >> 32;
    case VIFA_FAULT_OFFSET:
        return fault->offset;
    case VIFA_FAULT_WIDTH:
        return fault->width;
    case VIFA_FAULT_COUNT:
        return fault->count;
    case VIFA_FAULT_FIRED:
        return fault->fired;
    default:
        return 0;
    }
}

/* Let the function in VIFA_FAULT_ERROR_VF report an uncorrectable error. */
static void vifa_fault_report_error(VifaPF *pf, uint32_t status)
{
    PCIDevice *function = PCI_DEVICE(pf);
    PCIEAERErr error = { .status = status };

    if (pf->error_vf != VIFA_FAULT_ANY_VF) {
        VifaVF *vf = vifa_pf_vf(pf, pf->error_vf);

        if (!vf) {
            return;
        }
        function = PCI_DEVICE(vf);
    }
    error.source_id = pci_requester_id(function);
    pcie_aer_inject_error(function, &error);
}

/* A removed device does nothing, and has dropped its commands. */
static void vifa_fault_set_gone(VifaPF *pf, bool gone)
{
    if (gone && !pf->gone) {
        for (uint16_t i = 0; i < pf->vfs; i++) {
            VifaVF *vf = vifa_pf_vf(pf, i);

            if (vf) {
                vifa_vf_set_run_state(vf, VIFA_RUN_STATE_STOPPED);
            }
        }
        vifa_pf_reset_mailboxes(pf);
    }
    pf->gone = gone;
}

void vifa_fault_write(VifaPF *pf, hwaddr address, uint32_t value)
{
    VifaFault *fault = vifa_fault_slot(pf, address);
    uint8_t *dvsec = vifa_fault_dvsec(pf, address);

    if (address == VIFA_FAULT_GONE) {
        vifa_fault_set_gone(pf, value & 1);
        return;
    }
    if (pf->gone) {
        return;
    }
    if (address == VIFA_FAULT_ERROR_VF) {
        pf->error_vf = value;
        return;
    }
    if (address == VIFA_FAULT_ERROR) {
        vifa_fault_report_error(pf, value);
        return;
    }
    if (address == VIFA_FAULT_SCATTER_MAX) {
        if (value >= 1 && value <= VIFA_SCATTER_MAX) {
            pf->scatter_max = value;
        }
        return;
    }
    if (address == VIFA_FAULT_LOG_RANGES) {
        if (value >= 1 && value <= VIFA_LOG_RANGES_MAX) {
            pf->log_ranges = value;
        }
        return;
    }
    if (dvsec) {
        pci_set_long(dvsec, value);
        return;
    }
    if (!fault) {
        vifa_mark_write(pf, address, value);
        return;
    }

    switch (address % VIFA_FAULT_SLOT_SIZE) {
    case VIFA_FAULT_KIND:
        fault->kind = value;
        break;
    case VIFA_FAULT_VF:
        fault->vf = value;
        break;
    case VIFA_FAULT_FRAME:
        fault->frame = value;
        break;
    case VIFA_FAULT_OPCODE:
        fault->opcode = value;
        break;
    case VIFA_FAULT_VALUE_LOW:
        fault->value = deposit64(fault->value, 0, 32, value);
        break;
    case VIFA_FAULT_VALUE_HIGH:
        fault->value = deposit64(fault->value, 32, 32, value);
        break;
    case VIFA_FAULT_OFFSET:
        fault->offset = value;
        break;
    case VIFA_FAULT_WIDTH:
        fault->width = value;
        break;
    case VIFA_FAULT_COUNT:
        fault->count = vifa_fault_check(fault) ? 0 : value;
        fault->fired = 0;
        fault->pages = 0;
        return;
    default:
        return;
    }
    fault->count = 0;
}

static bool vifa_fault_parse_field(VifaFault *fault, const char *key,
                                   const char *text)
{
    uint64_t value;

    if (!strcmp(key, "frame") && !strcmp(text, "control")) {
        fault->frame = VIFA_MAILBOX_ID_CONTROL;
        return true;
    }
    if (!strcmp(key, "frame") && !strcmp(text, "data")) {
        fault->frame = VIFA_MAILBOX_ID_DATA;
        return true;
    }
    if (parse_uint_full(text, 0, &value)) {
        return false;
    }
    if (!strcmp(key, "value")) {
        fault->value = value;
        return true;
    }
    if (value > UINT32_MAX) {
        return false;
    }
    if (!strcmp(key, "vf")) {
        fault->vf = value;
    } else if (!strcmp(key, "opcode")) {
        fault->opcode = value;
    } else if (!strcmp(key, "offset")) {
        fault->offset = value;
    } else if (!strcmp(key, "width")) {
        fault->width = value;
    } else if (!strcmp(key, "count")) {
        fault->count = value;
    } else {
        return false;
    }

    return true;
}

static bool vifa_fault_parse(VifaFault *fault, const char *text, Error **errp)
{
    g_auto(GStrv) fields = g_strsplit(text, ":", -1);
    const char *wrong;

    *fault = (VifaFault) { .vf = VIFA_FAULT_ANY_VF, .count = 1 };

    for (size_t i = 1; i < ARRAY_SIZE(vifa_fault_names); i++) {
        if (!g_strcmp0(fields[0], vifa_fault_names[i])) {
            fault->kind = i;
        }
    }
    for (char **field = fields; *field && *++field;) {
        g_auto(GStrv) pair = g_strsplit(*field, "=", 2);

        if (!pair[0] || !pair[1] ||
            !vifa_fault_parse_field(fault, pair[0], pair[1])) {
            error_setg(errp, "faults: invalid \"%s\" in \"%s\"", *field,
                       text);
            return false;
        }
    }

    wrong = vifa_fault_check(fault);
    if (wrong) {
        error_setg(errp, "faults: \"%s\" has an invalid %s", text, wrong);
        return false;
    }

    return true;
}

void vifa_fault_set_property(Object *object, const char *text, Error **errp)
{
    VifaPF *pf = VIFA_PF(object);
    VifaFault faults[VIFA_FAULT_SLOT_COUNT] = { };
    g_auto(GStrv) parts = g_strsplit(text, "/", -1);

    if (g_strv_length(parts) > ARRAY_SIZE(faults)) {
        error_setg(errp, "faults: more than %zu faults", ARRAY_SIZE(faults));
        return;
    }
    for (size_t i = 0; parts[i]; i++) {
        if (!vifa_fault_parse(&faults[i], parts[i], errp)) {
            return;
        }
    }
    memcpy(pf->faults, faults, sizeof(faults));
}

char *vifa_fault_get_property(Object *object, Error **errp)
{
    const VifaPF *pf = VIFA_PF(object);
    g_autoptr(GString) text = g_string_new(NULL);

    for (size_t i = 0; i < ARRAY_SIZE(pf->faults); i++) {
        const VifaFault *fault = &pf->faults[i];

        if (!fault->count) {
            continue;
        }
        g_string_append_printf(text, "%s%s", text->len ? "/" : "",
                               vifa_fault_names[fault->kind]);
        if (fault->vf != VIFA_FAULT_ANY_VF) {
            g_string_append_printf(text, ":vf=%u", fault->vf);
        }
        if (fault->frame) {
            g_string_append_printf(text, ":frame=%s",
                                   fault->frame == VIFA_MAILBOX_ID_CONTROL ?
                                   "control" : "data");
        }
        g_string_append_printf(text, ":opcode=%u:value=%" PRIu64
                               ":offset=%u:width=%u:count=%u", fault->opcode,
                               fault->value, fault->offset, fault->width,
                               fault->count);
    }

    return g_string_free(g_steal_pointer(&text), false);
}
