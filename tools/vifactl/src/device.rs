// SPDX-License-Identifier: GPL-2.0

//! A VFIO device, reached through its file: its migration state, and its migration region.
//!
//! VFIO gives a device to one user at a time. [`Device::open`] therefore opens the device itself
//! only where nobody has it ([`Hold::Own`]; opening resets it), and else shares the open file of the
//! process that does ([`Hold::Process`]): what is done then is done to that process's device.

mod holder;
mod open;

use std::{fs::File, io, os::unix::fs::FileExt};

use anyhow::{bail, Context, Result};
use vfio_bindings::bindings::vfio::{
    self, vfio_device_feature_mig_data_size, vfio_device_feature_mig_state, vfio_device_info,
};
use vifa_vfio::{adopt, ioctl, ioctl_number, request, Feature, Operation, RegionInfo};

use self::open::Opened;
use crate::{
    exit::Exit,
    function::{Address, Function},
    headers,
    host::Host,
    layer::state::DeviceState,
    migratable::Migratable,
};

pub(crate) use holder::Holder;

/// Most bytes that are read of a migration region, whatever it says of its size.
pub(crate) const REGION_MAX: usize = 0x1_0000;

/// The driver of virtual functions.
pub(crate) const VF_DRIVER: &str = "vifa_vfio_pci";

/// The driver of physical functions.
pub(crate) const PF_DRIVER: &str = "vifa_vfio_pci_pf";

/// Who has a device open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// This command alone; the device was reset when it was opened, and is again when it is closed.
    Own,
    /// A process, whose open file this command shares.
    Process(Holder),
}

/// An open device.
pub(crate) struct Device {
    address: Address,
    hold: Hold,
    opened: Opened,
}

/// The session of a state that moves data: a descriptor to read the stream from, or to write it to.
#[derive(Debug)]
pub(crate) struct Session(pub(crate) File);

impl Device {
    /// Opens the virtual function at `address`, or shares it with the process that holds it.
    ///
    /// # Errors
    ///
    /// There is no such function, it is not bound to [`VF_DRIVER`], or it cannot be opened.
    pub(crate) fn open(address: Address, host: &Host) -> Result<Self> {
        let function = Function::find(address, host)?;

        if function.physical_function().is_none() {
            bail!("{address} is no virtual function");
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
    /// The holder has gone, or the user may not trace it.
    pub(crate) fn share(address: Address, holder: Holder) -> Result<Self> {
        Ok(Self {
            address,
            opened: open::duplicate(address, &holder)?,
            hold: Hold::Process(holder),
        })
    }

    /// The function's address.
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// Who has it open.
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

    /// Its migration state.
    ///
    /// # Errors
    ///
    /// Those of the kernel, or the state is one that no header knows.
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
                        format!("{}: its migration state cannot be read", self.address)
                    })?
                    .device_state
            }
        };

        match DeviceState::try_from(number) {
            Ok(state) => Ok(state),
            Err(_) => bail!(
                "{}: is in the unknown migration state {number}",
                self.address
            ),
        }
    }

    /// Brings it to `state`; returns the session that this begins, if it begins one.
    ///
    /// # Errors
    ///
    /// Those of the kernel: the device may have stopped at a state on the way.
    pub(crate) fn set_state(&self, state: DeviceState) -> Result<Option<Session>> {
        let set = Feature::new(
            Operation::Set,
            vfio::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
            vfio_device_feature_mig_state {
                device_state: state.into(),
                data_fd: -1,
            },
        );
        let data_fd = self
            .feature(set)
            .with_context(|| format!("{}: cannot be brought to {state:?}", self.address))?
            .data_fd;

        if data_fd < 0 {
            return Ok(None);
        }
        // SAFETY: The kernel has just made the descriptor for this call.
        let session = unsafe { adopt(data_fd) };

        Ok(Some(Session(session.into())))
    }

    /// How many bytes its state takes, at the most, as it estimates.
    ///
    /// # Errors
    ///
    /// Those of the kernel.
    pub(crate) fn data_size(&self) -> Result<u64> {
        let get = Feature::new(
            Operation::Get,
            vfio::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
            vfio_device_feature_mig_data_size::default(),
        );

        Ok(self
            .feature(get)
            .with_context(|| format!("{}: the size of its state cannot be read", self.address))?
            .stop_copy_length)
    }

    /// Resets it, which ends any session and error.
    ///
    /// # Errors
    ///
    /// Those of the kernel.
    pub(crate) fn reset(&self) -> Result<()> {
        ioctl_number(&self.opened.device, &request::DEVICE_RESET, 0)
            .with_context(|| format!("{}: cannot be reset", self.address))?;
        Ok(())
    }

    /// The bytes of its migration region, as they are at one moment.
    ///
    /// # Errors
    ///
    /// It has none, or it cannot be read.
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
                    .with_context(|| format!("{}: its migration region", self.address))?;
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
