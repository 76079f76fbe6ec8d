// SPDX-License-Identifier: GPL-2.0-only
/*
 * Wrappers for inline functions of the kernel, which Rust cannot call directly.
 */
#define CREATE_TRACE_POINTS
#include "trace.h"
#include "bindings/bindings_helper.h"

bool rust_helper_crc32c_is_optimized(void)
{
	return crc32_optimizations() & CRC32C_OPTIMIZATION;
}

void rust_helper_dma_sync_for_cpu(struct device *dev, struct sg_table *table)
{
	dma_sync_sgtable_for_cpu(dev, table, DMA_BIDIRECTIONAL);
}

void rust_helper_dma_sync_for_device(struct device *dev, struct sg_table *table)
{
	dma_sync_sgtable_for_device(dev, table, DMA_BIDIRECTIONAL);
}

bool rust_helper_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

void rust_helper_iova_bitmap_set(struct iova_bitmap *bitmap, unsigned long iova, size_t length)
{
	iova_bitmap_set(bitmap, iova, length);
}

int rust_helper_pci_domain_nr(struct pci_bus *bus)
{
	return pci_domain_nr(bus);
}

struct pci_dev *rust_helper_pci_physfn(struct pci_dev *dev)
{
	return pci_physfn(dev);
}

void rust_helper_ratelimit_state_init(struct ratelimit_state *state, int interval, int burst)
{
	ratelimit_state_init(state, interval, burst);
}

int rust_helper_register_pm_notifier(struct notifier_block *block)
{
	return register_pm_notifier(block);
}

void rust_helper_reinit_completion(struct completion *completion)
{
	reinit_completion(completion);
}

void rust_helper_trace_vifa_relation(const struct device *device, u8 role, u8 plane, u64 output,
				     u64 receiver)
{
	trace_vifa_relation(device, role, plane, output, receiver);
}

void rust_helper_unregister_pm_notifier(struct notifier_block *block)
{
	unregister_pm_notifier(block);
}

int rust_helper_vfio_check_precopy_ioctl(struct vfio_device *device, unsigned int command,
					 unsigned long argument, struct vfio_precopy_info *info)
{
	return vfio_check_precopy_ioctl(device, command, argument, info);
}

void rust_helper_vfio_put_device(struct vfio_device *device)
{
	vfio_put_device(device);
}
