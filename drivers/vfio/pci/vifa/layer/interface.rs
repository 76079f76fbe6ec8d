// SPDX-License-Identifier: GPL-2.0

//! Virtual interfaces and their ids.
//!
//! A virtual function has two channels into the layer, one for each plane. Every section of a
//! stream contains the id of its interface, so that the receiver cannot confuse the planes.

use super::check::{
    check,
    Expectation,
    Violation, //
};

/// The two planes of a virtual function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plane {
    /// The device's own state.
    Control = 1,
    /// Memory that the device wrote: guest memory and local memory.
    Data = 2,
}

/// The PCI address of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Segment group number on the host.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device (5 bits) and function (3 bits) number.
    pub devfn: u8,
}

/// Id of a virtual interface, with the layout of `VIFA_INTERFACE_*` in the uAPI header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceId(u64);

const RESERVED: u64 = 0xff00_0000;
const PLANE: u64 = 0xff;

impl InterfaceId {
    fn new(function: Function, plane: Plane) -> Self {
        Self(
            (u64::from(function.domain) << 32)
                | (u64::from(function.bus) << 16)
                | (u64::from(function.devfn) << 8)
                | plane as u64,
        )
    }

    /// Returns the id as encoded in a stream.
    pub fn as_raw(self) -> u64 {
        self.0
    }
}

/// The two interfaces of one virtual function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interfaces {
    control: InterfaceId,
    data: InterfaceId,
}

impl Interfaces {
    /// Returns the interfaces of `function`.
    pub fn of(function: Function) -> Self {
        Self {
            control: InterfaceId::new(function, Plane::Control),
            data: InterfaceId::new(function, Plane::Data),
        }
    }

    /// Returns the interfaces of the function whose control interface has the id `control`.
    ///
    /// # Errors
    ///
    /// Returns an error if `control` is not the id of a control interface.
    pub(super) fn of_control(control: u64) -> Result<Self, Violation> {
        let place = control & !PLANE;

        check("interface", place, Expectation::SubsetOf(!RESERVED))?;
        check(
            "interface",
            control,
            Expectation::Equal(place | Plane::Control as u64),
        )?;

        Ok(Self {
            control: InterfaceId(control),
            data: InterfaceId(place | Plane::Data as u64),
        })
    }

    /// Returns the interface of `plane`.
    pub fn plane(&self, plane: Plane) -> InterfaceId {
        match plane {
            Plane::Control => self.control,
            Plane::Data => self.data,
        }
    }
}
