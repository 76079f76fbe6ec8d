// SPDX-License-Identifier: GPL-2.0

//! The life cycle of a command, independent of its kind.

use vifa_qtest::{hw, Bed, Buffer, Frame};

const FRAME: Frame = Frame::Control(0);

fn status(bed: &Bed, opcode: u32, buffer: Option<&Buffer>) -> u32 {
    bed.execute(FRAME, opcode, [0, 0], buffer).status
}

#[test]
fn unknown_commands() {
    let bed = Bed::new("", 1);
    for opcode in [0, 5, 0xffff] {
        assert_eq!(status(&bed, opcode, None), hw::VIFA_STATUS_UNKNOWN_COMMAND);
    }
    let without = Bed::new("local-memory=0,dirty-log=off", 1);
    for opcode in [hw::VIFA_DATA_LOG_START, hw::VIFA_DATA_LOCAL_CLEAR] {
        let answer = without.execute(Frame::Data(0), opcode, [0, 0], None);
        assert_eq!(answer.status, hw::VIFA_STATUS_UNKNOWN_COMMAND);
    }
}

#[test]
fn a_vf_that_is_off() {
    let bed = Bed::new("", 1);
    for opcode in [hw::VIFA_CONTROL_IDENTIFY, 99] {
        let answer = bed.execute(Frame::Control(1), opcode, [0, 0], None);
        assert_eq!(answer.status, hw::VIFA_STATUS_INVALID_STATE);
    }
}

#[test]
fn scatter_lists() {
    let bed = Bed::new("scatter-max=4", 1);
    let memory = bed.allocate(4096);
    let identify = |pieces| {
        let buffer = Buffer::from_pieces(&bed, pieces);
        status(&bed, hw::VIFA_CONTROL_IDENTIFY, Some(&buffer))
    };
    assert_eq!(identify(vec![(memory, 30); 4]), hw::VIFA_STATUS_SUCCESS);
    for wrong in [
        vec![],
        vec![(memory, 24); 5],
        vec![(memory, 120), (memory, 0)],
        vec![(u64::MAX - 3, 120)],
    ] {
        assert_eq!(
            identify(wrong.clone()),
            hw::VIFA_STATUS_INVALID_ARGUMENT,
            "{wrong:x?}"
        );
    }
    assert_eq!(
        identify(vec![(memory, 119)]),
        hw::VIFA_STATUS_BUFFER_TOO_SMALL
    );
    // Beyond all memory.
    assert_eq!(identify(vec![(1 << 50, 120)]), hw::VIFA_STATUS_DMA_FAULT);
}

#[test]
fn a_misaligned_scatter_list() {
    let bed = Bed::new("", 1);
    let buffer = Buffer::new(&bed, 120, 120);
    let tag = bed.start(FRAME, hw::VIFA_CONTROL_IDENTIFY, [0, 0], Some(&buffer));
    bed.wait(FRAME, tag);
    let list = bed.frame_read(FRAME, hw::VIFA_MAILBOX_SCATTER_LOW);
    bed.frame_write(FRAME, hw::VIFA_MAILBOX_SCATTER_LOW, list + 8);
    bed.frame_write(
        FRAME,
        hw::VIFA_MAILBOX_COMMAND,
        hw::VIFA_CONTROL_IDENTIFY | (7 << 16),
    );
    assert_eq!(bed.wait(FRAME, 7).status, hw::VIFA_STATUS_INVALID_ARGUMENT);
}

#[test]
fn interrupts() {
    let bed = Bed::new("vectors=3", 1);
    let vectors = [bed.pf_vector(1), bed.pf_vector(2)];
    let enable = hw::VIFA_MAILBOX_VECTOR_ENABLE;
    for (setting, expected) in [
        (1, [false, false]),
        (enable | 1, [true, false]),
        (enable | 2, [false, true]),
        (enable | 3, [false, false]),
    ] {
        bed.frame_write(FRAME, hw::VIFA_MAILBOX_VECTOR, setting);
        status(&bed, 99, None);
        assert_eq!(
            vectors.map(|vector| bed.signalled(vector)),
            expected,
            "{setting:#x}"
        );
    }
}

#[test]
fn a_second_command_is_ignored() {
    let bed = Bed::new("faults=delay:value=5", 1);
    let tag = bed.start(FRAME, 99, [0, 0], None);
    let status = bed.frame_read(FRAME, hw::VIFA_MAILBOX_STATUS);
    assert_eq!(status, hw::VIFA_STATUS_BUSY | (u32::from(tag) << 16));
    bed.frame_write(FRAME, hw::VIFA_MAILBOX_COMMAND, hw::VIFA_CONTROL_IDENTIFY);
    assert_eq!(bed.wait(FRAME, tag).status, hw::VIFA_STATUS_UNKNOWN_COMMAND);
    bed.step(10_000_000);
    assert_eq!(
        bed.answer(FRAME, tag).status,
        hw::VIFA_STATUS_UNKNOWN_COMMAND
    );
}

#[test]
fn abort_in_the_middle() {
    let bed = Bed::new("", 1);
    let frame = Frame::Data(0);
    let vector = bed.pf_vector(0);
    let length = 4 << 20;
    let buffer = Buffer::new(&bed, length, 1 << 20);

    bed.frame_write(
        frame,
        hw::VIFA_MAILBOX_VECTOR,
        hw::VIFA_MAILBOX_VECTOR_ENABLE,
    );
    let tag = bed.start(frame, hw::VIFA_DATA_LOCAL_READ, [0, length], Some(&buffer));
    assert!(bed.busy(frame));
    bed.frame_write(frame, hw::VIFA_MAILBOX_ABORT, 1);
    while bed.frame_read(frame, hw::VIFA_MAILBOX_ABORT) != 0 {}
    assert_eq!(bed.answer(frame, tag).status, hw::VIFA_STATUS_ABORTED);
    assert!(bed.signalled(vector));

    // The DMA has stopped, and the next command works.
    let end = buffer.address(length - 8);
    bed.write(end, &[0x5a; 8]);
    bed.step(1_000_000_000);
    assert_eq!(bed.read(end, 8), [0x5a; 8]);
    bed.succeed(frame, hw::VIFA_DATA_LOCAL_READ, [0, length], Some(&buffer));
    assert_eq!(bed.read(end, 8), [0; 8]);

    // There is no command to abort.
    bed.frame_write(frame, hw::VIFA_MAILBOX_ABORT, 1);
    assert_eq!(bed.frame_read(frame, hw::VIFA_MAILBOX_ABORT), 0);
}

#[test]
fn resets_end_commands() {
    let bed = Bed::new("faults=hang-abort:count=0xffffffff", 2);
    let vector = bed.pf_vector(0);
    let other = Frame::Control(1);
    for frame in [FRAME, other] {
        bed.frame_write(
            frame,
            hw::VIFA_MAILBOX_VECTOR,
            hw::VIFA_MAILBOX_VECTOR_ENABLE,
        );
    }
    let tag = bed.start(FRAME, hw::VIFA_CONTROL_IDENTIFY, [0, 0], None);
    let other_tag = bed.start(other, hw::VIFA_CONTROL_IDENTIFY, [0, 0], None);
    bed.frame_write(FRAME, hw::VIFA_MAILBOX_ABORT, 1);
    bed.step(1_000_000_000);
    assert_eq!(bed.frame_read(FRAME, hw::VIFA_MAILBOX_ABORT), 1);
    assert!(bed.busy(FRAME) && !bed.signalled(vector));

    // A reset of the VF ends only its own command.
    bed.reset(bed.vf(0));
    assert_eq!(bed.frame_read(FRAME, hw::VIFA_MAILBOX_ABORT), 0);
    assert_eq!(bed.answer(FRAME, tag).status, hw::VIFA_STATUS_ABORTED);
    assert!(bed.signalled(vector) && bed.busy(other));

    // Disabling the VFs ends the command.
    bed.disable_vfs();
    assert_eq!(bed.answer(other, other_tag).status, hw::VIFA_STATUS_ABORTED);
    assert!(bed.signalled(vector));
    bed.enable_vfs(1);

    // A reset of the PF also resets registers, without an interrupt.
    bed.start(FRAME, hw::VIFA_CONTROL_IDENTIFY, [0, 0], None);
    bed.reset(bed.pf());
    bed.set_up_pf();
    assert_eq!(bed.frame_read(FRAME, hw::VIFA_MAILBOX_STATUS), 0);
    assert_eq!(bed.frame_read(FRAME, hw::VIFA_MAILBOX_VECTOR), 0);
    assert!(!bed.signalled(vector));
}
