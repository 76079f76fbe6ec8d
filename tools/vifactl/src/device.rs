// SPDX-License-Identifier: GPL-2.0

//! A VFIO device, accessed through its file: migration state and migration region.
//!
//! VFIO gives a device to one user at a time. [`Device::open`] opens the device itself only if no
//! process has it open ([`Hold::Own`]; opening resets it). Otherwise it shares the open file of
//! that process ([`Hold::Process`]), and operates on that process's device.

mod holder;
mod open;

use std::{fs::File, io, os::unix::fs::FileExt};

use anyhow::{bail, Context, Result};
use vfio_bindings::bindings::vfio::{
    self, vfio_device_feature_mig_data_size, vfio_device_feature_mig_state, vfio_device_info,
};
use vifa_vfio::{
    ioctl, ioctl_number, pci::Address, request, set_migration_state, Feature, Operation, RegionInfo,
};

use self::open::Opened;
use crate::{
    exit::Exit, headers, host::Host, layer::state::DeviceState, migratable::Migratable,
    state::State,
};

pub(crate) use holder::Holder;

/// Maximum number of bytes read from a migration region, independent of its reported size.
pub(crate) const REGION_MAX: usize = 0x1_0000;

/// The driver of virtual functions.
pub(crate) const VF_DRIVER: &str = "vifa_vfio_pci";

/// The driver of physical functions.
pub(crate) const PF_DRIVER: &str = "vifa_vfio_pci_pf";

/// The user of an open device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// This command only. The device is reset when it is opened and when it is closed.
    Own,
    /// A process whose open file this command shares.
    Process(Holder),
}

/// An open device.
pub(crate) struct Device {
    address: Address,
    hold: Hold,
    opened: Opened,
}

/// The session of a state that transfers data: a descriptor from which the stream is read or to
/// which it is written.
#[derive(Debug)]
pub(crate) struct Session(pub(crate) File);

impl Device {
    /// Opens the virtual function at `address`, or shares it with the process that has it open.
    ///
    /// # Errors
    ///
    /// The function does not exist, is not bound to [`VF_DRIVER`], or cannot be opened.
    pub(crate) fn open(address: Address, host: &Host) -> Result<Self> {
        let function = host.function(address)?;

        if function.physical_function().is_none() {
            bail!("{address} is not a virtual function");
        }
        match function.driver() {
            Some(driver) if driver == VF_DRIVER => {}
            Some(driver) => bail!("{address} is bound to the driver {driver}, not to {VF_DRIVER}"),
            None => bail!("{address} is bound to no driver (vifactl bind {address})"),
        }
        if let Some(holder) = Holder::of(address, host) {
            return Self::share(address, holder);
        }
        Ok(Self {
            address,
            hold: Hold::Own,
            opened: open::open(&function, host)?,
        })
    }

    /// Shares the virtual function at `address` with `holder`.
    ///
    /// # Errors
    ///
    /// The process has exited, or the user may not trace it.
    pub(crate) fn share(address: Address, holder: Holder) -> Result<Self> {
        Ok(Self {
            address,
            opened: open::duplicate(address, &holder)?,
            hold: Hold::Process(holder),
        })
    }

    /// Returns the function's address.
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// Returns the user of the device.
    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    fn feature<T>(&self, mut feature: Feature<T>) -> io::Result<T> {
        ioctl(
            &self.opened.device,
            &request::device_feature(),
            &mut feature,
        )?;
        Ok(feature.data)
    }

    /// Returns the migration state.
    ///
    /// # Errors
    ///
    /// Errors of the kernel, or an unknown state.
    pub(crate) fn state(&self) -> Result<DeviceState> {
        let get = Feature::new(
            Operation::Get,
            vfio::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
            vfio_device_feature_mig_state::default(),
        );
        let number = match self.feature(get) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                let reason = Migratable::last_error(self);

                bail!(
                    "{}: {}",
                    self.address,
                    reason.as_deref().unwrap_or("migration is not supported")
                );
            }
            state => {
                state
                    .with_context(|| {
                        format!("{}: failed to read the migration state", self.address)
                    })?
                    .device_state
            }
        };

        match DeviceState::try_from(number) {
            Ok(state) => Ok(state),
            Err(_) => bail!("{}: unknown migration state {number}", self.address),
        }
    }

    /// Changes the migration state to `state`; returns the session, if the new state begins one.
    ///
    /// # Errors
    ///
    /// Errors of the kernel. The device may remain in an intermediate state.
    pub(crate) fn set_state(&self, state: DeviceState) -> Result<Option<Session>> {
        let session = set_migration_state(&self.opened.device, state.into())
            .with_context(|| format!("{}: failed to enter {}", self.address, State(state)))?;

        Ok(session.map(|session| Session(session.into())))
    }

    /// Returns the estimated maximum size of the state, in bytes.
    ///
    /// # Errors
    ///
    /// Errors of the kernel.
    pub(crate) fn data_size(&self) -> Result<u64> {
        let get = Feature::new(
            Operation::Get,
            vfio::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
            vfio_device_feature_mig_data_size::default(),
        );

        Ok(self
            .feature(get)
            .with_context(|| format!("{}: failed to read the size of the state", self.address))?
            .stop_copy_length)
    }

    /// Resets the device, which ends any session and error.
    ///
    /// # Errors
    ///
    /// Errors of the kernel.
    pub(crate) fn reset(&self) -> Result<()> {
        ioctl_number(&self.opened.device, &request::DEVICE_RESET, 0)
            .with_context(|| format!("{}: failed to reset", self.address))?;
        Ok(())
    }

    /// Returns a consistent copy of the migration region.
    ///
    /// # Errors
    ///
    /// The device has no migration region, or it cannot be read.
    pub(crate) fn region(&self) -> Result<Vec<u8>> {
        let mut info = vfio_device_info {
            argsz: size_of::<vfio_device_info>() as u32,
            ..Default::default()
        };

        ioctl(&self.opened.device, &request::DEVICE_GET_INFO, &mut info)
            .with_context(|| format!("{}: VFIO_DEVICE_GET_INFO", self.address))?;
        for index in vfio::VFIO_PCI_NUM_REGIONS..info.num_regions {
            let mut region = RegionInfo::of(index);

            ioctl(
                &self.opened.device,
                &request::DEVICE_GET_REGION_CAPABILITIES,
                &mut region,
            )
            .with_context(|| format!("{}: VFIO_DEVICE_GET_REGION_INFO", self.address))?;
            if region.kind() == Some((REGION_TYPE, headers::VIFA_REGION_SUBTYPE)) {
                let (offset, size) = region.place();
                let size = usize::try_from(size).map_or(REGION_MAX, |size| size.min(REGION_MAX));
                let mut bytes = vec![0; size];

                self.opened
                    .device
                    .read_exact_at(&mut bytes, offset)
                    .with_context(|| {
                        format!("{}: failed to read the migration region", self.address)
                    })?;
                return Ok(bytes);
            }
        }
        Err(Exit::Failed
            .because(format!("{} has no VIFA migration region", self.address))
            .into())
    }
}

/// The type of the migration region.
const REGION_TYPE: u32 = vfio::VFIO_REGION_TYPE_PCI_VENDOR_TYPE | headers::VIFA_REGION_VENDOR;
