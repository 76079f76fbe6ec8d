/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What bindgen reads. bindgen_parameters says what it takes from here.
 */
#include <linux/anon_inodes.h>
#include <linux/crc32c.h>
#include <linux/poll.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>
#include <linux/vifa_hw.h>
#include <linux/vifa_reference.h>
#include <uapi/linux/vifa.h>

void rust_helper_pci_disable_sriov_on_remove(struct pci_dev *dev);
int rust_helper_pci_domain_nr(struct pci_bus *bus);
struct pci_dev *rust_helper_pci_physfn(struct pci_dev *dev);
void rust_helper_reinit_completion(struct completion *completion);
void rust_helper_vfio_put_device(struct vfio_device *device);
