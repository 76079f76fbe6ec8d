// SPDX-License-Identifier: GPL-2.0

//! The remaining bytes reported by `VFIO_MIG_GET_PRECOPY_INFO` and
//! `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE` must match the bytes then read. Both count the identity and
//! relations sections and local memory, and nothing else.

use anyhow::Result;
use vfio_bindings::bindings::vfio;

use super::{
    super::{claims, Test},
    local_memory::Source,
    BOTH,
};
use crate::{
    bed::Bed,
    expect,
    migration::State,
    stream::RELATIONS_END,
    vfio::{Feature, Operation},
};

/// Sizes of reads, most of which end at no border.
const SIZES: [usize; 9] = [1, 3, 7, 13, 101, 255, 4096, 5003, 1 << 14];

pub fn tests() -> Vec<Test> {
    claims!("pre_copy":
        initial_bytes_match_the_mapped_granules,
        information_is_exact_in_any_segmentation,
        initial_bytes_only_become_less,
        dirty_bytes_match_the_writes,
        dirty_bytes_count_a_granule_once,
        bytes_in_the_present_part_are_not_dirty_too,
        information_in_version_2_has_no_flags,
        device_configured_anew_has_initial_bytes_again,
        reconfigured_device_is_reported_once,
        device_configured_before_is_not_reported,
        without_opt_in_configurations_are_not_reported,
        data_size_is_the_rest_in_stop_copy,
    )
}

/// Opts in to `VFIO_PRECOPY_INFO_REINIT`.
fn opt_in(source: &Source) -> Result<()> {
    source.guest.vf.device.feature(Feature::new(
        Operation::Set,
        vfio::VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
        (),
    ))?;
    Ok(())
}

/// Returns whether the driver reports a reconfigured device, with initial bytes and dirty bytes.
fn numbers(source: &Source) -> Result<(bool, u64, u64)> {
    // The kernel must clear the flags that it does not set.
    let info = source
        .session
        .precopy_info(!vfio::VFIO_PRECOPY_INFO_REINIT)?;
    expect::equal(
        "flags but for REINIT",
        info.flags & !vfio::VFIO_PRECOPY_INFO_REINIT,
        0,
    )?;
    Ok((info.flags != 0, info.initial_bytes, info.dirty_bytes))
}

fn initial_bytes_match_the_mapped_granules(bed: &Bed) -> Result<()> {
    for state in BOTH {
        for granules in [vec![], vec![5], vec![0, 1, 2, 600]] {
            let source = Source::begin(bed, state, granules.iter().copied())?;
            let expected = RELATIONS_END as u64 + source.memory.bytes(granules.len());
            expect::equal("initial and dirty bytes", source.left()?, (expected, 0))?;
        }
    }
    Ok(())
}

fn information_is_exact_in_any_segmentation(bed: &Bed) -> Result<()> {
    for state in BOTH {
        let mut source = Source::begin(bed, state, [0, 1, 2, 9, 500])?;
        let mut answers = vec![(0, source.left()?)];
        for size in SIZES.into_iter().cycle() {
            if !source.read(size)? {
                break;
            }
            answers.push((source.stream.len(), source.left()?));
        }
        for (position, (initial, dirty)) in &answers {
            let what = format!("initial bytes at byte {position} in {}", state.name());
            expect::equal(&what, *initial, source.counted(*position)?)?;
            expect::equal("dirty bytes", *dirty, 0)?;
        }
        let last = answers.last().map(|(_, left)| *left);
        expect::equal("bytes left at the pause", last, Some((0, 0)))?;
    }
    Ok(())
}

fn initial_bytes_only_become_less(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, 0..8)?;
    let (mut before, _) = source.left()?;
    for number in 0..8 {
        source.read(9001)?;
        // Granules that were read, that are being read, and that are not yet read.
        source.write([number, 7 - number], 100)?;
        let (initial, _) = source.left()?;
        let what = format!("initial bytes of {initial}, at most {before}");
        expect::claim(&what, initial <= before)?;
        before = initial;
    }
    source.read_on()?;
    expect::equal("bytes left at the pause", source.left()?, (0, 0))
}

fn dirty_bytes_match_the_writes(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [3, 4])?;
    source.read_on()?;
    for granules in [vec![3], vec![0, 4, 5], (100..130).collect()] {
        let dirty = source.memory.bytes(granules.len());
        source.write(granules, 7)?;
        expect::equal("bytes left", source.left()?, (0, dirty))?;
        let before = source.stream.len();
        source.read_on()?;
        expect::equal("bytes read", source.counted(before)?, dirty)?;
        expect::equal("bytes left at the pause", source.left()?, (0, 0))?;
    }
    Ok(())
}

fn dirty_bytes_count_a_granule_once(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [3])?;
    source.read_on()?;
    for seed in 0..5 {
        source.write([3, 8], seed)?;
        let expected = (0, source.memory.bytes(2));
        expect::equal("bytes left", source.left()?, expected)?;
    }
    Ok(())
}

fn bytes_in_the_present_part_are_not_dirty_too(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, 0..6)?;
    // The part was read, and some of its first run.
    source.read(RELATIONS_END + 500)?;
    let all = source.left()?;
    source.write([200], 1)?;
    let granule = source.memory.granule;
    expect::equal("bytes left", source.left()?, (all.0, granule))?;
    let before = source.stream.len();
    source.read_on()?;
    expect::equal("bytes read", source.counted(before)?, all.0 + granule)
}

fn information_in_version_2_has_no_flags(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1])?;
    opt_in(&source)?;
    let initial = RELATIONS_END as u64 + source.memory.granule;
    expect::equal("at the start", numbers(&source)?, (false, initial, 0))?;
    source.read_on()?;
    source.write([1], 2)?;
    let dirty = source.memory.granule;
    expect::equal("after a write", numbers(&source)?, (false, 0, dirty))?;
    drop(source);
    let source = Source::begin(bed, State::PreCopy, [1])?;
    let unchanged = source.session.precopy_info(u32::MAX)?.flags;
    expect::equal("flags after the device was closed", unchanged, u32::MAX)
}

/// Makes the guest reconfigure the device.
fn configure(source: &mut Source) -> Result<()> {
    source.guest.engine.enable(&source.guest.vf)
}

fn device_configured_anew_has_initial_bytes_again(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
    opt_in(&source)?;
    source.read_on()?;
    configure(&mut source)?;
    source.write([2, 7, 30], 9)?;
    let expected = (true, source.memory.bytes(3), 0);
    expect::equal("reconfigured", numbers(&source)?, expected)?;
    source.read(20_000)?;
    source.write([2], 10)?;
    let (again, initial, dirty) = numbers(&source)?;
    expect::equal("reconfigured after the report", again, false)?;
    expect::claim(
        &format!("less initial bytes than {initial}, and not none"),
        initial > 0 && initial < expected.1,
    )?;
    expect::equal("dirty bytes", dirty, source.memory.granule)?;
    let before = source.stream.len();
    source.read_on()?;
    expect::equal("bytes read", source.counted(before)?, initial + dirty)?;
    expect::equal("at the pause", numbers(&source)?, (false, 0, 0))?;
    source.write([2], 11)?;
    let dirty = source.memory.granule;
    expect::equal("after that", numbers(&source)?, (false, 0, dirty))?;
    source.stop()?;
    source.arrives(bed, [])
}

fn reconfigured_device_is_reported_once(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1])?;
    opt_in(&source)?;
    numbers(&source)?;
    for _ in 0..3 {
        configure(&mut source)?;
        configure(&mut source)?;
        expect::equal("configured twice", numbers(&source)?.0, true)?;
        expect::equal("after the report", numbers(&source)?.0, false)?;
    }
    Ok(())
}

fn device_configured_before_is_not_reported(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1])?;
    opt_in(&source)?;
    source.read_on()?;
    configure(&mut source)?;
    source.guest.vf.device.change_state(State::Running)?;
    configure(&mut source)?;
    source.session = source.guest.vf.device.start(State::PreCopy)?;
    expect::equal("reconfigured", numbers(&source)?.0, false)
}

fn without_opt_in_configurations_are_not_reported(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1])?;
    source.read_on()?;
    configure(&mut source)?;
    source.write([1], 5)?;
    for flags in [0, u32::MAX] {
        let info = source.session.precopy_info(flags)?;
        expect::equal("flags", info.flags, flags)?;
        expect::equal("initial bytes", info.initial_bytes, 0)?;
        expect::equal("dirty bytes", info.dirty_bytes, source.memory.granule)?;
    }
    Ok(())
}

/// The size must cover the rest in STOP_COPY, but not the whole memory.
fn data_size_is_the_rest_in_stop_copy(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, 0..40)?;
    for dirty in [40, 20, 1, 0] {
        source.read_on()?;
        source.write(0..dirty, dirty)?;
        let least = source.memory.bytes(dirty as usize);
        // The stream also has headers and the control plane.
        let most = least + source.memory.granule + (64 << 10);
        let size = source.guest.vf.device.data_size()?;
        expect::claim(
            &format!("{least} to {most} bytes for {dirty} granules, not {size}"),
            (least..most).contains(&size),
        )?;
    }
    let size = source.guest.vf.device.data_size()?;
    let rest = source.stop()?;
    expect::claim(
        &format!("a size of {size} to cover the {rest} bytes that were left"),
        size >= rest,
    )
}
