// SPDX-License-Identifier: GPL-2.0

//! The kernel's memory at a moment, by three of the kernel's statistics.
//!
//! - Slab: the objects in use of the kmalloc() caches in /proc/slabinfo, which drivers allocate
//!   from; and larger allocations from the page allocator: the slab pages of /proc/meminfo that are
//!   not in /proc/slabinfo. Each cache is shrunk before, because objects cached for a processor
//!   would count as in use.
//! - Vmalloc: the areas of /proc/vmallocinfo that vmalloc() made, without their guard pages.
//!   Excludes the stacks of threads, whose number changes with the kernel's workers, and areas that
//!   map memory for DMA, which is counted below.
//! - DMA: the memory that the drivers of VIFA have mapped, from the kernel's DMA-API debugging
//!   (/sys/kernel/debug/dma-api/dump), in whole pages.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};

const PAGE: i64 = 4096;

/// Sufficient time for memory that is freed after an RCU grace period.
const GRACE: Duration = Duration::from_millis(300);

/// The functions that allocate the stack of a thread, depending on inlining.
const STACK_CALLERS: [&str; 3] = ["dup_task_struct+", "copy_process+", "kernel_clone+"];

/// Number of bytes of the kernel's memory, or their change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelMemory {
    pub slab: i64,
    pub vmalloc: i64,
    pub dma: i64,
}

impl KernelMemory {
    /// Measures the kernel's memory now.
    pub fn now() -> Result<Self> {
        thread::sleep(GRACE);
        shrink_slabs()?;
        let read = |path: &str| fs::read_to_string(path).context(path.to_owned());
        let slabs = Slabs::parse(&read("/proc/slabinfo")?).context("/proc/slabinfo")?;
        let all = slab_bytes(&read("/proc/meminfo")?).context("/proc/meminfo")?;
        Ok(Self {
            slab: slabs.used + all - slabs.all,
            vmalloc: vmalloc_bytes(&read("/proc/vmallocinfo")?),
            dma: dma_bytes(&read("/sys/kernel/debug/dma-api/dump")?)
                .context("/sys/kernel/debug/dma-api/dump")?,
        })
    }

    /// Returns the change since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            slab: self.slab - before.slab,
            vmalloc: self.vmalloc - before.vmalloc,
            dma: self.dma - before.dma,
        }
    }
}

/// Frees the caches of file systems, and shrinks all slab caches.
fn shrink_slabs() -> Result<()> {
    const DIRECTORY: &str = "/sys/kernel/slab";
    fs::write("/proc/sys/vm/drop_caches", "2").context("/proc/sys/vm/drop_caches")?;
    for cache in fs::read_dir(DIRECTORY).context(DIRECTORY)? {
        let path = cache?.path().join("shrink");
        fs::write(&path, "1").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Number of bytes of slabs.
#[derive(Debug, PartialEq, Eq)]
struct Slabs {
    /// In objects in use of the kmalloc() caches.
    used: i64,
    /// In pages of all caches.
    all: i64,
}

impl Slabs {
    /// Reads /proc/slabinfo, version 2.1.
    fn parse(text: &str) -> Option<Self> {
        let mut sum = Self { used: 0, all: 0 };
        for line in text.lines().skip(2) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
            // name active_objs num_objs objsize objperslab pagesperslab : tunables 0 0 0 : slabdata
            // active_slabs num_slabs sharedavail
            if fields[0].starts_with("kmalloc-") {
                sum.used += number(1)? * number(3)?;
            }
            sum.all += number(14)? * number(5)? * PAGE;
        }
        Some(sum)
    }
}

/// Returns the number of slab bytes in /proc/meminfo.
fn slab_bytes(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns the number of bytes of vmalloc() areas in /proc/vmallocinfo.
fn vmalloc_bytes(text: &str) -> i64 {
    let areas = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let caller = fields.clone().nth(2)?;
        if STACK_CALLERS.iter().any(|name| caller.starts_with(name)) {
            return None;
        }
        fields.clone().find(|field| *field == "vmalloc")?;
        let pages = fields.find_map(|field| field.strip_prefix("pages="))?;
        pages.parse::<i64>().ok()
    });
    areas.sum::<i64>() * PAGE
}

/// Returns the number of bytes that VIFA's drivers have mapped, from the dump of the DMA-API
/// debugging.
fn dma_bytes(text: &str) -> Option<i64> {
    let mut sum = 0;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let is_vifa = fields
            .next()
            .is_some_and(|driver| driver.starts_with("vifa"));
        if !is_vifa {
            continue;
        }
        let length = fields.find_map(|field| field.strip_prefix("L="))?;
        let length = i64::from_str_radix(length, 16).ok()?;
        sum += (length + PAGE - 1) / PAGE * PAGE;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_count_objects_and_pages() {
        let text = "slabinfo - version: 2.1\n\
            # name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : ...\n\
            kmalloc-256 10 16 256 16 1 : tunables 0 0 0 : slabdata 1 1 0\n\
            kmalloc-8k 3 8 8192 4 8 : tunables 0 0 0 : slabdata 2 2 0\n\
            vm_area_struct 5 5 184 22 1 : tunables 0 0 0 : slabdata 1 1 0\n";
        let expected = Slabs {
            used: 10 * 256 + 3 * 8192,
            all: (1 + 2 * 8 + 1) * PAGE,
        };
        assert_eq!(Slabs::parse(text), Some(expected));
        assert_eq!(Slabs::parse("v\n# name\nkmalloc-8 ten\n"), None);
    }

    #[test]
    fn slab_of_meminfo_is_in_bytes() {
        let text = "MemTotal:  4096 kB\nSlab:             123 kB\nSReclaimable: 7 kB\n";
        assert_eq!(slab_bytes(text), Some(123 * 1024));
        assert_eq!(slab_bytes("MemTotal:  4096 kB\n"), None);
    }

    #[test]
    fn vmalloc_excludes_stacks_and_mappings() {
        let text = "\
0xffffc90000000000-0xffffc90000005000   20480 kvmalloc_node_noprof+0x4c/0x1b0 pages=4 vmalloc\n\
0xffffc90000200000-0xffffc90000205000   20480 kernel_clone+0x9a/0x350 pages=4 vmalloc\n\
0xffffc90000005000-0xffffc90000007000    8192 acpi_os_map_iomem+0x1/0x2 phys=0x1 ioremap\n\
0xffffc90000007000-0xffffc90000108000 1052672 iommu_dma_alloc+0x1/0x2 dma-coherent\n";
        assert_eq!(vmalloc_bytes(text), 4 * PAGE);
    }

    #[test]
    fn dma_counts_whole_pages_of_vifa_s_drivers() {
        let text = "\
vifa-pf 0000:01:00.0 coherent idx 1 P=0x1 D=2 L=100000 cln=0x1 DMA_BIDIRECTIONAL checked\n\
vifa-pf 0000:01:00.0 coherent idx 2 P=0x1 D=2 L=10 cln=0x1 DMA_BIDIRECTIONAL checked\n\
virtio-pci 0000:00:01.0 coherent idx 3 P=0x1 D=2 L=4000 cln=0x1 DMA_BIDIRECTIONAL checked\n\
vifa-pf 0000:01:00.0 scatter-gather idx 4 P=0x1 D=2 L=1000 cln=0x1 DMA_TO_DEVICE checked\n";
        assert_eq!(dma_bytes(text), Some(0x10_0000 + 2 * PAGE));
        assert_eq!(dma_bytes("vifa-pf 0 coherent idx 1 L=x\n"), None);
    }
}
