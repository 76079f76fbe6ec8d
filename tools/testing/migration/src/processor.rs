// SPDX-License-Identifier: GPL-2.0

//! Features of the processor for virtual machines.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{ensure, Context, Result};
use clap::ValueEnum;

/// The way in which QEMU runs a virtual machine's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accelerator {
    /// On this machine's processor; the kernel delivers the devices' interrupts.
    Kvm,
    /// By software emulation.
    Tcg,
}

impl Accelerator {
    /// Returns KVM if it works; otherwise software emulation and the reason why KVM does not work.
    pub fn choose() -> (Self, Option<anyhow::Error>) {
        match kvm_works() {
            Ok(()) => (Self::Kvm, None),
            Err(error) => (Self::Tcg, Some(error)),
        }
    }

    /// Returns KVM if it works, otherwise software emulation.
    pub fn best() -> Self {
        Self::choose().0
    }

    /// Returns the value of QEMU's `-accel`.
    pub fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=single",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "software emulation",
        })
    }
}

// Requests of <linux/kvm.h>; none has an argument.
const KVM_GET_API_VERSION: libc::c_ulong = 0xae00;
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
const KVM_CREATE_IRQCHIP: libc::c_ulong = 0xae60;

/// The only version that exists.
const KVM_API_VERSION: libc::c_int = 12;

/// Checks that QEMU's default machine runs under KVM here. A /dev/kvm is not sufficient: a nested
/// machine may have it without the processor's extensions, and a kernel may lack the interrupt
/// controllers. Without nested paging, a guest is slower than under software emulation.
fn kvm_works() -> Result<()> {
    let flags = fs::read_to_string("/proc/cpuinfo").context("failed to read /proc/cpuinfo")?;
    ensure!(
        has_extensions(&flags),
        "the processor has neither svm with npt nor vmx with ept"
    );
    let path = "/dev/kvm";
    let mut options = File::options();
    let kvm = options.read(true).write(true).open(path).context(path)?;
    let version = call(&kvm, KVM_GET_API_VERSION).context("KVM_GET_API_VERSION")?;
    ensure!(
        version == KVM_API_VERSION,
        "invalid KVM version: got {version}, expected {KVM_API_VERSION}"
    );
    let machine = call(&kvm, KVM_CREATE_VM).context("KVM_CREATE_VM")?;
    // SAFETY: The kernel has just made the descriptor for this call, and nothing else uses it.
    let machine = unsafe { OwnedFd::from_raw_fd(machine) };
    call(&machine, KVM_CREATE_IRQCHIP).context("KVM_CREATE_IRQCHIP")?;
    Ok(())
}

/// Calls an ioctl that takes no argument.
fn call(file: &impl AsRawFd, request: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: The requests of this file take an integer, which is 0, and no pointer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, 0) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn has_extensions(cpuinfo: &str) -> bool {
    let flags: Vec<_> = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("flags"))
        .flat_map(str::split_whitespace)
        .collect();
    let has = |flag| flags.contains(&flag);
    (has("svm") && has("npt")) || (has("vmx") && has("ept"))
}

/// Returns the hypervisor of this machine: "KVM", "TCG" (QEMU's software emulation), another
/// hypervisor's signature, or "none".
#[cfg(target_arch = "x86_64")]
pub fn hypervisor() -> String {
    use std::arch::x86_64::__cpuid;

    const FEATURES: u32 = 1;
    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    const HYPERVISOR: u32 = 0x4000_0000;

    // SAFETY: Every x86-64 processor has the instruction.
    let cpuid = |leaf| unsafe { __cpuid(leaf) };
    if cpuid(FEATURES).ecx & HYPERVISOR_PRESENT == 0 {
        return "none".into();
    }
    let leaf = cpuid(HYPERVISOR);
    let signature = [leaf.ebx, leaf.ecx, leaf.edx]
        .map(u32::to_le_bytes)
        .concat();
    hypervisor_of(&signature)
}

#[cfg(not(target_arch = "x86_64"))]
pub fn hypervisor() -> String {
    "unknown".into()
}

/// Returns the name for the signature in the processor's hypervisor leaf.
#[cfg(target_arch = "x86_64")]
fn hypervisor_of(signature: &[u8]) -> String {
    match signature {
        b"TCGTCGTCGTCG" => "TCG".into(),
        b"KVMKVMKVM\0\0\0" => "KVM".into(),
        other => String::from_utf8_lossy(other)
            .trim_end_matches('\0')
            .to_owned(),
    }
}

/// Returns whether this machine's processor is itself emulated by software.
pub fn is_emulated() -> bool {
    hypervisor() == "TCG"
}

/// Returns the kernel parameter with the rate of the guest's time stamp counter, which is this
/// machine's rate. An emulated guest is too slow to measure the rate and would not use the counter
/// as its clock.
#[cfg(target_arch = "x86_64")]
pub fn clock() -> String {
    use std::arch::x86_64::_rdtsc;
    use std::thread;
    use std::time::{Duration, Instant};

    // SAFETY: Every x86-64 processor has the counter, and Linux lets programs read it.
    let count = || unsafe { _rdtsc() };
    let (begin, start) = (Instant::now(), count());
    thread::sleep(Duration::from_millis(100));
    let (elapsed, ticks) = (begin.elapsed(), count().wrapping_sub(start));
    let khz = ticks as f64 / elapsed.as_secs_f64() / 1000.0;
    format!("tsc_early_khz={khz:.0} tsc=reliable")
}

/// Returns an empty parameter: other processors report the rates of their counters.
#[cfg(not(target_arch = "x86_64"))]
pub fn clock() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_whole_flags() {
        assert!(has_extensions("model : x\nflags\t\t: fpu vmx sse ept\n"));
        assert!(has_extensions("flags\t\t: npt svm\n"));
        assert!(!has_extensions("flags\t\t: svm ept\n"));
        assert!(!has_extensions(
            "flags\t\t: fpu vmx_like ept\nvmx flags\t: vnmi\n"
        ));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn hypervisors_are_named_by_their_signatures() {
        assert_eq!(hypervisor_of(b"TCGTCGTCGTCG"), "TCG");
        assert_eq!(hypervisor_of(b"KVMKVMKVM\0\0\0"), "KVM");
        assert_eq!(hypervisor_of(b"Other\0\0\0\0\0\0\0"), "Other");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn returns_a_plausible_rate() {
        let clock = clock();
        let khz = clock
            .strip_prefix("tsc_early_khz=")
            .and_then(|rest| rest.split(' ').next())
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap();
        assert!((100_000..20_000_000).contains(&khz), "{khz}");
    }
}
