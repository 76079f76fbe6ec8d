// SPDX-License-Identifier: GPL-2.0

//! The resources that a guest has obtained from its physical function.
//!
//! The physical function stores them, and a virtual function cannot read them. This module derives
//! them from the requests and their answers, with the rules of `igb`.

use super::{
    message::{
        Mac,
        Multicast,
        Request,
        Vid, //
    },
    set::Set,
};

/// Maximum number of additional unicast addresses: the number of filters of the I350 for all
/// functions together.
pub(crate) const UNICAST_MAX: usize = 32;

/// Maximum number of VLANs: the number of filters of a port for all functions together.
pub(crate) const VLANS_MAX: usize = 32;

/// Resources that a reset of the virtual function releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// The address.
    pub(crate) mac: Option<Mac>,
    /// The VLANs. [`Vid::NONE`] is included if the guest requested it.
    pub(crate) vlans: Set<Vid, VLANS_MAX>,
    /// Whether VLAN tags are stripped from received frames. True if the last request to add or
    /// remove a VLAN named one with an id.
    pub(crate) strip: bool,
    /// The multicast addresses, once the guest has set them.
    pub(crate) multicast: Option<Multicast>,
    /// Whether all multicast is received.
    pub(crate) multicast_promiscuous: bool,
}

impl Granted {
    /// Returns the resources of a function after a reset request that returned the address `mac`.
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

/// The resources that a guest has obtained from its physical function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// The resources until the next reset. `None` if the physical function has not enabled the
    /// function.
    pub(crate) granted: Option<Granted>,
    /// Additional unicast addresses.
    pub(crate) unicast: Set<Mac, UNICAST_MAX>,
    /// Maximum frame size in bytes, once the guest has set it.
    pub(crate) frame_size: Option<u16>,
}

impl Configuration {
    /// No resources.
    pub(crate) const NONE: Self = Self {
        granted: None,
        unicast: Set::new(Mac::PLACEHOLDER),
        frame_size: None,
    };

    /// Records that `request` was done. `mac` is the address in the answer to a [`Request::Reset`].
    ///
    /// If a set is full, the request is ignored: the physical function has no more filters, so an
    /// answer that was not read must have been a refusal.
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
            // The physical function ignores this request.
            Request::RemoveVlan(Vid::NONE) => {}
            Request::RemoveVlan(vid) => {
                granted.vlans.remove(vid);
                granted.strip = true;
            }
            Request::SetPromiscuous { multicast } => granted.multicast_promiscuous = multicast,
            _ => {}
        }
    }

    /// Records that `request` was refused.
    pub(super) fn refused(&mut self, request: Request) {
        if let Request::SetPromiscuous { .. } = request {
            self.done(request, None);
        }
    }
}
