// SPDX-License-Identifier: GPL-2.0

//! Exit codes.
//!
//! Errors travel as [`anyhow::Error`]. Where an error is of a kind that a script wants to tell from
//! others, a [`Fault`] in its chain says so; errors of the system are told by their number.

use std::{fmt, io, process::ExitCode};

/// Why a command ended. The numbers are part of the command's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for has been done.
    Done = 0,
    /// It failed for a reason that no other code names.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The destination cannot take the source's state.
    Incompatible = 3,
    /// A file or a stream is damaged, or is not what it has to be.
    Damaged = 4,
    /// Something is in use, or the user may not do this.
    Busy = 5,
}

/// What each code means, as `--help` and the manual pages show it.
pub const EXIT_CODES: [(u8, &str); 6] = [
    (Exit::Done as u8, "done"),
    (Exit::Failed as u8, "failed"),
    (Exit::Usage as u8, "the command line is wrong"),
    (
        Exit::Incompatible as u8,
        "the destination cannot take the source's state",
    ),
    (
        Exit::Damaged as u8,
        "a file or a stream is damaged, or is not what it has to be",
    ),
    (
        Exit::Busy as u8,
        "something is in use, or permission is lacking",
    ),
];

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// An error with this exit code.
    pub fn because(self, message: impl fmt::Display) -> Fault {
        Fault {
            exit: self,
            message: message.to_string(),
        }
    }

    /// The exit code for `error`.
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return fault.exit;
        }
        let errno = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<io::Error>())
            .and_then(io::Error::raw_os_error);

        match errno {
            Some(libc::EACCES | libc::EPERM | libc::EBUSY | libc::ETXTBSY) => Self::Busy,
            _ => Self::Failed,
        }
    }
}

/// An error whose exit code is known. Also serves as the context of an error.
#[derive(Debug)]
pub struct Fault {
    exit: Exit,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn system(errno: i32) -> anyhow::Error {
        anyhow::Error::from(io::Error::from_raw_os_error(errno)).context("open of a file")
    }

    #[test]
    fn a_fault_gives_its_code_below_and_above_other_context() {
        let below = anyhow::Error::from(Exit::Damaged.because("x")).context("y");
        let above = Err::<(), _>(system(libc::EACCES))
            .context(Exit::Incompatible.because("x"))
            .context("y")
            .unwrap_err();

        assert_eq!(Exit::of(&below), Exit::Damaged);
        assert_eq!(Exit::of(&above), Exit::Incompatible);
    }

    #[test]
    fn an_error_of_the_system_is_told_by_its_number() {
        assert_eq!(Exit::of(&system(libc::EBUSY)), Exit::Busy);
        assert_eq!(Exit::of(&system(libc::EACCES)), Exit::Busy);
        assert_eq!(Exit::of(&system(libc::ENOENT)), Exit::Failed);
    }
}
