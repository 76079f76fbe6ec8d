/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * VIFA: the migration stream of a VIFA interface, which user space reads from
 * and writes to the data_fd of VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE.
 *
 * This header is the only definition of the layout.
 * Documentation/vifa/stream.rst explains it.
 *
 * All fields are little-endian and follow one another without padding.
 * Reserved fields are zero. Each CRC is CRC-32C as RFC 3720 defines it
 * (polynomial 0x1edc6f41, reflected, initial value and final XOR all ones).
 */
#ifndef _UAPI_LINUX_VIFA_H
#define _UAPI_LINUX_VIFA_H

#include <linux/types.h>

/*
 * Interface ids. Each virtual function has two virtual interfaces, one for each
 * plane. An id contains the address of the function in the PCI Express
 * hierarchy.
 */
#define VIFA_INTERFACE_DOMAIN		0xffffffff00000000ULL
#define VIFA_INTERFACE_RESERVED		0x00000000ff000000ULL
#define VIFA_INTERFACE_BUS		0x0000000000ff0000ULL
#define VIFA_INTERFACE_DEVFN		0x000000000000ff00ULL	/* device: 5 bits, function: 3 */
#define VIFA_INTERFACE_PLANE		0x00000000000000ffULL	/* VIFA_PLANE_* */

#define VIFA_PLANE_CONTROL		1
#define VIFA_PLANE_DATA			2

/*
 * The stream: this header, then sections. VIFA_SECTION_END is the last section,
 * and ends the stream.
 */
struct vifa_stream_header {
	__u8 magic[8];		/* VIFA_STREAM_MAGIC, without the final NUL */
	__le16 major;
	__le16 minor;
	__le32 crc;		/* of the preceding fields */
};

#define VIFA_STREAM_MAGIC		"VIFASTRM"
#define VIFA_STREAM_MAJOR		1
#define VIFA_STREAM_MINOR		1

/* A section: this header, then length bytes of payload. */
struct vifa_section_header {
	__le16 type;		/* VIFA_SECTION_* */
	__le16 flags;		/* VIFA_SECTION_MANDATORY or 0 */
	__le32 length;		/* bytes of payload, up to VIFA_SECTION_LENGTH_MAX */
	__le64 interface;	/* the source's interface that the payload belongs to */
	__le64 sequence;	/* number of sections before this one */
	__le32 payload_crc;
	__le32 header_crc;	/* of the preceding fields */
};

/*
 * If a receiver does not support the type of a section, it refuses the stream if
 * this flag is set, and skips the section if the flag is not set.
 */
#define VIFA_SECTION_MANDATORY		0x0001

/* Maximum length of a section of any type. */
#define VIFA_SECTION_LENGTH_MAX		0x100010

/*
 * Section types. All are mandatory, except VIFA_SECTION_CLAIM, which is
 * optional. The stream begins with one identity and one relations section.
 * Address sections follow, each with the data sections that it lists. One
 * control and one end section complete the stream. Claims may occur anywhere
 * between relations and control, except between an address section and the last
 * of its data sections.
 */
#define VIFA_SECTION_IDENTITY		1	/* control interface: struct vifa_identity */
#define VIFA_SECTION_RELATIONS		2	/* control interface: struct vifa_relation[2] */
#define VIFA_SECTION_ADDRESS		3	/* data interface: struct vifa_address_record ... */
#define VIFA_SECTION_DATA		4	/* data interface: struct vifa_data_run ... */
#define VIFA_SECTION_CONTROL		5	/* control interface: struct vifa_resources ... */
#define VIFA_SECTION_END		6	/* control interface: struct vifa_stream_end */
/* Since 1.1: */
#define VIFA_SECTION_CLAIM		7	/* control interface: struct vifa_record ... */

#define VIFA_IDENTITY_BARS		6
#define VIFA_IDENTITY_RECORD_TYPES	16

/* The identity of the source. The destination compares it with its own. */
struct vifa_identity {
	__le16 vendor;			/* PCI ids of the VF */
	__le16 device;
	__le16 subsystem_vendor;
	__le16 subsystem;
	__u8 revision_id;
	__u8 reserved0;
	__le16 vifa_revision;		/* revision of the hardware interface */
	__le32 features;		/* VIFA_FEATURE_* */
	__le64 bar_size[VIFA_IDENTITY_BARS];	/* bytes; 0: no such BAR */
	__le16 interrupt_vectors;
	__le16 queues;			/* queue pairs */
	__le32 granule;			/* bytes: unit of local memory */
	__le64 local_memory;		/* bytes; multiple of the granule; 0: none */
	__le32 control_plane_max;	/* bytes, up to VIFA_CONTROL_PLANE_MAX */
	__le32 reserved1;
	/* Highest supported version of each record type; 0: unsupported type. */
	__le16 record_version[VIFA_IDENTITY_RECORD_TYPES];
};

#define VIFA_FEATURE_P2P		0x00000001	/* has the P2P-quiesced run state */
#define VIFA_FEATURE_DIRTY_LOG		0x00000002	/* logs writes to guest memory */
#define VIFA_FEATURE_LOCAL_MEMORY	0x00000004	/* has local memory */
#define VIFA_FEATURE_LOCAL_DIRTY	0x00000008	/* tracks changes of local memory */

#define VIFA_GRANULE_MIN		0x1000
#define VIFA_GRANULE_MAX		0x10000
#define VIFA_LOCAL_MEMORY_MAX		0x10000000000ULL	/* 1 TiB */
#define VIFA_CONTROL_PLANE_MAX		0x100000

/*
 * A transfer relationship: from an interface of the source to the interface of
 * the same plane of the destination. A stream has two, control plane first.
 */
struct vifa_relation {
	__u8 plane;		/* VIFA_PLANE_* */
	__u8 reserved[7];
	__le64 output;		/* output party: interface of the source */
	__le64 receiver;	/* interface of the destination; 0: any destination */
};

#define VIFA_RELATIONS			2	/* one for each plane */

/*
 * A part of the address record file: this structure, then count ranges. The
 * ranges ascend and do not touch one another. A part of local memory is
 * immediately followed by its data sections, in the order of the ranges.
 */
struct vifa_address_record {
	__le32 space;		/* VIFA_SPACE_* */
	__le32 round;		/* 0: mapped memory; from 1: memory that has changed since */
	__le32 granule;		/* bytes: unit of the ranges */
	__le32 count;		/* ranges, 1 to VIFA_ADDRESS_RANGES_MAX */
};

struct vifa_address_range {
	__le64 start;		/* multiple of the granule */
	__le64 length;		/* bytes; multiple of the granule, not 0 */
	__le64 sequence;	/* of the first data section of the range; 0: no data section */
};

#define VIFA_SPACE_LOCAL		1	/* local memory of the VF: offsets */
#define VIFA_SPACE_GUEST		2	/* tracked guest memory: IOVAs */

#define VIFA_ADDRESS_RANGES_MAX		1024

/*
 * A run of local memory: this structure, then the data. A range of the address
 * record occupies one or more sections: each has VIFA_DATA_RUN_MAX bytes, except
 * the last. Memory outside of all ranges is not mapped on the source, and is
 * unmapped on the destination.
 */
struct vifa_data_run {
	__le64 offset;		/* in local memory, in bytes */
};

#define VIFA_DATA_RUN_MAX		0x100000

/*
 * The resource abstraction structure: this structure, then length bytes of
 * records. It contains the control plane of any kind of device.
 */
struct vifa_resources {
	__le16 version;		/* VIFA_RESOURCES_VERSION */
	__le16 run_state;	/* run state when it was saved: VIFA_RESOURCES_STOPPED */
	__le32 records;
	__le32 length;		/* bytes of records, up to the destination's control_plane_max */
	__le32 reserved;
};

#define VIFA_RESOURCES_VERSION		1
#define VIFA_RESOURCES_STOPPED		2

/*
 * A record of the control plane: this structure, then length bytes, then zeroes
 * up to a multiple of VIFA_RECORD_ALIGN. Records follow one another, each type
 * in ascending order of the index. The layout is that of the hardware interface.
 */
struct vifa_record {
	__le16 type;		/* VIFA_RESOURCE_*; less than VIFA_IDENTITY_RECORD_TYPES */
	__le16 version;		/* from 1 */
	__le32 index;
	__le32 length;		/* bytes that follow this header, without the padding */
	__le32 reserved;
};

#define VIFA_RECORD_ALIGN		8

#define VIFA_RESOURCE_CONFIGURATION	1	/* configuration by the guest; index 0 */
#define VIFA_RESOURCE_QUEUE		2	/* context of a queue pair; index: queue */
#define VIFA_RESOURCE_INTERRUPT		3	/* causes and masks of a vector; index: vector */
#define VIFA_RESOURCE_PRIVATE		4	/* other state, in a device-specific format */

/*
 * A claim: a sequence of records as in the control plane, of up to the
 * destination's control_plane_max bytes. It lists the resources that the
 * destination must obtain from its own host before it can accept the control
 * plane that follows. Each claim replaces the previous one. No claim has a
 * permanent effect.
 */

/* The totals. */
struct vifa_stream_end {
	__le64 sections;	/* number of sections before this one */
	__le64 data_bytes;	/* of local memory, in all data sections */
	__le64 control_bytes;	/* of records, in the control section */
	/* Of the stream header and of all section headers before this one, each without its crc. */
	__le32 headers_crc;
	__le32 reserved;
};

/*
 * A save set: a file that consists of this structure, a manifest of
 * manifest_length bytes of JSON, and a complete stream of stream_length bytes.
 * Only user space writes and reads it. Documentation/vifa/save-set.rst defines
 * the manifest.
 */
struct vifa_save_set_header {
	__u8 magic[8];		/* VIFA_SAVE_SET_MAGIC, without the final NUL */
	__le16 major;
	__le16 minor;
	__le32 manifest_length;	/* bytes, 1 to VIFA_MANIFEST_MAX */
	__le64 stream_length;	/* bytes */
	__le32 manifest_crc;
	__le32 header_crc;	/* of the preceding fields */
};

#define VIFA_SAVE_SET_MAGIC		"VIFASAVE"
#define VIFA_SAVE_SET_MAJOR		1
#define VIFA_SAVE_SET_MINOR		0
#define VIFA_MANIFEST_MAX		0x10000

/*
 * The migration region: a device region of type
 * VFIO_REGION_TYPE_PCI_VENDOR_TYPE | VIFA_REGION_VENDOR and subtype
 * VIFA_REGION_SUBTYPE. It is read-only. One read returns a consistent snapshot.
 * Several reads have returned the same snapshot if generation has not changed.
 * The file "region" in the device's debugfs directory has the same content.
 */
#define VIFA_REGION_VENDOR		0x1234
#define VIFA_REGION_SUBTYPE		1

#define VIFA_REGION_MAGIC		"VIFAREGN"
#define VIFA_REGION_MAJOR		1
#define VIFA_REGION_MINOR		1
#define VIFA_REGION_TEXT		160

/* A transfer relationship that this device is a party of. */
struct vifa_region_relation {
	__le64 output;		/* interface of the source */
	__le64 receiver;	/* interface of the destination; 0: unknown to the output party */
	__u8 plane;		/* VIFA_PLANE_* */
	__u8 role;		/* VIFA_ROLE_*: role of this device */
	__u8 reserved[6];
};

#define VIFA_ROLE_NONE			0	/* no relationship; all fields are 0 */
#define VIFA_ROLE_OUTPUT		1
#define VIFA_ROLE_RECEIVER		2

struct vifa_region {
	__u8 magic[8];		/* VIFA_REGION_MAGIC, without the final NUL */
	__le16 major;
	__le16 minor;
	__le32 size;		/* bytes of this structure */
	__le64 generation;	/* increases with each change of the following fields */
	__le64 control_interface;
	__le64 data_interface;
	__le32 state;		/* enum vfio_device_mig_state */
	__le32 error;		/* errno of the last error since the device was opened; 0: none */
	__u8 error_text[VIFA_REGION_TEXT];	/* description of the error; NUL-terminated */
	struct vifa_identity identity;
	/*
	 * The present transfer, or the last one since the device was opened.
	 * A receiver shows a relationship after it has verified it.
	 */
	struct vifa_region_relation relations[VIFA_RELATIONS];
	__le64 stream_bytes;	/* read or written so far */
	__le64 sections;	/* complete sections */
	/* Resource abstraction structure: sent or received records. */
	__le64 record_bytes;
	__le32 records[VIFA_IDENTITY_RECORD_TYPES];	/* of each type */
	/* Address record file: sent or received ranges. */
	__le64 local_ranges;	/* of local memory, in all rounds */
	__le64 local_bytes;	/* in these ranges */
	__le64 data_bytes;	/* sent or received bytes of these ranges */
	__le64 guest_ranges;	/* of tracked guest memory */
	__le64 guest_bytes;
	/* Transfers that ended since the driver was bound. */
	__le64 saved;		/* stream read to its end */
	__le64 restored;	/* stream loaded into the device */
	__le64 failed;
	/* Since 1.1: DMA logging. The totals count from when the driver was bound. */
	__le64 log_page_size;	/* bytes; 0: writes are not logged now */
	__le64 log_ranges;	/* ranges of guest memory that are tracked now */
	__le64 log_bytes;	/* in these ranges */
	__le64 log_reports;	/* total of reports */
	__le64 log_dirty_bytes;	/* total of bytes reported dirty */
	__le64 log_lost;	/* reports with all bytes dirty, because the log was lost */
};

#endif /* _UAPI_LINUX_VIFA_H */
