// SPDX-License-Identifier: GPL-2.0

//! The migration region: the VF's reports outside of the stream.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use vfio_bindings::bindings::vfio;
use vifa_device::{opcode::SAVE, Fault, RegisterFile};
use vifa_vfio::pci::Function;

use super::{
    claims,
    fixture::{interfaces, Guest},
    Test,
};
use crate::{
    bed::{Bed, VF_DRIVER},
    expect,
    hw::{self, bytes_of, vifa_region},
    migration::{Segments, State},
    process::all_at_once,
    region::{debugfs_file, error_text, index, of_function, read},
    stream::{Stream, RELATIONS_END},
    vfio::{AddressSpace, Device},
};

pub fn tests() -> Vec<Test> {
    claims!("region":
        is_read_only_and_has_its_size,
        shows_identity_and_interfaces_of_the_stream,
        follows_the_state,
        reads_the_same_in_any_segmentation,
        cannot_be_written_mapped_or_read_after_its_end,
        shows_the_last_error_until_the_device_is_closed,
        regions_after_it_do_not_exist,
        generation_is_constant_without_changes,
        generation_rises_with_each_change,
        follows_the_bytes_of_a_stream_that_is_read,
        follows_the_bytes_of_a_stream_that_is_written,
        counts_transfers_until_the_driver_is_unbound,
        each_read_sees_one_moment,
        file_in_debugfs_has_the_same_content,
        file_in_debugfs_can_be_read_by_root_only,
        file_in_debugfs_exists_while_the_driver_is_bound,
        file_in_debugfs_may_be_open_when_the_driver_is_unbound,
        file_in_debugfs_is_read_while_the_driver_is_rebound,
    )
}

fn open(bed: &Bed) -> Result<Device> {
    Device::open(&bed.vf(0)?, &AddressSpace::iommufd()?)
}

fn is_read_only_and_has_its_size(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    let info = device.region(index(&device)?)?;
    expect::equal("size", info.size, size_of::<vifa_region>() as u64)?;
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
    expect::equal(
        "minor version",
        u32::from(region.minor),
        hw::VIFA_REGION_MINOR,
    )?;
    expect::equal("size field", u64::from(region.size), info.size)
}

fn shows_identity_and_interfaces_of_the_stream(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let region = read(&guest.vf.device)?;
    let mut stream = Stream::parse(&stream)?;
    expect::same_bytes(
        "identity",
        bytes_of(&region.identity),
        stream.payload(hw::VIFA_SECTION_IDENTITY)?,
    )?;
    expect::equal(
        "interfaces",
        [region.control_interface, region.data_interface],
        interfaces(&bed.vf(0)?),
    )?;
    for section in &stream.sections {
        let interface = match section.kind() {
            hw::VIFA_SECTION_ADDRESS | hw::VIFA_SECTION_DATA => region.data_interface,
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
        State::PreCopy,
        State::PreCopyP2p,
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
    let size = size_of::<vifa_region>();
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

fn cannot_be_written_mapped_or_read_after_its_end(bed: &Bed) -> Result<()> {
    const REFUSED: [i32; 2] = [libc::EINVAL, libc::EPERM];
    let device = open(bed)?;
    let index = index(&device)?;
    let end = size_of::<vifa_region>() as u64;
    expect::refused("write", device.write(index, 0, &[0; 4]), &REFUSED)?;
    expect::refused("mmap", device.map(index), &REFUSED)?;
    for offset in [end, end + (1 << 30)] {
        let what = format!("read at {offset:#x}, after the end");
        expect::refused(&what, device.read(index, offset, 1), &REFUSED)?;
    }
    Ok(())
}

fn shows_the_last_error_until_the_device_is_closed(bed: &Bed) -> Result<()> {
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

fn regions_after_it_do_not_exist(bed: &Bed) -> Result<()> {
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

fn generation_is_constant_without_changes(bed: &Bed) -> Result<()> {
    let (guest, _) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    let first = read(device)?;
    // Requests without side effects.
    device.data_size()?;
    device.state()?;
    of_function(&bed.vf(0)?)?;
    let second = read(device)?;
    expect::same_bytes("second read", bytes_of(&second), bytes_of(&first))
}

fn generation_rises_with_each_change(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 0)?;
    let device = &guest.vf.device;
    let mut before = read(device)?;
    let mut rises = |what: &str| -> Result<()> {
        let now = read(device)?;
        expect::claim(
            &format!(
                "a generation after {what} greater than {}, not {}",
                before.generation, now.generation
            ),
            now.generation > before.generation,
        )?;
        before = now;
        Ok(())
    };
    let session = device.start(State::PreCopy)?;
    rises("PRE_COPY")?;
    session.read(1)?;
    rises("a read of a byte")?;
    device.change_state(State::StopCopy)?;
    rises("STOP_COPY")?;
    let rest = session.read_all(Segments::Whole)?;
    rises("the end of the stream")?;
    let session = device.start(State::Resuming)?;
    rises("RESUMING")?;
    expect::refused("write", session.write(&rest[..64]), &[libc::EINVAL])?;
    rises("an error")?;
    device.reset()?;
    rises("a reset")
}

/// Checks that bytes and complete sections of the transfer in `region` match `bytes` of `stream`.
fn follows(region: &vifa_region, stream: &[u8], bytes: usize) -> Result<()> {
    expect::equal(
        &format!("bytes after {bytes} bytes"),
        region.stream_bytes,
        bytes as u64,
    )?;
    let ends = Stream::parse(stream)?.borders();
    // After the header's border, every second border is the end of a section.
    let complete = ends[1..].iter().skip(2).step_by(2);
    let complete = complete.filter(|end| **end <= bytes).count();
    expect::equal(
        &format!("sections after {bytes} bytes"),
        region.sections,
        complete as u64,
    )
}

/// Returns offsets in a stream at which a part ends, one byte before and one after.
fn places(stream: &[u8]) -> Result<Vec<usize>> {
    let borders = Stream::parse(stream)?.borders();
    let mut places: Vec<usize> = borders[1..]
        .iter()
        .flat_map(|border| [border - 1, *border, border + 1])
        .filter(|place| *place <= stream.len())
        .collect();
    places.dedup();
    Ok(places)
}

fn follows_the_bytes_of_a_stream_that_is_read(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    let session = device.start(State::StopCopy)?;
    follows(&read(device)?, &stream, 0)?;
    let mut at = 0;
    for place in places(&stream)? {
        let bytes = session.read(place - at)?;
        expect::equal("bytes of a read", bytes.len(), place - at)?;
        follows(&read(device)?, &stream, place)?;
        at = place;
    }
    Ok(())
}

fn follows_the_bytes_of_a_stream_that_is_written(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    let session = device.start(State::Resuming)?;
    follows(&read(device)?, &stream, 0)?;
    let mut at = 0;
    for place in places(&stream)? {
        session.write_all(&stream[at..place], Segments::Whole)?;
        follows(&read(device)?, &stream, place)?;
        at = place;
    }
    device.change_state(State::Stop)?;
    follows(&read(device)?, &stream, stream.len())
}

/// Returns the number of transfers read to the end, accepted and failed, so far.
fn counters(region: &vifa_region) -> [u64; 3] {
    [region.saved, region.restored, region.failed]
}

fn counts_transfers_until_the_driver_is_unbound(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    vf.unbind()?;
    vf.bind(VF_DRIVER)?;
    expect::equal("counters at first", counters(&of_function(&vf)?), [0; 3])?;
    let guest = Guest::new(bed, 0)?;
    let device = &guest.vf.device;
    let are = |what: &str, expected: [u64; 3]| {
        expect::equal(
            &format!("transfers saved, restored and failed after {what}"),
            counters(&read(device)?),
            expected,
        )
    };
    let stream = device.save()?;
    are("a save", [1, 0, 0])?;
    device.load(&stream)?;
    are("a restore", [1, 1, 0])?;
    expect::refused(
        "half a stream",
        device.try_load(&stream[..stream.len() / 2], Segments::Whole)?,
        &[libc::EINVAL],
    )?;
    are("half a stream", [1, 1, 1])?;
    device.reset()?;
    are("a reset", [1, 1, 1])?;
    let session = device.start(State::Resuming)?;
    expect::refused("noise", session.write(&[0; 64]), &[libc::EINVAL])?;
    device.reset()?;
    are("noise", [1, 1, 2])?;

    let registers = RegisterFile::map(&bed.pf)?;
    let status = Fault::Status(hw::VIFA_STATUS_DEVICE_FAILURE);
    let armed = registers.arm(0, SAVE, status, 1)?;
    let session = device.start(State::StopCopy)?;
    let result = session.read_all(Segments::Whole);
    expect::refused("save by a device that fails", result, &[libc::EIO])?;
    drop(armed);
    device.reset()?;
    are("a device that failed", [1, 1, 3])?;
    drop(guest);
    let guest = Guest::new(bed, 0)?;
    let after = counters(&read(&guest.vf.device)?);
    expect::equal("counters after the device was reopened", after, [1, 1, 3])?;
    drop(guest);
    vf.unbind()?;
    vf.bind(VF_DRIVER)?;
    expect::equal(
        "counters of a new driver",
        counters(&of_function(&vf)?),
        [0; 3],
    )
}

/// Checks the invariants of a region, during any activity.
fn is_one_moment(region: &vifa_region) -> Result<()> {
    expect::equal("magic", &region.magic[..], &hw::VIFA_REGION_MAGIC[..8])?;
    expect::equal("size", region.size as usize, size_of::<vifa_region>())?;
    let [control, data] = region.relations;
    expect::equal("role in the data plane", data.role, control.role)?;
    let begun = region.stream_bytes >= RELATIONS_END as u64;
    let role = u32::from(control.role);
    expect::claim(
        &format!(
            "relationships in role {role} to appear after {} bytes, and not before",
            region.stream_bytes
        ),
        match role {
            hw::VIFA_ROLE_NONE => !begun,
            hw::VIFA_ROLE_RECEIVER => begun,
            // The source counts them slightly before it returns them.
            _ => true,
        },
    )?;
    expect::claim(
        &format!(
            "{} bytes of data within {} bytes of ranges and {} bytes of the stream",
            region.data_bytes, region.local_bytes, region.stream_bytes
        ),
        region.data_bytes <= region.local_bytes
            && region.data_bytes <= region.stream_bytes + u64::from(hw::VIFA_DATA_RUN_MAX),
    )?;
    let counted: u32 = region.records.iter().sum();
    expect::equal(
        "records without bytes, or bytes without records",
        counted == 0,
        region.record_bytes == 0,
    )
}

/// Reads with `read` during `going_on`: each region is consistent, no later one has a smaller
/// generation, and equal generations have equal bytes.
fn watch(going_on: &AtomicBool, read: impl Fn() -> Result<vifa_region>) -> Result<()> {
    let mut seen: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut last = 0;
    while going_on.load(Ordering::Relaxed) {
        let region = read()?;
        is_one_moment(&region).with_context(|| format!("generation {}", region.generation))?;
        expect::claim(
            &format!("a generation after {last}, not {}", region.generation),
            region.generation >= last,
        )?;
        last = region.generation;
        let bytes = bytes_of(&region);
        let first = seen.entry(last).or_insert_with(|| bytes.to_vec());
        expect::same_bytes(&format!("region of generation {last}"), bytes, first)?;
    }
    expect::claim("several generations to be seen", seen.len() > 1)
}

fn each_read_sees_one_moment(bed: &Bed) -> Result<()> {
    const WHILE: Duration = Duration::from_secs(3);
    let (guest, stream) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    let function = bed.vf(0)?;
    let going_on = AtomicBool::new(true);
    let transfer = || -> Result<()> {
        let until = Instant::now() + WHILE;
        while Instant::now() < until {
            let session = device.start(State::PreCopy)?;
            session.read_to_pause(Segments::Of(100))?;
            device.change_state(State::StopCopy)?;
            session.read_all(Segments::Of(4000))?;
            let session = device.start(State::Resuming)?;
            session.write_all(&stream, Segments::Of(3000))?;
            device.change_state(State::Running)?;
            let session = device.start(State::Resuming)?;
            expect::refused("noise", session.write(&[0; 64]), &[libc::EINVAL])?;
            device.reset()?;
        }
        Ok(())
    };
    all_at_once(vec![
        Box::new(|| {
            let result = transfer();
            going_on.store(false, Ordering::Relaxed);
            result
        }),
        Box::new(|| watch(&going_on, || read(device))),
        Box::new(|| watch(&going_on, || of_function(&function))),
    ])
}

fn file_in_debugfs_has_the_same_content(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    let vf = bed.vf(0)?;
    let same = |what: &str| -> Result<()> {
        let bytes = fs::read(debugfs_file(&vf)).context(what.to_owned())?;
        expect::same_bytes(what, &bytes, bytes_of(&read(device)?))
    };
    same("file after a save")?;
    let session = device.start(State::Resuming)?;
    session.write_all(&stream[..RELATIONS_END], Segments::Whole)?;
    same("file in RESUMING")?;
    expect::refused("noise", session.write(&[0xff; 64]), &[libc::EINVAL])?;
    same("file after an error")?;
    device.reset()?;
    same("file after a reset")
}

fn file_in_debugfs_can_be_read_by_root_only(bed: &Bed) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let file = debugfs_file(&bed.vf(0)?);
    let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
    expect::equal("mode", format!("{mode:o}"), "400".to_owned())
}

fn file_in_debugfs_exists_while_the_driver_is_bound(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    let file = debugfs_file(&vf);
    let directory = file.parent().context("a directory")?;
    let region = of_function(&vf).context("while no process has the device open")?;
    expect::equal("state", region.state, State::Running as u32)?;
    vf.unbind()?;
    expect::claim("the directory to be removed", !directory.exists())?;
    vf.bind(VF_DRIVER)?;
    of_function(&vf).map(drop)
}

/// Checks that a read of `file` fails after its driver was unbound, without any other effect.
fn has_gone(file: &mut File) -> Result<()> {
    expect::refused(
        "read of the file of an unbound driver",
        file.read(&mut [0; 64]),
        &[libc::EIO, libc::ENODEV],
    )
}

fn file_in_debugfs_may_be_open_when_the_driver_is_unbound(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    let mut never_read = File::open(debugfs_file(&vf))?;
    let mut half_read = File::open(debugfs_file(&vf))?;
    half_read.read_exact(&mut [0; 100])?;
    vf.unbind()?;
    has_gone(&mut never_read)?;
    has_gone(&mut half_read)?;
    vf.bind(VF_DRIVER)?;
    has_gone(&mut half_read)?;
    of_function(&vf)?;
    Guest::new(bed, 0)?.work(1)
}

/// Reads the file of `vf` during `going_on`; whenever it exists, it is complete.
fn read_repeatedly(vf: &Function, going_on: &AtomicBool) -> Result<()> {
    let mut whole = 0;
    while going_on.load(Ordering::Relaxed) {
        if let Ok(region) = of_function(vf) {
            is_one_moment(&region)?;
            whole += 1;
        }
    }
    expect::claim("the file to be read now and then", whole > 0)
}

fn file_in_debugfs_is_read_while_the_driver_is_rebound(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    let going_on = AtomicBool::new(true);
    let come_and_go = || -> Result<()> {
        for _ in 0..10 {
            vf.unbind()?;
            vf.bind(VF_DRIVER)?;
        }
        Ok(())
    };
    all_at_once(vec![
        Box::new(|| {
            let result = come_and_go();
            going_on.store(false, Ordering::Relaxed);
            result
        }),
        Box::new(|| read_repeatedly(&vf, &going_on)),
        Box::new(|| read_repeatedly(&vf, &going_on)),
    ])?;
    Guest::new(bed, 0)?.work(2)
}
