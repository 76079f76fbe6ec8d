// SPDX-License-Identifier: GPL-2.0

//! Gives the command the project's headers, so that it reads the same layout as the driver.

fn main() {
    vifa_headers::translate(
        &["include/linux/vifa_hw.h", "include/uapi/linux/vifa.h"],
        "headers.rs",
        &["--no-derive-debug"],
    );
}
