// SPDX-License-Identifier: GPL-2.0

//! Migrates a virtual machine with VIFA interfaces, and believes only what it verifies.
//!
//! Runs as root on the SR-IOV host. It makes virtual functions ([`sriov`]), passes some to a virtual
//! machine under the distribution's unmodified QEMU ([`vmm`]) and moves the machine, its workloads
//! running, to another QEMU that has others ([`guest`], [`migration`]). The workloads in the guest
//! verify every byte that the devices move, and that each command completes exactly once
//! ([`console`]); the whole machine is compared where it has left and where it has arrived
//! ([`comparison`]); what QEMU did with the devices is read in its trace ([`trace`]). Migrations are
//! also broken off ([`interruption`]), refused ([`refusal`]) and measured ([`downtime`]).
//!
//! Where the devices are network adapters ([`card`]), the workload is traffic between this machine and
//! the virtual machine ([`flows`]), which shows what is lost while nobody takes it.

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
pub mod qmp;
pub mod refusal;
pub mod region;
pub mod register_file;
pub mod scratch;
pub mod sriov;
pub mod style;
pub mod trace;
pub mod vfio;
pub mod vmm;

pub use vifa_headers as hw;
