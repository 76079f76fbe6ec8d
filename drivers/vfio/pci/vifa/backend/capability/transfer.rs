// SPDX-License-Identifier: GPL-2.0

//! The two ends of a transfer, for a device with the VIFA capability.
//!
//! Each end has two buffers for local memory, so that the device works while the processor does: it
//! reads the next run ahead while the last one is on its way to user space, and writes one run
//! while the next one comes.

use super::{
    buffer::Buffer,
    fault::Fault,
    function::Function,
    local::{
        Bitmap,
        Granules, //
    },
    mailbox::{
        Command,
        Pending,
        Results, //
    }, //
};
use crate::{
    backend::Backend,
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
use core::mem::replace;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Allocates a buffer for either plane.
fn bulk_buffer(function: &Function) -> Result<Buffer> {
    function.buffer(DATA_RUN_MAX.max(function.identity().control_plane_max as usize))
}

/// What was read last.
enum Piece {
    /// The control plane: a copy, which the device cannot change while it is checked.
    Control(Bytes),
    /// So many bytes of local memory.
    Local(Buffer, usize),
}

/// A run of local memory that the device reads.
struct Reading {
    run: Range,
    pending: Pending,
}

/// A device that is saved: the output party.
pub(crate) struct Sender {
    function: Arc<Function>,
    piece: Piece,
    reading: Option<Reading>,
    /// The buffer that neither of these has.
    spare: Option<Buffer>,
    bitmap: Bitmap,
}

impl Sender {
    pub(super) fn new(function: Arc<Function>) -> Result<Self> {
        Ok(Self {
            piece: Piece::Local(bulk_buffer(&function)?, 0),
            reading: None,
            spare: Some(bulk_buffer(&function)?),
            bitmap: Bitmap::new(&function)?,
            function,
        })
    }

    /// Takes a buffer that nothing uses.
    fn take_buffer(&mut self) -> Result<Buffer> {
        match self.spare.take() {
            Some(buffer) => Ok(buffer),
            None => bulk_buffer(&self.function),
        }
    }

    /// Has the device begin to read a run.
    fn begin(&mut self, run: Range) -> Result<Reading> {
        let buffer = self.take_buffer()?;
        let pending = self.function.begin_data(
            Command::LOCAL_READ,
            [run.start, run.length],
            buffer,
            run.length as usize,
        )?;
        Ok(Reading { run, pending })
    }
}

impl Source for Sender {
    type Error = Fault;

    fn identity(&self) -> &Identity {
        self.function.identity()
    }

    fn interfaces(&self) -> Interfaces {
        self.function.interfaces()
    }

    fn read_control(&mut self) -> Result<(), Fault> {
        let capacity = self.identity().control_plane_max as usize;
        let mut buffer = self.take_buffer()?;
        let Results(length, _) =
            self.function
                .control(Command::SAVE, 0, Some((&mut buffer, capacity)))?;
        if length > capacity as u64 {
            dev_err!(
                self.function.device(),
                "SAVE: {} bytes, of at most {}\n",
                length,
                capacity
            );
            return Err(EIO.into());
        }
        let length = length as usize;
        let mut copy = Bytes::with_capacity(length).map_err(|_| ENOMEM)?;
        copy.resize_zeroed(length).map_err(|_| ENOMEM)?;
        copy.copy_from_slice(buffer.bytes(length));
        self.piece = Piece::Control(copy);
        self.spare = Some(buffer);
        Ok(())
    }

    fn configurations(&mut self) -> Result<u32, Fault> {
        Ok(self.function.configurations()?)
    }

    fn mapped(&mut self, offset: u64, length: u64) -> Result<&[u8], Fault> {
        let (mapped, _) = self
            .bitmap
            .ask(&self.function, Granules::Mapped, offset, length)?;
        Ok(mapped)
    }

    fn changed(&mut self, offset: u64, length: u64) -> Result<&[u8], Fault> {
        let (changed, _) = self
            .bitmap
            .ask(&self.function, Granules::Changed, offset, length)?;
        Ok(changed)
    }

    fn read_local(&mut self, offset: u64, length: usize) -> Result<(), Fault> {
        let run = Range {
            start: offset,
            length: length as u64,
        };
        let ahead = self.reading.take().filter(|reading| reading.run == run);
        let reading = match ahead {
            Some(reading) => reading,
            None => self.begin(run)?,
        };
        let (buffer, _) = reading.pending.finish()?;
        let before = replace(&mut self.piece, Piece::Local(buffer, length));
        if let Piece::Local(buffer, _) = before {
            self.spare = Some(buffer);
        }
        Ok(())
    }

    fn prefetch_local(&mut self, offset: u64, length: usize) {
        let run = Range {
            start: offset,
            length: length as u64,
        };
        self.reading = None;
        // Where it cannot begin, reading the run will fail again, and be heard.
        self.reading = self.begin(run).ok();
    }

    fn piece(&self) -> &[u8] {
        match &self.piece {
            Piece::Control(copy) => copy,
            Piece::Local(buffer, length) => buffer.bytes(*length),
        }
    }
}

/// A device that is restored: the receiver.
pub(crate) struct Receiver {
    function: Arc<Function>,
    /// What comes next goes here.
    buffer: Buffer,
    /// A run that the device writes to its local memory.
    writing: Option<Pending>,
    /// The buffer that has no part in either.
    spare: Option<Buffer>,
}

impl Receiver {
    pub(super) fn new(function: Arc<Function>) -> Result<Self> {
        Ok(Self {
            buffer: bulk_buffer(&function)?,
            writing: None,
            spare: Some(bulk_buffer(&function)?),
            function,
        })
    }

    /// Waits until the device has written what it was given.
    fn settle(&mut self) -> Result {
        if let Some(writing) = self.writing.take() {
            let (buffer, _) = writing.finish()?;
            self.spare = Some(buffer);
        }
        Ok(())
    }
}

impl Destination for Receiver {
    type Error = Fault;

    fn identity(&self) -> &Identity {
        self.function.identity()
    }

    fn interfaces(&self) -> Interfaces {
        self.function.interfaces()
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut()
    }

    fn clear_local(&mut self) -> Result<(), Fault> {
        self.settle()?;
        if self.identity().local_memory != 0 {
            self.function.data(Command::LOCAL_CLEAR, [0; 2], None)?;
        }
        Ok(())
    }

    fn write_local(&mut self, offset: u64, length: usize) -> Result<(), Fault> {
        self.settle()?;
        let next = match self.spare.take() {
            Some(buffer) => buffer,
            None => bulk_buffer(&self.function)?,
        };
        self.writing = Some(self.function.begin_data(
            Command::LOCAL_WRITE,
            [offset, length as u64],
            replace(&mut self.buffer, next),
            length,
        )?);
        Ok(())
    }

    fn write_control(&mut self, records: &[u8]) -> Result<(), Fault> {
        self.settle()?;
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
