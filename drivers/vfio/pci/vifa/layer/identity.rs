// SPDX-License-Identifier: GPL-2.0

//! Identity of a virtual function, and compatibility of two functions.
//!
//! The backend fills an [`Identity`] from the device's own description. The stream carries the
//! source's. The compatibility check compares the two, with a rule for each field.

use super::check::{
    check,
    Expectation,
    Violation, //
};
use core::fmt;

/// Number of base address registers of a function.
pub const BARS: usize = 6;

/// Number of record types.
pub const RECORD_TYPES: usize = 16;

/// Feature: the device has the P2P-quiesced run state.
pub const FEATURE_P2P: u32 = 0x1;
/// Feature: the device logs writes to guest memory.
pub const FEATURE_DIRTY_LOG: u32 = 0x2;
/// Feature: the device has local memory.
pub const FEATURE_LOCAL_MEMORY: u32 = 0x4;
/// Feature: the device tracks changes of its local memory.
pub const FEATURE_LOCAL_DIRTY: u32 = 0x8;

const FEATURES: u32 = FEATURE_P2P | FEATURE_DIRTY_LOG | FEATURE_LOCAL_MEMORY | FEATURE_LOCAL_DIRTY;

/// Smallest granule of local memory, in bytes.
pub const GRANULE_MIN: u32 = 0x1000;
/// Largest granule of local memory, in bytes.
pub const GRANULE_MAX: u32 = 0x1_0000;
/// Maximum size of a virtual function's local memory, in bytes.
pub const LOCAL_MEMORY_MAX: u64 = 1 << 40;
/// Maximum size of the control plane, in bytes.
pub const CONTROL_PLANE_MAX: u32 = 0x10_0000;

/// Maximum number of MSI-X vectors of a function (PCI Express 6.0, 7.7.2.2).
const INTERRUPT_VECTORS_MAX: u64 = 2048;

/// The identity of a virtual function, with the fields of `struct vifa_identity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id of the VF.
    pub device: u16,
    /// PCI subsystem vendor id.
    pub subsystem_vendor: u16,
    /// PCI subsystem id.
    pub subsystem: u16,
    /// PCI revision id.
    pub revision_id: u8,
    /// Revision of the VIFA hardware interface, from 1.
    pub vifa_revision: u16,
    /// `FEATURE_*` bits.
    pub features: u32,
    /// Size of each BAR in bytes, or 0 if the function does not implement it.
    pub bar_size: [u64; BARS],
    /// Number of MSI-X vectors.
    pub interrupt_vectors: u16,
    /// Number of queue pairs.
    pub queues: u16,
    /// Unit of local memory in bytes.
    pub granule: u32,
    /// Size of local memory in bytes, or 0.
    pub local_memory: u64,
    /// Maximum size of the control plane in bytes.
    pub control_plane_max: u32,
    /// Highest version of each record type that the device loads, or 0 for an unknown type.
    pub record_version: [u16; RECORD_TYPES],
}

const BAR_SIZE: [&str; BARS] = [
    "bar_size[0]",
    "bar_size[1]",
    "bar_size[2]",
    "bar_size[3]",
    "bar_size[4]",
    "bar_size[5]",
];

const RECORD_VERSION: [&str; RECORD_TYPES] = [
    "record_version[0]",
    "record_version[1]",
    "record_version[2]",
    "record_version[3]",
    "record_version[4]",
    "record_version[5]",
    "record_version[6]",
    "record_version[7]",
    "record_version[8]",
    "record_version[9]",
    "record_version[10]",
    "record_version[11]",
    "record_version[12]",
    "record_version[13]",
    "record_version[14]",
    "record_version[15]",
];

impl Identity {
    /// Checks that the identity is valid.
    ///
    /// # Errors
    ///
    /// Returns the first field that is invalid or exceeds a limit of the layer.
    pub fn validate(&self) -> Result<(), Violation> {
        use Expectation::*;

        check("vifa_revision", self.vifa_revision, AtLeast(1))?;
        check("features", self.features, SubsetOf(FEATURES.into()))?;
        for (field, size) in BAR_SIZE.into_iter().zip(self.bar_size) {
            if size != 0 {
                check(field, size, PowerOfTwo)?;
            }
        }
        check(
            "interrupt_vectors",
            self.interrupt_vectors,
            AtMost(INTERRUPT_VECTORS_MAX),
        )?;
        if self.features & FEATURE_LOCAL_MEMORY == 0 {
            check("local_memory", self.local_memory, Equal(0))?;
        }
        if self.local_memory != 0 {
            check("granule", self.granule, PowerOfTwo)?;
            check("granule", self.granule, AtLeast(GRANULE_MIN.into()))?;
            check("granule", self.granule, AtMost(GRANULE_MAX.into()))?;
            check("local_memory", self.local_memory, AtMost(LOCAL_MEMORY_MAX))?;
            check(
                "local_memory",
                self.local_memory,
                MultipleOf(self.granule.into()),
            )?;
        }
        check("control_plane_max", self.control_plane_max, AtLeast(1))?;
        check(
            "control_plane_max",
            self.control_plane_max,
            AtMost(CONTROL_PLANE_MAX.into()),
        )
    }

    /// Checks that a device with the identity `destination` can take the state of this device.
    ///
    /// # Errors
    ///
    /// Returns the first of [`Self::mismatches`].
    pub fn fits(&self, destination: &Self) -> Result<(), Mismatch> {
        self.mismatches(destination).next().map_or(Ok(()), Err)
    }

    /// Returns each field whose rule does not hold between the source `self` and `destination`, in
    /// the order of `struct vifa_identity`.
    pub fn mismatches(&self, destination: &Self) -> impl Iterator<Item = Mismatch> {
        let pairs = self.fields().zip(destination.fields());

        pairs.filter_map(|((field, rule, source), (_, _, destination))| {
            let mismatch = Mismatch {
                field,
                rule,
                source,
                destination,
            };

            (!rule.holds(source, destination)).then_some(mismatch)
        })
    }

    /// Returns each field with its rule, in the order of `struct vifa_identity`.
    fn fields(&self) -> impl Iterator<Item = (&'static str, Rule, u64)> {
        use Rule::*;

        let head = [
            ("vendor", Equal, self.vendor.into()),
            ("device", Equal, self.device.into()),
            ("subsystem_vendor", Equal, self.subsystem_vendor.into()),
            ("subsystem", Equal, self.subsystem.into()),
            ("revision_id", Equal, self.revision_id.into()),
            ("vifa_revision", AtLeast, self.vifa_revision.into()),
            ("features", Subset, self.features.into()),
        ];
        let bars = BAR_SIZE
            .into_iter()
            .zip(self.bar_size)
            .map(|(field, size)| (field, Equal, size));
        let tail = [
            ("interrupt_vectors", Equal, self.interrupt_vectors.into()),
            ("queues", AtLeast, self.queues.into()),
            ("granule", Equal, self.granule.into()),
            ("local_memory", AtLeast, self.local_memory),
            ("control_plane_max", AtLeast, self.control_plane_max.into()),
        ];
        let records = RECORD_VERSION
            .into_iter()
            .zip(self.record_version)
            .map(|(field, version)| (field, AtLeast, version.into()));

        head.into_iter().chain(bars).chain(tail).chain(records)
    }
}

/// The rule for a field of the destination, given the source's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The values are equal.
    Equal,
    /// The destination's value is equal or greater.
    AtLeast,
    /// The destination has every bit of the source.
    Subset,
}

impl Rule {
    fn holds(self, source: u64, destination: u64) -> bool {
        match self {
            Self::Equal => source == destination,
            Self::AtLeast => source <= destination,
            Self::Subset => source & !destination == 0,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "they must be equal",
            Self::AtLeast => "the destination needs at least as much",
            Self::Subset => "the destination needs every bit of the source",
        })
    }
}

/// The error of a field in which source and destination are incompatible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Name of the field in `struct vifa_identity`.
    pub field: &'static str,
    /// The rule that does not hold.
    pub rule: Rule,
    /// The source's value.
    pub source: u64,
    /// The destination's value.
    pub destination: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: source has {:#x}, destination has {:#x}; {}",
            self.field, self.source, self.destination, self.rule
        )
    }
}
