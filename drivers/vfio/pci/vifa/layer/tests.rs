// SPDX-License-Identifier: GPL-2.0

//! Tests of the layer that run in the kernel as well as on the host.
//!
//! A test is a function that fails with a [`Failure`]. [`suite!`] generates a module with all
//! tests: for KUnit in the kernel, and for `cargo test` on the host.

pub mod device;

use super::{
    address::{
        Range,
        Tracked, //
    },
    check::{
        Expectation,
        Violation, //
    },
    identity::{
        Identity,
        Mismatch,
        Rule,
        FEATURE_LOCAL_MEMORY, //
    },
    interface::{
        Function,
        Interfaces,
        Plane, //
    },
    progress::Progress,
    relation::{
        Relation,
        Relations, //
    },
    restore::{
        Class,
        RestoreError,
        Restorer, //
    },
    save::{
        Begin,
        InfoVersion,
        Outstanding,
        Piece,
        SaveError,
        Saver, //
    },
    state::{
        DeviceState,
        Step, //
    },
    stream::{
        AddressEntry,
        AddressHeader,
        Checksum,
        DataRun,
        End,
        IdentityPayload,
        Kind,
        Record,
        ResourcesHeader,
        HEADER_LENGTH,
        SECTION_HEADER_LENGTH, //
    },
};
use crate::seam::{
    Bytes,
    OutOfMemory, //
};
use device::{
    Device,
    FUNCTION,
    IDENTITY, //
};

/// The error of a failed test.
#[derive(Debug)]
#[allow(dead_code, reason = "only printed, and public for user space")]
pub enum Failure {
    /// A condition was false.
    False(&'static str, u32),
    /// An allocation failed.
    OutOfMemory,
    /// Saving a device failed.
    Save(SaveError<OutOfMemory>),
    /// Restoring a device failed.
    Restore(RestoreError<OutOfMemory>),
}

impl From<OutOfMemory> for Failure {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<SaveError<OutOfMemory>> for Failure {
    fn from(error: SaveError<OutOfMemory>) -> Self {
        Self::Save(error)
    }
}

impl From<RestoreError<OutOfMemory>> for Failure {
    fn from(error: RestoreError<OutOfMemory>) -> Self {
        Self::Restore(error)
    }
}

macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            return Err(Failure::False(stringify!($condition), line!()));
        }
    };
}

/// Lists the tests, and generates a module of them with the attribute `$attribute`, such as
/// `kunit_tests(vifa_layer)` or `cfg(test)`.
macro_rules! suite {
    ($attribute:meta) => {
        #[$attribute]
        mod layer_tests {
            use crate::layer::tests::{
                self,
                Failure, //
            };

            #[test]
            fn checksum() -> Result<(), Failure> {
                tests::checksum()
            }

            #[test]
            fn lengths() -> Result<(), Failure> {
                tests::lengths()
            }

            #[test]
            fn steps() -> Result<(), Failure> {
                tests::steps()
            }

            #[test]
            fn round_trip() -> Result<(), Failure> {
                tests::round_trip()
            }

            #[test]
            fn pause() -> Result<(), Failure> {
                tests::pause()
            }

            #[test]
            fn rounds() -> Result<(), Failure> {
                tests::rounds()
            }

            #[test]
            fn changes_while_read() -> Result<(), Failure> {
                tests::changes_while_read()
            }

            #[test]
            fn reinitialisation() -> Result<(), Failure> {
                tests::reinitialisation()
            }

            #[test]
            fn without_local_memory() -> Result<(), Failure> {
                tests::without_local_memory()
            }

            #[test]
            fn claims() -> Result<(), Failure> {
                tests::claims()
            }

            #[test]
            fn claims_between_rounds() -> Result<(), Failure> {
                tests::claims_between_rounds()
            }

            #[test]
            fn denied_claim() -> Result<(), Failure> {
                tests::denied_claim()
            }

            #[test]
            fn denied_control_plane() -> Result<(), Failure> {
                tests::denied_control_plane()
            }

            #[test]
            fn tracked() -> Result<(), Failure> {
                tests::tracked()
            }

            #[test]
            fn established() -> Result<(), Failure> {
                tests::established()
            }

            #[test]
            fn accounts() -> Result<(), Failure> {
                tests::accounts()
            }

            #[test]
            fn mismatch() -> Result<(), Failure> {
                tests::mismatch()
            }

            #[test]
            fn flipped_bits() -> Result<(), Failure> {
                tests::flipped_bits()
            }

            #[test]
            fn wrong_length() -> Result<(), Failure> {
                tests::wrong_length()
            }

            #[test]
            fn lying_source() -> Result<(), Failure> {
                tests::lying_source()
            }

            #[test]
            fn broken_stays_broken() -> Result<(), Failure> {
                tests::broken_stays_broken()
            }
        }
    };
}

pub(crate) use suite;

/// Segments for reads and writes of maximum length.
const WHOLE: &[usize] = &[usize::MAX];

/// The address of a destination.
const ELSEWHERE: Function = Function {
    domain: 1,
    bus: 3,
    devfn: 2,
};

/// Returns a device with a run of two mapped granules, a gap, and another granule at the end.
fn filled() -> Result<Device, OutOfMemory> {
    let mut device = Device::new(IDENTITY)?;

    for granule in [0, 1, 15] {
        device.fill(granule);
    }
    Ok(device)
}

/// Checks the CRCs of RFC 3720, B.4, and the usual check value.
pub fn checksum() -> Result<(), Failure> {
    let ascending: [u8; 32] = core::array::from_fn(|index| index as u8);

    ensure!(Checksum::of(&[]) == 0);
    ensure!(Checksum::of(&[0; 32]) == 0x8a91_36aa);
    ensure!(Checksum::of(&[0xff; 32]) == 0x62a8_ab43);
    ensure!(Checksum::of(&ascending) == 0x46dd_794e);
    ensure!(Checksum::of(b"123456789") == 0xe306_9283);
    ensure!(Checksum::EMPTY.and(b"1234").and(b"56789").value() == 0xe306_9283);
    Ok(())
}

/// The lengths match the documentation.
pub fn lengths() -> Result<(), Failure> {
    ensure!(HEADER_LENGTH == 16);
    ensure!(SECTION_HEADER_LENGTH == 32);
    ensure!(IdentityPayload::LENGTH == 120);
    ensure!(Relations::LENGTH == 48);
    ensure!(AddressHeader::LENGTH == 16);
    ensure!(AddressEntry::LENGTH == 24);
    ensure!(DataRun::LENGTH == 8);
    ensure!(ResourcesHeader::LENGTH == 16);
    ensure!(Record::LENGTH == 16);
    ensure!(End::LENGTH == 32);
    Ok(())
}

/// The single arcs are those that `vfio_mig_get_next_state()` requires a driver to implement.
pub fn steps() -> Result<(), Failure> {
    use DeviceState::*;

    let arcs = [
        (RunningP2p, Running, Step::Run),
        (Stop, Running, Step::Run),
        (PreCopyP2p, PreCopy, Step::Run),
        (Running, RunningP2p, Step::Quiesce),
        (Stop, RunningP2p, Step::Quiesce),
        (PreCopy, PreCopyP2p, Step::Quiesce),
        (RunningP2p, Stop, Step::Stop),
        (Running, Stop, Step::Stop),
        (Running, PreCopy, Step::BeginPreCopy),
        (RunningP2p, PreCopyP2p, Step::BeginPreCopy),
        (PreCopy, Running, Step::CancelPreCopy),
        (PreCopyP2p, RunningP2p, Step::CancelPreCopy),
        (PreCopy, StopCopy, Step::StopSave),
        (PreCopyP2p, StopCopy, Step::StopSave),
        (Stop, StopCopy, Step::BeginSave),
        (StopCopy, Stop, Step::EndSave),
        (Stop, Resuming, Step::BeginRestore),
        (Resuming, Stop, Step::EndRestore),
    ];

    for from in 0..8 {
        for to in 0..8 {
            let (Ok(current), Ok(next)) = (DeviceState::try_from(from), DeviceState::try_from(to))
            else {
                return Err(Failure::False("states 0 to 7 are known", line!()));
            };
            let arc = arcs
                .iter()
                .find(|(one, other, _)| (*one, *other) == (current, next))
                .map(|&(_, _, step)| step);

            ensure!(u32::from(current) == from);
            ensure!(Step::between(current, next) == arc);
        }
    }
    ensure!(DeviceState::try_from(8).is_err());
    Ok(())
}

/// A saved device is restored, however the stream is divided, and the stream is no longer than
/// estimated.
pub fn round_trip() -> Result<(), Failure> {
    let mut source = filled()?;
    let stream = source.save(WHOLE)?;

    ensure!(stream.len() as u64 <= Saver::<OutOfMemory>::estimate(&IDENTITY, 3 * 0x1000));
    for segment in [1, 7, 4096, usize::MAX] {
        let mut destination = Device::new(IDENTITY)?;

        destination.fill(7);
        destination.control.fill(0);
        ensure!(source.save(&[segment])?[..] == stream[..]);
        destination.restore(&stream, &[segment])?;
        ensure!(destination.has_state_of(&source));
    }
    Ok(())
}

/// Without change tracking, the stream of a running device has identity and relations only. The
/// rest follows after the stop, and the whole stream is that of a stopped device.
pub fn pause() -> Result<(), Failure> {
    let mut source = filled()?;
    source.identity.features = FEATURE_LOCAL_MEMORY;
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0)?;

    source.read(&mut saver, &[5], &mut stream)?;
    ensure!(stream.len() == 248);
    ensure!(left(&mut saver, &mut source)? == (0, 0));
    ensure!(saver.left(&mut source)?.is_none());
    ensure!(saver.remaining(&mut source)? == Piece::Pause);
    ensure!(saver.progress().sections == 2);
    ensure!(saver.progress().data_bytes == 0);
    ensure!(!saver.has_stopped());

    saver.stopped();
    ensure!(saver.has_stopped());
    source.read(&mut saver, WHOLE, &mut stream)?;
    ensure!(saver.remaining(&mut source)? == Piece::End);
    ensure!(stream[..] == source.save(WHOLE)?[..]);

    let mut saver = Saver::new(Begin::PreCopy);
    saver.stopped();
    let mut stopped = Bytes::with_capacity(0)?;
    source.read(&mut saver, WHOLE, &mut stopped)?;
    ensure!(stream[..] == stopped[..]);
    Ok(())
}

/// Returns the outstanding initial bytes and changed bytes of a running device.
fn left(
    saver: &mut Saver<OutOfMemory>,
    source: &mut Device,
) -> Result<(u64, u64), SaveError<OutOfMemory>> {
    let Outstanding {
        initial, changed, ..
    } = saver.outstanding(source, InfoVersion::V1)?;

    Ok((initial, changed))
}

/// While the device runs, mapped memory is sent, then changes. Only the last changes remain for the
/// stopped device.
pub fn rounds() -> Result<(), Failure> {
    let mut source = filled()?;
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0)?;

    ensure!(left(&mut saver, &mut source)? == (248 + 0x3000, 0));
    source.read(&mut saver, WHOLE, &mut stream)?;
    ensure!(left(&mut saver, &mut source)? == (0, 0));
    ensure!(saver.progress().data_bytes == 0x3000);

    source.fill(3);
    source.fill(1);
    ensure!(left(&mut saver, &mut source)? == (0, 0x2000));
    source.read(&mut saver, &[100], &mut stream)?;
    ensure!(saver.remaining(&mut source)? == Piece::Pause);
    ensure!(saver.progress().data_bytes == 0x5000);

    source.fill(15);
    let bound = saver.left(&mut source)?;
    ensure!(bound == Some(Saver::<OutOfMemory>::estimate(&IDENTITY, 0x1000)));
    saver.stopped();
    let before = stream.len() as u64;
    source.read(&mut saver, WHOLE, &mut stream)?;
    ensure!(saver.remaining(&mut source)? == Piece::End);
    ensure!(saver.progress().data_bytes == 0x6000);
    ensure!(bound.is_some_and(|bound| stream.len() as u64 - before <= bound));

    let mut destination = Device::new(IDENTITY)?;
    destination.restore(&stream, &[61])?;
    ensure!(destination.has_state_of(&source));
    Ok(())
}

/// A change while the device is read, even of the run that it reads, is not lost.
pub fn changes_while_read() -> Result<(), Failure> {
    for moment in 0..64 {
        let mut source = filled()?;
        let mut saver = Saver::new(Begin::PreCopy);
        let mut stream = Bytes::with_capacity(0)?;

        let mut step = 0;
        while let Piece::Bytes(piece) = saver.remaining(&mut source)? {
            let mut bytes = Bytes::with_capacity(256)?;
            bytes.resize_zeroed(piece.len().min(256))?;
            let length = bytes.len();
            bytes.copy_from_slice(piece.get(..length).unwrap_or_default());
            saver.consume(length);
            let start = stream.len();
            stream.resize_zeroed(start + length)?;
            stream
                .get_mut(start..)
                .unwrap_or_default()
                .copy_from_slice(&bytes);

            if step == moment {
                source.change(15, 0x5a);
                source.change(4, 0xa5);
                left(&mut saver, &mut source)?;
            }
            step += 1;
        }
        saver.stopped();
        source.read(&mut saver, WHOLE, &mut stream)?;

        let mut destination = Device::new(IDENTITY)?;
        destination.restore(&stream, WHOLE)?;
        ensure!(destination.has_state_of(&source));
    }
    Ok(())
}

/// A reconfigured device has new initial data, for readers of [`InfoVersion::V2`].
pub fn reinitialisation() -> Result<(), Failure> {
    let mut source = filled()?;
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0)?;
    source.read(&mut saver, WHOLE, &mut stream)?;

    source.configurations += 1;
    source.fill(0);
    ensure!(left(&mut saver, &mut source)? == (0, 0x1000));
    for reinitialised in [true, false] {
        let expected = Outstanding {
            initial: 0x1000,
            changed: 0,
            reinitialised,
        };
        ensure!(saver.outstanding(&mut source, InfoVersion::V2)? == expected);
    }
    source.read(&mut saver, WHOLE, &mut stream)?;
    ensure!(left(&mut saver, &mut source)? == (0, 0));
    Ok(())
}

/// Returns a device without features and local memory.
fn plain() -> Result<Device, OutOfMemory> {
    Device::new(Identity {
        features: 0,
        granule: 0,
        local_memory: 0,
        ..IDENTITY
    })
}

/// Records of one type that a device of these tests can claim: 24 bytes each.
const CLAIMS: [[u8; 24]; 3] = [
    [
        1, 0, 1, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
    ],
    [
        1, 0, 1, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2,
    ],
    [
        1, 0, 1, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3, 3,
    ],
];

/// Length of the section with one of [`CLAIMS`], in bytes.
const CLAIM: u64 = 32 + 24;

/// A device without local memory completes a transfer. The stream is the same if it begins while
/// the device runs and if it begins after the stop.
pub fn without_local_memory() -> Result<(), Failure> {
    let mut source = plain()?;
    let mut destination = plain()?;
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0)?;
    let rest = Saver::<OutOfMemory>::estimate(&source.identity, 0);

    ensure!(left(&mut saver, &mut source)? == (248, 0));
    source.read(&mut saver, &[9], &mut stream)?;
    ensure!(saver.remaining(&mut source)? == Piece::Pause);
    ensure!(left(&mut saver, &mut source)? == (0, 0));
    ensure!(saver.left(&mut source)? == Some(rest));
    source.configurations += 1;
    for _ in 0..2 {
        let nothing = Outstanding {
            initial: 0,
            changed: 0,
            reinitialised: false,
        };
        ensure!(saver.outstanding(&mut source, InfoVersion::V2)? == nothing);
    }
    ensure!(saver.remaining(&mut source)? == Piece::Pause);
    saver.stopped();
    source.read(&mut saver, WHOLE, &mut stream)?;
    ensure!(saver.remaining(&mut source)? == Piece::End);
    ensure!(stream.len() as u64 <= rest);
    ensure!(stream[..] == source.save(WHOLE)?[..]);

    for segment in [1, 7, usize::MAX] {
        destination.control.fill(0);
        let progress = destination.restore(&stream, &[segment])?;
        ensure!(progress.sections == 4);
        ensure!(destination.has_state_of(&source));
    }
    Ok(())
}

/// A device's claim is sent first, and again after each reconfiguration, but not after the stop. It
/// is initial data until it is read, and the destination tries each claim.
pub fn claims() -> Result<(), Failure> {
    let mut source = plain()?;
    let mut destination = plain()?;
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0)?;
    let reported = |saver: &mut Saver<_>, source: &mut Device, version| {
        let outstanding = saver.outstanding(source, version)?;
        let Outstanding {
            initial,
            changed,
            reinitialised,
        } = outstanding;

        Ok::<_, SaveError<OutOfMemory>>((initial, changed, reinitialised))
    };

    source.configure(&CLAIMS[0])?;
    ensure!(reported(&mut saver, &mut source, InfoVersion::V1)? == (248 + CLAIM, 0, false));
    // A configuration before the first read replaces the claim.
    source.configure(&CLAIMS[1])?;
    ensure!(reported(&mut saver, &mut source, InfoVersion::V2)? == (248 + CLAIM, 0, true));
    source.read_bytes(&mut saver, 248, &mut stream)?;
    source.read_bytes(&mut saver, 40, &mut stream)?;
    ensure!(reported(&mut saver, &mut source, InfoVersion::V2)? == (CLAIM - 40, 0, false));
    // A claim does not change while it is read.
    source.configure(&CLAIMS[2])?;
    ensure!(reported(&mut saver, &mut source, InfoVersion::V1)? == (2 * CLAIM - 40, 0, false));
    source.read(&mut saver, &[5], &mut stream)?;
    ensure!(saver.remaining(&mut source)? == Piece::Pause);
    ensure!(reported(&mut saver, &mut source, InfoVersion::V1)? == (0, 0, false));
    ensure!(stream.len() as u64 == 248 + 2 * CLAIM);

    // For readers of version 1, later claims are not initial data.
    source.configure(&CLAIMS[0])?;
    ensure!(reported(&mut saver, &mut source, InfoVersion::V1)? == (0, CLAIM, false));
    ensure!(reported(&mut saver, &mut source, InfoVersion::V2)? == (CLAIM, 0, true));
    source.read(&mut saver, WHOLE, &mut stream)?;
    ensure!(reported(&mut saver, &mut source, InfoVersion::V2)? == (0, 0, false));
    source.configure(&[])?;
    ensure!(reported(&mut saver, &mut source, InfoVersion::V2)? == (0, 0, false));
    source.configure(&CLAIMS[1])?;
    ensure!(reported(&mut saver, &mut source, InfoVersion::V1)? == (0, CLAIM, false));
    ensure!(reported(&mut saver, &mut source, InfoVersion::V2)? == (CLAIM, 0, true));
    saver.stopped();
    source.read(&mut saver, WHOLE, &mut stream)?;

    let progress = destination.restore(&stream, &[11])?;
    ensure!(progress.sections == 7);
    ensure!(progress.records.bytes == 48);
    ensure!(destination.claims == 3);
    ensure!(destination.tried[..] == CLAIMS[0]);
    ensure!(destination.obtained[..] == source.control[..]);
    ensure!(destination.has_state_of(&source));

    // A stream that begins with a stopped device has no claims.
    ensure!(source.save(WHOLE)?.len() as u64 + 3 * CLAIM == stream.len() as u64);
    Ok(())
}

/// Claims are sent between parts of local memory, at each query of the device's changes.
pub fn claims_between_rounds() -> Result<(), Failure> {
    let mut source = filled()?;
    let mut destination = Device::new(IDENTITY)?;
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0)?;

    source.configure(&CLAIMS[0])?;
    ensure!(left(&mut saver, &mut source)? == (248 + CLAIM + 0x3000, 0));
    // Into the middle of the second run.
    source.read_bytes(&mut saver, 248, &mut stream)?;
    source.read_bytes(&mut saver, 56 + 96 + 40 + 0x2000 + 100, &mut stream)?;
    source.configure(&CLAIMS[1])?;
    source.fill(0);
    ensure!(left(&mut saver, &mut source)?.0 > CLAIM);
    source.read(&mut saver, WHOLE, &mut stream)?;
    ensure!(left(&mut saver, &mut source)? == (0, 0));
    source.configure(&CLAIMS[2])?;
    source.fill(9);
    ensure!(left(&mut saver, &mut source)? == (0, 0x1000 + CLAIM));
    source.read(&mut saver, WHOLE, &mut stream)?;
    saver.stopped();
    source.read(&mut saver, WHOLE, &mut stream)?;

    destination.restore(&stream, WHOLE)?;
    ensure!(destination.claims == 3);
    ensure!(destination.has_state_of(&source));
    Ok(())
}

/// A destination whose host refuses a claim rejects the byte that completes the claim, and does not
/// change. The source can begin another stream.
pub fn denied_claim() -> Result<(), Failure> {
    let mut source = filled()?;
    let mut destination = Device::new(IDENTITY)?;
    let mut restorer = Restorer::new();
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0)?;
    let denied = RestoreError::Unobtainable(OutOfMemory);

    source.configure(&CLAIMS[0])?;
    source.read(&mut saver, WHOLE, &mut stream)?;
    destination.fill(7);
    destination.denied = true;
    let (before, rest) = stream.split_at(248 + CLAIM as usize - 1);
    destination.write(&mut restorer, &[64], before)?;
    ensure!(destination.claims == 0);
    let last = rest.get(..1).unwrap_or_default();
    ensure!(destination.write(&mut restorer, WHOLE, last) == Err(denied));
    ensure!(denied.class() == Class::Device(OutOfMemory));
    ensure!(restorer.progress().sections == 2);
    ensure!(matches!(restorer.space(&mut destination), Err(found) if found == denied));
    ensure!(restorer.finish(&mut destination) == Err(denied));
    ensure!(destination.obtained.is_empty());
    ensure!(!destination.is_clear());

    // The transfer is cancelled. The next one begins with the claim again.
    let mut saver = Saver::new(Begin::PreCopy);
    let mut again = Bytes::with_capacity(0)?;
    source.read(&mut saver, WHOLE, &mut again)?;
    ensure!(again[..] == stream[..]);
    saver.stopped();
    source.read(&mut saver, WHOLE, &mut again)?;
    destination.denied = false;
    destination.restore(&again, WHOLE)?;
    ensure!(destination.has_state_of(&source));
    Ok(())
}

/// The refusal of a host is reported with the last byte of the stream, while the source can still
/// continue, and not earlier. The control plane does not change.
pub fn denied_control_plane() -> Result<(), Failure> {
    let stream = filled()?.save(WHOLE)?;
    let mut destination = Device::new(IDENTITY)?;
    let mut restorer = Restorer::new();
    let denied = RestoreError::Unobtainable(OutOfMemory);

    destination.control.fill(0);
    destination.denied = true;
    let (before, last) = stream.split_at(stream.len() - 1);
    destination.write(&mut restorer, WHOLE, before)?;
    ensure!(destination.write(&mut restorer, WHOLE, last) == Err(denied));
    ensure!(restorer.progress().sections == 6);
    ensure!(restorer.finish(&mut destination) == Err(denied));
    ensure!(destination.control.iter().all(|&byte| byte == 0));

    // An invalid stream obtains nothing.
    destination.denied = false;
    let mut damaged = Bytes::with_capacity(stream.len())?;
    damaged.resize_zeroed(stream.len())?;
    damaged.copy_from_slice(&stream);
    if let Some(byte) = damaged.last_mut() {
        *byte ^= 1;
    }
    ensure!(destination.restore(&damaged, WHOLE).is_err());
    ensure!(destination.obtained.is_empty());
    destination.restore(&stream, WHOLE)?;
    ensure!(destination.obtained[..] == destination.control[..]);
    Ok(())
}

/// Tracked guest memory is listed after the device has stopped. Ranges that touch are joined.
pub fn tracked() -> Result<(), Failure> {
    let range = |start, length| Range { start, length };
    let mut source = filled()?;
    let mut saver = Saver::new(Begin::Stopped);
    let mut stream = Bytes::with_capacity(0)?;
    let ranges = [
        range(0, 0x1000),
        range(0x1000, 0x2000),
        range(0x10_0000, 0x1000),
    ];

    saver.track(Tracked::new(0x1000, ranges)?);
    source.read(&mut saver, WHOLE, &mut stream)?;
    let mut destination = Device::new(IDENTITY)?;
    let progress = destination.restore(&stream, WHOLE)?;
    ensure!(progress.addresses.guest_ranges == 2);
    ensure!(progress.addresses.guest_bytes == 0x4000);
    ensure!(destination.has_state_of(&source));
    Ok(())
}

/// Both parties have the same relationships, from the source's interfaces to the destination's. The
/// receivers are unknown to the source.
pub fn established() -> Result<(), Failure> {
    let mut source = Device::new(IDENTITY)?;
    let mut saver = Saver::new(Begin::PreCopy);
    let mut stream = Bytes::with_capacity(0)?;
    let mut restorer = Restorer::new();
    let mut destination = Device::new(IDENTITY)?;
    destination.function = ELSEWHERE;

    ensure!(saver.progress().relations.is_none());
    source.read(&mut saver, WHOLE, &mut stream)?;
    let before = stream.get(..stream.len() - 1).unwrap_or_default();
    let last = stream
        .last_chunk::<1>()
        .map_or(&[][..], <[u8; 1]>::as_slice);
    destination.write(&mut restorer, WHOLE, before)?;
    ensure!(restorer.progress().relations.is_none());
    destination.write(&mut restorer, WHOLE, last)?;

    for plane in [Plane::Control, Plane::Data] {
        let output = Interfaces::of(FUNCTION).plane(plane);
        let receiver = Interfaces::of(ELSEWHERE).plane(plane);
        let offered = Relation {
            plane,
            output,
            receiver: None,
        };
        let accepted = Relation {
            receiver: Some(receiver),
            ..offered
        };

        let relations = saver.progress().relations;
        ensure!(relations.is_some_and(|relations| *relations.plane(plane) == offered));
        let relations = restorer.progress().relations;
        ensure!(relations.is_some_and(|relations| *relations.plane(plane) == accepted));
    }
    Ok(())
}

/// Both parties count the transferred bytes, and nothing before its transfer.
pub fn accounts() -> Result<(), Failure> {
    let mut source = filled()?;
    let mut saver = Saver::new(Begin::Stopped);
    let mut restorer = Restorer::new();
    let mut destination = Device::new(IDENTITY)?;

    while let Piece::Bytes(piece) = saver.remaining(&mut source)? {
        let mut byte = [0];
        byte.copy_from_slice(piece.get(..1).unwrap_or_default());
        saver.consume(1);
        destination.write(&mut restorer, WHOLE, &byte)?;

        let relations = restorer.progress().relations;
        ensure!(relations.is_none() || saver.progress().relations.is_some());
        let sent = Progress {
            relations,
            ..*saver.progress()
        };
        ensure!(*restorer.progress() == sent);
    }

    let Progress {
        sections,
        records,
        addresses,
        data_bytes,
        ..
    } = *restorer.progress();
    ensure!(sections == 7);
    ensure!(records.count == [0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ensure!(records.bytes == 48);
    ensure!(addresses.local_ranges == 2);
    ensure!(addresses.local_bytes == 0x3000);
    ensure!(addresses.guest_ranges == 0);
    ensure!(addresses.guest_bytes == 0);
    ensure!(data_bytes == 0x3000);
    Ok(())
}

/// An incompatible destination rejects the byte that completes the identity.
pub fn mismatch() -> Result<(), Failure> {
    let stream = filled()?.save(WHOLE)?;
    let identity = HEADER_LENGTH + SECTION_HEADER_LENGTH + IdentityPayload::LENGTH;
    let mut other = IDENTITY;
    other.local_memory /= 2;
    let mut destination = Device::new(other)?;
    destination.fill(7);

    let before = stream.get(..identity - 1).unwrap_or_default();
    let complete = stream.get(..identity).unwrap_or_default();
    ensure!(matches!(
        destination.restore(before, &[64]),
        Err(RestoreError::Incomplete(_))
    ));
    let error = RestoreError::Incompatible(Mismatch {
        field: "local_memory",
        rule: Rule::AtLeast,
        source: IDENTITY.local_memory,
        destination: other.local_memory,
    });
    ensure!(destination.restore(complete, &[64]) == Err(error));
    ensure!(error.class() == Class::Incompatible);
    ensure!(!destination.is_clear());
    Ok(())
}

/// A stream with a flipped bit is refused, and does not change the control plane.
pub fn flipped_bits() -> Result<(), Failure> {
    let mut stream = filled()?.save(WHOLE)?;
    let mut destination = Device::new(IDENTITY)?;
    destination.control.fill(0);

    for position in (0..stream.len()).step_by(61) {
        let flip = |byte: &mut u8| *byte ^= 1 << (position & 7);

        stream.get_mut(position).map(flip);
        let result = destination.restore(&stream, WHOLE);
        ensure!(result.is_err_and(|error| error.class() == Class::Invalid));
        stream.get_mut(position).map(flip);
    }
    ensure!(destination.control.iter().all(|&byte| byte == 0));
    destination.restore(&stream, WHOLE)?;
    Ok(())
}

/// A stream that is too short or too long is refused.
pub fn wrong_length() -> Result<(), Failure> {
    let mut stream = filled()?.save(WHOLE)?;
    let mut destination = Device::new(IDENTITY)?;

    for length in (0..stream.len()).step_by(61).chain([stream.len() - 1]) {
        let result = destination.restore(stream.get(..length).unwrap_or_default(), WHOLE);
        ensure!(matches!(result, Err(RestoreError::Incomplete(_))));
    }
    stream.resize_zeroed(stream.len() + 1)?;
    ensure!(destination.restore(&stream, WHOLE) == Err(RestoreError::Excess));
    Ok(())
}

/// A device that returns invalid data is not saved.
pub fn lying_source() -> Result<(), Failure> {
    let mut source = filled()?;

    source.missing_bitmap = 1;
    let error = SaveError::Bitmap(Violation {
        field: "length",
        expected: Expectation::Equal(2),
        found: 1,
    });
    ensure!(matches!(source.save(WHOLE), Err(found) if found == error));

    let mut source = filled()?;
    source.missing = 1;
    ensure!(matches!(source.save(WHOLE), Err(SaveError::Piece(_))));

    let mut source = filled()?;
    if let Some(version) = source.control.get_mut(2) {
        *version = 2;
    }
    ensure!(matches!(
        source.save(WHOLE),
        Err(SaveError::Record(invalid))
            if invalid.kind == Kind::Control && invalid.record.offset == 0
    ));

    let mut source = filled()?;
    source.identity.granule = 0x3000;
    ensure!(matches!(
        source.save(WHOLE),
        Err(SaveError::Identity(Violation {
            field: "granule",
            ..
        }))
    ));
    Ok(())
}

/// After an error, every call returns the same error.
pub fn broken_stays_broken() -> Result<(), Failure> {
    let mut source = filled()?;
    let mut saver = Saver::new(Begin::Stopped);
    source.identity.vifa_revision = 0;
    let Err(error) = saver.remaining(&mut source) else {
        return Err(Failure::False("revision 0 is refused", line!()));
    };
    source.identity = IDENTITY;
    ensure!(saver.remaining(&mut source) == Err(error));

    let mut destination = Device::new(IDENTITY)?;
    let mut restorer = Restorer::new();
    restorer.space(&mut destination)?.fill(0);
    let Err(error) = restorer.filled(&mut destination, HEADER_LENGTH) else {
        return Err(Failure::False("a header of zeroes is refused", line!()));
    };
    ensure!(error.class() == Class::Invalid);
    ensure!(matches!(restorer.space(&mut destination), Err(found) if found == error));
    ensure!(restorer.filled(&mut destination, 1) == Err(error));
    ensure!(restorer.finish(&mut destination) == Err(error));
    Ok(())
}
