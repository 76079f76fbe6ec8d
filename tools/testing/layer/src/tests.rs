// SPDX-License-Identifier: GPL-2.0

//! What the host tests of the layer beyond what the kernel does, too.
//!
//! [`encoder`] and [`decoder`] are a second implementation of the stream. They were written from
//! `Documentation/vifa/stream.rst` and share nothing with the layer.

mod addresses;
mod checksum;
mod decoder;
mod documented;
mod encoder;
mod failures;
mod golden;
mod headers;
mod lies;
mod log;
mod properties;
mod refusals;
mod rounds;
