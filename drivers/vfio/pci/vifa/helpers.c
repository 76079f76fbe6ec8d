// SPDX-License-Identifier: GPL-2.0-only
/*
 * Inline functions of the kernel that Rust cannot call by themselves.
 */
#include "bindings/bindings_helper.h"

int rust_helper_pci_domain_nr(struct pci_bus *bus)
{
	return pci_domain_nr(bus);
}

struct pci_dev *rust_helper_pci_physfn(struct pci_dev *dev)
{
	return pci_physfn(dev);
}

void rust_helper_reinit_completion(struct completion *completion)
{
	reinit_completion(completion);
}

void rust_helper_vfio_put_device(struct vfio_device *device)
{
	vfio_put_device(device);
}
