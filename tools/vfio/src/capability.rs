// SPDX-License-Identifier: GPL-2.0

//! The VIFA capability in a physical function's configuration space.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use vifa_headers as headers;

use crate::Mapping;

/// Size of a PCI Express function's configuration space in bytes.
const SPACE: u64 = 0x1000;

/// Offset of the first extended capability (PCI Express 6.0, 7.6.1).
const EXTENDED: usize = 0x100;

/// Extended capability: Designated Vendor-Specific (PCI Express 6.0, 7.9.6).
const DVSEC: u32 = 0x23;

/// A VIFA capability (`VIFA_DVSEC_*` of `include/linux/vifa_hw.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Revision of the hardware interface.
    pub revision: u32,
    /// `VIFA_HW_FEATURE_*`.
    pub features: u32,
    /// Number of the BAR with the register file.
    pub bar: u32,
    /// Offset of the register file in the BAR, in bytes.
    pub offset: u32,
    /// Number of frames in the register file.
    pub frames: u32,
    /// Timeout of commands in milliseconds.
    pub timeout: u32,
}

impl Capability {
    /// Reads the capability of the function with the sysfs directory `function`.
    ///
    /// Returns `None` if the function has no VIFA capability, or if the user is not permitted to
    /// read extended capabilities.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration space cannot be read.
    pub fn of(function: &Path) -> io::Result<Option<Self>> {
        let mut space = Vec::new();

        File::open(function.join("config"))?
            .take(SPACE)
            .read_to_end(&mut space)?;
        Ok(Self::find(&space))
    }

    /// Maps the first `length` bytes of the register file. `function` is the directory that the
    /// capability was read from.
    ///
    /// # Errors
    ///
    /// Those of open() and mmap().
    pub fn map(&self, function: &Path, length: usize) -> io::Result<Mapping> {
        let resource = function.join(format!("resource{}", self.bar));

        Mapping::of_path(&resource, self.offset.into(), length)
    }

    /// Finds the capability in a configuration space.
    pub fn find(space: &[u8]) -> Option<Self> {
        let word = |offset: usize| {
            let bytes = space.get(offset..)?.first_chunk()?;

            Some(u32::from_le_bytes(*bytes))
        };
        let mut capability = EXTENDED;

        // A longer chain is circular.
        for _ in 0..SPACE as usize / size_of::<u64>() {
            let header = word(capability)?;

            if header & 0xffff == DVSEC
                && word(capability + 4)? & 0xffff == headers::VIFA_DVSEC_VENDOR
                && word(capability + 8)? & 0xffff == headers::VIFA_DVSEC_ID
            {
                // The revision is the upper half of an aligned word.
                let revision = word(capability + headers::VIFA_DVSEC_REVISION as usize - 2)?;
                let location = word(capability + headers::VIFA_DVSEC_LOCATION as usize)?;

                return Some(Self {
                    revision: revision >> 16,
                    features: word(capability + headers::VIFA_DVSEC_FEATURES as usize)?,
                    bar: location & headers::VIFA_DVSEC_LOCATION_BAR,
                    offset: location & headers::VIFA_DVSEC_LOCATION_OFFSET,
                    frames: word(capability + headers::VIFA_DVSEC_FRAMES as usize)?,
                    timeout: word(capability + headers::VIFA_DVSEC_TIMEOUT as usize)?,
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

    fn with_vendor(vendor: u32) -> Vec<u8> {
        space(&[
            (0x100, 0x1400_0001),
            (0x140, DVSEC),
            (0x144, vendor),
            (0x148, 0x1_0000 | headers::VIFA_DVSEC_ID),
            (0x14c, 0x5),
            (0x150, 0x3002),
            (0x140 + headers::VIFA_DVSEC_FRAMES as usize, 3),
            (0x140 + headers::VIFA_DVSEC_TIMEOUT as usize, 1000),
        ])
    }

    #[test]
    fn the_capability_is_found_after_another() {
        assert_eq!(
            Capability::find(&with_vendor(headers::VIFA_DVSEC_VENDOR)),
            Some(Capability {
                revision: 1,
                features: 5,
                bar: 2,
                offset: 0x3000,
                frames: 3,
                timeout: 1000,
            })
        );
    }

    #[test]
    fn the_capability_of_another_vendor_is_none() {
        let other = headers::VIFA_DVSEC_VENDOR ^ 1;

        assert_eq!(Capability::find(&with_vendor(other)), None);
    }

    #[test]
    fn the_space_that_an_unprivileged_user_reads_has_none() {
        assert_eq!(Capability::find(&space(&[])[..64]), None);
    }

    #[test]
    fn the_search_of_a_circular_chain_ends() {
        assert_eq!(Capability::find(&space(&[(0x100, 0x1000_0001)])), None);
    }

    proptest! {
        #[test]
        fn the_search_never_panics(space in prop::collection::vec(any::<u8>(), 0..0x1100)) {
            let _ = Capability::find(&space);
        }
    }
}
