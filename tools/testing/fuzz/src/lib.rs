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

use vifa_layer::{layer, seam};
