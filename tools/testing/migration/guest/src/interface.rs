// SPDX-License-Identifier: GPL-2.0

//! The configuration of network interfaces, like `ip`, by the kernel's older ioctls: the guest has
//! no other program.

use std::{
    ffi::{c_char, c_int, c_short, c_ulong},
    fs, io, mem,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    str::FromStr,
};

const INTERFACES: &str = "/sys/class/net";

/// The ioctl for VLANs, and the command of `enum vlan_ioctl_cmds` that creates an interface.
const SIOCSIFVLAN: c_ulong = 0x8983;
const ADD_VLAN_CMD: c_int = 0;

/// `struct vlan_ioctl_args`.
#[repr(C)]
struct VlanRequest {
    command: c_int,
    device: [c_char; 24],
    id: c_int,
    /// The union has the size of a name.
    rest: [c_char; 20],
    quality: c_short,
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac([u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = parts
                .next()
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| format!("invalid hardware address: {text}"))?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(format!("invalid hardware address: {text}")),
        }
    }
}

/// An address with its prefix length: `192.0.2.2/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub address: Ipv4Addr,
    prefix: u8,
}

impl Address {
    fn mask(self) -> Ipv4Addr {
        let host_bits = u32::from(32 - self.prefix);
        Ipv4Addr::from(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('/')
            .and_then(|(address, prefix)| {
                Some(Self {
                    address: address.parse().ok()?,
                    prefix: prefix.parse().ok().filter(|prefix| *prefix <= 32)?,
                })
            })
            .ok_or_else(|| format!("invalid address with a prefix length: {text}"))
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface(String);

impl Interface {
    /// Returns the first interface of a device's driver.
    pub fn of_device() -> Option<Self> {
        fs::read_dir(INTERFACES)
            .ok()?
            .map_while(Result::ok)
            .find(|entry| entry.path().join("device/driver").exists())
            .map(|entry| Self(entry.file_name().to_string_lossy().into_owned()))
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Returns the contents of its attribute `file`.
    pub fn attribute(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("{INTERFACES}/{}/{file}", self.0))
            .ok()
            .map(|text| text.trim().to_owned())
    }

    /// Sets the hardware address. The interface must be down.
    pub fn set_mac(&self, mac: Mac) -> Result<(), String> {
        let mut request = self.request();
        let mut address = socket_address(libc::ARPHRD_ETHER);
        for (to, from) in address.sa_data.iter_mut().zip(mac.0) {
            *to = from as c_char;
        }
        request.ifr_ifru.ifru_hwaddr = address;
        self.control(libc::SIOCSIFHWADDR, &mut request, "hardware address")
    }

    /// Sets the maximum packet size.
    pub fn set_mtu(&self, mtu: c_int) -> Result<(), String> {
        let mut request = self.request();
        request.ifr_ifru.ifru_mtu = mtu;
        self.control(libc::SIOCSIFMTU, &mut request, "MTU")
    }

    pub fn set_address(&self, address: Address) -> Result<(), String> {
        for (number, value, what) in [
            (libc::SIOCSIFADDR, address.address, "address"),
            (libc::SIOCSIFNETMASK, address.mask(), "network mask"),
        ] {
            let mut request = self.request();
            let mut wanted = socket_address(libc::AF_INET as libc::sa_family_t);
            // The address follows the port, as in struct sockaddr_in.
            for (to, from) in wanted.sa_data[2..6].iter_mut().zip(value.octets()) {
                *to = from as c_char;
            }
            request.ifr_ifru.ifru_addr = wanted;
            self.control(number, &mut request, what)?;
        }
        Ok(())
    }

    pub fn bring_up(&self) -> Result<(), String> {
        let mut request = self.request();
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as c_short;
        self.control(libc::SIOCSIFFLAGS, &mut request, "state")
    }

    /// Creates the interface of a VLAN on top of it.
    pub fn add_vlan(&self, id: u16) -> Result<Self, String> {
        let mut request = VlanRequest {
            command: ADD_VLAN_CMD,
            device: [0; 24],
            id: id.into(),
            rest: [0; 20],
            quality: 0,
        };
        copy_name(&self.0, &mut request.device);
        control(SIOCSIFVLAN, &mut request)
            .map_err(|error| format!("{}: failed to create VLAN {id}: {error}", self.0))?;
        Ok(Self(format!("{}.{id}", self.0)))
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: The structure consists of integers and a pointer, for which zero is a valid
        // value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        copy_name(&self.0, &mut request.ifr_name);
        request
    }

    fn control(
        &self,
        number: c_ulong,
        request: &mut libc::ifreq,
        what: &str,
    ) -> Result<(), String> {
        control(number, request)
            .map_err(|error| format!("{}: failed to set its {what}: {error}", self.0))
    }
}

/// Copies the name and a NUL. A name that is too long is truncated and matches no interface.
fn copy_name(name: &str, field: &mut [c_char]) {
    let room = field.len() - 1;
    for (to, from) in field[..room].iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
}

fn socket_address(family: libc::sa_family_t) -> libc::sockaddr {
    libc::sockaddr {
        sa_family: family,
        sa_data: [0; 14],
    }
}

/// Calls an ioctl. `number` must be one of the requests for interfaces and `T` its argument type.
fn control<T>(number: c_ulong, request: &mut T) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: The descriptor is open, and the callers, all in this module, pass the structure that
    // the request reads and writes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number as _, request as *mut T) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hardware_addresses() {
        assert_eq!(
            "02:00:5e:10:0:ff".parse(),
            Ok(Mac([2, 0, 0x5e, 16, 0, 255]))
        );
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:00",
            "02:00:5e:10:00:100",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_addresses_with_their_prefix() {
        for (text, mask) in [
            ("192.0.2.2/24", "255.255.255.0"),
            ("192.0.2.2/0", "0.0.0.0"),
            ("192.0.2.2/32", "255.255.255.255"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.address, Ipv4Addr::new(192, 0, 2, 2));
            assert_eq!(address.mask().to_string(), mask);
        }
        for wrong in ["192.0.2.2", "192.0.2.2/33", "192.0.2/24", "192.0.2.2/"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_request_for_a_vlan_has_the_kernels_layout() {
        assert_eq!(size_of::<VlanRequest>(), 56);
        assert_eq!(mem::offset_of!(VlanRequest, id), 28);
        assert_eq!(mem::offset_of!(VlanRequest, quality), 52);
    }
}
