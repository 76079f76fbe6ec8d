// SPDX-License-Identifier: GPL-2.0

//! Trace events.
//!
//! C header: `trace.h` of this driver.

use kernel::device;

/// Emits `vifa_relation`: `device` has become a party of a transfer relationship. `role` is one of
/// `VIFA_ROLE_*`, `plane` one of `VIFA_PLANE_*`.
pub(crate) fn vifa_relation(
    device: &device::Device,
    role: u8,
    plane: u8,
    output: u64,
    receiver: u64,
) {
    // SAFETY: `device` is a transparent wrapper of a `struct device`, and valid for the call.
    unsafe {
        super::rust_helper_trace_vifa_relation(
            core::ptr::from_ref(device).cast(),
            role,
            plane,
            output,
            receiver,
        );
    }
}
