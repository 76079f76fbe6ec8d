// SPDX-License-Identifier: GPL-2.0

//! A model of a port: a physical function with the rules of Linux' `igb`, and its mailboxes as in
//! QEMU's model.
//!
//! It follows `igb_main.c`, `e1000_mac.c` and `igb_core.c`, with their tables. It shares with the
//! backend only the offsets and the two traits that it implements.

use std::collections::{BTreeSet, VecDeque};

use crate::backend::igb::portable::{
    access::Access,
    clock::Clock,
    fault::Fault,
    mailbox::replay::Post,
    registers::{mailbox::*, page0, statistics, status, vtctrl, word_of_buffer},
};

pub(crate) type Address = [u8; 6];

/// The function under test. The other functions are its neighbours.
pub(crate) const VF: usize = 0;
const NEIGHBOUR: usize = 1;
const FUNCTIONS: usize = 3;
/// The pool of the physical function.
const PF: usize = FUNCTIONS;

const ADDRESSES: usize = 24;
const SHARED_ADDRESSES: usize = ADDRESSES - FUNCTIONS;
const UNICAST_SLOTS: usize = ADDRESSES - (1 + 3 + FUNCTIONS);
const VLANS: usize = 32;

const ACK: u32 = 0x8000_0000;
const NACK: u32 = 0x4000_0000;
const CTS: u32 = 0x2000_0000;
const CONTROL: u32 = 0x0100;

/// The host administrator's settings of the function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Administration {
    pub(crate) fixed: Option<Address>,
    pub(crate) trusted: bool,
    pub(crate) port_vlan: u16,
    /// Number of the neighbours' VLANs.
    pub(crate) vlans: u16,
    /// Number of the neighbours' unicast addresses.
    pub(crate) unicast: u8,
    /// VLANs of the physical function.
    pub(crate) active: BTreeSet<u16>,
}

impl Administration {
    /// Returns whether there are no neighbours' resources and no restrictions.
    pub(crate) fn is_plain(&self) -> bool {
        self.fixed.is_none()
            && self.port_vlan == 0
            && self.vlans == 0
            && self.unicast == 0
            && self.active.is_empty()
    }
}

#[derive(Clone, Debug)]
struct Function {
    clear_to_send: bool,
    /// Whether `clear_to_send` was lost because the function owned the buffer when the physical
    /// function was to read its request.
    collided: bool,
    mac: Address,
    is_fixed: bool,
    trusted: bool,
    port_vlan: u16,
    hashes: Vec<u16>,
    multicast_count: usize,
    promiscuous: bool,
    strip: bool,
    frame_size: u32,
    last_nack: u64,

    buffer: [u32; 16],
    control: u32,
    requested: bool,
    acknowledged: bool,
    was_reset: bool,
    counters: [u32; 9],
}

/// The time of another message of the physical function, relative to the next request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disturbance {
    None,
    /// Before the request is read.
    Before,
    /// Before the answer is read.
    After,
}

#[derive(Clone, Debug)]
pub(crate) struct Port {
    functions: Vec<Function>,
    /// Receive addresses, each with its pool.
    addresses: Vec<Option<(Address, usize)>>,
    unicast: Vec<Option<(Address, usize)>>,
    /// VLAN filters, each with its pools.
    vlans: Vec<(u16, u32)>,
    active: BTreeSet<u16>,
    seconds: u64,
    /// Total time of sleep in microseconds.
    pub(crate) slept: u64,
    /// Number of interrupts of the physical function that the function under test has raised.
    pub(crate) interrupts: usize,
    /// Whether the physical function does not answer.
    pub(crate) silent: bool,
    /// Whether the link is up.
    pub(crate) link: bool,
    /// Whether the physical function does not release the mailbox's buffer.
    pub(crate) holds_buffer: bool,
    pub(crate) disturbances: VecDeque<Disturbance>,
    /// Number of accesses before a failure.
    pub(crate) fails_in: Option<usize>,
}

/// The resources of a function in a port that affect frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filters {
    pub(crate) mac: Option<Address>,
    pub(crate) vlans: BTreeSet<u16>,
    pub(crate) strip: bool,
    pub(crate) multicast_count: usize,
    pub(crate) hashes: Vec<u16>,
    pub(crate) promiscuous: bool,
}

impl Port {
    pub(crate) fn new(administration: &Administration) -> Self {
        let function = Function {
            clear_to_send: false,
            collided: false,
            mac: [0; 6],
            is_fixed: false,
            trusted: false,
            port_vlan: 0,
            hashes: vec![0; 30],
            multicast_count: 0,
            promiscuous: false,
            strip: false,
            frame_size: 1522,
            last_nack: 0,
            buffer: [0; 16],
            control: RSTD,
            requested: false,
            acknowledged: false,
            was_reset: false,
            counters: [0; 9],
        };
        let mut port = Self {
            functions: vec![function; FUNCTIONS],
            addresses: vec![None; ADDRESSES],
            unicast: vec![None; UNICAST_SLOTS],
            vlans: vec![(0, 0); VLANS],
            active: administration.active.clone(),
            seconds: 10,
            slept: 0,
            interrupts: 0,
            silent: false,
            link: true,
            holds_buffer: false,
            disturbances: VecDeque::new(),
            fails_in: None,
        };

        port.addresses[0] = Some(([0x00, 0x1b, 0x21, 0, 0, 1], PF));
        for &vid in &administration.active {
            port.set_filter(vid, PF, true).unwrap();
        }
        for index in 0..administration.vlans {
            port.set_vlan(3000 + index, NEIGHBOUR, true).ok();
        }
        for index in 0..administration.unicast {
            port.add_unicast([0x02, 0xee, 0, 0, 0, index], NEIGHBOUR)
                .ok();
        }
        let function = &mut port.functions[VF];
        function.trusted = administration.trusted;
        function.port_vlan = administration.port_vlan;
        if let Some(mac) = administration.fixed {
            function.is_fixed = true;
            port.set_mac(VF, mac);
        }
        port
    }

    /// Returns whether the function is enabled, and whether it was enabled until it owned the
    /// buffer too long.
    pub(crate) fn is_clear_to_send(&self) -> (bool, bool) {
        let function = &self.functions[VF];

        (function.clear_to_send, function.collided)
    }

    pub(crate) fn filters(&self) -> Filters {
        let function = &self.functions[VF];
        let own = self.addresses[ADDRESSES - (VF + 1)].map(|(mac, _)| mac);
        let pool = |&&(vid, pools): &&(u16, u32)| vid != 0 && pools & (1 << VF) != 0;

        Filters {
            mac: own.filter(|&mac| mac != [0; 6]),
            vlans: self
                .vlans
                .iter()
                .filter(pool)
                .map(|&(vid, _)| vid)
                .collect(),
            strip: function.strip,
            multicast_count: function.multicast_count,
            hashes: function.hashes[..function.multicast_count.min(30)].to_vec(),
            promiscuous: function.promiscuous,
        }
    }

    pub(crate) fn unicast(&self) -> BTreeSet<Address> {
        let shared = self.addresses[..SHARED_ADDRESSES].iter().flatten();

        shared
            .filter(|&&(_, pool)| pool == VF)
            .map(|&(mac, _)| mac)
            .collect()
    }

    /// Moves all unicast addresses of the function under test to another function.
    pub(crate) fn take_unicast(&mut self) {
        for entry in self.addresses[..SHARED_ADDRESSES].iter_mut().flatten() {
            if entry.1 == VF {
                entry.1 = NEIGHBOUR;
            }
        }
    }

    pub(crate) fn frame_size(&self) -> u16 {
        self.functions[VF].frame_size.min(0x3f00) as u16
    }

    /// Handles all resets of functions in the physical function, but no request.
    pub(crate) fn take_note_of_resets(&mut self) {
        for vf in 0..FUNCTIONS {
            self.reset_event(vf);
        }
    }

    /// Returns whether the physical function assigns an address when it enables the function.
    pub(crate) fn remembers_address(&self) -> bool {
        self.functions[VF].mac != [0; 6]
    }

    pub(crate) fn port_vlan(&self) -> u16 {
        self.functions[VF].port_vlan
    }

    /// Returns whether a readable request is pending.
    pub(crate) fn has_request(&self) -> bool {
        let function = &self.functions[VF];

        function.requested && function.control & (VFU | RSTI) == 0
    }

    pub(crate) fn has_free_vlan(&self) -> bool {
        self.vlans[1..].iter().any(|&(vid, _)| vid == 0)
    }

    pub(crate) fn has_free_unicast(&self) -> bool {
        self.unicast.contains(&None) && self.addresses[..SHARED_ADDRESSES].contains(&None)
    }

    /// Returns whether the function owns the buffer, so that the physical function has to wait.
    pub(crate) fn is_held(&self) -> bool {
        self.functions[VF].control & VFU != 0
    }

    pub(crate) fn buffer(&self) -> [u32; 16] {
        self.functions[VF].buffer
    }

    pub(crate) fn count(&mut self, counter: usize, events: u32) {
        let counter = &mut self.functions[VF].counters[counter];

        *counter = counter.wrapping_add(events);
    }

    // The physical function's interrupt handler and its own actions.

    pub(crate) fn interrupt(&mut self) {
        for vf in 0..FUNCTIONS {
            // Interrupts are not handled during a reset.
            if self.functions[vf].control & RSTI != 0 {
                continue;
            }
            self.reset_event(vf);
            if std::mem::take(&mut self.functions[vf].requested) {
                self.receive_message(vf);
            }
            if std::mem::take(&mut self.functions[vf].acknowledged) {
                self.receive_ack(vf);
            }
        }
    }

    pub(crate) fn ping(&mut self) {
        for vf in 0..FUNCTIONS {
            let cts = if self.functions[vf].clear_to_send {
                CTS
            } else {
                0
            };

            self.write_mailbox(vf, &[CONTROL | cts]);
        }
    }

    pub(crate) fn begin_reset(&mut self) {
        for function in &mut self.functions {
            function.clear_to_send = false;
            function.collided = false;
        }
        self.ping();
        for function in &mut self.functions {
            function.control |= RSTI;
            function.frame_size = 1522;
            function.strip = false;
            function.requested = false;
            function.acknowledged = false;
        }
        self.addresses[..SHARED_ADDRESSES][1..].fill(None);
        self.vlans.fill((0, 0));
        for vid in self.active.clone() {
            self.set_filter(vid, PF, true).unwrap();
        }
    }

    pub(crate) fn end_reset(&mut self) {
        for function in &mut self.functions {
            if function.control & RSTI != 0 {
                function.control = (function.control & !RSTI) | RSTD;
            }
        }
    }

    pub(crate) fn wait(&mut self) {
        self.seconds += 3;
    }

    fn may_nack(&self, vf: usize) -> bool {
        self.seconds > self.functions[vf].last_nack + 2
    }

    fn reset_event(&mut self, vf: usize) {
        if std::mem::take(&mut self.functions[vf].was_reset) {
            if !self.functions[vf].is_fixed {
                self.functions[vf].mac = [0; 6];
            }
            self.reset_function(vf);
        }
    }

    fn reset_function(&mut self, vf: usize) {
        let seconds = self.seconds;
        let port_vlan = self.functions[vf].port_vlan;

        for (vid, pools) in &mut self.vlans {
            if *pools & (1 << vf) != 0 {
                *pools &= !(1 << vf);
                if *pools & ((1 << PF) - 1) == 0 {
                    (*vid, *pools) = (0, 0);
                }
            }
        }
        self.set_vlan(port_vlan, vf, true).ok();
        let function = &mut self.functions[vf];
        function.clear_to_send = false;
        function.collided = false;
        function.promiscuous = false;
        function.last_nack = seconds;
        function.strip = port_vlan != 0;
        function.multicast_count = 0;
    }

    fn receive_message(&mut self, vf: usize) {
        let may_nack = self.may_nack(vf);
        let function = &mut self.functions[vf];

        if function.control & VFU != 0 {
            function.collided |= function.clear_to_send;
            function.clear_to_send = false;
            return;
        }
        function.control |= PFACK;
        let message = function.buffer;
        let head = message[0];

        if head & (ACK | NACK) != 0 {
            return;
        }
        if head == 1 {
            return self.let_in(vf);
        }
        if !function.clear_to_send {
            if may_nack {
                self.write_mailbox(vf, &[head | NACK]);
            }
            return;
        }
        let mut answer = head;
        let done = self.act(vf, &message, &mut answer);
        let verdict = if done.is_ok() { ACK } else { NACK };
        self.write_mailbox(vf, &[answer | CTS | verdict]);
    }

    fn let_in(&mut self, vf: usize) {
        self.reset_function(vf);
        let mac = self.functions[vf].mac;
        self.set_mac(vf, mac);
        self.functions[vf].clear_to_send = true;
        let [a, b, c, d, e, f] = mac;
        let words = [
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, 0, 0]),
        ];
        let verdict = if mac == [0; 6] { NACK } else { ACK };
        self.write_mailbox(vf, &[1 | verdict, words[0], words[1]]);
    }

    fn act(&mut self, vf: usize, message: &[u32; 16], answer: &mut u32) -> Result<(), ()> {
        let information = (message[0] >> 16) & 0xff;
        let bytes: Vec<u8> = message.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mac: Address = bytes[4..10].try_into().unwrap();
        let is_valid = mac[0] & 1 == 0 && mac != [0; 6];
        let function = &mut self.functions[vf];
        let denied = function.is_fixed && !function.trusted;

        match message[0] & 0xffff {
            2 if denied || !is_valid => Err(()),
            2 => match information {
                0 => {
                    self.set_mac(vf, mac);
                    Ok(())
                }
                1 => {
                    self.clear_unicast(vf);
                    Ok(())
                }
                2 => self.add_unicast(mac, vf),
                _ => Err(()),
            },
            3 => {
                self.set_multicast(vf, information as usize, &bytes[4..]);
                Ok(())
            }
            4 => self.request_vlan(vf, (message[1] & 0xfff) as u16, information != 0),
            5 => {
                let size = if message[1] as i32 > 0x3f00 {
                    0x3f00
                } else {
                    message[1]
                };

                function.frame_size = size & 0x3fff;
                Ok(())
            }
            6 => {
                function.promiscuous = information & 2 != 0;
                *answer &= !(2 << 16);
                if information & !2 == 0 {
                    Ok(())
                } else {
                    Err(())
                }
            }
            _ => Err(()),
        }
    }

    fn set_multicast(&mut self, vf: usize, count: usize, bytes: &[u8]) {
        let function = &mut self.functions[vf];
        let hashes = bytes
            .chunks(2)
            .map(|hash| u16::from_le_bytes([hash[0], hash[1]]));

        function.multicast_count = count;
        for (to, hash) in function.hashes.iter_mut().zip(hashes).take(count) {
            *to = hash & 0xfff;
        }
    }

    fn request_vlan(&mut self, vf: usize, vid: u16, add: bool) -> Result<(), ()> {
        if self.functions[vf].port_vlan != 0 {
            return Err(());
        }
        if vid == 0 && !add {
            return Ok(());
        }
        self.set_vlan(vid, vf, add)?;
        self.functions[vf].strip = vid != 0;
        Ok(())
    }

    fn receive_ack(&mut self, vf: usize) {
        if !self.functions[vf].clear_to_send && self.may_nack(vf) {
            self.write_mailbox(vf, &[NACK]);
            self.functions[vf].last_nack = self.seconds;
        }
    }

    fn write_mailbox(&mut self, vf: usize, message: &[u32]) {
        let function = &mut self.functions[vf];

        if function.control & VFU == 0 {
            function.requested = false;
            function.acknowledged = false;
            function.buffer[..message.len()].copy_from_slice(message);
            function.control |= PFSTS;
        }
    }

    fn set_mac(&mut self, vf: usize, mac: Address) {
        self.functions[vf].mac = mac;
        self.addresses[ADDRESSES - (vf + 1)] = Some((mac, vf));
    }

    fn clear_unicast(&mut self, vf: usize) {
        for slot in &mut self.unicast {
            if let Some((mac, _)) = slot.take_if(|slot| slot.1 == vf) {
                let shared = &mut self.addresses[..SHARED_ADDRESSES];

                if let Some(entry) = shared.iter_mut().find(|entry| **entry == Some((mac, vf))) {
                    *entry = None;
                }
            }
        }
    }

    fn add_unicast(&mut self, mac: Address, vf: usize) -> Result<(), ()> {
        let slot = self
            .unicast
            .iter_mut()
            .find(|slot| slot.is_none())
            .ok_or(())?;
        let shared = &mut self.addresses[..SHARED_ADDRESSES];

        *slot = Some((mac, vf));
        let entry = shared
            .iter_mut()
            .find(|entry| entry.is_none_or(|(address, _)| address == mac));
        *entry.ok_or(())? = Some((mac, vf));
        Ok(())
    }

    fn set_filter(&mut self, vid: u16, pool: usize, add: bool) -> Result<(), ()> {
        let slot = if vid == 0 {
            0
        } else {
            let with = |wanted| (1..VLANS).rev().find(|&slot| self.vlans[slot].0 == wanted);

            with(vid).or_else(|| with(0)).ok_or(())?
        };
        let pools = if add {
            self.vlans[slot].1 | (1 << pool)
        } else {
            self.vlans[slot].1 & !(1 << pool)
        };

        self.vlans[slot] = if pools == 0 { (0, 0) } else { (vid, pools) };
        Ok(())
    }

    fn set_vlan(&mut self, vid: u16, vf: usize, add: bool) -> Result<(), ()> {
        let is_active = self.active.contains(&vid);

        if add && is_active {
            self.set_filter(vid, PF, true)?;
        }
        let done = self.set_filter(vid, vf, add);
        if add && done.is_ok() {
            return Ok(());
        }
        if is_active && vid != 0 {
            if let Some(filter) = self
                .vlans
                .iter_mut()
                .find(|filter| **filter == (vid, 1 << PF))
            {
                *filter = (0, 0);
            }
        }
        done
    }

    fn access(&mut self) -> Result<(), Fault> {
        match &mut self.fails_in {
            Some(0) => {
                self.fails_in = None;
                return Err(Fault::Reset);
            }
            Some(accesses) => *accesses -= 1,
            None => {}
        }
        Ok(())
    }
}

impl Access for Port {
    fn load(&mut self, offset: u32) -> Result<u32, Fault> {
        self.access()?;
        let function = &mut self.functions[VF];

        Ok(match offset {
            page0::V2PMAILBOX => {
                let value = function.control;
                function.control &= !READ_TO_CLEAR;
                if self.holds_buffer {
                    value | PFU
                } else {
                    value
                }
            }
            page0::STATUS if self.link => status::LU,
            _ => {
                let counter = statistics::OFFSETS
                    .iter()
                    .position(|&counter| counter == offset);

                match (word_of_buffer(offset), counter) {
                    (Some(word), _) => function.buffer[word],
                    (_, Some(counter)) => function.counters[counter],
                    _ => 0,
                }
            }
        })
    }

    fn write(&mut self, offset: u32, value: u32) -> Result<(), Fault> {
        self.access()?;
        let function = &mut self.functions[VF];

        match offset {
            page0::V2PMAILBOX => {
                self.interrupts += usize::from(value & (REQ | ACK_BIT) != 0);
                function.requested |= value & REQ != 0;
                function.acknowledged |= value & ACK_BIT != 0;
                function.control &= !VFU;
                if !self.holds_buffer {
                    function.control |= value & VFU;
                }
            }
            page0::VTCTRL => {
                self.interrupts += usize::from(value & vtctrl::RST != 0);
                function.was_reset |= value & vtctrl::RST != 0;
            }
            _ => {
                if let Some(word) = word_of_buffer(offset) {
                    function.buffer[word] = value;
                }
            }
        }
        Ok(())
    }
}

impl Clock for Port {
    fn now(&self) -> u64 {
        self.slept
    }

    fn sleep(&mut self, microseconds: u32) {
        self.slept += u64::from(microseconds);
    }
}

/// The bit of the register, not the one of messages.
const ACK_BIT: u32 = crate::backend::igb::portable::registers::mailbox::ACK;

impl Post for Port {
    fn reset(&mut self) -> Result<(), Fault> {
        Access::write(self, page0::VTCTRL, vtctrl::RST)?;
        if !self.silent {
            self.interrupt();
        }
        Access::read(self, page0::V2PMAILBOX)?;
        if Access::read(self, page0::V2PMAILBOX)? & (RSTI | RSTD) != 0 {
            return Err(Fault::PhysicalFunctionResets);
        }
        Ok(())
    }

    fn post(&mut self, message: &[u32; 16]) -> Result<[u32; 3], Fault> {
        let disturbance = self.disturbances.pop_front().unwrap_or(Disturbance::None);

        self.leave(message)?;
        if let Disturbance::Before = disturbance {
            self.ping();
        }
        if !self.silent {
            self.interrupt();
        }
        if let Disturbance::After = disturbance {
            self.ping();
        }
        if Access::read(self, page0::V2PMAILBOX)? & PFSTS == 0 {
            return Err(Fault::PhysicalFunctionSilent);
        }
        let [one, two, three, ..] = self.buffer();
        Access::write(self, page0::V2PMAILBOX, ACK_BIT)?;
        self.interrupt();
        Ok([one, two, three])
    }

    fn leave(&mut self, message: &[u32; 16]) -> Result<(), Fault> {
        Access::write(self, page0::V2PMAILBOX, VFU)?;
        Access::read(self, page0::V2PMAILBOX)?;
        self.functions[VF].buffer = *message;
        Access::write(self, page0::V2PMAILBOX, REQ)
    }
}
