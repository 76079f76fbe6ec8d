// SPDX-License-Identifier: GPL-2.0

//! Tests of the layer that run only on the host.
//!
//! Many compare the layer with [`vifa_decoder`], a second implementation of the stream.

mod addresses;
mod checksum;
mod documented;
mod failures;
mod golden;
mod headers;
mod lies;
mod local;
mod log;
mod properties;
mod refusals;
mod rounds;
mod second;
