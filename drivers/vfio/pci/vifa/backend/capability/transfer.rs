// SPDX-License-Identifier: GPL-2.0

//! The two ends of a transfer, for a device with the VIFA capability.

use super::{
    buffer::Buffer,
    function::Function,
    mailbox::{
        Command,
        Results, //
    }, //
};
use crate::{
    backend::Backend,
    bindings::*,
    layer::{
        address::Range,
        identity::Identity,
        interface::Interfaces,
        restore::Destination,
        save::Source,
        stream::DATA_RUN_MAX, //
    },
    seam::Bytes, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    transmute::FromBytes, //
};

/// Ranges that are asked for at a time.
const RANGES: usize = 256;

/// Where the bytes that were read last stand.
enum Piece {
    /// The control plane: a copy, which the device cannot change while it is checked.
    Control(Bytes),
    /// This many bytes of local memory, in the buffer.
    Local(usize),
}

/// A device that is saved: the output party.
pub(crate) struct Sender {
    function: Arc<Function>,
    buffer: Buffer,
    piece: Piece,
    list: Buffer,
    /// Ranges that the device has listed, and how many of them are used up.
    listed: KVec<Range>,
    used: usize,
    /// Where the list goes on; the size of the local memory at its end.
    next: u64,
}

impl Sender {
    pub(super) fn new(function: Arc<Function>) -> Result<Self> {
        let capacity = DATA_RUN_MAX.max(function.identity().control_plane_max as usize);
        Ok(Self {
            buffer: function.buffer(capacity)?,
            list: function.buffer(RANGES * size_of::<vifa_hw_range>())?,
            function,
            piece: Piece::Local(0),
            listed: KVec::with_capacity(RANGES, GFP_KERNEL)?,
            used: 0,
            next: 0,
        })
    }

    /// Has the device list further ranges.
    fn list(&mut self) -> Result {
        const ENTRY: usize = size_of::<vifa_hw_range>();

        let from = self.next;
        let Results(count, next) = self.function.data(
            Command::LOCAL_LIST,
            [from, 0],
            Some((&mut self.list, RANGES * ENTRY)),
        )?;
        // A list that does not get on would go on for ever.
        if count > RANGES as u64 || next <= from {
            dev_err!(
                self.function.device(),
                "LOCAL_LIST from {:#x}: {} ranges, to go on at {:#x}: cannot be\n",
                from,
                count,
                next
            );
            return Err(EIO);
        }
        self.next = next;
        self.used = 0;
        self.listed.clear();
        let entries = self.list.bytes(count as usize * ENTRY).chunks_exact(ENTRY);
        for raw in entries.filter_map(vifa_hw_range::from_bytes_copy) {
            self.listed.push(
                Range {
                    start: u64::from_le(raw.start),
                    length: u64::from_le(raw.length),
                },
                GFP_KERNEL,
            )?;
        }
        Ok(())
    }
}

impl Source for Sender {
    type Error = Error;

    fn identity(&self) -> &Identity {
        self.function.identity()
    }

    fn interfaces(&self) -> Interfaces {
        self.function.interfaces()
    }

    fn read_control(&mut self) -> Result {
        let capacity = self.identity().control_plane_max as usize;
        let Results(length, _) =
            self.function
                .control(Command::SAVE, 0, Some((&mut self.buffer, capacity)))?;
        if length > capacity as u64 {
            dev_err!(
                self.function.device(),
                "SAVE: {} bytes, of at most {}\n",
                length,
                capacity
            );
            return Err(EIO);
        }
        let length = length as usize;
        let mut copy = Bytes::with_capacity(length).map_err(|_| ENOMEM)?;
        copy.resize_zeroed(length).map_err(|_| ENOMEM)?;
        copy.copy_from_slice(self.buffer.bytes(length));
        self.piece = Piece::Control(copy);
        Ok(())
    }

    fn next_mapped(&mut self, from: u64) -> Result<Option<Range>> {
        loop {
            while let Some(&range) = self.listed.get(self.used) {
                self.used += 1;
                if range.start >= from {
                    return Ok(Some(range));
                }
            }
            if self.next >= self.identity().local_memory {
                return Ok(None);
            }
            self.list()?;
        }
    }

    fn read_local(&mut self, offset: u64, length: usize) -> Result {
        self.function.data(
            Command::LOCAL_READ,
            [offset, length as u64],
            Some((&mut self.buffer, length)),
        )?;
        self.piece = Piece::Local(length);
        Ok(())
    }

    fn piece(&self) -> &[u8] {
        match &self.piece {
            Piece::Control(copy) => copy,
            &Piece::Local(length) => self.buffer.bytes(length),
        }
    }
}

/// A device that is restored: the receiver.
pub(crate) struct Receiver {
    function: Arc<Function>,
    buffer: Buffer,
}

impl Receiver {
    pub(super) fn new(function: Arc<Function>) -> Result<Self> {
        let capacity = DATA_RUN_MAX.max(function.identity().control_plane_max as usize);
        Ok(Self {
            buffer: function.buffer(capacity)?,
            function,
        })
    }
}

impl Destination for Receiver {
    type Error = Error;

    fn identity(&self) -> &Identity {
        self.function.identity()
    }

    fn interfaces(&self) -> Interfaces {
        self.function.interfaces()
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut()
    }

    fn clear_local(&mut self) -> Result {
        if self.identity().local_memory != 0 {
            self.function.data(Command::LOCAL_CLEAR, [0; 2], None)?;
        }
        Ok(())
    }

    fn write_local(&mut self, offset: u64, length: usize) -> Result {
        self.function.data(
            Command::LOCAL_WRITE,
            [offset, length as u64],
            Some((&mut self.buffer, length)),
        )?;
        Ok(())
    }

    fn write_control(&mut self, records: &[u8]) -> Result {
        let room = self.buffer.bytes_mut();
        room.get_mut(..records.len())
            .ok_or(EIO)?
            .copy_from_slice(records);
        self.function.control(
            Command::LOAD,
            records.len() as u64,
            Some((&mut self.buffer, records.len())),
        )?;
        Ok(())
    }
}
