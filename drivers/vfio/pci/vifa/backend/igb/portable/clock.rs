// SPDX-License-Identifier: GPL-2.0

//! Time and polling.

use super::fault::Fault;

/// A clock, and sleep.
pub(crate) trait Clock {
    /// Returns the number of microseconds since an arbitrary start.
    fn now(&self) -> u64;

    /// Sleeps for at least `microseconds`.
    fn sleep(&mut self, microseconds: u32);
}

/// Calls `is_done` every `interval` microseconds until it returns true. Returns whether it did so
/// within `timeout` microseconds.
///
/// Calls it at least once after the timeout.
pub(crate) fn until<D: Clock>(
    device: &mut D,
    interval: u32,
    timeout: u32,
    mut is_done: impl FnMut(&mut D) -> Result<bool, Fault>,
) -> Result<bool, Fault> {
    let start = device.now();

    loop {
        let is_last = device.now().saturating_sub(start) >= timeout.into();

        if is_done(device)? {
            return Ok(true);
        }
        if is_last {
            return Ok(false);
        }
        device.sleep(interval);
    }
}
