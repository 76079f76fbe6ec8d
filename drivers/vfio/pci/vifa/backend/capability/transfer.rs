// SPDX-License-Identifier: GPL-2.0

//! The two ends of a transfer, for a device with the VIFA capability.
//!
//! Each end has two buffers for local memory, so that the device and the processor work in
//! parallel. The device reads the next run while the previous one is copied to user space, and
//! writes one run while the next one arrives.

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
    bindings::VIFA_CONTROL_CONFIGURATIONS,
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

/// Allocates a buffer for a run of local memory.
fn run_buffer(function: &Function) -> Result<Buffer> {
    let identity = &function.identity;
    let size = identity.local_memory.min(DATA_RUN_MAX as u64);
    function.buffer(size as usize, identity.granule as usize)
}

/// Allocates a buffer for the control plane.
fn control_buffer(function: &Function) -> Result<Buffer> {
    let size = function.identity.control_plane_max as usize;
    function.buffer(size, size)
}

/// A run of local memory that the device reads or writes, with one or more commands.
struct Transfer {
    function: Arc<Function>,
    command: Command,
    run: Range,
    /// Number of bytes of the run for which commands were started.
    begun: usize,
    pending: Pending,
}

impl Transfer {
    /// Starts a run.
    fn begin(
        function: &Arc<Function>,
        command: Command,
        run: Range,
        buffer: Buffer,
    ) -> Result<Self, Fault> {
        let (pending, begun) = Self::continue_from(function, command, run, buffer, 0)?;
        Ok(Self {
            function: function.clone(),
            command,
            run,
            begun,
            pending,
        })
    }

    /// Starts a command for the part of a run after the first `done` bytes. Also returns the end of
    /// that part.
    fn continue_from(
        function: &Function,
        command: Command,
        run: Range,
        buffer: Buffer,
        done: usize,
    ) -> Result<(Pending, usize), Fault> {
        let part = buffer.part(done..run.length as usize)?;
        let end = part.end;
        let arguments = [run.start + done as u64, part.len() as u64];
        let pending = function.begin_data(command, arguments, buffer, part)?;
        Ok((pending, end))
    }

    /// Waits for the end of the run, and returns the buffer.
    fn finish(mut self) -> Result<Buffer, Fault> {
        loop {
            let result = self.pending.finish();
            let (buffer, _) = result.map_err(|failure| Fault::Command(self.command, failure))?;
            if self.begun >= self.run.length as usize {
                return Ok(buffer);
            }
            (self.pending, self.begun) =
                Self::continue_from(&self.function, self.command, self.run, buffer, self.begun)?;
        }
    }
}

/// The data that was read last.
enum Piece {
    /// The control plane.
    Control,
    /// This number of bytes of local memory.
    Local(usize),
}

/// The local memory of a device that is being saved.
struct LocalMemory {
    /// The run that was read last.
    filled: Buffer,
    reading: Option<Transfer>,
    /// The unused buffer.
    spare: Option<Buffer>,
    bitmap: Bitmap,
}

impl LocalMemory {
    fn new(function: &Function) -> Result<Self> {
        Ok(Self {
            filled: run_buffer(function)?,
            reading: None,
            spare: Some(run_buffer(function)?),
            bitmap: Bitmap::new(function)?,
        })
    }

    /// Starts to read a run.
    fn begin(&mut self, function: &Arc<Function>, run: Range) -> Result<Transfer, Fault> {
        let buffer = match self.spare.take() {
            Some(buffer) => buffer,
            None => run_buffer(function)?,
        };
        Transfer::begin(function, Command::LOCAL_READ, run, buffer)
    }
}

/// A device that is being saved: the output party.
///
/// It allocates all buffers of the transfer in advance, so that no allocation is necessary while
/// the device is stopped.
pub(crate) struct Sender {
    function: Arc<Function>,
    piece: Piece,
    control: Buffer,
    /// A copy of the control plane, which the device cannot change while the layer checks it.
    copy: Bytes,
    /// `None` if the device has no local memory.
    local: Option<LocalMemory>,
}

impl Sender {
    pub(super) fn new(function: Arc<Function>) -> Result<Self> {
        let identity = &function.identity;
        let copy = Bytes::with_capacity(identity.control_plane_max as usize);
        let local = match identity.local_memory {
            0 => None,
            _ => Some(LocalMemory::new(&function)?),
        };
        Ok(Self {
            piece: Piece::Control,
            control: control_buffer(&function)?,
            copy: copy.map_err(|_| ENOMEM)?,
            local,
            function,
        })
    }

    /// Reads a bitmap of granules.
    fn granules(&mut self, which: Granules, offset: u64, length: u64) -> Result<&[u8], Fault> {
        let local = self.local.as_mut().ok_or(EIO)?;
        let (bitmap, _) = local.bitmap.query(&self.function, which, offset, length)?;
        Ok(bitmap)
    }
}

impl Source for Sender {
    type Error = Fault;

    fn identity(&self) -> &Identity {
        &self.function.identity
    }

    fn interfaces(&self) -> Interfaces {
        self.function.interfaces
    }

    fn read_control(&mut self) -> Result<(), Fault> {
        let capacity = self.identity().control_plane_max as usize;
        let buffer = Some((&mut self.control, 0..capacity));
        let Results(length, _) = self.function.control(Command::SAVE, 0, buffer)?;
        if length > capacity as u64 {
            return Err(Fault::Length(length, capacity));
        }
        let length = length as usize;
        self.copy.resize_zeroed(length).map_err(|_| ENOMEM)?;
        self.copy.copy_from_slice(self.control.bytes(length));
        self.piece = Piece::Control;
        Ok(())
    }

    fn configurations(&mut self) -> Result<u32, Fault> {
        Ok(self.function.control.read(VIFA_CONTROL_CONFIGURATIONS)?)
    }

    fn mapped(&mut self, offset: u64, length: u64) -> Result<&[u8], Fault> {
        self.granules(Granules::Mapped, offset, length)
    }

    fn changed(&mut self, offset: u64, length: u64) -> Result<&[u8], Fault> {
        self.granules(Granules::Changed, offset, length)
    }

    fn read_local(&mut self, offset: u64, length: usize) -> Result<(), Fault> {
        let run = Range {
            start: offset,
            length: length as u64,
        };
        let local = self.local.as_mut().ok_or(EIO)?;
        let ahead = local.reading.take().filter(|reading| reading.run == run);
        let reading = match ahead {
            Some(reading) => reading,
            None => local.begin(&self.function, run)?,
        };
        local.spare = Some(replace(&mut local.filled, reading.finish()?));
        self.piece = Piece::Local(length);
        Ok(())
    }

    fn prefetch_local(&mut self, offset: u64, length: usize) {
        let run = Range {
            start: offset,
            length: length as u64,
        };
        if let Some(local) = &mut self.local {
            local.reading = None;
            // A failure is ignored here. It recurs when the run is read, and is then reported.
            local.reading = local.begin(&self.function, run).ok();
        }
    }

    fn piece(&self) -> &[u8] {
        match (&self.piece, &self.local) {
            (Piece::Control, _) => &self.copy,
            (Piece::Local(length), Some(local)) => local.filled.bytes(*length),
            (Piece::Local(_), None) => &[],
        }
    }
}

/// The local memory of a device that is being restored.
struct IncomingMemory {
    /// The buffer for the next run.
    buffer: Buffer,
    /// The run that the device is writing to its local memory.
    writing: Option<Transfer>,
    /// The unused buffer.
    spare: Option<Buffer>,
}

/// A device that is being restored: the receiver.
pub(crate) struct Receiver {
    function: Arc<Function>,
    control: Buffer,
    /// `None` if the device has no local memory.
    local: Option<IncomingMemory>,
}

impl Receiver {
    pub(super) fn new(function: Arc<Function>) -> Result<Self> {
        let local = match function.identity.local_memory {
            0 => None,
            _ => Some(IncomingMemory {
                buffer: run_buffer(&function)?,
                writing: None,
                spare: Some(run_buffer(&function)?),
            }),
        };
        Ok(Self {
            control: control_buffer(&function)?,
            local,
            function,
        })
    }

    /// Waits until the device has written the last run.
    fn settle(&mut self) -> Result<(), Fault> {
        if let Some(local) = &mut self.local {
            if let Some(writing) = local.writing.take() {
                local.spare = Some(writing.finish()?);
            }
        }
        Ok(())
    }
}

impl Destination for Receiver {
    type Error = Fault;

    fn identity(&self) -> &Identity {
        &self.function.identity
    }

    fn interfaces(&self) -> Interfaces {
        self.function.interfaces
    }

    fn buffer(&mut self) -> &mut [u8] {
        match &mut self.local {
            Some(local) => local.buffer.bytes_mut(),
            None => self.control.bytes_mut(),
        }
    }

    fn clear_local(&mut self) -> Result<(), Fault> {
        self.settle()?;
        if self.local.is_some() {
            self.function.data(Command::LOCAL_CLEAR, [0; 2], None)?;
        }
        Ok(())
    }

    fn write_local(&mut self, offset: u64, length: usize) -> Result<(), Fault> {
        self.settle()?;
        let run = Range {
            start: offset,
            length: length as u64,
        };
        let local = self.local.as_mut().ok_or(EIO)?;
        let next = match local.spare.take() {
            Some(buffer) => buffer,
            None => run_buffer(&self.function)?,
        };
        let buffer = replace(&mut local.buffer, next);
        local.writing = Some(Transfer::begin(
            &self.function,
            Command::LOCAL_WRITE,
            run,
            buffer,
        )?);
        Ok(())
    }

    fn write_control(&mut self, records: &[u8]) -> Result<(), Fault> {
        self.settle()?;
        let bytes = self.control.bytes_mut().get_mut(..records.len());
        bytes.ok_or(EIO)?.copy_from_slice(records);
        self.function.control(
            Command::LOAD,
            records.len() as u64,
            Some((&mut self.control, 0..records.len())),
        )?;
        Ok(())
    }
}
