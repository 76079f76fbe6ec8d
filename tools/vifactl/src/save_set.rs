// SPDX-License-Identifier: GPL-2.0

//! Save sets: a file with a device's stream and a manifest.
