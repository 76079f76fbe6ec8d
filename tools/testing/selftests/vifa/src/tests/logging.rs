// SPDX-License-Identifier: GPL-2.0

//! DMA logging: VFIO is told of each page that the VF has written, and of no other.

mod fault;
mod hint;
mod life;
mod load;
mod model;
mod observer;
pub(super) mod random;
mod refusal;
mod report;
pub(super) mod tracked;

use super::Test;

/// The tests; the largest has `writes` words written.
pub fn tests(writes: u64) -> Vec<Test> {
    [
        refusal::tests(),
        report::tests(),
        hint::tests(),
        life::tests(),
        fault::tests(),
        load::tests(writes),
    ]
    .into_iter()
    .flatten()
    .collect()
}
