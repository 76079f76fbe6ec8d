// SPDX-License-Identifier: GPL-2.0

//! A stream taken apart, so that it can be changed and put together again.
//!
//! A changed byte in a sealed stream gets no further than the next checksum. What lies behind the
//! checksums is reached by streams that are sealed anew after the change. A [`Draft`] takes any
//! bytes apart, as far as they can be, and [`Repair`] says how much of what follows from the
//! sections is made true again.

use crate::layer::{
    address::Space,
    stream::{
        AddressEntry, AddressHeader, Checksum, DataRun, End, Kind, ResourcesHeader,
        Section as Header, DATA_RUN_MAX, HEADER_LENGTH, SECTION_HEADER_LENGTH,
    },
};

/// Bytes of the CRC that ends a header.
const CRC_LENGTH: usize = 4;

/// A section.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// Type, flags and interface are as they stand here; the rest is a matter of [`Repair`].
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

/// A stream taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// The stream header without its CRC.
    pub(crate) preamble: [u8; HEADER_LENGTH - CRC_LENGTH],
    pub(crate) sections: Vec<Section>,
    /// What comes behind the last section that is whole.
    pub(crate) tail: Vec<u8>,
}

/// What is made true when a draft is sealed. Checksums and lengths of sections always are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repair {
    /// The sequence numbers of the sections.
    pub(crate) sequence: bool,
    /// Where address sections say that their data stand.
    pub(crate) places: bool,
    /// The totals in end sections.
    pub(crate) totals: bool,
}

impl Repair {
    pub(crate) const EVERYTHING: Self = Self {
        sequence: true,
        places: true,
        totals: true,
    };
}

impl Draft {
    /// Takes `stream` apart; `None` if it is too short for a stream header.
    pub(crate) fn parse(stream: &[u8]) -> Option<Self> {
        let preamble = *stream.first_chunk()?;
        let mut rest = stream.get(HEADER_LENGTH..)?;
        let mut sections = Vec::new();

        while let Some((section, behind)) = Section::split(rest) {
            sections.push(section);
            rest = behind;
        }
        Some(Self {
            preamble,
            sections,
            tail: rest.to_vec(),
        })
    }

    /// Puts the stream together.
    pub(crate) fn seal(&mut self, repair: Repair) -> Vec<u8> {
        let payloads = self.sections.iter().map(|section| section.payload.len());
        let length = payloads.sum::<usize>() + self.sections.len() * SECTION_HEADER_LENGTH;
        let mut stream = Vec::with_capacity(HEADER_LENGTH + length + self.tail.len());
        let mut headers = Checksum::EMPTY.and(&self.preamble);
        let mut totals = End {
            sections: 0,
            data_bytes: 0,
            control_bytes: 0,
            headers_crc: 0,
            reserved: 0,
        };

        push_sealed(&mut stream, &self.preamble);
        for section in &mut self.sections {
            let kind = Kind::from_raw(section.header.kind);

            match kind {
                Some(Kind::Address) if repair.places => section.place_data(totals.sections),
                Some(Kind::End) if repair.totals => {
                    totals.headers_crc = headers.value();
                    section.payload = totals.encode().to_vec();
                }
                _ => {}
            }
            section.header.length = section.payload.len() as u32;
            section.header.payload_crc = Checksum::of(&section.payload);
            if repair.sequence {
                section.header.sequence = totals.sections;
            }

            let header = section.header.encode();
            headers = headers.and(&header);
            totals.sections += 1;
            match kind {
                Some(Kind::Data) => totals.data_bytes += section.behind(DataRun::LENGTH),
                Some(Kind::Control) => {
                    totals.control_bytes += section.behind(ResourcesHeader::LENGTH);
                }
                _ => {}
            }
            push_sealed(&mut stream, &header);
            stream.extend_from_slice(&section.payload);
        }
        stream.extend_from_slice(&self.tail);
        stream
    }
}

/// Appends a header and its CRC.
fn push_sealed(stream: &mut Vec<u8>, header: &[u8]) {
    stream.extend_from_slice(header);
    stream.extend_from_slice(&Checksum::of(header).to_le_bytes());
}

impl Section {
    /// Takes the first section of `bytes` and returns what follows it, too; `None` if it is not
    /// whole.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = bytes.split_at_checked(SECTION_HEADER_LENGTH)?;
        let header = Header::decode(header).ok()?;
        let (payload, rest) = rest.split_at_checked(header.length as usize)?;

        let section = Self {
            header,
            payload: payload.to_vec(),
        };
        Some((section, rest))
    }

    /// Returns the bytes of payload behind the first `length`.
    fn behind(&self, length: usize) -> u64 {
        self.payload.len().saturating_sub(length) as u64
    }

    /// Says in each range of local memory where its data stand, if they follow this section, the
    /// one with this sequence number, at once.
    fn place_data(&mut self, sequence: u64) {
        let Some((header, entries)) = self.payload.split_at_mut_checked(AddressHeader::LENGTH)
        else {
            return;
        };
        let local =
            AddressHeader::decode(header).is_ok_and(|header| header.space == Space::Local as u32);
        let mut next = sequence.wrapping_add(1);

        for bytes in entries.chunks_exact_mut(AddressEntry::LENGTH) {
            let Ok(mut entry) = AddressEntry::decode(bytes) else {
                continue;
            };
            entry.sequence = if local { next } else { 0 };
            next = next.wrapping_add(entry.length.div_ceil(DATA_RUN_MAX as u64));
            bytes.copy_from_slice(&entry.encode());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    /// What is taken apart and put together is what it was.
    #[test]
    fn sealed_seeds_are_as_they_were() {
        for seed in seeds::streams().unwrap() {
            let mut draft = Draft::parse(&seed.bytes).unwrap();
            assert!(draft.tail.is_empty(), "{}", seed.name);
            assert!(
                draft.seal(Repair::EVERYTHING) == seed.bytes,
                "{}",
                seed.name
            );
        }
    }
}
