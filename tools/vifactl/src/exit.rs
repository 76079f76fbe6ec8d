// SPDX-License-Identifier: GPL-2.0

//! Exit codes.
//!
//! Errors are passed as [`anyhow::Error`]. An error of a kind that scripts distinguish has a
//! [`ExitError`] in its chain. System errors are classified by their number.

use std::{fmt, io, process::ExitCode};

/// The reason for which a command ended. The numbers are part of the command-line interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command completed its task.
    Done = 0,
    /// The command failed for a reason without an exit code of its own.
    Failed = 1,
    /// The command line is invalid.
    Usage = 2,
    /// The destination cannot accept the source's state.
    Incompatible = 3,
    /// A file or a stream is damaged or invalid.
    Damaged = 4,
    /// A file or a device is in use, or permission is denied.
    Busy = 5,
}

/// The meaning of each exit code, for `--help` and the manual pages.
pub const EXIT_CODES: [(u8, &str); 6] = [
    (Exit::Done as u8, "success"),
    (Exit::Failed as u8, "failure"),
    (Exit::Usage as u8, "invalid command line"),
    (
        Exit::Incompatible as u8,
        "the destination cannot accept the source's state",
    ),
    (
        Exit::Damaged as u8,
        "a file or a stream is damaged or invalid",
    ),
    (
        Exit::Busy as u8,
        "a file or a device is in use, or permission is denied",
    ),
];

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// Returns an error with this exit code.
    pub fn because(self, message: impl fmt::Display) -> ExitError {
        ExitError {
            exit: self,
            message: message.to_string(),
        }
    }

    /// Returns the exit code for `error`.
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(error) = error.downcast_ref::<ExitError>() {
            return error.exit;
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

/// An error with a known exit code. It can also be the context of another error.
#[derive(Debug)]
pub struct ExitError {
    exit: Exit,
    message: String,
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExitError {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn system(errno: i32) -> anyhow::Error {
        anyhow::Error::from(io::Error::from_raw_os_error(errno)).context("open of a file")
    }

    #[test]
    fn an_exit_error_sets_the_exit_code_at_any_depth() {
        let below = anyhow::Error::from(Exit::Damaged.because("x")).context("y");
        let above = Err::<(), _>(system(libc::EACCES))
            .context(Exit::Incompatible.because("x"))
            .context("y")
            .unwrap_err();

        assert_eq!(Exit::of(&below), Exit::Damaged);
        assert_eq!(Exit::of(&above), Exit::Incompatible);
    }

    #[test]
    fn a_system_error_is_classified_by_its_number() {
        assert_eq!(Exit::of(&system(libc::EBUSY)), Exit::Busy);
        assert_eq!(Exit::of(&system(libc::EACCES)), Exit::Busy);
        assert_eq!(Exit::of(&system(libc::ENOENT)), Exit::Failed);
    }
}
