// SPDX-License-Identifier: GPL-2.0

//! Processes that have a VFIO device open.
//!
//! A VFIO device has one user at a time, usually a virtual machine monitor. The kernel reports the
//! device of a descriptor in `/proc/PID/fdinfo/FD`.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::fd::RawFd,
    path::{Component, Path},
};

use serde::Serialize;
use vifa_vfio::pci::Address;

use crate::host::Host;

/// A process that has a device open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Holder {
    /// Process id.
    pub(crate) pid: u32,
    /// Command name.
    pub(crate) command: String,
    /// The process's descriptor of the device.
    #[serde(skip)]
    pub(crate) descriptor: RawFd,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.command, self.pid)
    }
}

impl Holder {
    /// Returns the process that has the device open, if the user may see it; never this process.
    pub(crate) fn of(device: Address, host: &Host) -> Option<Self> {
        Self::all(host).remove(&device)
    }

    /// Returns the open devices that the user may see, each with its process. If several processes
    /// have a device open, the lowest process id wins.
    pub(crate) fn all(host: &Host) -> BTreeMap<Address, Self> {
        let mut holders = BTreeMap::new();
        let Ok(entries) = fs::read_dir(host.processes()) else {
            return holders;
        };
        let mut pids: Vec<u32> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|&pid| pid != std::process::id())
            .collect();

        pids.sort_unstable();
        for pid in pids {
            let directory = host.processes().join(pid.to_string());

            for (device, descriptor) in devices(&directory) {
                holders.entry(device).or_insert_with(|| Self {
                    pid,
                    command: fs::read_to_string(directory.join("comm"))
                        .map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned()),
                    descriptor,
                });
            }
        }
        holders
    }
}

/// Returns the VFIO devices that the process in `directory` has open, with their descriptors.
fn devices(directory: &Path) -> Vec<(Address, RawFd)> {
    let Ok(descriptors) = fs::read_dir(directory.join("fd")) else {
        return Vec::new();
    };
    let device = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let target = target.to_str()?;

        // Opened through the legacy group, or through the device's own file.
        if target != "anon_inode:[vfio-device]" && !target.contains("/vfio/devices/") {
            return None;
        }
        let name = entry.file_name();
        let info = fs::read_to_string(directory.join("fdinfo").join(&name)).ok()?;

        Some((device_of(&info)?, name.to_str()?.parse().ok()?))
    };

    descriptors
        .filter_map(|entry| device(entry.ok()?))
        .collect()
}

/// Returns the device named in the fdinfo of a descriptor.
fn device_of(info: &str) -> Option<Address> {
    let path = info
        .lines()
        .find_map(|line| line.strip_prefix("vfio-device-syspath:"))?;
    // .../0000:01:00.1/vfio-dev/vfio0
    let mut parts = Path::new(path.trim())
        .components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });

    parts.find_map(|name| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_names_the_device_and_not_the_bridge_above() {
        let info = "pos:\t0\nflags:\t02\nvfio-device-syspath: \
            /sys/devices/pci0000:00/0000:00:04.0/0000:01:00.1/vfio-dev/vfio0\n";

        assert_eq!(device_of(info), "0000:01:00.1".parse().ok());
    }

    #[test]
    fn other_descriptors_name_no_device() {
        assert_eq!(device_of("pos:\t0\nflags:\t02\n"), None);
        assert_eq!(device_of("vfio-device-syspath: \n"), None);
    }
}
