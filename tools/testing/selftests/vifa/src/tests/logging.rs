// SPDX-License-Identifier: GPL-2.0

//! DMA logging: VFIO is told of each page that the VF has written, and of no other.

mod fault;
mod life;
mod model;
mod random;
mod refusal;
mod report;
mod tracked;

use super::Test;

pub fn tests() -> Vec<Test> {
    [
        refusal::tests(),
        report::tests(),
        life::tests(),
        fault::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
