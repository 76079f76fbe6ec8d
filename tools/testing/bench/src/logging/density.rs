// SPDX-License-Identifier: GPL-2.0

//! The number and the distribution of dirty pages.

use std::fmt;

use serde::Serialize;
use vifa_device::Marks;
use vifa_vfio::IovaRange;

/// Size of a page in bytes.
pub const PAGE: u64 = 4096;

/// The fraction of dirty memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Density {
    /// No page.
    Idle,
    /// One page in 1024, at random.
    Random,
    /// A tenth, in runs of more than 6 MiB.
    Clustered,
    /// All pages.
    Full,
}

impl Density {
    pub const ALL: [Self; 4] = [Self::Idle, Self::Random, Self::Clustered, Self::Full];

    /// Returns a stride and a run in pages: in each stride, one run is dirty.
    fn stride_and_run(self) -> [u64; 2] {
        match self {
            Self::Idle => [1, 0],
            Self::Random => [1024, 1],
            Self::Clustered => [16384, 1638],
            Self::Full => [1 << 22, 1 << 22],
        }
    }

    /// Returns the parameters to mark the pages of `range`; `None` to mark no page.
    pub fn marks(self, range: IovaRange) -> Option<Marks> {
        let [stride, run] = self.stride_and_run().map(|pages| pages * PAGE);
        (run > 0).then_some(Marks {
            range,
            stride,
            run,
            seed: u32::from(self == Self::Random) * 0x9e37_79b9,
        })
    }

    /// Returns the number of dirty pages in `length` bytes.
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
    fn fractions_match_their_names() {
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
