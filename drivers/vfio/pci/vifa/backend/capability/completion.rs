// SPDX-License-Identifier: GPL-2.0

//! A completion that is waited for with a timeout, and used again.

use crate::bindings;
use kernel::{
    prelude::*,
    time::{
        msecs_to_jiffies,
        Delta,
        Msecs, //
    },
    types::Opaque, //
};

/// Signalled by an interrupt handler, waited for by one task at a time.
#[pin_data]
pub(super) struct TimedCompletion {
    #[pin]
    inner: Opaque<kernel::bindings::completion>,
}

// SAFETY: `struct completion` may be used from any task and from interrupt handlers.
unsafe impl Send for TimedCompletion {}

// SAFETY: As above; its own spinlock serialises access.
unsafe impl Sync for TimedCompletion {}

impl TimedCompletion {
    /// Makes a completion that is not signalled.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid and uninitialised.
                unsafe { kernel::bindings::init_completion(slot) };
            }),
        })
    }

    /// Forgets earlier signals. For the task that is about to wait.
    pub(super) fn rearm(&self) {
        // SAFETY: `inner` is initialised. Nobody waits: only the caller would.
        unsafe { bindings::rust_helper_reinit_completion(self.inner.get()) };
    }

    /// Signals the waiter. May be called from an interrupt handler.
    pub(super) fn signal(&self) {
        // SAFETY: `inner` is initialised.
        unsafe { kernel::bindings::complete_all(self.inner.get()) };
    }

    /// Waits for a signal, at most for `timeout`; returns whether there was one.
    pub(super) fn wait(&self, timeout: Delta) -> bool {
        // CAST: Clamped to what fits.
        let timeout = timeout.as_millis_ceil().clamp(0, i64::from(Msecs::MAX)) as Msecs;
        // SAFETY: `inner` is initialised.
        let left = unsafe {
            kernel::bindings::wait_for_completion_timeout(
                self.inner.get(),
                msecs_to_jiffies(timeout),
            )
        };
        left != 0
    }
}
