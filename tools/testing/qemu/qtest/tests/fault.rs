// SPDX-License-Identifier: GPL-2.0

//! Fault injection, by property and by register.

use vifa_qtest::{hw, Bed, Buffer, Command, Engine, Frame, EXTENDED_ERRORS};

const CONTROL: Frame = Frame::Control(0);
const DATA: Frame = Frame::Data(0);

fn fault_register(bed: &Bed, slot: u32, register: u32) -> u64 {
    bed.frame_register(hw::VIFA_HW_FRAME_LAYER, hw::fault_slot(slot) + register)
}

/// Arms a slot by its registers. Returns whether the device accepted it.
fn arm(bed: &Bed, slot: u32, registers: &[(u32, u32)], count: u32) -> bool {
    for (register, value) in registers {
        bed.write32(fault_register(bed, slot, *register), *value);
    }
    let register = fault_register(bed, slot, hw::VIFA_FAULT_COUNT);
    bed.write32(register, count);
    bed.read32(register) == count
}

fn identify(bed: &Bed) -> (vifa_qtest::Answer, Vec<u8>) {
    let buffer = Buffer::new(bed, 120, 50);
    let answer = bed.execute(CONTROL, hw::VIFA_CONTROL_IDENTIFY, [0, 0], Some(&buffer));
    (answer, buffer.read(bed, 120))
}

#[test]
fn a_status_for_one_command() {
    let bed = Bed::new(
        "faults=status:vf=0:frame=control:opcode=1:value=8:count=2",
        2,
    );
    for _ in 0..2 {
        let other = Buffer::new(&bed, 120, 120);
        bed.succeed(
            Frame::Control(1),
            hw::VIFA_CONTROL_IDENTIFY,
            [0, 0],
            Some(&other),
        );
        bed.set_run_state(0, hw::VIFA_RUN_STATE_STOPPED);
        assert_eq!(identify(&bed).0.status, hw::VIFA_STATUS_DEVICE_FAILURE);
    }
    assert_eq!(identify(&bed).0.status, hw::VIFA_STATUS_SUCCESS);
}

#[test]
fn hangs() {
    let bed = Bed::new("faults=hang", 1);
    let tag = bed.start(CONTROL, hw::VIFA_CONTROL_IDENTIFY, [0, 0], None);
    bed.step(60_000_000_000);
    assert!(bed.busy(CONTROL));
    bed.frame_write(CONTROL, hw::VIFA_MAILBOX_ABORT, 1);
    assert_eq!(bed.wait(CONTROL, tag).status, hw::VIFA_STATUS_ABORTED);
    assert_eq!(bed.frame_read(CONTROL, hw::VIFA_MAILBOX_ABORT), 0);
    assert_eq!(identify(&bed).0.status, hw::VIFA_STATUS_SUCCESS);
}

#[test]
fn delays() {
    let bed = Bed::new("faults=delay:value=50", 1);
    let tag = bed.start(CONTROL, 99, [0, 0], None);
    bed.step(49_999_999);
    assert!(bed.busy(CONTROL));
    bed.step(1);
    assert_eq!(
        bed.wait(CONTROL, tag).status,
        hw::VIFA_STATUS_UNKNOWN_COMMAND
    );
}

#[test]
fn patches_change_results() {
    let bed = Bed::new(
        "faults=short-result:value=20/short-data:value=20/result:value=0x123456789abc\
         /patch:offset=68:width=4:value=12345/patch:offset=119:width=2",
        1,
    );
    let truth = {
        let other = Bed::new("", 1);
        identify(&other).1
    };
    let (answer, data) = identify(&bed);
    assert!(answer.result[0] == 100 && data == truth);

    let (answer, data) = identify(&bed);
    assert!(answer.result[0] == 120 && data[..100] == truth[..100]);
    assert_eq!(data[100..], [0; 20]);

    let (answer, data) = identify(&bed);
    assert!(answer.result[0] == 0x1234_5678_9abc && data == truth);

    let (_, data) = identify(&bed);
    assert!(data[..68] == truth[..68] && data[72..] == truth[72..]);
    assert_eq!(data[68..72], 12345u32.to_le_bytes());

    // A patch that does not fit has no effect.
    let (answer, data) = identify(&bed);
    assert!(answer.result[0] == 120 && data == truth);
}

#[test]
fn patches_add_up() {
    let truth = identify(&Bed::new("", 1)).1;
    let bed = Bed::new(
        "faults=patch:vf=0:opcode=1:offset=8:width=8:value=0x0807060504030201:count=3\
         /patch:opcode=1:offset=12:width=2:value=0xffee\
         /status:value=8\
         /patch:vf=1:opcode=1:offset=0:width=1:value=0x99\
         /patch:opcode=1:offset=119:width=1:value=7:count=2",
        1,
    );
    // In the order of the slots, each for its count.
    let (answer, data) = identify(&bed);
    assert_eq!(answer.status, hw::VIFA_STATUS_SUCCESS);
    assert_eq!(data[8..16], [1, 2, 3, 4, 0xee, 0xff, 7, 8]);
    assert!(data[..8] == truth[..8] && data[16..119] == truth[16..119]);
    assert_eq!(data[119], 7);

    let (_, data) = identify(&bed);
    assert_eq!(data[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(data[119], 7);

    let (_, data) = identify(&bed);
    assert_eq!(data[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(data[119], truth[119]);

    // After a patch, a fault of another kind waits for a separate command.
    let (answer, _) = identify(&bed);
    assert_eq!(answer.status, hw::VIFA_STATUS_DEVICE_FAILURE);
    assert!(identify(&bed).1 == truth);
}

#[test]
fn a_wrong_tag_and_no_interrupt() {
    let bed = Bed::new("faults=tag:value=0x8001/no-interrupt", 1);
    let vector = bed.pf_vector(0);
    bed.frame_write(
        CONTROL,
        hw::VIFA_MAILBOX_VECTOR,
        hw::VIFA_MAILBOX_VECTOR_ENABLE,
    );
    let tag = bed.start(CONTROL, 99, [0, 0], None);
    assert_eq!(
        bed.wait(CONTROL, tag ^ 0x8001).status,
        hw::VIFA_STATUS_UNKNOWN_COMMAND
    );
    assert!(bed.signalled(vector));
    identify(&bed);
    assert!(!bed.signalled(vector));
    identify(&bed);
    assert!(bed.signalled(vector));
}

/// A reset is not a command: its state is reported unchanged.
#[test]
fn resets_are_not_falsified() {
    for fault in ["tag:value=1", "no-interrupt"] {
        let bed = Bed::new(&format!("faults={fault}"), 1);
        let vector = bed.pf_vector(0);
        bed.frame_write(
            DATA,
            hw::VIFA_MAILBOX_VECTOR,
            hw::VIFA_MAILBOX_VECTOR_ENABLE,
        );
        let buffer = Buffer::new(&bed, 4 << 20, 1 << 20);
        let arguments = [0, 4 << 20];
        let tag = bed.start(DATA, hw::VIFA_DATA_LOCAL_READ, arguments, Some(&buffer));
        assert!(bed.busy(DATA));
        bed.reset(bed.vf(0));
        assert_eq!(bed.answer(DATA, tag).status, hw::VIFA_STATUS_ABORTED);
        assert!(bed.signalled(vector), "{fault}");
    }
}

/// Returns the log of 16 written pages, and whether the log was lost.
fn logged(bed: &Bed) -> (u32, u64) {
    let base: u64 = 0x800_0000;
    let range = [base.to_le_bytes(), (16u64 << 12).to_le_bytes()].concat();
    let mut engine = Engine::new(bed, 0, 2);
    bed.succeed(
        DATA,
        hw::VIFA_DATA_LOG_START,
        [4096, 1],
        Some(&Buffer::with(bed, &range, 16)),
    );
    engine.succeed(
        bed,
        Command {
            opcode: hw::VIFA_REFERENCE_FILL,
            destination: base,
            length: 16 << 12,
            ..Command::default()
        },
    );
    let bitmap = Buffer::new(bed, 2, 2);
    let [_, lost] = bed.succeed(
        DATA,
        hw::VIFA_DATA_LOG_READ_AND_CLEAR,
        [base, 16 << 12],
        Some(&bitmap),
    );
    bed.succeed(DATA, hw::VIFA_DATA_LOG_STOP, [0, 0], None);
    engine.write(bed, hw::VIFA_REFERENCE_CONTROL, 0);
    let bytes = bitmap.read(bed, 2);
    (u32::from(bytes[0]) | (u32::from(bytes[1]) << 8), lost)
}

#[test]
fn the_log_is_lost() {
    let bed = Bed::new("faults=log-lost:frame=data:opcode=3", 1);
    assert_eq!(logged(&bed).1, hw::VIFA_LOG_LOST.into());
    assert_eq!(logged(&bed), (0xffff, 0), "the next log is valid");
}

#[test]
fn pages_are_dropped() {
    let bed = Bed::new("faults=log-drop:value=5:count=2", 1);
    assert_eq!(logged(&bed), (0xffff & !(1 << 4) & !(1 << 9), 0));
    assert_eq!(logged(&bed), (0xffff, 0));
}

#[test]
fn a_reset_leaves_the_vf_stopped() {
    let bed = Bed::new("fault-injection=on", 2);
    let after_reset = |vf| {
        bed.reset(bed.vf(vf));
        bed.frame_read(Frame::Control(vf), hw::VIFA_CONTROL_RUN_STATE)
    };
    let reset = [
        (hw::VIFA_FAULT_KIND, hw::VIFA_FAULT_RESET),
        (hw::VIFA_FAULT_VF, 0),
        (hw::VIFA_FAULT_VALUE_LOW, hw::VIFA_RUN_STATE_STOPPED),
    ];
    assert!(arm(&bed, 0, &reset, 1));
    assert_eq!(after_reset(1), hw::VIFA_RUN_STATE_RUNNING);
    assert_eq!(after_reset(0), hw::VIFA_RUN_STATE_STOPPED);
    assert_eq!(after_reset(0), hw::VIFA_RUN_STATE_RUNNING);

    let unknown = [(hw::VIFA_FAULT_VALUE_LOW, hw::VIFA_RUN_STATE_STOPPED + 1)];
    assert!(!arm(&bed, 0, &unknown, 1));
}

#[test]
fn the_dvsec_is_changed() {
    let bed = Bed::new("fault-injection=on", 1);
    let register =
        |offset| bed.frame_register(hw::VIFA_HW_FRAME_LAYER, hw::VIFA_FAULT_DVSEC + offset);
    let [timeout, frames] = [hw::VIFA_DVSEC_TIMEOUT, hw::VIFA_DVSEC_FRAMES];
    let before = bed.dvsec(frames);
    bed.write32(register(frames), 0xffff_fffe);
    assert_eq!(bed.read32(register(frames)), 0xffff_fffe);
    assert_eq!(bed.dvsec(frames), 0xffff_fffe);
    assert_eq!(bed.read32(register(timeout)), bed.dvsec(timeout));
    bed.write32(register(hw::VIFA_DVSEC_LENGTH), 0);
    bed.write32(register(frames), before);
    assert_eq!(bed.dvsec(frames), before);
}

#[test]
fn registers() {
    let bed = Bed::new("fault-injection=on", 1);
    let slots = bed.read32(bed.frame_register(0, hw::VIFA_FAULT_SLOTS));
    assert_eq!(slots, hw::VIFA_FAULT_SLOT_COUNT);

    let status = [
        (hw::VIFA_FAULT_KIND, hw::VIFA_FAULT_STATUS),
        (hw::VIFA_FAULT_VF, hw::VIFA_FAULT_ANY_VF),
        (hw::VIFA_FAULT_VALUE_LOW, 5),
    ];
    assert!(arm(&bed, 7, &status, 1));
    assert_eq!(identify(&bed).0.status, hw::VIFA_STATUS_DMA_FAULT);
    assert_eq!(identify(&bed).0.status, hw::VIFA_STATUS_SUCCESS);
    assert_eq!(bed.read32(fault_register(&bed, 7, hw::VIFA_FAULT_FIRED)), 1);

    // Always, until it is disarmed. The lowest slot has priority.
    assert!(arm(&bed, 7, &[], hw::VIFA_FAULT_ALWAYS));
    assert!(arm(&bed, 2, &status, 1));
    assert!(arm(&bed, 2, &[(hw::VIFA_FAULT_VALUE_LOW, 8)], 1));
    assert_eq!(identify(&bed).0.status, hw::VIFA_STATUS_DEVICE_FAILURE);
    for _ in 0..3 {
        assert_eq!(identify(&bed).0.status, hw::VIFA_STATUS_DMA_FAULT);
    }
    assert!(arm(&bed, 7, &[], 0));
    assert_eq!(identify(&bed).0.status, hw::VIFA_STATUS_SUCCESS);

    for (register, wrong) in [
        (hw::VIFA_FAULT_KIND, 0),
        (hw::VIFA_FAULT_KIND, 0xff),
        (hw::VIFA_FAULT_VF, 64),
        (hw::VIFA_FAULT_FRAME, 1),
        (hw::VIFA_FAULT_OPCODE, 0x1_0000),
        (hw::VIFA_FAULT_VALUE_LOW, 0),
    ] {
        let right = bed.read32(fault_register(&bed, 7, register));
        assert!(!arm(&bed, 7, &[(register, wrong)], 1), "{register:#x}");
        assert!(arm(&bed, 7, &[(register, right)], 1), "{register:#x}");
    }
}

/// Reads the magic number and register 0 of VF 0.
fn layer_and_vf(bed: &Bed) -> [u32; 2] {
    let layer = bed.frame_register(hw::VIFA_HW_FRAME_LAYER, hw::VIFA_LAYER_MAGIC);
    [layer, bed.vf_register(0, 0)].map(|register| bed.read32(register))
}

#[test]
fn gone_until_written_or_reset() {
    let bed = Bed::new("fault-injection=on,faults=hang", 1);
    let register = bed.frame_register(hw::VIFA_HW_FRAME_LAYER, hw::VIFA_FAULT_GONE);
    let before = layer_and_vf(&bed);
    assert_eq!(before[0], hw::VIFA_HW_MAGIC);
    bed.start(CONTROL, hw::VIFA_CONTROL_IDENTIFY, [0, 0], None);

    bed.write32(register, 1);
    assert_eq!(layer_and_vf(&bed), [u32::MAX; 2]);
    assert_eq!(bed.frame_read(CONTROL, hw::VIFA_MAILBOX_STATUS), u32::MAX);
    bed.frame_write(CONTROL, hw::VIFA_MAILBOX_VECTOR, 5);

    bed.write32(register, 0);
    assert_eq!(layer_and_vf(&bed), before);
    assert_eq!(bed.frame_read(CONTROL, hw::VIFA_MAILBOX_STATUS), 0);
    assert_eq!(bed.frame_read(CONTROL, hw::VIFA_MAILBOX_VECTOR), 0);
    assert_eq!(
        bed.frame_read(CONTROL, hw::VIFA_CONTROL_RUN_STATE),
        hw::VIFA_RUN_STATE_STOPPED
    );

    bed.write32(register, 1);
    bed.reset(bed.pf());
    bed.set_up_pf();
    bed.enable_vfs(1);
    assert_eq!(layer_and_vf(&bed), before);
}

#[test]
fn cleared_error_is_no_longer_the_first() {
    const ERROR_STATUS: u64 = 0x04;
    const CAPABILITIES: u64 = 0x18;
    const FIRST_ERROR: u32 = 0x1f;
    const COMPLETION_TIMEOUT: u32 = 14;
    let bed = Bed::new("fault-injection=on", 1);
    for (function, vf) in [(bed.pf(), hw::VIFA_FAULT_ANY_VF), (bed.vf(0), 0)] {
        let capability = function.extended_capability(&bed, EXTENDED_ERRORS);
        let register = |offset| function.register(capability + offset);
        let first = || bed.read32(register(CAPABILITIES)) & FIRST_ERROR;
        let layer = |offset| bed.frame_register(hw::VIFA_HW_FRAME_LAYER, offset);

        bed.write32(layer(hw::VIFA_FAULT_ERROR_VF), vf);
        bed.write32(layer(hw::VIFA_FAULT_ERROR), 1 << COMPLETION_TIMEOUT);
        assert_eq!(first(), COMPLETION_TIMEOUT);
        bed.write32(register(ERROR_STATUS), 1 << COMPLETION_TIMEOUT);
        assert_eq!(bed.read32(register(ERROR_STATUS)), 0);
        assert_eq!(first(), 0);
    }
}
