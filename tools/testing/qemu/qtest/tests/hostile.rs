// SPDX-License-Identifier: GPL-2.0

//! A hostile guest and a hostile host: the device and the other VFs must remain intact.

use vifa_qtest::{hw, Bed, Buffer, Command, Engine, Frame, Random, RESET_WORD};

const MEMORY: u64 = 256 << 20;

/// Returns an arbitrary number, often a boundary value.
fn number(random: &mut Random) -> u64 {
    let any = random.number();
    random.pick(&[
        0,
        1,
        8,
        any % 64,
        any % 4096 * 8,
        any % MEMORY,
        MEMORY - 8,
        MEMORY,
        16 << 20,
        u64::from(u32::MAX),
        any << 20,
        u64::MAX - 7,
        u64::MAX,
    ])
}

/// Random accesses to one VF must not affect the work and the state of the other.
#[test]
fn one_vf_does_not_disturb_another() {
    let bed = Bed::new("granule=4K,local-memory=1M", 2);
    let mut good = Engine::new(&bed, 1, 4);
    let mut bad = Engine::new(&bed, 0, 4);
    let scratch = bed.allocate(1 << 20);
    let kept = bed.place(&[0xa5; 4096]);
    let random = &mut Random::new(7);

    for round in 0..1500u32 {
        match random.below(6) {
            0 => {
                let register = random.below(0x400) as u32 * 4;
                let value = number(random) as u32;
                bad.write(&bed, register, value);
            }
            1 => {
                bad.write(&bed, hw::VIFA_REFERENCE_CONTROL, 0);
                bad = Engine::new(&bed, 0, random.pick(&[2, 4, 64]));
            }
            2 => {
                let state = random.pick(&[0, 1, 2]);
                bed.set_run_state(0, state);
            }
            _ => {
                // Keep the DMA within this VF's memory: a fill of scratch memory, or an address
                // beyond all memory.
                let inside = scratch + random.below(1 << 16);
                let opcode = random.below(9) as u32;
                let command = Command {
                    opcode,
                    source: match opcode {
                        hw::VIFA_REFERENCE_SCATTER => random.pick(&[0, 7, 8, 1 << 16]),
                        _ => number(random),
                    },
                    destination: random.pick(&[inside, inside, MEMORY + 8, u64::MAX - 7]),
                    length: random.pick(&[0, 8, 512, 1 << 16, 7, 1 << 24, u64::MAX]),
                    pattern: random.number(),
                };
                if command.length <= 1 << 16 || command.destination >= MEMORY {
                    bad.submit(&bed, command);
                }
            }
        }
        bed.step(random.below(100_000));
        if round % 10 == 0 {
            let local = Command {
                opcode: hw::VIFA_REFERENCE_LOCAL_WRITE,
                source: kept,
                destination: u64::from(round) * 8,
                length: 4096,
                ..Command::default()
            };
            good.succeed(&bed, local);
        }
    }
    assert_eq!(
        good.read(&bed, hw::VIFA_REFERENCE_STATUS),
        hw::VIFA_REFERENCE_STATUS_ENABLED
    );
    assert_eq!(bed.read(kept, 4096), [0xa5; 4096]);
    bed.reset(bed.vf(0));
    bed.enable_vf(0);
    Engine::new(&bed, 0, 4).succeed(&bed, Command::default());
}

/// Commands with random arguments end with a status, in any state.
#[test]
fn every_command_ends() {
    let bed = Bed::new("granule=4K,local-memory=1M", 1);
    let buffers: Vec<Buffer> = [16, 120, 4096, 1 << 20]
        .into_iter()
        .map(|length| Buffer::new(&bed, length, 100_000))
        .collect();
    let random = &mut Random::new(11);
    let mut succeeded = [0; 2];

    for _ in 0..4000 {
        let (frame, opcode) = if random.below(2) == 0 {
            (Frame::Control(0), random.below(6))
        } else {
            (
                Frame::Data(0),
                random.pick(&[1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15]),
            )
        };
        let arguments = [number(random), number(random)].map(|number| {
            let small = random.below(4) << 12;
            random.pick(&[number, small, small])
        });
        let buffer = random.pick(&[0, 1, 2, 3]);
        let answer = bed.execute(frame, opcode as u32, arguments, Some(&buffers[buffer]));
        assert!(
            answer.status <= hw::VIFA_STATUS_INVALID_RECORD,
            "{answer:x?}"
        );
        if answer.status == hw::VIFA_STATUS_SUCCESS {
            succeeded[usize::from(matches!(frame, Frame::Data(_)))] += 1;
        }
    }
    assert!(succeeded.iter().all(|count| *count > 100), "{succeeded:?}");
}

/// If no IOMMU prevents it, the DMA of a VF can reset the same VF.
#[test]
fn an_engine_resets_itself() {
    let bed = Bed::new("", 1);
    let register = bed.reset_register(bed.vf(0));
    bed.set_run_state(0, hw::VIFA_RUN_STATE_STOPPED);
    let fresh = bed.save(0);
    bed.set_run_state(0, hw::VIFA_RUN_STATE_RUNNING);

    for opcode in [
        hw::VIFA_REFERENCE_FILL,
        hw::VIFA_REFERENCE_COPY,
        hw::VIFA_REFERENCE_LOCAL_READ,
    ] {
        let mut engine = Engine::new(&bed, 0, 4);
        let word = bed.place(&RESET_WORD.to_le_bytes());
        engine.succeed(
            &bed,
            Command {
                opcode: hw::VIFA_REFERENCE_LOCAL_WRITE,
                source: word,
                length: 8,
                ..Command::default()
            },
        );
        let source = if opcode == hw::VIFA_REFERENCE_COPY {
            word
        } else {
            0
        };
        engine.submit(
            &bed,
            Command {
                opcode,
                source,
                destination: register,
                length: 8,
                pattern: RESET_WORD,
            },
        );
        bed.step(1_000_000);
        assert_eq!(engine.poll(&bed), None, "opcode {opcode}");
        bed.set_run_state(0, hw::VIFA_RUN_STATE_STOPPED);
        assert!(bed.save(0) == fresh, "opcode {opcode}");
        bed.set_run_state(0, hw::VIFA_RUN_STATE_RUNNING);
        bed.enable_vf(0);
    }
}

/// A command of the host can do so too: it is aborted, as by any reset.
#[test]
fn a_command_resets_its_vf() {
    let bed = Bed::new("granule=4K", 1);
    let frame = Frame::Data(0);
    let page = Buffer::with(
        &bed,
        &[RESET_WORD.to_le_bytes().to_vec(), vec![0; 4088]].concat(),
        4096,
    );
    let onto_the_register = Buffer::from_pieces(
        &bed,
        vec![
            (bed.reset_register(bed.vf(0)), 4),
            (bed.allocate(4092), 4092),
        ],
    );
    bed.set_run_state(0, hw::VIFA_RUN_STATE_STOPPED);
    bed.succeed(frame, hw::VIFA_DATA_LOCAL_WRITE, [0, 4096], Some(&page));
    let answer = bed.execute(
        frame,
        hw::VIFA_DATA_LOCAL_READ,
        [0, 4096],
        Some(&onto_the_register),
    );
    assert_eq!(answer.status, hw::VIFA_STATUS_ABORTED);
    assert_eq!(
        bed.frame_read(Frame::Control(0), hw::VIFA_CONTROL_RUN_STATE),
        hw::VIFA_RUN_STATE_RUNNING
    );
    bed.set_run_state(0, hw::VIFA_RUN_STATE_STOPPED);
    bed.succeed(frame, hw::VIFA_DATA_LOCAL_WRITE, [0, 4096], Some(&page));
}
