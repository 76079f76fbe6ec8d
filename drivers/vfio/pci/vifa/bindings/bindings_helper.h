/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The input of bindgen. bindgen_parameters lists the items to generate.
 */
#include <linux/anon_inodes.h>
#include <linux/crc32c.h>
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/interval_tree.h>
#include <linux/iova_bitmap.h>
#include <linux/poll.h>
#include <linux/ratelimit.h>
#include <linux/sched/signal.h>
#include <linux/suspend.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>
#include <linux/vifa_hw.h>
#include <linux/vifa_reference.h>
#include <uapi/linux/vifa.h>

/* bindgen does not evaluate the macro. */
static const u32 __maybe_unused VIFA_DL_FLAG_AUTOREMOVE_CONSUMER = DL_FLAG_AUTOREMOVE_CONSUMER;

bool rust_helper_crc32c_is_optimized(void);
void rust_helper_dma_sync_for_cpu(struct device *dev, struct sg_table *table);
void rust_helper_dma_sync_for_device(struct device *dev, struct sg_table *table);
bool rust_helper_fatal_signal_pending(void);
void rust_helper_iova_bitmap_set(struct iova_bitmap *bitmap, unsigned long iova, size_t length);
int rust_helper_pci_domain_nr(struct pci_bus *bus);
struct pci_dev *rust_helper_pci_physfn(struct pci_dev *dev);
void rust_helper_ratelimit_state_init(struct ratelimit_state *state, int interval, int burst);
int rust_helper_register_pm_notifier(struct notifier_block *block);
void rust_helper_reinit_completion(struct completion *completion);
void rust_helper_trace_vifa_relation(const struct device *device, u8 role, u8 plane, u64 output,
				     u64 receiver);
void rust_helper_unregister_pm_notifier(struct notifier_block *block);
int rust_helper_vfio_check_precopy_ioctl(struct vfio_device *device, unsigned int command,
					 unsigned long argument, struct vfio_precopy_info *info);
void rust_helper_vfio_put_device(struct vfio_device *device);
