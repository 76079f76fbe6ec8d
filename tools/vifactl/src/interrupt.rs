// SPDX-License-Identifier: GPL-2.0

//! Signals that ask the command to stop while it is in the middle of something.
//!
//! A device must not stay stopped, nor half a file be left behind, because somebody pressed Ctrl-C:
//! from [`catch`] on, SIGHUP, SIGINT and SIGTERM are only taken note of, and whoever copies asks
//! between two pieces.

use std::{
    ffi::c_int,
    io::{self, Read},
    mem, ptr,
    sync::atomic::{AtomicBool, Ordering},
};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

#[cfg(test)]
thread_local! {
    /// The same for the test in this thread, which no other test may notice.
    pub(crate) static IN_TEST: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

extern "C" fn take_note(_signal: c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on, signals that ask for an end make [`check`] fail.
///
/// # Errors
///
/// Those of sigaction(2).
pub(crate) fn catch() -> io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: All zeroes are a value of this structure of integers, an empty set of signals, and
        // a handler that is an address.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };

        action.sa_sigaction = take_note as extern "C" fn(c_int) as libc::sighandler_t;
        // SAFETY: The handler is a function of the form that flags without SA_SIGINFO demand, and
        // stores to an atomic alone; the action lives during the call. Without SA_RESTART a read
        // that waits returns.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Fails if somebody asked for an end.
///
/// # Errors
///
/// See above.
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

/// One read of `input`, as soon as it gives something; 0 at its end.
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
