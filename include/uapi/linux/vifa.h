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
#define VIFA_STREAM_MAJOR		1
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

/* No section of any type is longer. */
#define VIFA_SECTION_LENGTH_MAX		0x100010

/*
 * Section types. Each of these is mandatory but VIFA_SECTION_CLAIM, which is
 * optional. Identity and relations come first, each once; then address
 * sections, each with the data sections that it lists; then control and end,
 * each once. Claims stand anywhere between relations and control, except
 * between an address section and the last of its data sections.
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
#define VIFA_FEATURE_LOCAL_DIRTY	0x00000008	/* knows which of it has changed */

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
	__le64 receiver;	/* interface of the destination; 0: whichever takes the stream */
};

#define VIFA_RELATIONS			2	/* one for each plane */

/*
 * A part of the address record file: this, then count ranges, which ascend and
 * do not touch one another. The data sections of a part of local memory follow
 * it at once, in the order of the ranges.
 */
struct vifa_address_record {
	__le32 space;		/* VIFA_SPACE_* */
	__le32 round;		/* 0: what is mapped; from 1: what has changed since */
	__le32 granule;		/* bytes: unit of the ranges */
	__le32 count;		/* ranges, 1 to VIFA_ADDRESS_RANGES_MAX */
};

struct vifa_address_range {
	__le64 start;		/* multiple of the granule */
	__le64 length;		/* bytes; multiple of the granule, not 0 */
	__le64 sequence;	/* of the first data section with its bytes; 0: none has them */
};

#define VIFA_SPACE_LOCAL		1	/* local memory of the VF: offsets */
#define VIFA_SPACE_GUEST		2	/* guest memory whose pages were tracked: IOVAs */

#define VIFA_ADDRESS_RANGES_MAX		1024

/*
 * A run of local memory: this, then the bytes. A range of the address record
 * takes as many sections as it needs: VIFA_DATA_RUN_MAX bytes in each but the
 * last. What no range covers is not mapped on the source, and is unmapped on
 * the destination.
 */
struct vifa_data_run {
	__le64 offset;		/* bytes, in local memory */
};

#define VIFA_DATA_RUN_MAX		0x100000

/*
 * The resource abstraction structure: this, then length bytes of records. It
 * holds the control plane, whatever the device.
 */
struct vifa_resources {
	__le16 version;		/* VIFA_RESOURCES_VERSION */
	__le16 run_state;	/* in which it was taken: VIFA_RESOURCES_STOPPED */
	__le32 records;
	__le32 length;		/* bytes of records, up to the destination's control_plane_max */
	__le32 reserved;
};

#define VIFA_RESOURCES_VERSION		1
#define VIFA_RESOURCES_STOPPED		2

/*
 * A record of the control plane: this, then length bytes, then zeroes up to a
 * multiple of VIFA_RECORD_ALIGN. Records stand one behind another, each type in
 * ascending order of the index. The layout is that of the hardware interface.
 */
struct vifa_record {
	__le16 type;		/* VIFA_RESOURCE_*; less than VIFA_IDENTITY_RECORD_TYPES */
	__le16 version;		/* from 1 */
	__le32 index;
	__le32 length;		/* bytes that follow this header, without the padding */
	__le32 reserved;
};

#define VIFA_RECORD_ALIGN		8

#define VIFA_RESOURCE_CONFIGURATION	1	/* what the guest configured; index 0 */
#define VIFA_RESOURCE_QUEUE		2	/* context of a queue pair; index: which */
#define VIFA_RESOURCE_INTERRUPT		3	/* causes and masks of a vector; index: which */
#define VIFA_RESOURCE_PRIVATE		4	/* anything else, as the device likes */

/*
 * A claim: records, one behind another as in the control plane, up to the
 * destination's control_plane_max bytes. They say what the destination has to
 * obtain from its own host before it can take the control plane that is to
 * come. Each claim replaces the one before; none has an effect that lasts.
 */

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
 * A save set: a file with this, then a manifest of manifest_length bytes of
 * JSON, then a whole stream of stream_length bytes. User space alone makes and
 * reads it; Documentation/vifa/save-set.rst has the manifest.
 */
struct vifa_save_set_header {
	__u8 magic[8];		/* VIFA_SAVE_SET_MAGIC, without the final NUL */
	__le16 major;
	__le16 minor;
	__le32 manifest_length;	/* bytes, 1 to VIFA_MANIFEST_MAX */
	__le64 stream_length;	/* bytes */
	__le32 manifest_crc;
	__le32 header_crc;	/* of the fields before */
};

#define VIFA_SAVE_SET_MAGIC		"VIFASAVE"
#define VIFA_SAVE_SET_MAJOR		1
#define VIFA_SAVE_SET_MINOR		0
#define VIFA_MANIFEST_MAX		0x10000

/*
 * The migration region: a device region of type
 * VFIO_REGION_TYPE_PCI_VENDOR_TYPE | VIFA_REGION_VENDOR and subtype
 * VIFA_REGION_SUBTYPE. It is read-only. One read sees one moment; several reads
 * have seen the same one if generation has not changed. The file "region" of
 * the device's debugfs directory has the same content.
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
	__u8 role;		/* VIFA_ROLE_*: what this device is in it */
	__u8 reserved[6];
};

#define VIFA_ROLE_NONE			0	/* there is no relationship; the fields are 0 */
#define VIFA_ROLE_OUTPUT		1
#define VIFA_ROLE_RECEIVER		2

struct vifa_region {
	__u8 magic[8];		/* VIFA_REGION_MAGIC, without the final NUL */
	__le16 major;
	__le16 minor;
	__le32 size;		/* bytes of this structure */
	__le64 generation;	/* greater after each change of what follows */
	__le64 control_interface;
	__le64 data_interface;
	__le32 state;		/* enum vfio_device_mig_state */
	__le32 error;		/* errno of the last error since the device was opened; 0: none */
	__u8 error_text[VIFA_REGION_TEXT];	/* what it was about; ends with a NUL */
	struct vifa_identity identity;
	/*
	 * The present transfer; else the last one since the device was opened.
	 * A receiver shows a relationship once it has verified it.
	 */
	struct vifa_region_relation relations[VIFA_RELATIONS];
	__le64 stream_bytes;	/* read or written so far */
	__le64 sections;	/* complete */
	/* Resource abstraction structure: what has been sent or received of it. */
	__le64 record_bytes;
	__le32 records[VIFA_IDENTITY_RECORD_TYPES];	/* of each type */
	/* Address record file: as above. */
	__le64 local_ranges;	/* of local memory, in all rounds */
	__le64 local_bytes;	/* in these ranges */
	__le64 data_bytes;	/* of which sent or received */
	__le64 guest_ranges;	/* of guest memory, tracked */
	__le64 guest_bytes;
	/* Transfers that ended since the driver was bound. */
	__le64 saved;		/* read to the end */
	__le64 restored;	/* taken by the device */
	__le64 failed;
	/* Since 1.1: DMA logging, and what it came to since the driver was bound. */
	__le64 log_page_size;	/* bytes; 0: writes are not logged now */
	__le64 log_ranges;	/* of guest memory, tracked now */
	__le64 log_bytes;	/* in these ranges */
	__le64 log_reports;
	__le64 log_dirty_bytes;	/* reported dirty */
	__le64 log_lost;	/* reports of all that was asked for: the device did not know */
};

#endif /* _UAPI_LINUX_VIFA_H */
