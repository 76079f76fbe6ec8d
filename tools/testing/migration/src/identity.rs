// SPDX-License-Identifier: GPL-2.0

//! The identity of a virtual function, and the rules for the fields of a destination.
//!
//! The rules repeat the specification of the stream. They are not taken from the driver, because
//! they are used to test it.

use std::{
    fmt,
    mem::{offset_of, size_of},
};

use anyhow::{bail, ensure, Result};

use crate::hw;

/// The rule for a field of the destination, given the source's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The same value.
    Equal,
    /// The same value or more.
    AtLeast,
    /// Every bit of the source's value.
    Subset,
}

/// The origin of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A property of the device: the PCI core sees it too, or the device works by it.
    Device,
    /// A claim of the device, which has no effect unless the guest or the host uses the field.
    Claim,
}

/// A field of `struct vifa_identity`, or an element of an array field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name, as in `bar_size[0]`.
    pub name: String,
    /// The rule for the destination.
    pub rule: Rule,
    /// The origin of the value.
    pub origin: Origin,
    offset: usize,
    width: usize,
}

impl Field {
    /// Returns whether a move that the field allows prevents a later move to a device without it,
    /// unless the field is a claim.
    pub fn is_for_good(&self) -> bool {
        self.origin == Origin::Device && self.rule != Rule::Equal
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Returns all fields that source and destination compare, in the order of `struct vifa_identity`.
pub fn fields() -> Vec<Field> {
    use Origin::{Claim, Device};
    use Rule::{AtLeast, Equal, Subset};

    macro_rules! place {
        ($member:ident) => {
            (
                stringify!($member),
                offset_of!(hw::vifa_identity, $member),
                size_of_val(&hw::vifa_identity::default().$member),
            )
        };
    }
    let plain = |(name, offset, width): (&str, usize, usize), rule, origin| Field {
        name: name.to_owned(),
        rule,
        origin,
        offset,
        width,
    };
    let array = |(name, offset, size): (&'static str, usize, usize), count: u32, rule, origin| {
        let width = size / count as usize;
        (0..count as usize).map(move |index| Field {
            name: format!("{name}[{index}]"),
            rule,
            origin,
            offset: offset + width * index,
            width,
        })
    };

    let mut fields = vec![
        plain(place!(vendor), Equal, Device),
        plain(place!(device), Equal, Device),
        plain(place!(subsystem_vendor), Equal, Device),
        plain(place!(subsystem), Equal, Device),
        plain(place!(revision_id), Equal, Device),
        plain(place!(vifa_revision), AtLeast, Claim),
        plain(place!(features), Subset, Claim),
    ];
    fields.extend(array(
        place!(bar_size),
        hw::VIFA_IDENTITY_BARS,
        Equal,
        Device,
    ));
    fields.extend([
        plain(place!(interrupt_vectors), Equal, Claim),
        plain(place!(queues), AtLeast, Claim),
        plain(place!(granule), Equal, Device),
        plain(place!(local_memory), AtLeast, Device),
        plain(place!(control_plane_max), AtLeast, Claim),
    ]);
    fields.extend(array(
        place!(record_version),
        hw::VIFA_IDENTITY_RECORD_TYPES,
        AtLeast,
        Claim,
    ));
    fields
}

const SIZE: usize = size_of::<hw::vifa_identity>();

/// Maximum number of bytes in one patch of the device's answer.
const PATCH: usize = 8;

/// Bytes of the identity that replace the device's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The offset in the device's answer.
    pub offset: usize,
    /// The new bytes.
    pub value: u64,
}

/// The identity of a virtual function: `struct vifa_identity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity([u8; SIZE]);

impl Identity {
    /// Reads the identity in a migration region.
    pub fn in_region(region: &[u8]) -> Result<Self> {
        let start = offset_of!(hw::vifa_region, identity);
        match region.get(start..start + SIZE) {
            Some(bytes) => Ok(Self(bytes.try_into()?)),
            None => bail!("a migration region of {} bytes is too short", region.len()),
        }
    }

    /// Returns the value of one field.
    pub fn get(&self, field: &Field) -> u64 {
        let mut value = [0; 8];
        value[..field.width].copy_from_slice(&self.0[field.offset..field.offset + field.width]);
        u64::from_le_bytes(value)
    }

    /// Returns the number of bytes of local memory.
    pub fn local_memory(&self) -> u64 {
        self.number(offset_of!(hw::vifa_identity, local_memory))
    }

    /// Returns whether the device reports changes of its local memory.
    pub fn reports_local_dirty(&self) -> bool {
        let features = self.number(offset_of!(hw::vifa_identity, features));
        features & u64::from(hw::VIFA_FEATURE_LOCAL_DIRTY) != 0
    }

    fn number(&self, offset: usize) -> u64 {
        let bytes = self.0[offset..offset + 8].try_into();
        u64::from_le_bytes(bytes.expect("the length of a u64"))
    }

    /// Returns a copy with another value of one field.
    pub fn with(&self, field: &Field, value: u64) -> Result<Self> {
        let bytes = value.to_le_bytes();
        let (low, high) = bytes.split_at(field.width);
        ensure!(
            high.iter().all(|byte| *byte == 0),
            "invalid {field}: {value:#x}"
        );
        let mut changed = self.clone();
        changed.0[field.offset..field.offset + field.width].copy_from_slice(low);
        Ok(changed)
    }

    /// Returns the fields that differ from `other`.
    pub fn differences(&self, other: &Self) -> Vec<Field> {
        let mut fields = fields();
        fields.retain(|field| self.get(field) != other.get(field));
        fields
    }

    /// Returns the patches that change `truth` to this. Each patch is whole and aligned, so few
    /// patches cover many fields.
    pub fn patches(&self, truth: &Self) -> Vec<Patch> {
        let windows = self.0.chunks_exact(PATCH).zip(truth.0.chunks_exact(PATCH));
        windows
            .enumerate()
            .filter(|(_, (wanted, true_))| wanted != true_)
            .map(|(index, (wanted, _))| Patch {
                offset: index * PATCH,
                value: u64::from_le_bytes(wanted.try_into().expect("chunks of this size")),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> Field {
        let mut fields = fields();
        fields.retain(|field| field.name == name);
        assert_eq!(fields.len(), 1, "{name}");
        fields.remove(0)
    }

    /// Every byte except the reserved ones is in exactly one field.
    #[test]
    fn fields_cover_the_structure() {
        let mut covered = [0; SIZE];
        for field in fields() {
            covered[field.offset..field.offset + field.width]
                .iter_mut()
                .for_each(|times| *times += 1);
        }
        let reserved = [
            (offset_of!(hw::vifa_identity, reserved0), 1),
            (offset_of!(hw::vifa_identity, reserved1), 4),
        ];
        for (offset, width) in reserved {
            covered[offset..offset + width]
                .iter_mut()
                .for_each(|times| *times += 1);
        }
        assert_eq!(covered, [1; SIZE]);
        assert_eq!(SIZE % PATCH, 0);
    }

    #[test]
    fn reads_and_changes_one_field() {
        let identity = Identity(std::array::from_fn(|index| index as u8));
        assert_eq!(identity.get(&field("vendor")), 0x0100);
        assert_eq!(identity.get(&field("bar_size[1]")), 0x1f1e_1d1c_1b1a_1918);

        let queues = field("queues");
        let other = identity.with(&queues, 7).unwrap();
        assert_eq!(other.get(&queues), 7);
        assert_eq!(identity.differences(&other), [queues.clone()]);
        assert!(identity.with(&queues, 0x1_0000).is_err());
    }

    #[test]
    fn patches_make_the_difference() {
        let truth = Identity([0; SIZE]);
        assert_eq!(truth.patches(&truth), []);
        let wanted = truth
            .with(&field("interrupt_vectors"), 2)
            .and_then(|identity| identity.with(&field("queues"), 3))
            .and_then(|identity| identity.with(&field("record_version[15]"), 4))
            .unwrap();
        assert_eq!(
            wanted.patches(&truth),
            [
                Patch {
                    offset: 64,
                    value: 0x0003_0002
                },
                Patch {
                    offset: 112,
                    value: 4 << 48
                }
            ]
        );
    }

    #[test]
    fn a_short_region_has_no_identity() {
        assert!(Identity::in_region(&[0; 100]).is_err());
        assert!(Identity::in_region(&vec![0; size_of::<hw::vifa_region>()]).is_ok());
    }
}
