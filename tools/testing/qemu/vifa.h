/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIFA reference device: declarations that its parts share.
 *
 *   pf.c       the physical function: properties, capabilities, register file
 *   mailbox.c  the command mailboxes of the register file
 *   buffer.c   the scatter lists of the commands' data
 *   control.c  commands of the control frames
 *   log.c      commands of the data frames: log of writes to guest memory
 *   local.c    commands of the data frames: local memory
 *   fault.c    fault injection
 *   mark.c     fault injection: pages marked in the log without DMA
 *   vf.c       a virtual function: registers, run state, reset
 *   engine.c   its DMA engine
 *
 * Everything runs under the BQL: register accesses in the vCPU threads, all DMA
 * in bottom halves of the main loop, in slices of bounded length. If no IOMMU
 * prevents it, DMA can reach configuration space and thus reset the function
 * that does the DMA. Code that continues after DMA compares generations first.
 */
#ifndef HW_VIFA_VIFA_H
#define HW_VIFA_VIFA_H

#include "qemu/units.h"
#include "hw/pci/pci_device.h"
#include "qom/object.h"
#include "standard-headers/linux/vifa_hw.h"
#include "standard-headers/linux/vifa_reference.h"
#include "standard-headers/linux/vifa_fault.h"

#define TYPE_VIFA_PF "vifa-pf"
#define TYPE_VIFA_VF "vifa-vf"
OBJECT_DECLARE_SIMPLE_TYPE(VifaPF, VIFA_PF)
OBJECT_DECLARE_SIMPLE_TYPE(VifaVF, VIFA_VF)

#define VIFA_PCI_CLASS              0x1200  /* processing accelerator */

#define VIFA_BARS                   6
#define VIFA_BAR_SIZE_MIN           (4 * KiB)   /* also that of the MSI-X BAR */
#define VIFA_BAR_SIZE_MAX           (64 * MiB)

#define VIFA_VFS_MAX                64
#define VIFA_SCATTER_MAX            512
#define VIFA_LOG_RANGES_MAX         1024
#define VIFA_LOCAL_GRANULES_MAX     (1 << 20)

/*
 * Maximum work of a mailbox before it yields to the main loop, and the length
 * of the pause.
 */
#define VIFA_SLICE_BYTES            (1 * MiB)
#define VIFA_PAUSE_NS               (50 * 1000)

/* Maximum length of a DMA transfer: data passes through VifaPF.bounce. */
#define VIFA_BOUNCE_BYTES           (64 * KiB)

/* The memory that a command's scatter list describes. */
typedef struct VifaBuffer {
    PCIDevice *device;
    uint32_t count;
    uint64_t size;
    uint64_t writable;      /* bytes beyond are dropped: see fault.c */
    struct {
        uint64_t address;
        uint32_t length;
    } pieces[VIFA_SCATTER_MAX];
} VifaBuffer;

uint16_t vifa_buffer_init(VifaBuffer *buffer, PCIDevice *device,
                          uint64_t list, uint32_t count, uint32_t count_max);
uint16_t vifa_buffer_read(const VifaBuffer *buffer, uint64_t offset,
                          void *data, uint64_t length);
uint16_t vifa_buffer_write(const VifaBuffer *buffer, uint64_t offset,
                           const void *data, uint64_t length);

typedef struct VifaFault {
    uint32_t kind;
    uint32_t vf;
    uint32_t frame;
    uint32_t opcode;
    uint64_t value;
    uint32_t offset;
    uint32_t width;
    uint32_t count;
    uint32_t fired;
    uint64_t pages;         /* VIFA_FAULT_LOG_DROP: pages since the last drop */
} VifaFault;

uint32_t vifa_fault_read(VifaPF *pf, hwaddr address);
void vifa_fault_write(VifaPF *pf, hwaddr address, uint32_t value);
void vifa_fault_for_command(VifaPF *pf, uint16_t vf, uint32_t kind,
                            uint16_t opcode, VifaFault *faults);
uint32_t vifa_fault_for_reset(VifaPF *pf, uint16_t vf);
uint64_t vifa_fault_pass_pages(VifaPF *pf, uint16_t vf, uint64_t pages);
char *vifa_fault_get_property(Object *object, Error **errp);
void vifa_fault_set_property(Object *object, const char *text, Error **errp);

/* Pages to mark in a log; see vifa_fault.h. */
typedef struct VifaMark {
    uint32_t vf;
    uint32_t seed;
    uint64_t start;
    uint64_t length;
    uint64_t stride;
    uint64_t run;
    bool marked;
} VifaMark;

uint32_t vifa_mark_read(const VifaPF *pf, hwaddr address);
void vifa_mark_write(VifaPF *pf, hwaddr address, uint32_t value);

typedef struct VifaCommand VifaCommand;

/*
 * One command of a frame. It is called again while it returns
 * VIFA_STATUS_BUSY, and continues at VifaCommand.done.
 */
typedef struct VifaCommandType {
    uint16_t opcode;
    bool has_buffer;
    uint16_t (*run)(VifaVF *vf, VifaCommand *command);
} VifaCommandType;

struct VifaCommand {
    const VifaCommandType *type;    /* NULL before its first slice */
    uint16_t opcode;
    uint16_t tag;
    uint64_t scatter;
    uint32_t scatter_count;
    uint64_t argument[2];
    uint64_t result[2];
    uint64_t done;                  /* bytes moved by the slices so far */
    VifaBuffer buffer;
    /*
     * The faults of the command: one fault, or patches; the rest is of kind 0.
     */
    VifaFault faults[VIFA_FAULT_SLOT_COUNT];
};

/* An entry without a function ends each array. */
extern const VifaCommandType vifa_control_commands[];
extern const VifaCommandType vifa_log_commands[];
extern const VifaCommandType vifa_local_commands[];

typedef struct VifaMailbox {
    VifaPF *pf;
    uint16_t vf;
    uint32_t kind;                  /* VIFA_MAILBOX_ID_CONTROL or _DATA */
    uint32_t vector;
    uint64_t scatter;
    uint32_t scatter_count;
    uint64_t argument[2];
    uint32_t status;
    uint64_t result[2];
    bool aborting;
    uint32_t generation;            /* commands that came to an end */
    VifaCommand command;
    QEMUBH *bh;
    QEMUTimer *timer;
} VifaMailbox;

void vifa_mailbox_init(VifaMailbox *mailbox, VifaPF *pf, uint16_t vf,
                       uint32_t kind);
void vifa_mailbox_cleanup(VifaMailbox *mailbox);
void vifa_mailbox_reset(VifaMailbox *mailbox);
void vifa_mailbox_cancel(VifaMailbox *mailbox);
uint32_t vifa_mailbox_read(const VifaMailbox *mailbox, hwaddr address);
void vifa_mailbox_write(VifaMailbox *mailbox, hwaddr address, uint32_t value);

/* Log of the writes to guest memory; idle where ranges is NULL. */
typedef struct VifaLogRange {
    uint64_t start;                 /* IOVA */
    uint64_t pages;
    uint64_t first;                 /* bit of its first page: a group begins */
} VifaLogRange;

typedef struct VifaLog {
    VifaLogRange *ranges;
    uint32_t count;
    unsigned int page_shift;
    unsigned long *bitmap;
    unsigned long *summary;         /* the groups that have a dirty page */
    bool lost;
} VifaLog;

uint64_t vifa_log_mark(VifaVF *vf, uint64_t iova, uint64_t length);
void vifa_log_reset(VifaVF *vf);

/* Local memory; a granule without data is not mapped. */
typedef struct VifaLocal {
    uint64_t size;
    uint32_t granule;
    uint64_t granules;
    uint8_t **data;
    unsigned long *mapped;
    unsigned long *dirty;
} VifaLocal;

void vifa_local_init(VifaLocal *local, uint64_t size, uint32_t granule);
void vifa_local_cleanup(VifaLocal *local);
void vifa_local_reset(VifaLocal *local);
bool vifa_local_contains(const VifaLocal *local, uint64_t offset,
                         uint64_t length);
void vifa_local_read(const VifaLocal *local, uint64_t offset, void *data,
                     uint64_t length);
void vifa_local_write(VifaLocal *local, uint64_t offset, const void *data,
                      uint64_t length);
void vifa_local_set_dirty(VifaLocal *local, uint64_t offset, uint64_t length);
void vifa_local_discard(VifaLocal *local, uint64_t offset, uint64_t length);

/* A command of the guest that the engine has taken. */
typedef struct VifaWork {
    uint16_t opcode;
    uint32_t id;
    uint64_t source;
    uint64_t destination;
    uint64_t length;
    uint64_t pattern;
    uint64_t done;                  /* bytes moved so far */
    uint32_t checksum;              /* CRC-32C of them */
} VifaWork;

/* The control plane: all state that moves with a migration. */
typedef struct VifaEngineState {
    uint32_t control;
    uint32_t status;
    uint32_t speed;
    uint32_t scratch[VIFA_REFERENCE_SCRATCHES];
    uint64_t submission;
    uint64_t completion;
    uint32_t entries;
    uint32_t submission_tail;
    uint32_t submission_head;
    uint32_t completion_tail;
    uint32_t completion_head;
    bool interrupt;                 /* the vector is to be signalled */
    bool unfinished;                /* work is valid */
    VifaWork work;
} VifaEngineState;

typedef struct VifaEngine {
    VifaEngineState state;
    uint32_t generation;            /* changes whenever the state is replaced */
    uint32_t configurations;        /* times the guest has enabled it */
    uint64_t credit;                /* bytes that the speed allows now */
    int64_t credited;               /* up to when, in ns of virtual time */
    QEMUBH *bh;
    QEMUTimer *timer;
} VifaEngine;

void vifa_engine_init(VifaVF *vf);
void vifa_engine_cleanup(VifaVF *vf);
void vifa_engine_reset(VifaVF *vf);
void vifa_engine_resume(VifaVF *vf);
void vifa_engine_suspend(VifaVF *vf);
uint16_t vifa_engine_check(VifaVF *vf, const VifaEngineState *state);
void vifa_engine_load(VifaVF *vf, const VifaEngineState *state);
uint32_t vifa_engine_read(VifaVF *vf, hwaddr address);
void vifa_engine_write(VifaVF *vf, hwaddr address, uint32_t value);

struct VifaVF {
    PCIDevice parent_obj;

    MemoryRegion bars[VIFA_BARS];
    VifaPF *pf;
    uint16_t number;
    uint32_t run_state;             /* VIFA_RUN_STATE_* */
    uint32_t generation;            /* resets so far */
    VifaEngine engine;
    VifaLog log;
    VifaLocal local;
};

void vifa_vf_set_run_state(VifaVF *vf, uint32_t run_state);

struct VifaPF {
    PCIDevice parent_obj;

    /* Properties. */
    uint16_t vfs;
    uint16_t vectors;
    uint16_t scatter_max;
    uint16_t log_ranges;
    uint64_t local_memory;
    uint32_t granule;
    uint32_t command_timeout_ms;
    uint16_t vendor_id;
    uint16_t vf_device_id;
    uint16_t vf_subsystem_vendor_id;
    uint16_t vf_subsystem_id;
    uint8_t vf_revision_id;
    uint8_t vf_bar_bits;
    uint64_t vf_bar_size[VIFA_BARS];
    bool p2p;
    bool dirty_log;
    bool local_dirty;
    bool immediate_readiness;
    bool fault_injection;

    MemoryRegion registers;
    VifaMailbox *mailboxes;         /* two for each VF: control, data */
    VifaFault faults[VIFA_FAULT_SLOT_COUNT];
    VifaMark mark;
    uint32_t error_vf;              /* VIFA_FAULT_ERROR_VF */
    bool gone;                      /* VIFA_FAULT_GONE */
    uint8_t *bounce;
};

uint32_t vifa_pf_features(const VifaPF *pf);
uint8_t vifa_pf_vf_bar_type(const VifaPF *pf);
void vifa_pf_init_config(const VifaPF *pf, PCIDevice *device);
VifaVF *vifa_pf_vf(VifaPF *pf, uint16_t number);
void vifa_pf_cancel(VifaPF *pf, uint16_t number);
void vifa_pf_reset_mailboxes(VifaPF *pf);

#endif /* HW_VIFA_VIFA_H */
