// SPDX-License-Identifier: GPL-2.0

//! What goes wrong with a device that has the VIFA capability: an error of the kernel.
//!
//! Which command it was, and what the device answered, is told by the log at once.

use core::fmt;
use kernel::prelude::*;

/// A command failed, or the host did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault(Error);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<Fault> for Error {
    fn from(Fault(error): Fault) -> Self {
        error
    }
}
