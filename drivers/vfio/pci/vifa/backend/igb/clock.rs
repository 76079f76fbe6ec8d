// SPDX-License-Identifier: GPL-2.0

//! Time, for whoever waits for a register.

use super::fault::Fault;

/// A clock, and sleep.
pub(crate) trait Clock {
    /// Returns the microseconds since some moment.
    fn now(&self) -> u64;

    /// Sleeps for so many microseconds, or longer.
    fn sleep(&mut self, microseconds: u32);
}

/// Asks every `interval` microseconds whether `is_done`, and returns whether it was within
/// `timeout` microseconds.
///
/// It is asked at least once after that time.
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
