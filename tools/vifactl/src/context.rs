// SPDX-License-Identifier: GPL-2.0

//! The input that all sub-commands share. It is separate from the command line, so that no
//! sub-command depends on the parser that runs it.

use crate::{host::Host, output::Output};

/// The input of every sub-command besides its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The host to work on.
    pub(crate) host: Host,
    /// The output format.
    pub(crate) output: Output,
}
