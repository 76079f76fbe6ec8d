// SPDX-License-Identifier: GPL-2.0

//! The properties of restoring any bytes as a stream.
//!
//! - The layer refuses the stream, or restores exactly the state that the second implementation
//!   reads.
//! - Saving the restored state and restoring it to another destination results in the same state.
//! - The destination tries the claims that the second implementation reads, and obtains the control
//!   plane.
//! - A refused stream does not change the control plane. It does not change local memory, unless
//!   the identity and the relations were accepted before.
//! - The layer allocates at most [`Judge::allowance`] bytes, never panics, and terminates: each
//!   step consumes at least one byte.

use anyhow::{anyhow, ensure, Context, Result};
use fastrand::Rng;
use vifa_decoder::{decode, Own, State};
use vifa_streams::Stream;

use crate::{
    layer::{
        address,
        identity::Identity,
        interface::{Function, Interfaces, Plane},
        restore::{Class, Destination, LocalDestination, RestoreError, Restorer},
        stream::{IdentityPayload, RelationPayload},
        tests::device::{Device, CONTROL},
    },
    seam::{with_allowance, OutOfMemory},
    seeds::Seed,
};

/// Maximum local memory of a destination of these tests, in bytes.
const LOCAL_MEMORY_MAX: u64 = 0x100_0000;

/// The result of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The stream was accepted.
    Taken,
    /// The stream is invalid.
    Invalid,
    /// The source is a device that the destination cannot replace.
    Incompatible,
}

/// A destination, and a device for comparison.
pub struct Judge {
    destination: Device,
    /// A device for the expected state, and for the restored copy.
    other: Device,
}

impl Judge {
    /// Creates a destination for streams from the source of `seed`. It has the address of the
    /// receiver in `seed`, if any.
    ///
    /// # Errors
    ///
    /// Returns an error if `seed` does not begin with an identity and relations, or if its device
    /// is too large.
    pub fn new(seed: &Seed) -> Result<Self> {
        let stream = Stream::parse_prefix(&seed.bytes);
        let sections = stream.map(|stream| stream.sections).unwrap_or_default();
        let payload = |index: usize| {
            let section = sections.get(index);
            let payload = section.map(|section| section.payload.as_slice());
            payload.with_context(|| format!("{}: no section {index}", seed.name))
        };
        let wrong = |violation| anyhow!("{}: {violation}", seed.name);
        let identity = IdentityPayload::decode(payload(0)?)
            .and_then(Identity::try_from)
            .map_err(wrong)?;
        let relation = RelationPayload::decode(payload(1)?).map_err(wrong)?;

        ensure!(
            identity.local_memory <= LOCAL_MEMORY_MAX,
            "{}: more local memory than {LOCAL_MEMORY_MAX} bytes",
            seed.name
        );
        let device = || {
            let mut device = Device::new(identity).map_err(|_| anyhow!("no memory"))?;
            if relation.receiver != 0 {
                device.function = function(relation.receiver);
            }
            anyhow::Ok(device)
        };
        Ok(Self {
            destination: device()?,
            other: device()?,
        })
    }

    /// Returns the maximum number of bytes that the layer may allocate for a stream: room for the
    /// destination's control plane, also used by claims, and one part of the address record file.
    pub fn allowance(&self) -> usize {
        self.destination.identity.control_plane_max as usize + address::LENGTH_MAX
    }

    /// Returns whether the destination has the same identity and address as that of `other`.
    pub fn is_alike(&self, other: &Self) -> bool {
        self.destination.identity == other.destination.identity
            && self.destination.function == other.destination.function
    }

    /// Returns the state that the second implementation reads from `stream`.
    fn read(&self, stream: &[u8]) -> Result<State, String> {
        let interfaces = Interfaces::of(self.destination.function);

        decode(
            stream,
            &Own::new(
                &IdentityPayload::from(&self.destination.identity).encode(),
                interfaces.plane(Plane::Control).as_raw(),
            ),
        )
    }

    /// Restores `stream` to the destination, in pieces of random lengths, and asserts the
    /// properties.
    ///
    /// # Panics
    ///
    /// Panics if a property does not hold.
    pub fn judge(&mut self, stream: &[u8], rng: &mut Rng) -> Verdict {
        prepare(&mut self.destination);

        let allowance = self.allowance();
        let mut restorer = Restorer::new();
        let taken = with_allowance(allowance, || {
            take(&mut restorer, &mut self.destination, stream, rng)
        });
        let relations = restorer.progress().relations.is_some();
        let result =
            taken.and_then(|()| with_allowance(0, || restorer.finish(&mut self.destination)));
        let second = self.read(stream);

        match (result, second) {
            (Ok(()), Ok(state)) => {
                self.assert_has(&state);
                self.assert_saves_alike();
                Verdict::Taken
            }
            (Err(error), Err(_)) => self.refused(error, relations),
            (Ok(()), Err(refusal)) => {
                panic!(
                    "the layer accepts a stream that the second implementation refuses: {refusal}"
                )
            }
            (Err(error), Ok(_)) => {
                panic!("the layer refuses a stream that the second implementation accepts: {error}")
            }
        }
    }

    /// As [`Self::judge`], for bytes that must have the meaning of one of `seeds` or be invalid.
    ///
    /// # Panics
    ///
    /// Panics if a property does not hold, or if the stream was accepted and has another meaning.
    pub fn judge_damaged(&mut self, stream: &[u8], seeds: &[&Seed], rng: &mut Rng) -> Verdict {
        let verdict = self.judge(stream, rng);

        if verdict == Verdict::Taken {
            let meaning = self.read(stream);
            assert!(
                seeds.iter().any(|seed| self.read(&seed.bytes) == meaning),
                "the layer accepts a damaged stream with another meaning"
            );
        }
        verdict
    }

    /// Checks that a refused stream changed no state, and returns the verdict.
    fn refused(&mut self, error: RestoreError<OutOfMemory>, relations: bool) -> Verdict {
        assert!(!error.to_string().is_empty());
        assert!(
            self.destination.control[..] == CONTROL,
            "refused, but the control plane changed: {error}"
        );
        assert!(
            self.destination.obtained.is_empty() || matches!(error, RestoreError::Excess),
            "refused, but records were obtained: {error}"
        );
        if !relations {
            prepare(&mut self.other);
            assert!(
                self.destination.has_state_of(&self.other),
                "refused before the relations, but local memory changed: {error}"
            );
        }
        match error.class() {
            Class::Invalid => Verdict::Invalid,
            Class::Incompatible => Verdict::Incompatible,
            Class::OutOfMemory | Class::Device(_) => panic!("not the stream's fault: {error}"),
        }
    }

    /// Checks that the destination has this state.
    fn assert_has(&mut self, state: &State) {
        restore_state(&mut self.other, state).expect("the device has room for its own state");
        assert!(
            self.destination.has_state_of(&self.other),
            "the layer restores another state than the second implementation"
        );
        assert!(
            self.destination.claims as usize == state.claims.len()
                && self.destination.tried[..]
                    == *state.claims.last().map_or(&[][..], Vec::as_slice),
            "the destination tried other claims than the second implementation reads"
        );
        assert!(
            self.destination.obtained[..] == state.control[..],
            "the destination obtained other records than its control plane"
        );
    }

    /// Checks that saving the destination and restoring another device results in the same state.
    fn assert_saves_alike(&mut self) {
        let stream = match self.destination.save(&[usize::MAX]) {
            Ok(stream) => stream,
            Err(error) => panic!("failed to save an accepted state: {error}"),
        };

        prepare(&mut self.other);
        if let Err(error) = self.other.restore(&stream, &[usize::MAX]) {
            panic!("failed to restore an accepted and saved state: {error}");
        }
        assert!(
            self.destination.has_state_of(&self.other),
            "an accepted and saved state has another meaning"
        );
    }
}

/// Returns the function that an interface belongs to.
fn function(interface: u64) -> Function {
    let [_, devfn, bus, _, domain @ ..] = interface.to_le_bytes();

    Function {
        domain: u32::from_le_bytes(domain),
        bus,
        devfn,
    }
}

/// Sets `device` to an initial state that every accepted stream changes.
fn prepare(device: &mut Device) {
    let prepared = device
        .clear_local()
        .and_then(|()| device.write_control(&CONTROL))
        .and_then(|()| device.tried.resize_zeroed(0))
        .and_then(|()| device.obtained.resize_zeroed(0));

    prepared.expect("the device has room for its own state");
    device.claims = 0;
    device.fill(0);
    device.fill(9);
}

/// Sets the state of `device` to `state`.
fn restore_state(device: &mut Device, state: &State) -> Result<(), OutOfMemory> {
    device.clear_local()?;
    for (offset, bytes) in &state.runs {
        device.buffer()[..bytes.len()].copy_from_slice(bytes);
        device.write_local(*offset, bytes.len())?;
    }
    device.write_control(&state.control)
}

/// Returns a random maximum length of a stream's pieces.
fn longest_piece(rng: &mut Rng) -> usize {
    match rng.u8(..16) {
        0 => 64,
        1..4 => 5_000,
        _ => usize::MAX,
    }
}

/// Writes `stream` to `device` in pieces of random lengths, up to the first error.
fn take(
    restorer: &mut Restorer<OutOfMemory>,
    device: &mut Device,
    stream: &[u8],
    rng: &mut Rng,
) -> Result<(), RestoreError<OutOfMemory>> {
    let longest = longest_piece(rng);
    let mut rest = stream;

    while !rest.is_empty() {
        let space = restorer.space(device)?;
        let most = space.len().min(rest.len()).min(longest);
        let length = if longest == usize::MAX {
            most
        } else {
            rng.usize(1..=most)
        };
        let (piece, next) = rest.split_at(length);

        space[..length].copy_from_slice(piece);
        restorer.filled(device, length)?;
        rest = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mutation, seeds};

    fn judges(seeds: &[Seed]) -> Vec<Judge> {
        seeds.iter().map(|seed| Judge::new(seed).unwrap()).collect()
    }

    /// Every valid stream is accepted by a device with the identity of its source.
    #[test]
    fn seeds_are_accepted() {
        for seed in seeds::streams().unwrap() {
            for number in 0..20 {
                let mut judge = Judge::new(&seed).unwrap();
                let verdict = judge.judge(&seed.bytes, &mut Rng::with_seed(number));
                assert_eq!(verdict, Verdict::Taken, "{}", seed.name);
            }
        }
    }

    /// The changes reach each verdict.
    #[test]
    fn edits_reach_every_verdict() {
        let seeds = seeds::short_streams().unwrap();
        let mut judges = judges(&seeds);
        let mut seen = Vec::new();

        for number in 0..2_000 {
            let mut rng = Rng::with_seed(number);
            let index = rng.usize(..seeds.len());
            let stream = mutation::edit(&seeds[index].bytes, &seeds[0].bytes, &mut rng);
            if let Some(stream) = stream {
                let verdict = judges[index].judge(&stream, &mut rng);
                if !seen.contains(&verdict) {
                    seen.push(verdict);
                }
            }
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
}
