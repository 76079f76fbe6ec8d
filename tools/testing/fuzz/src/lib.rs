// SPDX-License-Identifier: GPL-2.0

//! Fuzzing of the parsers of untrusted input: the layer, which reads streams, and `vifactl`, which
//! reads save sets and decodes both.
//!
//! [`stream`] asserts the properties of the layer for any bytes, and [`save_set`] and [`decode`]
//! those of the command. [`mutation`] changes valid streams, the [`seeds`], to almost valid ones.
//! The program `vifa-mutate` judges millions of mutated streams. The fuzz targets let libFuzzer
//! search for inputs that reach new code.

pub mod allocation;
pub mod decode;
pub mod mutation;
pub mod save_set;
pub mod seeds;
pub mod stream;

use vifa_layer::{layer, seam};
