/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Fault injection into the VIFA reference device. Tests use it to make the
 * device fail, hang, or return truncated or wrong data.
 *
 * Only the QEMU model has these registers, and only if its property
 * fault-injection is on. Otherwise, VIFA_FAULT_SLOTS reads 0. The registers are
 * in the part of the layer frame that vifa_hw.h reserves. No hardware has them,
 * and the driver does not use them: tests map the register file and write them.
 *
 * A slot holds one fault. If several slots match a command, the slot with the
 * lowest number applies. If that is a patch, the patches of the other slots
 * apply, too, in their order. Registers are as in vifa_hw.h.
 */
#ifndef _LINUX_VIFA_FAULT_H
#define _LINUX_VIFA_FAULT_H

#define VIFA_FAULT_SLOTS		0x800	/* read-only: number of slots */
#define VIFA_FAULT_SLOT(n)		(0x840 + 0x40 * (n))
#define VIFA_FAULT_SLOT_COUNT		16

/* Offsets in a slot. Write VIFA_FAULT_COUNT last. */
#define VIFA_FAULT_KIND			0x00
#define VIFA_FAULT_VF			0x04	/* VF index or VIFA_FAULT_ANY_VF */
#define  VIFA_FAULT_ANY_VF		0xffffffff
#define VIFA_FAULT_FRAME		0x08	/* VIFA_MAILBOX_ID_CONTROL, _DATA; 0: both */
#define VIFA_FAULT_OPCODE		0x0c	/* 0: every opcode */
#define VIFA_FAULT_VALUE_LOW		0x10
#define VIFA_FAULT_VALUE_HIGH		0x14
#define VIFA_FAULT_OFFSET		0x18	/* only VIFA_FAULT_PATCH: bytes */
#define VIFA_FAULT_WIDTH		0x1c	/* only VIFA_FAULT_PATCH: bytes, 1 to 8 */
/*
 * Remaining number of occurrences of the fault. A write of a nonzero value arms
 * the fault, a write of 0 disarms it. Reads 0 after a write if the slot's other
 * registers are invalid.
 */
#define VIFA_FAULT_COUNT		0x20
#define  VIFA_FAULT_ALWAYS		0xffffffff
#define VIFA_FAULT_FIRED		0x24	/* read-only: occurrences since it was armed */

/* The command is not executed; its status is VALUE. */
#define VIFA_FAULT_STATUS		1
/*
 * The command never completes, but can be aborted. The status reads busy
 * meanwhile, with the command's tag XOR VALUE.
 */
#define VIFA_FAULT_HANG			2
/* The command never completes, and neither does its abort. A reset ends both. */
#define VIFA_FAULT_HANG_ABORT		3
/* The command begins VALUE milliseconds late. */
#define VIFA_FAULT_DELAY		4
/* Result 0 is decreased by VALUE, down to 0. */
#define VIFA_FAULT_SHORT_RESULT		5
/* The last VALUE bytes of the buffer are not written. The results are unchanged. */
#define VIFA_FAULT_SHORT_DATA		6
/* Result 0 is VALUE. */
#define VIFA_FAULT_RESULT		7
/* WIDTH bytes at OFFSET in the buffer are VALUE, little-endian. */
#define VIFA_FAULT_PATCH		8
/* The status contains the command's tag XOR VALUE. */
#define VIFA_FAULT_TAG			9
/* The command completes without an interrupt. */
#define VIFA_FAULT_NO_INTERRUPT		10
/* Before the command, the VF loses its log: it stops logging, and reports that. */
#define VIFA_FAULT_LOG_LOST		11
/*
 * One in VALUE pages that the VF writes is not logged, and this is not reported.
 * Each such page counts as one occurrence. FRAME and OPCODE are ignored.
 */
#define VIFA_FAULT_LOG_DROP		12
/*
 * The command never completes, but can be aborted. The vector is signalled at
 * its start, and again at each read of its status.
 */
#define VIFA_FAULT_FLOOD		13
/*
 * A reset of the VF leaves it in the run state VALUE, VIFA_RUN_STATE_*. FRAME
 * and OPCODE are ignored.
 */
#define VIFA_FAULT_RESET		14

/*
 * A write to VIFA_FAULT_MARK marks pages in the log of VF index MARK_VF, as if
 * the VF had written them, but without DMA: MARK_RUN bytes in each MARK_STRIDE
 * bytes from IOVA MARK_START, MARK_LENGTH bytes in all. If MARK_SEED is 0, each
 * run begins at the start of its stride. Otherwise, it begins at a page of its
 * stride that the generator xorshift64* chooses, whose initial state is the
 * seed. Reads 1 after pages were marked. Reads 0 if no page was marked, because
 * the VF does not log or the registers are invalid.
 */
#define VIFA_FAULT_MARK_VF		0xc80
#define VIFA_FAULT_MARK_SEED		0xc84
#define VIFA_FAULT_MARK_START_LOW	0xc88
#define VIFA_FAULT_MARK_START_HIGH	0xc8c
#define VIFA_FAULT_MARK_LENGTH_LOW	0xc90
#define VIFA_FAULT_MARK_LENGTH_HIGH	0xc94
#define VIFA_FAULT_MARK_STRIDE_LOW	0xc98
#define VIFA_FAULT_MARK_STRIDE_HIGH	0xc9c
#define VIFA_FAULT_MARK_RUN_LOW		0xca0
#define VIFA_FAULT_MARK_RUN_HIGH	0xca4
#define VIFA_FAULT_MARK			0xca8

/*
 * A write to VIFA_FAULT_ERROR makes a function report an uncorrectable error of
 * PCI Express: the VF with index ERROR_VF, or the PF if that is
 * VIFA_FAULT_ANY_VF. The written value is that of the function's Uncorrectable
 * Error Status Register. Both registers read as 0.
 */
#define VIFA_FAULT_ERROR_VF		0xcc0
#define VIFA_FAULT_ERROR		0xcc4

/*
 * Limits that a test lowers while no driver is bound: the values of
 * VIFA_LAYER_SCATTER_MAX and VIFA_LAYER_LOG_RANGES, which the device enforces.
 * Values that the properties scatter-max and log-ranges do not allow are ignored.
 */
#define VIFA_FAULT_SCATTER_MAX		0xcd0
#define VIFA_FAULT_LOG_RANGES		0xcd4

/*
 * Write 1: the device is gone, as if it had been unplugged. It drops its commands
 * silently, and stops its VFs. All reads return all ones, in the BARs of the VFs,
 * too. All writes are ignored, except a write of 0 to this register, which
 * restores the device. A reset of the PF also restores it. Configuration space
 * remains accessible.
 */
#define VIFA_FAULT_GONE			0xce0

/*
 * The DVSEC of the PF, VIFA_DVSEC_LENGTH bytes. A write changes only the values
 * that the host reads in configuration space.
 */
#define VIFA_FAULT_DVSEC		0xd00

#endif /* _LINUX_VIFA_FAULT_H */
