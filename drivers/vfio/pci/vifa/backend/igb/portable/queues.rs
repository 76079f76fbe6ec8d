// SPDX-License-Identifier: GPL-2.0

//! Stopping, saving, restoring and starting of queues.
//!
//! Only the hardware advances heads. A stopped queue has written back every descriptor before its
//! head, and fetches the descriptors from its head on when it starts again. Restoring the head
//! therefore neither repeats nor skips a descriptor.
//!
//! A queue starts empty, with its tail equal to its head: a frame that arrives while it is enabled
//! finds no descriptor and does not advance the head. The queue receives the guest's tail after its
//! head was checked.

use super::{
    access::Access,
    clock::{
        until,
        Clock, //
    },
    fault::{
        Fault,
        Stuck, //
    },
    registers::{
        page0,
        queue::*,
        vtctrl, //
    },
    saved::{
        Queue,
        Register,
        Ring,
        RingRegisters,
        RECEIVE,
        RECEIVE_ONLY,
        TRANSMIT,
        TRANSMIT_ONLY, //
    },
};

/// Polling interval of a queue in microseconds.
const INTERVAL: u32 = 50;

/// Duration of a function-level reset through VTCTRL, in microseconds.
const RESET: u32 = 1_000;

/// Timeout for enabling or disabling a queue, in microseconds.
const SWITCH_TIMEOUT: u32 = 10_000;

/// Timeout for sending the queued descriptors, in microseconds.
const DRAIN_TIMEOUT: u64 = 1_000_000;

/// Time without an advance of the head after which a queue is assumed not to send at all, in
/// microseconds. Either there is no link, or the physical function does not let the function send.
const DRAIN_STILL: u64 = 20_000;

/// Time after which completed descriptors are written back, in microseconds.
const FLUSH: u32 = 1_000;

/// Maximum number of reads of the heads, until two reads return the same values.
const FLUSH_READS: u32 = 10;

/// One direction of one queue pair in the hardware. [`Ring`] is its saved state.
#[derive(Clone, Copy)]
pub(super) struct HardwareRing {
    registers: &'static RingRegisters,
    queue: u8,
}

impl HardwareRing {
    /// Returns the ring of queue pair number `queue` with these registers.
    pub(super) const fn new(registers: &'static RingRegisters, queue: u8) -> Self {
        Self { registers, queue }
    }

    /// Returns this queue pair's register, from that of the first queue pair.
    fn at(self, register: Register) -> Register {
        register.after(STRIDE.saturating_mul(self.queue.into()))
    }

    fn read(self, device: &mut impl Access, register: Register) -> Result<u32, Fault> {
        self.at(register).read(device)
    }

    fn save(self, device: &mut impl Access, register: Register) -> Result<u32, Fault> {
        self.at(register).save(device)
    }

    fn write(self, device: &mut impl Access, register: Register, value: u32) -> Result<(), Fault> {
        self.at(register).write(device, value)
    }

    /// Reads the saved bits of `registers`.
    fn save_all<const N: usize>(
        self,
        device: &mut impl Access,
        registers: [Register; N],
    ) -> Result<[u32; N], Fault> {
        let mut values = [0; N];

        for (value, register) in values.iter_mut().zip(registers) {
            *value = self.save(device, register)?;
        }
        Ok(values)
    }

    /// Writes `registers`.
    fn write_all<const N: usize>(
        self,
        device: &mut impl Access,
        registers: [Register; N],
        values: [u32; N],
    ) -> Result<(), Fault> {
        registers
            .into_iter()
            .zip(values)
            .try_for_each(|(register, value)| self.write(device, register, value))
    }

    fn stuck(self, stuck: Stuck) -> Fault {
        Fault::Queue {
            queue: self.queue,
            stuck,
        }
    }

    /// Returns whether the ring is enabled.
    pub(super) fn is_enabled(self, device: &mut impl Access) -> Result<bool, Fault> {
        Ok(self.read(device, self.registers.control)? & ENABLE != 0)
    }

    /// Writes back completed descriptors and disables the ring.
    ///
    /// A virtual function of the 82576 may fail to write back completed descriptors while its
    /// write-back threshold differs from 1. DPDK therefore always sets it to 1. Here it is 1 only
    /// during the stop.
    ///
    /// # Errors
    ///
    /// Returns an error if the ring stays enabled.
    pub(super) fn stop(self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        let control = self.save(device, self.registers.control)?;
        let eager = (control & !WTHRESH) | WTHRESH_ONE;

        self.write(device, self.registers.control, eager | ENABLE | SWFLUSH)?;
        device.sleep(INTERVAL);
        self.disable(device, control)
    }

    /// Disables the ring by writing `control` to its control register.
    fn disable(self, device: &mut (impl Access + Clock), control: u32) -> Result<(), Fault> {
        self.write(device, self.registers.control, control)?;
        let is_disabled = until(device, INTERVAL, SWITCH_TIMEOUT, |device| {
            Ok(!self.is_enabled(device)?)
        })?;

        if is_disabled {
            Ok(())
        } else {
            Err(self.stuck(self.registers.does_not_stop))
        }
    }

    /// Waits until all queued descriptors are sent, or until none is sent any more.
    pub(super) fn drain(self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        let start = device.now();
        let mut moved = (start, None);

        loop {
            let now = device.now();
            let head = self.read(device, self.registers.head)?;

            if head == self.read(device, self.registers.tail)? {
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

    /// Reads the ring's registers. `is_enabled` states whether to enable it when it is restored.
    fn take(self, device: &mut impl Access, is_enabled: bool) -> Result<Ring, Fault> {
        let values = self.save_all(device, self.registers.list())?;

        Ok(Ring::new(is_enabled, values))
    }

    /// Writes the registers of `ring` without enabling the ring.
    ///
    /// # Errors
    ///
    /// Returns an error if the ring stays enabled, or if the head cannot be written.
    fn put(self, device: &mut (impl Access + Clock), ring: &Ring) -> Result<(), Fault> {
        let registers = self.registers;
        // These are written before and after the others, in their own steps.
        let stepped = [registers.control, registers.head, registers.tail];

        self.disable(device, ring.control)?;
        for (register, value) in registers.list().into_iter().zip(ring.values()) {
            if !stepped.contains(&register) {
                self.write(device, register, value)?;
            }
        }
        self.write(device, registers.head, ring.head)?;
        self.check_head(device, ring.head)
    }

    /// Checks that the head register is `head`.
    fn check_head(self, device: &mut impl Access, head: u32) -> Result<(), Fault> {
        let found = self.save(device, self.registers.head)?;

        if found == head {
            Ok(())
        } else {
            Err(self.stuck(Stuck::Head {
                written: head,
                read: found,
            }))
        }
    }

    /// Empties a disabled ring: sets its tail to `head`.
    ///
    /// # Errors
    ///
    /// Returns an error if the tail cannot be written. The ring would then process the descriptors
    /// up to the old tail.
    fn empty(self, device: &mut impl Access, head: u32) -> Result<(), Fault> {
        self.write(device, self.registers.tail, head)?;
        let found = self.save(device, self.registers.tail)?;

        if found == head {
            Ok(())
        } else {
            Err(self.stuck(Stuck::Tail {
                written: head,
                read: found,
            }))
        }
    }

    /// Enables the ring with the control bits of `ring`, but without descriptors.
    ///
    /// # Errors
    ///
    /// Returns an error if the tail cannot be written, if the ring stays disabled, or if its head
    /// has another value.
    pub(super) fn enable(
        self,
        device: &mut (impl Access + Clock),
        ring: &Ring,
    ) -> Result<(), Fault> {
        self.empty(device, ring.head)?;
        self.write(device, self.registers.control, ring.control | ENABLE)?;
        let is_enabled = until(device, INTERVAL, SWITCH_TIMEOUT, |device| {
            self.is_enabled(device)
        })?;

        if !is_enabled {
            return Err(self.stuck(Stuck::NotEnabled));
        }
        self.check_head(device, ring.head)
    }

    /// Enables the ring again at its current head.
    ///
    /// # Errors
    ///
    /// As for [`Self::enable`].
    pub(super) fn restart(self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        let ring = self.take(device, true)?;

        self.enable(device, &ring)?;
        self.kick(device, &ring)
    }

    /// Writes the tail of `ring`, so that the hardware processes the guest's descriptors.
    pub(super) fn kick(self, device: &mut impl Access, ring: &Ring) -> Result<(), Fault> {
        self.write(device, self.registers.tail, ring.tail)
    }

    /// Checks that [`put`] and [`Self::enable`] work on an idle function's ring, with a head that
    /// differs from the value after a reset.
    ///
    /// # Errors
    ///
    /// Returns an error if the head or the tail cannot be written, or changes when the ring is
    /// enabled.
    fn probe_head(self, device: &mut (impl Access + Clock)) -> Result<(), Fault> {
        let probe = Ring {
            is_enabled: true,
            length: 0x1000,
            head: 8,
            tail: 16,
            ..Ring::default()
        };
        let before = self.take(device, false)?;
        let probed = self
            .put(device, &probe)
            .and_then(|()| self.enable(device, &probe));
        // If a card ignores writes of heads, this fails, too.
        let restored = self.put(device, &before);

        self.kick(device, &before)?;
        probed.and(restored)
    }
}

/// Returns the transmit and receive rings of queue pair number `queue`.
pub(super) const fn rings(queue: u8) -> [HardwareRing; 2] {
    [
        HardwareRing::new(&TRANSMIT, queue),
        HardwareRing::new(&RECEIVE, queue),
    ]
}

/// Waits until the queues have written back all completed descriptors: PCI ordering puts these
/// writes before the completion of a read of a head.
pub(super) fn flush(device: &mut (impl Access + Clock), queues: u8) -> Result<(), Fault> {
    let mut before = None;

    device.sleep(FLUSH);
    for _ in 0..FLUSH_READS {
        let mut heads = [0; 2 * QUEUES_MAX];
        let rings = (0..queues).flat_map(rings);

        for (head, ring) in heads.iter_mut().zip(rings) {
            *head = ring.read(device, ring.registers.head)?;
        }
        if before == Some(heads) {
            break;
        }
        before = Some(heads);
    }
    Ok(())
}

/// Reads the registers of a queue pair. Its rings are to be enabled if they were in `before`.
pub(super) fn take(device: &mut impl Access, queue: u8, before: &Queue) -> Result<Queue, Fault> {
    let [transmit, receive] = rings(queue);

    Ok(Queue::new(
        transmit.take(device, before.transmit.is_enabled)?,
        transmit.save_all(device, TRANSMIT_ONLY)?,
        receive.take(device, before.receive.is_enabled)?,
        receive.save_all(device, RECEIVE_ONLY)?,
    ))
}

/// Writes the registers of `state` to a queue pair without enabling it.
///
/// # Errors
///
/// Returns an error if a ring stays enabled, or if its head cannot be written.
pub(super) fn put(
    device: &mut (impl Access + Clock),
    queue: u8,
    state: &Queue,
) -> Result<(), Fault> {
    let [transmit, receive] = rings(queue);

    transmit.put(device, &state.transmit)?;
    transmit.write_all(device, TRANSMIT_ONLY, state.transmit_only())?;
    receive.put(device, &state.receive)?;
    receive.write_all(device, RECEIVE_ONLY, state.receive_only())
}

/// Resets an unused function, and checks that its queues can be restored.
///
/// # Errors
///
/// Returns an error if a head or a tail cannot be written, or if a register cannot be accessed.
pub(crate) fn probe(device: &mut (impl Access + Clock), queues: u8) -> Result<(), Fault> {
    device.write(page0::VTCTRL, vtctrl::RST)?;
    device.sleep(RESET);
    (0..queues)
        .flat_map(rings)
        .try_for_each(|ring| ring.probe_head(device))
}
