// SPDX-License-Identifier: GPL-2.0

//! The interrupts: vectors of causes, and pending causes.
//!
//! A spurious interrupt is harmless, but a missing one can stall a queue forever. Therefore every
//! possible cause is raised again when the function resumes.

use super::{
    access::Access,
    fault::Fault,
    records::{
        Interrupt,
        Routes, //
    },
    registers::interrupt::*,
    saved::{
        Queue,
        Register,
        MAILBOX_ROUTE,
        QUEUE_ROUTES,
        THROTTLE, //
    },
};

/// All vectors.
pub(super) type Interrupts = [Interrupt; VECTORS];

/// Returns each vector's EITR.
fn throttles() -> impl Iterator<Item = Register> {
    (0..).map(|vector: u32| THROTTLE.after(vector.saturating_mul(4)))
}

/// Returns each vector with its bit in the registers of causes.
fn bits() -> impl Iterator<Item = (usize, u32)> {
    (0..VECTORS).map(|vector| (vector, 1 << vector))
}

/// Masks all vectors. Returns their previous state, and the routes.
///
/// Vectors that are unmasked or pending in `before` stay so, because an earlier call has masked and
/// cleared them.
pub(super) fn take(
    device: &mut impl Access,
    before: &Interrupts,
) -> Result<(Interrupts, Routes), Fault> {
    let unmasked = device.read(EIMS)?;
    let auto_clear = device.read(EIAC)?;
    let auto_mask = device.read(EIAM)?;
    let routes = Routes {
        queues: QUEUE_ROUTES.save(device)?,
        mailbox: MAILBOX_ROUTE.save(device)?,
    };
    let mut interrupts = *before;

    for (interrupt, throttle) in interrupts.iter_mut().zip(throttles()) {
        interrupt.throttle = throttle.save(device)?;
    }
    device.write(EIMC, CAUSES)?;
    let pending = device.read(EICR)?;
    clear_causes(device)?;

    for (interrupt, (_, bit)) in interrupts.iter_mut().zip(bits()) {
        interrupt.is_unmasked |= unmasked & bit != 0;
        interrupt.auto_clear = auto_clear & bit != 0;
        interrupt.auto_mask = auto_mask & bit != 0;
        interrupt.is_pending |= pending & bit != 0;
    }
    Ok((interrupts, routes))
}

/// Masks all vectors, and clears pending causes.
pub(super) fn clear(device: &mut impl Access) -> Result<(), Fault> {
    device.write(EIMC, CAUSES)?;
    clear_causes(device)
}

/// Clears pending causes.
///
/// On a card, a read clears them. QEMU's model requires a write of ones, and its next read returns
/// these bits as causes. A cause that occurs between write and read is not lost: it is either that
/// of a queue, which is raised again, or also visible in the mailbox or the link state.
fn clear_causes(device: &mut impl Access) -> Result<(), Fault> {
    device.write(EICR, CAUSES)?;
    device.read(EICR).map(drop)
}

/// Returns a register value with the bits of the vectors for which `is_set` returns true.
fn gather(interrupts: &Interrupts, is_set: impl Fn(&Interrupt) -> bool) -> u32 {
    interrupts
        .iter()
        .zip(bits())
        .filter(|(interrupt, _)| is_set(interrupt))
        .fold(0, |gathered, (_, (_, bit))| gathered | bit)
}

/// Writes the registers of the vectors, except their masks.
pub(super) fn put(
    device: &mut impl Access,
    interrupts: &Interrupts,
    routes: &Routes,
) -> Result<(), Fault> {
    for (interrupt, throttle) in interrupts.iter().zip(throttles()) {
        throttle.write(device, interrupt.throttle | EITR_CNT_IGNR)?;
    }
    QUEUE_ROUTES.write(device, routes.queues)?;
    MAILBOX_ROUTE.write(device, routes.mailbox)?;
    device.write(EIAC, gather(interrupts, |interrupt| interrupt.auto_clear))?;
    device.write(EIAM, gather(interrupts, |interrupt| interrupt.auto_mask))
}

/// Returns the bit of the vector in a byte of IVAR.
fn routed(route: u8) -> u32 {
    let route = u32::from(route);

    if route & IVAR_VALID == 0 {
        0
    } else {
        (1 << (route & IVAR_VECTOR)) & CAUSES
    }
}

/// Returns the vectors of all enabled queues.
fn of_queues<'a>(queues: impl Iterator<Item = &'a Queue>, routes: &Routes) -> u32 {
    let [receive0, transmit0, receive1, transmit1] = routes.queues.to_le_bytes();
    let pairs = [[receive0, transmit0], [receive1, transmit1]];

    queues
        .zip(pairs)
        .flat_map(|(queue, [receive, transmit])| {
            [
                (queue.receive.is_enabled, receive),
                (queue.transmit.is_enabled, transmit),
            ]
        })
        .filter(|&(is_enabled, _)| is_enabled)
        .fold(0, |vectors, (_, route)| vectors | routed(route))
}

/// Unmasks the previously unmasked vectors, and raises the vectors with possible causes: those of
/// all enabled queues, and that of the mailbox if there `is_news` for the guest.
///
/// If EIMS cannot be read back, EIAC contains the vectors that a driver uses.
pub(super) fn resume<'a>(
    device: &mut impl Access,
    interrupts: &Interrupts,
    routes: &Routes,
    queues: impl Iterator<Item = &'a Queue>,
    is_news: bool,
) -> Result<(), Fault> {
    let [mailbox, ..] = routes.mailbox.to_le_bytes();
    let mask = gather(interrupts, |interrupt| {
        interrupt.is_unmasked || interrupt.auto_clear
    });
    let news = if is_news { routed(mailbox) } else { 0 };
    let causes = (of_queues(queues, routes) | news) & mask;
    let pending = gather(interrupts, |interrupt| interrupt.is_pending);

    device.write(EIMS, mask)?;
    device.write(EICS, causes | pending)
}
