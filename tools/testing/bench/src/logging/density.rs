// SPDX-License-Identifier: GPL-2.0

//! How much of the memory is dirty, and which pages.

use std::fmt;

use serde::Serialize;
use vifa_selftests::{fault::Marks, vfio::IovaRange};

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// How much of the memory is dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Density {
    /// Nothing.
    Idle,
    /// One page in 1024, at random.
    Random,
    /// A tenth, in runs of more than 6 MiB.
    Clustered,
    /// All.
    Full,
}

impl Density {
    pub const ALL: [Self; 4] = [Self::Idle, Self::Random, Self::Clustered, Self::Full];

    /// Of each so many pages so many are dirty.
    fn stride_and_run(self) -> [u64; 2] {
        match self {
            Self::Idle => [1, 0],
            Self::Random => [1024, 1],
            Self::Clustered => [16384, 1638],
            Self::Full => [1 << 22, 1 << 22],
        }
    }

    /// How to have the pages of `range` marked; `None`: not at all.
    pub fn marks(self, range: IovaRange) -> Option<Marks> {
        let [stride, run] = self.stride_and_run().map(|pages| pages * PAGE);
        (run > 0).then_some(Marks {
            range,
            stride,
            run,
            seed: u32::from(self == Self::Random) * 0x9e37_79b9,
        })
    }

    /// How many pages of `length` bytes are dirty.
    pub fn dirty_pages(self, length: u64) -> u64 {
        let [stride, run] = self.stride_and_run();
        length / PAGE / stride * run
    }
}

impl fmt::Display for Density {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Random => "0.1 %, random",
            Self::Clustered => "10 %, clustered",
            Self::Full => "100 %",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 16 << 30;

    #[test]
    fn shares_are_what_their_names_say() {
        for (density, share) in [
            (Density::Idle, 0.0),
            (Density::Random, 0.001),
            (Density::Clustered, 0.1),
            (Density::Full, 1.0),
        ] {
            let pages = density.dirty_pages(LENGTH) as f64;
            let got = pages / (LENGTH / PAGE) as f64;
            assert!((got - share).abs() <= share * 0.03, "{density}: {got}");
        }
    }

    #[test]
    fn ranges_are_whole_strides() {
        for density in Density::ALL {
            if let Some(marks) = density.marks(IovaRange::new(0, LENGTH)) {
                assert_eq!(LENGTH % marks.stride, 0, "{density}");
                assert!(marks.run <= marks.stride, "{density}");
            }
        }
    }
}
