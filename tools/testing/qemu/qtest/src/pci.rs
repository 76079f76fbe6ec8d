// SPDX-License-Identifier: GPL-2.0

//! The setup that firmware and operating system perform: configuration space, bus numbers, BARs.

use crate::qtest::Qtest;

/// The address of the machine's configuration space.
const ECAM: u64 = 0xb000_0000;

/// The location of a function in configuration space.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    config: u64,
}

pub const COMMAND: u64 = 0x04;
pub const COMMAND_MEMORY_MASTER: u16 = 0x6;
const BRIDGE_BUS_NUMBERS: u64 = 0x18;
const BRIDGE_MEMORY: u64 = 0x20;
const BRIDGE_PREFETCHABLE: u64 = 0x24;
const CAPABILITIES: u64 = 0x34;
const EXTENDED_CAPABILITIES: u64 = 0x100;

pub const CAPABILITY_EXPRESS: u8 = 0x10;
pub const CAPABILITY_MSIX: u8 = 0x11;
pub const EXTENDED_ERRORS: u16 = 0x0001;
pub const EXTENDED_SRIOV: u16 = 0x0010;
pub const EXTENDED_DVSEC: u16 = 0x0023;

impl Function {
    /// Returns the function `devfn` of `bus`.
    pub fn new(bus: u8, devfn: u8) -> Self {
        Self {
            config: ECAM + (u64::from(bus) << 20) + (u64::from(devfn) << 12),
        }
    }

    /// Returns the address of the register at `offset` of configuration space.
    pub fn register(&self, offset: u64) -> u64 {
        self.config + offset
    }

    /// Returns the offset of a capability.
    pub fn capability(&self, qtest: &Qtest, id: u8) -> u64 {
        let mut offset = u64::from(qtest.read16(self.register(CAPABILITIES)) & 0xff);
        while offset != 0 {
            let header = qtest.read16(self.register(offset));
            if header as u8 == id {
                return offset;
            }
            offset = u64::from(header >> 8);
        }
        panic!("no capability {id:#x}");
    }

    /// Returns the offset of an extended capability.
    pub fn extended_capability(&self, qtest: &Qtest, id: u16) -> u64 {
        let mut offset = EXTENDED_CAPABILITIES;
        while offset != 0 {
            let header = qtest.read32(self.register(offset));
            if header as u16 == id {
                return offset;
            }
            offset = u64::from(header >> 20);
        }
        panic!("no extended capability {id:#x}");
    }
}

/// Enables configuration space, and assigns bus 1 and the following memory windows to the root port
/// at `port`. The windows contain the BARs of the devices behind it.
pub fn set_up(qtest: &Qtest, port: Function, memory: u32, prefetchable: u32, size: u32) {
    // PCIEXBAR of the host bridge, through the legacy mechanism: 256 buses, enabled.
    qtest.out32(0xcf8, 0x8000_0060);
    qtest.out32(0xcfc, ECAM as u32 | 1);

    qtest.write32(port.register(BRIDGE_BUS_NUMBERS), 0x0001_0100);
    for (register, base) in [(BRIDGE_MEMORY, memory), (BRIDGE_PREFETCHABLE, prefetchable)] {
        let limit = base + (size - 1);
        qtest.write32(
            port.register(register),
            (base >> 16) & 0xfff0 | limit & 0xfff0_0000,
        );
    }
    qtest.write16(port.register(COMMAND), COMMAND_MEMORY_MASTER);
}
