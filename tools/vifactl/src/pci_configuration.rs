// SPDX-License-Identifier: GPL-2.0

//! The VIFA capability in a function's configuration space.

use std::{fs::File, io::Read};

use serde::Serialize;

use crate::{function::Function, headers, identity::feature_names};

/// Bytes of a PCI Express function's configuration space.
const SPACE: u64 = 0x1000;

/// Where extended capabilities begin (PCI Express 6.0, 7.6.1).
const EXTENDED: usize = 0x100;

/// Extended capability: Designated Vendor-Specific (PCI Express 6.0, 7.9.6).
const DVSEC: u32 = 0x23;

/// What a physical function's VIFA capability says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Capability {
    /// Revision of the hardware interface.
    pub(crate) revision: u32,
    /// Names of its features.
    pub(crate) features: Vec<String>,
}

impl Capability {
    /// Reads the capability of `function`; `None`: it has none, or the user may not read so far.
    pub(crate) fn of(function: &Function) -> Option<Self> {
        let mut space = Vec::new();

        File::open(function.attribute("config"))
            .ok()?
            .take(SPACE)
            .read_to_end(&mut space)
            .ok()?;
        Self::find(&space)
    }

    /// Finds the capability in a configuration space.
    fn find(space: &[u8]) -> Option<Self> {
        let word = |offset: usize| {
            let bytes = space.get(offset..)?.first_chunk()?;

            Some(u32::from_le_bytes(*bytes))
        };
        let mut capability = EXTENDED;

        // A chain longer than this goes in a circle.
        for _ in 0..SPACE as usize / size_of::<u64>() {
            let header = word(capability)?;

            if header & 0xffff == DVSEC
                && word(capability + 4)? & 0xffff == headers::VIFA_DVSEC_VENDOR
                && word(capability + 8)? & 0xffff == headers::VIFA_DVSEC_ID
            {
                // The revision is the upper half of the word before it.
                let revision = capability + headers::VIFA_DVSEC_REVISION as usize - 2;
                let features = capability + headers::VIFA_DVSEC_FEATURES as usize;

                return Some(Self {
                    revision: word(revision)? >> 16,
                    features: feature_names(word(features)?),
                });
            }
            capability = (header >> 20) as usize;
            if capability < EXTENDED {
                return None;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn space(words: &[(usize, u32)]) -> Vec<u8> {
        let mut space = vec![0; SPACE as usize];

        for &(offset, word) in words {
            space[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
        }
        space
    }

    #[test]
    fn the_capability_is_found_behind_another() {
        let space = space(&[
            (0x100, 0x1400_0001),
            (0x140, DVSEC),
            (0x144, headers::VIFA_DVSEC_VENDOR),
            (0x148, 0x1_0000 | headers::VIFA_DVSEC_ID),
            (0x14c, 0x5),
        ]);

        assert_eq!(
            Capability::find(&space),
            Some(Capability {
                revision: 1,
                features: vec!["P2P".into(), "LOCAL_MEMORY".into()],
            })
        );
    }

    #[test]
    fn what_an_ordinary_user_reads_has_none() {
        assert_eq!(Capability::find(&space(&[])[..64]), None);
    }

    #[test]
    fn a_chain_that_goes_in_a_circle_ends() {
        assert_eq!(Capability::find(&space(&[(0x100, 0x1000_0001)])), None);
    }

    proptest! {
        #[test]
        fn no_space_makes_the_search_panic(space in prop::collection::vec(any::<u8>(), 0..0x1100)) {
            let _ = Capability::find(&space);
        }
    }
}
