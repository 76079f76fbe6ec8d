// SPDX-License-Identifier: GPL-2.0

//! Use of the second implementation of the stream with devices of the layer's tests.

use vifa_decoder::{encoder::CONTROL_INTERFACE, Own, State};

use crate::layer::{
    identity::Identity,
    restore::{Destination, LocalDestination},
    stream::IdentityPayload,
    tests::device::{Device, IDENTITY},
};

/// Returns a destination with this identity for the second implementation.
pub(super) fn own(identity: &Identity, control_interface: u64) -> Own {
    Own::new(&IdentityPayload::from(identity).encode(), control_interface)
}

/// Returns the test device with the control interface `control_interface`.
pub(super) fn own_at(control_interface: u64) -> Own {
    own(&IDENTITY, control_interface)
}

/// Returns a destination with this identity and the source's address.
pub(super) fn own_of(identity: &Identity) -> Own {
    own(identity, CONTROL_INTERFACE)
}

/// Creates a device with the state `state`.
pub(super) fn device_of(state: &State, identity: Identity) -> Device {
    let mut device = Device::new(identity).unwrap();

    for (offset, bytes) in &state.runs {
        device.buffer()[..bytes.len()].copy_from_slice(bytes);
        device.write_local(*offset, bytes.len()).unwrap();
    }
    device.write_control(&state.control).unwrap();
    device
}
