// SPDX-License-Identifier: GPL-2.0

//! A reusable completion with a timeout.

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

/// A completion that an interrupt handler signals, and for which one task at a time waits.
#[pin_data]
pub(super) struct TimedCompletion {
    #[pin]
    inner: Opaque<kernel::bindings::completion>,
}

// SAFETY: `struct completion` may be used from any task and from interrupt handlers.
unsafe impl Send for TimedCompletion {}

// SAFETY: As above. Its spinlock serialises accesses.
unsafe impl Sync for TimedCompletion {}

impl TimedCompletion {
    /// Creates a completion that is not signalled.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid and uninitialised.
                unsafe { kernel::bindings::init_completion(slot) };
            }),
        })
    }

    /// Clears earlier signals. Only the task that waits may call this.
    pub(super) fn rearm(&self) {
        // SAFETY: `inner` is initialised. No task is waiting, because only the caller waits.
        unsafe { bindings::rust_helper_reinit_completion(self.inner.get()) };
    }

    /// Wakes the waiting task. May be called from an interrupt handler.
    pub(super) fn signal(&self) {
        // SAFETY: `inner` is initialised.
        unsafe { kernel::bindings::complete_all(self.inner.get()) };
    }

    /// Waits for a signal, at most for `timeout`. Returns whether the completion was signalled.
    pub(super) fn wait(&self, timeout: Delta) -> bool {
        // CAST: The value is clamped to the range of `Msecs`.
        let timeout = timeout.as_millis_ceil().clamp(0, i64::from(Msecs::MAX)) as Msecs;
        // SAFETY: `inner` is initialised.
        let remaining = unsafe {
            kernel::bindings::wait_for_completion_timeout(
                self.inner.get(),
                msecs_to_jiffies(timeout),
            )
        };
        remaining != 0
    }
}
