// SPDX-License-Identifier: GPL-2.0

//! Addresses a stream to one destination, as it is read.
//!
//! A stream that names its receivers is refused by everybody else. The names stand in the relations
//! section; with them its CRCs change, and the sum of all headers in the end section. Everything
//! else goes through as it is, and so does what is damaged: only what was sound is sealed anew.

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
    /// What was read and changed, and how much of it was given out.
    ready: Vec<u8>,
    given: usize,
    /// Bytes that go through unchanged before the next header.
    pass: u64,
    /// Of all headers so far, as they came and as they go.
    came: Checksum,
    goes: Checksum,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    StreamHeader,
    SectionHeader,
    /// Nothing that is of interest.
    Rest,
}

impl<R: Read> Readdressed<R> {
    /// Addresses the stream that `input` holds to the function with the interfaces `receiver`.
    pub(super) fn new(input: R, receiver: Interfaces) -> Self {
        Self {
            input,
            receiver,
            expects: Expects::StreamHeader,
            ready: Vec::new(),
            given: 0,
            pass: 0,
            came: Checksum::EMPTY,
            goes: Checksum::EMPTY,
        }
    }

    /// Reads `length` bytes and appends them to what is ready; returns whether there were so many.
    fn read_more(&mut self, length: usize) -> io::Result<bool> {
        let read = (&mut self.input)
            .take(length as u64)
            .read_to_end(&mut self.ready)?;

        Ok(read == length)
    }

    /// Reads the next header, and the payload behind it if that has to change.
    fn refill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        match self.expects {
            Expects::StreamHeader => {
                if self.read_more(HEADER_LENGTH)? {
                    if let Ok(header) = unseal("crc", &self.ready) {
                        self.came = self.came.and(header);
                        self.goes = self.goes.and(header);
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

    /// Treats the section whose header is ready; returns whether another is to come.
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

        self.came = self.came.and(&section.encode());
        let goes = match payload {
            Some(payload) => self.seal(section, &payload),
            None => section,
        };
        self.goes = self.goes.and(&goes.encode());
        Ok(true)
    }

    /// The payload behind the header of `section`, if it is sound.
    fn payload(&self, section: &Section) -> Option<&[u8]> {
        let payload = self.ready.get(SECTION_HEADER_LENGTH..)?;

        (Checksum::of(payload) == section.payload_crc).then_some(payload)
    }

    /// The relations in `payload`, with a receiver where there was none.
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

    /// The totals in `payload`, with the sum of the headers that go; `None` if it was not that of
    /// those that came.
    fn summed(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut end = End::decode(payload).ok()?;

        if end.headers_crc != self.came.value() {
            return None;
        }
        end.headers_crc = self.goes.value();
        Some(end.encode().to_vec())
    }

    /// Makes `section` with this payload ready, with CRCs that are right.
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
        decode::walk::{walk, Judge, Nobody},
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
        let outcome = walk(&mut &*stream, 0, judge, &mut Nobody).unwrap();

        outcome.damage.is_none()
    }

    #[test]
    fn an_addressed_stream_is_for_its_receiver_alone() {
        let addressed = readdressed(&stream(), HERE);

        assert_eq!(addressed.len(), stream().len());
        assert!(accepts(&addressed, HERE));
        assert!(!accepts(&addressed, "0000:41:00.4"));
        assert!(accepts(&stream(), HERE));
        assert!(accepts(&stream(), "0000:41:00.4"));
    }

    #[test]
    fn the_receiver_is_all_that_changes() {
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
    fn a_stream_for_somebody_else_stays_so() {
        let addressed = readdressed(&stream(), HERE);

        assert_eq!(readdressed(&addressed, "0000:41:00.4"), addressed);
        assert_eq!(readdressed(&addressed, HERE), addressed);
    }

    proptest! {
        #[test]
        fn what_was_damaged_is_not_mended(
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
