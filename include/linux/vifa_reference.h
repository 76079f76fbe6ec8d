/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The VIFA reference device: the interface of one virtual function to its guest.
 *
 * The device is a DMA engine with one submission and one completion ring in
 * guest memory, one MSI-X vector and local memory. The migration controls are on
 * the physical function (vifa_hw.h).
 *
 * Registers are 32 bits wide, little-endian, in BAR 0. The MSI-X table and
 * pending bits are in BAR 4.
 */
#ifndef _LINUX_VIFA_REFERENCE_H
#define _LINUX_VIFA_REFERENCE_H

#include <linux/types.h>

#define VIFA_REFERENCE_VENDOR		0x1234
#define VIFA_REFERENCE_PF_DEVICE	0x5650
#define VIFA_REFERENCE_VF_DEVICE	0x5656

#define VIFA_REFERENCE_BAR		0
#define VIFA_REFERENCE_BAR_SIZE		0x1000
#define VIFA_REFERENCE_MSIX_BAR		4
#define VIFA_REFERENCE_VECTORS		1

#define VIFA_REFERENCE_MAGIC_VALUE	0x45524956	/* "VIRE" in memory order */

#define VIFA_REFERENCE_MAGIC		0x00	/* read-only */
#define VIFA_REFERENCE_REVISION		0x04	/* read-only: 1 */
#define VIFA_REFERENCE_CONTROL		0x08
#define  VIFA_REFERENCE_CONTROL_ENABLE	0x00000001	/* 0 to 1 resets both rings' indices */
#define  VIFA_REFERENCE_CONTROL_INTERRUPT 0x00000002	/* signal vector 0 on completions */
#define VIFA_REFERENCE_STATUS		0x0c	/* read-only */
#define  VIFA_REFERENCE_STATUS_ENABLED	0x00000001
#define  VIFA_REFERENCE_STATUS_FAILED	0x00000002	/* a ring was not accessible */
/* Both rings have the same number of entries. Set these registers while not enabled. */
#define VIFA_REFERENCE_RING_ENTRIES	0x10	/* power of two, 2 to VIFA_REFERENCE_RING_MAX */
#define VIFA_REFERENCE_SUBMISSION_LOW	0x14	/* DMA address, aligned to 64 bytes */
#define VIFA_REFERENCE_SUBMISSION_HIGH	0x18
#define VIFA_REFERENCE_COMPLETION_LOW	0x1c	/* DMA address, aligned to 64 bytes */
#define VIFA_REFERENCE_COMPLETION_HIGH	0x20
/*
 * Indices count entries modulo 2^32. The ring contains entry i at i modulo
 * VIFA_REFERENCE_RING_ENTRIES. The driver owns the first and the last of these.
 */
#define VIFA_REFERENCE_SUBMISSION_TAIL	0x24	/* doorbell: commands submitted */
#define VIFA_REFERENCE_SUBMISSION_HEAD	0x28	/* read-only: commands fetched */
#define VIFA_REFERENCE_COMPLETION_TAIL	0x2c	/* read-only: completions written */
#define VIFA_REFERENCE_COMPLETION_HEAD	0x30	/* completions consumed */
/* Speed limit of the engine in bytes per millisecond; 0: no limit. */
#define VIFA_REFERENCE_SPEED		0x34
#define VIFA_REFERENCE_LOCAL_LOW	0x38	/* read-only: bytes of local memory */
#define VIFA_REFERENCE_LOCAL_HIGH	0x3c
/* Scratch registers: they keep their values, and have no effect. */
#define VIFA_REFERENCE_SCRATCH		0x40
#define VIFA_REFERENCE_SCRATCHES	16

#define VIFA_REFERENCE_RING_MAX		1024
#define VIFA_REFERENCE_LENGTH_MAX	0x1000000	/* bytes that one command moves */

struct vifa_reference_submission {
	__le16 opcode;		/* VIFA_REFERENCE_* below */
	__le16 reserved0;
	__le32 id;		/* returned in the completion */
	__le64 source;		/* DMA address, or offset in local memory */
	__le64 destination;	/* DMA address, or offset in local memory */
	__le64 length;		/* bytes, multiple of 8, up to VIFA_REFERENCE_LENGTH_MAX */
	__le64 pattern;
	__le64 reserved1[3];
};

/*
 * NOP: completes without further effect.
 * FILL: writes pattern + i to each 64-bit word i at destination.
 * COPY: copies guest memory to guest memory, in ascending order.
 * CHECKSUM: returns the CRC-32C (RFC 3720) of guest memory in the result.
 * LOCAL_WRITE: copies guest memory to local memory.
 * LOCAL_READ: copies local memory to guest memory.
 * LOCAL_DISCARD: destination, length: unmaps all granules completely inside.
 * SCATTER: writes length / 8 words of 64 bits, one after another, to pseudo-random
 *	offsets in the source bytes (multiple of 8, not 0) of guest memory at
 *	destination: word i is pattern + i, at offset
 *	8 * (splitmix64(pattern + i) % (source / 8)).
 *
 * splitmix64(x):
 *	x += 0x9e3779b97f4a7c15;
 *	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
 *	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
 *	return x ^ (x >> 31);
 */
#define VIFA_REFERENCE_NOP		0
#define VIFA_REFERENCE_FILL		1
#define VIFA_REFERENCE_COPY		2
#define VIFA_REFERENCE_CHECKSUM		3
#define VIFA_REFERENCE_LOCAL_WRITE	4
#define VIFA_REFERENCE_LOCAL_READ	5
#define VIFA_REFERENCE_LOCAL_DISCARD	6
#define VIFA_REFERENCE_SCATTER		7

/* Written in the order of submission, with the phase as the last field. */
struct vifa_reference_completion {
	__le64 result;
	__le32 id;
	__le16 status;		/* VIFA_REFERENCE_COMPLETION_* */
	__le16 phase;		/* 1 on the ring's first pass, 0 on the second, and so on */
};

#define VIFA_REFERENCE_COMPLETION_SUCCESS	0
#define VIFA_REFERENCE_COMPLETION_UNKNOWN	1	/* unknown opcode */
#define VIFA_REFERENCE_COMPLETION_INVALID	2	/* invalid length or offset */
#define VIFA_REFERENCE_COMPLETION_FAULT		3	/* a DMA access failed */

/*
 * Control plane of the reference device, as records (vifa_hw.h) of version 1.
 */

/* VIFA_RECORD_CONFIGURATION */
struct vifa_reference_configuration {
	__le32 control;
	__le32 status;
	__le32 speed;
	__le32 reserved;
	__le32 scratch[VIFA_REFERENCE_SCRATCHES];
};

/* VIFA_RECORD_QUEUE, index 0 */
struct vifa_reference_queue {
	__le64 submission;
	__le64 completion;
	__le32 entries;
	__le32 submission_tail;
	__le32 submission_head;
	__le32 completion_tail;
	__le32 completion_head;
	__le32 reserved;
};

/* VIFA_RECORD_INTERRUPT, index of the vector */
struct vifa_reference_interrupt {
	__le32 pending;		/* 1: signal the vector when the VF runs again */
	__le32 reserved;
};

/*
 * VIFA_RECORD_PRIVATE: the command that the engine had fetched but not completed.
 * The record is absent if there is no such command.
 */
struct vifa_reference_unfinished {
	struct vifa_reference_submission command;
	__le64 done;		/* bytes moved so far */
	__le32 checksum;	/* of these bytes, if the command is CHECKSUM */
	__le32 reserved;
};

#endif /* _LINUX_VIFA_REFERENCE_H */
