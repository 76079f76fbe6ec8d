// SPDX-License-Identifier: GPL-2.0

//! Tests of a device whose local memory is of the type [`NoLocalMemory`].

use crate::{
    layer::{
        identity::{Identity, FEATURE_P2P},
        interface::Interfaces,
        local::NoLocalMemory,
        restore::{Destination, RestoreError, Restorer},
        save::{Begin, Piece, Saver, Source},
        tests::device::{write, Device, IDENTITY},
    },
    seam::OutOfMemory,
};

const WITHOUT: Identity = Identity {
    features: FEATURE_P2P,
    granule: 0,
    local_memory: 0,
    ..IDENTITY
};

/// A device that never has local memory, whatever its identity states.
struct Bare(Device);

impl Bare {
    fn new(identity: Identity) -> Self {
        Self(Device::new(identity).unwrap())
    }
}

impl Source for Bare {
    type Error = OutOfMemory;
    type Local = NoLocalMemory;

    fn identity(&self) -> &Identity {
        Source::identity(&self.0)
    }

    fn interfaces(&self) -> Interfaces {
        Source::interfaces(&self.0)
    }

    fn read_control(&mut self) -> Result<(), OutOfMemory> {
        self.0.read_control()
    }

    fn control(&self) -> &[u8] {
        self.0.control()
    }

    fn configurations(&mut self) -> Result<u32, OutOfMemory> {
        self.0.configurations()
    }

    fn local(&mut self) -> Option<&mut NoLocalMemory> {
        None
    }
}

impl Destination for Bare {
    type Error = OutOfMemory;
    type Local = NoLocalMemory;

    fn identity(&self) -> &Identity {
        Destination::identity(&self.0)
    }

    fn interfaces(&self) -> Interfaces {
        Destination::interfaces(&self.0)
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.0.buffer()
    }

    fn local(&mut self) -> Option<&mut NoLocalMemory> {
        None
    }

    fn write_control(&mut self, records: &[u8]) -> Result<(), OutOfMemory> {
        self.0.write_control(records)
    }
}

/// Saves a device that runs until the first pause.
fn save(source: &mut Bare) -> Vec<u8> {
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Vec::new();

    loop {
        match saver.remaining(source).unwrap() {
            Piece::Bytes(piece) => {
                let length = piece.len();

                stream.extend_from_slice(piece);
                saver.consume(length);
            }
            Piece::Pause => saver.stopped(),
            Piece::End => return stream,
        }
    }
}

/// Restores `stream`.
fn restore(destination: &mut Bare, stream: &[u8]) -> Result<(), RestoreError<OutOfMemory>> {
    let mut restorer = Restorer::new();

    write(destination, &mut restorer, &[usize::MAX], stream)?;
    restorer.finish(destination)
}

#[test]
fn a_device_of_that_type_is_saved_and_restored() {
    let mut source = Bare::new(WITHOUT);
    let mut destination = Bare::new(WITHOUT);
    let stream = save(&mut source);

    destination.0.write_control(&[]).unwrap();
    assert_eq!(restore(&mut destination, &stream), Ok(()));
    assert!(destination.0.has_state_of(&source.0));
    assert_eq!(
        Device::new(WITHOUT).unwrap().save(&[usize::MAX]).unwrap()[..],
        stream[..]
    );
}

#[test]
fn a_run_is_refused_if_the_identity_states_memory_that_the_device_does_not_have() {
    let mut source = Device::new(IDENTITY).unwrap();

    source.fill(3);
    let stream = source.save(&[usize::MAX]).unwrap();
    assert_eq!(
        restore(&mut Bare::new(IDENTITY), &stream),
        Err(RestoreError::Buffer)
    );
}

#[test]
fn no_memory_is_saved_if_the_identity_states_memory_that_the_device_does_not_have() {
    let stream = save(&mut Bare::new(IDENTITY));

    assert_eq!(
        Device::new(IDENTITY).unwrap().save(&[usize::MAX]).unwrap()[..],
        stream[..]
    );
}
