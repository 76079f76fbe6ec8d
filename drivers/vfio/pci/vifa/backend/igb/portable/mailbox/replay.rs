// SPDX-License-Identifier: GPL-2.0

//! Obtaining the resources of another function's guest for a function.
//!
//! [`replay`] requests all resources of a [`Configuration`] from a physical function. [`rehearse`]
//! does so to check whether they would be granted, and releases them. Both begin with a reset, so
//! they can be repeated after a failure. [`reassert`] reclaims the resources that a destination on
//! the same card has taken from its source. [`tidy`] releases the resources that direct frames to a
//! function after its last use.

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
use crate::backend::igb::portable::fault::Fault;

/// A function's mailbox and its reset, for exclusive use.
pub(crate) trait Post {
    /// Resets the function, and waits for the end of a reset of the physical function.
    fn reset(&mut self) -> Result<(), Fault>;

    /// Posts a request, waits until the physical function has written the buffer, and returns the
    /// first words of the buffer.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::PhysicalFunctionSilent`] if the wait times out.
    fn post(&mut self, message: &Words) -> Result<[u32; ANSWER_WORDS], Fault>;

    /// Posts a request and leaves its answer to the guest.
    fn leave(&mut self, message: &Words) -> Result<(), Fault>;
}

/// Maximum number of attempts for a request whose answer is overwritten by another message.
const ATTEMPTS: usize = 3;

/// The result of a request. `Done` contains the address in the answer.
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

/// Sends `request`, which must be idempotent, and returns the result.
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

/// Enables the function at the physical function, and clears the unicast addresses of an earlier
/// user. Returns the address that the physical function assigned.
fn enter(post: &mut impl Post) -> Result<Option<Mac>, Fault> {
    let given = match ask(post, Request::Reset)? {
        Verdict::Done(given) => given,
        Verdict::Refused => None,
    };

    // A physical function that refuses this has no unicast addresses of an earlier user.
    ask(post, Request::ClearUnicast)?;
    Ok(given)
}

/// Obtains the address `wanted` for a function that has the address `given`.
fn obtain_mac(post: &mut impl Post, wanted: Option<Mac>, given: Option<Mac>) -> Result<(), Fault> {
    match wanted {
        // The physical function refuses a request for an address that the administrator has fixed,
        // even from the function that has it.
        Some(wanted) if given != Some(wanted) => {
            ask(post, Request::SetMac(wanted))?.or(Fault::MacRefused {
                wanted,
                fixed: given,
            })
        }
        _ => Ok(()),
    }
}

/// Obtains the unicast addresses. Each is taken from its current function.
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

/// Obtains the multicast filters.
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

/// Whether to obtain the unicast addresses, too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unicast {
    Obtain,
    Skip,
}

/// Obtains `configuration` for a function that has the address `given`.
fn obtain(
    post: &mut impl Post,
    configuration: &Configuration,
    given: Option<Mac>,
    unicast: Unicast,
) -> Result<(), Fault> {
    if let Some(granted) = &configuration.granted {
        obtain_mac(post, granted.mac, given)?;
    }
    if unicast == Unicast::Obtain {
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
/// Returns the refused request, or the reason for a missing answer. The configuration is then
/// partially obtained.
pub(crate) fn replay(post: &mut impl Post, configuration: &Configuration) -> Result<(), Fault> {
    post.reset()?;
    if *configuration != Configuration::NONE {
        let given = enter(post)?;

        obtain(post, configuration, given, Unicast::Obtain)?;
        // Only an enabled function can obtain the other resources, which persist across a reset.
        if configuration.granted.is_none() {
            post.reset()?;
        }
    }
    Ok(())
}

/// Checks whether `configuration` would be granted, and keeps none of it. Skips the unicast
/// addresses, because they would be taken from their current functions.
///
/// # Errors
///
/// Returns the refused request, or the reason for a missing answer.
pub(crate) fn rehearse(post: &mut impl Post, configuration: &Configuration) -> Result<(), Fault> {
    post.reset()?;
    if *configuration == Configuration::NONE {
        return Ok(());
    }
    let given = enter(post)?;
    let obtained = obtain(post, configuration, given, Unicast::Skip);
    let given_back = give_back(post, given);

    obtained.and(given_back)
}

/// Releases all resources except the frame size.
///
/// The physical function clears the filters when it enables the function again. An address that the
/// administrator has fixed, and that the function may change as a trusted one, must be restored to
/// `given` explicitly.
fn give_back(post: &mut impl Post, given: Option<Mac>) -> Result<(), Fault> {
    post.reset()?;
    if let Verdict::Done(left) = ask(post, Request::Reset)? {
        if left != given {
            obtain_mac(post, given, left)?;
        }
    }
    post.reset()
}

/// Reclaims the unicast addresses that a destination on the same card has taken. Overwrites the
/// mailbox's buffer.
///
/// # Errors
///
/// Returns the refused request, or the reason for a missing answer.
pub(crate) fn reassert(post: &mut impl Post, configuration: &Configuration) -> Result<(), Fault> {
    ask(post, Request::ClearUnicast)?;
    obtain_unicast(post, configuration)
}

/// Releases the resources that direct frames to the function, as far as possible.
///
/// The function is still enabled afterwards. A reset must follow.
pub(crate) fn tidy(post: &mut impl Post) -> Result<(), Fault> {
    post.reset()?;
    enter(post).map(drop)
}
