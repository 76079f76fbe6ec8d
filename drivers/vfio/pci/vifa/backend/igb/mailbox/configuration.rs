// SPDX-License-Identifier: GPL-2.0

//! What a guest has obtained from its physical function.
//!
//! It lives in the physical function, where a virtual function cannot read it. What is known of it
//! is the sum of the requests and of their answers; these are the rules by which `igb` adds them
//! up.

use super::{
    message::{
        Mac,
        Multicast,
        Request,
        Vid, //
    },
    set::Set,
};

/// Most further unicast addresses: the I350 has so many filters for all functions together.
pub(crate) const UNICAST_MAX: usize = 32;

/// Most VLANs: a port has so many filters for all functions together.
pub(crate) const VLANS_MAX: usize = 32;

/// What a reset of the virtual function takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// The address.
    pub(crate) mac: Option<Mac>,
    /// The VLANs. The one without an id is here if the guest asked for it.
    pub(crate) vlans: Set<Vid, VLANS_MAX>,
    /// VLAN tags are stripped from what is received: so if the last VLAN asked for, or asked to be
    /// left, was one with an id.
    pub(crate) strip: bool,
    /// The multicast addresses, once the guest has named any.
    pub(crate) multicast: Option<Multicast>,
    /// All multicast is received.
    pub(crate) multicast_promiscuous: bool,
}

impl Granted {
    /// What a function has that was let in with the address `mac`.
    pub(crate) const fn new(mac: Option<Mac>) -> Self {
        Self {
            mac,
            vlans: Set::new(Vid::NONE),
            strip: false,
            multicast: None,
            multicast_promiscuous: false,
        }
    }
}

/// What a guest has obtained from its physical function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// `None`: the function is not let in.
    pub(crate) granted: Option<Granted>,
    /// Further unicast addresses.
    pub(crate) unicast: Set<Mac, UNICAST_MAX>,
    /// Greatest frame in bytes, once the guest has named any.
    pub(crate) frame_size: Option<u16>,
}

impl Configuration {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        granted: None,
        unicast: Set::new(Mac::PLACEHOLDER),
        frame_size: None,
    };

    /// Takes note that `request` was done. `mac` is the address that a [`Request::Reset`] was
    /// answered with.
    ///
    /// Where there is no room in a set, nothing can have been done: the physical function has not
    /// more filters, and an answer that was not read must have been a refusal.
    pub(super) fn done(&mut self, request: Request, mac: Option<Mac>) {
        match request {
            Request::Reset => {
                self.granted = Some(Granted::new(mac));
                return;
            }
            Request::ClearUnicast => self.unicast.clear(),
            Request::AddUnicast(mac) => {
                self.unicast.insert(mac);
            }
            Request::SetFrameSize(bytes) => self.frame_size = Some(bytes),
            _ => {}
        }
        let Some(granted) = &mut self.granted else {
            return;
        };

        match request {
            Request::SetMac(mac) => granted.mac = Some(mac),
            Request::SetMulticast(multicast) => granted.multicast = Some(multicast),
            Request::AddVlan(vid) => {
                granted.vlans.insert(vid);
                granted.strip = vid != Vid::NONE;
            }
            // It is not left, and nothing else is done.
            Request::RemoveVlan(Vid::NONE) => {}
            Request::RemoveVlan(vid) => {
                granted.vlans.remove(vid);
                granted.strip = true;
            }
            Request::SetPromiscuous { multicast } => granted.multicast_promiscuous = multicast,
            _ => {}
        }
    }

    /// Takes note that `request` was refused.
    pub(super) fn refused(&mut self, request: Request) {
        if let Request::SetPromiscuous { .. } = request {
            self.done(request, None);
        }
    }
}
