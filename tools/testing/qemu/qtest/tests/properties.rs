// SPDX-License-Identifier: GPL-2.0

//! Properties and what the device says of itself.

use vifa_qtest::{hw, Bed, Buffer, Frame, Qtest};

/// Every value that is out of range is refused by a message that names the property.
#[test]
fn refuses_bad_properties() {
    for (property, value) in [
        ("vfs", "0"),
        ("vfs", "65"),
        ("vfs", "64,addr=2"),
        ("granule", "2048"),
        ("granule", "12288"),
        ("granule", "131072"),
        ("local-memory", "20000"),
        ("local-memory", "1T"),
        ("vectors", "0"),
        ("vectors", "130"),
        ("scatter-max", "0"),
        ("scatter-max", "513"),
        ("command-timeout-ms", "0"),
        ("command-timeout-ms", "600001"),
        ("faults", "no-such-kind"),
        ("faults", "hang:nothing=1"),
        ("faults", "hang:vf=64"),
        ("faults", "hang:frame=third"),
        ("faults", "hang:opcode=0x10000"),
        ("faults", "status:value=0"),
        ("faults", "status:value=0xffff"),
        ("faults", "patch:width=9"),
        ("faults", "log-drop"),
        ("faults", "delay:value=600001"),
        ("faults", "hang/hang/hang/hang/hang/hang/hang/hang/hang"),
    ] {
        let complaint = Qtest::refusal(&["-device", &format!("vifa-pf,{property}={value}")]);
        assert!(
            complaint.contains(&format!("{property}: ")),
            "{property}={value}: {complaint}"
        );
    }
}

#[test]
fn capability_and_layer_frame_agree() {
    for (properties, features, vfs, timeout) in [
        ("", 0b111, 8, 2000),
        ("p2p=off,vfs=1", 0b110, 1, 2000),
        ("dirty-log=off,vfs=64", 0b101, 64, 2000),
        ("local-memory=0,command-timeout-ms=7", 0b011, 8, 7),
    ] {
        let bed = Bed::new(properties, 0);
        let layer = |register| bed.read32(bed.frame_register(hw::VIFA_HW_FRAME_LAYER, register));

        assert_eq!(bed.dvsec(4), 0x01c0_1234 | (1 << 16), "{properties}");
        assert_eq!(
            bed.dvsec(8),
            (hw::VIFA_HW_REVISION << 16) | hw::VIFA_DVSEC_ID,
            "{properties}"
        );
        assert_eq!(bed.dvsec(hw::VIFA_DVSEC_FEATURES), features, "{properties}");
        assert_eq!(bed.dvsec(hw::VIFA_DVSEC_LOCATION), 0, "{properties}");
        assert_eq!(bed.dvsec(hw::VIFA_DVSEC_TIMEOUT), timeout, "{properties}");
        assert_eq!(bed.dvsec(hw::VIFA_DVSEC_FRAMES), 1 + 2 * vfs);

        assert_eq!(layer(hw::VIFA_LAYER_MAGIC), hw::VIFA_HW_MAGIC);
        assert_eq!(layer(hw::VIFA_LAYER_REVISION), hw::VIFA_HW_REVISION);
        assert_eq!(layer(hw::VIFA_LAYER_FEATURES), features);
        assert_eq!(layer(hw::VIFA_LAYER_VFS), vfs);
        assert_eq!(layer(hw::VIFA_LAYER_SCATTER_MAX), 512);
        assert_eq!(layer(hw::VIFA_LAYER_VECTORS), 65);
        assert_eq!(layer(hw::VIFA_FAULT_SLOTS), 0, "faults are off");
    }
}

#[test]
fn identity_is_what_the_properties_say() {
    let bed = Bed::new("local-memory=3M,granule=64K,p2p=off", 1);
    let buffer = Buffer::new(&bed, 120, 16);
    let [length, _] = bed.succeed(
        Frame::Control(0),
        hw::VIFA_CONTROL_IDENTIFY,
        [0, 0],
        Some(&buffer),
    );
    assert_eq!(length, 120);
    let identity = buffer.read(&bed, 120);
    let word = |from: usize, size: usize| {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&identity[from..from + size]);
        u64::from_le_bytes(bytes)
    };
    assert_eq!(word(0, 4), 0x5656_1234, "PCI ids");
    assert_eq!(word(4, 4), 0x1100_1af4, "subsystem");
    assert_eq!(word(8, 4), 0x0001_0001, "revisions");
    assert_eq!(word(12, 4), 0b110, "features");
    let bars: Vec<u64> = (0..6).map(|bar| word(16 + 8 * bar, 8)).collect();
    assert_eq!(bars, [0x1000, 0, 0, 0, 0x1000, 0]);
    assert_eq!(word(64, 4), 0x0001_0001, "vectors and queues");
    assert_eq!(word(68, 4), 0x1_0000, "granule");
    assert_eq!(word(72, 8), 0x30_0000, "local memory");
    assert_eq!(word(80, 4), 272, "control plane");
    let versions: Vec<u64> = (0..16).map(|kind| word(88 + 2 * kind, 2)).collect();
    assert_eq!(versions[..6], [0, 1, 1, 1, 1, 0]);
}

#[test]
fn sixty_four_vfs() {
    let bed = Bed::new("vfs=64", 64);
    for n in 0..64 {
        let id = bed.frame_read(Frame::Data(n), hw::VIFA_MAILBOX_ID);
        assert_eq!(id, hw::VIFA_MAILBOX_ID_DATA | u32::from(n));
        assert_eq!(
            bed.read32(bed.vf_register(n, hw::VIFA_REFERENCE_MAGIC)),
            hw::VIFA_REFERENCE_MAGIC_VALUE
        );
        bed.set_run_state(n, hw::VIFA_RUN_STATE_STOPPED);
    }
}
