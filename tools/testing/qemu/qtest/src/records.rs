// SPDX-License-Identifier: GPL-2.0

//! The records of a control plane: parsing and serialization.

/// Size of a record's header in bytes.
const HEADER: usize = 16;

/// Records, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records(Vec<(u16, Vec<u8>)>);

impl Records {
    /// Parses a control plane that a device saved.
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

    /// Returns the types of the records.
    pub fn kinds(&self) -> Vec<u16> {
        self.0.iter().map(|(kind, _)| *kind).collect()
    }

    /// Serializes the records.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Sets a 32-bit word of the body of the record of this type.
    pub fn word(&mut self, kind: u32, offset: usize, value: u32) -> &mut Self {
        let (_, bytes) = self
            .0
            .iter_mut()
            .find(|(other, _)| u32::from(*other) == kind)
            .expect("has such a record");
        bytes[HEADER + offset..HEADER + offset + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Returns the records without those of this type.
    pub fn without(&self, kind: u32) -> Self {
        let mut records = self.clone();
        records.0.retain(|(other, _)| u32::from(*other) != kind);
        records
    }

    /// Returns the records with a duplicate of the record of this type.
    pub fn twice(&self, kind: u32) -> Self {
        let mut records = self.clone();
        let again = self.0.iter().find(|(other, _)| u32::from(*other) == kind);
        records.0.push(again.expect("has such a record").clone());
        records
    }

    /// Returns the records in reverse order.
    pub fn reversed(&self) -> Self {
        Self(self.0.iter().rev().cloned().collect())
    }
}
