// SPDX-License-Identifier: GPL-2.0

//! Errors of a device with the VIFA capability. The caller logs them.

use super::mailbox::{
    Command,
    Failure, //
};
use crate::{
    backend::RunState,
    errno::Name, //
};
use core::fmt;
use kernel::prelude::*;

/// The error of an operation on the device.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// A command failed.
    Command(Command, Failure),
    /// LOCAL_BITMAP returned the first number of bits, but set the second.
    Bits(u64, u64),
    /// SAVE returned the first number of bytes, which exceeds the second, the maximum.
    Length(u64, usize),
    /// The run state register contains this invalid value.
    RunState(u32),
    /// SET_RUN_STATE succeeded, but the device is in the first run state instead of the second.
    Unreached(RunState, RunState),
    /// The registers read as all ones.
    Gone,
    /// An allocation failed, or the registers are unmapped.
    Host(Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Command(command, failure) => write!(f, "{command} {failure}"),
            Self::Bits(found, expected) => write!(
                f,
                "LOCAL_BITMAP: invalid result: got {found} bits, expected {expected}"
            ),
            Self::Length(found, most) => write!(
                f,
                "SAVE: invalid result: got {found} bytes, expected at most {most}"
            ),
            Self::RunState(found) => write!(f, "invalid run state: got {found:#x}"),
            Self::Unreached(found, expected) => write!(
                f,
                "SET_RUN_STATE: invalid run state: got {found}, expected {expected}"
            ),
            Self::Gone => write!(f, "register read {}", Failure::Gone),
            Self::Host(error) => Name(error).fmt(f),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match Failure::from(error) {
            Failure::Gone => Self::Gone,
            _ => Self::Host(error),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Command(_, failure) => failure.errno(),
            Fault::Bits(..) | Fault::Length(..) | Fault::RunState(_) | Fault::Unreached(..) => EIO,
            Fault::Gone => ENODEV,
            Fault::Host(error) => error,
        }
    }
}
