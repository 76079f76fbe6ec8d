// SPDX-License-Identifier: GPL-2.0

//! The resource abstraction structure: the control plane as a table of records.

use anyhow::Result;
use vifa_device::{opcode::LOAD, RegisterFile};

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::Bed,
    expect,
    hw::{self, value_of, vifa_record, vifa_resources},
    region,
    stream::{Record, Stream},
};

pub fn tests() -> Vec<Test> {
    let mut tests = claims!("resources":
        table_is_of_a_stopped_device,
        records_contain_the_guest_s_configuration,
        region_of_the_source_matches_the_stream,
        region_of_the_destination_matches_the_stream,
        unknown_private_index_is_left_to_the_device,
        bytes_after_the_records_are_refused,
        control_record_that_the_device_refuses_is_refused,
    );
    tests.extend(WRONG_TABLES.iter().map(|(what, field, change)| {
        Test::new(format!("resources.{what}_is_refused"), move |bed| {
            is_refused(bed, what, field, |stream| {
                stream.edit(hw::VIFA_SECTION_CONTROL, change)
            })
        })
    }));
    tests.extend(WRONG_RECORDS.iter().map(|(what, field, kind, change)| {
        Test::new(format!("resources.{what}_is_refused"), move |bed| {
            is_refused(bed, what, field, |stream| {
                stream.edit_records(|records| {
                    let wanted = |record: &&mut Record| u32::from(record.header.type_) == *kind;
                    records.iter_mut().find(wanted).map(change);
                })
            })
        })
    }));
    tests
}

/// The defect, the field that the error names, and the corruption.
type WrongTable = (&'static str, &'static str, fn(&mut vifa_resources));

const WRONG_TABLES: [WrongTable; 9] = [
    ("version_0_of_the_table", "version", |table| {
        table.version = 0
    }),
    ("later_version_of_the_table", "version", |table| {
        table.version += 1;
    }),
    ("running_device", "run_state", |table| table.run_state = 0),
    ("quiesced_device", "run_state", |table| table.run_state = 1),
    ("record_too_many", "records", |table| table.records -= 1),
    ("record_too_few", "records", |table| table.records += 1),
    ("short_table", "length", |table| table.length -= 8),
    ("long_table", "length", |table| table.length += 8),
    ("reserved_field_of_the_table", "reserved", |table| {
        table.reserved = 1;
    }),
];

/// The defect, the field that the error names, the type of the record, and the corruption.
type WrongRecord = (&'static str, &'static str, u32, fn(&mut Record));

const WRONG_RECORDS: [WrongRecord; 9] = [
    (
        "record_type_that_is_none",
        "type",
        hw::VIFA_RESOURCE_INTERRUPT,
        |record| record.header.type_ = 0xffff,
    ),
    (
        "record_type_that_the_device_does_not_know",
        "type",
        hw::VIFA_RESOURCE_INTERRUPT,
        |record| record.header.type_ = 15,
    ),
    (
        "version_0_of_a_record",
        "version",
        hw::VIFA_RESOURCE_CONFIGURATION,
        |record| record.header.version = 0,
    ),
    (
        "later_version_of_a_record",
        "version",
        hw::VIFA_RESOURCE_CONFIGURATION,
        |record| record.header.version += 1,
    ),
    (
        "record_that_is_too_long",
        "length",
        hw::VIFA_RESOURCE_CONFIGURATION,
        |record| record.header.length = 0x7fff_ffff,
    ),
    (
        "reserved_field_of_a_record",
        "reserved",
        hw::VIFA_RESOURCE_CONFIGURATION,
        |record| record.header.reserved = 1,
    ),
    (
        "second_configuration",
        "index",
        hw::VIFA_RESOURCE_CONFIGURATION,
        |record| record.header.index = 1,
    ),
    (
        "queue_that_the_device_does_not_have",
        "index",
        hw::VIFA_RESOURCE_QUEUE,
        |record| record.header.index = 1,
    ),
    (
        "interrupt_vector_that_the_device_does_not_have",
        "index",
        hw::VIFA_RESOURCE_INTERRUPT,
        |record| record.header.index = hw::VIFA_REFERENCE_VECTORS,
    ),
];

/// Checks that the VF rejects its own stream after `change`, with an error that names `field`, and
/// that nothing reaches the device.
fn is_refused(
    bed: &Bed,
    what: &str,
    field: &str,
    change: impl FnOnce(&mut Stream) -> Result<()>,
) -> Result<()> {
    let (guest, bytes) = Guest::saved(bed, 0)?;
    let mut stream = Stream::parse(&bytes)?;
    change(&mut stream)?;
    expect::claim("a stream that was changed", stream.seal() != bytes)?;
    let registers = RegisterFile::map(&bed.pf)?;
    let loads = registers.count(0, LOAD)?;
    guest.refuses_naming(field, what, &stream)?;
    expect::equal("LOAD commands", loads.fired(), 0)
}

fn table_is_of_a_stopped_device(bed: &Bed) -> Result<()> {
    let (_, bytes) = Guest::saved(bed, 0)?;
    let table: vifa_resources = Stream::parse(&bytes)?.value(hw::VIFA_SECTION_CONTROL)?;
    expect::equal(
        "version and run state",
        (table.version.into(), table.run_state.into()),
        (hw::VIFA_RESOURCES_VERSION, hw::VIFA_RESOURCES_STOPPED),
    )?;
    expect::equal("reserved field", table.reserved, 0)
}

fn records_contain_the_guest_s_configuration(bed: &Bed) -> Result<()> {
    let (guest, bytes) = Guest::saved(bed, 0)?;
    let records = Stream::parse(&bytes)?.records()?;
    let kinds = |record: &Record| (u32::from(record.header.type_), record.header.index);
    expect::equal(
        "types and indices",
        records.iter().map(kinds).collect(),
        vec![
            (hw::VIFA_RESOURCE_CONFIGURATION, 0),
            (hw::VIFA_RESOURCE_QUEUE, 0),
            (hw::VIFA_RESOURCE_INTERRUPT, 0),
        ],
    )?;
    let configuration: hw::vifa_reference_configuration =
        value_of(&records[0].content).unwrap_or_default();
    let scratch = |n| guest.vf.register(hw::VIFA_REFERENCE_SCRATCH + 4 * n);
    expect::equal(
        "scratch registers",
        configuration.scratch.to_vec(),
        (0..hw::VIFA_REFERENCE_SCRATCHES).map(scratch).collect(),
    )
}

/// Checks that the region of `guest`'s VF reports the records in `stream`.
fn region_matches(guest: &Guest, stream: &Stream) -> Result<()> {
    let region = region::read(&guest.vf.device)?;
    let table: vifa_resources = stream.value(hw::VIFA_SECTION_CONTROL)?;
    let mut counts = [0; hw::VIFA_IDENTITY_RECORD_TYPES as usize];
    for record in stream.records()? {
        counts[usize::from(record.header.type_)] += 1;
    }
    expect::equal("records of each type", region.records, counts)?;
    expect::equal("bytes of records", region.record_bytes, table.length.into())
}

fn region_of_the_source_matches_the_stream(bed: &Bed) -> Result<()> {
    let (guest, bytes) = Guest::saved(bed, 0)?;
    region_matches(&guest, &Stream::parse(&bytes)?)
}

fn region_of_the_destination_matches_the_stream(bed: &Bed) -> Result<()> {
    let (_, bytes) = Guest::saved(bed, 0)?;
    let guest = Guest::new(bed, 1)?;
    guest.vf.device.load(&bytes)?;
    region_matches(&guest, &Stream::parse(&bytes)?)
}

/// Types without a place in the device may have any index; its meaning is up to the device.
fn unknown_private_index_is_left_to_the_device(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let mut stream = Stream::parse(&bytes)?;
    stream.edit_records(|records| {
        records.push(Record {
            header: vifa_record {
                type_: hw::VIFA_RESOURCE_PRIVATE as u16,
                version: 1,
                index: 0x1234,
                length: size_of::<hw::vifa_reference_unfinished>() as u32,
                ..Default::default()
            },
            content: vec![0; size_of::<hw::vifa_reference_unfinished>()],
        });
    })?;
    let registers = RegisterFile::map(&bed.pf)?;
    let loads = registers.count(0, LOAD)?;
    guest.refuses("record of an index that the device refuses", &stream.seal())?;
    expect::equal("LOAD commands", loads.fired(), 1)?;
    guest.recover()
}

fn bytes_after_the_records_are_refused(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let mut stream = Stream::parse(&bytes)?;
    stream.payload(hw::VIFA_SECTION_CONTROL)?.extend([0; 8]);
    guest.refuses("bytes after the records", &stream.seal())?;
    guest.recover()
}

/// The device itself rejects values that only it can check.
fn control_record_that_the_device_refuses_is_refused(bed: &Bed) -> Result<()> {
    let (mut guest, bytes) = Guest::saved(bed, 0)?;
    let mut stream = Stream::parse(&bytes)?;
    // The first record is the configuration, whose first word is the control register.
    stream.edit_records(|records| records[0].content[..4].fill(0xff))?;
    let registers = RegisterFile::map(&bed.pf)?;
    let loads = registers.count(0, LOAD)?;
    guest.refuses("control register of ones", &stream.seal())?;
    expect::equal("LOAD commands", loads.fired(), 1)?;
    guest.recover()
}
