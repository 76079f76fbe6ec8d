// SPDX-License-Identifier: GPL-2.0

//! The address record file: the location of the data plane, and of its data in the stream.

use anyhow::{ensure, Result};

use super::{
    claims,
    fixture::{filled, Guest, CHUNK},
    Test,
};
use crate::{
    bed::Bed,
    expect,
    hw::{self, vifa_address_range, vifa_address_record},
    migration::State,
    region,
    stream::{run, Part, Stream},
};

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("address":
        ranges_match_the_mapped_granules,
        adjoining_granules_are_one_range,
        range_longer_than_a_section_takes_several,
        without_data_in_local_memory_no_part_is_sent,
        region_of_the_source_matches_the_stream,
        region_of_the_destination_matches_the_stream,
        later_round_replaces_changed_granules,
        rounds_may_have_several_parts,
        data_plane_may_follow_the_guest_s_pages,
        guest_s_pages_are_shown_in_the_region,
        data_outside_of_a_part_is_refused,
        part_without_all_of_its_data_is_refused,
        bytes_after_the_ranges_are_refused,
        more_ranges_than_a_part_has_are_refused,
        run_of_another_range_is_refused,
    );
    tests.extend(WRONG.iter().map(|(what, field, change)| {
        Test::new(format!("address.{what}_is_refused"), move |bed| {
            is_refused(bed, what, field, *change)
        })
    }));
    tests.extend(WRONG_ADDITIONS.iter().map(|(what, field, part)| {
        Test::new(format!("address.{what}_is_refused"), move |bed| {
            addition_is_refused(bed, what, field, *part)
        })
    }));
    tests
}

/// Corrupts the only part of a stream, whose ranges are a granule at the start of local memory and
/// one in its middle.
type Change = fn(&mut Part);

/// The defect, the field that the error names, and the corruption.
const WRONG: [(&str, &str, Change); 15] = [
    ("unknown_space", "space", |part| part.record.space = 3),
    ("round_1_without_round_0", "round", |part| {
        part.record.round = 1
    }),
    ("another_granule", "granule", |part| {
        part.record.granule *= 2
    }),
    ("part_without_ranges", "length", |part| {
        part.record.count = 0;
        part.ranges.clear();
    }),
    ("count_larger_than_the_number_of_ranges", "length", |part| {
        part.record.count += 1;
    }),
    ("range_off_the_granule", "start", |part| {
        part.ranges[1].start += 8;
    }),
    ("range_after_the_end", "length", |part| {
        part.ranges[1].start *= 2;
    }),
    ("range_at_the_end_of_the_numbers", "start", |part| {
        part.ranges[1].start = part.ranges[1].length.wrapping_neg();
    }),
    ("range_that_descends", "start", |part| {
        let [first, second] = &mut part.ranges[..] else {
            return;
        };
        std::mem::swap(&mut first.start, &mut second.start);
    }),
    ("range_that_touches_the_one_before", "start", |part| {
        part.ranges[1].start = part.ranges[0].length;
    }),
    ("range_that_overlaps_the_one_before", "start", |part| {
        part.ranges[0].length = 2 * part.ranges[1].start;
    }),
    ("empty_range", "length", |part| part.ranges[0].length = 0),
    ("range_of_half_a_granule", "length", |part| {
        part.ranges[0].length /= 2;
    }),
    (
        "range_that_begins_earlier_in_the_stream",
        "sequence",
        |part| {
            part.ranges[1].sequence -= 1;
        },
    ),
    ("range_with_an_unknown_section", "sequence", |part| {
        part.ranges[0].sequence = 0;
    }),
];

/// An additional part after the only one of a stream, without data.
type Addition = fn(&Source) -> Part;

/// The defect, the field that the error names, and the additional part.
const WRONG_ADDITIONS: [(&str, &str, Addition); 10] = [
    ("part_of_round_0_that_does_not_ascend", "start", |source| {
        source.part(0, &[(source.granule, source.granule)])
    }),
    ("part_that_touches_the_one_before", "start", |source| {
        let next = source.local_memory / 2 + source.granule;
        source.part(0, &[(next, source.granule)])
    }),
    ("round_that_is_left_out", "round", |source| {
        source.part(2, &[(0, source.granule)])
    }),
    ("page_size_that_is_too_small", "granule", |_| {
        guest_part(2048, &[(0, 4096)])
    }),
    ("page_size_that_is_no_power_of_two", "granule", |_| {
        guest_part(12288, &[(0, 12288)])
    }),
    ("iova_off_the_page_size", "start", |_| {
        guest_part(8192, &[(4096, 8192)])
    }),
    ("iova_range_that_wraps_around", "length", |_| {
        guest_part(4096, &[(u64::MAX - 4095, 8192)])
    }),
    ("iova_ranges_that_descend", "start", |_| {
        guest_part(4096, &[(1 << 20, 4096), (0, 4096)])
    }),
    ("round_of_guest_memory", "round", |_| {
        let mut part = guest_part(4096, &[(0, 4096)]);
        part.record.round = 1;
        part
    }),
    ("data_of_guest_memory", "sequence", |_| {
        let mut part = guest_part(4096, &[(0, 4096)]);
        part.ranges[0].sequence = 3;
        part
    }),
];

/// Parameters of a part of a stream.
struct Source {
    granule: u64,
    local_memory: u64,
}

impl Source {
    fn of(stream: &Stream) -> Result<Self> {
        let identity = stream.identity()?;
        Ok(Self {
            granule: identity.granule.into(),
            local_memory: identity.local_memory,
        })
    }

    /// Returns a part of local memory.
    fn part(&self, round: u32, ranges: &[(u64, u64)]) -> Part {
        Part::new(hw::VIFA_SPACE_LOCAL, round, self.granule as u32, ranges)
    }
}

/// Returns a part of guest memory.
fn guest_part(page_size: u32, ranges: &[(u64, u64)]) -> Part {
    Part::new(hw::VIFA_SPACE_GUEST, 0, page_size, ranges)
}

/// Returns a furnished guest, and its stream in sections.
fn saved(bed: &Bed) -> Result<(Guest, Stream, Source)> {
    let (guest, bytes) = Guest::saved(bed, 0)?;
    let stream = Stream::parse(&bytes)?;
    let source = Source::of(&stream)?;
    Ok((guest, stream, source))
}

fn is_refused(bed: &Bed, what: &str, field: &str, change: Change) -> Result<()> {
    let (guest, mut stream, _) = saved(bed)?;
    let parts = stream.parts()?;
    let [part] = &parts[..] else {
        anyhow::bail!("expected one part, got {}", parts.len());
    };
    let mut part = part.clone();
    change(&mut part);
    *stream.payload(hw::VIFA_SECTION_ADDRESS)? = part.payload();
    guest.refuses_naming(field, what, &stream)
}

fn addition_is_refused(bed: &Bed, what: &str, field: &str, part: Addition) -> Result<()> {
    let (guest, mut stream, source) = saved(bed)?;
    stream.append(&part(&source), Vec::new())?;
    guest.refuses_naming(field, what, &stream)
}

fn ranges(part: &Part) -> Vec<(u64, u64)> {
    part.ranges
        .iter()
        .map(|range| (range.start, range.length))
        .collect()
}

fn ranges_match_the_mapped_granules(bed: &Bed) -> Result<()> {
    let (_, stream, source) = saved(bed)?;
    let parts = stream.parts()?;
    expect::equal("parts", parts.len(), 1)?;
    let vifa_address_record {
        space,
        round,
        granule,
        count,
    } = parts[0].record;
    expect::equal("space", space, hw::VIFA_SPACE_LOCAL)?;
    expect::equal("round", round, 0)?;
    expect::equal("granule", granule.into(), source.granule)?;
    expect::equal("count", count, 2)?;
    expect::equal(
        "ranges",
        ranges(&parts[0]),
        vec![
            (0, source.granule),
            (source.local_memory / 2, source.granule),
        ],
    )?;
    let first = stream.position(hw::VIFA_SECTION_ADDRESS)? as u64 + 1;
    expect::equal(
        "sequence numbers",
        parts[0].ranges.iter().map(|range| range.sequence).collect(),
        vec![first, first + 1],
    )
}

/// Returns a guest with data in `granules` of its local memory, and its stream.
fn with_granules(bed: &Bed, granules: &[u64]) -> Result<(Guest, Stream)> {
    let mut guest = Guest::new(bed, 0)?;
    let granule = u64::from(region::read(&guest.vf.device)?.identity.granule);
    for number in granules {
        guest.write_local(number * granule, *number)?;
    }
    let stream = Stream::parse(&guest.vf.device.save()?)?;
    Ok((guest, stream))
}

fn adjoining_granules_are_one_range(bed: &Bed) -> Result<()> {
    let (_, stream) = with_granules(bed, &[3, 4, 5, 7])?;
    let source = Source::of(&stream)?;
    let parts = stream.parts()?;
    expect::equal("parts", parts.len(), 1)?;
    expect::equal(
        "ranges",
        ranges(&parts[0]),
        vec![
            (3 * source.granule, 3 * source.granule),
            (7 * source.granule, source.granule),
        ],
    )
}

fn range_longer_than_a_section_takes_several(bed: &Bed) -> Result<()> {
    let run_max = u64::from(hw::VIFA_DATA_RUN_MAX);
    let granule = u64::from(region::of_function(&bed.vf(0)?)?.identity.granule);
    let granules = run_max / granule + 1;
    let numbers: Vec<u64> = (0..granules).chain([granules + 1]).collect();
    let (guest, stream) = with_granules(bed, &numbers)?;
    let first = stream.position(hw::VIFA_SECTION_ADDRESS)? as u64 + 1;
    let places: Vec<_> = stream.parts()?[0]
        .ranges
        .iter()
        .map(|range| (range.length, range.sequence))
        .collect();
    expect::equal(
        "lengths and sequence numbers",
        places,
        vec![(granules * granule, first), (granule, first + 2)],
    )?;
    expect::equal(
        "data runs",
        stream.runs()?,
        vec![
            (0, run_max),
            (run_max, granule),
            (run_max + 2 * granule, granule),
        ],
    )?;
    guest.vf.device.load(&stream.seal())
}

fn without_data_in_local_memory_no_part_is_sent(bed: &Bed) -> Result<()> {
    let (_, stream) = with_granules(bed, &[])?;
    expect::equal("parts", stream.parts()?.len(), 0)?;
    expect::equal("data runs", stream.runs()?, vec![])
}

/// Checks that the region of `guest`'s VF reports the address record file and the data of `stream`.
fn region_matches(guest: &Guest, stream: &Stream) -> Result<()> {
    let region = region::read(&guest.vf.device)?;
    let sums = |space: u32| -> Result<(u64, u64)> {
        let parts = stream.parts()?;
        let ranges: Vec<&vifa_address_range> = parts
            .iter()
            .filter(|part| part.record.space == space)
            .flat_map(|part| &part.ranges)
            .collect();
        let bytes = ranges.iter().map(|range| range.length).sum();
        Ok((ranges.len() as u64, bytes))
    };
    expect::equal(
        "ranges and bytes of local memory",
        (region.local_ranges, region.local_bytes),
        sums(hw::VIFA_SPACE_LOCAL)?,
    )?;
    expect::equal(
        "ranges and bytes of guest memory",
        (region.guest_ranges, region.guest_bytes),
        sums(hw::VIFA_SPACE_GUEST)?,
    )?;
    let data: u64 = stream.runs()?.iter().map(|(_, length)| length).sum();
    expect::equal("bytes of data", region.data_bytes, data)?;
    ensure!(data > 0, "a stream without data proves nothing");
    Ok(())
}

fn region_of_the_source_matches_the_stream(bed: &Bed) -> Result<()> {
    let (guest, stream, _) = saved(bed)?;
    region_matches(&guest, &stream)
}

fn region_of_the_destination_matches_the_stream(bed: &Bed) -> Result<()> {
    let (_, stream, _) = saved(bed)?;
    let guest = Guest::new(bed, 1)?;
    guest.vf.device.load(&stream.seal())?;
    region_matches(&guest, &stream)
}

/// Returns a run of a granule at `offset` that is filled with `pattern`.
fn granule_of(source: &Source, offset: u64, pattern: u64) -> Vec<u8> {
    run(offset, &filled(pattern, source.granule))
}

/// Checks that after a load of `stream`, the local memory of the VF 1 is `pattern` at each offset
/// of `expected`.
fn arrives(bed: &Bed, stream: &Stream, expected: &[(u64, u64)]) -> Result<()> {
    let mut guest = Guest::new(bed, 1)?;
    guest.vf.device.load(&stream.seal())?;
    region_matches(&guest, stream)?;
    guest.vf.device.change_state(State::Running)?;
    guest.engine.enable(&guest.vf)?;
    for (offset, pattern) in expected {
        expect::same_bytes(
            &format!("local memory at {offset:#x}"),
            &guest.read_local(*offset, 0)?,
            &filled(*pattern, CHUNK),
        )?;
    }
    Ok(())
}

fn later_round_replaces_changed_granules(bed: &Bed) -> Result<()> {
    let (_, mut stream, source) = saved(bed)?;
    let granule = source.granule;
    let fresh = 5 * granule;
    let first = source.part(1, &[(0, granule), (fresh, granule)]);
    let data = vec![granule_of(&source, 0, 11), granule_of(&source, fresh, 12)];
    stream.append(&first, data)?;
    let second = source.part(2, &[(fresh, granule)]);
    stream.append(&second, vec![granule_of(&source, fresh, 22)])?;
    let middle = source.local_memory / 2;
    arrives(bed, &stream, &[(0, 11), (fresh, 22), (middle, !0xfeed)])
}

fn rounds_may_have_several_parts(bed: &Bed) -> Result<()> {
    let (_, mut stream, source) = saved(bed)?;
    let granule = source.granule;
    let last = source.local_memory - granule;
    for (round, offset, pattern) in [(0, last, 1), (1, 0, 2), (1, 3 * granule, 3)] {
        let part = source.part(round, &[(offset, granule)]);
        stream.append(&part, vec![granule_of(&source, offset, pattern)])?;
    }
    arrives(bed, &stream, &[(last, 1), (0, 2), (3 * granule, 3)])
}

fn data_plane_may_follow_the_guest_s_pages(bed: &Bed) -> Result<()> {
    let (_, mut stream, source) = saved(bed)?;
    let last = source.local_memory - source.granule;
    stream.append(&guest_part(4096, &[(0, 8192), (1 << 40, 4096)]), Vec::new())?;
    let part = source.part(0, &[(last, source.granule)]);
    stream.append(&part, vec![granule_of(&source, last, 9)])?;
    stream.append(&guest_part(4096, &[(1 << 50, 4096)]), Vec::new())?;
    arrives(bed, &stream, &[(last, 9), (0, 0xfeed)])
}

fn guest_s_pages_are_shown_in_the_region(bed: &Bed) -> Result<()> {
    let (guest, mut stream, _) = saved(bed)?;
    let part = guest_part(1 << 21, &[(0, 1 << 21), (1 << 30, 3 << 21)]);
    stream.append(&part, Vec::new())?;
    guest.vf.device.load(&stream.seal())?;
    region_matches(&guest, &stream)
}

fn data_outside_of_a_part_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, stream, source) = saved(bed)?;
    let mut streams = Vec::new();
    let address = stream.position(hw::VIFA_SECTION_ADDRESS)?;
    for (what, index) in [("before", address), ("after", address + 3)] {
        let mut stream = stream.clone();
        let mut stray = stream.sections[address + 1].clone();
        stray.payload = granule_of(&source, source.local_memory - source.granule, 0);
        stream.insert(index, stray)?;
        streams.push((format!("data {what} the part"), stream.seal()));
    }
    guest.refuses_each(streams)
}

fn part_without_all_of_its_data_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, stream, _) = saved(bed)?;
    let address = stream.position(hw::VIFA_SECTION_ADDRESS)?;
    let mut without_last = stream.clone();
    without_last.remove(address + 2)?;
    let mut short = stream.clone();
    let payload = &mut short.sections[address + 1].payload;
    payload.truncate(payload.len() / 2);
    guest.refuses_each([
        ("part without its last data".to_owned(), without_last.seal()),
        ("part with a short run".to_owned(), short.seal()),
    ])
}

fn bytes_after_the_ranges_are_refused(bed: &Bed) -> Result<()> {
    let (mut guest, mut stream, _) = saved(bed)?;
    stream
        .payload(hw::VIFA_SECTION_ADDRESS)?
        .extend([0; size_of::<vifa_address_range>()]);
    guest.refuses("bytes after the ranges", &stream.seal())?;
    guest.recover()
}

fn more_ranges_than_a_part_has_are_refused(bed: &Bed) -> Result<()> {
    let (mut guest, mut stream, _) = saved(bed)?;
    let most = u64::from(hw::VIFA_ADDRESS_RANGES_MAX);
    let page = |number: u64| (2 * number * 4096, 4096);
    let fitting: Vec<_> = (0..most).map(page).collect();
    let mut fits = stream.clone();
    fits.append(&guest_part(4096, &fitting), Vec::new())?;
    guest.vf.device.load(&fits.seal())?;
    let too_many: Vec<_> = (0..=most).map(page).collect();
    stream.append(&guest_part(4096, &too_many), Vec::new())?;
    guest.refuses("an additional range", &stream.seal())?;
    guest.recover()
}

fn run_of_another_range_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, stream, source) = saved(bed)?;
    let mut streams = Vec::new();
    for (what, offset) in [
        ("after the end", source.local_memory),
        ("at an odd place", 8),
        ("at the end of the numbers", u64::MAX - 4095),
        ("of the next range", source.local_memory / 2),
        ("of no range", source.granule),
    ] {
        let mut stream = stream.clone();
        stream.edit(hw::VIFA_SECTION_DATA, |run: &mut hw::vifa_data_run| {
            run.offset = offset;
        })?;
        streams.push((format!("run {what}"), stream.seal()));
    }
    guest.refuses_each(streams)
}
