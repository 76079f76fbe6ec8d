// SPDX-License-Identifier: GPL-2.0

//! Gives the program the project's headers, so that what is compared here is where the driver has
//! it.

fn main() {
    vifa_headers::translate(
        &[
            "include/linux/vifa_hw.h",
            "include/linux/vifa_fault.h",
            "include/uapi/linux/vifa.h",
        ],
        "hw.rs",
        &["--with-derive-default"],
    );
}
