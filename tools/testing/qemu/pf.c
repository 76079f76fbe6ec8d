/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: physical function.
 *
 * Its capability in configuration space contains the location of the register
 * file, through which the host migrates the virtual functions.
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qapi/error.h"
#include "hw/pci/msix.h"
#include "hw/pci/pcie.h"
#include "hw/pci/pcie_sriov.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "vifa.h"

#define VIFA_PF_REGISTERS_BAR       0
#define VIFA_PF_MSIX_BAR            2

#define VIFA_PF_CAP_EXPRESS         0x60
#define VIFA_PF_CAP_AER             0x100
#define VIFA_PF_CAP_ARI             0x150
#define VIFA_PF_CAP_DVSEC           0x160
#define VIFA_PF_CAP_SRIOV           0x180   /* last: its reset overruns it */

/* 64 VFs each of two PFs, at functions 0 and 1 of slot 0, fit on a bus. */
#define VIFA_PF_VF_OFFSET           0x80
#define VIFA_PF_VF_STRIDE           2

#define VIFA_PF_REVISION_ID         1

#define VIFA_PF_VECTORS_MAX         (1 + 2 * VIFA_VFS_MAX)
#define VIFA_PF_TIMEOUT_MAX_MS      (600 * 1000)

static uint32_t vifa_pf_frames(const VifaPF *pf)
{
    return 1 + 2 * pf->vfs;
}

uint32_t vifa_pf_features(const VifaPF *pf)
{
    return (pf->p2p ? VIFA_HW_FEATURE_P2P : 0) |
           (pf->dirty_log ? VIFA_HW_FEATURE_DIRTY_LOG : 0) |
           (pf->local_memory ? VIFA_HW_FEATURE_LOCAL_MEMORY : 0) |
           (pf->local_memory && pf->local_dirty ?
            VIFA_HW_FEATURE_LOCAL_DIRTY : 0);
}

/* The lowest bits of each BAR of the VFs. */
uint8_t vifa_pf_vf_bar_type(const VifaPF *pf)
{
    return pf->vf_bar_bits == 64 ?
           PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH :
           PCI_BASE_ADDRESS_MEM_TYPE_32;
}

/*
 * Initializes the parts of configuration space that the PF and its VFs share.
 * Call it before capabilities are added.
 */
void vifa_pf_init_config(const VifaPF *pf, PCIDevice *device)
{
    /* By default, QEMU makes the space between capabilities writable. */
    memset(device->wmask + PCI_CONFIG_HEADER_SIZE, 0,
           pci_config_size(device) - PCI_CONFIG_HEADER_SIZE);
    if (pf->immediate_readiness) {
        pci_word_test_and_set_mask(device->config + PCI_STATUS,
                                   PCI_STATUS_IMM_READY);
    }
}

/* The VF with this index, or NULL if it is not enabled. */
VifaVF *vifa_pf_vf(VifaPF *pf, uint16_t number)
{
    PCIDevice *device = pcie_sriov_get_vf_at_index(PCI_DEVICE(pf), number);

    return device ? VIFA_VF(device) : NULL;
}

/* End the commands of a VF's frames, because the VF is being reset. */
void vifa_pf_cancel(VifaPF *pf, uint16_t number)
{
    vifa_mailbox_cancel(&pf->mailboxes[2 * number]);
    vifa_mailbox_cancel(&pf->mailboxes[2 * number + 1]);
}

static uint32_t vifa_pf_read_layer(VifaPF *pf, hwaddr address)
{
    switch (address) {
    case VIFA_LAYER_MAGIC:
        return VIFA_HW_MAGIC;
    case VIFA_LAYER_REVISION:
        return VIFA_HW_REVISION;
    case VIFA_LAYER_FEATURES:
        return vifa_pf_features(pf);
    case VIFA_LAYER_VFS:
        return pf->vfs;
    case VIFA_LAYER_SCATTER_MAX:
        return pf->scatter_max;
    case VIFA_LAYER_VECTORS:
        return pf->vectors;
    case VIFA_LAYER_LOG_RANGES:
        return pf->log_ranges;
    default:
        return pf->fault_injection ? vifa_fault_read(pf, address) : 0;
    }
}

static uint64_t vifa_pf_read(void *opaque, hwaddr address, unsigned int size)
{
    VifaPF *pf = opaque;
    uint32_t frame = address / VIFA_HW_FRAME_SIZE;

    if (pf->gone) {
        return UINT32_MAX;
    }
    address %= VIFA_HW_FRAME_SIZE;
    if (frame == VIFA_HW_FRAME_LAYER) {
        return vifa_pf_read_layer(pf, address);
    }
    if (frame >= vifa_pf_frames(pf)) {
        return 0;
    }

    return vifa_mailbox_read(&pf->mailboxes[frame - VIFA_HW_FRAME_CONTROL(0)],
                             address);
}

static void vifa_pf_write(void *opaque, hwaddr address, uint64_t value,
                          unsigned int size)
{
    VifaPF *pf = opaque;
    uint32_t frame = address / VIFA_HW_FRAME_SIZE;

    address %= VIFA_HW_FRAME_SIZE;
    if (frame == VIFA_HW_FRAME_LAYER) {
        if (pf->fault_injection) {
            vifa_fault_write(pf, address, value);
        }
    } else if (frame < vifa_pf_frames(pf) && !pf->gone) {
        vifa_mailbox_write(&pf->mailboxes[frame - VIFA_HW_FRAME_CONTROL(0)],
                           address, value);
    }
}

static const MemoryRegionOps vifa_pf_ops = {
    .read = vifa_pf_read,
    .write = vifa_pf_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {
        .min_access_size = 4,
        .max_access_size = 4,
    },
    .impl = {
        .min_access_size = 4,
        .max_access_size = 4,
    },
};

static void vifa_pf_config_write(PCIDevice *device, uint32_t address,
                                 uint32_t value, int length)
{
    pci_default_write_config(device, address, value, length);
    pcie_cap_flr_write_config(device, address, value, length);
    pcie_aer_write_config(device, address, value, length);
}

void vifa_pf_reset_mailboxes(VifaPF *pf)
{
    for (uint32_t i = 0; i < 2 * pf->vfs; i++) {
        vifa_mailbox_reset(&pf->mailboxes[i]);
    }
}

/* The SR-IOV code turns the VFs off, which resets them. */
static void vifa_pf_reset_hold(Object *object, ResetType type)
{
    VifaPF *pf = VIFA_PF(object);

    pf->gone = false;
    vifa_pf_reset_mailboxes(pf);
}

/* Check the properties that the PCI core uses for the VFs. */
static bool vifa_pf_check_vf_properties(const VifaPF *pf, Error **errp)
{
    const struct {
        const char *name;
        uint16_t id;
    } ids[] = {
        { "vendor-id", pf->vendor_id },
        { "vf-device-id", pf->vf_device_id },
        { "vf-subsystem-vendor-id", pf->vf_subsystem_vendor_id },
    };

    /* These values mean that the function does not exist. */
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        if (ids[i].id == 0 || ids[i].id == 0xffff) {
            error_setg(errp, "%s: must be from 1 to 0xfffe", ids[i].name);
            return false;
        }
    }
    if (pf->vf_bar_bits != 32 && pf->vf_bar_bits != 64) {
        error_setg(errp, "vf-bar-bits: must be 32 or 64");
        return false;
    }
    for (int i = 0; i < VIFA_BARS; i++) {
        uint64_t size = pf->vf_bar_size[i];

        if (!size) {
            if (i == VIFA_REFERENCE_BAR || i == VIFA_REFERENCE_MSIX_BAR) {
                error_setg(errp, "vf-bar%d-size: must not be 0", i);
                return false;
            }
            continue;
        }
        if (!is_power_of_2(size) || size < VIFA_BAR_SIZE_MIN ||
            size > VIFA_BAR_SIZE_MAX) {
            error_setg(errp, "vf-bar%d-size: must be a power of two"
                       " from %" PRIu64 " to %" PRIu64, i,
                       (uint64_t)VIFA_BAR_SIZE_MIN,
                       (uint64_t)VIFA_BAR_SIZE_MAX);
            return false;
        }
        if (i % 2 && pf->vf_bar_bits == 64) {
            error_setg(errp, "vf-bar%d-size: must be 0, as the BAR is the upper"
                       " half of a 64-bit BAR", i);
            return false;
        }
    }

    return true;
}

/* Reject invalid properties by name. */
static bool vifa_pf_check_properties(VifaPF *pf, Error **errp)
{
    int last_devfn = PCI_DEVICE(pf)->devfn + VIFA_PF_VF_OFFSET +
                     (pf->vfs - 1) * VIFA_PF_VF_STRIDE;

    if (pf->vfs < 1 || pf->vfs > VIFA_VFS_MAX) {
        error_setg(errp, "vfs: must be from 1 to %d", VIFA_VFS_MAX);
        return false;
    }
    if (last_devfn >= PCI_DEVFN_MAX) {
        error_setg(errp, "vfs: %u do not fit on the bus after addr %02x.%x",
                   pf->vfs, PCI_SLOT(PCI_DEVICE(pf)->devfn),
                   PCI_FUNC(PCI_DEVICE(pf)->devfn));
        return false;
    }
    if (!is_power_of_2(pf->granule) || pf->granule < VIFA_LOCAL_GRANULE_MIN ||
        pf->granule > VIFA_LOCAL_GRANULE_MAX) {
        error_setg(errp, "granule: must be a power of two from %d to %d",
                   VIFA_LOCAL_GRANULE_MIN, VIFA_LOCAL_GRANULE_MAX);
        return false;
    }
    if (pf->local_memory % pf->granule ||
        pf->local_memory / pf->granule > VIFA_LOCAL_GRANULES_MAX) {
        error_setg(errp, "local-memory: must be a multiple of the granule, and"
                   " at most %d granules", VIFA_LOCAL_GRANULES_MAX);
        return false;
    }
    if (pf->vectors < 1 || pf->vectors > VIFA_PF_VECTORS_MAX) {
        error_setg(errp, "vectors: must be from 1 to %d", VIFA_PF_VECTORS_MAX);
        return false;
    }
    if (pf->scatter_max < 1 || pf->scatter_max > VIFA_SCATTER_MAX) {
        error_setg(errp, "scatter-max: must be from 1 to %d", VIFA_SCATTER_MAX);
        return false;
    }
    if (pf->log_ranges < 1 || pf->log_ranges > VIFA_LOG_RANGES_MAX) {
        error_setg(errp, "log-ranges: must be from 1 to %d",
                   VIFA_LOG_RANGES_MAX);
        return false;
    }
    if (pf->command_timeout_ms < 1 ||
        pf->command_timeout_ms > VIFA_PF_TIMEOUT_MAX_MS) {
        error_setg(errp, "command-timeout-ms: must be from 1 to %d",
                   VIFA_PF_TIMEOUT_MAX_MS);
        return false;
    }

    return vifa_pf_check_vf_properties(pf, errp);
}

static void vifa_pf_add_dvsec(VifaPF *pf)
{
    PCIDevice *device = PCI_DEVICE(pf);
    uint8_t *config = device->config + VIFA_PF_CAP_DVSEC;

    pcie_add_capability(device, PCI_EXT_CAP_ID_DVSEC, 1, VIFA_PF_CAP_DVSEC,
                        VIFA_DVSEC_LENGTH);
    pci_set_long(config + PCI_DVSEC_HEADER1,
                 VIFA_DVSEC_VENDOR | VIFA_HW_REVISION << 16 |
                 VIFA_DVSEC_LENGTH << 20);
    pci_set_word(config + PCI_DVSEC_HEADER2, VIFA_DVSEC_ID);
    pci_set_word(config + VIFA_DVSEC_REVISION, VIFA_HW_REVISION);
    pci_set_long(config + VIFA_DVSEC_FEATURES, vifa_pf_features(pf));
    pci_set_long(config + VIFA_DVSEC_LOCATION, VIFA_PF_REGISTERS_BAR);
    pci_set_long(config + VIFA_DVSEC_TIMEOUT, pf->command_timeout_ms);
    pci_set_long(config + VIFA_DVSEC_FRAMES, vifa_pf_frames(pf));
}

static void vifa_pf_init_mailboxes(VifaPF *pf)
{
    pf->mailboxes = g_new0(VifaMailbox, 2 * pf->vfs);
    for (uint16_t i = 0; i < pf->vfs; i++) {
        vifa_mailbox_init(&pf->mailboxes[2 * i], pf, i,
                          VIFA_MAILBOX_ID_CONTROL);
        vifa_mailbox_init(&pf->mailboxes[2 * i + 1], pf, i,
                          VIFA_MAILBOX_ID_DATA);
    }
    pf->bounce = g_malloc(VIFA_BOUNCE_BYTES);
}

static void vifa_pf_cleanup_mailboxes(VifaPF *pf)
{
    for (uint32_t i = 0; i < 2 * pf->vfs; i++) {
        vifa_mailbox_cleanup(&pf->mailboxes[i]);
    }
    g_free(pf->mailboxes);
    g_free(pf->bounce);
}

static bool vifa_pf_init_sriov(VifaPF *pf, Error **errp)
{
    PCIDevice *device = PCI_DEVICE(pf);

    if (!pcie_sriov_pf_init(device, VIFA_PF_CAP_SRIOV, TYPE_VIFA_VF,
                            pf->vf_device_id, pf->vfs, pf->vfs,
                            VIFA_PF_VF_OFFSET, VIFA_PF_VF_STRIDE, errp)) {
        return false;
    }
    for (int i = 0; i < VIFA_BARS; i++) {
        if (pf->vf_bar_size[i]) {
            pcie_sriov_pf_init_vf_bar(device, i, vifa_pf_vf_bar_type(pf),
                                      pf->vf_bar_size[i]);
        }
    }

    return true;
}

static void vifa_pf_realize(PCIDevice *device, Error **errp)
{
    VifaPF *pf = VIFA_PF(device);

    if (!vifa_pf_check_properties(pf, errp)) {
        return;
    }

    /* The VFs use the PF's vendor ID; they do not have their own. */
    pci_config_set_vendor_id(device->config, pf->vendor_id);
    vifa_pf_init_config(pf, device);

    memory_region_init_io(&pf->registers, OBJECT(pf), &vifa_pf_ops, pf,
                          "vifa-pf-registers",
                          pow2ceil(vifa_pf_frames(pf) * VIFA_HW_FRAME_SIZE));
    pci_register_bar(device, VIFA_PF_REGISTERS_BAR,
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &pf->registers);
    if (msix_init_exclusive_bar(device, pf->vectors, VIFA_PF_MSIX_BAR, errp)) {
        return;
    }
    for (unsigned int i = 0; i < pf->vectors; i++) {
        msix_vector_use(device, i);
    }

    if (pcie_endpoint_cap_init(device, VIFA_PF_CAP_EXPRESS) < 0 ||
        pcie_aer_init(device, PCI_ERR_VER, VIFA_PF_CAP_AER,
                      PCI_ERR_SIZEOF, errp) < 0) {
        msix_uninit_exclusive_bar(device);
        return;
    }
    pcie_cap_flr_init(device);
    pcie_cap_deverr_init(device);
    pcie_ari_init(device, VIFA_PF_CAP_ARI);
    vifa_pf_add_dvsec(pf);

    vifa_pf_init_mailboxes(pf);
    if (!vifa_pf_init_sriov(pf, errp)) {
        vifa_pf_cleanup_mailboxes(pf);
        pcie_aer_exit(device);
        pcie_cap_exit(device);
        msix_uninit_exclusive_bar(device);
    }
}

static void vifa_pf_exit(PCIDevice *device)
{
    VifaPF *pf = VIFA_PF(device);

    pcie_sriov_pf_exit(device);
    vifa_pf_cleanup_mailboxes(pf);
    pcie_aer_exit(device);
    pcie_cap_exit(device);
    msix_unuse_all_vectors(device);
    msix_uninit_exclusive_bar(device);
}

static const Property vifa_pf_properties[] = {
    DEFINE_PROP_UINT16("vfs", VifaPF, vfs, 8),
    DEFINE_PROP_UINT16("vectors", VifaPF, vectors, 1 + VIFA_VFS_MAX),
    DEFINE_PROP_UINT16("scatter-max", VifaPF, scatter_max, VIFA_SCATTER_MAX),
    DEFINE_PROP_UINT16("log-ranges", VifaPF, log_ranges, VIFA_LOG_RANGES_MAX),
    DEFINE_PROP_SIZE("local-memory", VifaPF, local_memory, 16 * MiB),
    DEFINE_PROP_SIZE32("granule", VifaPF, granule, 16 * KiB),
    DEFINE_PROP_UINT32("command-timeout-ms", VifaPF, command_timeout_ms, 2000),
    DEFINE_PROP_UINT16("vendor-id", VifaPF, vendor_id, VIFA_REFERENCE_VENDOR),
    DEFINE_PROP_UINT16("vf-device-id", VifaPF, vf_device_id,
                       VIFA_REFERENCE_VF_DEVICE),
    DEFINE_PROP_UINT16("vf-subsystem-vendor-id", VifaPF, vf_subsystem_vendor_id,
                       PCI_SUBVENDOR_ID_REDHAT_QUMRANET),
    DEFINE_PROP_UINT16("vf-subsystem-id", VifaPF, vf_subsystem_id,
                       PCI_SUBDEVICE_ID_QEMU),
    DEFINE_PROP_UINT8("vf-revision-id", VifaPF, vf_revision_id, 1),
    DEFINE_PROP_UINT8("vf-bar-bits", VifaPF, vf_bar_bits, 64),
    DEFINE_PROP_SIZE("vf-bar0-size", VifaPF, vf_bar_size[0], 4 * KiB),
    DEFINE_PROP_SIZE("vf-bar1-size", VifaPF, vf_bar_size[1], 0),
    DEFINE_PROP_SIZE("vf-bar2-size", VifaPF, vf_bar_size[2], 0),
    DEFINE_PROP_SIZE("vf-bar3-size", VifaPF, vf_bar_size[3], 0),
    DEFINE_PROP_SIZE("vf-bar4-size", VifaPF, vf_bar_size[4], 4 * KiB),
    DEFINE_PROP_SIZE("vf-bar5-size", VifaPF, vf_bar_size[5], 0),
    DEFINE_PROP_BOOL("p2p", VifaPF, p2p, true),
    DEFINE_PROP_BOOL("dirty-log", VifaPF, dirty_log, true),
    DEFINE_PROP_BOOL("local-dirty", VifaPF, local_dirty, true),
    DEFINE_PROP_BOOL("immediate-readiness", VifaPF, immediate_readiness, false),
    DEFINE_PROP_BOOL("fault-injection", VifaPF, fault_injection, false),
};

static const VMStateDescription vifa_pf_vmstate = {
    .name = TYPE_VIFA_PF,
    .unmigratable = 1,
};

static void vifa_pf_class_init(ObjectClass *class, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(class);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(class);
    ResettableClass *rc = RESETTABLE_CLASS(class);

    pc->realize = vifa_pf_realize;
    pc->exit = vifa_pf_exit;
    pc->config_write = vifa_pf_config_write;
    pc->vendor_id = VIFA_REFERENCE_VENDOR;
    pc->device_id = VIFA_REFERENCE_PF_DEVICE;
    pc->revision = VIFA_PF_REVISION_ID;
    pc->class_id = VIFA_PCI_CLASS;

    rc->phases.hold = vifa_pf_reset_hold;

    dc->desc = "VIFA reference device";
    dc->vmsd = &vifa_pf_vmstate;
    device_class_set_props(dc, vifa_pf_properties);
    object_class_property_add_str(class, "faults", vifa_fault_get_property,
                                  vifa_fault_set_property);
    object_class_property_set_description(class, "faults",
        "Faults to inject: KIND[:FIELD=VALUE...][/KIND...]");
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo vifa_pf_type = {
    .name = TYPE_VIFA_PF,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(VifaPF),
    .class_init = vifa_pf_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void vifa_pf_register_types(void)
{
    type_register_static(&vifa_pf_type);
}

type_init(vifa_pf_register_types)
