// SPDX-License-Identifier: GPL-2.0-only
/*
 * Adds the driver to libvfio without a change of its sources: the programs are
 * linked with --wrap=vfio_pci_driver_probe, so that this looks first. In the
 * kernel's tree, it is an entry of driver_ops[] in lib/vfio_pci_driver.c.
 */
#include <libvfio.h>

extern const struct vfio_pci_driver_ops vifa_ops;

/* The linker's names of libvfio's function, and of what is called in its place. */
void __real_vfio_pci_driver_probe(struct vfio_pci_device *device);
void __wrap_vfio_pci_driver_probe(struct vfio_pci_device *device);

void __wrap_vfio_pci_driver_probe(struct vfio_pci_device *device)
{
	if (vifa_ops.probe(device))
		__real_vfio_pci_driver_probe(device);
	else
		device->driver.ops = &vifa_ops;
}
