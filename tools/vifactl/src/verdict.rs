// SPDX-License-Identifier: GPL-2.0

//! Validation of streams by the driver's own layer.
//!
//! The layer restores a stream to a [`Replica`], a destination without a device. The kernel rejects
//! the same streams, for the same reasons.

use std::convert::Infallible;

use vifa_vfio::pci::Address;

use crate::layer::{
    identity::Identity,
    interface::{Function, Interfaces},
    progress::Progress,
    restore::{Destination, LocalDestination, RestoreError, Restorer},
    stream::DATA_RUN_MAX,
};

/// The reason for which the layer rejects a stream. No device is involved that could fail.
pub(crate) type Refusal = RestoreError<Infallible>;

/// A destination without a device.
struct Replica {
    identity: Identity,
    interfaces: Interfaces,
    buffer: Vec<u8>,
}

impl Destination for Replica {
    type Error = Infallible;
    type Local = Self;

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn interfaces(&self) -> Interfaces {
        self.interfaces
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn local(&mut self) -> Option<&mut Self> {
        Some(self)
    }

    fn write_control(&mut self, _records: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }
}

impl LocalDestination<Infallible> for Replica {
    fn clear_local(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn write_local(&mut self, _offset: u64, _length: usize) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Validates a stream piece by piece. Memory use does not depend on the stream's length.
pub(crate) struct Verdict {
    restorer: Restorer<Infallible>,
    replica: Replica,
}

impl Verdict {
    /// Creates a validator for a destination with this `identity` and these `interfaces`.
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

    /// Replaces the destination's identity.
    pub(crate) fn assume_identity(&mut self, identity: Identity) {
        self.replica.identity = identity;
    }

    /// Replaces the destination's interfaces.
    pub(crate) fn assume_interfaces(&mut self, interfaces: Interfaces) {
        self.replica.interfaces = interfaces;
    }

    /// Passes the next `bytes` of the stream to the layer.
    ///
    /// # Errors
    ///
    /// The layer rejects data that these bytes complete.
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

    /// Returns the progress of the layer.
    pub(crate) fn progress(&self) -> &Progress {
        self.restorer.progress()
    }

    /// Ends the stream.
    ///
    /// # Errors
    ///
    /// The stream is incomplete, or was rejected before.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        let Self {
            restorer,
            mut replica,
        } = self;

        restorer.finish(&mut replica)
    }
}

/// Returns the interfaces of the function at `address`.
pub(crate) fn interfaces_of(address: Address) -> Interfaces {
    Interfaces::of(Function {
        domain: address.domain,
        bus: address.bus,
        devfn: (address.device << 3) | address.function,
    })
}
