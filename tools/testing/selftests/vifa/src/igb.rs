// SPDX-License-Identifier: GPL-2.0

//! A network adapter with VFs, in addition to the reference device: an 82576 as modelled by QEMU,
//! with its physical function bound to the kernel's igb.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context, Result};
use vfio_bindings::bindings::vfio::VFIO_PCI_BAR0_REGION_INDEX as BAR;
use vifa_vfio::{
    pci::{Bus, Function},
    Mapping,
};

use crate::{bed::VF_DRIVER, vfio::Device};

const VENDOR: u32 = 0x8086;
const PHYSICAL_82576: u32 = 0x10c9;

/// The id of an 82576's VFs.
pub const VIRTUAL_82576: u16 = 0x10ca;
/// The id of an I350's VFs.
pub const VIRTUAL_I350: u16 = 0x1520;

/// `STATUS`, a register without side effects of reads.
pub const STATUS: u64 = 0x0008;
/// `VTEITR(0)`, which keeps written values except its reserved low bits.
pub const THROTTLE: u64 = 0x1680;
/// The first byte after the page that the driver mediates.
pub const WINDOW_END: u64 = 0x1000;
/// Length of BAR 0 in bytes.
pub const BAR_SIZE: u64 = 0x4000;

/// `VTCTRL`, and its reset bit.
const CONTROL: u64 = 0x0000;
const RESET: u32 = 1 << 26;
/// The mailbox: its buffer, its control register and some bits of that.
pub const BUFFER: u64 = 0x0800;
pub const MAILBOX: u64 = 0x0c40;
pub const REQUEST: u32 = 1 << 0;
pub const ACKNOWLEDGE: u32 = 1 << 1;
pub const OWN: u32 = 1 << 2;
const ANSWERED: u32 = 1 << 4;

/// Maximum time for an answer of the physical function.
const ANSWER: Duration = Duration::from_secs(30);

/// Reads a register of a function.
pub fn register(device: &Device, offset: u64) -> Result<u32> {
    let bytes = device.read(BAR, offset, 4)?;
    Ok(u32::from_le_bytes(bytes[..].try_into()?))
}

/// Writes a register of a function.
pub fn set_register(device: &Device, offset: u64, value: u32) -> Result<()> {
    Ok(device.write(BAR, offset, &value.to_le_bytes())?)
}

/// Sends a request to the physical function like a guest's driver; returns the first word of the
/// answer.
pub fn ask(device: &Device, words: &[u32]) -> Result<u32> {
    own(device)?;
    for (word, &value) in (0..).zip(words) {
        set_register(device, BUFFER + 4 * word, value)?;
    }
    set_register(device, MAILBOX, REQUEST)?;
    answer(device).with_context(|| format!("{words:x?}"))
}

/// Waits for an answer of the physical function; returns its first word.
pub fn answer(device: &Device) -> Result<u32> {
    let begin = Instant::now();
    while register(device, MAILBOX)? & ANSWERED == 0 {
        ensure!(begin.elapsed() < ANSWER, "no answer after {ANSWER:?}");
        thread::sleep(Duration::from_millis(1));
    }
    own(device)?;
    let answer = register(device, BUFFER)?;
    set_register(device, MAILBOX, ACKNOWLEDGE)?;
    Ok(answer)
}

/// Acquires the mailbox's buffer.
pub fn own(device: &Device) -> Result<()> {
    let begin = Instant::now();
    loop {
        set_register(device, MAILBOX, OWN)?;
        if register(device, MAILBOX)? & OWN != 0 {
            return Ok(());
        }
        ensure!(begin.elapsed() < ANSWER, "the mailbox is never free");
    }
}

/// Makes the physical function accept the VF, which a guest's driver requests first.
pub fn enter(device: &Device) -> Result<()> {
    set_register(device, CONTROL, RESET)?;
    // Reports the reset, once.
    register(device, MAILBOX)?;
    ask(device, &[1]).map(drop)
}

/// Length of the physical function's registers in bytes.
const PF_REGISTERS: usize = 0x2_0000;
/// Number of an 82576's entries for receive addresses and for VLANs.
const RECEIVE_ADDRESSES: usize = 24;
const VLAN_FILTERS: usize = 32;
/// A bit of `RAH` and `VLVF`.
const VALID: u32 = 1 << 31;
/// A bit of `VMOLR`.
const MULTICAST_BY_HASH: u32 = 1 << 25;

/// The adapter's filters for one virtual function.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filters {
    /// MAC addresses, with the first byte lowest.
    pub addresses: BTreeSet<u64>,
    /// VLANs, without untagged traffic, which each function receives.
    pub vlans: BTreeSet<u32>,
    /// Whether multicast is filtered by hash.
    pub multicast: bool,
}

/// The virtual functions under test.
const VFS: u32 = 3;

/// The adapter, with its VFs bound to `vifa_vfio_pci`.
pub struct Adapter {
    pf: Function,
}

impl Adapter {
    /// Finds the adapter, sets its interface up and creates the VFs, as far as necessary.
    pub fn set_up() -> Result<Self> {
        let found = Bus::default().functions_with_ids(VENDOR, PHYSICAL_82576)?;
        let pf = found.into_iter().next().context("no 82576")?;
        let adapter = Self { pf };
        adapter.set_up_interface()?;
        let pf = &adapter.pf;
        if pf.number("sriov_numvfs")? != u64::from(VFS) {
            fs::write(pf.attribute("sriov_drivers_autoprobe"), "0")
                .with_context(|| format!("sriov_drivers_autoprobe of {pf}"))?;
            for count in [0, VFS] {
                pf.set_virtual_functions(count)
                    .with_context(|| format!("sriov_numvfs = {count} of {pf}"))?;
            }
        }
        for index in 0..VFS {
            adapter.vf(index)?.ensure_bound(VF_DRIVER)?;
        }
        Ok(adapter)
    }

    /// Returns the name of the physical function's network interface.
    fn interface(&self) -> Result<String> {
        let directory: PathBuf = self.pf.attribute("net");
        let entry = fs::read_dir(&directory)
            .with_context(|| directory.display().to_string())?
            .next()
            .with_context(|| format!("{} has no network interface", self.pf))??;
        Ok(entry.file_name().to_string_lossy().into_owned())
    }

    /// Reads the adapter's filters for the virtual function `index` from its registers.
    pub fn filters(&self, index: u32) -> Result<Filters> {
        let path = self.pf.attribute("resource0");
        let registers =
            Mapping::of_path(&path, 0, PF_REGISTERS).with_context(|| path.display().to_string())?;
        let read = |offset: usize| registers.read::<u32>(offset);

        let addresses = (0..RECEIVE_ADDRESSES)
            .map(|entry| {
                if entry < 16 {
                    0x5400 + 8 * entry
                } else {
                    0x5460 + 8 * entry
                }
            })
            .map(|offset| [read(offset), read(offset + 4)])
            .filter(|[_, high]| high & VALID != 0 && (high >> 18) & (1 << index) != 0)
            .map(|[low, high]| u64::from(low) | (u64::from(high & 0xffff) << 32));
        let vlans = (0..VLAN_FILTERS)
            .map(|entry| read(0x5d00 + 4 * entry))
            .filter(|filter| filter & VALID != 0 && (filter >> 12) & (1 << index) != 0)
            .map(|filter| filter & 0xfff)
            .filter(|&vlan| vlan != 0);
        Ok(Filters {
            addresses: addresses.collect(),
            vlans: vlans.collect(),
            multicast: read(0x5ad0 + 4 * index as usize) & MULTICAST_BY_HASH != 0,
        })
    }

    /// Sets the physical function's network interface up, without which it does not answer VFs.
    fn set_up_interface(&self) -> Result<()> {
        let status = Command::new("ip")
            .args(["link", "set", "up", "dev", &self.interface()?])
            .status()
            .context("ip")?;
        if !status.success() {
            bail!("ip link set up: {status}");
        }
        Ok(())
    }

    /// Returns the virtual function `index`.
    pub fn vf(&self, index: u32) -> Result<Function> {
        self.pf
            .virtual_function(index)
            .with_context(|| format!("{} has no VF {index}", self.pf))
    }
}
