/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Fault injection into the VIFA reference device: how a test makes it fail,
 * hang, answer short or lie.
 *
 * Only the QEMU model has these registers, and only where its property
 * fault-injection is on; VIFA_FAULT_SLOTS reads 0 otherwise. They stand in the
 * part of the layer frame that vifa_hw.h reserves. No hardware has them and the
 * driver does not use them: tests map the register file and write them.
 *
 * A slot holds one fault. A command that several slots match gets the one with
 * the lowest number, and where that is a patch, the patches of the other slots
 * too, in their order. Registers are as in vifa_hw.h.
 */
#ifndef _LINUX_VIFA_FAULT_H
#define _LINUX_VIFA_FAULT_H

#define VIFA_FAULT_SLOTS		0x800	/* read-only: slots that follow */
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
#define VIFA_FAULT_OFFSET		0x18	/* VIFA_FAULT_PATCH alone: bytes */
#define VIFA_FAULT_WIDTH		0x1c	/* VIFA_FAULT_PATCH alone: bytes, 1 to 8 */
/*
 * How often the fault is still to happen: not 0 arms it, 0 disarms it. Reads 0
 * after a write when the slot's other registers make no sense.
 */
#define VIFA_FAULT_COUNT		0x20
#define  VIFA_FAULT_ALWAYS		0xffffffff
#define VIFA_FAULT_FIRED		0x24	/* read-only: times since it was armed */

/* The command is not executed; its status is VALUE. */
#define VIFA_FAULT_STATUS		1
/*
 * The command never completes, but can be aborted. The status reads busy
 * meanwhile, with the command's tag XOR VALUE.
 */
#define VIFA_FAULT_HANG			2
/* The command never completes, and neither does its abort. A reset helps. */
#define VIFA_FAULT_HANG_ABORT		3
/* The command begins VALUE milliseconds late. */
#define VIFA_FAULT_DELAY		4
/* Result 0 is smaller by VALUE than is true, and at least 0. */
#define VIFA_FAULT_SHORT_RESULT		5
/* The last VALUE bytes of the buffer are not written; the results hide it. */
#define VIFA_FAULT_SHORT_DATA		6
/* Result 0 is VALUE. */
#define VIFA_FAULT_RESULT		7
/* WIDTH bytes at OFFSET in the buffer are VALUE, little-endian. */
#define VIFA_FAULT_PATCH		8
/* The status carries the command's tag XOR VALUE. */
#define VIFA_FAULT_TAG			9
/* The command completes, but no interrupt says so. */
#define VIFA_FAULT_NO_INTERRUPT		10
/* Before the command, the VF's log becomes lost: it logs no more, and says so. */
#define VIFA_FAULT_LOG_LOST		11
/*
 * Silent sabotage: one in VALUE pages that the VF writes is not logged. Each
 * counts as one time. FRAME and OPCODE do not matter.
 */
#define VIFA_FAULT_LOG_DROP		12
/*
 * The command never completes, but can be aborted. The vector is signalled at
 * its start, and again whenever its status is read.
 */
#define VIFA_FAULT_FLOOD		13
/*
 * A reset of the VF leaves it in the run state VALUE, VIFA_RUN_STATE_*. FRAME
 * and OPCODE do not matter.
 */
#define VIFA_FAULT_RESET		14

/*
 * A write to VIFA_FAULT_MARK marks pages in the log of VF index MARK_VF, as if
 * the VF had written there, without any DMA: MARK_RUN bytes in each MARK_STRIDE
 * bytes from IOVA MARK_START on, MARK_LENGTH bytes in all. With MARK_SEED 0 each
 * run begins where its stride does, else at a page of its stride that the
 * generator xorshift64* chooses, which begins with the seed. Reads back 1; 0 if
 * nothing was marked, since the VF does not log or the registers make no sense.
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
 * A write to VIFA_FAULT_ERROR has a function report an uncorrectable error of
 * PCI Express: VF index ERROR_VF, or with VIFA_FAULT_ANY_VF the PF. The value is
 * that of its Uncorrectable Error Status Register. Both read as 0.
 */
#define VIFA_FAULT_ERROR_VF		0xcc0
#define VIFA_FAULT_ERROR		0xcc4

/*
 * Limits that a test lowers while no driver is bound: what VIFA_LAYER_SCATTER_MAX
 * and VIFA_LAYER_LOG_RANGES read, and the device holds to. What the properties
 * scatter-max and log-ranges cannot be is ignored.
 */
#define VIFA_FAULT_SCATTER_MAX		0xcd0
#define VIFA_FAULT_LOG_RANGES		0xcd4

/*
 * Write 1: the device is gone, as if it had been pulled out. It ends its commands
 * without a word, stops its VFs, reads as all ones, in the BARs of the VFs too,
 * and ignores all writes but the one of 0 here, which brings it back. A reset of
 * the PF does that as well. Configuration space remains.
 */
#define VIFA_FAULT_GONE			0xce0

/*
 * The DVSEC of the PF, VIFA_DVSEC_LENGTH bytes. A write changes what the host
 * reads in configuration space, and nothing else.
 */
#define VIFA_FAULT_DVSEC		0xd00

#endif /* _LINUX_VIFA_FAULT_H */
