// SPDX-License-Identifier: GPL-2.0

//! The registers of a virtual function of the reference device.
//!
//! `include/linux/vifa_reference.h` defines them. The kernel's register types require offsets as
//! literals. This module therefore repeats the offsets, and checks at build time that they match
//! the header.

use crate::bindings;
use kernel::{
    io::register,
    pci,
    prelude::*, //
};

/// BAR 0, mapped for as long as the driver is bound to the function.
pub(crate) type DevresBar = pci::DevresBar<{ bindings::VIFA_REFERENCE_BAR_SIZE as usize }>;

/// BAR 0 while it is known to be mapped.
pub(crate) type Bar<'a> = pci::Bar<'a, { bindings::VIFA_REFERENCE_BAR_SIZE as usize }>;

register! {
    /// Magic number of the device.
    pub(crate) MAGIC(u32) @ 0x00 {
        31:0 value;
    }

    /// Revision of this register set.
    pub(crate) REVISION(u32) @ 0x04 {
        31:0 value;
    }

    /// Control of the engine.
    pub(crate) CONTROL(u32) @ 0x08 {
        /// Whether completions signal the vector.
        1:1 interrupt => bool;
        /// Whether the engine is enabled. Setting the bit resets both rings.
        0:0 enable => bool;
    }

    /// Status of the engine.
    pub(crate) STATUS(u32) @ 0x0c {
        /// Whether a ring was not accessible. Disabling the engine clears the bit.
        1:1 failed => bool;
        /// Whether the engine runs.
        0:0 enabled => bool;
    }

    /// Number of entries of each ring.
    pub(crate) RING_ENTRIES(u32) @ 0x10 {
        31:0 value;
    }

    /// DMA address of the submission ring, low half.
    pub(crate) SUBMISSION_LOW(u32) @ 0x14 {
        31:0 value;
    }

    /// DMA address of the submission ring, high half.
    pub(crate) SUBMISSION_HIGH(u32) @ 0x18 {
        31:0 value;
    }

    /// DMA address of the completion ring, low half.
    pub(crate) COMPLETION_LOW(u32) @ 0x1c {
        31:0 value;
    }

    /// DMA address of the completion ring, high half.
    pub(crate) COMPLETION_HIGH(u32) @ 0x20 {
        31:0 value;
    }

    /// Doorbell: number of commands submitted since the engine was enabled.
    pub(crate) SUBMISSION_TAIL(u32) @ 0x24 {
        31:0 value;
    }

    /// Number of completions consumed since the engine was enabled.
    pub(crate) COMPLETION_HEAD(u32) @ 0x30 {
        31:0 value;
    }

    /// Speed limit of the engine in bytes per millisecond, or 0 for no limit.
    pub(crate) SPEED(u32) @ 0x34 {
        31:0 value;
    }

    /// Size of the local memory in bytes, low half.
    pub(crate) LOCAL_LOW(u32) @ 0x38 {
        31:0 value;
    }

    /// Size of the local memory in bytes, high half.
    pub(crate) LOCAL_HIGH(u32) @ 0x3c {
        31:0 value;
    }
}

macro_rules! assert_offsets {
    ($($register:ident == $constant:ident),* $(,)?) => {
        $(static_assert!(
            <$register as register::Register>::OFFSET == bindings::$constant as usize
        );)*
    };
}

assert_offsets! {
    MAGIC == VIFA_REFERENCE_MAGIC,
    REVISION == VIFA_REFERENCE_REVISION,
    CONTROL == VIFA_REFERENCE_CONTROL,
    STATUS == VIFA_REFERENCE_STATUS,
    RING_ENTRIES == VIFA_REFERENCE_RING_ENTRIES,
    SUBMISSION_LOW == VIFA_REFERENCE_SUBMISSION_LOW,
    SUBMISSION_HIGH == VIFA_REFERENCE_SUBMISSION_HIGH,
    COMPLETION_LOW == VIFA_REFERENCE_COMPLETION_LOW,
    COMPLETION_HIGH == VIFA_REFERENCE_COMPLETION_HIGH,
    SUBMISSION_TAIL == VIFA_REFERENCE_SUBMISSION_TAIL,
    COMPLETION_HEAD == VIFA_REFERENCE_COMPLETION_HEAD,
    SPEED == VIFA_REFERENCE_SPEED,
    LOCAL_LOW == VIFA_REFERENCE_LOCAL_LOW,
    LOCAL_HIGH == VIFA_REFERENCE_LOCAL_HIGH,
}

static_assert!(CONTROL::ENABLE_MASK == bindings::VIFA_REFERENCE_CONTROL_ENABLE);
static_assert!(CONTROL::INTERRUPT_MASK == bindings::VIFA_REFERENCE_CONTROL_INTERRUPT);
static_assert!(STATUS::ENABLED_MASK == bindings::VIFA_REFERENCE_STATUS_ENABLED);
static_assert!(STATUS::FAILED_MASK == bindings::VIFA_REFERENCE_STATUS_FAILED);
