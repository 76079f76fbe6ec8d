// SPDX-License-Identifier: GPL-2.0

//! Whether a stream is sound: the driver's own layer decides.
//!
//! The layer takes a stream into a [`Replica`], a destination that has no device behind it. What it
//! refuses there the kernel refuses, too, and for the same reason.

use crate::{
    function::Address,
    layer::{
        identity::Identity,
        interface::{Function, Interfaces},
        progress::Progress,
        restore::{Destination, RestoreError, Restorer},
        stream::DATA_RUN_MAX,
    },
};
use std::convert::Infallible;

/// Why the layer refuses a stream. There is no device that could fail.
pub(crate) type Refusal = RestoreError<Infallible>;

/// A destination without a device.
struct Replica {
    identity: Identity,
    interfaces: Interfaces,
    buffer: Vec<u8>,
}

impl Destination for Replica {
    type Error = Infallible;

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn interfaces(&self) -> Interfaces {
        self.interfaces
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn clear_local(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn write_local(&mut self, _offset: u64, _length: usize) -> Result<(), Infallible> {
        Ok(())
    }

    fn write_control(&mut self, _records: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Judges a stream that comes piece by piece. Takes the same memory for a stream of any length.
pub(crate) struct Verdict {
    restorer: Restorer<Infallible>,
    replica: Replica,
}

impl Verdict {
    /// Judges a stream as a function does that is as `identity` says and has these `interfaces`.
    pub(crate) fn of(identity: Identity, interfaces: Interfaces) -> Self {
        Self {
            restorer: Restorer::new(),
            replica: Replica {
                identity,
                interfaces,
                buffer: vec![0; DATA_RUN_MAX],
            },
        }
    }

    /// From now on judges as a function that is as `identity` says.
    pub(crate) fn assume_identity(&mut self, identity: Identity) {
        self.replica.identity = identity;
    }

    /// From now on judges as a function with these `interfaces`.
    pub(crate) fn assume_interfaces(&mut self, interfaces: Interfaces) {
        self.replica.interfaces = interfaces;
    }

    /// Takes the next `bytes` of the stream.
    ///
    /// # Errors
    ///
    /// They complete something that the layer refuses.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            let space = self.restorer.space(&mut self.replica)?;
            let (now, later) = bytes.split_at(space.len().min(bytes.len()));

            space[..now.len()].copy_from_slice(now);
            self.restorer.filled(&mut self.replica, now.len())?;
            bytes = later;
        }
        Ok(())
    }

    /// Returns what the layer has taken so far.
    pub(crate) fn progress(&self) -> &Progress {
        self.restorer.progress()
    }

    /// Ends the stream.
    ///
    /// # Errors
    ///
    /// It is not complete, or was refused before.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        let Self {
            restorer,
            mut replica,
        } = self;

        restorer.finish(&mut replica)
    }
}

/// The interfaces of the function at `address`.
pub(crate) fn interfaces_of(address: Address) -> Interfaces {
    Interfaces::of(Function {
        domain: address.domain,
        bus: address.bus,
        devfn: (address.device << 3) | address.function,
    })
}
