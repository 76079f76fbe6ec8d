// SPDX-License-Identifier: GPL-2.0

//! Obtaining for one function what another one's guest had.
//!
//! [`replay`] asks a physical function for all that is in a [`Configuration`]. [`rehearse`] does so
//! to learn whether it would be granted, and gives it back. Both begin with a reset, so they can be
//! tried again after a failure. [`reassert`] takes back to a source what a destination on the same
//! card has taken from it, and [`tidy`] leaves nothing behind that would draw frames to a function
//! that has gone.

use super::{
    configuration::{
        Configuration,
        Granted, //
    },
    message::{
        address_given,
        Answer,
        Mac,
        Request,
        Vid,
        Words,
        ANSWER_WORDS, //
    },
};
use crate::backend::igb::fault::Fault;

/// A function's mailbox and its reset, for whoever has the function to himself.
pub(crate) trait Post {
    /// Resets the function, and waits until no reset of the physical function is going on.
    fn reset(&mut self) -> Result<(), Fault>;

    /// Posts a request, waits until the physical function has put something into the buffer, and
    /// returns how that begins.
    ///
    /// # Errors
    ///
    /// [`Fault::PhysicalFunctionSilent`]: there came nothing.
    fn post(&mut self, message: &Words) -> Result<[u32; ANSWER_WORDS], Fault>;

    /// Posts a request and leaves its answer to the guest.
    fn leave(&mut self, message: &Words) -> Result<(), Fault>;
}

/// How often a request is posted whose answer another message has overwritten.
const ATTEMPTS: usize = 3;

/// Whether a request was done, and what came with it.
enum Verdict {
    Done(Option<Mac>),
    Refused,
}

impl Verdict {
    /// Turns a refusal into `fault`.
    fn or(self, fault: Fault) -> Result<(), Fault> {
        match self {
            Self::Done(_) => Ok(()),
            Self::Refused => Err(fault),
        }
    }
}

/// Asks for `request`, which has to be one that may be asked for twice.
fn ask(post: &mut impl Post, request: Request) -> Result<Verdict, Fault> {
    let message = request.encode();

    for _ in 0..ATTEMPTS {
        let answer = post.post(&message)?;

        match Answer::decode(message[0], answer[0]) {
            Answer::Done => return Ok(Verdict::Done(address_given(answer))),
            Answer::Refused => return Ok(Verdict::Refused),
            Answer::NotClearToSend if request != Request::Reset => {
                return Err(Fault::PhysicalFunctionResets);
            }
            Answer::NotClearToSend | Answer::Overwritten | Answer::None => {}
        }
    }
    Err(Fault::PhysicalFunctionSilent)
}

/// Has the function let in, without what an earlier user left. Returns the address that it is
/// given.
fn enter(post: &mut impl Post) -> Result<Option<Mac>, Fault> {
    let given = match ask(post, Request::Reset)? {
        Verdict::Done(given) => given,
        Verdict::Refused => None,
    };

    // It is refused where no earlier user can have had any.
    ask(post, Request::ClearUnicast)?;
    Ok(given)
}

/// Obtains the address of a function that was let in with the address `given`.
fn obtain_mac(post: &mut impl Post, wanted: Option<Mac>, given: Option<Mac>) -> Result<(), Fault> {
    match wanted {
        // One that the administrator fixed is refused even to whom it was given.
        Some(wanted) if given != Some(wanted) => {
            ask(post, Request::SetMac(wanted))?.or(Fault::MacRefused {
                wanted,
                fixed: given,
            })
        }
        _ => Ok(()),
    }
}

/// Obtains the unicast addresses; each is taken from the function that has it.
fn obtain_unicast(post: &mut impl Post, configuration: &Configuration) -> Result<(), Fault> {
    for &address in configuration.unicast.as_slice() {
        ask(post, Request::AddUnicast(address))?.or(Fault::UnicastRefused { address })?;
    }
    Ok(())
}

/// Obtains the VLANs. The last request decides whether tags are stripped.
fn obtain_vlans(post: &mut impl Post, granted: &Granted) -> Result<(), Fault> {
    let vlans = granted.vlans;
    let is_member = vlans.contains(Vid::NONE);
    let add = |post: &mut _, vid| ask(post, Request::AddVlan(vid))?.or(Fault::VlanRefused { vid });

    if is_member && granted.strip {
        add(post, Vid::NONE)?;
    }
    for &vid in vlans.as_slice().iter().filter(|&&vid| vid != Vid::NONE) {
        add(post, vid)?;
    }
    if is_member && !granted.strip {
        add(post, Vid::NONE)?;
    }
    if granted.strip && vlans.as_slice().iter().all(|&vid| vid == Vid::NONE) {
        ask(post, Request::RemoveVlan(Vid::RESERVED))?.or(Fault::VlanStrippingRefused)?;
    }
    Ok(())
}

/// Obtains the filters for multicast.
fn obtain_multicast(post: &mut impl Post, granted: &Granted) -> Result<(), Fault> {
    if let Some(multicast) = granted.multicast {
        ask(post, Request::SetMulticast(multicast))?.or(Fault::MulticastRefused)?;
    }
    if granted.multicast_promiscuous {
        let request = Request::SetPromiscuous { multicast: true };

        ask(post, request)?.or(Fault::PromiscuousRefused)?;
    }
    Ok(())
}

/// Obtains the frame size.
fn obtain_frame_size(post: &mut impl Post, configuration: &Configuration) -> Result<(), Fault> {
    match configuration.frame_size {
        Some(bytes) => {
            ask(post, Request::SetFrameSize(bytes))?.or(Fault::FrameSizeRefused { bytes })
        }
        None => Ok(()),
    }
}

/// Whether the unicast addresses are obtained as well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unicast {
    Taken,
    Left,
}

/// Obtains `configuration` for a function that was let in with the address `given`.
fn obtain(
    post: &mut impl Post,
    configuration: &Configuration,
    given: Option<Mac>,
    unicast: Unicast,
) -> Result<(), Fault> {
    if let Some(granted) = &configuration.granted {
        obtain_mac(post, granted.mac, given)?;
    }
    if unicast == Unicast::Taken {
        obtain_unicast(post, configuration)?;
    }
    if let Some(granted) = &configuration.granted {
        obtain_vlans(post, granted)?;
        obtain_multicast(post, granted)?;
    }
    obtain_frame_size(post, configuration)
}

/// Obtains `configuration`.
///
/// # Errors
///
/// What was refused, or why there was no answer. The function has a part of what it needs.
pub(crate) fn replay(post: &mut impl Post, configuration: &Configuration) -> Result<(), Fault> {
    post.reset()?;
    if *configuration != Configuration::NONE {
        let given = enter(post)?;

        obtain(post, configuration, given, Unicast::Taken)?;
        // The others outlive a reset, and are obtained only by a function that was let in.
        if configuration.granted.is_none() {
            post.reset()?;
        }
    }
    Ok(())
}

/// Learns whether `configuration` would be granted, without the unicast addresses, which would be
/// taken from whoever has them; keeps nothing.
///
/// # Errors
///
/// What was refused, or why there was no answer.
pub(crate) fn rehearse(post: &mut impl Post, configuration: &Configuration) -> Result<(), Fault> {
    post.reset()?;
    if *configuration == Configuration::NONE {
        return Ok(());
    }
    let given = enter(post)?;
    let obtained = obtain(post, configuration, given, Unicast::Left);
    let given_back = give_back(post, given);

    obtained.and(given_back)
}

/// Gives back all but the frame size. Where frames go is forgotten when the function is let in
/// again; but an address that the administrator fixed, and trusts the function to change, is so
/// `given` back alone.
fn give_back(post: &mut impl Post, given: Option<Mac>) -> Result<(), Fault> {
    post.reset()?;
    if let Verdict::Done(left) = ask(post, Request::Reset)? {
        if left != given {
            obtain_mac(post, given, left)?;
        }
    }
    post.reset()
}

/// Takes the unicast addresses back that a destination on the same card has taken. The mailbox's
/// buffer is other than before.
///
/// # Errors
///
/// What was refused, or why there was no answer.
pub(crate) fn reassert(post: &mut impl Post, configuration: &Configuration) -> Result<(), Fault> {
    ask(post, Request::ClearUnicast)?;
    obtain_unicast(post, configuration)
}

/// Leaves nothing behind that would draw frames to the function, as far as that can be.
///
/// The function is still let in; a reset has to follow.
pub(crate) fn tidy(post: &mut impl Post) -> Result<(), Fault> {
    post.reset()?;
    enter(post).map(drop)
}
