// SPDX-License-Identifier: GPL-2.0

//! Addresses a stream to one destination while it is read.
//!
//! Other destinations reject a stream that names its receivers. The relations section contains the
//! names. Changing them changes the CRCs of that section, and the CRC of all headers in the end
//! section. All other bytes pass unchanged, and so do damaged sections: CRCs are only recomputed
//! for valid input.

use std::io::{self, Read};

use crate::layer::{
    interface::{Interfaces, Plane},
    relation::Relations,
    stream::{
        unseal, Checksum, End, Kind, RelationPayload, Section, HEADER_LENGTH, SECTION_HEADER_LENGTH,
    },
};

/// A stream on its way to a destination.
pub(super) struct Readdressed<R> {
    input: R,
    receiver: Interfaces,
    expects: Expects,
    /// Data that was read and changed, and the number of bytes already returned.
    ready: Vec<u8>,
    given: usize,
    /// Number of bytes to pass unchanged before the next header.
    pass: u64,
    /// CRCs of all headers so far, of the input and of the output.
    input_headers: Checksum,
    output_headers: Checksum,
}

/// The next part of the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    StreamHeader,
    SectionHeader,
    /// The rest, which passes unchanged.
    Rest,
}

impl<R: Read> Readdressed<R> {
    /// Addresses the stream in `input` to the function with the interfaces `receiver`.
    pub(super) fn new(input: R, receiver: Interfaces) -> Self {
        Self {
            input,
            receiver,
            expects: Expects::StreamHeader,
            ready: Vec::new(),
            given: 0,
            pass: 0,
            input_headers: Checksum::EMPTY,
            output_headers: Checksum::EMPTY,
        }
    }

    /// Reads `length` bytes and appends them to `ready`; returns whether the input had that many.
    fn read_more(&mut self, length: usize) -> io::Result<bool> {
        let read = (&mut self.input)
            .take(length as u64)
            .read_to_end(&mut self.ready)?;

        Ok(read == length)
    }

    /// Reads the next header, and its payload if that must change.
    fn refill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        match self.expects {
            Expects::StreamHeader => {
                if self.read_more(HEADER_LENGTH)? {
                    if let Ok(header) = unseal("crc", &self.ready) {
                        self.input_headers = self.input_headers.and(header);
                        self.output_headers = self.output_headers.and(header);
                        self.expects = Expects::SectionHeader;
                        return Ok(());
                    }
                }
                self.expects = Expects::Rest;
            }
            Expects::SectionHeader => {
                if !self.read_more(SECTION_HEADER_LENGTH)? || !self.section()? {
                    self.expects = Expects::Rest;
                }
            }
            Expects::Rest => {}
        }
        if self.expects == Expects::Rest {
            self.pass = u64::MAX;
        }
        Ok(())
    }

    /// Processes the section whose header is ready; returns whether another section follows.
    fn section(&mut self) -> io::Result<bool> {
        let section = unseal("header_crc", &self.ready).and_then(Section::decode);
        let Ok(section) = section else {
            return Ok(false);
        };
        let length = section.length as usize;
        let payload = match Kind::from_raw(section.kind) {
            Some(Kind::Relations) if length == Relations::LENGTH => {
                if !self.read_more(length)? {
                    return Ok(false);
                }
                self.payload(&section)
                    .map(|payload| self.addressed(payload))
            }
            Some(Kind::End) if length == End::LENGTH => {
                if self.read_more(length)? {
                    let end = self
                        .payload(&section)
                        .and_then(|payload| self.summed(payload));

                    if let Some(end) = end {
                        self.seal(section, &end);
                    }
                }
                return Ok(false);
            }
            _ => {
                self.pass = section.length.into();
                None
            }
        };

        self.input_headers = self.input_headers.and(&section.encode());
        let output = match payload {
            Some(payload) => self.seal(section, &payload),
            None => section,
        };
        self.output_headers = self.output_headers.and(&output.encode());
        Ok(true)
    }

    /// Returns the payload of `section`, if its CRC is valid.
    fn payload(&self, section: &Section) -> Option<&[u8]> {
        let payload = self.ready.get(SECTION_HEADER_LENGTH..)?;

        (Checksum::of(payload) == section.payload_crc).then_some(payload)
    }

    /// Returns the relations in `payload`, with `receiver` set where it was 0.
    fn addressed(&self, payload: &[u8]) -> Vec<u8> {
        let planes = [Plane::Control, Plane::Data];
        let relations = payload.chunks(RelationPayload::LENGTH);

        relations
            .zip(planes)
            .filter_map(|(relation, plane)| {
                let mut relation = RelationPayload::decode(relation).ok()?;

                if relation.receiver == 0 {
                    relation.receiver = self.receiver.plane(plane).as_raw();
                }
                Some(relation.encode())
            })
            .flatten()
            .collect()
    }

    /// Returns the totals in `payload` with the CRC of the output's headers; `None` if the input's
    /// CRC is invalid.
    fn summed(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut end = End::decode(payload).ok()?;

        if end.headers_crc != self.input_headers.value() {
            return None;
        }
        end.headers_crc = self.output_headers.value();
        Some(end.encode().to_vec())
    }

    /// Puts `section` and this payload into `ready`, with valid CRCs.
    fn seal(&mut self, section: Section, payload: &[u8]) -> Section {
        let section = Section {
            payload_crc: Checksum::of(payload),
            ..section
        };
        let header = section.encode();

        self.ready.clear();
        self.ready.extend(header);
        self.ready.extend(Checksum::of(&header).to_le_bytes());
        self.ready.extend(payload);
        section
    }
}

impl<R: Read> Read for Readdressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given >= self.ready.len() && self.pass == 0 {
            self.refill()?;
        }
        let ready = self.ready.get(self.given..).unwrap_or_default();
        if !ready.is_empty() {
            let length = ready.len().min(buffer.len());
            let (now, _) = ready.split_at(length);

            buffer
                .iter_mut()
                .zip(now)
                .for_each(|(to, from)| *to = *from);
            self.given += length;
            return Ok(length);
        }
        let length = buffer
            .len()
            .min(usize::try_from(self.pass).unwrap_or(usize::MAX));
        let length = self
            .input
            .read(buffer.get_mut(..length).unwrap_or_default())?;

        if length == 0 {
            self.expects = Expects::Rest;
        }
        if self.expects != Expects::Rest {
            self.pass = self.pass.saturating_sub(length as u64);
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decode::walk::{walk, Judge, NoVisitor},
        layer::tests::device::{Device, IDENTITY},
        verdict::interfaces_of,
    };
    use proptest::prelude::*;

    const HERE: &str = "0000:41:00.3";

    fn interfaces(address: &str) -> Interfaces {
        interfaces_of(address.parse().unwrap())
    }

    fn stream() -> Vec<u8> {
        let mut device = Device::new(IDENTITY).unwrap();

        device.fill(1);
        device.fill(5);
        device.save(&[usize::MAX]).unwrap().to_vec()
    }

    fn readdressed(stream: &[u8], address: &str) -> Vec<u8> {
        let mut addressed = Vec::new();

        Readdressed::new(stream, interfaces(address))
            .read_to_end(&mut addressed)
            .unwrap();
        addressed
    }

    fn accepts(stream: &[u8], address: &str) -> bool {
        let judge = Judge::Function(IDENTITY, interfaces(address));
        let outcome = walk(&mut &*stream, 0, judge, &mut NoVisitor).unwrap();

        outcome.damage.is_none()
    }

    #[test]
    fn an_addressed_stream_is_accepted_by_its_receiver_only() {
        let addressed = readdressed(&stream(), HERE);

        assert_eq!(addressed.len(), stream().len());
        assert!(accepts(&addressed, HERE));
        assert!(!accepts(&addressed, "0000:41:00.4"));
        assert!(accepts(&stream(), HERE));
        assert!(accepts(&stream(), "0000:41:00.4"));
    }

    #[test]
    fn only_the_receiver_changes() {
        let (before, after) = (stream(), readdressed(&stream(), HERE));
        let changed: Vec<_> = (0..before.len())
            .filter(|&at| before[at] != after[at])
            .collect();
        // Relations: its header's CRCs, two receivers. End: the same CRCs, and headers_crc.
        let relations = 16 + 32 + 120;
        let end = before.len() - 64;
        let allowed = [
            relations + 24..relations + 32,
            relations + 32 + 16..relations + 32 + 24,
            relations + 32 + 24 + 16..relations + 32 + 48,
            end + 24..end + 32,
            end + 32 + 24..end + 32 + 28,
        ];

        assert!(!changed.is_empty());
        for at in changed {
            assert!(allowed.iter().any(|range| range.contains(&at)), "{at:#x}");
        }
    }

    #[test]
    fn an_addressed_stream_is_not_readdressed() {
        let addressed = readdressed(&stream(), HERE);

        assert_eq!(readdressed(&addressed, "0000:41:00.4"), addressed);
        assert_eq!(readdressed(&addressed, HERE), addressed);
    }

    proptest! {
        #[test]
        fn damage_is_not_repaired(
            place: prop::sample::Index, bit in 0..8_u8,
        ) {
            let mut damaged = stream();
            let place = place.index(damaged.len());

            damaged[place] ^= 1 << bit;
            prop_assert!(!accepts(&readdressed(&damaged, HERE), HERE));
        }

        #[test]
        fn any_input_keeps_its_length(bytes: Vec<u8>, cut: prop::sample::Index) {
            prop_assert_eq!(readdressed(&bytes, HERE), bytes);
            let whole = stream();
            let cut = cut.index(whole.len());
            prop_assert_eq!(readdressed(&whole[..cut], HERE).len(), cut);
        }
    }
}
