// SPDX-License-Identifier: GPL-2.0

//! Identities in JSON: the fields of `struct vifa_identity` by name, as numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    headers,
    layer::{
        check::Violation,
        identity::{self, BARS, RECORD_TYPES},
    },
    output::Table,
};

/// The identity of a virtual function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Identity(#[serde(with = "Fields")] identity::Identity);

/// The fields of the layer's identity, for serde.
#[derive(Serialize, Deserialize)]
#[serde(remote = "identity::Identity")]
struct Fields {
    vendor: u16,
    device: u16,
    subsystem_vendor: u16,
    subsystem: u16,
    revision_id: u8,
    vifa_revision: u16,
    features: u32,
    bar_size: [u64; BARS],
    interrupt_vectors: u16,
    queues: u16,
    granule: u32,
    local_memory: u64,
    control_plane_max: u32,
    record_version: [u16; RECORD_TYPES],
}

impl From<&identity::Identity> for Identity {
    fn from(identity: &identity::Identity) -> Self {
        Self(*identity)
    }
}

impl TryFrom<&Identity> for identity::Identity {
    type Error = Violation;

    /// Returns the identity for the layer's comparison.
    ///
    /// # Errors
    ///
    /// The first field with a value that no device can have.
    fn try_from(identity: &Identity) -> Result<Self, Violation> {
        identity.0.validate()?;
        Ok(identity.0)
    }
}

/// The features by name.
const FEATURES: [(u32, &str); 4] = [
    (headers::VIFA_FEATURE_P2P, "P2P"),
    (headers::VIFA_FEATURE_DIRTY_LOG, "DIRTY_LOG"),
    (headers::VIFA_FEATURE_LOCAL_MEMORY, "LOCAL_MEMORY"),
    (headers::VIFA_FEATURE_LOCAL_DIRTY, "LOCAL_DIRTY"),
];

/// Returns the names of the `features`; bits without a name are one number.
pub(crate) fn feature_names(features: u32) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = features;

    for (bit, name) in FEATURES {
        if rest & bit != 0 {
            names.push(name.to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    names
}

impl Identity {
    /// Returns the names of the features.
    pub(crate) fn features(&self) -> Vec<String> {
        feature_names(self.0.features)
    }
}

impl fmt::Display for Identity {
    /// Writes one line per field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::default();
        let versions = self
            .0
            .record_version
            .iter()
            .enumerate()
            .filter(|(_, version)| **version != 0)
            .map(|(kind, version)| format!("{kind}:{version}"));
        let bars = self.0.bar_size.map(|size| format!("{size:#x}"));
        let mut row = |name: &str, value: String| table.row(&[format!("  {name}"), value]);

        row("vendor", format!("{:#06x}", self.0.vendor));
        row("device", format!("{:#06x}", self.0.device));
        row(
            "subsystem_vendor",
            format!("{:#06x}", self.0.subsystem_vendor),
        );
        row("subsystem", format!("{:#06x}", self.0.subsystem));
        row("revision_id", format!("{:#04x}", self.0.revision_id));
        row("vifa_revision", self.0.vifa_revision.to_string());
        row(
            "features",
            format!("{:#x} {}", self.0.features, self.features().join(" ")),
        );
        row("bar_size", bars.join(" "));
        row("interrupt_vectors", self.0.interrupt_vectors.to_string());
        row("queues", self.0.queues.to_string());
        row("granule", format!("{:#x}", self.0.granule));
        row("local_memory", format!("{:#x}", self.0.local_memory));
        row(
            "control_plane_max",
            format!("{:#x}", self.0.control_plane_max),
        );
        row("record_version", versions.collect::<Vec<_>>().join(" "));
        table.fmt(f)
    }
}
