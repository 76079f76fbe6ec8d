// SPDX-License-Identifier: GPL-2.0

//! A VFIO device that another process has open, saved behind that process's back.
//!
//! It is brought to STOP_COPY, read to the end and left in STOP. From there whoever has it brings it
//! to where it is to go, also one who believes that it is in RESUMING.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{bail, ensure, Context, Result};

use crate::sriov::Function;

/// `VFIO_DEVICE_FEATURE`, and what is asked of it here.
const DEVICE_FEATURE: libc::c_ulong = 0x3b75;
const SET_MIGRATION_STATE: u32 = (1 << 17) | 2;
const STATE_STOP: u32 = 1;
const STATE_STOP_COPY: u32 = 3;

/// `struct vfio_device_feature` with `struct vfio_device_feature_mig_state`.
#[repr(C)]
struct MigrationState {
    argsz: u32,
    flags: u32,
    device_state: u32,
    data_fd: i32,
}

/// The open device.
pub struct Device(OwnedFd);

impl Device {
    /// The device behind `function`, as `process` has it open.
    pub fn of(process: u32, function: &Function) -> Result<Self> {
        let address = format!("/{function}/");
        for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A descriptor may be closed in the meantime.
            let text = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}"));
            let is_it = |line: &str| {
                line.strip_prefix("vfio-device-syspath:")
                    .is_some_and(|path| format!("{}/", path.trim()).contains(&address))
            };
            if text.is_ok_and(|text| text.lines().any(is_it)) {
                return Self::duplicate(process, number)
                    .with_context(|| format!("sharing {function} with process {process}"));
            }
        }
        bail!("process {process} does not have {function} open")
    }

    fn duplicate(process: u32, number: RawFd) -> io::Result<Self> {
        let own = |descriptor: libc::c_long| match descriptor {
            0.. => {
                // SAFETY: The kernel has just made this descriptor, and nobody else knows of it.
                Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
            }
            _ => Err(io::Error::last_os_error()),
        };
        // SAFETY: The system call takes numbers alone.
        let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
        let process = process.as_raw_fd();
        // SAFETY: As above; `process` is open.
        own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, number, 0) }).map(Self)
    }

    /// Its whole stream. The device is in STOP then.
    pub fn save(&self) -> Result<Vec<u8>> {
        self.set_state(STATE_STOP)?;
        let mut data = self
            .set_state(STATE_STOP_COPY)?
            .context("STOP_COPY came without a file to read")?;
        let mut stream = Vec::new();
        data.read_to_end(&mut stream).context("reading the state")?;
        ensure!(!stream.is_empty(), "the state is empty");
        self.set_state(STATE_STOP)?;
        Ok(stream)
    }

    fn set_state(&self, state: u32) -> Result<Option<File>> {
        let mut argument = MigrationState {
            argsz: size_of::<MigrationState>() as u32,
            flags: SET_MIGRATION_STATE,
            device_state: state,
            data_fd: -1,
        };
        // SAFETY: The argument is what this request takes, and lives during the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), DEVICE_FEATURE, &mut argument) };
        if result != 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("changing the migration state to {state}"));
        }
        Ok((argument.data_fd >= 0).then(|| {
            // SAFETY: The kernel has just made this descriptor, and nobody else knows of it.
            unsafe { File::from_raw_fd(argument.data_fd) }
        }))
    }
}
