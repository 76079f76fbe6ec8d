// SPDX-License-Identifier: GPL-2.0

//! Migration states in the output, by their names in `enum vfio_device_mig_state`.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::layer::state::DeviceState;

/// A migration state, which the layer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(pub(crate) DeviceState);

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
