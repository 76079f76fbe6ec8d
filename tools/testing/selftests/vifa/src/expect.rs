// SPDX-License-Identifier: GPL-2.0

//! Checks: each function compares a result with its expected value and reports both in its error.

use std::{fmt::Debug, io};

use anyhow::{bail, Result};

/// An error number that the kernel may return.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.0))
    }
}

/// Checks that `actual` is `expected`.
pub fn equal<T: PartialEq + Debug>(what: &str, actual: T, expected: T) -> Result<()> {
    if actual != expected {
        bail!("{what}: expected {expected:?}, got {actual:?}");
    }
    Ok(())
}

/// Checks that `actual` equals `expected` byte for byte; reports the first difference.
pub fn same_bytes(what: &str, actual: &[u8], expected: &[u8]) -> Result<()> {
    if let Some(at) = actual.iter().zip(expected).position(|(a, e)| a != e) {
        bail!(
            "{what}: expected {:#04x} at byte {at:#x}, got {:#04x}",
            expected[at],
            actual[at]
        );
    }
    equal(&format!("{what}: length"), actual.len(), expected.len())
}

/// Checks that `holds` is true.
pub fn claim(what: &str, holds: bool) -> Result<()> {
    if !holds {
        bail!("expected {what}, which is not the case");
    }
    Ok(())
}

/// Checks that `result` is an error with one of the numbers `expected`.
pub fn refused<T: Debug>(what: &str, result: io::Result<T>, expected: &[i32]) -> Result<()> {
    let numbers: Vec<_> = expected.iter().copied().map(Errno).collect();
    match result {
        Ok(value) => bail!("{what}: expected {numbers:?}, got success: {value:?}"),
        Err(error) => match error.raw_os_error() {
            Some(number) if expected.contains(&number) => Ok(()),
            _ => bail!("{what}: expected {numbers:?}, got {error}"),
        },
    }
}
