// SPDX-License-Identifier: GPL-2.0

//! Compatibility: an incompatible destination rejects the identity section, which a source yields
//! while it still runs, and names the field and both values.

use anyhow::{Context, Result};

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::{Bed, VF_DRIVER},
    expect,
    hw::{self, vifa_identity},
    kmsg::KernelLog,
    migration::{Segments, State},
    region,
    stream::{Stream, IDENTITY_END},
    vfio::Device,
};

/// Minimum number of consecutive rejections that the log reports.
const BURST: usize = 8;

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = MISFITS
        .iter()
        .map(|(group, fields)| {
            let claim = format!("compatibility.source_with_another_{group}_is_refused");
            Test::new(claim, move |bed| are_refused(bed, fields))
        })
        .collect();
    tests.extend(LESSER.iter().map(|(field, change)| {
        let claim = format!("compatibility.source_with_less_{field}_is_accepted");
        Test::new(claim, move |bed| is_accepted(bed, *change))
    }));
    tests.extend(claims!("compatibility":
        features_that_only_the_source_has_are_refused,
        features_that_only_the_destination_has_are_accepted,
        reserved_fields_that_are_not_0_are_refused,
        impossible_identity_is_refused,
        refused_source_continues_and_fits_another_destination,
        many_refusals_do_not_flood_the_log_but_are_all_shown_in_the_region,
    ));
    tests
}

/// Changes an identity.
type Change = fn(&mut vifa_identity);

/// A field by name, its value in an identity, and a change that makes the source incompatible.
struct Field {
    name: &'static str,
    value: fn(&vifa_identity) -> u64,
    change: Change,
}

fn alter<T: Copy>(value: &mut T, by: impl FnOnce(T) -> T) {
    *value = by(*value);
}

macro_rules! field {
    ($field:ident $([$index:literal])?: $change:expr) => {
        Field {
            name: concat!(stringify!($field), $("[", $index, "]")?),
            value: |identity| identity.$field $([$index])?.into(),
            change: |identity| alter(&mut identity.$field $([$index])?, $change),
        }
    };
}

/// The fields in groups of the same meaning; each field is changed alone.
const MISFITS: [(&str, &[Field]); 9] = [
    (
        "vendor_or_device_id",
        &[
            field!(vendor: |id| id ^ 1),
            field!(device: |id| id ^ 0x8000),
            field!(subsystem_vendor: |id| id ^ 1),
            field!(subsystem: |id| id ^ 0x100),
            field!(revision_id: |id| id ^ 0x80),
        ],
    ),
    (
        "hardware_interface",
        &[field!(vifa_revision: |revision| revision + 1)],
    ),
    (
        "size_of_a_BAR",
        &[
            field!(bar_size[0]: |size| size * 2),
            field!(bar_size[1]: |_| 0x1000),
            field!(bar_size[2]: |_| 1 << 40),
            field!(bar_size[3]: |_| 0x1000),
            field!(bar_size[4]: |_| 0),
            field!(bar_size[5]: |_| 0x10),
        ],
    ),
    (
        "number_of_interrupt_vectors",
        &[
            field!(interrupt_vectors: |vectors| vectors + 1),
            field!(interrupt_vectors: |vectors| vectors - 1),
        ],
    ),
    (
        "greater_number_of_queues",
        &[field!(queues: |queues| queues + 1)],
    ),
    (
        "granule",
        &[
            field!(granule: |granule| granule * 2),
            field!(granule: |granule| granule / 2),
        ],
    ),
    (
        "greater_local_memory",
        &[field!(local_memory: |bytes| bytes * 2)],
    ),
    (
        "greater_control_plane",
        &[field!(control_plane_max: |bytes| bytes + 8)],
    ),
    (
        "later_record_version",
        &[
            field!(record_version[0]: |version| version + 1),
            field!(record_version[1]: |version| version + 1),
            field!(record_version[2]: |version| version + 1),
            field!(record_version[3]: |version| version + 1),
            field!(record_version[4]: |version| version + 1),
            field!(record_version[5]: |version| version + 1),
            field!(record_version[6]: |version| version + 1),
            field!(record_version[7]: |version| version + 1),
            field!(record_version[8]: |version| version + 1),
            field!(record_version[9]: |version| version + 1),
            field!(record_version[10]: |version| version + 1),
            field!(record_version[11]: |version| version + 1),
            field!(record_version[12]: |version| version + 1),
            field!(record_version[13]: |version| version + 1),
            field!(record_version[14]: |version| version + 1),
            field!(record_version[15]: |version| version + 1),
        ],
    ),
];

/// Fields for which the destination may have a larger value, and the change that reduces the
/// source's.
const LESSER: [(&str, Change); 4] = [
    ("queues", |identity| identity.queues -= 1),
    ("local_memory", |identity| identity.local_memory /= 2),
    ("control_plane_max", |identity| {
        identity.control_plane_max -= 8
    }),
    ("record_version", |identity| {
        identity.record_version[hw::VIFA_RESOURCE_PRIVATE as usize] = 0;
    }),
];

/// Returns `stream` with a changed identity.
fn changed(stream: &Stream, change: impl FnOnce(&mut vifa_identity)) -> Result<Stream> {
    let mut stream = stream.clone();
    stream.edit(hw::VIFA_SECTION_IDENTITY, change)?;
    Ok(stream)
}

/// Checks that `device` rejects `stream` at the write that completes the identity section, and at
/// every later write. Returns the text of the error.
fn refuses_identity(device: &Device, what: &str, stream: &Stream) -> Result<String> {
    let bytes = stream.seal();
    let last = IDENTITY_END - 1;
    let session = device.start(State::Resuming)?;
    session
        .write_all(&bytes[..last], Segments::Whole)
        .with_context(|| format!("{what}: all but the last byte of the identity"))?;
    for from in [last, IDENTITY_END, last] {
        let result = session.write(&bytes[from..]);
        expect::refused(
            &format!("{what}: write from byte {from}"),
            result,
            &[libc::EINVAL],
        )?;
    }
    let stop = device.request_state(State::Stop as u32);
    let region = region::read(device)?;
    expect::equal(
        "number of the last error",
        region.error,
        libc::EINVAL as u32,
    )?;
    expect::refused(&format!("{what}: STOP"), stop, &[libc::EINVAL])?;
    device.reset()?;
    Ok(region::error_text(&region)?.to_owned())
}

/// Returns the words with which a rejection names `field`, in which source and destination differ.
fn words(field: &Field, source: &vifa_identity, destination: &vifa_identity) -> [String; 3] {
    let value = |identity| format!("{:#x}", (field.value)(identity));
    [field.name.to_owned(), value(source), value(destination)]
}

fn names(what: &str, text: &str, words: &[String]) -> Result<()> {
    expect::claim(
        &format!("{what} with {words:?}, not {text:?}"),
        words.iter().all(|word| text.contains(word)),
    )
}

/// Rebinds the VF, which resets the rate limit of its driver's log.
fn bind_anew(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    vf.unbind()?;
    vf.bind(VF_DRIVER)?;
    Ok(())
}

/// Checks that the VF rejects its own stream with each of `fields` changed alone, names field and
/// both values in its region and in the log, and accepts the unchanged stream afterwards.
fn are_refused(bed: &Bed, fields: &[Field]) -> Result<()> {
    fields.chunks(BURST).try_for_each(|fields| {
        bind_anew(bed)?;
        let vf = bed.vf(0)?;
        let (mut guest, bytes) = Guest::saved(bed, 0)?;
        let good = Stream::parse(&bytes)?;
        let device = &guest.vf.device;
        for field in fields {
            let stream = changed(&good, field.change)?;
            let words = words(field, &stream.identity()?, &good.identity()?);
            let mut log = KernelLog::from_now()?;
            let text = refuses_identity(device, field.name, &stream)?;
            names("a text", &text, &words)?;
            let [name, source, destination] = &words;
            log.expect(&[&vf.to_string(), name, source, destination])?;
        }
        guest
            .vf
            .device
            .load(&bytes)
            .context("the unchanged stream")?;
        guest.recover()
    })
}

/// Checks that the VF 1 accepts a stream of the VF 0 with one field reduced.
fn is_accepted(bed: &Bed, change: Change) -> Result<()> {
    let mut source = Guest::new(bed, 0)?;
    source.write_local(0, 0x1e55)?;
    let stream = Stream::parse(&source.vf.device.save()?)?;
    let lesser = changed(&stream, change)?;
    let mut guest = Guest::new(bed, 1)?;
    guest.vf.device.load(&lesser.seal())?;
    expect::equal("error", region::read(&guest.vf.device)?.error, 0)?;
    guest.recover()
}

const FEATURES: Field = field!(features: |features| features);

fn features_that_only_the_source_has_are_refused(bed: &Bed) -> Result<()> {
    let (_, bytes) = Guest::saved(bed, 0)?;
    let stream = Stream::parse(&bytes)?;
    let lesser = bed.without_p2p()?;
    let mut guest = Guest::new(&lesser, 0)?;
    let device = &guest.vf.device;
    let words = words(
        &FEATURES,
        &stream.identity()?,
        &region::read(device)?.identity,
    );
    let mut log = KernelLog::from_now()?;
    let text = refuses_identity(device, "features", &stream)?;
    names("a text", &text, &words)?;
    let function = lesser.vf(0)?.to_string();
    log.expect(&[&function, &words[0], &words[1], &words[2]])?;
    guest.recover()
}

fn features_that_only_the_destination_has_are_accepted(bed: &Bed) -> Result<()> {
    let (source, bytes) = Guest::saved(&bed.without_p2p()?, 0)?;
    drop(source);
    let mut guest = Guest::new(bed, 0)?;
    guest.vf.device.load(&bytes)?;
    guest.recover()
}

fn reserved_fields_that_are_not_0_are_refused(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let good = Stream::parse(&bytes)?;
    let changes: [Change; 2] = [
        |identity| identity.reserved0 = 1,
        |identity| identity.reserved1 = 1 << 31,
    ];
    for change in changes {
        let stream = changed(&good, change)?;
        let text = refuses_identity(&guest.vf.device, "reserved field", &stream)?;
        names("a text", &text, &["reserved".to_owned()])?;
    }
    guest.recover()
}

fn impossible_identity_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let good = Stream::parse(&bytes)?;
    let impossible = [
        field!(vifa_revision: |_| 0),
        field!(features: |features| features | 0x8000_0000),
        field!(bar_size[0]: |_| 3000),
        field!(interrupt_vectors: |_| 0xffff),
        field!(granule: |_| 0x3000),
        field!(granule: |_| 0),
        field!(local_memory: |bytes| bytes + 1),
        field!(local_memory: |_| 1 << 60),
        field!(control_plane_max: |_| 0),
        field!(control_plane_max: |_| u32::MAX),
    ];
    for field in &impossible {
        let stream = changed(&good, field.change)?;
        let text = refuses_identity(&guest.vf.device, field.name, &stream)?;
        names("a text", &text, &[field.name.to_owned()])?;
    }
    guest.recover()
}

/// The rejection occurs with data of PRE_COPY: the source has not stopped and loses nothing.
fn refused_source_continues_and_fits_another_destination(bed: &Bed) -> Result<()> {
    let mut source = Guest::new(bed, 0)?;
    source.furnish(0x50)?;
    let lesser = bed.without_p2p()?;
    let misfit = Guest::new(&lesser, 0)?;
    let session = source.vf.device.start(State::PreCopy)?;
    let beginning = session.read_to_pause(Segments::Whole)?;
    let refusing = misfit.vf.device.start(State::Resuming)?;
    let result = refusing.write_all(&beginning, Segments::Whole);
    expect::refused("identity of a source with P2P", result, &[libc::EINVAL])?;
    source.work(0x51).context("while it is refused")?;
    source.vf.device.change_state(State::Running)?;
    source.work(0x52).context("after it was refused")?;

    source.furnish(0x53)?;
    let stream = source.vf.device.save()?;
    let destination = Guest::new(bed, 1)?;
    destination.vf.device.load(&stream)?;
    let arrived = Stream::parse(&destination.vf.device.save()?)?;
    expect::equal(
        "data runs that arrived",
        arrived.runs()?,
        Stream::parse(&stream)?.runs()?,
    )
}

fn many_refusals_do_not_flood_the_log_but_are_all_shown_in_the_region(bed: &Bed) -> Result<()> {
    const REFUSALS: u16 = 25;
    bind_anew(bed)?;
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let good = Stream::parse(&bytes)?;
    let function = bed.vf(0)?.to_string();
    let mut log = KernelLog::from_now()?;
    let mut before = region::read(&guest.vf.device)?.generation;
    for number in 1..=REFUSALS {
        let vendor = good.identity()?.vendor ^ number;
        let stream = changed(&good, |identity| identity.vendor = vendor)?;
        let device = &guest.vf.device;
        let session = device.start(State::Resuming)?;
        let result = session.write(&stream.seal());
        expect::refused("identity of another vendor", result, &[libc::EINVAL])?;
        let region = region::read(device)?;
        names(
            "a text",
            region::error_text(&region)?,
            &["vendor".to_owned(), format!("{vendor:#x}")],
        )?;
        expect::claim("an incremented generation", region.generation > before)?;
        before = region.generation;
        guest.vf.reset()?;
    }
    let logged = log.count(&[&function, "vendor"])?;
    expect::claim(
        &format!("some but not all of {REFUSALS} refusals in the log, not {logged}"),
        (1..usize::from(REFUSALS)).contains(&logged),
    )?;
    guest.recover()
}
