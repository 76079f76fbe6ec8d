// SPDX-License-Identifier: GPL-2.0

//! Migrates a virtual machine with VIFA interfaces, and verifies every result.
//!
//! The library runs as root on the SR-IOV host. It creates virtual functions ([`sriov`]), passes
//! some to a virtual machine under the distribution's unmodified QEMU ([`vmm`]) and moves the
//! machine, with its workloads running, to another QEMU with other functions ([`guest`],
//! [`migration`]). The workloads in the guest verify every byte that the devices move, and that
//! each command completes exactly once ([`console`]). The whole machine is compared at source and
//! destination ([`comparison`]). QEMU's trace shows how it handled the devices ([`trace`]).
//! Migrations are also interrupted ([`interruption`]), refused ([`refusal`]) and measured
//! ([`downtime`]).
//!
//! If the devices are network adapters ([`card`]), the workload is traffic between this machine and
//! the virtual machine ([`flows`]), which shows the losses while the machine is away.

pub mod card;
pub mod comparison;
pub mod console;
pub mod devices;
pub mod downtime;
pub mod flows;
pub mod guest;
pub mod identity;
pub mod interruption;
pub mod iperf;
pub mod kernel_log;
pub mod migration;
pub mod processor;
pub mod progress;
pub mod refusal;
pub mod region;
pub mod scratch;
pub mod sriov;
pub mod style;
pub mod trace;
pub mod vfio;
pub mod vmm;

pub use vifa_headers as hw;
