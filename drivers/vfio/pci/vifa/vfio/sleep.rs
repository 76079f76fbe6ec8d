// SPDX-License-Identifier: GPL-2.0

//! System sleep, which open devices prevent.
//!
//! Suspend and hibernation power a device off, which destroys its state. The VFIO core cannot
//! preserve the state, and neither the user nor a migration in progress would notice the loss. The
//! system therefore cannot enter sleep while a device is open, and a device cannot be opened during
//! system sleep.
//!
//! C header: [`include/linux/suspend.h`](srctree/include/linux/suspend.h)

use crate::bindings::{
    rust_helper_register_pm_notifier,
    rust_helper_unregister_pm_notifier, //
};
use kernel::{
    bindings,
    error::to_result,
    ffi,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque, //
};

/// Number of open devices, or [`ASLEEP`] while the system enters sleep, sleeps or wakes up.
static OPEN: Atomic<i32> = Atomic::new(0);

const ASLEEP: i32 = -1;

/// Prevents system sleep, for a device that is being opened.
///
/// # Errors
///
/// `EBUSY` while the system enters sleep.
pub(super) fn prevent() -> Result {
    let mut open = OPEN.load(Relaxed);
    loop {
        if open == ASLEEP {
            return Err(EBUSY);
        }
        match OPEN.cmpxchg(open, open + 1, Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => open = now,
        }
    }
}

/// Reverses [`prevent`], for a device that was closed.
pub(super) fn allow() {
    OPEN.add(-1, Relaxed);
}

/// A notifier of the power management core, which refuses system sleep while devices are open.
#[pin_data(PinnedDrop)]
pub(crate) struct Notifier {
    #[pin]
    block: Opaque<bindings::notifier_block>,
}

// SAFETY: Only the power management core uses the block, from any task.
unsafe impl Send for Notifier {}

// SAFETY: As above.
unsafe impl Sync for Notifier {}

impl Notifier {
    /// Registers the notifier, until it is dropped.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            block <- Opaque::try_ffi_init(|slot: *mut bindings::notifier_block| {
                // SAFETY: `slot` is valid for writes, and pinned until `drop` unregisters it.
                to_result(unsafe {
                    slot.write(bindings::notifier_block {
                        notifier_call: Some(callback),
                        ..pin_init::zeroed()
                    });
                    rust_helper_register_pm_notifier(slot)
                })
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Notifier {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `new` has registered the block. No callback runs after the call has returned.
        unsafe { rust_helper_unregister_pm_notifier(self.block.get()) };
    }
}

extern "C" fn callback(
    _block: *mut bindings::notifier_block,
    event: ffi::c_ulong,
    _data: *mut ffi::c_void,
) -> ffi::c_int {
    // CAST: The events are small numbers.
    match event as u32 {
        bindings::PM_SUSPEND_PREPARE | bindings::PM_HIBERNATION_PREPARE => {
            if let Err(open) = OPEN.cmpxchg(0, ASLEEP, Relaxed) {
                pr_err!("failed to enter system sleep: {} VFs are open\n", open);
                // C's `notifier_from_errno(-EBUSY)`.
                const REFUSED: u32 =
                    bindings::NOTIFY_STOP_MASK | (bindings::NOTIFY_OK + bindings::EBUSY);
                return REFUSED as ffi::c_int;
            }
        }
        bindings::PM_POST_SUSPEND | bindings::PM_POST_HIBERNATION => OPEN.store(0, Relaxed),
        _ => {}
    }
    bindings::NOTIFY_OK as ffi::c_int
}
