// SPDX-License-Identifier: GPL-2.0

//! The second implementation of the stream, on devices of the layer's tests.

use crate::layer::{
    identity::Identity,
    restore::Destination,
    stream::IdentityPayload,
    tests::device::{Device, IDENTITY},
};
use vifa_decoder::{encoder::CONTROL_INTERFACE, Own, State};

/// Returns a destination of this identity, as the second implementation knows it.
pub(super) fn own(identity: &Identity, control_interface: u64) -> Own {
    Own::new(&IdentityPayload::from(identity).encode(), control_interface)
}

/// Returns the tests' device at `control_interface`.
pub(super) fn own_at(control_interface: u64) -> Own {
    own(&IDENTITY, control_interface)
}

/// Returns a destination of this identity at the source's own place.
pub(super) fn own_of(identity: &Identity) -> Own {
    own(identity, CONTROL_INTERFACE)
}

/// Makes a device that has `state`.
pub(super) fn device_of(state: &State, identity: Identity) -> Device {
    let mut device = Device::new(identity).unwrap();

    for (offset, bytes) in &state.runs {
        device.buffer()[..bytes.len()].copy_from_slice(bytes);
        device.write_local(*offset, bytes.len()).unwrap();
    }
    device.write_control(&state.control).unwrap();
    device
}
