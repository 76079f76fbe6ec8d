// SPDX-License-Identifier: GPL-2.0

//! Network adapters of a second backend: their guests access one page of registers through the
//! driver and all other registers directly; their streams fit devices of the same kind.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result};
use serde_json::json;
use vfio_bindings::bindings::vfio;

use super::{claims, Test};
use crate::{
    bed::{Bed, VF_DRIVER},
    expect,
    hw::{self, vifa_identity},
    igb::{register, Adapter, BAR_SIZE, STATUS, THROTTLE, VIRTUAL_82576, VIRTUAL_I350, WINDOW_END},
    migration::{Segments, State},
    region,
    stream::Stream,
    vfio::{AddressSpace, Device},
    vifactl::succeed,
};

/// The BAR with the registers.
const BAR: u32 = vfio::VFIO_PCI_BAR0_REGION_INDEX;

pub fn tests() -> Vec<Test> {
    claims!("igb":
        window_cannot_be_mapped,
        all_but_the_window_can_be_mapped,
        user_space_gets_the_mappable_areas,
        window_reads_the_same_in_each_width,
        part_of_a_register_in_the_window_cannot_be_written,
        access_continues_after_the_end_of_the_window,
        read_after_the_bar_is_refused,
        ioeventfd_is_refused,
        window_can_be_read_while_the_device_is_reset,
        other_devices_have_no_window,
        dma_logging_is_not_offered,
        state_follows_a_round_through_all_states,
        state_moves_to_another_function,
        stream_of_another_adapter_is_refused_by_name,
        stream_of_the_reference_device_is_refused_by_name,
        stream_with_any_damage_is_refused,
        vifactl_changes_the_driver,
    )
}

fn open(index: u32) -> Result<Device> {
    Device::open(&Adapter::set_up()?.vf(index)?, &AddressSpace::iommufd()?)
}

fn window_cannot_be_mapped(_: &Bed) -> Result<()> {
    let device = open(0)?;
    let refused = [libc::EINVAL];
    expect::refused("mmap of the whole BAR", device.map(BAR), &refused)?;
    for (offset, length) in [(0, WINDOW_END), (0, 2 * WINDOW_END), (0, BAR_SIZE)] {
        expect::refused(
            &format!("mmap of {length:#x} bytes at {offset:#x}"),
            device.map_part(BAR, offset, length),
            &refused,
        )?;
    }
    Ok(())
}

fn all_but_the_window_can_be_mapped(_: &Bed) -> Result<()> {
    let device = open(0)?;
    let mapping = device.map_part(BAR, WINDOW_END, BAR_SIZE - WINDOW_END)?;
    let at = (THROTTLE - WINDOW_END) as usize;
    for value in [0x1230_u32, 0x0bc8] {
        mapping.write(at, value);
        expect::equal("register as mapped", mapping.read::<u32>(at), value)?;
        expect::equal("register as read", register(&device, THROTTLE)?, value)?;
    }
    Ok(())
}

fn user_space_gets_the_mappable_areas(_: &Bed) -> Result<()> {
    let device = open(0)?;
    expect::equal(
        "areas that can be mapped",
        device.sparse_areas(BAR)?,
        Some(vec![(WINDOW_END, BAR_SIZE - WINDOW_END)]),
    )?;
    let info = device.region(BAR)?;
    expect::equal("size of BAR 0", info.size, BAR_SIZE)?;
    expect::claim(
        "the flag VFIO_REGION_INFO_FLAG_MMAP",
        info.flags & vfio::VFIO_REGION_INFO_FLAG_MMAP != 0,
    )
}

fn window_reads_the_same_in_each_width(_: &Bed) -> Result<()> {
    let device = open(0)?;
    let whole = device.read(BAR, STATUS, 8)?;
    for width in [1, 2, 4] {
        for at in (0..8).step_by(width) {
            expect::same_bytes(
                &format!("{width} bytes at {at}"),
                &device.read(BAR, STATUS + at as u64, width)?,
                &whole[at..at + width],
            )?;
        }
    }
    expect::same_bytes(
        "3 bytes at 1",
        &device.read(BAR, STATUS + 1, 3)?,
        &whole[1..4],
    )?;
    expect::same_bytes(
        "4 bytes at 2",
        &device.read(BAR, STATUS + 2, 4)?,
        &whole[2..6],
    )
}

fn part_of_a_register_in_the_window_cannot_be_written(_: &Bed) -> Result<()> {
    let device = open(0)?;
    for (offset, length) in [(0, 1), (0, 2), (2, 2), (1, 4), (4, 3)] {
        expect::refused(
            &format!("write of {length} bytes at {offset}"),
            device.write(BAR, 0x800 + offset, &vec![0; length]),
            &[libc::EINVAL],
        )?;
    }
    Ok(())
}

fn access_continues_after_the_end_of_the_window(_: &Bed) -> Result<()> {
    let device = open(0)?;
    let whole = device.read(BAR, WINDOW_END - 8, 16)?;
    for (part, at) in whole.chunks(4).zip((WINDOW_END - 8..).step_by(4)) {
        expect::same_bytes(
            &format!("register {at:#x}"),
            &device.read(BAR, at, 4)?,
            part,
        )?;
    }
    Ok(())
}

fn read_after_the_bar_is_refused(_: &Bed) -> Result<()> {
    let device = open(0)?;
    expect::refused(
        "read after BAR 0",
        device.read(BAR, BAR_SIZE, 4),
        &[libc::EINVAL],
    )
}

fn ioeventfd_is_refused(bed: &Bed) -> Result<()> {
    let device = open(0)?;
    for offset in [0, THROTTLE] {
        expect::refused(
            &format!("ioeventfd at {offset:#x}"),
            device.ioeventfd(BAR, offset),
            &[libc::ENOTTY],
        )?;
    }
    let other = Device::open(&bed.vf(0)?, &AddressSpace::iommufd()?)?;
    other
        .ioeventfd(BAR, u64::from(hw::VIFA_REFERENCE_CONTROL))
        .context("ioeventfd of a device without windows")
        .map(drop)
}

fn window_can_be_read_while_the_device_is_reset(_: &Bed) -> Result<()> {
    const RESETS: usize = 20;

    let device = open(0)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // A read waits for a concurrent reset, and ends without one.
        let reader = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                register(&device, STATUS).context("read during a reset")?;
            }
            Ok(())
        });
        let resets = (0..RESETS).try_for_each(|_| device.reset());
        done.store(true, Ordering::Relaxed);
        reader.join().expect("the reader does not panic")?;
        resets.context("reset during reads")
    })
}

fn other_devices_have_no_window(bed: &Bed) -> Result<()> {
    let device = Device::open(&bed.vf(0)?, &AddressSpace::iommufd()?)?;
    expect::equal("areas", device.sparse_areas(BAR)?, None)?;
    device.map(BAR).context("mmap of BAR 0").map(drop)
}

fn dma_logging_is_not_offered(_: &Bed) -> Result<()> {
    let device = open(0)?;
    expect::refused(
        "VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP",
        device.stop_logging(),
        &[libc::ENOTTY],
    )
}

fn state_follows_a_round_through_all_states(_: &Bed) -> Result<()> {
    let device = open(0)?;
    for state in [
        State::PreCopy,
        State::PreCopyP2p,
        State::StopCopy,
        State::Stop,
        State::RunningP2p,
        State::Running,
        State::Stop,
        State::Resuming,
        State::Running,
    ] {
        if state == State::Running && device.state()? == State::Resuming {
            // An empty stream is invalid.
            device.reset()?;
        } else {
            let _session = device.enter(state)?;
        }
        expect::equal("state", device.state()?, state)?;
    }
    Ok(())
}

fn state_moves_to_another_function(_: &Bed) -> Result<()> {
    const VALUE: u32 = 0x2340;

    let (source, destination) = (open(0)?, open(1)?);
    let mapping = source.map_part(BAR, WINDOW_END, BAR_SIZE - WINDOW_END)?;
    mapping.write((THROTTLE - WINDOW_END) as usize, VALUE);
    let stream = source.save()?;
    destination.load(&stream)?;
    destination.change_state(State::Running)?;
    let restored = register(&destination, THROTTLE)?;
    expect::equal("throttle", restored & 0x7ffe, VALUE)
}

fn identity_of_a_stream(index: u32) -> Result<(Stream, vifa_identity)> {
    let stream = Stream::parse(&open(index)?.save()?)?;
    let identity = stream.identity()?;
    Ok((stream, identity))
}

/// Checks that a destination rejects `stream` and names `field`.
fn is_refused(device: &Device, field: &str, stream: &Stream) -> Result<()> {
    let result = device.try_load(&stream.seal(), Segments::Whole)?;
    expect::refused("stream", result, &[libc::EINVAL])?;
    let region = region::read(device)?;
    let text = region::error_text(&region)?;
    expect::claim(&format!("{field} in \"{text}\""), text.contains(field))
}

fn stream_of_another_adapter_is_refused_by_name(_: &Bed) -> Result<()> {
    let (mut stream, identity) = identity_of_a_stream(0)?;
    expect::equal("device id", identity.device, VIRTUAL_82576)?;
    stream.edit(hw::VIFA_SECTION_IDENTITY, |identity: &mut vifa_identity| {
        identity.device = VIRTUAL_I350;
    })?;
    is_refused(&open(1)?, "device", &stream)
}

fn stream_of_the_reference_device_is_refused_by_name(bed: &Bed) -> Result<()> {
    let reference = Device::open(&bed.vf(0)?, &AddressSpace::iommufd()?)?;
    let stream = Stream::parse(&reference.save()?)?;
    is_refused(&open(1)?, "vendor", &stream)?;
    let (stream, _) = identity_of_a_stream(0)?;
    is_refused(&reference, "vendor", &stream)
}

fn stream_with_any_damage_is_refused(_: &Bed) -> Result<()> {
    let destination = open(1)?;
    let stream = open(0)?.save()?;
    for at in (0..stream.len()).step_by(41) {
        let mut damaged = stream.clone();
        damaged[at] ^= 0x10;
        let loaded = destination.load(&damaged);
        expect::claim(
            &format!("a refusal of the stream with byte {at:#x} changed"),
            loaded.is_err(),
        )?;
        destination.reset()?;
    }
    destination.load(&stream)
}

fn vifactl_changes_the_driver(_: &Bed) -> Result<()> {
    let vf = Adapter::set_up()?.vf(0)?;
    let name = vf.to_string();
    succeed(&["unbind", &name])?;
    expect::equal("driver after unbind", vf.driver(), None)?;
    succeed(&["bind", &name])?;
    expect::equal("driver after bind", vf.driver().as_deref(), Some(VF_DRIVER))?;
    let shown = succeed(&["show", &name, "--json"])?.json()?;
    expect::equal(
        "device that vifactl shows",
        &shown["identity"]["device"],
        &json!(VIRTUAL_82576),
    )
}
