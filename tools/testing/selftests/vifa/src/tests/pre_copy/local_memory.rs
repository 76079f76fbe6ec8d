// SPDX-License-Identifier: GPL-2.0

//! The tests' own record of a VF's local memory, and its contents in a stream. Both are independent
//! of the driver under test.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::offset_of,
};

use anyhow::{ensure, Context, Result};

use super::super::fixture::{filled, Guest, CHUNK};
use crate::{
    bed::Bed,
    engine::{Command, Vf},
    expect,
    hw::{self, vifa_data_run, vifa_section_header, vifa_stream_header},
    migration::{Session, State},
    region,
    stream::{Part, Section, Stream, RELATIONS_END},
    vfio::AddressSpace,
};

/// Returns the number of bytes per granule of `guest`'s VF.
pub fn granule_of(guest: &Guest) -> Result<u64> {
    Ok(region::read(&guest.vf.device)?.identity.granule.into())
}

/// The bytes of granules, by number.
pub type Granules = BTreeMap<u64, Vec<u8>>;

/// Returns the local memory after a stream: each granule as in its last data section.
pub fn granules_in(stream: &Stream, granule: u64) -> Result<Granules> {
    let mut granules = Granules::new();
    for section in stream.of_kind(hw::VIFA_SECTION_DATA) {
        let (offset, bytes) = section.payload.split_at(8);
        let offset = u64::from_le_bytes(offset.try_into().expect("eight bytes"));
        ensure!(offset % granule == 0 && bytes.len() as u64 % granule == 0);
        for (number, bytes) in (offset / granule..).zip(bytes.chunks(granule as usize)) {
            granules.insert(number, bytes.to_vec());
        }
    }
    Ok(granules)
}

/// The local memory of a VF as written by the guest.
#[derive(Clone)]
pub struct LocalMemory {
    /// Bytes per granule.
    pub granule: u64,
    /// The seed of the data at the start of each mapped granule.
    written: BTreeMap<u64, u64>,
}

impl LocalMemory {
    /// Creates the record of `guest`'s local memory, which must be unwritten.
    pub fn of(guest: &Guest) -> Result<Self> {
        Ok(Self {
            granule: granule_of(guest)?,
            written: BTreeMap::new(),
        })
    }

    /// Makes `guest` write data generated from `seed` to the granule `number`.
    pub fn write(&mut self, guest: &mut Guest, number: u64, seed: u64) -> Result<()> {
        guest.write_local(number * self.granule, seed)?;
        self.written.insert(number, seed);
        Ok(())
    }

    /// Makes `guest` discard the granule `number`.
    pub fn discard(&mut self, guest: &mut Guest, number: u64) -> Result<()> {
        guest.run(Command::LocalDiscard {
            local: number * self.granule,
            length: self.granule,
        })?;
        self.written.remove(&number);
        Ok(())
    }

    /// Returns the mapped granules.
    pub fn mapped(&self) -> BTreeSet<u64> {
        self.written.keys().copied().collect()
    }

    /// Returns the number of bytes of `granules` granules.
    pub fn bytes(&self, granules: usize) -> u64 {
        granules as u64 * self.granule
    }

    /// Checks that `found` is this memory, with the granules `also` mapped and zero.
    pub fn is(&self, what: &str, found: &Granules, also: &BTreeSet<u64>) -> Result<()> {
        let mapped: BTreeSet<u64> = self.mapped().union(also).copied().collect();
        expect::equal(
            &format!("{what}: granules"),
            found.keys().copied().collect(),
            mapped,
        )?;
        for (number, bytes) in found {
            let mut expected = match self.written.get(number) {
                Some(seed) => filled(*seed, CHUNK),
                None => Vec::new(),
            };
            expected.resize(self.granule as usize, 0);
            expect::same_bytes(&format!("{what}: granule {number}"), bytes, &expected)?;
        }
        Ok(())
    }

    /// Checks that the VF `vf`, which this stops, has this memory, with the granules `also` mapped.
    pub fn is_that_of(&self, what: &str, vf: &Vf, also: &BTreeSet<u64>) -> Result<()> {
        let stream = Stream::parse(&vf.device.save()?)?;
        self.is(what, &granules_in(&stream, self.granule)?, also)
    }
}

/// A VF that is saved while its guest runs.
pub struct Source {
    pub guest: Guest,
    pub memory: LocalMemory,
    pub session: Session,
    /// The stream read so far.
    pub stream: Vec<u8>,
}

impl Source {
    /// Creates a guest on the VF 0 that has written `granules`, and begins a stream in `state`.
    pub fn begin(bed: &Bed, state: State, granules: impl IntoIterator<Item = u64>) -> Result<Self> {
        Self::begin_on(bed, 0, state, granules)
    }

    /// Like [`Self::begin`], on the VF `index`.
    pub fn begin_on(
        bed: &Bed,
        index: u32,
        state: State,
        granules: impl IntoIterator<Item = u64>,
    ) -> Result<Self> {
        let mut guest = Guest::new(bed, index)?;
        let mut memory = LocalMemory::of(&guest)?;
        for number in granules {
            memory.write(&mut guest, number, number + 1)?;
        }
        Ok(Self {
            session: guest.vf.device.start(state)?,
            guest,
            memory,
            stream: Vec::new(),
        })
    }

    /// Makes the guest write data generated from `seed` to `granules`.
    pub fn write(&mut self, granules: impl IntoIterator<Item = u64>, seed: u64) -> Result<()> {
        granules
            .into_iter()
            .try_for_each(|number| self.memory.write(&mut self.guest, number, seed + number))
    }

    /// Makes the guest discard the granule `number`.
    pub fn discard(&mut self, number: u64) -> Result<()> {
        self.memory.discard(&mut self.guest, number)
    }

    /// Reads up to `length` bytes once; returns whether there were any.
    pub fn read(&mut self, length: usize) -> Result<bool> {
        match self.session.read(length) {
            Ok(bytes) => {
                self.stream.extend(&bytes);
                Ok(!bytes.is_empty())
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOMSG) => Ok(false),
            Err(error) => Err(error).context("read of the stream"),
        }
    }

    /// Reads to the pause. Returns the sections that were completed.
    pub fn read_on(&mut self) -> Result<Vec<Section>> {
        let before = self.whole_sections();
        while self.read(1 << 20)? {}
        Ok(Stream::parse(&self.stream)?.sections.split_off(before))
    }

    /// Returns the number of completely read sections.
    fn whole_sections(&self) -> usize {
        let length = offset_of!(vifa_section_header, length);
        let mut at = size_of::<vifa_stream_header>();
        let mut sections = 0;
        loop {
            let Some(bytes) = self.stream.get(at + length..at + length + 4) else {
                return sections;
            };
            let payload = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
            at += size_of::<vifa_section_header>() + payload as usize;
            if at > self.stream.len() {
                return sections;
            }
            sections += 1;
        }
    }

    /// Returns the initial bytes and the dirty bytes of `VFIO_MIG_GET_PRECOPY_INFO`.
    pub fn left(&self) -> Result<(u64, u64)> {
        let info = self.session.precopy_info(0)?;
        Ok((info.initial_bytes, info.dirty_bytes))
    }

    /// Stops the device and reads the rest of the stream. Returns its length in bytes.
    pub fn stop(&mut self) -> Result<u64> {
        let before = self.stream.len();
        self.guest.vf.device.change_state(State::StopCopy)?;
        while self.read(1 << 20)? {}
        self.guest.vf.device.change_state(State::Stop)?;
        Ok((self.stream.len() - before) as u64)
    }

    /// Returns the bytes of local memory in the stream beginning at byte `from`, and the bytes of
    /// the identity and relations sections.
    pub fn counted(&self, from: usize) -> Result<u64> {
        let stream = Stream::parse(&self.stream)?;
        let mut counted = RELATIONS_END.saturating_sub(from);
        let mut at = size_of::<vifa_stream_header>();
        for section in &stream.sections {
            let start = at + size_of::<vifa_section_header>() + size_of::<vifa_data_run>();
            at += size_of::<vifa_section_header>() + section.payload.len();
            if section.kind() == hw::VIFA_SECTION_DATA {
                counted += at.saturating_sub(start.max(from));
            }
        }
        Ok(counted as u64)
    }

    /// Checks that after the stream, the VF 1 has the local memory of this one, with the granules
    /// `also` mapped, and that this VF has the memory that the guest wrote.
    pub fn arrives(self, bed: &Bed, also: impl IntoIterator<Item = u64>) -> Result<()> {
        let also = also.into_iter().collect();
        let vf = &self.guest.vf;
        self.memory.is_that_of("source", vf, &BTreeSet::new())?;
        let destination = Vf::open(&bed.vf(1)?, &AddressSpace::iommufd()?)?;
        destination.device.load(&self.stream)?;
        self.memory.is_that_of("destination", &destination, &also)
    }
}

/// A round, and the ranges of one of its parts: first granule and number of granules.
pub type RoundPart = (u32, Vec<(u64, u64)>);

/// Returns the parts of local memory in these sections.
pub fn parts(sections: &[Section], granule: u64) -> Result<Vec<RoundPart>> {
    sections
        .iter()
        .filter(|section| section.kind() == hw::VIFA_SECTION_ADDRESS)
        .map(|section| {
            let part = Part::parse(&section.payload)?;
            expect::equal("space", part.record.space, hw::VIFA_SPACE_LOCAL)?;
            let ranges = part.ranges.iter();
            Ok((
                part.record.round,
                ranges
                    .map(|range| (range.start / granule, range.length / granule))
                    .collect(),
            ))
        })
        .collect()
}
