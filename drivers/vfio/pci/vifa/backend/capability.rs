// SPDX-License-Identifier: GPL-2.0

//! Devices with the VIFA capability.
//!
//! Such a device carries its migration controls in a register file on the physical function, where
//! no guest can reach them: for each virtual function a control frame and a data frame, each with
//! a mailbox for commands. `include/linux/vifa_hw.h` has the layout and the commands,
//! `Documentation/vifa/hardware-interface.rst` the rest.
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
