// SPDX-License-Identifier: GPL-2.0

//! Signals that ask the command to stop during a transfer.
//!
//! Ctrl-C must not leave a stopped device or a partial file. After [`catch`], SIGHUP, SIGINT and
//! SIGTERM only set a flag, which every copy loop checks between two reads or writes.

use std::{
    ffi::c_int,
    io::{self, Read},
    mem, ptr,
    sync::atomic::{AtomicBool, Ordering},
};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

#[cfg(test)]
thread_local! {
    /// The flag of the test in this thread; other tests do not see it.
    pub(crate) static IN_TEST: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

extern "C" fn take_note(_signal: c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Makes signals that request termination set the flag that [`check`] reads.
///
/// # Errors
///
/// Those of sigaction(2).
pub(crate) fn catch() -> io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: All zeroes are a valid value of this structure of integers: an empty set of
        // signals, and a handler that is an address.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };

        action.sa_sigaction = take_note as extern "C" fn(c_int) as libc::sighandler_t;
        // SAFETY: The handler has the signature that flags without SA_SIGINFO require, and only
        // stores to an atomic. The action outlives the call. Without SA_RESTART, a blocked read
        // returns.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Fails if a signal requested termination.
///
/// # Errors
///
/// A signal arrived after [`catch`].
pub(crate) fn check() -> io::Result<()> {
    #[cfg(test)]
    let interrupted = IN_TEST.get();
    #[cfg(not(test))]
    let interrupted = INTERRUPTED.load(Ordering::Relaxed);

    if interrupted {
        return Err(io::Error::other("stopped by a signal"));
    }
    Ok(())
}

/// Reads from `input` once, retrying interrupted reads; returns 0 at its end.
///
/// # Errors
///
/// Those of `input` and of [`check`].
pub(crate) fn read(input: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        check()?;
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
