/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: virtual function.
 *
 * The registers that the guest sees, and the run state that the host sets.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/msix.h"
#include "hw/pci/pcie.h"
#include "hw/pci/pcie_sriov.h"
#include "migration/vmstate.h"
#include "trace.h"
#include "vifa.h"

#define VIFA_VF_MSIX_TABLE          0x000
#define VIFA_VF_MSIX_PBA            0x800

#define VIFA_VF_CAP_MSIX            0x40
#define VIFA_VF_CAP_EXPRESS         0x60
#define VIFA_VF_CAP_AER             0x100
#define VIFA_VF_CAP_ARI             0x150

static uint64_t vifa_vf_read(void *opaque, hwaddr address, unsigned int size)
{
    VifaVF *vf = opaque;

    return vf->pf->gone ? UINT32_MAX : vifa_engine_read(vf, address);
}

static void vifa_vf_write(void *opaque, hwaddr address, uint64_t value,
                          unsigned int size)
{
    VifaVF *vf = opaque;

    if (vf->run_state != VIFA_RUN_STATE_STOPPED && !vf->pf->gone) {
        vifa_engine_write(vf, address, value);
    }
}

static const MemoryRegionOps vifa_vf_ops = {
    .read = vifa_vf_read,
    .write = vifa_vf_write,
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

void vifa_vf_set_run_state(VifaVF *vf, uint32_t run_state)
{
    if (run_state == vf->run_state) {
        return;
    }
    trace_vifa_vf_run_state(vf->number, vf->run_state, run_state);
    vf->run_state = run_state;
    if (run_state == VIFA_RUN_STATE_RUNNING) {
        vifa_engine_resume(vf);
    } else {
        vifa_engine_suspend(vf);
    }
}

/* Reset of any kind: function level, of the PF, and VFs turned on or off. */
static void vifa_vf_reset_hold(Object *object, ResetType type)
{
    VifaVF *vf = VIFA_VF(object);

    trace_vifa_vf_reset(vf->number);
    vf->generation++;
    vf->run_state = vifa_fault_for_reset(vf->pf, vf->number);
    vifa_engine_reset(vf);
    vifa_log_reset(vf);
    vifa_local_reset(&vf->local);
    vifa_pf_cancel(vf->pf, vf->number);
}

static void vifa_vf_config_write(PCIDevice *device, uint32_t address,
                                 uint32_t value, int length)
{
    pci_default_write_config(device, address, value, length);
    pcie_cap_flr_write_config(device, address, value, length);
    pcie_aer_write_config(device, address, value, length);
}

/* Register the BARs of the PF's properties. All but two are empty. */
static void vifa_vf_register_bars(VifaVF *vf)
{
    const VifaPF *pf = vf->pf;

    for (int i = 0; i < VIFA_BARS; i++) {
        g_autofree char *name = g_strdup_printf("vifa-vf-bar%d", i);

        if (!pf->vf_bar_size[i]) {
            continue;
        }
        if (i == VIFA_REFERENCE_BAR) {
            memory_region_init_io(&vf->bars[i], OBJECT(vf), &vifa_vf_ops, vf,
                                  name, pf->vf_bar_size[i]);
        } else {
            memory_region_init(&vf->bars[i], OBJECT(vf), name,
                               pf->vf_bar_size[i]);
        }
        pci_register_bar(PCI_DEVICE(vf), i, vifa_pf_vf_bar_type(pf),
                         &vf->bars[i]);
    }
}

static void vifa_vf_realize(PCIDevice *device, Error **errp)
{
    VifaVF *vf = VIFA_VF(device);
    MemoryRegion *msix = &vf->bars[VIFA_REFERENCE_MSIX_BAR];

    vf->pf = VIFA_PF(pcie_sriov_get_pf(device));
    vf->number = pcie_sriov_vf_number(device);

    pci_config_set_revision(device->config, vf->pf->vf_revision_id);
    pci_set_word(device->config + PCI_SUBSYSTEM_VENDOR_ID,
                 vf->pf->vf_subsystem_vendor_id);
    pci_set_word(device->config + PCI_SUBSYSTEM_ID, vf->pf->vf_subsystem_id);
    vifa_pf_init_config(vf->pf, device);

    vifa_vf_register_bars(vf);
    if (msix_init(device, VIFA_REFERENCE_VECTORS,
                  msix, VIFA_REFERENCE_MSIX_BAR, VIFA_VF_MSIX_TABLE,
                  msix, VIFA_REFERENCE_MSIX_BAR, VIFA_VF_MSIX_PBA,
                  VIFA_VF_CAP_MSIX, errp)) {
        return;
    }
    for (unsigned int i = 0; i < VIFA_REFERENCE_VECTORS; i++) {
        msix_vector_use(device, i);
    }

    if (pcie_endpoint_cap_init(device, VIFA_VF_CAP_EXPRESS) < 0 ||
        pcie_aer_init(device, PCI_ERR_VER, VIFA_VF_CAP_AER,
                      PCI_ERR_SIZEOF, errp) < 0) {
        msix_uninit(device, msix, msix);
        return;
    }
    pcie_cap_flr_init(device);
    pcie_cap_deverr_init(device);
    pcie_ari_init(device, VIFA_VF_CAP_ARI);

    vifa_local_init(&vf->local, vf->pf->local_memory, vf->pf->granule);
    vifa_engine_init(vf);
}

static void vifa_vf_exit(PCIDevice *device)
{
    VifaVF *vf = VIFA_VF(device);
    MemoryRegion *msix = &vf->bars[VIFA_REFERENCE_MSIX_BAR];

    vifa_engine_cleanup(vf);
    vifa_log_reset(vf);
    vifa_local_cleanup(&vf->local);
    pcie_aer_exit(device);
    pcie_cap_exit(device);
    msix_unuse_all_vectors(device);
    msix_uninit(device, msix, msix);
}

static const VMStateDescription vifa_vf_vmstate = {
    .name = TYPE_VIFA_VF,
    .unmigratable = 1,
};

static void vifa_vf_class_init(ObjectClass *class, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(class);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(class);
    ResettableClass *rc = RESETTABLE_CLASS(class);

    pc->realize = vifa_vf_realize;
    pc->exit = vifa_vf_exit;
    pc->config_write = vifa_vf_config_write;
    pc->class_id = VIFA_PCI_CLASS;

    rc->phases.hold = vifa_vf_reset_hold;

    dc->desc = "VIFA reference device, virtual function";
    dc->user_creatable = false;
    dc->vmsd = &vifa_vf_vmstate;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo vifa_vf_type = {
    .name = TYPE_VIFA_VF,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(VifaVF),
    .class_init = vifa_vf_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void vifa_vf_register_types(void)
{
    type_register_static(&vifa_vf_type);
}

type_init(vifa_vf_register_types)
