// SPDX-License-Identifier: GPL-2.0

//! Tests that any failure of a device ends the transfer with the device's error, permanently.

use vifa_decoder::encoder::{head, records, Section};

use crate::{
    layer::{
        identity::Identity,
        interface::Interfaces,
        restore::{Class, Destination, LocalDestination, RestoreError, Restorer},
        save::{Begin, InfoVersion, LocalSource, Piece, SaveError, Saver, Source},
        tests::device::{write, Device, CONTROL, IDENTITY},
    },
    seam::{with_allowance, OutOfMemory},
};

/// A device that fails after a number of calls.
struct Failing {
    device: Device,
    /// Number of calls before the failure.
    left: usize,
}

impl Failing {
    fn after(left: usize) -> Self {
        let mut device = Device::new(IDENTITY).unwrap();

        for granule in [2, 9, 10] {
            device.fill(granule);
        }
        Self { device, left }
    }

    fn call(&mut self) -> Result<&mut Device, usize> {
        self.left = self.left.checked_sub(1).ok_or(0usize)?;
        Ok(&mut self.device)
    }
}

/// Unwraps a result of the device in memory, which does not fail.
fn done<T>(result: Result<T, OutOfMemory>) -> Result<T, usize> {
    Ok(result.unwrap())
}

impl Source for Failing {
    type Error = usize;
    type Local = Self;

    fn identity(&self) -> &Identity {
        &self.device.identity
    }

    fn interfaces(&self) -> Interfaces {
        Source::interfaces(&self.device)
    }

    fn read_control(&mut self) -> Result<(), usize> {
        done(self.call()?.read_control())
    }

    fn control(&self) -> &[u8] {
        self.device.control()
    }

    fn claim(&mut self) -> Result<&[u8], usize> {
        done(Source::claim(self.call()?))
    }

    fn configurations(&mut self) -> Result<u32, usize> {
        done(self.call()?.configurations())
    }

    fn local(&mut self) -> Option<&mut Self> {
        Some(self)
    }
}

impl LocalSource<usize> for Failing {
    fn mapped(&mut self, offset: u64, length: u64) -> Result<&[u8], usize> {
        done(self.call()?.mapped(offset, length))
    }

    fn changed(&mut self, offset: u64, length: u64) -> Result<&[u8], usize> {
        done(self.call()?.changed(offset, length))
    }

    fn read_local(&mut self, offset: u64, length: usize) -> Result<(), usize> {
        done(self.call()?.read_local(offset, length))
    }

    fn run(&self) -> &[u8] {
        self.device.run()
    }
}

impl Destination for Failing {
    type Error = usize;
    type Local = Self;

    fn identity(&self) -> &Identity {
        &self.device.identity
    }

    fn interfaces(&self) -> Interfaces {
        Destination::interfaces(&self.device)
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.device.buffer()
    }

    fn local(&mut self) -> Option<&mut Self> {
        Some(self)
    }

    fn claim(&mut self, records: &[u8]) -> Result<(), usize> {
        done(Destination::claim(self.call()?, records))
    }

    fn prepare(&mut self, records: &[u8]) -> Result<(), usize> {
        done(self.call()?.prepare(records))
    }

    fn write_control(&mut self, records: &[u8]) -> Result<(), usize> {
        done(self.call()?.write_control(records))
    }
}

impl LocalDestination<usize> for Failing {
    fn clear_local(&mut self) -> Result<(), usize> {
        done(self.call()?.clear_local())
    }

    fn write_local(&mut self, offset: u64, length: usize) -> Result<(), usize> {
        done(self.call()?.write_local(offset, length))
    }
}

/// Reads a stream to its end, and returns its length.
fn save<S: Source>(
    saver: &mut Saver<S::Error>,
    source: &mut S,
) -> Result<usize, SaveError<S::Error>> {
    let mut length = 0;

    while let Piece::Bytes(piece) = saver.remaining(source)? {
        let piece = piece.len();
        length += piece;
        saver.consume(piece);
    }
    Ok(length)
}

/// The saver queries the mapped granules of a stopped device, reads two ranges with two calls, and
/// reads the control plane with one.
#[test]
fn of_a_source() {
    for left in 0..4 {
        let mut source = Failing::after(left);
        let mut saver = Saver::new(Begin::Stopped);

        assert_eq!(save(&mut saver, &mut source), Err(SaveError::Device(0)));
        source.left = usize::MAX;
        assert_eq!(save(&mut saver, &mut source), Err(SaveError::Device(0)));
    }
    let saved = save(&mut Saver::new(Begin::Stopped), &mut Failing::after(4));
    assert!(saved.is_ok_and(|length| length > 0x3000));
}

/// Reads a stream of a running device to its pause, queries the outstanding bytes, stops the
/// device, and reads to the end.
fn save_running(saver: &mut Saver<usize>, source: &mut Failing) -> Result<usize, SaveError<usize>> {
    let before = save(saver, source)?;

    source.device.fill(9);
    saver.outstanding(source, InfoVersion::V2)?;
    saver.left(source)?;
    saver.stopped();
    Ok(before + save(saver, source)?)
}

/// For a running device, the saver also queries the number of configurations and the changes: at
/// the start, where it discards them, at the end of each round, and for each query of outstanding
/// bytes. It reads the claim once, because the device is not reconfigured. After the stop it
/// queries the changes once more.
#[test]
fn of_a_source_that_runs() {
    const CALLS: usize = 4 + 2 + 2 + 2 + 2 + 1 + 1 + 1;

    for left in 0..CALLS {
        let mut source = Failing::after(left);
        let mut saver = Saver::new(Begin::PreCopy);

        assert_eq!(
            save_running(&mut saver, &mut source),
            Err(SaveError::Device(0)),
            "after {left} calls"
        );
        source.left = usize::MAX;
        let error = Err(SaveError::Device(0));
        assert_eq!(saver.remaining(&mut source), error);
        assert_eq!(saver.left(&mut source), Err(SaveError::Device(0)));
        assert_eq!(
            saver.outstanding(&mut source, InfoVersion::V1),
            Err(SaveError::Device(0)),
        );
    }
    let mut saver = Saver::new(Begin::PreCopy);
    let saved = save_running(&mut saver, &mut Failing::after(CALLS));
    assert!(saved.is_ok_and(|length| length > 0x4000));
}

/// A claim is tried with one call. Memory is cleared with one call and written with two. The
/// complete stream is prepared with one call, and the control plane is written with one call at the
/// end.
#[test]
fn of_a_destination() {
    let mut stream = head();
    stream.sections.push(Section::claim(&records()));
    stream.push_part(0, &[(0x1000, vec![1; 0x2000]), (0xf000, vec![2; 0x1000])]);
    stream.sections.push(Section::control(&records()));
    let stream = stream.sealed();

    for left in 0..6 {
        let mut destination = Failing::after(left);
        let mut restorer = Restorer::new();
        destination.device.control.fill(0);

        let expected = match left {
            0 | 4 => Err(RestoreError::Unobtainable(0)),
            1..4 => Err(RestoreError::Device(0)),
            _ => Ok(()),
        };
        assert_eq!(
            write(&mut destination, &mut restorer, &[usize::MAX], &stream),
            expected
        );
        if let Err(error) = expected {
            destination.left = usize::MAX;
            assert!(matches!(restorer.space(&mut destination), Err(found) if found == error));
        }
        let error = restorer.finish(&mut destination).unwrap_err();
        assert_eq!(error, expected.err().unwrap_or(RestoreError::Device(0)));
        assert_eq!(error.class(), Class::Device(0));
        assert!(destination.device.control.iter().all(|&byte| byte == 0));
    }

    let mut destination = Failing::after(6);
    let mut restorer = Restorer::new();
    write(&mut destination, &mut restorer, &[usize::MAX], &stream).unwrap();
    restorer.finish(&mut destination).unwrap();
    assert!(destination.device.control[..] == CONTROL);
}

/// A device whose buffer shrinks during a piece fails the save.
#[test]
fn of_a_source_in_the_middle_of_a_piece() {
    let mut source = Device::new(IDENTITY).unwrap();
    let mut saver = Saver::new(Begin::Stopped);
    source.fill(0);

    while saver.progress().sections < 3 {
        assert!(matches!(saver.remaining(&mut source), Ok(Piece::Bytes(_))));
        saver.consume(1);
    }
    assert!(matches!(saver.remaining(&mut source), Ok(Piece::Bytes(_))));
    saver.consume(1000);
    source.missing = 0x1000;
    let error = saver.remaining(&mut source).unwrap_err();
    assert_eq!(
        error.to_string(),
        "data from the device: length: expected 0x1000, found 0x0",
    );
    source.missing = 0;
    assert_eq!(saver.remaining(&mut source), Err(error));
}

/// A source requires memory for a part of the address record file and for a set of its granules,
/// only if it has local memory.
#[test]
fn of_memory() {
    const PART: usize = 16 + 1024 * 24;
    const GRANULES: usize = 8;
    let save = |source: &mut Device, allowance| {
        with_allowance(allowance, || save(&mut Saver::new(Begin::Stopped), source))
    };
    let mut source = Device::new(IDENTITY).unwrap();
    let mut without = Device::new(Identity {
        features: 0,
        local_memory: 0,
        ..IDENTITY
    })
    .unwrap();

    for granule in [2, 9, 10] {
        source.fill(granule);
    }
    for allowance in [0, GRANULES - 1, GRANULES, GRANULES + PART - 1] {
        let error = save(&mut source, allowance).unwrap_err();
        assert_eq!(error, SaveError::OutOfMemory);
        assert_eq!(
            error.to_string(),
            "no memory for the address record file or a claim"
        );
    }
    assert!(save(&mut source, GRANULES + PART).is_ok());
    assert!(save(&mut without, 0).is_ok());
}
