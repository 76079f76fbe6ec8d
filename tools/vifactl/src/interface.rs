// SPDX-License-Identifier: GPL-2.0

//! Interface ids as text.

use std::fmt;

use serde::{Serialize, Serializer};
use vifa_vfio::pci::Address;

use crate::headers;

/// The id of a virtual interface; any number, valid or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface(pub(crate) u64);

/// A plane of a virtual function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Plane {
    /// The device's own state.
    Control,
    /// Data that the device wrote.
    Data,
}

impl Plane {
    /// Returns the plane with this number.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        match u32::try_from(number) {
            Ok(headers::VIFA_PLANE_CONTROL) => Some(Self::Control),
            Ok(headers::VIFA_PLANE_DATA) => Some(Self::Data),
            _ => None,
        }
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Control => "control",
            Self::Data => "data",
        })
    }
}

// CAST: The masks are unsigned in the header; bindgen gives each the type that its value fits.
const DOMAIN: u64 = headers::VIFA_INTERFACE_DOMAIN as u64;
const RESERVED: u64 = headers::VIFA_INTERFACE_RESERVED as u64;
const BUS: u64 = headers::VIFA_INTERFACE_BUS as u64;
const DEVFN: u64 = headers::VIFA_INTERFACE_DEVFN as u64;
const PLANE: u64 = headers::VIFA_INTERFACE_PLANE as u64;

impl Interface {
    /// Returns the bits of `mask`, shifted down.
    fn field(self, mask: u64) -> u64 {
        (self.0 & mask) >> mask.trailing_zeros()
    }

    /// Returns the function and the plane of a valid id.
    pub(crate) fn parts(self) -> Option<(Address, Plane)> {
        let plane = Plane::from_number(self.field(PLANE))?;
        let devfn = u8::try_from(self.field(DEVFN)).ok()?;
        let address = Address {
            domain: u32::try_from(self.field(DOMAIN)).ok()?,
            bus: u8::try_from(self.field(BUS)).ok()?,
            device: devfn >> 3,
            function: devfn & 7,
        };

        (self.field(RESERVED) == 0).then_some((address, plane))
    }
}

impl fmt::Display for Interface {
    /// Writes function and plane, or the number of an invalid id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            Some((address, plane)) => f.pad(&format!("{address}/{plane}")),
            None => f.pad(&format!("{:#018x}", self.0)),
        }
    }
}

impl Serialize for Interface {
    /// Writes the number as text, because not every JSON reader handles 64 bits, with its parts.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Parts {
            id: String,
            function: Option<Address>,
            plane: Option<Plane>,
        }
        let (function, plane) = self.parts().unzip();

        Parts {
            id: format!("{:#018x}", self.0),
            function,
            plane,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_as_function_and_plane() {
        assert_eq!(Interface(0x1_0002_1902).to_string(), "0001:02:03.1/data");
    }

    #[test]
    fn an_invalid_id_is_shown_as_a_number() {
        for id in [0, 0x1903, 0x100_1901] {
            assert_eq!(Interface(id).to_string(), format!("{id:#018x}"));
        }
    }
}
