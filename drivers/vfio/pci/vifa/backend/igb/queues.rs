// SPDX-License-Identifier: GPL-2.0

//! The queues: how they are stopped, taken down, put up and started.
//!
//! The hardware alone moves heads. A queue that was stopped has written back every descriptor
//! before its head, and will fetch those from its head on anew; so a head that is put where it was
//! repeats nothing and leaves nothing out.
//!
//! A queue starts empty, with its tail at its head: frames that arrive while it is enabled find no
//! descriptor, and leave the head where it was put. It gets the guest's descriptors once the head
//! has been checked.

use super::{
    clock::{
        until,
        Clock, //
    },
    fault::{
        Fault,
        Stuck, //
    },
    records::{
        Queue,
        Ring, //
    },
    registers::{
        page0,
        queue::*,
        vtctrl,
        Access, //
    },
};

/// Microseconds between two looks at a queue.
const INTERVAL: u32 = 50;

/// Microseconds after which a reset by the function itself is over.
const RESET: u32 = 1_000;

/// Microseconds in which a queue has to be enabled, or disabled.
const SWITCH_TIMEOUT: u32 = 10_000;

/// Microseconds in which a queue sends what it was given.
const DRAIN_TIMEOUT: u64 = 1_000_000;

/// Microseconds without a move of the head, after which a queue is taken not to send at all: there
/// is no link, or the physical function does not let the function send.
const DRAIN_STILL: u64 = 20_000;

/// Microseconds after which descriptors that are done have been written back.
const FLUSH: u32 = 1_000;

/// Looks at the heads until two find the same.
const FLUSH_LOOKS: u32 = 10;

/// The registers of one direction of the first queue, and the bits that are kept of them.
pub(super) struct Direction {
    base_low: u32,
    base_high: u32,
    length: u32,
    head: u32,
    tail: u32,
    control: u32,
    control_bits: u32,
    cache: u32,
    cache_bits: u32,
    does_not_stop: Stuck,
}

/// What the guest sends.
pub(super) const TRANSMIT: Direction = Direction {
    base_low: TDBAL,
    base_high: TDBAH,
    length: TDLEN,
    head: TDH,
    tail: TDT,
    control: TXDCTL,
    control_bits: TXDCTL_BITS,
    cache: TXCTL,
    cache_bits: TXCTL_BITS,
    does_not_stop: Stuck::TransmitDoesNotStop,
};

/// What the guest receives.
pub(super) const RECEIVE: Direction = Direction {
    base_low: RDBAL,
    base_high: RDBAH,
    length: RDLEN,
    head: RDH,
    tail: RDT,
    control: RXDCTL,
    control_bits: RXDCTL_BITS,
    cache: RXCTL,
    cache_bits: RXCTL_BITS,
    does_not_stop: Stuck::ReceiveDoesNotStop,
};

/// One direction of one queue.
#[derive(Clone, Copy)]
pub(super) struct Half {
    direction: &'static Direction,
    queue: u8,
}

impl Half {
    /// This direction of the queue with this number.
    pub(super) const fn new(direction: &'static Direction, queue: u8) -> Self {
        Self { direction, queue }
    }

    /// Returns the offset of a register that the first queue has at `offset`.
    fn at(self, offset: u32) -> u32 {
        offset.saturating_add(STRIDE.saturating_mul(self.queue.into()))
    }

    fn read(self, device: &mut impl Access, offset: u32) -> Result<u32, Fault> {
        device.read(self.at(offset))
    }

    fn write(self, device: &mut impl Access, offset: u32, value: u32) -> Result<(), Fault> {
        device.write(self.at(offset), value)
    }

    fn stuck(self, stuck: Stuck) -> Fault {
        Fault::Queue {
            queue: self.queue,
            stuck,
        }
    }

    /// Returns whether it is enabled.
    pub(super) fn is_enabled(self, device: &mut impl Access) -> Result<bool, Fault> {
        Ok(self.read(device, self.direction.control)? & ENABLE != 0)
    }

    /// Returns the bits of its control that are kept.
    fn control(self, device: &mut impl Access) -> Result<u32, Fault> {
        Ok(self.read(device, self.direction.control)? & self.direction.control_bits)
    }

    /// Has it write back what is done, and disables it.
    ///
    /// A virtual function of the 82576 may keep descriptors that are done to itself while its
    /// threshold for writing them back is any other than 1; DPDK therefore sets that always. Here
    /// it is set for the stop alone.
    ///
    /// # Errors
    ///
    /// It stays enabled.
    pub(super) fn stop(self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        let control = self.control(device)?;
        let eager = (control & !WTHRESH) | WTHRESH_ONE;

        self.write(device, self.direction.control, eager | ENABLE | SWFLUSH)?;
        device.sleep(INTERVAL);
        self.disable(device, control)
    }

    /// Disables it, and leaves `control` in its control.
    fn disable(self, device: &mut (impl Access + Clock), control: u32) -> Result<(), Fault> {
        self.write(device, self.direction.control, control)?;
        let is_disabled = until(device, INTERVAL, SWITCH_TIMEOUT, |device| {
            Ok(!self.is_enabled(device)?)
        })?;

        if is_disabled {
            Ok(())
        } else {
            Err(self.stuck(self.direction.does_not_stop))
        }
    }

    /// Waits until all that the guest gave it is sent, or does not get sent.
    pub(super) fn drain(self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        let start = device.now();
        let mut moved = (start, None);

        loop {
            let now = device.now();
            let head = self.read(device, self.direction.head)?;

            if head == self.read(device, self.direction.tail)? {
                return Ok(());
            }
            if moved.1 != Some(head) {
                moved = (now, Some(head));
            }
            let is_still = now.saturating_sub(moved.0) >= DRAIN_STILL;
            if is_still || now.saturating_sub(start) >= DRAIN_TIMEOUT {
                return Ok(());
            }
            device.sleep(INTERVAL);
        }
    }

    /// Returns its registers, of a queue that is to be enabled if it `is_enabled`.
    fn take(self, device: &mut impl Access, is_enabled: bool) -> Result<Ring, Fault> {
        let direction = self.direction;

        Ok(Ring {
            is_enabled,
            base_low: self.read(device, direction.base_low)? & BASE_BITS,
            base_high: self.read(device, direction.base_high)?,
            length: self.read(device, direction.length)? & LENGTH_BITS,
            head: self.read(device, direction.head)? & INDEX_BITS,
            tail: self.read(device, direction.tail)? & INDEX_BITS,
            control: self.read(device, direction.control)? & direction.control_bits,
            cache: self.read(device, direction.cache)? & direction.cache_bits,
        })
    }

    /// Gives it the registers of `ring`, without starting it.
    ///
    /// # Errors
    ///
    /// It stays enabled, or does not take the head.
    fn put(self, device: &mut (impl Access + Clock), ring: &Ring) -> Result<(), Fault> {
        let direction = self.direction;

        self.disable(device, ring.control)?;
        self.write(device, direction.base_low, ring.base_low)?;
        self.write(device, direction.base_high, ring.base_high)?;
        self.write(device, direction.length, ring.length)?;
        self.write(device, direction.cache, ring.cache)?;
        self.write(device, direction.head, ring.head)?;
        self.check_head(device, ring.head)
    }

    /// Checks that the head is at `head`.
    fn check_head(self, device: &mut impl Access, head: u32) -> Result<(), Fault> {
        let found = self.read(device, self.direction.head)? & INDEX_BITS;

        if found == head {
            Ok(())
        } else {
            Err(self.stuck(Stuck::Head {
                written: head,
                read: found,
            }))
        }
    }

    /// Takes all work from a queue that is not enabled: puts its tail at `head`.
    ///
    /// # Errors
    ///
    /// It does not take the tail, and would begin with whatever lies up to where that is.
    fn empty(self, device: &mut impl Access, head: u32) -> Result<(), Fault> {
        self.write(device, self.direction.tail, head)?;
        let found = self.read(device, self.direction.tail)? & INDEX_BITS;

        if found == head {
            Ok(())
        } else {
            Err(self.stuck(Stuck::Tail {
                written: head,
                read: found,
            }))
        }
    }

    /// Enables it as `ring` was, with nothing to do yet.
    ///
    /// # Errors
    ///
    /// It does not take the tail, stays disabled, or its head is elsewhere.
    pub(super) fn enable(
        self,
        device: &mut (impl Access + Clock),
        ring: &Ring,
    ) -> Result<(), Fault> {
        self.empty(device, ring.head)?;
        self.write(device, self.direction.control, ring.control | ENABLE)?;
        let is_enabled = until(device, INTERVAL, SWITCH_TIMEOUT, |device| {
            self.is_enabled(device)
        })?;

        if !is_enabled {
            return Err(self.stuck(Stuck::NotEnabled));
        }
        self.check_head(device, ring.head)
    }

    /// Enables it again where it stands.
    ///
    /// # Errors
    ///
    /// It stays disabled, or its head is elsewhere.
    pub(super) fn restart(self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        let ring = self.take(device, true)?;

        self.enable(device, &ring)?;
        self.kick(device, &ring)
    }

    /// Gives it what the guest had given it.
    pub(super) fn kick(self, device: &mut impl Access, ring: &Ring) -> Result<(), Fault> {
        self.write(device, self.direction.tail, ring.tail)
    }

    /// Does to an idle function's queue what [`put`] and [`Self::enable`] will do, with a head that
    /// no reset leaves.
    ///
    /// # Errors
    ///
    /// It does not take the head or the tail, or loses them when it is enabled.
    fn probe_head(self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        const RING: Ring = Ring {
            is_enabled: true,
            base_low: 0,
            base_high: 0,
            length: 0x1000,
            head: 8,
            tail: 16,
            control: 0,
            cache: 0,
        };

        let before = self.take(device, false)?;
        let probed = self
            .put(device, &RING)
            .and_then(|()| self.enable(device, &RING));
        // A card that does not take heads cannot take this one back, either.
        let restored = self.put(device, &before);

        self.kick(device, &before)?;
        probed.and(restored)
    }
}

/// Both directions of the queue with this number: transmit and receive.
pub(super) const fn halves(queue: u8) -> [Half; 2] {
    [Half::new(&TRANSMIT, queue), Half::new(&RECEIVE, queue)]
}

/// Waits until the queues have written back all descriptors that are done: reading a head pushes
/// these ahead of itself.
pub(super) fn flush(device: &mut (impl Access + Clock), queues: u8) -> Result<(), Fault> {
    let mut before = None;

    device.sleep(FLUSH);
    for _ in 0..FLUSH_LOOKS {
        let mut heads = [0; 2 * QUEUES_MAX];
        let halves = (0..queues).flat_map(halves);

        for (head, half) in heads.iter_mut().zip(halves) {
            *head = half.read(device, half.direction.head)?;
        }
        if before == Some(heads) {
            break;
        }
        before = Some(heads);
    }
    Ok(())
}

/// Returns the registers of a queue pair. Its directions are to be enabled if they were in
/// `before`.
pub(super) fn take(device: &mut impl Access, queue: u8, before: &Queue) -> Result<Queue, Fault> {
    let [transmit, receive] = halves(queue);

    Ok(Queue {
        transmit: transmit.take(device, before.transmit.is_enabled)?,
        write_back_low: transmit.read(device, TDWBAL)? & TDWBAL_BITS,
        write_back_high: transmit.read(device, TDWBAH)?,
        receive: receive.take(device, before.receive.is_enabled)?,
        split: receive.read(device, SRRCTL)? & SRRCTL_BITS,
    })
}

/// Gives a queue pair the registers that another had, without starting it.
///
/// # Errors
///
/// A queue stays enabled, or does not take its head.
pub(super) fn put(
    device: &mut (impl Access + Clock),
    queue: u8,
    state: &Queue,
) -> Result<(), Fault> {
    let [transmit, receive] = halves(queue);

    transmit.put(device, &state.transmit)?;
    transmit.write(device, TDWBAL, state.write_back_low)?;
    transmit.write(device, TDWBAH, state.write_back_high)?;
    receive.put(device, &state.receive)?;
    receive.write(device, SRRCTL, state.split)
}

/// Resets a function that nobody uses, and checks that its queues can be restored.
///
/// # Errors
///
/// A queue does not take its head or tail, or a register is not reached.
pub(crate) fn probe(device: &mut (impl Access + Clock), queues: u8) -> Result<(), Fault> {
    device.write(page0::VTCTRL, vtctrl::RST)?;
    device.sleep(RESET);
    (0..queues)
        .flat_map(halves)
        .try_for_each(|half| half.probe_head(device))
}
