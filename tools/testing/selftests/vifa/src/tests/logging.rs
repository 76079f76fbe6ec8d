// SPDX-License-Identifier: GPL-2.0

//! DMA logging: VFIO reports exactly the pages that the VF has written.

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

/// Returns the tests; the largest has `writes` words written.
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
