// SPDX-License-Identifier: GPL-2.0

//! Guide files: what differs between where a save set comes from and where it goes.
