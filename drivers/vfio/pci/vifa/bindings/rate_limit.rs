// SPDX-License-Identifier: GPL-2.0

//! Rate limits of log messages.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use kernel::{
    prelude::*,
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    types::Opaque, //
};

/// A limit on the number of events per interval.
///
/// # Invariants
///
/// The state is initialised.
#[pin_data]
pub(crate) struct RateLimit {
    #[pin]
    state: Opaque<kernel::bindings::ratelimit_state>,
}

// SAFETY: The C side protects the state with a lock.
unsafe impl Send for RateLimit {}

// SAFETY: As above.
unsafe impl Sync for RateLimit {}

impl RateLimit {
    /// Creates a limit of `burst` events in each `interval` milliseconds.
    pub(crate) fn new(interval: Msecs, burst: u16) -> impl PinInit<Self> {
        let interval = i32::try_from(msecs_to_jiffies(interval)).unwrap_or(i32::MAX);
        // INVARIANT: The function initialises the state.
        pin_init!(Self {
            state <- Opaque::ffi_init(move |state| {
                // SAFETY: The initialiser's memory is valid for a write.
                unsafe {
                    super::rust_helper_ratelimit_state_init(state, interval, burst.into());
                }
            }),
        })
    }

    /// Returns whether another event is within the limit. The C side counts the suppressed events,
    /// and logs their number with `name`.
    pub(crate) fn allows(&self, name: &CStr) -> bool {
        // SAFETY: The state is initialised by the type invariant; `name` is valid for the call.
        unsafe { kernel::bindings::___ratelimit(self.state.get(), name.as_char_ptr()) != 0 }
    }
}
