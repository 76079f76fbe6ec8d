// SPDX-License-Identifier: GPL-2.0

//! `vifactl`: the administrator's command for VIFA interfaces.

use std::process::ExitCode;

fn main() -> ExitCode {
    vifactl::main()
}
