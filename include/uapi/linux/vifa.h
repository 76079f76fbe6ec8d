/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * VIFA: the migration stream of a VIFA interface, as it is read from and
 * written to the data_fd of VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE.
 *
 * This header is the only place that holds the layout.
 * Documentation/vifa/stream.rst explains it.
 *
 * All fields are little-endian and stand one behind another without padding.
 * Reserved fields are zero. Each CRC is CRC-32C as RFC 3720 defines it
 * (polynomial 0x1edc6f41, reflected, initial value and final XOR all ones).
 */
#ifndef _UAPI_LINUX_VIFA_H
#define _UAPI_LINUX_VIFA_H

#include <linux/types.h>

/*
 * Interface ids. Each virtual function has two virtual interfaces, one for each
 * plane. An id names the function by its place in the PCI Express hierarchy.
 */
#define VIFA_INTERFACE_DOMAIN		0xffffffff00000000ULL
#define VIFA_INTERFACE_RESERVED		0x00000000ff000000ULL
#define VIFA_INTERFACE_BUS		0x0000000000ff0000ULL
#define VIFA_INTERFACE_DEVFN		0x000000000000ff00ULL	/* device: 5 bits, function: 3 */
#define VIFA_INTERFACE_PLANE		0x00000000000000ffULL	/* VIFA_PLANE_* */

#define VIFA_PLANE_CONTROL		1
#define VIFA_PLANE_DATA			2

/*
 * The stream: this header, then sections, the last of which is
 * VIFA_SECTION_END. Nothing follows it.
 */
struct vifa_stream_header {
	__u8 magic[8];		/* VIFA_STREAM_MAGIC, without the final NUL */
	__le16 major;
	__le16 minor;
	__le32 crc;		/* of the fields before */
};

#define VIFA_STREAM_MAGIC		"VIFASTRM"
#define VIFA_STREAM_MAJOR		0
#define VIFA_STREAM_MINOR		1

/* A section: this header, then length bytes of payload. */
struct vifa_section_header {
	__le16 type;		/* VIFA_SECTION_* */
	__le16 flags;		/* VIFA_SECTION_MANDATORY or 0 */
	__le32 length;		/* bytes of payload, up to VIFA_SECTION_LENGTH_MAX */
	__le64 interface;	/* the source's interface that the payload belongs to */
	__le64 sequence;	/* sections before this one */
	__le32 payload_crc;
	__le32 header_crc;	/* of the fields before */
};

/*
 * A receiver that does not know a section's type refuses the stream if this
 * flag is set, and skips the section if it is not.
 */
#define VIFA_SECTION_MANDATORY		0x0001

/* The payload of the longest data section; no section of any type is longer. */
#define VIFA_SECTION_LENGTH_MAX		0x100008

/*
 * Section types. Each of these is mandatory. They come in this order; data
 * sections as many as are needed, each of the others once.
 */
#define VIFA_SECTION_IDENTITY		1	/* control interface: struct vifa_identity */
#define VIFA_SECTION_DATA		2	/* data interface: struct vifa_data_run ... */
#define VIFA_SECTION_CONTROL		3	/* control interface: struct vifa_record ... */
#define VIFA_SECTION_END		4	/* control interface: struct vifa_stream_end */

#define VIFA_IDENTITY_BARS		6
#define VIFA_IDENTITY_RECORD_TYPES	16

/* What the source is. The destination compares it with itself. */
struct vifa_identity {
	__le16 vendor;			/* PCI ids of the VF */
	__le16 device;
	__le16 subsystem_vendor;
	__le16 subsystem;
	__u8 revision_id;
	__u8 reserved0;
	__le16 vifa_revision;		/* revision of the hardware interface */
	__le32 features;		/* VIFA_FEATURE_* */
	__le64 bar_size[VIFA_IDENTITY_BARS];	/* bytes; 0 for a BAR that is not there */
	__le16 interrupt_vectors;
	__le16 queues;			/* queue pairs */
	__le32 granule;			/* bytes: unit of local memory */
	__le64 local_memory;		/* bytes; multiple of the granule; 0: none */
	__le32 control_plane_max;	/* bytes, up to VIFA_CONTROL_PLANE_MAX */
	__le32 reserved1;
	/* Highest version of each record type that the source loads; 0: unknown type. */
	__le16 record_version[VIFA_IDENTITY_RECORD_TYPES];
};

#define VIFA_FEATURE_P2P		0x00000001	/* has the P2P-quiesced run state */
#define VIFA_FEATURE_DIRTY_LOG		0x00000002	/* logs writes to guest memory */
#define VIFA_FEATURE_LOCAL_MEMORY	0x00000004	/* has local memory */

#define VIFA_GRANULE_MIN		0x1000
#define VIFA_GRANULE_MAX		0x10000
#define VIFA_LOCAL_MEMORY_MAX		0x10000000000ULL	/* 1 TiB */
#define VIFA_CONTROL_PLANE_MAX		0x100000

/*
 * A run of local memory: this, then the bytes: at least one granule, up to
 * VIFA_DATA_RUN_MAX bytes, a multiple of the granule. Runs ascend and do not
 * overlap. What no run covers is not mapped on the source, and is unmapped on
 * the destination.
 */
struct vifa_data_run {
	__le64 offset;		/* bytes; multiple of the granule */
};

#define VIFA_DATA_RUN_MAX		0x100000

/*
 * A record of the control plane: this, then length bytes, then zeroes up to a
 * multiple of VIFA_RECORD_ALIGN. Records stand one behind another, each type in
 * ascending order of the index. The layout is that of the hardware interface.
 */
struct vifa_record {
	__le16 type;		/* less than VIFA_IDENTITY_RECORD_TYPES */
	__le16 version;		/* from 1 */
	__le32 index;
	__le32 length;		/* bytes that follow this header, without the padding */
	__le32 reserved;
};

#define VIFA_RECORD_ALIGN		8

/* The totals. */
struct vifa_stream_end {
	__le64 sections;	/* before this one */
	__le64 data_bytes;	/* of local memory, in all data sections */
	__le64 control_bytes;	/* of records, in the control section */
	/* Of the stream header and of all section headers before this one, each without its crc. */
	__le32 headers_crc;
	__le32 reserved;
};

/*
 * The migration region: a device region of type
 * VFIO_REGION_TYPE_PCI_VENDOR_TYPE | VIFA_REGION_VENDOR and subtype
 * VIFA_REGION_SUBTYPE. It is read-only. One read sees one moment.
 */
#define VIFA_REGION_VENDOR		0x1234
#define VIFA_REGION_SUBTYPE		1

#define VIFA_REGION_MAGIC		"VIFAREGN"
#define VIFA_REGION_MAJOR		0
#define VIFA_REGION_MINOR		1
#define VIFA_REGION_TEXT		160

struct vifa_region {
	__u8 magic[8];		/* VIFA_REGION_MAGIC, without the final NUL */
	__le16 major;
	__le16 minor;
	__le32 size;		/* bytes of this structure */
	__le64 control_interface;
	__le64 data_interface;
	__le32 state;		/* enum vfio_device_mig_state */
	__le32 error;		/* errno of the last error since the device was opened; 0: none */
	__u8 error_text[VIFA_REGION_TEXT];	/* what it was about; ends with a NUL */
	struct vifa_identity identity;
};

#endif /* _UAPI_LINUX_VIFA_H */
