// SPDX-License-Identifier: GPL-2.0

//! What the host tests of the layer beyond what the kernel does, too.
//!
//! Many compare the layer with [`vifa_decoder`], a second implementation of the stream.

mod addresses;
mod checksum;
mod documented;
mod failures;
mod golden;
mod headers;
mod lies;
mod log;
mod properties;
mod refusals;
mod rounds;
mod second;
