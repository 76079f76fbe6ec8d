// SPDX-License-Identifier: GPL-2.0

//! Interrupts of PCI devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use vfio_bindings::bindings::vfio;

use crate::Argument;

/// An interrupt of a PCI device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Interrupt {
    Intx = vfio::VFIO_PCI_INTX_IRQ_INDEX,
    Msi = vfio::VFIO_PCI_MSI_IRQ_INDEX,
    Msix = vfio::VFIO_PCI_MSIX_IRQ_INDEX,
    Error = vfio::VFIO_PCI_ERR_IRQ_INDEX,
    /// The kernel requests the release of the device.
    Request = vfio::VFIO_PCI_REQ_IRQ_INDEX,
}

/// The argument of `VFIO_DEVICE_SET_IRQS` with one descriptor.
#[repr(C)]
pub struct InterruptSet {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    descriptor: i32,
}

impl Argument for InterruptSet {
    fn stated_size(&self) -> usize {
        self.argsz as usize
    }
}

impl InterruptSet {
    /// Returns the argument that makes the first vector of `interrupt` signal `event`.
    pub fn signal(interrupt: Interrupt, event: BorrowedFd<'_>) -> Self {
        Self {
            argsz: size_of::<Self>() as u32,
            flags: vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER,
            index: interrupt as u32,
            start: 0,
            count: 1,
            descriptor: event.as_raw_fd(),
        }
    }
}
