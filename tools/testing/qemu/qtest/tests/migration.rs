// SPDX-License-Identifier: GPL-2.0

//! Run states and the control plane: at any moment, a command completes exactly once.

use vifa_qtest::{crc32c, hw, scattered, Bed, Command, Engine, Frame, Random, Records};

const RUNNING: u32 = hw::VIFA_RUN_STATE_RUNNING;
const P2P: u32 = hw::VIFA_RUN_STATE_P2P;
const STOPPED: u32 = hw::VIFA_RUN_STATE_STOPPED;

const CONFIGURATION: u32 = hw::VIFA_RECORD_CONFIGURATION;
const QUEUE: u32 = hw::VIFA_RECORD_QUEUE;
const INTERRUPT: u32 = hw::VIFA_RECORD_INTERRUPT;
const PRIVATE: u32 = hw::VIFA_RECORD_PRIVATE;

/// Moves the control plane of `engine`'s VF, which is stopped, to VF `to`.
fn migrate(bed: &Bed, engine: &mut Engine, to: u16) {
    let records = bed.save(engine.vf);
    bed.reset(bed.vf(engine.vf));
    bed.set_run_state(to, STOPPED);
    bed.enable_vf(to);
    let answer = bed.load(to, &records);
    assert_eq!(answer.status, hw::VIFA_STATUS_SUCCESS, "{answer:x?}");
    assert!(
        bed.save(to) == records,
        "the loaded plane equals the saved one"
    );
    engine.vf = to;
}

/// Returns a fill command that takes 16 ms.
fn slow_fill(bed: &Bed, engine: &Engine, destination: u64) -> Command {
    engine.write(bed, hw::VIFA_REFERENCE_SPEED, 1024);
    Command {
        opcode: hw::VIFA_REFERENCE_FILL,
        destination,
        length: 16 * 1024,
        pattern: 1,
        ..Command::default()
    }
}

/// Returns an engine on VF 0 in the middle of a slow fill of this memory, 5 ms after its start.
fn busy_engine(bed: &Bed, entries: u32) -> (Engine, u64) {
    let mut engine = Engine::new(bed, 0, entries);
    let memory = bed.allocate(32 * 1024);
    let fill = slow_fill(bed, &engine, memory);
    engine.submit(bed, fill);
    bed.step(5_000_000);
    (engine, memory)
}

#[test]
fn run_states() {
    let bed = Bed::new("", 1);
    for state in [
        RUNNING, P2P, RUNNING, STOPPED, RUNNING, P2P, STOPPED, STOPPED, P2P, RUNNING,
    ] {
        bed.set_run_state(0, state);
    }
    let set = |bed: &Bed, state: u64| {
        bed.execute(
            Frame::Control(0),
            hw::VIFA_CONTROL_SET_RUN_STATE,
            [state, 0],
            None,
        )
        .status
    };
    for wrong in [3, u64::from(P2P) | (1 << 32)] {
        assert_eq!(set(&bed, wrong), hw::VIFA_STATUS_INVALID_ARGUMENT);
    }
    let without = Bed::new("p2p=off", 1);
    assert_eq!(set(&without, P2P.into()), hw::VIFA_STATUS_INVALID_ARGUMENT);
    without.set_run_state(0, STOPPED);
}

#[test]
fn save_and_load_require_a_stopped_vf() {
    let bed = Bed::new("", 1);
    bed.set_run_state(0, STOPPED);
    let records = bed.save(0);
    for state in [RUNNING, P2P] {
        bed.set_run_state(0, state);
        assert_eq!(bed.load(0, &records).status, hw::VIFA_STATUS_INVALID_STATE);
        let buffer = vifa_qtest::Buffer::new(&bed, 4096, 4096);
        let answer = bed.execute(
            Frame::Control(0),
            hw::VIFA_CONTROL_SAVE,
            [0, 0],
            Some(&buffer),
        );
        assert_eq!(answer.status, hw::VIFA_STATUS_INVALID_STATE);
    }
    bed.set_run_state(0, STOPPED);
    let buffer = vifa_qtest::Buffer::new(&bed, records.len() as u64 - 1, 100);
    let answer = bed.execute(
        Frame::Control(0),
        hw::VIFA_CONTROL_SAVE,
        [0, 0],
        Some(&buffer),
    );
    assert_eq!(answer.status, hw::VIFA_STATUS_BUFFER_TOO_SMALL);
    assert_eq!(answer.result[0], records.len() as u64);
}

/// P2P: doorbells are recorded, no command starts. Stopped: no state changes.
#[test]
fn quiesced_and_stopped() {
    let bed = Bed::new("", 1);
    let vector = bed.vf_vector(0);
    let (mut engine, memory) = busy_engine(&bed, 4);
    bed.set_run_state(0, P2P);
    let before = bed.read(memory, 16 * 1024);
    assert!(before.ends_with(&[0; 8]) && !before.starts_with(&[0; 8]));
    engine.write(&bed, hw::VIFA_REFERENCE_SCRATCH, 7);
    engine.submit(&bed, Command::default());
    bed.step(100_000_000);
    assert!(bed.read(memory, 16 * 1024) == before);
    assert_eq!(engine.poll(&bed), None);
    assert!(!bed.signalled(vector));
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_SUBMISSION_TAIL), 2);
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_SCRATCH), 7);

    bed.set_run_state(0, STOPPED);
    engine.write(&bed, hw::VIFA_REFERENCE_SCRATCH, 8);
    engine.write(&bed, hw::VIFA_REFERENCE_CONTROL, 0);
    engine.submit(&bed, Command::default());
    bed.step(100_000_000);
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_SUBMISSION_TAIL), 2);
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_SCRATCH), 7);
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_CONTROL), 3);

    bed.set_run_state(0, RUNNING);
    for id in 0..2 {
        assert_eq!(engine.wait(&bed).id, id);
    }
    assert!(bed.signalled(vector));
    engine.ring(&bed);
    assert_eq!(engine.wait(&bed).id, 2);
}

/// All records of a plane, and all bits of the registers, are transferred.
#[test]
fn the_whole_plane_moves() {
    let bed = Bed::new("", 2);
    let mut engine = Engine::new(&bed, 0, 8);
    let memory = bed.allocate(32 * 1024);
    for n in 0..hw::VIFA_REFERENCE_SCRATCHES {
        engine.write(&bed, hw::VIFA_REFERENCE_SCRATCH + 4 * n, !n);
    }
    engine.succeed(&bed, Command::default());
    let fill = slow_fill(&bed, &engine, memory);
    engine.submit(&bed, fill);
    engine.submit(&bed, Command::default());
    bed.step(5_000_000);
    bed.set_run_state(0, STOPPED);
    let kinds: Vec<u32> = Records::parse(&bed.save(0))
        .kinds()
        .iter()
        .map(|kind| u32::from(*kind))
        .collect();
    assert_eq!(kinds, [CONFIGURATION, QUEUE, INTERRUPT, PRIVATE]);

    let registers: Vec<u32> = (0..0x80)
        .step_by(4)
        .map(|at| engine.read(&bed, at))
        .collect();
    migrate(&bed, &mut engine, 1);
    let after: Vec<u32> = (0..0x80)
        .step_by(4)
        .map(|at| engine.read(&bed, at))
        .collect();
    assert_eq!(registers, after);

    bed.set_run_state(1, RUNNING);
    for id in 1..3 {
        let completion = engine.wait(&bed);
        assert_eq!((completion.id, completion.status), (id, 0));
    }
    let words = bed.read(memory, 16 * 1024);
    let right = (0..2048).all(|i| words[8 * i..8 * i + 8] == (1 + i as u64).to_le_bytes());
    assert!(right, "the fill that was interrupted");
}

/// A signal that waited for its vector to be unmasked is not lost in a migration.
#[test]
fn a_masked_interrupt_moves() {
    let bed = Bed::new("", 2);
    let vector = bed.vf_vector(0);
    let destination = bed.vf_vector(1);
    let mut engine = Engine::new(&bed, 0, 4);
    bed.mask(vector, true);
    engine.succeed(&bed, Command::default());
    bed.set_run_state(0, STOPPED);
    bed.mask(vector, false);
    assert!(!bed.signalled(vector), "signalled while it is stopped");
    let mut records = Records::parse(&bed.save(0));
    assert_eq!(records.clone().word(INTERRUPT, 0, 1), &mut records);

    migrate(&bed, &mut engine, 1);
    bed.set_run_state(1, RUNNING);
    bed.step(1_000_000);
    assert!(bed.signalled(destination));
}

/// A guest that has not consumed a completion is signalled again.
#[test]
fn unconsumed_completions_are_signalled_again() {
    let bed = Bed::new("", 1);
    let vector = bed.vf_vector(0);
    let mut engine = Engine::new(&bed, 0, 4);
    engine.submit(&bed, Command::default());
    bed.step(1_000_000);
    assert!(bed.signalled(vector));
    for (consumed, signal) in [(false, true), (true, false)] {
        if consumed {
            engine.wait(&bed);
        }
        bed.set_run_state(0, P2P);
        bed.set_run_state(0, RUNNING);
        bed.step(1_000_000);
        assert_eq!(bed.signalled(vector), signal);
    }
}

/// Returns invalid changes of `records`, each with the type of the record that is invalid.
fn invalid_planes(records: &Records) -> Vec<(u32, Vec<u8>)> {
    let with = |kind, offset, value| records.clone().word(kind, offset, value).bytes();
    vec![
        (0, b"short".to_vec()),
        (CONFIGURATION, Vec::new()),
        (CONFIGURATION, records.without(CONFIGURATION).bytes()),
        (QUEUE, records.without(QUEUE).bytes()),
        (INTERRUPT, records.without(INTERRUPT).bytes()),
        // The indices imply an unfinished command.
        (QUEUE, records.without(PRIVATE).bytes()),
        (QUEUE, records.twice(QUEUE).bytes()),
        (PRIVATE, records.twice(PRIVATE).bytes()),
        (CONFIGURATION, with(CONFIGURATION, 0, 0x7)),
        (CONFIGURATION, with(CONFIGURATION, 0, 0)),
        (CONFIGURATION, with(CONFIGURATION, 4, 0)),
        (CONFIGURATION, with(CONFIGURATION, 4, 3)),
        (CONFIGURATION, with(CONFIGURATION, 12, 1)),
        (QUEUE, with(QUEUE, 0, 0x1020)),
        (QUEUE, with(QUEUE, 8, 1)),
        (QUEUE, with(QUEUE, 16, 0)),
        (QUEUE, with(QUEUE, 16, 5)),
        (QUEUE, with(QUEUE, 16, 4096)),
        (QUEUE, with(QUEUE, 20, 6)),
        (QUEUE, with(QUEUE, 20, 0)),
        (QUEUE, with(QUEUE, 24, 2)),
        (QUEUE, with(QUEUE, 28, 5)),
        (QUEUE, with(QUEUE, 32, 1)),
        // No room for the completion of the unfinished command.
        (QUEUE, with(QUEUE, 32, 0u32.wrapping_sub(4))),
        (QUEUE, with(QUEUE, 36, 1)),
        (INTERRUPT, with(INTERRUPT, 0, 2)),
        (INTERRUPT, with(INTERRUPT, 4, 1)),
        (INTERRUPT, {
            let mut records = records.clone();
            records
                .word(INTERRUPT, 0, 1)
                .word(CONFIGURATION, 0, 1)
                .bytes()
        }),
        (PRIVATE, with(PRIVATE, 0, 99)),
        (PRIVATE, with(PRIVATE, 0, 0x1_0001)),
        (PRIVATE, with(PRIVATE, 24, 16 * 1024 + 1)),
        (PRIVATE, with(PRIVATE, 28, 1)),
        (PRIVATE, with(PRIVATE, 40, 1)),
        (PRIVATE, with(PRIVATE, 64, 4)),
        (PRIVATE, with(PRIVATE, 64, 16 * 1024)),
        (PRIVATE, with(PRIVATE, 76, 1)),
    ]
}

#[test]
fn invalid_planes_are_rejected() {
    let bed = Bed::new("", 2);
    busy_engine(&bed, 4);
    bed.set_run_state(0, STOPPED);
    bed.set_run_state(1, STOPPED);
    let records = Records::parse(&bed.save(0));
    let empty = bed.save(1);

    for (number, (kind, bytes)) in invalid_planes(&records).iter().enumerate() {
        let answer = bed.load(1, bytes);
        assert_eq!(
            (answer.status, answer.result[0]),
            (hw::VIFA_STATUS_INVALID_RECORD, u64::from(*kind)),
            "case {number}"
        );
        assert!(bed.save(1) == empty, "case {number}: nothing has changed");
    }
    assert_eq!(
        bed.load(1, &[0; 5000]).status,
        hw::VIFA_STATUS_INVALID_ARGUMENT
    );

    // Only the order within a type is fixed.
    assert_eq!(
        bed.load(1, &records.reversed().bytes()).status,
        hw::VIFA_STATUS_SUCCESS
    );
    assert!(bed.save(1) == records.bytes());
}

/// Any plane that differs in one bit is either rejected without effect or is a valid plane.
#[test]
fn flipped_bits() {
    let bed = Bed::new("", 2);
    busy_engine(&bed, 4);
    bed.set_run_state(0, STOPPED);
    bed.set_run_state(1, STOPPED);
    let records = bed.save(0);
    let (mut taken, mut refused) = (0, 0);
    for bit in 0..8 * records.len() {
        let mut flipped = records.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let before = bed.save(1);
        let answer = bed.load(1, &flipped);
        let expected = if answer.status == hw::VIFA_STATUS_SUCCESS {
            taken += 1;
            flipped
        } else {
            refused += 1;
            assert_eq!(answer.status, hw::VIFA_STATUS_INVALID_RECORD, "bit {bit}");
            before
        };
        assert!(bed.save(1) == expected, "bit {bit}");
    }
    assert!(taken > 0 && refused > 0);
}

/// Length of the block that the commands of [`block_command`] write.
const BLOCK: u64 = 24 * 1024;

/// Returns the first word of the block that the command `number` fills, copies or checks.
fn pattern_of(number: u32) -> u64 {
    u64::from(number / 3) << 20
}

/// Returns the contents of the block with this first word.
fn block(pattern: u64) -> Vec<u8> {
    (0..BLOCK / 8)
        .flat_map(|i| (pattern + i).to_le_bytes())
        .collect()
}

/// Returns the command `number`. In turns: fill, copy, check the copy; the rings hold the commands
/// of one block.
fn block_command(number: u32, source: u64, destination: u64) -> Command {
    match number % 3 {
        0 => Command {
            opcode: hw::VIFA_REFERENCE_FILL,
            destination: source,
            length: BLOCK,
            pattern: pattern_of(number),
            ..Command::default()
        },
        1 => Command {
            opcode: hw::VIFA_REFERENCE_COPY,
            source,
            destination,
            length: BLOCK,
            ..Command::default()
        },
        _ => Command {
            opcode: hw::VIFA_REFERENCE_CHECKSUM,
            source: destination,
            length: BLOCK,
            ..Command::default()
        },
    }
}

/// Commands of all kinds, stopped and moved from one VF to another at irregular moments, at
/// irregular speeds: each completes once, in order, with the right result.
#[test]
fn exactly_once() {
    let bed = Bed::new("granule=4K", 2);
    let mut engine = Engine::new(&bed, 0, 4);
    let random = &mut Random::new(1);
    let (source, destination) = (bed.allocate(BLOCK), bed.allocate(BLOCK));
    let (mut issued, mut completed) = (0, 0);
    let mut expected_checksum = Vec::new();

    while completed < 400 {
        while issued - completed < 4 && issued < 400 {
            let command = block_command(issued, source, destination);
            if command.opcode == hw::VIFA_REFERENCE_CHECKSUM {
                expected_checksum.push(crc32c(&block(pattern_of(issued))));
            }
            assert_eq!(engine.submit(&bed, command), issued);
            issued += 1;
        }

        let speed = random.pick(&[0, 100, 5000, 40_000]);
        engine.write(&bed, hw::VIFA_REFERENCE_SPEED, speed);
        bed.step(random.below(3_000_000));
        if random.below(2) == 0 {
            bed.set_run_state(engine.vf, P2P);
            bed.step(random.below(1_000_000));
        }
        bed.set_run_state(engine.vf, STOPPED);
        if random.below(2) == 0 {
            let to = 1 - engine.vf;
            migrate(&bed, &mut engine, to);
        }
        bed.set_run_state(engine.vf, RUNNING);

        while let Some(completion) = engine.poll(&bed) {
            assert_eq!(completion.id, completed);
            assert_eq!(completion.status, hw::VIFA_REFERENCE_COMPLETION_SUCCESS);
            if completed % 3 == 2 {
                let expected = expected_checksum[completed as usize / 3];
                assert_eq!(completion.result, expected.into(), "command {completed}");
            }
            completed += 1;
        }
        engine.consume(&bed);
    }
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_COMPLETION_TAIL), 400);
    bed.step(1_000_000_000);
    assert_eq!(engine.poll(&bed), None);
}

/// Returns the number of times that the guest has configured VF `n`, as the host reads it.
fn configurations(bed: &Bed, n: u16) -> u32 {
    bed.frame_read(Frame::Control(n), hw::VIFA_CONTROL_CONFIGURATIONS)
}

#[test]
fn configurations_are_counted() {
    let bed = Bed::new("", 2);
    assert_eq!(configurations(&bed, 0), 0);
    let engine = Engine::new(&bed, 0, 4);
    assert_eq!(configurations(&bed, 0), 1);

    // Enabling and disabling without other changes counts.
    let control = |value| engine.write(&bed, hw::VIFA_REFERENCE_CONTROL, value);
    control(hw::VIFA_REFERENCE_CONTROL_ENABLE);
    control(0);
    control(hw::VIFA_REFERENCE_CONTROL_INTERRUPT);
    assert_eq!(configurations(&bed, 0), 1);
    // Enabling with invalid rings counts too.
    engine.write(&bed, hw::VIFA_REFERENCE_RING_ENTRIES, 3);
    control(hw::VIFA_REFERENCE_CONTROL_ENABLE);
    assert_eq!(configurations(&bed, 0), 2);
    engine.write(&bed, hw::VIFA_REFERENCE_SCRATCH, 1);
    assert_eq!(configurations(&bed, 0), 2);

    // A stopped VF ignores writes; a quiesced one does not.
    control(0);
    bed.set_run_state(0, STOPPED);
    control(hw::VIFA_REFERENCE_CONTROL_ENABLE);
    assert_eq!(configurations(&bed, 0), 2);
    bed.set_run_state(0, P2P);
    control(hw::VIFA_REFERENCE_CONTROL_ENABLE);
    assert_eq!(configurations(&bed, 0), 3);

    // Other VFs and other frames are unaffected.
    assert_eq!(configurations(&bed, 1), 0);
    assert_eq!(
        bed.frame_read(Frame::Data(0), hw::VIFA_CONTROL_CONFIGURATIONS),
        0
    );
    bed.reset(bed.vf(0));
    assert_eq!(configurations(&bed, 0), 0);
    bed.disable_vfs();
    assert_eq!(configurations(&bed, 0), 0);
}

/// A command that depends on its progress continues at the same point.
#[test]
fn a_scatter_moves() {
    let bed = Bed::new("", 2);
    let (mut engine, _) = busy_engine(&bed, 4);
    engine.wait(&bed);
    let window = 64 * 1024;
    let memory = bed.allocate(window);
    engine.submit(&bed, Command::scatter(memory, window, 2000, 5));
    let mut expected = vec![0; window as usize];
    for (offset, word) in scattered(window, 2000, 5) {
        expected[offset as usize..offset as usize + 8].copy_from_slice(&word.to_le_bytes());
    }
    for _ in 0..3 {
        bed.step(3_000_000);
        bed.set_run_state(engine.vf, STOPPED);
        assert!(bed.read(memory, window as usize) != expected, "half done");
        let to = 1 - engine.vf;
        migrate(&bed, &mut engine, to);
        bed.set_run_state(to, RUNNING);
    }
    let completion = engine.wait(&bed);
    assert_eq!(completion.status, hw::VIFA_REFERENCE_COMPLETION_SUCCESS);
    assert!(bed.read(memory, window as usize) == expected);
}

/// Loading a plane is an action of the host, not of the guest.
#[test]
fn loading_a_plane_is_not_a_configuration() {
    let bed = Bed::new("", 2);
    let mut engine = Engine::new(&bed, 0, 4);
    bed.set_run_state(0, STOPPED);
    migrate(&bed, &mut engine, 1);
    bed.set_run_state(1, RUNNING);
    engine.succeed(&bed, Command::default());
    assert_eq!(configurations(&bed, 1), 0);
}

#[test]
fn reset_of_a_vf() {
    let bed = Bed::new("", 2);
    bed.set_run_state(1, STOPPED);
    let fresh = bed.save(1);

    let (_, memory) = busy_engine(&bed, 4);
    bed.set_run_state(0, P2P);
    bed.reset(bed.vf(0));
    bed.enable_vf(0);
    let frame = Frame::Control(0);
    assert_eq!(bed.frame_read(frame, hw::VIFA_CONTROL_RUN_STATE), RUNNING);
    bed.step(100_000_000);
    assert!(
        bed.read(memory, 16 * 1024).ends_with(&[0; 8]),
        "no more DMA"
    );
    bed.set_run_state(0, STOPPED);
    assert!(bed.save(0) == fresh);
}
