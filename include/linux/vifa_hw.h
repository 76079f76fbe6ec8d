/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The VIFA hardware interface, revision 1. It allows the host of a device to
 * save and load SR-IOV virtual functions, and to track their writes.
 *
 * This header is the only definition of the layout. The driver uses it through
 * bindgen. The QEMU model of the reference device and the tests include it.
 * Documentation/vifa/hardware-interface.rst explains it.
 *
 * All registers are 32 bits wide, little-endian and naturally aligned. Every
 * access is 32 bits wide. A 64-bit value is a pair of registers, low half first.
 * Reserved bits and fields are zero.
 */
#ifndef _LINUX_VIFA_HW_H
#define _LINUX_VIFA_HW_H

#include <linux/types.h>

/*
 * The VIFA capability: a Designated Vendor-Specific Extended Capability on the
 * physical function (PCI Express 6.0, 7.9.6). Offsets are from the start of the
 * extended capability.
 */
#define VIFA_DVSEC_VENDOR		0x1234
#define VIFA_DVSEC_ID			0x5649

#define VIFA_DVSEC_REVISION		0x0a	/* 16 bits: VIFA_HW_REVISION */
#define VIFA_DVSEC_FEATURES		0x0c	/* 32 bits: VIFA_HW_FEATURE_* */
#define VIFA_DVSEC_LOCATION		0x10	/* 32 bits: see below */
#define  VIFA_DVSEC_LOCATION_BAR	0x00000007	/* BAR of the register file */
#define  VIFA_DVSEC_LOCATION_OFFSET	0xfffff000	/* its offset in the BAR */
#define VIFA_DVSEC_TIMEOUT		0x14	/* 32 bits: command timeout, milliseconds */
#define VIFA_DVSEC_FRAMES		0x18	/* 32 bits: frames of the register file */
#define VIFA_DVSEC_LENGTH		0x1c

#define VIFA_HW_REVISION		1

/* Features. */
#define VIFA_HW_FEATURE_P2P		0x00000001	/* has the P2P-quiesced run state */
#define VIFA_HW_FEATURE_DIRTY_LOG	0x00000002	/* logs writes to guest memory */
#define VIFA_HW_FEATURE_LOCAL_MEMORY	0x00000004	/* VFs have local memory */
#define VIFA_HW_FEATURE_LOCAL_DIRTY	0x00000008	/* tracks changes of local memory */

/*
 * The register file: frames of 4 KiB. Frame 0 is the layer frame. The VF with
 * index n (counted from 0 in routing-id order) has its control frame at
 * 1 + 2 * n and its data frame at 2 + 2 * n.
 */
#define VIFA_HW_FRAME_SIZE		0x1000
#define VIFA_HW_FRAME_LAYER		0
#define VIFA_HW_FRAME_CONTROL(n)	(1 + 2 * (n))
#define VIFA_HW_FRAME_DATA(n)		(2 + 2 * (n))

/* Layer frame, read-only. */
#define VIFA_LAYER_MAGIC		0x00	/* VIFA_HW_MAGIC */
#define VIFA_LAYER_REVISION		0x04	/* as in the capability */
#define VIFA_LAYER_FEATURES		0x08	/* as in the capability */
#define VIFA_LAYER_VFS			0x0c	/* VFs that the register file serves */
#define VIFA_LAYER_SCATTER_MAX		0x10	/* maximum entries of a scatter list */
#define VIFA_LAYER_VECTORS		0x14	/* MSI-X vectors that frames may use */
#define VIFA_LAYER_LOG_RANGES		0x18	/* maximum ranges of LOG_START; 0: no limit */

#define VIFA_HW_MAGIC			0x41464956	/* "VIFA" in memory order */

/*
 * Mailbox: the first part of each control frame and each data frame. It
 * processes one command at a time. The driver writes the scatter list's address
 * and length and the arguments, then VIFA_MAILBOX_COMMAND. The device sets
 * VIFA_STATUS_BUSY, executes the command, writes the results, then the status
 * with the command's tag, and signals the frame's vector. The device does no DMA
 * for a command after it has written its status.
 */
#define VIFA_MAILBOX_ID			0x00	/* read-only: VIFA_MAILBOX_ID_* */
#define  VIFA_MAILBOX_ID_CONTROL	0x00010000
#define  VIFA_MAILBOX_ID_DATA		0x00020000
#define  VIFA_MAILBOX_ID_KIND		0xffff0000
#define  VIFA_MAILBOX_ID_VF		0x0000ffff	/* VF index */
#define VIFA_MAILBOX_VECTOR		0x04
#define  VIFA_MAILBOX_VECTOR_ENABLE	0x80000000
#define  VIFA_MAILBOX_VECTOR_INDEX	0x000007ff
#define VIFA_MAILBOX_SCATTER_LOW	0x08	/* DMA address of the scatter list, */
#define VIFA_MAILBOX_SCATTER_HIGH	0x0c	/* aligned to 16 bytes */
#define VIFA_MAILBOX_SCATTER_COUNT	0x10	/* entries of the scatter list */
#define VIFA_MAILBOX_ARGUMENT0_LOW	0x20
#define VIFA_MAILBOX_ARGUMENT0_HIGH	0x24
#define VIFA_MAILBOX_ARGUMENT1_LOW	0x28
#define VIFA_MAILBOX_ARGUMENT1_HIGH	0x2c
#define VIFA_MAILBOX_COMMAND		0x30	/* a write starts the command */
#define  VIFA_MAILBOX_COMMAND_OPCODE	0x0000ffff
#define  VIFA_MAILBOX_COMMAND_TAG	0xffff0000	/* any value; returned in the status */
#define VIFA_MAILBOX_STATUS		0x34	/* read-only */
#define  VIFA_MAILBOX_STATUS_CODE	0x0000ffff	/* VIFA_STATUS_* */
#define  VIFA_MAILBOX_STATUS_TAG	0xffff0000
#define VIFA_MAILBOX_RESULT0_LOW	0x38
#define VIFA_MAILBOX_RESULT0_HIGH	0x3c
#define VIFA_MAILBOX_RESULT1_LOW	0x40
#define VIFA_MAILBOX_RESULT1_HIGH	0x44
/*
 * Write 1: the device aborts the command in progress, if any, with
 * VIFA_STATUS_ABORTED, and starts no more DMA for it. Reads 1 until the abort is
 * complete, then 0.
 */
#define VIFA_MAILBOX_ABORT		0x48

/* Status codes. */
#define VIFA_STATUS_SUCCESS		0x0000
#define VIFA_STATUS_UNKNOWN_COMMAND	0x0001
#define VIFA_STATUS_INVALID_ARGUMENT	0x0002
#define VIFA_STATUS_INVALID_STATE	0x0003	/* not in this run state, or logging already */
#define VIFA_STATUS_BUFFER_TOO_SMALL	0x0004	/* result 0: required bytes */
#define VIFA_STATUS_DMA_FAULT		0x0005
#define VIFA_STATUS_INVALID_RECORD	0x0006	/* result 0: type of the refused record */
#define VIFA_STATUS_ABORTED		0x0007
#define VIFA_STATUS_DEVICE_FAILURE	0x0008
#define VIFA_STATUS_BUSY		0xffff

/* Entry of a scatter list: one piece of the command's buffer. */
struct vifa_hw_scatter {
	__le64 address;		/* DMA address */
	__le32 length;		/* bytes, not 0 */
	__le32 reserved;
};

/* Control frame, after the mailbox; read-only. */
#define VIFA_CONTROL_RUN_STATE		0x80	/* VIFA_RUN_STATE_*; after FLR: running */

#define VIFA_RUN_STATE_RUNNING		0
/*
 * P2P-quiesced: the VF starts no DMA and no interrupt, and finishes or suspends
 * started operations. It still accepts incoming accesses: doorbells and register
 * writes are kept.
 */
#define VIFA_RUN_STATE_P2P		1
/* Stopped: as above, and only commands of the host change the VF's state. */
#define VIFA_RUN_STATE_STOPPED		2

/* Number of times that the guest has reconfigured the VF, modulo 2^32; after FLR: 0. */
#define VIFA_CONTROL_CONFIGURATIONS	0x84

/*
 * Commands of the control frame. The scatter list describes the buffer.
 *
 * IDENTIFY: writes struct vifa_hw_identity. Valid in any run state.
 * SET_RUN_STATE: argument 0: VIFA_RUN_STATE_* to reach. Completes when the VF has
 *	reached the state. A request for the present state succeeds.
 * SAVE: valid only in the stopped state. Writes the control plane as records.
 *	Result 0: bytes written. VIFA_STATUS_BUFFER_TOO_SMALL leaves the buffer
 *	undefined.
 * LOAD: valid only in the stopped state. Argument 0: bytes of records in the
 *	buffer. Replaces the whole control plane, or fails without a change.
 */
#define VIFA_CONTROL_IDENTIFY		0x0001
#define VIFA_CONTROL_SET_RUN_STATE	0x0002
#define VIFA_CONTROL_SAVE		0x0003
#define VIFA_CONTROL_LOAD		0x0004

#define VIFA_HW_BARS			6
#define VIFA_HW_RECORD_KINDS		16

/* The identity of a VF, which source and destination compare. */
struct vifa_hw_identity {
	__le16 vendor;			/* PCI ids of the VF */
	__le16 device;
	__le16 subsystem_vendor;
	__le16 subsystem;
	__u8 revision_id;
	__u8 reserved0;
	__le16 vifa_revision;		/* VIFA_HW_REVISION */
	__le32 features;		/* VIFA_HW_FEATURE_* */
	__le64 bar_size[VIFA_HW_BARS];	/* bytes; 0: no such BAR */
	__le16 interrupt_vectors;
	__le16 queues;			/* queue pairs */
	__le32 granule;			/* bytes of local memory that one bit represents */
	__le64 local_memory;		/* bytes; multiple of the granule; 0: none */
	__le32 control_plane_max;	/* maximum bytes of VIFA_CONTROL_SAVE */
	__le32 reserved1;
	/* Highest supported version of each record type; 0: unsupported type. */
	__le16 record_version[VIFA_HW_RECORD_KINDS];
};

/*
 * A record of the control plane: this header, then length bytes, then zeroes up
 * to a multiple of 8. Records follow one another, each type in ascending order
 * of the index.
 */
struct vifa_hw_record {
	__le16 type;		/* VIFA_RECORD_*; less than VIFA_HW_RECORD_KINDS */
	__le16 version;		/* from 1 */
	__le32 index;		/* of the queue or of the vector; otherwise 0 */
	__le32 length;		/* bytes that follow this header, without the padding */
	__le32 reserved;
};

#define VIFA_RECORD_CONFIGURATION	1	/* configuration by the guest */
#define VIFA_RECORD_QUEUE		2	/* context of one queue pair */
#define VIFA_RECORD_INTERRUPT		3	/* causes and masks of one vector */
#define VIFA_RECORD_PRIVATE		4	/* other state, in a device-specific format */

/*
 * Commands of the data frame: guest memory. The log contains IOVAs of the VF's
 * DMA address space.
 *
 * LOG_START: argument 0: page size in bytes, a power of two from 4096. The device
 *	uses the next supported size at or below it, and returns that size in
 *	result 0. Argument 1: number of struct vifa_hw_range in the buffer, which
 *	ascend and do not overlap. INVALID_STATE while logging.
 * LOG_STOP: INVALID_STATE while not logging.
 * LOG_READ_AND_CLEAR: argument 0: IOVA, argument 1: bytes, both multiples of the
 *	page size and inside one range. Writes the bitmap (bit 0 of byte 0 is the
 *	first page) and clears it, atomically for each page: every write that
 *	completed before this command did is in this bitmap or in an earlier one.
 *	Result 0: number of reported pages. Result 1: VIFA_LOG_LOST or 0.
 * LOG_SUMMARY: like LOG_READ_AND_CLEAR, but clears nothing, and writes one bit for
 *	each VIFA_LOG_SUMMARY_PAGES pages, which is set if any of them is dirty.
 */
#define VIFA_DATA_LOG_START		0x0001
#define VIFA_DATA_LOG_STOP		0x0002
#define VIFA_DATA_LOG_READ_AND_CLEAR	0x0003
#define VIFA_DATA_LOG_SUMMARY		0x0004

#define VIFA_LOG_SUMMARY_PAGES		32768
#define VIFA_LOG_LOST			0x0001	/* unlogged writes since the last start */

struct vifa_hw_range {
	__le64 start;		/* IOVA, or offset in local memory; bytes */
	__le64 length;		/* bytes */
};

/*
 * Commands of the data frame: local memory. Offsets and lengths are in bytes
 * and multiples of the granule.
 *
 * VIFA_LOCAL_DIRTY requires VIFA_HW_FEATURE_LOCAL_DIRTY.
 *
 * LOCAL_BITMAP: argument 0: offset, argument 1: bytes | VIFA_LOCAL_DIRTY. Writes
 *	a bitmap of the granules that are mapped (contain data) or dirty (changed
 *	since they were last read as dirty; these bits are cleared). Result 0:
 *	number of set bits.
 * LOCAL_LIST: argument 0: offset of the start, argument 1: VIFA_LOCAL_DIRTY or 0.
 *	Writes the ranges of the mapped or of the dirty granules as struct
 *	vifa_hw_range, as many as fit. The ranges ascend and are not adjacent.
 *	Result 0: number of ranges. Result 1: offset at which to continue, or the
 *	size of the local memory after the last range. Clears nothing.
 * LOCAL_READ: argument 0: offset, argument 1: bytes. Fills the buffer, which has
 *	exactly that size. Unmapped memory reads as zeroes.
 * LOCAL_WRITE: argument 0: offset, argument 1: bytes. Writes the buffer, which has
 *	exactly that size, to local memory, and maps that memory. Valid only in the
 *	stopped state.
 * LOCAL_CLEAR: unmaps the whole local memory. Valid only in the stopped state.
 */
#define VIFA_DATA_LOCAL_BITMAP		0x0011
#define VIFA_DATA_LOCAL_LIST		0x0012
#define VIFA_DATA_LOCAL_READ		0x0013
#define VIFA_DATA_LOCAL_WRITE		0x0014
#define VIFA_DATA_LOCAL_CLEAR		0x0015

#define VIFA_LOCAL_DIRTY		0x0001

#define VIFA_LOCAL_GRANULE_MIN		4096
#define VIFA_LOCAL_GRANULE_MAX		65536

#endif /* _LINUX_VIFA_HW_H */
