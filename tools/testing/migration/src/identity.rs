// SPDX-License-Identifier: GPL-2.0

//! What a virtual function is, field by field, and what a destination's fields have to be.
//!
//! The rules are written down here once more, as the specification of the stream has them, and not
//! taken from the driver: they are what it is tested against.

use std::fmt;
use std::mem::{offset_of, size_of};

use anyhow::{bail, ensure, Result};

use crate::hw;

/// What a field of the destination has to be, given the source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The same.
    Equal,
    /// The same or more.
    AtLeast,
    /// Every bit that the source has.
    Subset,
}

/// Where a field's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The device has it: the PCI core sees it too, or the device works by it.
    Device,
    /// A device may claim it, and nothing follows as long as nobody makes use of it.
    Claim,
}

/// A field of `struct vifa_identity`, or an element of one that is an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As in `bar_size[0]`.
    pub name: String,
    /// What the destination's has to be.
    pub rule: Rule,
    /// Where it comes from.
    pub origin: Origin,
    offset: usize,
    width: usize,
}

impl Field {
    /// Whether a move that it allows cannot be followed by a move to a device without it, other than
    /// by a claim.
    pub fn is_for_good(&self) -> bool {
        self.origin == Origin::Device && self.rule != Rule::Equal
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Every field that source and destination compare, in the order of `struct vifa_identity`.
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

/// Bytes that one patch of the device's answer can have.
const PATCH: usize = 8;

/// Bytes of the identity that are to be other than the device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where they are in the device's answer.
    pub offset: usize,
    /// What they are.
    pub value: u64,
}

/// What a virtual function is: `struct vifa_identity`.
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

    /// The value of one field.
    pub fn get(&self, field: &Field) -> u64 {
        let mut value = [0; 8];
        value[..field.width].copy_from_slice(&self.0[field.offset..field.offset + field.width]);
        u64::from_le_bytes(value)
    }

    /// Bytes of local memory.
    pub fn local_memory(&self) -> u64 {
        self.number(offset_of!(hw::vifa_identity, local_memory))
    }

    /// Whether the device tells which of its local memory has changed.
    pub fn knows_local_dirty(&self) -> bool {
        let features = self.number(offset_of!(hw::vifa_identity, features));
        features & u64::from(hw::VIFA_FEATURE_LOCAL_DIRTY) != 0
    }

    fn number(&self, offset: usize) -> u64 {
        let bytes = self.0[offset..offset + 8].try_into();
        u64::from_le_bytes(bytes.expect("as many bytes as there are in a u64"))
    }

    /// The same with another value of one field.
    pub fn with(&self, field: &Field, value: u64) -> Result<Self> {
        let bytes = value.to_le_bytes();
        let (low, high) = bytes.split_at(field.width);
        ensure!(
            high.iter().all(|byte| *byte == 0),
            "{field} cannot be {value:#x}"
        );
        let mut changed = self.clone();
        changed.0[field.offset..field.offset + field.width].copy_from_slice(low);
        Ok(changed)
    }

    /// The fields in which it is not like `other`.
    pub fn differences(&self, other: &Self) -> Vec<Field> {
        let mut fields = fields();
        fields.retain(|field| self.get(field) != other.get(field));
        fields
    }

    /// What makes this of `truth`. Each patch is whole and aligned, so few do for many fields.
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

    /// No byte but the reserved ones is left out, and none is in two fields.
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
