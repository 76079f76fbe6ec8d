// SPDX-License-Identifier: GPL-2.0

//! The records of a control plane, taken apart and put together again.

/// The bytes of a record's header.
const HEADER: usize = 16;

/// Records, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records(Vec<(u16, Vec<u8>)>);

impl Records {
    /// Takes a control plane that a device saved apart.
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let kind = u16::from_le_bytes(bytes[..2].try_into().expect("two bytes"));
            let length = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
            let end = HEADER + (length as usize).next_multiple_of(8);
            let (record, rest) = bytes.split_at(end);
            records.push((kind, record.to_vec()));
            bytes = rest;
        }
        Self(records)
    }

    /// The types.
    pub fn kinds(&self) -> Vec<u16> {
        self.0.iter().map(|(kind, _)| *kind).collect()
    }

    /// The bytes of the records.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    /// A 32-bit word of the body of the record of this type.
    pub fn word(&mut self, kind: u32, offset: usize, value: u32) -> &mut Self {
        let (_, bytes) = self
            .0
            .iter_mut()
            .find(|(other, _)| u32::from(*other) == kind)
            .expect("has such a record");
        bytes[HEADER + offset..HEADER + offset + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Leaves the records of this type out.
    pub fn without(&self, kind: u32) -> Self {
        let mut records = self.clone();
        records.0.retain(|(other, _)| u32::from(*other) != kind);
        records
    }

    /// Has the record of this type a second time.
    pub fn twice(&self, kind: u32) -> Self {
        let mut records = self.clone();
        let again = self.0.iter().find(|(other, _)| u32::from(*other) == kind);
        records.0.push(again.expect("has such a record").clone());
        records
    }

    /// The same records, last first.
    pub fn reversed(&self) -> Self {
        Self(self.0.iter().rev().cloned().collect())
    }
}
