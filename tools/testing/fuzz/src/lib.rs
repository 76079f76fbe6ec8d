// SPDX-License-Identifier: GPL-2.0

//! Hammers on what parses bytes of others: the layer, which takes streams, and `vifactl`, which
//! takes save sets and decodes both.
//!
//! [`stream`] says what has to hold for any bytes that are taken for a stream, [`save_set`] and
//! [`decode`] the same for the command. [`mutation`] makes streams that are nearly sound out of sound
//! ones, the [`seeds`]. Two programs bring these together: `vifa-mutate` judges millions of mutated
//! streams, and the fuzz targets let libFuzzer look for inputs that reach new code.

pub mod allocation;
pub mod decode;
pub mod mutation;
pub mod save_set;
pub mod seeds;
pub mod stream;

mod draft;

/// The second implementation of the stream, written from the documentation alone; but for the
/// checksum, for which it would take most of the time.
#[path = "../../layer/src/tests"]
mod second {
    #[allow(dead_code, reason = "a part of it is for the layer's own tests")]
    pub(crate) mod decoder;

    mod encoder {
        use crate::layer::stream::Checksum;

        pub(super) fn crc(bytes: &[u8]) -> u32 {
            Checksum::of(bytes)
        }
    }
}

#[path = "../../../../drivers/vfio/pci/vifa"]
mod driver {
    #[allow(
        dead_code,
        unused_imports,
        unused_macros,
        reason = "a part of the layer is for the driver alone, and its tests run elsewhere"
    )]
    pub(crate) mod layer;
}

#[allow(dead_code, reason = "a part of it is for the layer's own tests")]
#[path = "../../layer/src/seam.rs"]
mod host_seam;

/// What the layer needs from the world around it: as for its own tests, but with the processor's
/// checksum, because everything else here is faster than one that is made byte by byte.
mod seam {
    pub(crate) use super::host_seam::{with_allowance, Bytes, OutOfMemory};

    /// Feeds `bytes` into a CRC-32C whose register holds `seed`, and returns the register, with no
    /// inversion before or after.
    pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
        !crc32c::crc32c_append(!seed, bytes)
    }
}

use driver::layer;
