// SPDX-License-Identifier: GPL-2.0

//! The DMA engine, as a guest uses it.

use vifa_qtest::{crc32c, hw, scattered, Bed, Command, Engine};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

fn pattern(first: u64, length: u64) -> Vec<u8> {
    (0..length / 8)
        .flat_map(|i| (first.wrapping_add(i)).to_le_bytes())
        .collect()
}

#[test]
fn every_command() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let length = 200 * KIB;
    let (source, destination) = (bed.allocate(length), bed.allocate(length));
    let expected = pattern(u64::MAX - 3, length);

    engine.succeed(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_NOP,
            ..Command::default()
        },
    );
    engine.succeed(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_FILL,
            destination: source,
            length,
            pattern: u64::MAX - 3,
            ..Command::default()
        },
    );
    assert!(bed.read(source, length as usize) == expected, "fill");
    engine.succeed(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_COPY,
            source,
            destination,
            length,
            ..Command::default()
        },
    );
    assert!(bed.read(destination, length as usize) == expected, "copy");
    let checksum = engine.succeed(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_CHECKSUM,
            source: destination,
            length,
            ..Command::default()
        },
    );
    assert_eq!(checksum, crc32c(&expected).into());
}

#[test]
fn every_command_of_local_memory() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let length = 200 * KIB;
    let (source, destination) = (bed.allocate(length), bed.allocate(length));
    let expected = pattern(u64::MAX - 3, length);

    // Unaligned to granules, across many granules, and back.
    bed.write(source, &expected);
    engine.succeed(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_LOCAL_WRITE,
            source,
            destination: 1000,
            length,
            ..Command::default()
        },
    );
    let read_local = Command {
        opcode: hw::VIFA_REFERENCE_LOCAL_READ,
        source: 1000,
        destination,
        length,
        ..Command::default()
    };
    bed.write(destination, &vec![0; length as usize]);
    engine.succeed(&bed, read_local);
    assert!(bed.read(destination, length as usize) == expected, "local");

    // A discard affects the granules that are wholly inside.
    engine.succeed(
        &bed,
        Command {
            opcode: hw::VIFA_REFERENCE_LOCAL_DISCARD,
            destination: 16 * KIB - 8,
            length: 40 * KIB,
            ..Command::default()
        },
    );
    engine.succeed(&bed, read_local);
    let mut left = expected;
    left[(16 * KIB - 1000) as usize..(48 * KIB - 1000) as usize].fill(0);
    assert!(bed.read(destination, length as usize) == left, "discard");
}

/// Each word is at the offset from the generator, in order: of two overlapping words, the later one
/// remains.
#[test]
fn scatter() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let window = 24 * KIB;
    let memory = bed.allocate(window + 8192);
    for (at, source, words, pattern) in [
        (0, 8, 3, 7),
        (64, 4096, 100, 1 << 40),
        (4096, window, 5000, u64::MAX - 100),
        (4100, window - 8, 1, 9),
    ] {
        let mut expected = vec![0; window as usize + 8192];
        bed.write(memory, &expected);
        engine.succeed(&bed, Command::scatter(memory + at, source, words, pattern));
        for (offset, word) in scattered(source, words, pattern) {
            let from = (at + offset) as usize;
            expected[from..from + 8].copy_from_slice(&word.to_le_bytes());
        }
        assert!(
            bed.read(memory, expected.len()) == expected,
            "{words} words over {source} bytes at {at}"
        );
    }
}

/// Commands that move no data must not block other VFs either.
#[test]
fn many_commands_take_many_slices() {
    const COMMANDS: u32 = 600;
    const SLICE: u32 = 512;
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 1024);
    for _ in 0..COMMANDS {
        engine.queue(&bed, Command::default());
    }
    engine.ring(&bed);
    let taken_after = |before| {
        (0..1000)
            .map(|_| engine.read(&bed, hw::VIFA_REFERENCE_SUBMISSION_HEAD))
            .find(|taken| *taken != before)
    };
    assert_eq!(taken_after(0), Some(SLICE));
    assert_eq!(taken_after(SLICE), None, "while the clock stands still");
    bed.step(100_000);
    assert_eq!(taken_after(SLICE), Some(COMMANDS));
}

/// A command (opcode, source, destination and length) and the status of its completion.
type Case = (u32, u64, u64, u64, u32);

/// Returns commands with one invalid field each, and a valid one without length. `memory` is the
/// address of a page.
fn invalid_commands(memory: u64) -> [Case; 21] {
    use hw::{
        VIFA_REFERENCE_CHECKSUM as CHECKSUM, VIFA_REFERENCE_COMPLETION_FAULT as FAULT,
        VIFA_REFERENCE_COMPLETION_INVALID as INVALID, VIFA_REFERENCE_COMPLETION_SUCCESS as SUCCESS,
        VIFA_REFERENCE_COMPLETION_UNKNOWN as UNKNOWN, VIFA_REFERENCE_COPY as COPY,
        VIFA_REFERENCE_FILL as FILL, VIFA_REFERENCE_LOCAL_DISCARD as LOCAL_DISCARD,
        VIFA_REFERENCE_LOCAL_READ as LOCAL_READ, VIFA_REFERENCE_LOCAL_WRITE as LOCAL_WRITE,
        VIFA_REFERENCE_SCATTER as SCATTER,
    };
    /// Size of the local memory.
    const LOCAL: u64 = 16 * MIB;

    [
        (8, memory, memory, 8, UNKNOWN),
        (0xffff, memory, memory, 8, UNKNOWN),
        (FILL, 0, memory, 7, INVALID),
        (FILL, 0, memory, 16 * MIB + 8, INVALID),
        (FILL, 0, u64::MAX - 7, 16, INVALID),
        (FILL, 0, 1 << 50, 16, FAULT),
        (COPY, u64::MAX - 7, memory, 16, INVALID),
        (COPY, 1 << 50, memory, 16, FAULT),
        (COPY, memory, 1 << 50, 16, FAULT),
        (CHECKSUM, 1 << 50, 0, 16, FAULT),
        (LOCAL_WRITE, memory, LOCAL - 8, 16, INVALID),
        (LOCAL_WRITE, memory, u64::MAX - 7, 16, INVALID),
        (LOCAL_READ, LOCAL, memory, 8, INVALID),
        (LOCAL_DISCARD, 0, LOCAL, 8, INVALID),
        (SCATTER, 0, memory, 8, INVALID),
        (SCATTER, 12, memory, 8, INVALID),
        (SCATTER, 4096, memory, 12, INVALID),
        (SCATTER, 4096, memory, 16 * MIB + 8, INVALID),
        (SCATTER, 4096, u64::MAX - 7, 8, INVALID),
        (SCATTER, 4096, 1 << 50, 8, FAULT),
        (FILL, 0, memory, 0, SUCCESS),
    ]
}

#[test]
fn invalid_commands_are_refused() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let memory = bed.allocate(4096);

    for (opcode, source, destination, length, expected) in invalid_commands(memory) {
        let command = Command {
            opcode,
            source,
            destination,
            length,
            pattern: 0,
        };
        let completion = engine.execute(&bed, command);
        assert_eq!(completion.status, expected, "{command:x?}");
        assert_eq!(completion.result, 0, "{command:x?}");
    }
}

/// A copy to a destination within its source replicates it, word by word, at any speed.
#[test]
fn overlapping_copies_ascend() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let memory = bed.allocate(4096);
    for (distance, speed) in [(8, 0), (24, 0), (3, 0), (1000, 40), (20, 8)] {
        let mut expected: Vec<u8> = (0..2048u32).map(|i| (i * 7) as u8).collect();
        bed.write(memory, &expected);
        for word in (0..1024).step_by(8) {
            expected.copy_within(word..word + 8, word + distance);
        }
        engine.write(&bed, hw::VIFA_REFERENCE_SPEED, speed);
        engine.succeed(
            &bed,
            Command {
                opcode: hw::VIFA_REFERENCE_COPY,
                source: memory,
                destination: memory + distance as u64,
                length: 1024,
                ..Command::default()
            },
        );
        assert_eq!(bed.read(memory, 2048), expected, "distance {distance}");
    }
}

#[test]
fn rings_wrap_and_phases_alternate() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 2);
    for _ in 0..9 {
        engine.succeed(&bed, Command::default());
    }
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_SUBMISSION_HEAD), 9);
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_COMPLETION_TAIL), 9);
}

/// No completion is written to an entry that the guest has not consumed.
#[test]
fn a_full_completion_ring_waits() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 2);
    for _ in 0..2 {
        engine.submit(&bed, Command::default());
    }
    bed.step(1_000_000);
    for _ in 0..2 {
        engine.queue(&bed, Command::default());
    }
    engine.ring(&bed);
    bed.step(10_000_000);
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_SUBMISSION_HEAD), 2);
    assert_eq!(engine.poll(&bed).map(|completion| completion.id), Some(0));
    engine.consume(&bed);
    bed.step(1_000_000);
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_SUBMISSION_HEAD), 3);
    for id in 1..4 {
        assert_eq!(engine.wait(&bed).id, id);
    }
}

#[test]
fn wrong_indices_are_ignored() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    for _ in 0..3 {
        engine.succeed(&bed, Command::default());
    }
    for value in [2, 8, u32::MAX] {
        engine.write(&bed, hw::VIFA_REFERENCE_SUBMISSION_TAIL, value);
        assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_SUBMISSION_TAIL), 3);
        engine.write(&bed, hw::VIFA_REFERENCE_COMPLETION_HEAD, value);
        assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_COMPLETION_HEAD), 3);
    }
    // Ring registers are read-only while the rings are in use.
    engine.write(&bed, hw::VIFA_REFERENCE_RING_ENTRIES, 1 << 30);
    assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_RING_ENTRIES), 4);
    engine.succeed(&bed, Command::default());
}

#[test]
fn invalid_rings_are_rejected() {
    let bed = Bed::new("", 1);
    let engine = Engine::new(&bed, 0, 4);
    let disable = || {
        engine.write(&bed, hw::VIFA_REFERENCE_CONTROL, 0);
        assert_eq!(engine.read(&bed, hw::VIFA_REFERENCE_STATUS), 0);
    };
    for (register, wrong) in [
        (hw::VIFA_REFERENCE_RING_ENTRIES, 0),
        (hw::VIFA_REFERENCE_RING_ENTRIES, 1),
        (hw::VIFA_REFERENCE_RING_ENTRIES, 3),
        (hw::VIFA_REFERENCE_RING_ENTRIES, 2048),
        (hw::VIFA_REFERENCE_RING_ENTRIES, 1 << 31),
        (hw::VIFA_REFERENCE_SUBMISSION_LOW, 0x10_0020),
        (hw::VIFA_REFERENCE_COMPLETION_LOW, 0x10_0001),
    ] {
        disable();
        let right = engine.read(&bed, register);
        engine.write(&bed, register, wrong);
        engine.write(
            &bed,
            hw::VIFA_REFERENCE_CONTROL,
            hw::VIFA_REFERENCE_CONTROL_ENABLE,
        );
        assert_eq!(
            engine.read(&bed, hw::VIFA_REFERENCE_STATUS),
            hw::VIFA_REFERENCE_STATUS_FAILED,
            "register {register:#x} = {wrong:#x}"
        );
        engine.write(&bed, hw::VIFA_REFERENCE_SUBMISSION_TAIL, 1);
        disable();
        engine.write(&bed, register, right);
    }
    engine.enable(&bed);
    assert_eq!(
        engine.read(&bed, hw::VIFA_REFERENCE_STATUS),
        hw::VIFA_REFERENCE_STATUS_ENABLED
    );
}

#[test]
fn inaccessible_rings() {
    for register in [
        hw::VIFA_REFERENCE_SUBMISSION_HIGH,
        hw::VIFA_REFERENCE_COMPLETION_HIGH,
    ] {
        let bed = Bed::new("", 1);
        let vector = bed.vf_vector(0);
        let mut engine = Engine::new(&bed, 0, 4);
        engine.write(&bed, hw::VIFA_REFERENCE_CONTROL, 0);
        engine.write(&bed, register, 0x4_0000);
        engine.write(
            &bed,
            hw::VIFA_REFERENCE_CONTROL,
            hw::VIFA_REFERENCE_CONTROL_ENABLE | hw::VIFA_REFERENCE_CONTROL_INTERRUPT,
        );
        engine.submit(&bed, Command::default());
        bed.step(1_000_000);
        assert_eq!(
            engine.read(&bed, hw::VIFA_REFERENCE_STATUS),
            hw::VIFA_REFERENCE_STATUS_FAILED
        );
        assert!(bed.signalled(vector));

        // The guest recovers by disabling the device, and starts again.
        let mut engine = {
            engine.write(&bed, hw::VIFA_REFERENCE_CONTROL, 0);
            Engine::new(&bed, 0, 4)
        };
        engine.succeed(&bed, Command::default());
    }
}

#[test]
fn interrupts() {
    let bed = Bed::new("", 1);
    let vector = bed.vf_vector(0);
    let mut engine = Engine::new(&bed, 0, 4);
    engine.succeed(&bed, Command::default());
    assert!(bed.signalled(vector));
    bed.step(1_000_000);
    assert!(!bed.signalled(vector), "once");

    // Disabled; then enabled while a completion waits.
    let enable = hw::VIFA_REFERENCE_CONTROL_ENABLE;
    engine.write(&bed, hw::VIFA_REFERENCE_CONTROL, enable);
    engine.submit(&bed, Command::default());
    bed.step(1_000_000);
    assert!(engine.poll(&bed).is_some() && !bed.signalled(vector));
    engine.write(
        &bed,
        hw::VIFA_REFERENCE_CONTROL,
        enable | hw::VIFA_REFERENCE_CONTROL_INTERRUPT,
    );
    bed.step(1_000_000);
    assert!(bed.signalled(vector));

    // Masked: signalled later.
    bed.mask(vector, true);
    engine.consume(&bed);
    engine.succeed(&bed, Command::default());
    assert!(!bed.signalled(vector));
    bed.mask(vector, false);
    assert!(bed.signalled(vector));
}

#[test]
fn speed() {
    let bed = Bed::new("", 1);
    let mut engine = Engine::new(&bed, 0, 4);
    let length = MIB;
    let destination = bed.allocate(length);
    let fill = Command {
        opcode: hw::VIFA_REFERENCE_FILL,
        destination,
        length,
        ..Command::default()
    };
    for (speed, milliseconds) in [(64 * KIB, 16), (10_000, 105), (3 * MIB, 1)] {
        engine.write(&bed, hw::VIFA_REFERENCE_SPEED, speed as u32);
        engine.submit(&bed, fill);
        let mut elapsed = 0;
        while engine.poll(&bed).is_none() {
            bed.step(1_000_000);
            elapsed += 1;
            assert!(elapsed < 1000, "speed {speed}");
        }
        engine.consume(&bed);
        assert!(
            (milliseconds..=milliseconds + 6).contains(&elapsed),
            "speed {speed}: got {elapsed} ms, expected {milliseconds}"
        );
    }
    // Less than one word per millisecond still makes progress.
    engine.write(&bed, hw::VIFA_REFERENCE_SPEED, 1);
    engine.submit(&bed, Command { length: 16, ..fill });
    for _ in 0..15 {
        bed.step(1_000_000);
        assert!(engine.poll(&bed).is_none());
    }
    for _ in 0..8 {
        bed.step(1_000_000);
    }
    assert!(engine.poll(&bed).is_some());
}
