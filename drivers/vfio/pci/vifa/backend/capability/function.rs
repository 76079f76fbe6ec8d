// SPDX-License-Identifier: GPL-2.0

//! A virtual function of a device with the VIFA capability: its identity, and the commands of its
//! two frames.

use super::{
    buffer::Buffer,
    completion::TimedCompletion,
    fault::Fault,
    mailbox::{
        Client,
        Command,
        Failure,
        Mailbox,
        Pending,
        Results, //
    },
    physical,
    register_file::RegisterFile, //
};
use crate::{
    bindings::*,
    layer::{
        identity::Identity,
        interface::{
            self,
            Interfaces, //
        },
    },
    seam::Shown,
    vfio::{
        pci::{
            override_only_id,
            Address, //
        },
        sriov::Virtual, //
    }, //
};
use core::ops::Range;
use kernel::{
    device::Core,
    pci,
    prelude::*,
    sync::Arc,
    transmute::FromBytes, //
};

/// The id of the QEMU reference device (include/linux/vifa_reference.h).
pub(crate) const REFERENCE: pci::DeviceId =
    override_only_id(VIFA_REFERENCE_VENDOR, VIFA_REFERENCE_VF_DEVICE);

/// A virtual function.
pub(crate) struct Function {
    registers: Arc<RegisterFile>,
    /// The identity, which has been validated.
    pub(super) identity: Identity,
    pub(super) interfaces: Interfaces,
    /// The mailbox of the control frame.
    pub(super) control: Arc<Mailbox>,
    /// The mailbox of the data frame.
    pub(super) data: Arc<Mailbox>,
}

impl Function {
    /// Initialises the mailboxes of a virtual function and identifies it.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is invalid, or the error of a command. The function logs the reason.
    pub(super) fn new(
        device: &pci::Device<Core<'_>>,
        place: &Virtual<'_, physical::Driver>,
    ) -> Result<Arc<Self>> {
        let registers = place.physical.registers();
        let Some(signals) = registers.signals(place.index) else {
            dev_err!(
                device,
                "invalid VF index: got {}, expected less than {}\n",
                place.index,
                registers.virtual_functions()
            );
            return Err(ENODEV);
        };
        let (frame, index) = (2 * usize::from(place.index), u32::from(place.index));
        let mailbox = |frame, kind, signal: &Arc<TimedCompletion>| {
            Mailbox::new(
                registers,
                frame,
                kind | index,
                place.physical.vector(place.index),
                signal.clone(),
                device.into(),
            )
            .and_then(|mailbox| Arc::pin_init(mailbox, GFP_KERNEL))
        };
        // `VIFA_HW_FRAME_CONTROL()` and `VIFA_HW_FRAME_DATA()`.
        let control = mailbox(1 + frame, VIFA_MAILBOX_ID_CONTROL, &signals.control)?;
        let data = mailbox(2 + frame, VIFA_MAILBOX_ID_DATA, &signals.data)?;

        let identity = identify(registers, &control).inspect_err(|fault| {
            dev_err!(device, "failed to identify: {}\n", Shown(fault));
        })?;
        identity.validate().map_err(|violation| {
            dev_err!(device, "invalid identity: {}\n", Shown(violation));
            ENODEV
        })?;
        check_identity(device, &identity)?;
        let Address { domain, bus, devfn } = Address::of(device);
        let function = Self {
            registers: registers.clone(),
            identity,
            interfaces: Interfaces::of(interface::Function { domain, bus, devfn }),
            control,
            data,
        };
        Ok(Arc::new(function, GFP_KERNEL)?)
    }

    /// Executes a command of the control frame.
    pub(super) fn control(
        &self,
        command: Command,
        argument: u64,
        buffer: Option<(&mut Buffer, Range<usize>)>,
    ) -> Result<Results, Fault> {
        let result = self.control.execute(command, [argument, 0], buffer);
        result.map_err(|failure| Fault::Command(command, failure))
    }

    /// Executes a command of the data frame.
    pub(super) fn data(
        &self,
        command: Command,
        arguments: [u64; 2],
        buffer: Option<(&mut Buffer, Range<usize>)>,
    ) -> Result<Results, Fault> {
        let result = self.attempt_data(command, arguments, buffer);
        result.map_err(|failure| Fault::Command(command, failure))
    }

    /// Like [`Self::data`], but returns the failure without the command.
    pub(super) fn attempt_data(
        &self,
        command: Command,
        arguments: [u64; 2],
        buffer: Option<(&mut Buffer, Range<usize>)>,
    ) -> Result<Results, Failure> {
        self.data.execute(command, arguments, buffer)
    }

    /// Starts a command of a transfer. See [`Mailbox::begin`].
    pub(super) fn begin_data(
        &self,
        command: Command,
        arguments: [u64; 2],
        buffer: Buffer,
        range: Range<usize>,
    ) -> Result<Pending, Fault> {
        let client = Client::Transfer;
        let result = Mailbox::begin(&self.data, client, command, arguments, buffer, range);
        result.map_err(|failure| Fault::Command(command, failure))
    }

    /// Starts a command of the log. See [`Mailbox::begin`].
    pub(super) fn begin_log(
        &self,
        command: Command,
        arguments: [u64; 2],
        buffer: Buffer,
        range: Range<usize>,
    ) -> Result<Pending, Failure> {
        let client = Client::Log;
        Mailbox::begin(&self.data, client, command, arguments, buffer, range)
    }

    /// Allocates a buffer for commands. See [`Buffer::new`].
    pub(super) fn buffer(&self, size: usize, unit: usize) -> Result<Buffer> {
        Buffer::new(&self.registers, size, unit)
    }

    /// Returns the maximum number of ranges of a log, or `None` if there is no limit.
    pub(super) fn log_ranges(&self) -> Option<usize> {
        self.registers.log_ranges()
    }
}

/// Reads the identity of a device.
fn identify(registers: &Arc<RegisterFile>, control: &Mailbox) -> Result<Identity, Fault> {
    const SIZE: usize = size_of::<vifa_hw_identity>();

    let mut buffer = Buffer::new(registers, SIZE, SIZE)?;
    let command = Command::IDENTIFY;
    control
        .execute(command, [0; 2], Some((&mut buffer, 0..SIZE)))
        .map_err(|failure| Fault::Command(command, failure))?;
    let raw = vifa_hw_identity::from_bytes_copy(buffer.bytes(SIZE)).ok_or(EIO)?;
    Ok(Identity {
        vendor: u16::from_le(raw.vendor),
        device: u16::from_le(raw.device),
        subsystem_vendor: u16::from_le(raw.subsystem_vendor),
        subsystem: u16::from_le(raw.subsystem),
        revision_id: raw.revision_id,
        vifa_revision: u16::from_le(raw.vifa_revision),
        features: u32::from_le(raw.features),
        bar_size: raw.bar_size.map(u64::from_le),
        interrupt_vectors: u16::from_le(raw.interrupt_vectors),
        queues: u16::from_le(raw.queues),
        granule: u32::from_le(raw.granule),
        local_memory: u64::from_le(raw.local_memory),
        control_plane_max: u32::from_le(raw.control_plane_max),
        record_version: raw.record_version.map(u16::from_le),
    })
}

/// Checks the identity that a device reports against the PCI core's information.
fn check_identity(device: &pci::Device<Core<'_>>, identity: &Identity) -> Result {
    let check = |field: &str, reported: u64, expected: u64| {
        if reported == expected {
            return Ok(());
        }
        dev_err!(
            device,
            "invalid identity: {}: got {:#x}, expected {:#x}\n",
            field,
            reported,
            expected
        );
        Err(ENODEV)
    };
    let vendor = device.vendor_id().as_raw();
    check("vendor", identity.vendor.into(), vendor.into())?;
    check("device", identity.device.into(), device.device_id().into())?;
    for (bar, size) in (0..).zip(identity.bar_size) {
        check("bar_size", size, device.resource_len(bar)?)?;
    }
    Ok(())
}
