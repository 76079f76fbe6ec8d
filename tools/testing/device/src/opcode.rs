// SPDX-License-Identifier: GPL-2.0

//! The mailbox commands.

use crate::hw;

/// A mailbox command of a control or data frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode {
    /// The command's name in `vifa_hw.h`, without its prefix.
    pub name: &'static str,
    pub(crate) frame: u32,
    pub(crate) number: u32,
}

impl Opcode {
    const fn control(name: &'static str, number: u32) -> Self {
        Self {
            name,
            frame: hw::VIFA_MAILBOX_ID_CONTROL,
            number,
        }
    }

    const fn data(name: &'static str, number: u32) -> Self {
        Self {
            name,
            frame: hw::VIFA_MAILBOX_ID_DATA,
            number,
        }
    }
}

/// Any command of either frame.
pub const ANY: Opcode = Opcode {
    name: "any command",
    frame: 0,
    number: 0,
};
/// Any command of a control frame.
pub const ANY_CONTROL: Opcode = Opcode::control("any control command", 0);
pub const IDENTIFY: Opcode = Opcode::control("IDENTIFY", hw::VIFA_CONTROL_IDENTIFY);
pub const SET_RUN_STATE: Opcode = Opcode::control("SET_RUN_STATE", hw::VIFA_CONTROL_SET_RUN_STATE);
pub const SAVE: Opcode = Opcode::control("SAVE", hw::VIFA_CONTROL_SAVE);
pub const LOAD: Opcode = Opcode::control("LOAD", hw::VIFA_CONTROL_LOAD);
pub const LOG_START: Opcode = Opcode::data("LOG_START", hw::VIFA_DATA_LOG_START);
pub const LOG_STOP: Opcode = Opcode::data("LOG_STOP", hw::VIFA_DATA_LOG_STOP);
pub const LOG_READ_AND_CLEAR: Opcode =
    Opcode::data("LOG_READ_AND_CLEAR", hw::VIFA_DATA_LOG_READ_AND_CLEAR);
pub const LOG_SUMMARY: Opcode = Opcode::data("LOG_SUMMARY", hw::VIFA_DATA_LOG_SUMMARY);
pub const LOCAL_BITMAP: Opcode = Opcode::data("LOCAL_BITMAP", hw::VIFA_DATA_LOCAL_BITMAP);
pub const LOCAL_LIST: Opcode = Opcode::data("LOCAL_LIST", hw::VIFA_DATA_LOCAL_LIST);
pub const LOCAL_READ: Opcode = Opcode::data("LOCAL_READ", hw::VIFA_DATA_LOCAL_READ);
pub const LOCAL_WRITE: Opcode = Opcode::data("LOCAL_WRITE", hw::VIFA_DATA_LOCAL_WRITE);
pub const LOCAL_CLEAR: Opcode = Opcode::data("LOCAL_CLEAR", hw::VIFA_DATA_LOCAL_CLEAR);
