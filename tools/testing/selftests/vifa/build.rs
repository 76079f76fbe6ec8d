// SPDX-License-Identifier: GPL-2.0

//! Gives the tests the project's headers, so that they read the same layout as the driver and the
//! device's model do.

fn main() {
    vifa_headers::translate(
        &[
            "include/linux/vifa_hw.h",
            "include/linux/vifa_reference.h",
            "include/linux/vifa_fault.h",
            "include/uapi/linux/vifa.h",
        ],
        "hw.rs",
        &["--with-derive-default"],
    );
}
