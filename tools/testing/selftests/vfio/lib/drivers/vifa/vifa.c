// SPDX-License-Identifier: GPL-2.0-only
/*
 * Driver of a virtual function of the VIFA reference device for the kernel's
 * VFIO selftests.
 *
 * The function has one DMA engine with a submission and a completion ring
 * (include/linux/vifa_reference.h). Each memcpy is one COPY command. The engine
 * signals its vector for completions only while the control register says so,
 * which is only while a message is to be sent.
 */
#include <stdint.h>
#include <unistd.h>

#include <asm/barrier.h>
#include <linux/compiler.h>
#include <linux/errno.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>

#include <linux/vifa_reference.h>

#include <libvfio.h>

#define VIFA_ENTRIES		VIFA_REFERENCE_RING_MAX

/* A multiple of what the engine moves in a slice, so that a copy takes several. */
#define VIFA_MEMCPY_MAX		SZ_1M

/* The rings, as the function sees them in the driver's region. */
struct vifa_rings {
	struct vifa_reference_submission submissions[VIFA_ENTRIES];
	struct vifa_reference_completion completions[VIFA_ENTRIES];

	/* What the driver counts of them; not the function's concern. */
	u32 submitted;
	u32 completed;
};

static inline struct vifa_rings *vifa_rings(struct vfio_pci_device *device)
{
	return device->driver.region.vaddr;
}

static u32 vifa_read(struct vfio_pci_device *device, u32 offset)
{
	return readl(device->bars[VIFA_REFERENCE_BAR].vaddr + offset);
}

static void vifa_write(struct vfio_pci_device *device, u32 offset, u32 value)
{
	writel(value, device->bars[VIFA_REFERENCE_BAR].vaddr + offset);
}

static void vifa_write_address(struct vfio_pci_device *device, u32 offset,
			       iova_t address)
{
	vifa_write(device, offset, (u32)address);
	vifa_write(device, offset + 4, (u32)(address >> 32));
}

static int vifa_probe(struct vfio_pci_device *device)
{
	if (!vfio_pci_device_match(device, VIFA_REFERENCE_VENDOR,
				   VIFA_REFERENCE_VF_DEVICE))
		return -EINVAL;

	VFIO_ASSERT_NOT_NULL(device->bars[VIFA_REFERENCE_BAR].vaddr);
	vfio_pci_cmd_set(device, PCI_COMMAND_MEMORY);

	return vifa_read(device, VIFA_REFERENCE_MAGIC) ==
	       VIFA_REFERENCE_MAGIC_VALUE ? 0 : -EINVAL;
}

static void vifa_init(struct vfio_pci_device *device)
{
	struct vifa_rings *rings = vifa_rings(device);

	VFIO_ASSERT_GE(device->driver.region.size, sizeof(*rings));

	vfio_pci_cmd_set(device, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

	/* The ring's phase begins with 1: no completion may look valid. */
	memset(rings, 0, sizeof(*rings));

	vifa_write(device, VIFA_REFERENCE_CONTROL, 0);
	vifa_write(device, VIFA_REFERENCE_SPEED, 0);
	vifa_write(device, VIFA_REFERENCE_RING_ENTRIES, VIFA_ENTRIES);
	vifa_write_address(device, VIFA_REFERENCE_SUBMISSION_LOW,
			   to_iova(device, rings->submissions));
	vifa_write_address(device, VIFA_REFERENCE_COMPLETION_LOW,
			   to_iova(device, rings->completions));
	vifa_write(device, VIFA_REFERENCE_CONTROL,
		   VIFA_REFERENCE_CONTROL_ENABLE);
	VFIO_ASSERT_EQ(vifa_read(device, VIFA_REFERENCE_STATUS),
		       VIFA_REFERENCE_STATUS_ENABLED);

	vfio_pci_msix_enable(device, 0, VIFA_REFERENCE_VECTORS);

	device->driver.msi = 0;
	device->driver.max_memcpy_size = VIFA_MEMCPY_MAX;
	device->driver.max_memcpy_count = VIFA_ENTRIES;
}

static void vifa_remove(struct vfio_pci_device *device)
{
	vifa_write(device, VIFA_REFERENCE_CONTROL, 0);
	VFIO_ASSERT_EQ(vifa_read(device, VIFA_REFERENCE_STATUS), 0);

	vfio_pci_msix_disable(device);
}

/* Puts a command into the ring, which has room: nothing is in it at first. */
static void vifa_prepare(struct vfio_pci_device *device, u16 opcode, iova_t src,
			 iova_t dst, u64 size)
{
	struct vifa_rings *rings = vifa_rings(device);
	u32 id = rings->submitted++;

	rings->submissions[id % VIFA_ENTRIES] =
		(struct vifa_reference_submission) {
			.opcode = opcode,
			.id = id,
			.source = src,
			.destination = dst,
			.length = size,
		};
}

/* Lets the function see what was put into the ring. */
static void vifa_submit(struct vfio_pci_device *device)
{
	/* The commands before the doorbell. */
	wmb();
	vifa_write(device, VIFA_REFERENCE_SUBMISSION_TAIL,
		   vifa_rings(device)->submitted);
}

/* Waits for the next completion; returns its status. */
static u16 vifa_complete(struct vfio_pci_device *device)
{
	struct vifa_rings *rings = vifa_rings(device);
	u32 id = rings->completed++;
	struct vifa_reference_completion *completion =
		&rings->completions[id % VIFA_ENTRIES];
	u16 phase = !(id / VIFA_ENTRIES % 2);

	while (READ_ONCE(completion->phase) != phase)
		usleep(100);
	/* The phase before the rest. */
	rmb();

	VFIO_ASSERT_EQ(completion->id, id);
	return completion->status;
}

static void vifa_memcpy_start(struct vfio_pci_device *device, iova_t src,
			      iova_t dst, u64 size, u64 count)
{
	u64 i;

	for (i = 0; i < count; i++)
		vifa_prepare(device, VIFA_REFERENCE_COPY, src, dst, size);
	vifa_submit(device);
}

static int vifa_wait(struct vfio_pci_device *device)
{
	struct vifa_rings *rings = vifa_rings(device);
	int ret = 0;
	u16 status;

	while (rings->completed != rings->submitted) {
		status = vifa_complete(device);
		if (status == VIFA_REFERENCE_COMPLETION_SUCCESS)
			continue;
		dev_err(device, "command %u failed: status %u\n",
			rings->completed - 1, status);
		ret = -EIO;
	}
	vifa_write(device, VIFA_REFERENCE_COMPLETION_HEAD, rings->completed);

	return ret;
}

/* There are no unconsumed completions, so nothing but the NOP is signalled. */
static void vifa_send_msi(struct vfio_pci_device *device)
{
	vifa_write(device, VIFA_REFERENCE_CONTROL,
		   VIFA_REFERENCE_CONTROL_ENABLE |
		   VIFA_REFERENCE_CONTROL_INTERRUPT);
	vifa_prepare(device, VIFA_REFERENCE_NOP, 0, 0, 0);
	vifa_submit(device);
	VFIO_ASSERT_EQ(vifa_wait(device), 0);
	vifa_write(device, VIFA_REFERENCE_CONTROL,
		   VIFA_REFERENCE_CONTROL_ENABLE);
}

const struct vfio_pci_driver_ops vifa_ops = {
	.name = "vifa",
	.probe = vifa_probe,
	.init = vifa_init,
	.remove = vifa_remove,
	.memcpy_start = vifa_memcpy_start,
	.memcpy_wait = vifa_wait,
	.send_msi = vifa_send_msi,
};
