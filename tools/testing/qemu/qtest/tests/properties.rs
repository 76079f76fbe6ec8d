// SPDX-License-Identifier: GPL-2.0

//! Properties, and the device's description of itself.

use vifa_qtest::{hw, Bed, Buffer, Frame, Qtest};

/// Every value out of range is rejected with a message that names the property.
#[test]
fn rejects_bad_properties() {
    let too_many_faults = ["hang"; hw::VIFA_FAULT_SLOT_COUNT as usize + 1].join("/");
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
        ("log-ranges", "0"),
        ("log-ranges", "1025"),
        ("command-timeout-ms", "0"),
        ("command-timeout-ms", "600001"),
        ("vendor-id", "0"),
        ("vendor-id", "0xffff"),
        ("vf-device-id", "0"),
        ("vf-device-id", "0xffff"),
        ("vf-subsystem-vendor-id", "0"),
        ("vf-subsystem-vendor-id", "0xffff"),
        ("vf-bar-bits", "0"),
        ("vf-bar-bits", "33"),
        ("vf-bar0-size", "0"),
        ("vf-bar0-size", "2K"),
        ("vf-bar0-size", "12K"),
        ("vf-bar0-size", "128M"),
        ("vf-bar1-size", "4K"),
        ("vf-bar2-size", "1"),
        ("vf-bar3-size", "4K"),
        ("vf-bar4-size", "0"),
        ("vf-bar5-size", "4K"),
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
        ("faults", &too_many_faults),
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
        ("", 0b1111, 8, 2000),
        ("p2p=off,vfs=1", 0b1110, 1, 2000),
        ("dirty-log=off,vfs=64", 0b1101, 64, 2000),
        ("local-dirty=off", 0b0111, 8, 2000),
        ("local-memory=0,command-timeout-ms=7", 0b0011, 8, 7),
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
        assert_eq!(layer(hw::VIFA_LAYER_LOG_RANGES), 1024);
        assert_eq!(layer(hw::VIFA_FAULT_SLOTS), 0, "faults are off");
    }
}

/// The identity of VF 0.
struct Identity(Vec<u8>);

impl Identity {
    fn of(bed: &Bed) -> Self {
        let buffer = Buffer::new(bed, 120, 16);
        let [length, _] = bed.succeed(
            Frame::Control(0),
            hw::VIFA_CONTROL_IDENTIFY,
            [0, 0],
            Some(&buffer),
        );
        assert_eq!(length, 120);
        Self(buffer.read(bed, 120))
    }

    /// Returns the number of `size` bytes at `from`.
    fn word(&self, from: usize, size: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&self.0[from..from + size]);
        u64::from_le_bytes(bytes)
    }

    fn bars(&self) -> Vec<u64> {
        (0..6).map(|bar| self.word(16 + 8 * bar, 8)).collect()
    }
}

#[test]
fn identity_matches_the_properties() {
    let bed = Bed::new("local-memory=3M,granule=64K,p2p=off", 1);
    let identity = Identity::of(&bed);
    let word = |from, size| identity.word(from, size);
    assert_eq!(word(0, 4), 0x5656_1234, "PCI ids");
    assert_eq!(word(4, 4), 0x1100_1af4, "subsystem");
    assert_eq!(word(8, 4), 0x0001_0001, "revisions");
    assert_eq!(word(12, 4), 0b1110, "features");
    assert_eq!(identity.bars(), [0x1000, 0, 0, 0, 0x1000, 0]);
    assert_eq!(word(64, 4), 0x0001_0001, "vectors and queues");
    assert_eq!(word(68, 4), 0x1_0000, "granule");
    assert_eq!(word(72, 8), 0x30_0000, "local memory");
    assert_eq!(word(80, 4), 272, "control plane");
    let versions: Vec<u64> = (0..16).map(|kind| word(88 + 2 * kind, 2)).collect();
    assert_eq!(versions[..6], [0, 1, 1, 1, 1, 0]);
}

#[test]
fn configuration_space_has_the_ids_of_the_properties() {
    let bed = Bed::new(
        "vendor-id=0x4321,vf-device-id=0x6565,vf-subsystem-vendor-id=0xa1b2,\
         vf-subsystem-id=0,vf-revision-id=0xff",
        2,
    );
    let identity = Identity::of(&bed);
    assert_eq!(identity.word(0, 8), 0x0000_a1b2_6565_4321, "PCI ids");
    assert_eq!(identity.word(8, 1), 0xff, "revision id");

    // The PF contains the VFs' vendor and device ids.
    assert_eq!(bed.read32(bed.pf().register(0)), 0x5650_4321);
    let sriov = bed
        .pf()
        .extended_capability(&bed, vifa_qtest::EXTENDED_SRIOV);
    assert_eq!(bed.read16(bed.pf().register(sriov + 0x1a)), 0x6565);
    for n in 0..2 {
        let vf = bed.vf(n);
        assert_eq!(bed.read32(vf.register(0x00)), 0xffff_ffff, "VF {n}");
        assert_eq!(bed.read32(vf.register(0x08)), 0x1200_00ff, "VF {n}");
        assert_eq!(bed.read32(vf.register(0x2c)), 0x0000_a1b2, "VF {n}");
    }
}

const STATUS: u64 = 0x06;
const IMMEDIATE_READINESS: u16 = 1;

/// By default, a host has to wait after a reset.
#[test]
fn functions_are_not_immediately_ready_by_default() {
    let bed = Bed::new("", 1);
    for function in [bed.pf(), bed.vf(0)] {
        let status = bed.read16(function.register(STATUS));
        assert_eq!(status & IMMEDIATE_READINESS, 0, "{function:?}");
    }
}

/// Both functions report that they need no time after a reset, and they need none.
#[test]
fn functions_are_immediately_ready() {
    let bed = Bed::new("immediate-readiness=on", 1);
    for function in [bed.pf(), bed.vf(0)] {
        let ready = || bed.read16(function.register(STATUS)) & IMMEDIATE_READINESS;
        bed.write16(function.register(STATUS), 0xffff);
        assert_eq!(ready(), 1, "{function:?}: read-only");
    }
    bed.write32(bed.vf_register(0, hw::VIFA_REFERENCE_SCRATCH), 1);
    bed.reset(bed.vf(0));
    let status = bed.read16(bed.vf(0).register(STATUS));
    assert_eq!(status & IMMEDIATE_READINESS, 1, "after a reset");
    let scratch = bed.vf_register(0, hw::VIFA_REFERENCE_SCRATCH);
    assert_eq!(bed.read32(scratch), 0, "the reset is over");
    bed.reset(bed.pf());
    let status = bed.read16(bed.pf().register(STATUS));
    assert_eq!(status & IMMEDIATE_READINESS, 1, "after a reset of the PF");
}

/// Returns the type bits of each of the VFs' BARs, and their sizes as software probes them.
fn probe_bars(bed: &Bed) -> Vec<(u32, u64)> {
    let sriov = bed
        .pf()
        .extended_capability(bed, vifa_qtest::EXTENDED_SRIOV);
    (0..6)
        .map(|bar| {
            let register = bed.pf().register(sriov + 0x24 + 4 * bar);
            let before = bed.read32(register);
            bed.write32(register, u32::MAX);
            let mask = bed.read32(register);
            bed.write32(register, before);
            let size = (mask & !0xf).wrapping_neg();
            (mask & 0xf, u64::from(size))
        })
        .collect()
}

#[test]
fn bars_have_the_width_and_size_of_the_properties() {
    let bed = Bed::new("vf-bar0-size=8K,vf-bar2-size=64M,vf-bar4-size=16K", 0);
    let bars = probe_bars(&bed);
    assert_eq!(
        [bars[0], bars[2], bars[4]],
        [(0xc, 0x2000), (0xc, 64 << 20), (0xc, 0x4000)]
    );
    for half in [1, 3, 5] {
        assert_eq!(bars[half], (0xf, 0x10), "upper half of 64 bits");
    }

    let bed = Bed::new(
        "vf-bar-bits=32,vf-bar0-size=8K,vf-bar1-size=4K,vf-bar2-size=16K,\
         vf-bar3-size=32K,vf-bar4-size=4K,vf-bar5-size=64K",
        2,
    );
    let sizes = [0x2000, 0x1000, 0x4000, 0x8000, 0x1000, 0x1_0000];
    assert_eq!(probe_bars(&bed), sizes.map(|size| (0, size)));
    assert_eq!(Identity::of(&bed).bars(), sizes);
    // The VFs' BARs are adjacent.
    for n in 0..2 {
        let magic = bed.vf_register(0, n * 0x2000 + hw::VIFA_REFERENCE_MAGIC);
        assert_eq!(bed.read32(magic), hw::VIFA_REFERENCE_MAGIC_VALUE);
    }
    let between = bed.vf_register(0, 0x1000 + hw::VIFA_REFERENCE_MAGIC);
    assert_eq!(bed.read32(between), 0);
}

#[test]
fn an_absent_bar_has_no_address() {
    let bed = Bed::new("vf-bar-bits=32", 0);
    assert_eq!(
        probe_bars(&bed),
        [0x1000, 0, 0, 0, 0x1000, 0].map(|size| (0, size))
    );
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

/// A byte that no capability has is no place for a VMM to leave something to the next.
#[test]
fn configuration_space_between_capabilities_is_read_only() {
    const BETWEEN: u64 = 0xa0;
    let bed = Bed::new("", 1);
    for function in [bed.pf(), bed.vf(0)] {
        bed.write32(function.register(BETWEEN), u32::MAX);
        assert_eq!(bed.read32(function.register(BETWEEN)), 0);
    }
}
