// SPDX-License-Identifier: GPL-2.0

//! The driver provides everything that vfio-pci provides.

use std::time::Duration;

use anyhow::{Context, Result};
use vfio_bindings::bindings::vfio;
use vifa_vfio::{ioctl_number, NumberRequest};

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::{Bed, VF_DRIVER},
    engine::Vf,
    expect, hw,
    process::{alongside, wait_for_event},
    region,
    vfio::{AddressSpace, Device, Interrupt},
};

const VENDOR_REGISTER: u64 = 0x00;
const DEVICE_REGISTER: u64 = 0x02;
const TEARDOWN: Duration = Duration::from_secs(10);

pub fn tests() -> Vec<Test> {
    claims!("device":
        is_a_pci_device_with_reset,
        has_the_regions_of_its_bars,
        does_not_report_the_msix_table_as_mappable,
        shows_configuration_space,
        keeps_identity_read_only,
        reads_and_writes_bar_0_by_file_and_by_mapping,
        refuses_access_outside_a_region,
        has_no_intx_and_no_msi,
        has_the_msix_vectors_of_the_vf,
        has_the_interrupts_that_vfio_adds,
        signals_completions_by_msix,
        does_all_of_the_engine_s_commands,
        serves_a_legacy_group,
        reset_resets_the_engine,
        shows_nothing_of_the_last_user_after_close,
        asks_for_the_device_on_unbind,
        refuses_unknown_ioctls,
    )
}

fn open(bed: &Bed) -> Result<Device> {
    Device::open(&bed.vf(0)?, &AddressSpace::iommufd()?)
}

fn is_a_pci_device_with_reset(bed: &Bed) -> Result<()> {
    let info = open(bed)?.info()?;
    expect::equal(
        "flags of the device",
        info.flags,
        vfio::VFIO_DEVICE_FLAGS_PCI | vfio::VFIO_DEVICE_FLAGS_RESET,
    )?;
    expect::claim(
        "the regions of a PCI device",
        info.num_regions > vfio::VFIO_PCI_CONFIG_REGION_INDEX,
    )?;
    expect::claim(
        "the interrupts of a PCI device",
        info.num_irqs > vfio::VFIO_PCI_REQ_IRQ_INDEX,
    )
}

fn has_the_regions_of_its_bars(bed: &Bed) -> Result<()> {
    const ACCESS: u32 = vfio::VFIO_REGION_INFO_FLAG_READ | vfio::VFIO_REGION_INFO_FLAG_WRITE;
    let device = open(bed)?;
    for bar in vfio::VFIO_PCI_BAR0_REGION_INDEX..=vfio::VFIO_PCI_BAR5_REGION_INDEX {
        let region = device.region(bar)?;
        let flags = region.flags & (ACCESS | vfio::VFIO_REGION_INFO_FLAG_MMAP);
        match bar {
            hw::VIFA_REFERENCE_BAR => {
                expect::equal(
                    "size of BAR 0",
                    region.size,
                    hw::VIFA_REFERENCE_BAR_SIZE.into(),
                )?;
                expect::equal(
                    "flags of BAR 0",
                    flags,
                    ACCESS | vfio::VFIO_REGION_INFO_FLAG_MMAP,
                )?;
            }
            hw::VIFA_REFERENCE_MSIX_BAR => {
                expect::claim("a BAR with the MSI-X table", region.size >= 16)?;
                expect::equal(
                    "flags of BAR 4",
                    flags,
                    ACCESS | vfio::VFIO_REGION_INFO_FLAG_MMAP,
                )?;
            }
            _ => expect::equal(&format!("size of BAR {bar}"), region.size, 0)?,
        }
    }
    let rom = device.region(vfio::VFIO_PCI_ROM_REGION_INDEX)?;
    expect::equal("size of the ROM", rom.size, 0)?;
    let config = device.region(vfio::VFIO_PCI_CONFIG_REGION_INDEX)?;
    expect::equal("flags of configuration space", config.flags, ACCESS)?;
    expect::equal("size of configuration space", config.size, 4096)
}

/// VMMs would treat the rest of the table's page as memory.
fn does_not_report_the_msix_table_as_mappable(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    for bar in vfio::VFIO_PCI_BAR0_REGION_INDEX..=vfio::VFIO_PCI_BAR5_REGION_INDEX {
        expect::equal(
            &format!("capabilities of BAR {bar}"),
            device.region_capabilities(bar)?,
            vec![],
        )?;
    }
    expect::equal(
        "capabilities of the migration region",
        device.region_capabilities(region::index(&device)?)?,
        vec![vfio::VFIO_REGION_INFO_CAP_TYPE],
    )
}

fn shows_configuration_space(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    let ids = [VENDOR_REGISTER, DEVICE_REGISTER].map(|at| device.read_config(at));
    let [vendor, id] = ids.map(|id| id.map(u32::from));
    expect::equal("vendor id", vendor?, hw::VIFA_REFERENCE_VENDOR)?;
    expect::equal("device id", id?, hw::VIFA_REFERENCE_VF_DEVICE)
}

fn keeps_identity_read_only(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    device.write_config(VENDOR_REGISTER, 0x8086)?;
    expect::equal(
        "vendor id after a write to it",
        u32::from(device.read_config(VENDOR_REGISTER)?),
        hw::VIFA_REFERENCE_VENDOR,
    )
}

fn reads_and_writes_bar_0_by_file_and_by_mapping(bed: &Bed) -> Result<()> {
    let vf = Vf::open(&bed.vf(0)?, &AddressSpace::iommufd()?)?;
    let by_file = |offset: u32| -> Result<u32> {
        let bytes = vf.device.read(hw::VIFA_REFERENCE_BAR, offset.into(), 4)?;
        Ok(u32::from_le_bytes(bytes[..].try_into()?))
    };
    expect::equal(
        "magic by mapping",
        vf.register(hw::VIFA_REFERENCE_MAGIC),
        hw::VIFA_REFERENCE_MAGIC_VALUE,
    )?;
    expect::equal(
        "magic by file",
        by_file(hw::VIFA_REFERENCE_MAGIC)?,
        hw::VIFA_REFERENCE_MAGIC_VALUE,
    )?;
    let scratch = hw::VIFA_REFERENCE_SCRATCH;
    vf.set_register(scratch, 0x1122_3344);
    expect::equal("scratch written by mapping", by_file(scratch)?, 0x1122_3344)?;
    vf.device.write(
        hw::VIFA_REFERENCE_BAR,
        scratch.into(),
        &0x5566_7788u32.to_le_bytes(),
    )?;
    expect::equal("scratch written by file", vf.register(scratch), 0x5566_7788)
}

fn refuses_access_outside_a_region(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    let end = hw::VIFA_REFERENCE_BAR_SIZE.into();
    expect::refused(
        "read after BAR 0",
        device.read(hw::VIFA_REFERENCE_BAR, end, 4),
        &[libc::EINVAL],
    )?;
    expect::refused(
        "write after BAR 0",
        device.write(hw::VIFA_REFERENCE_BAR, end, &[0; 4]),
        &[libc::EINVAL],
    )?;
    expect::refused(
        "read of an unimplemented BAR",
        device.read(vfio::VFIO_PCI_BAR2_REGION_INDEX, 0, 4),
        &[libc::EINVAL],
    )
}

fn has_no_intx_and_no_msi(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    for interrupt in [Interrupt::Intx, Interrupt::Msi] {
        expect::equal(
            &format!("vectors of {interrupt:?}"),
            device.interrupt(interrupt)?.count,
            0,
        )?;
        expect::refused(
            &format!("event for {interrupt:?}"),
            device.signal(interrupt),
            &[libc::EINVAL],
        )?;
    }
    Ok(())
}

fn has_the_msix_vectors_of_the_vf(bed: &Bed) -> Result<()> {
    let info = open(bed)?.interrupt(Interrupt::Msix)?;
    expect::equal("MSI-X vectors", info.count, hw::VIFA_REFERENCE_VECTORS)?;
    expect::claim(
        "MSI-X to signal event counters",
        info.flags & vfio::VFIO_IRQ_INFO_EVENTFD != 0,
    )
}

fn has_the_interrupts_that_vfio_adds(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    for interrupt in [Interrupt::Error, Interrupt::Request] {
        let count = device.interrupt(interrupt)?.count;
        expect::equal(&format!("vectors of {interrupt:?}"), count, 1)?;
    }
    Ok(())
}

fn signals_completions_by_msix(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let event = guest.vf.interrupt()?;
    for _ in 0..3 {
        guest
            .engine
            .submit(&guest.vf, crate::engine::Command::Nop)?;
        guest.engine.wait_for_interrupt(&guest.vf, &event)?;
    }
    Ok(())
}

fn does_all_of_the_engine_s_commands(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    (1..=8).try_for_each(|seed| guest.work(seed))
}

fn serves_a_legacy_group(bed: &Bed) -> Result<()> {
    let mut guest = Guest::within(bed, 0, &AddressSpace::container()?)?;
    let event = guest.vf.interrupt()?;
    guest
        .engine
        .submit(&guest.vf, crate::engine::Command::Nop)?;
    guest.engine.wait_for_interrupt(&guest.vf, &event)?;
    guest.work(1)?;
    guest.furnish(2)?;
    let stream = guest.vf.device.save()?;
    guest.vf.device.load(&stream)?;
    guest
        .vf
        .device
        .change_state(crate::migration::State::Running)?;
    guest.work(3)
}

fn reset_resets_the_engine(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(1)?;
    guest.vf.reset()?;
    for (register, what) in [
        (hw::VIFA_REFERENCE_CONTROL, "control"),
        (hw::VIFA_REFERENCE_STATUS, "status"),
        (hw::VIFA_REFERENCE_SUBMISSION_TAIL, "submission tail"),
        (hw::VIFA_REFERENCE_COMPLETION_TAIL, "completion tail"),
        (hw::VIFA_REFERENCE_SCRATCH, "scratch register 0"),
    ] {
        expect::equal(
            &format!("{what} after a reset"),
            guest.vf.register(register),
            0,
        )?;
    }
    guest.engine.enable(&guest.vf)?;
    guest.work(2)
}

fn shows_nothing_of_the_last_user_after_close(bed: &Bed) -> Result<()> {
    let mut first = Guest::new(bed, 0)?;
    first.furnish(0x5ec2_e7ed)?;
    drop(first);
    let mut second = Guest::new(bed, 0)?;
    expect::equal(
        "scratch register 1",
        second.vf.register(hw::VIFA_REFERENCE_SCRATCH + 4),
        0,
    )?;
    let local = second.read_local(0, 0)?;
    expect::same_bytes("local memory", &local, &vec![0; local.len()])
}

fn asks_for_the_device_on_unbind(bed: &Bed) -> Result<()> {
    let function = bed.vf(0)?;
    let mut guest = Guest::new(bed, 0)?;
    guest.work(1)?;
    let request = guest.vf.device.signal(Interrupt::Request)?;
    let unbound = function.clone();
    alongside(
        TEARDOWN,
        move || unbound.unbind().context("unbind"),
        || {
            wait_for_event(&request, TEARDOWN).context("request for the device")?;
            guest.work(2).context("while the device is asked for")?;
            drop(guest);
            Ok(())
        },
    )?;
    expect::equal("driver after the close", function.driver(), None)?;
    function.ensure_bound(VF_DRIVER)?;
    Guest::new(bed, 0)?.work(3)
}

fn refuses_unknown_ioctls(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    // SAFETY: VFIO has no request of this number, so that no handler uses the argument as an
    // address.
    let request = unsafe { NumberRequest::new(0x3bff) };
    let result = ioctl_number(&device, &request, 0);
    expect::refused("unknown ioctl", result, &[libc::ENOTTY])
}
