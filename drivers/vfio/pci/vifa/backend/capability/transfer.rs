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
    },
    spare::Spare, //
};
use crate::{
    bindings::VIFA_CONTROL_CONFIGURATIONS,
    layer::{
        address::Range,
        identity::Identity,
        interface::Interfaces,
        restore::{
            Destination,
            LocalDestination, //
        },
        save::{
            LocalSource,
            Source, //
        },
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

/// The local memory of a device that is being saved.
pub(crate) struct OutgoingMemory {
    function: Arc<Function>,
    /// The run that was read last.
    filled: Buffer,
    /// Length in bytes of the run that was read last.
    length: usize,
    reading: Option<Transfer>,
    spare: Spare<1>,
    bitmap: Bitmap,
}

impl OutgoingMemory {
    /// Allocates the buffers, or returns `None` if the device has no local memory.
    fn new(function: &Arc<Function>) -> Result<Option<Self>> {
        if function.identity.local_memory == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            function: function.clone(),
            filled: run_buffer(function)?,
            length: 0,
            reading: None,
            spare: Spare::new([run_buffer(function)?]),
            bitmap: Bitmap::new(function)?,
        }))
    }

    /// Starts to read a run.
    fn begin(&mut self, run: Range) -> Result<Transfer, Fault> {
        let buffer = self.spare.take_or(|| run_buffer(&self.function))?;
        Transfer::begin(&self.function, Command::LOCAL_READ, run, buffer)
    }

    /// Reads a bitmap of granules.
    fn granules(&mut self, which: Granules, offset: u64, length: u64) -> Result<&[u8], Fault> {
        let (bitmap, _) = self.bitmap.query(&self.function, which, offset, length)?;
        Ok(bitmap)
    }
}

impl LocalSource<Fault> for OutgoingMemory {
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
        let ahead = self.reading.take().filter(|reading| reading.run == run);
        let reading = match ahead {
            Some(reading) => reading,
            None => self.begin(run)?,
        };
        let unused = replace(&mut self.filled, reading.finish()?);
        self.spare.put_back(unused);
        self.length = length;
        Ok(())
    }

    fn prefetch_local(&mut self, offset: u64, length: usize) {
        let run = Range {
            start: offset,
            length: length as u64,
        };
        self.reading = None;
        // A failure is ignored here. It recurs when the run is read, and is then reported.
        self.reading = self.begin(run).ok();
    }

    fn run(&self) -> &[u8] {
        self.filled.bytes(self.length)
    }
}

/// A device that is being saved: the output party.
///
/// It allocates all buffers of the transfer in advance, so that no allocation is necessary while
/// the device is stopped.
pub(crate) struct Sender {
    function: Arc<Function>,
    control: Buffer,
    /// A copy of the control plane, which the device cannot change while the layer checks it.
    copy: Bytes,
    local: Option<OutgoingMemory>,
}

impl Sender {
    pub(super) fn new(function: Arc<Function>) -> Result<Self> {
        let identity = &function.identity;
        let copy = Bytes::with_capacity(identity.control_plane_max as usize);
        Ok(Self {
            local: OutgoingMemory::new(&function)?,
            control: control_buffer(&function)?,
            copy: copy.map_err(|_| ENOMEM)?,
            function,
        })
    }
}

impl Source for Sender {
    type Error = Fault;
    type Local = OutgoingMemory;

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
        Ok(())
    }

    fn control(&self) -> &[u8] {
        &self.copy
    }

    fn configurations(&mut self) -> Result<u32, Fault> {
        Ok(self.function.control.read(VIFA_CONTROL_CONFIGURATIONS)?)
    }

    fn local(&mut self) -> Option<&mut OutgoingMemory> {
        self.local.as_mut()
    }
}

/// The local memory of a device that is being restored.
pub(crate) struct IncomingMemory {
    function: Arc<Function>,
    /// The buffer for the next run.
    buffer: Buffer,
    /// The run that the device is writing to its local memory.
    writing: Option<Transfer>,
    spare: Spare<1>,
}

impl IncomingMemory {
    /// Allocates the buffers, or returns `None` if the device has no local memory.
    fn new(function: &Arc<Function>) -> Result<Option<Self>> {
        if function.identity.local_memory == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            function: function.clone(),
            buffer: run_buffer(function)?,
            writing: None,
            spare: Spare::new([run_buffer(function)?]),
        }))
    }

    /// Waits until the device has written the last run.
    fn settle(&mut self) -> Result<(), Fault> {
        if let Some(writing) = self.writing.take() {
            self.spare.put_back(writing.finish()?);
        }
        Ok(())
    }
}

impl LocalDestination<Fault> for IncomingMemory {
    fn clear_local(&mut self) -> Result<(), Fault> {
        self.settle()?;
        self.function.data(Command::LOCAL_CLEAR, [0; 2], None)?;
        Ok(())
    }

    fn write_local(&mut self, offset: u64, length: usize) -> Result<(), Fault> {
        self.settle()?;
        let run = Range {
            start: offset,
            length: length as u64,
        };
        let next = self.spare.take_or(|| run_buffer(&self.function))?;
        let buffer = replace(&mut self.buffer, next);
        self.writing = Some(Transfer::begin(
            &self.function,
            Command::LOCAL_WRITE,
            run,
            buffer,
        )?);
        Ok(())
    }
}

/// A device that is being restored: the receiver.
pub(crate) struct Receiver {
    function: Arc<Function>,
    control: Buffer,
    local: Option<IncomingMemory>,
}

impl Receiver {
    pub(super) fn new(function: Arc<Function>) -> Result<Self> {
        Ok(Self {
            local: IncomingMemory::new(&function)?,
            control: control_buffer(&function)?,
            function,
        })
    }
}

impl Destination for Receiver {
    type Error = Fault;
    type Local = IncomingMemory;

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

    fn local(&mut self) -> Option<&mut IncomingMemory> {
        self.local.as_mut()
    }

    fn write_control(&mut self, records: &[u8]) -> Result<(), Fault> {
        if let Some(local) = &mut self.local {
            local.settle()?;
        }
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
