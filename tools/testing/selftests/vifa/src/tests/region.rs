// SPDX-License-Identifier: GPL-2.0

//! The migration region: what the VF tells of itself besides the stream.

use anyhow::{bail, Context, Result};
use vfio_bindings::bindings::vfio;

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::Bed,
    expect, hw,
    migration::{Segments, State},
    stream::Stream,
    sys::{bytes_of, value_of},
    vfio::{AddressSpace, Device},
};

pub fn tests() -> Vec<Test> {
    claims!("region":
        is_read_only_and_has_its_size,
        tells_identity_and_interfaces_as_the_stream_does,
        follows_the_state,
        reads_the_same_in_any_segmentation,
        cannot_be_written_mapped_or_read_behind_its_end,
        tells_the_last_error_until_the_device_is_closed,
        regions_behind_it_are_not_there,
    )
}

/// The index of the migration region.
fn index(device: &Device) -> Result<u32> {
    let kind = (
        vfio::VFIO_REGION_TYPE_PCI_VENDOR_TYPE | hw::VIFA_REGION_VENDOR,
        hw::VIFA_REGION_SUBTYPE,
    );
    for index in 0..device.info()?.num_regions {
        // Some of the fixed ones are not there at all.
        if matches!(device.region_kind(index), Ok(Some(found)) if found == kind) {
            return Ok(index);
        }
    }
    bail!(
        "expected a region of type {:#x}, subtype {}, got none",
        kind.0,
        kind.1
    )
}

fn read(device: &Device) -> Result<hw::vifa_region> {
    let bytes = device.read(index(device)?, 0, size_of::<hw::vifa_region>())?;
    value_of(&bytes).context("a region that is too short")
}

/// The text of the last error.
fn error_text(region: &hw::vifa_region) -> Result<&str> {
    let end = region.error_text.iter().position(|byte| *byte == 0);
    let text = &region.error_text[..end.context("the text does not end")?];
    std::str::from_utf8(text).context("the text is no UTF-8")
}

fn open(bed: &Bed) -> Result<Device> {
    Device::open(&bed.vf(0)?, &AddressSpace::iommufd()?)
}

fn is_read_only_and_has_its_size(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    let info = device.region(index(&device)?)?;
    expect::equal("size", info.size, size_of::<hw::vifa_region>() as u64)?;
    expect::equal(
        "access",
        info.flags & !vfio::VFIO_REGION_INFO_FLAG_CAPS,
        vfio::VFIO_REGION_INFO_FLAG_READ,
    )?;
    let region = read(&device)?;
    expect::equal("magic", &region.magic[..], &hw::VIFA_REGION_MAGIC[..8])?;
    expect::equal(
        "major version",
        u32::from(region.major),
        hw::VIFA_REGION_MAJOR,
    )?;
    expect::equal("size field", u64::from(region.size), info.size)
}

fn tells_identity_and_interfaces_as_the_stream_does(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let region = read(&guest.vf.device)?;
    let mut stream = Stream::parse(&stream)?;
    expect::same_bytes(
        "identity",
        bytes_of(&region.identity),
        stream.payload(hw::VIFA_SECTION_IDENTITY)?,
    )?;
    for section in &stream.sections {
        let interface = match section.kind() {
            hw::VIFA_SECTION_DATA => region.data_interface,
            _ => region.control_interface,
        };
        expect::equal("interface", interface, section.header.interface)?;
    }
    Ok(())
}

fn follows_the_state(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let device = &guest.vf.device;
    let is = |state: State| {
        let what = format!("state in {}", state.name());
        expect::equal(&what, read(device)?.state, state as u32)
    };
    is(State::Running)?;
    for state in [
        State::RunningP2p,
        State::Stop,
        State::StopCopy,
        State::Resuming,
    ] {
        let _session = device.enter(state)?;
        is(state)?;
    }
    guest.vf.reset()?;
    is(State::Running)?;
    guest.fail(bed, 0)?;
    is(State::Error)
}

fn reads_the_same_in_any_segmentation(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    let index = index(&device)?;
    let size = size_of::<hw::vifa_region>();
    let whole = device.read(index, 0, size)?;
    for piece in [1, 2, 3, 4, 8, 13, size - 1] {
        let mut bytes = Vec::new();
        while bytes.len() < size {
            let length = piece.min(size - bytes.len());
            bytes.extend(device.read(index, bytes.len() as u64, length)?);
        }
        expect::same_bytes(&format!("region in pieces of {piece}"), &bytes, &whole)?;
    }
    Ok(())
}

fn cannot_be_written_mapped_or_read_behind_its_end(bed: &Bed) -> Result<()> {
    const REFUSED: [i32; 2] = [libc::EINVAL, libc::EPERM];
    let device = open(bed)?;
    let index = index(&device)?;
    let end = size_of::<hw::vifa_region>() as u64;
    expect::refused("write", device.write(index, 0, &[0; 4]), &REFUSED)?;
    expect::refused("mmap", device.map(index), &REFUSED)?;
    for offset in [end, end + (1 << 30)] {
        let what = format!("read at {offset:#x}, behind the end");
        expect::refused(&what, device.read(index, offset, 1), &REFUSED)?;
    }
    Ok(())
}

fn tells_the_last_error_until_the_device_is_closed(bed: &Bed) -> Result<()> {
    let (guest, bytes) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    let region = read(device)?;
    expect::equal("error at first", region.error, 0)?;
    expect::equal("text at first", error_text(&region)?, "")?;

    let mut stream = Stream::parse(&bytes)?;
    stream.header.major += 1;
    let refused = device.try_load(&stream.seal(), Segments::Whole)?;
    expect::refused("stream of another version", refused, &[libc::EINVAL])?;
    let region = read(device)?;
    expect::equal("error", region.error, libc::EINVAL as u32)?;
    let text = error_text(&region)?;
    expect::claim(
        &format!("a text that names the field 'major', not {text:?}"),
        text.contains("major"),
    )?;

    guest.vf.reset()?;
    expect::equal(
        "error after a reset",
        read(device)?.error,
        libc::EINVAL as u32,
    )?;
    drop(guest);
    let region = read(&open(bed)?)?;
    expect::equal("error after open", region.error, 0)?;
    expect::equal("text after open", error_text(&region)?, "")
}

fn regions_behind_it_are_not_there(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    let count = device.info()?.num_regions;
    for index in [count, count + 1, 0x00ff_ffff, u32::MAX] {
        expect::refused(
            &format!("information of region {index}"),
            device.region(index).map(drop),
            &[libc::EINVAL],
        )?;
    }
    Ok(())
}
