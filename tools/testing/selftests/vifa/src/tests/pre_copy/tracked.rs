// SPDX-License-Identifier: GPL-2.0

//! Address records of logged guest memory in the stream.

use anyhow::Result;

use super::{
    super::{claims, Test},
    local_memory::Source,
    BOTH,
};
use crate::{
    bed::Bed,
    engine::Vf,
    expect, hw,
    migration::State,
    region,
    stream::{Part, Section, Stream},
    vfio::{AddressSpace, IovaRange},
};

const PAGE: u64 = 4096;

pub fn tests() -> Vec<Test> {
    claims!("pre_copy":
        tracked_ranges_are_listed_when_the_device_has_stopped,
        tracked_ranges_that_touch_are_one,
        many_tracked_ranges_arrive,
        ranges_no_longer_tracked_are_not_listed,
        stream_of_stop_copy_alone_lists_tracked_ranges,
    )
}

/// Returns the parts of guest memory in these sections: page size and ranges.
fn guest_parts(sections: &[Section]) -> Result<Vec<(u32, Vec<IovaRange>)>> {
    let mut parts = Vec::new();
    for section in sections {
        if section.kind() != hw::VIFA_SECTION_ADDRESS {
            continue;
        }
        let part = Part::parse(&section.payload)?;
        if part.record.space == hw::VIFA_SPACE_GUEST {
            let ranges = part.ranges.iter();
            let ranges = ranges.map(|range| IovaRange::new(range.start, range.length));
            parts.push((part.record.granule, ranges.collect()));
        }
    }
    Ok(parts)
}

/// Checks that the stream of `source`, which is stopped, lists `ranges` in one part, and that both
/// regions report them.
fn lists(bed: &Bed, mut source: Source, ranges: &[IovaRange]) -> Result<()> {
    let before = Stream::parse(&source.stream)?.sections.len();
    source.stop()?;
    let stream = Stream::parse(&source.stream)?;
    let expected = vec![(PAGE as u32, ranges.to_vec())];
    expect::equal("parts", guest_parts(&stream.sections)?, expected)?;
    let while_running = guest_parts(&stream.sections[..before])?;
    expect::equal("parts before the device stopped", while_running, vec![])?;
    let control = stream.position(hw::VIFA_SECTION_CONTROL)?;
    let last = guest_parts(&stream.sections[control - 1..control])?.len();
    expect::equal("parts before the control section", last, 1)?;

    let destination = Vf::open(&bed.vf(1)?, &AddressSpace::iommufd()?)?;
    destination.device.load(&source.stream)?;
    let bytes: u64 = ranges.iter().map(|range| range.length).sum();
    for (what, vf) in [("source", &source.guest.vf), ("destination", &destination)] {
        let region = region::read(&vf.device)?;
        expect::equal(
            &format!("ranges and bytes of guest memory at the {what}"),
            (region.guest_ranges, region.guest_bytes),
            (ranges.len() as u64, bytes),
        )?;
    }
    drop(destination);
    source.guest.vf.device.stop_logging()?;
    source.arrives(bed, [])
}

fn tracked_ranges_are_listed_when_the_device_has_stopped(bed: &Bed) -> Result<()> {
    let ranges = [
        IovaRange::new(0x1000_0000, 16 * PAGE),
        IovaRange::new(0x2000_0000, 256 << 20),
        IovaRange::new(0x1_0000_0000, 1 << 30),
    ];
    for state in BOTH {
        let mut source = Source::begin(bed, state, [1, 2])?;
        source.guest.vf.device.start_logging(&ranges, PAGE)?;
        source.read_on()?;
        source.guest.vf.device.change_state(State::PreCopy)?;
        source.write([2], 7)?;
        lists(bed, source, &ranges)?;
    }
    Ok(())
}

fn tracked_ranges_that_touch_are_one(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1])?;
    let ranges = [
        IovaRange::new(0x1000_0000, 16 * PAGE),
        IovaRange::new(0x1000_0000 + 16 * PAGE, PAGE),
        IovaRange::new(0x2000_0000, PAGE),
    ];
    source.guest.vf.device.start_logging(&ranges, PAGE)?;
    source.read_on()?;
    let expected = [IovaRange::new(0x1000_0000, 17 * PAGE), ranges[2]];
    lists(bed, source, &expected)
}

fn many_tracked_ranges_arrive(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1])?;
    // The maximum number that the kernel accepts.
    let ranges: Vec<_> = (0..256)
        .map(|number| IovaRange::new(0x1_0000_0000 + number * 16 * PAGE, 3 * PAGE))
        .collect();
    source.guest.vf.device.start_logging(&ranges, PAGE)?;
    source.read_on()?;
    lists(bed, source, &ranges)
}

fn ranges_no_longer_tracked_are_not_listed(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1])?;
    let ranges = [IovaRange::new(0x1000_0000, 16 * PAGE)];
    source.guest.vf.device.start_logging(&ranges, PAGE)?;
    source.read_on()?;
    source.guest.vf.device.stop_logging()?;
    source.stop()?;
    let stream = Stream::parse(&source.stream)?;
    expect::equal("parts", guest_parts(&stream.sections)?, vec![])?;
    source.arrives(bed, [])
}

fn stream_of_stop_copy_alone_lists_tracked_ranges(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1])?;
    let ranges = [IovaRange::new(0x1000_0000, 16 * PAGE)];
    source.guest.vf.device.change_state(State::Running)?;
    source.guest.vf.device.start_logging(&ranges, PAGE)?;
    source.stream = source.guest.vf.device.save()?;
    let stream = Stream::parse(&source.stream)?;
    let expected = vec![(PAGE as u32, ranges.to_vec())];
    expect::equal("parts", guest_parts(&stream.sections)?, expected)?;
    source.guest.vf.device.stop_logging()?;
    source.arrives(bed, [])
}
