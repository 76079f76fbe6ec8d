// SPDX-License-Identifier: GPL-2.0

//! Network cards. The kernel's driver keeps the physical functions, as on any host. The virtual
//! functions are bound to our driver or are network interfaces of the host.

use std::{
    convert::Infallible, ffi::OsStr, fs, ops::Range, path::Path, process::Command, time::Duration,
};

use anyhow::{Context, Result};
use vifa_vfio::{
    pci::{Bus, Function},
    wait_for,
};

use crate::{scratch::Scratch, sriov};

/// The kernel's drivers of the cards and of their virtual functions.
const PHYSICAL_DRIVER: &str = "igb";
const NETWORK_DRIVER: &str = "igbvf";

/// The setting that restricts ARP replies of an interface to its own addresses.
const ARP_IGNORE: &str = "/proc/sys/net/ipv4/conf/all/arp_ignore";

/// Maximum time until a link is up, or until an interface exists.
const LINK_TIMEOUT: Duration = Duration::from_secs(300);

/// A card with an active link.
pub struct Card {
    /// The physical function.
    pub physical: Function,
    /// The physical function's network interface.
    pub interface: String,
    /// The virtual functions, without a driver.
    pub virtuals: Vec<Function>,
}

impl Card {
    /// Returns all cards of this machine, in the order of their addresses. Each has `count` virtual
    /// functions without a driver and accepts packets of up to `mtu` bytes. Loads our driver from
    /// `module` unless it is loaded.
    pub fn all(module: Option<&Path>, count: usize, mtu: u32) -> Result<Vec<Self>> {
        sriov::load(module)?;
        sriov::run(Command::new("modprobe").arg(PHYSICAL_DRIVER))?;
        answer_for_own_addresses()?;
        let mut found = Bus::default().functions()?;
        found.retain(|function| function.driver().as_deref() == Some(PHYSICAL_DRIVER));
        let cards = found.into_iter().map(|physical| {
            let mut card = Self {
                interface: interface_of(&physical)?,
                physical,
                virtuals: Vec::new(),
            };
            card.make(count, mtu)?;
            Ok(card)
        });
        let cards = cards.collect::<Result<Vec<_>>>()?;
        cards.iter().try_for_each(Self::wait_for_link)?;
        Ok(cards)
    }

    /// Replaces the virtual functions with `count` new ones. The physical function answers them
    /// only while its interface is up.
    fn make(&mut self, count: usize, mtu: u32) -> Result<()> {
        self.virtuals = sriov::replace_virtual_functions(&self.physical, count, || {
            sriov::write(&self.physical, "sriov_drivers_autoprobe", "0")?;
            let mtu = mtu.to_string();
            ip(["link", "set", "dev", &self.interface, "mtu", &mtu, "up"])
        })?;
        Ok(())
    }

    fn wait_for_link(&self) -> Result<()> {
        let name = &self.interface;
        wait(&format!("{name} has no link"), || {
            (attribute(name, "carrier")? == "1").then_some(())
        })
    }

    /// Sets the interface up or down.
    pub fn set_up(&self, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        ip(["link", "set", "dev", &self.interface, state])?;
        if up {
            self.wait_for_link()?;
        }
        Ok(())
    }

    /// Sets a fixed address for the virtual function with this number. An address of zeros removes
    /// it.
    pub fn fix_mac(&self, index: usize, mac: &str) -> Result<()> {
        let index = index.to_string();
        ip([
            "link",
            "set",
            "dev",
            &self.interface,
            "vf",
            &index,
            "mac",
            mac,
        ])
    }

    /// Adds an address to the interface, as in `192.0.2.1/24`.
    pub fn add_address(&self, address: &str) -> Result<()> {
        ip(["address", "add", address, "dev", &self.interface])
    }

    /// Creates the interface of a VLAN, with an address.
    pub fn add_vlan(&self, id: u16, address: &str) -> Result<()> {
        let name = vlan_name(&self.interface, id);
        ip(vlan(&self.interface, id))?;
        ip(["link", "set", "dev", &name, "up"])?;
        ip(["address", "add", address, "dev", &name])
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let undone = sriov::write(&self.physical, "sriov_numvfs", "0")
            .and_then(|()| sriov::write(&self.physical, "sriov_drivers_autoprobe", "1"));
        if let Err(error) = undone {
            eprintln!("vifa-migrate: {error:#}");
        }
    }
}

/// A virtual function that is a network interface of this host, until this is dropped.
pub struct HostInterface {
    function: Function,
    name: String,
}

impl HostInterface {
    /// Binds the kernel's driver to `function`.
    pub fn of(function: &Function) -> Result<Self> {
        sriov::run(Command::new("modprobe").arg(NETWORK_DRIVER))?;
        sriov::bind(function, NETWORK_DRIVER)?;
        Ok(Self {
            function: function.clone(),
            name: interface_of(function)?,
        })
    }

    /// Requests `vlans` from the card. The kernel's driver does not detect a refusal: it compares
    /// the reply with a value that has no bit of the request.
    pub fn take_vlans(&self, vlans: Range<u16>) -> Result<()> {
        let scratch = Scratch::new()?;
        let batch = scratch.path().join("vlans");
        let lines = vlans.map(|id| format!("{}\n", vlan(&self.name, id).join(" ")));
        fs::write(&batch, lines.collect::<String>())?;
        sriov::run(Command::new("ip").arg("-batch").arg(&batch))
    }
}

impl Drop for HostInterface {
    fn drop(&mut self) {
        // Without its driver, the function has no interfaces.
        let undone = self
            .function
            .unbind()
            .and_then(|()| self.function.set_driver_override(None));
        if let Err(error) = undone {
            eprintln!("vifa-migrate: failed to unbind {}: {error}", self.function);
        }
    }
}

/// Returns the name of the interface of a VLAN.
fn vlan_name(interface: &str, id: u16) -> String {
    format!("{interface}.{id}")
}

/// Returns the arguments of `ip` that create the interface of a VLAN.
fn vlan(interface: &str, id: u16) -> [String; 10] {
    let (name, id) = (vlan_name(interface, id), id.to_string());
    [
        "link", "add", "link", interface, "name", &name, "type", "vlan", "id", &id,
    ]
    .map(str::to_owned)
}

/// Returns the network interface of the driver of `function`, after it got its final name.
fn interface_of(function: &Function) -> Result<String> {
    sriov::run(Command::new("udevadm").arg("settle"))?;
    wait(&format!("{function} has no network interface"), || {
        let mut names = fs::read_dir(function.attribute("net")).ok()?;
        let name = names.next()?.ok()?.file_name();
        Some(name.to_string_lossy().into_owned())
    })
}

/// Restricts each interface to replies for its own addresses. By default a card also replies for
/// another card's addresses, and the guest sends to the first card that replied.
fn answer_for_own_addresses() -> Result<()> {
    fs::write(ARP_IGNORE, "1").with_context(|| format!("failed to write to {ARP_IGNORE}"))
}

fn attribute(interface: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/{name}")).ok()?;
    Some(text.trim().to_owned())
}

/// Runs `ip` of iproute2.
fn ip<S: AsRef<OsStr>, const N: usize>(arguments: [S; N]) -> Result<()> {
    sriov::run(Command::new("ip").args(arguments))
}

fn wait<T>(otherwise: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    wait_for(LINK_TIMEOUT, || Ok::<_, Infallible>(look()))?
        .with_context(|| format!("{otherwise} after {} s", LINK_TIMEOUT.as_secs()))
}
