// SPDX-License-Identifier: GPL-2.0

//! Transfer of local memory while the device runs: first the mapped granules, then the changed
//! ones, in rounds. Every write of the guest must arrive.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{anyhow, Context, Result};

use super::{
    super::{claims, fixture::Guest, Test},
    local_memory::{granules_in, parts, LocalMemory, Source},
    pauses, BOTH,
};
use crate::{
    bed::Bed,
    engine::{Command, Vf},
    expect, hw,
    migration::{Segments, Session, State},
    process::Victim,
    stream::{Stream, RELATIONS_END},
};

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("pre_copy":
        mapped_granules_are_sent_first,
        writes_are_sent_in_the_next_round,
        idle_device_sends_nothing_more,
        round_without_changes_has_no_number,
        dirty_granules_are_left_to_stop_copy,
        nothing_is_left_to_stop_copy_of_an_idle_device,
        stop_in_the_middle_of_a_round_sends_nothing_twice,
        sparse_memory_stays_sparse,
        discarded_granule_becomes_zeroes,
        granule_discarded_before_is_not_sent,
        long_ranges_move_in_rounds,
        granule_that_changes_after_it_was_read_ahead_arrives,
        quiesced_device_continues_its_stream,
        cancelled_stream_starts_over,
        cancel_does_not_change_local_memory,
        stream_read_in_any_pieces_arrives,
        continuously_writing_guest_arrives,
        write_in_progress_arrives,
        vfs_do_not_mix,
        device_without_change_tracking_sends_all_when_stopped,
        death_of_the_process_with_changes_unread,
    );
    for seed in 1..=6 {
        tests.push(Test::new(
            format!("pre_copy.random_guest_arrives_{seed}"),
            move |bed| random_guest_arrives(bed, seed),
        ));
    }
    tests
}

fn mapped_granules_are_sent_first(bed: &Bed) -> Result<()> {
    for state in BOTH {
        let mut source = Source::begin(bed, state, [1, 2, 3, 700])?;
        let sections = source.read_on()?;
        expect::equal(
            "rounds",
            parts(&sections, source.memory.granule)?,
            vec![(0, vec![(1, 3), (700, 1)])],
        )?;
        let found = granules_in(&Stream::parse(&source.stream)?, source.memory.granule)?;
        source.memory.is("stream", &found, &BTreeSet::new())?;
    }
    Ok(())
}

fn writes_are_sent_in_the_next_round(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
    source.read_on()?;
    for (round, granules, ranges) in [
        (1, vec![2], vec![(2, 1)]),
        (2, vec![900, 0], vec![(0, 1), (900, 1)]),
        (3, vec![5, 3, 4, 5], vec![(3, 3)]),
    ] {
        source.write(granules, 0x100 * u64::from(round))?;
        let sections = source.read_on()?;
        expect::equal(
            "rounds",
            parts(&sections, source.memory.granule)?,
            vec![(round, ranges)],
        )?;
    }
    source.stop()?;
    source.arrives(bed, [])
}

fn idle_device_sends_nothing_more(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
    source.read_on()?;
    source.write([2], 3)?;
    expect::equal("sections of a round", source.read_on()?.len(), 2)?;
    for _ in 0..3 {
        pauses(&source.session)?;
        thread::sleep(Duration::from_millis(20));
        expect::equal("bytes left", source.left()?, (0, 0))?;
    }
    // Reading changes nothing.
    source.guest.read_local(2 * source.memory.granule, 0)?;
    pauses(&source.session)?;
    source.write([2], 4)?;
    expect::equal("sections of a round", source.read_on()?.len(), 2)
}

fn round_without_changes_has_no_number(bed: &Bed) -> Result<()> {
    // Neither does a read of unmapped memory.
    let mut source = Source::begin(bed, State::PreCopy, [])?;
    source.read_on()?;
    for (round, granule) in [(0, 9), (1, 8)] {
        for _ in 0..2 {
            pauses(&source.session)?;
        }
        source.write([granule], 1)?;
        let sections = source.read_on()?;
        let expected = vec![(round, vec![(granule, 1)])];
        expect::equal("rounds", parts(&sections, source.memory.granule)?, expected)?;
    }
    source.stop()?;
    source.arrives(bed, [])
}

fn dirty_granules_are_left_to_stop_copy(bed: &Bed) -> Result<()> {
    for dirty in [vec![], vec![0], vec![0, 5, 6, 900]] {
        let mut source = Source::begin(bed, State::PreCopy, 0..64)?;
        source.read_on()?;
        source.write(dirty.iter().copied(), 0x77)?;
        let before = source.stream.len();
        source.stop()?;
        expect::equal(
            "bytes of local memory in STOP_COPY",
            source.counted(before)?,
            source.memory.bytes(dirty.len()),
        )?;
        source.arrives(bed, [])?;
    }
    Ok(())
}

fn nothing_is_left_to_stop_copy_of_an_idle_device(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopyP2p, 0..64)?;
    let before = source.read_on()?.len();
    source.stop()?;
    let kinds: Vec<u32> = Stream::parse(&source.stream)?.sections[before..]
        .iter()
        .map(|section| section.kind())
        .collect();
    let expected = vec![hw::VIFA_SECTION_CONTROL, hw::VIFA_SECTION_END];
    expect::equal("types of the sections in STOP_COPY", kinds, expected)?;
    source.arrives(bed, [])
}

fn stop_in_the_middle_of_a_round_sends_nothing_twice(bed: &Bed) -> Result<()> {
    // The first run, of the granules 0 to 63, is a mebibyte; each other run is a single granule.
    let alone = (70..90).step_by(2);
    for read in [RELATIONS_END + 100, RELATIONS_END + (1 << 20) + 20_000] {
        let mut source = Source::begin(bed, State::PreCopy, (0..64).chain(alone.clone()))?;
        while source.stream.len() < read {
            source.read(read - source.stream.len())?;
        }
        let unread = source.left()?.0;
        source.write([3, 88, 90], 0x33)?;
        let (initial, dirty) = source.left()?;
        expect::equal("initial bytes after writes", initial, unread)?;
        let before = source.stream.len();
        source.stop()?;
        let counted = source.counted(before)?;
        expect::equal("bytes of local memory", counted, initial + dirty)?;
        source.arrives(bed, [])?;
    }
    Ok(())
}

fn sparse_memory_stays_sparse(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [0, 500, 1023])?;
    source.read_on()?;
    source.write([2, 1022], 5)?;
    source.read_on()?;
    source.write([4], 6)?;
    source.stop()?;
    let local_memory = source.guest.vf.local_memory();
    expect::claim(
        &format!("a stream of less than {local_memory} bytes"),
        (source.stream.len() as u64) < source.memory.bytes(6) + (64 << 10),
    )?;
    source.arrives(bed, [])
}

fn discarded_granule_becomes_zeroes(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [3, 4, 5])?;
    source.read_on()?;
    source.discard(4)?;
    let granule = source.memory.granule;
    expect::equal("bytes left", source.left()?, (0, granule))?;
    let sections = source.read_on()?;
    let expected = vec![(1, vec![(4, 1)])];
    expect::equal("rounds", parts(&sections, granule)?, expected)?;
    source.discard(5)?;
    source.stop()?;
    // They were already sent, and no round can unmap them.
    source.arrives(bed, [4, 5])
}

fn granule_discarded_before_is_not_sent(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [3, 4])?;
    source.discard(4)?;
    source.read_on()?;
    source.stop()?;
    source.arrives(bed, [])
}

fn long_ranges_move_in_rounds(bed: &Bed) -> Result<()> {
    // More than fits in a run.
    let granules = u64::from(hw::VIFA_DATA_RUN_MAX) / (16 << 10) * 2 + 10;
    let mut source = Source::begin(bed, State::PreCopy, 0..granules)?;
    source.read(RELATIONS_END + (1 << 20) / 2)?;
    source.write([0, 63, 64, 65, 128, granules], 9)?;
    source.read_on()?;
    source.write(0..granules, 10)?;
    source.read(100_000)?;
    source.write((0..granules).step_by(7), 11)?;
    source.stop()?;
    source.arrives(bed, [])
}

fn granule_that_changes_after_it_was_read_ahead_arrives(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 5, 9])?;
    // Together with the run of the granule 1, the driver reads that of the granule 5.
    source.read(RELATIONS_END + 1000)?;
    thread::sleep(Duration::from_millis(50));
    let (initial, _) = source.left()?;
    source.write([5], 0x55)?;
    let expected = (initial, source.memory.granule);
    expect::equal("bytes left", source.left()?, expected)?;
    source.read_on()?;
    source.stop()?;
    source.arrives(bed, [])
}

fn quiesced_device_continues_its_stream(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
    source.read(RELATIONS_END + 10_000)?;
    source.write([7], 1)?;
    source.guest.vf.device.change_state(State::PreCopyP2p)?;
    let dirty = source.memory.granule;
    expect::equal("dirty bytes", source.left()?.1, dirty)?;
    source.read_on()?;
    expect::equal("bytes left at the pause", source.left()?, (0, 0))?;
    source.guest.vf.device.change_state(State::PreCopy)?;
    source.write([8], 1)?;
    source.guest.vf.device.change_state(State::PreCopyP2p)?;
    let before = source.stream.len();
    source.stop()?;
    expect::equal("bytes left", source.counted(before)?, dirty)?;
    source.arrives(bed, [])
}

fn cancelled_stream_starts_over(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 2, 3])?;
    for (number, state) in (10..).zip([State::PreCopy, State::PreCopyP2p, State::PreCopy]) {
        // A part of it is read, or all, and an unread change exists.
        source.read(RELATIONS_END + 20_000 * number as usize % 50_000)?;
        source.guest.vf.device.change_state(State::PreCopy)?;
        source.write([number, 2], number)?;
        source.guest.vf.device.change_state(State::Running)?;
        source.write([20], number)?;
        source.session = source.guest.vf.device.start(state)?;
        source.stream.clear();
        let mapped = source.memory.bytes(source.memory.mapped().len());
        let expected = (RELATIONS_END as u64 + mapped, 0);
        expect::equal("bytes left", source.left()?, expected)?;
    }
    source.read_on()?;
    source.stop()?;
    source.arrives(bed, [])
}

fn cancel_does_not_change_local_memory(bed: &Bed) -> Result<()> {
    let mut source = Source::begin(bed, State::PreCopy, [1, 2, 3])?;
    source.read_on()?;
    source.write([2, 4], 8)?;
    source.discard(1)?;
    source.read(10_000)?;
    source.guest.vf.device.change_state(State::Running)?;
    source.guest.work(6)?;
    // The guest's work writes the first granule.
    source.write([0], 6)?;
    let vf = &source.guest.vf;
    source.memory.is_that_of("source", vf, &BTreeSet::new())
}

fn stream_read_in_any_pieces_arrives(bed: &Bed) -> Result<()> {
    for segments in [
        Segments::Of(7),
        Segments::Of(4095),
        Segments::Of(64 << 10),
        Segments::Whole,
    ] {
        let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
        for granule in [2, 9] {
            source
                .stream
                .extend(source.session.read_to_pause(segments)?);
            source.write([granule], 4)?;
        }
        source.guest.vf.device.change_state(State::StopCopy)?;
        source.stream.extend(source.session.read_all(segments)?);
        source.guest.vf.device.change_state(State::Stop)?;
        source.arrives(bed, []).context(format!("{segments:?}"))?;
    }
    Ok(())
}

/// Pseudo-random numbers, each less than the requested bound.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// The guest may write and discard between reads of any size, and be stopped at any time.
fn random_guest_arrives(bed: &Bed, seed: u64) -> Result<()> {
    const STEPS: u64 = 75;
    let mut random = Random(seed);
    let granules: BTreeSet<u64> = (0..20).map(|_| random.below(40)).collect();
    let mut source = Source::begin(bed, State::PreCopy, granules.iter().copied())?;
    let mut ever = granules;
    for step in 0..STEPS {
        let number = random.below(40);
        match random.below(10) {
            0..=3 => {
                source.write([number], step)?;
                ever.insert(number);
            }
            4 => source.discard(number)?,
            5 => {
                source.left()?;
            }
            6 => {
                source.read_on()?;
            }
            _ => {
                let most = [10, 1000, 100_000][random.below(3) as usize];
                source.read(1 + random.below(most) as usize)?;
            }
        }
    }
    source.stop()?;
    // Discarded granules that were already sent are mapped at the destination.
    let sent = granules_in(&Stream::parse(&source.stream)?, source.memory.granule)?;
    let sent: BTreeSet<u64> = sent.keys().copied().collect();
    expect::claim("only mapped granules to be sent", sent.is_subset(&ever))?;
    source
        .arrives(bed, sent)
        .with_context(|| format!("seed {seed}"))
}

/// Reads `stream` in random pieces until `is_done`, which gets the stream and the number of times
/// that more data was available after a pause.
fn read_rounds(
    session: &Session,
    stream: &mut Vec<u8>,
    is_done: impl Fn(&[u8], u32) -> bool,
) -> Result<()> {
    let mut random = Random(78);
    let mut caught_up = false;
    let mut resumed = 0;
    while !is_done(stream, resumed) {
        match session.read(1 + random.below(200_000) as usize) {
            Ok(bytes) => {
                stream.extend(bytes);
                resumed += u32::from(caught_up);
                caught_up = false;
            }
            result => {
                expect::refused("read", result, &[libc::ENOMSG])?;
                caught_up = true;
            }
        }
        session.precopy_info(0)?;
    }
    Ok(())
}

fn continuously_writing_guest_arrives(bed: &Bed) -> Result<()> {
    const GRANULES: u64 = 110;
    const WRITES: u64 = 20;
    let Source {
        mut guest,
        mut memory,
        session,
        mut stream,
    } = Source::begin(bed, State::PreCopy, 0..100)?;
    // Two rounds send each granule at most twice.
    let two_rounds = 2 * GRANULES * memory.granule;
    let stop = AtomicBool::new(false);
    let writes = AtomicU64::new(0);
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<()> {
            let mut random = Random(77);
            while !stop.load(Ordering::Relaxed) {
                let write = writes.fetch_add(1, Ordering::Relaxed);
                memory.write(&mut guest, random.below(GRANULES), write)?;
            }
            Ok(())
        });
        let result = read_rounds(&session, &mut stream, |stream, resumed| {
            let is_done = writes.load(Ordering::Relaxed) > WRITES
                && (resumed >= 2 || stream.len() as u64 > two_rounds);
            is_done || writer.is_finished()
        });
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
        result.and(written)
    })?;
    let mut source = Source {
        guest,
        memory,
        session,
        stream,
    };
    source.stop()?;
    let rounds = parts(
        &Stream::parse(&source.stream)?.sections,
        source.memory.granule,
    )?;
    let rounds = rounds.last().map_or(0, |(round, _)| *round);
    expect::claim(&format!("more than {rounds} rounds"), rounds > 1)?;
    source.arrives(bed, [])
}

/// The device is stopped during a write of which it has done a part.
fn write_in_progress_arrives(bed: &Bed) -> Result<()> {
    const LENGTH: u64 = 4096;
    let mut source = Source::begin(bed, State::PreCopy, [4])?;
    let local = 4 * source.memory.granule;
    let command = Command::LocalWrite {
        source: source.guest.at(0),
        local,
        length: LENGTH,
    };
    source
        .guest
        .memory
        .memory
        .copy_in(0, &[0xd1; LENGTH as usize]);
    source.guest.vf.set_speed(2);
    source.guest.engine.submit(&source.guest.vf, command)?;
    let end = std::time::Instant::now() + Duration::from_millis(300);
    while std::time::Instant::now() < end {
        source.read_on()?;
    }
    source.stop()?;
    let contents = |stream: &[u8]| granules_in(&Stream::parse(stream)?, source.memory.granule);
    let expected = contents(&source.guest.vf.device.save()?)?;
    let written = expected[&4].iter().filter(|&&byte| byte == 0xd1).count();
    expect::claim(
        &format!("a part of {LENGTH} bytes to be written, not {written}"),
        written > 0 && written < LENGTH as usize,
    )?;
    let destination = Vf::open(&bed.vf(1)?, &source.guest.space)?;
    destination.device.load(&source.stream)?;
    let found = contents(&destination.device.save()?)?;
    expect::same_bytes("granule", &found[&4], &expected[&4])?;
    // The rest is written at the destination.
    source.guest.vf = destination;
    source.guest.vf.device.change_state(State::Running)?;
    source.guest.vf.set_speed(0);
    let guest = &mut source.guest;
    guest.engine.wait(&guest.vf, Duration::from_secs(5))?;
    let bytes = guest.read_local(local, LENGTH)?;
    expect::same_bytes("written bytes", &bytes, &[0xd1; LENGTH as usize])
}

fn vfs_do_not_mix(bed: &Bed) -> Result<()> {
    let mut sources = [
        Source::begin_on(bed, 0, State::PreCopy, [1, 2, 3])?,
        Source::begin_on(bed, 1, State::PreCopy, [3, 4, 5])?,
    ];
    for seed in 10..14 {
        for (number, source) in (0..).zip(&mut sources) {
            source.read(20_000)?;
            source.write([seed, seed + 2 * number], 100 * seed + number)?;
        }
    }
    let [mut source, mut other] = sources;
    source.stop()?;
    other.write([1, 7], 0x999)?;
    other.read_on()?;
    other.stop()?;
    let (guest, memory) = (&other.guest, &other.memory);
    memory.is_that_of("other source", &guest.vf, &BTreeSet::new())?;
    let found = granules_in(&Stream::parse(&other.stream)?, memory.granule)?;
    memory.is("stream of the other", &found, &BTreeSet::new())?;
    drop(other);
    source.arrives(bed, [])
}

fn device_without_change_tracking_sends_all_when_stopped(bed: &Bed) -> Result<()> {
    let bed = &bed.without_local_dirty()?;
    let mut source = Source::begin(bed, State::PreCopy, [1, 2])?;
    let introduction = RELATIONS_END as u64;
    expect::equal("bytes left", source.left()?, (introduction, 0))?;
    source.read_on()?;
    expect::equal("bytes read", source.stream.len(), RELATIONS_END)?;
    source.write([2, 3], 8)?;
    pauses(&source.session)?;
    expect::equal("poll at the pause", source.session.poll()?, 0)?;
    expect::equal("bytes left at the pause", source.left()?, (0, 0))?;
    let size = source.guest.vf.device.data_size()?;
    let before = source.stream.len();
    let rest = source.stop()?;
    let all = source.memory.bytes(3);
    expect::equal("bytes in STOP_COPY", source.counted(before)?, all)?;
    expect::claim(
        &format!("a size of {size} to cover the {rest} bytes that were left"),
        size >= rest,
    )?;
    source.arrives(bed, [])
}

fn death_of_the_process_with_changes_unread(bed: &Bed) -> Result<()> {
    for state in BOTH {
        let victim = Victim::holding(Duration::from_secs(10), || {
            let mut source = Source::begin(bed, State::PreCopy, 0..30)?;
            source.read(RELATIONS_END + 20_000)?;
            source.write([0, 40], 2)?;
            source.guest.vf.device.change_state(state)?;
            source.left()?;
            Ok(source)
        })?;
        victim.kill()?;
        // The killed process's data does not appear in the next stream.
        let guest = Guest::new(bed, 0)?;
        let memory = LocalMemory::of(&guest)?;
        memory.is_that_of("after the process's death", &guest.vf, &BTreeSet::new())?;
        drop(guest);
        let mut source = Source::begin(bed, state, [7])?;
        let expected = RELATIONS_END as u64 + source.memory.granule;
        expect::equal("bytes left", source.left()?, (expected, 0))?;
        source.stop()?;
        source.arrives(bed, [])?;
    }
    Ok(())
}
