// SPDX-License-Identifier: GPL-2.0

//! A machine with the reference device behind a root port, with enabled VFs and an allocator of
//! memory.

use std::{cell::Cell, ops::Deref};

use crate::{
    hw,
    pci::{self, Function},
    qtest::Qtest,
};

const MEMORY_WINDOW: u32 = 0xc000_0000;
const PREFETCHABLE_WINDOW: u32 = 0xc100_0000;
const WINDOW_SIZE: u32 = 0x0100_0000;

const PF_REGISTERS: u64 = MEMORY_WINDOW as u64;
const PF_MSIX: u64 = PF_REGISTERS + 0x20_0000;
const VF_REGISTERS: u64 = PREFETCHABLE_WINDOW as u64;
const VF_MSIX: u64 = VF_REGISTERS + 0x10_0000;

const SRIOV_CONTROL: u64 = 0x08;
const SRIOV_CONTROL_ENABLE: u16 = 0x0019;
const SRIOV_NUMBER: u64 = 0x10;
const SRIOV_OFFSET: u64 = 0x14;
const SRIOV_STRIDE: u64 = 0x16;
const SRIOV_BARS: u64 = 0x24;

const EXPRESS_DEVICE_CONTROL: u64 = 0x08;
const EXPRESS_DEVICE_CONTROL_FLR: u16 = 0x8000;

/// A word that resets a function if it is written to its reset register.
pub const RESET_WORD: u64 = EXPRESS_DEVICE_CONTROL_FLR as u64;

const BARS: u64 = 0x10;
const MSIX_CONTROL: u64 = 0x02;
const MSIX_CONTROL_ENABLE: u16 = 0x8000;

/// The first free byte of memory.
const HEAP: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;

/// An MSI-X vector whose message is a write to memory.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    table: u64,
    message: u64,
}

/// The machine.
pub struct Bed {
    qtest: Qtest,
    pf: Function,
    sriov: u64,
    heap: Cell<u64>,
}

impl Deref for Bed {
    type Target = Qtest;

    fn deref(&self) -> &Qtest {
        &self.qtest
    }
}

impl Bed {
    /// Creates a device with these `properties` and `vfs` enabled VFs.
    pub fn new(properties: &str, vfs: u16) -> Self {
        let device = format!("vifa-pf,bus=port1,{properties}");
        let qtest = Qtest::start(&[
            "-device",
            "pcie-root-port,id=port1,addr=1",
            "-device",
            device.trim_end_matches(','),
        ]);
        let port = Function::new(0, 1 << 3);
        pci::set_up(
            &qtest,
            port,
            MEMORY_WINDOW,
            PREFETCHABLE_WINDOW,
            WINDOW_SIZE,
        );
        let pf = Function::new(1, 0);
        let sriov = pf.extended_capability(&qtest, pci::EXTENDED_SRIOV);
        let bed = Self {
            qtest,
            pf,
            sriov,
            heap: Cell::new(HEAP),
        };
        bed.set_up_pf();
        bed.enable_vfs(vfs);
        bed
    }

    /// Sets the BARs of the PF and the VFs, as after a reset of the PF.
    pub fn set_up_pf(&self) {
        let sriov_bars = self.sriov + SRIOV_BARS;
        for (register, address) in [
            (BARS, PF_REGISTERS),
            (BARS + 8, PF_MSIX),
            (sriov_bars, VF_REGISTERS),
            (sriov_bars + 16, VF_MSIX),
        ] {
            self.write32(self.pf.register(register), address as u32);
        }
        self.write16(self.pf.register(pci::COMMAND), pci::COMMAND_MEMORY_MASTER);
    }

    /// Enables `vfs` VFs and their DMA.
    pub fn enable_vfs(&self, vfs: u16) {
        self.write16(self.pf.register(self.sriov + SRIOV_NUMBER), vfs);
        self.write16(
            self.pf.register(self.sriov + SRIOV_CONTROL),
            SRIOV_CONTROL_ENABLE,
        );
        for n in 0..vfs {
            self.enable_vf(n);
        }
    }

    /// Enables DMA of VF `n`, as after its reset.
    pub fn enable_vf(&self, n: u16) {
        self.write16(
            self.vf(n).register(pci::COMMAND),
            pci::COMMAND_MEMORY_MASTER,
        );
    }

    /// Disables all VFs.
    pub fn disable_vfs(&self) {
        self.write16(self.pf.register(self.sriov + SRIOV_CONTROL), 0);
    }

    /// Returns the PF in configuration space.
    pub fn pf(&self) -> Function {
        self.pf
    }

    /// Returns VF `n` in configuration space.
    pub fn vf(&self, n: u16) -> Function {
        let offset = self.read16(self.pf.register(self.sriov + SRIOV_OFFSET));
        let stride = self.read16(self.pf.register(self.sriov + SRIOV_STRIDE));
        Function::new(1, (offset + n * stride) as u8)
    }

    /// Returns the physical address at which `RESET_WORD` resets a function.
    pub fn reset_register(&self, function: Function) -> u64 {
        let express = function.capability(self, pci::CAPABILITY_EXPRESS);
        function.register(express + EXPRESS_DEVICE_CONTROL)
    }

    /// Resets one function.
    pub fn reset(&self, function: Function) {
        self.write16(self.reset_register(function), EXPRESS_DEVICE_CONTROL_FLR);
    }

    /// Reads a 32-bit field of the VIFA capability.
    pub fn dvsec(&self, field: u32) -> u32 {
        let offset = self.pf.extended_capability(self, pci::EXTENDED_DVSEC);
        self.read32(self.pf.register(offset + u64::from(field)))
    }

    /// Returns the address of a register of frame `frame`.
    pub fn frame_register(&self, frame: u32, register: u32) -> u64 {
        PF_REGISTERS + u64::from(frame) * u64::from(hw::VIFA_HW_FRAME_SIZE) + u64::from(register)
    }

    /// Returns the address of a register of VF `n` that its guest sees.
    pub fn vf_register(&self, n: u16, register: u32) -> u64 {
        VF_REGISTERS + u64::from(n) * u64::from(hw::VIFA_REFERENCE_BAR_SIZE) + u64::from(register)
    }

    /// Allocates `length` bytes of zeroed memory at a page boundary.
    pub fn allocate(&self, length: u64) -> u64 {
        let address = self.heap.get();
        self.heap.set(address + length.next_multiple_of(PAGE));
        address
    }

    /// Allocates memory that contains `bytes`.
    pub fn place(&self, bytes: &[u8]) -> u64 {
        let address = self.allocate(bytes.len() as u64);
        self.write(address, bytes);
        address
    }

    fn vector(&self, function: Function, table: u64, index: u64) -> Vector {
        let msix = function.capability(self, pci::CAPABILITY_MSIX);
        self.write16(function.register(msix + MSIX_CONTROL), MSIX_CONTROL_ENABLE);
        let vector = Vector {
            table: table + 16 * index,
            message: self.allocate(4),
        };
        self.write32(vector.table, vector.message as u32);
        self.write32(vector.table + 4, 0);
        self.write32(vector.table + 8, 1);
        self.mask(vector, false);
        vector
    }

    /// Sets up a vector of the PF.
    pub fn pf_vector(&self, index: u16) -> Vector {
        self.vector(self.pf, PF_MSIX, u64::from(index))
    }

    /// Sets up the vector of VF `n`.
    pub fn vf_vector(&self, n: u16) -> Vector {
        let table = VF_MSIX + u64::from(n) * PAGE;
        self.vector(self.vf(n), table, 0)
    }

    /// Masks or unmasks a vector.
    pub fn mask(&self, vector: Vector, masked: bool) {
        self.write32(vector.table + 12, masked.into());
    }

    /// Returns whether the vector was signalled since the last call.
    pub fn signalled(&self, vector: Vector) -> bool {
        let signalled = self.read32(vector.message) != 0;
        self.write32(vector.message, 0);
        signalled
    }
}
