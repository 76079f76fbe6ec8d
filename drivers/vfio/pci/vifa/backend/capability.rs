// SPDX-License-Identifier: GPL-2.0

//! Devices with the VIFA capability.
//!
//! Such a device has its migration controls in a register file on the physical function, which no
//! guest can access. For each virtual function, the register file has a control frame and a data
//! frame, each with a mailbox for commands. `include/linux/vifa_hw.h` defines the layout and the
//! commands. `Documentation/vifa/hardware-interface.rst` specifies the hardware interface.
//!
//! Lock order: the mailbox of a control frame or of a data frame, then the quarantine of the
//! register file. The gate of a mailbox, a spinlock, is innermost.

mod buffer;
mod completion;
mod fault;
mod function;
mod local;
mod log;
mod mailbox;
mod physical;
mod register_file;
mod scatter;
mod status;
mod transfer;

pub(crate) use self::{
    function::{
        Function,
        REFERENCE, //
    },
    physical::Driver, //
};
