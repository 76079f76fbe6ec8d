// SPDX-License-Identifier: GPL-2.0

//! Conversions of the structures of the C headers to and from bytes.

use super::*;
use kernel::transmute::{
    AsBytes,
    FromBytes, //
};

// SAFETY: The structure holds integers only, without padding (include/uapi/linux/vfio.h).
unsafe impl AsBytes for vfio_precopy_info {}

// SAFETY: The structure holds integers only, without padding (include/uapi/linux/vifa.h).
unsafe impl AsBytes for vifa_region {}

// SAFETY: The structure holds integers only, without padding (include/linux/vifa_hw.h).
unsafe impl AsBytes for vifa_hw_scatter {}

// SAFETY: The structure holds integers only, without padding (include/linux/vifa_hw.h).
unsafe impl AsBytes for vifa_hw_range {}

// SAFETY: The structure holds integers only (include/linux/vifa_hw.h).
unsafe impl FromBytes for vifa_hw_identity {}

// SAFETY: The structure holds integers only (include/linux/vifa_hw.h).
unsafe impl FromBytes for vifa_hw_range {}
