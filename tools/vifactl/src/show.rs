// SPDX-License-Identifier: GPL-2.0

//! `vifactl show`: the state of a VIFA interface.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use vifa_vfio::pci::Address;

use crate::{
    context::Context,
    region::{self, Region, Source},
};

/// Show a VIFA interface: identity, interfaces, relations, records, counters
///
/// The data is read from debugfs (root only), or else through the open file of the process that has
/// the device open, or else from the device itself, which opening resets.
///
/// The output of --json is an input of `vifactl check` on another host.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The virtual function, as in 0000:01:00.1
    function: Address,
}

/// The output.
#[derive(Serialize)]
struct Report {
    function: Address,
    read_from: Source,
    #[serde(flatten)]
    region: Region,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, read from {}", self.function, self.read_from)?;
        self.region.fmt(f)
    }
}

/// Prints the state of the function.
///
/// # Errors
///
/// Those of [`region::read`].
pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let (region, read_from) = region::read(arguments.function, &context.host)?;

    context.output.print(&Report {
        function: arguments.function,
        read_from,
        region,
    })
}
