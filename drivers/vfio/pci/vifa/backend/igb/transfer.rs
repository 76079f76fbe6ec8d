// SPDX-License-Identifier: GPL-2.0

//! The two ends of a transfer. A function has no local memory, so its records are its whole state.

use super::{
    portable::{
        fault::Fault,
        records::{
            decode_claim,
            encode_claim,
            ControlPlane, //
        },
    },
    Function, //
};
use crate::{
    backend::Backend,
    layer::{
        identity::Identity,
        interface::Interfaces,
        local::NoLocalMemory,
        restore::Destination,
        save::Source, //
    },
    seam::Bytes,
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A function that is saved: the output party.
pub(crate) struct Sender {
    function: Arc<Function>,
    claim: Bytes,
    records: Bytes,
}

impl Sender {
    pub(super) fn new(function: Arc<Function>) -> Result<Self, Fault> {
        Ok(Self {
            function,
            claim: Bytes::with_capacity(0)?,
            records: Bytes::with_capacity(0)?,
        })
    }
}

impl Source for Sender {
    type Error = Fault;
    type Local = NoLocalMemory;

    fn identity(&self) -> &Identity {
        self.function.identity()
    }

    fn interfaces(&self) -> Interfaces {
        self.function.interfaces()
    }

    fn claim(&mut self) -> Result<&[u8], Fault> {
        let configuration = self
            .function
            .inspect(|state| *state.shadow().configuration())?;

        self.claim = encode_claim(&configuration)?;
        Ok(&self.claim)
    }

    fn read_control(&mut self) -> Result<(), Fault> {
        let (plane, presumed) = self
            .function
            .with(|state, hardware| Ok((state.save(hardware)?, state.shadow().presumed())))?;

        if presumed != 0 {
            self.function.warn(format_args!(
                "failed to read {presumed} mailbox answers before they were overwritten: assumed \
                 to be positive"
            ));
        }
        self.records = plane.encode()?;
        Ok(())
    }

    fn control(&self) -> &[u8] {
        &self.records
    }

    fn configurations(&mut self) -> Result<u32, Fault> {
        self.function.inspect(|state| state.shadow().generation())
    }

    fn local(&mut self) -> Option<&mut NoLocalMemory> {
        None
    }
}

/// Length of the buffer for skipped bytes.
const SKIPPED: usize = 4096;

/// A function that is restored: the receiver.
pub(crate) struct Receiver {
    function: Arc<Function>,
    /// The buffer for skipped bytes.
    buffer: Bytes,
    /// The control plane that was loaded to the function.
    prepared: Option<ControlPlane>,
}

impl Receiver {
    pub(super) fn new(function: Arc<Function>) -> Result<Self, Fault> {
        let mut buffer = Bytes::with_capacity(SKIPPED)?;

        buffer.resize_zeroed(SKIPPED)?;
        Ok(Self {
            function,
            buffer,
            prepared: None,
        })
    }
}

impl Destination for Receiver {
    type Error = Fault;
    type Local = NoLocalMemory;

    fn identity(&self) -> &Identity {
        self.function.identity()
    }

    fn interfaces(&self) -> Interfaces {
        self.function.interfaces()
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn claim(&mut self, records: &[u8]) -> Result<(), Fault> {
        let configuration = decode_claim(records, self.identity())?;

        self.function
            .with(|state, hardware| state.rehearse(hardware, &configuration))
    }

    fn prepare(&mut self, records: &[u8]) -> Result<(), Fault> {
        let plane = ControlPlane::decode(records, self.identity())?;

        self.prepared = None;
        self.function
            .with(|state, hardware| state.prepare(hardware, &plane))?;
        self.prepared = Some(plane);
        Ok(())
    }

    fn local(&mut self) -> Option<&mut NoLocalMemory> {
        None
    }

    fn write_control(&mut self, _records: &[u8]) -> Result<(), Fault> {
        // The records are those of `prepare`.
        let plane = self.prepared.take().ok_or(EINVAL)?;

        self.function
            .with(|state, hardware| state.adopt(hardware, &plane))
    }
}
