// SPDX-License-Identifier: GPL-2.0

//! The operations that `VFIO_DEVICE_FEATURE` offers and rejects.

use anyhow::Result;
use vfio_bindings::bindings::vfio::{
    self, vfio_device_feature_mig_data_size, vfio_device_feature_mig_state,
    vfio_device_feature_migration,
};

use super::{claims, fixture::Guest, Test};
use crate::{
    bed::Bed,
    expect,
    migration::State,
    vfio::{AddressSpace, Device, Feature, Operation},
};

pub fn tests() -> Vec<Test> {
    claims!("feature":
        migration_is_stop_copy_p2p_and_pre_copy,
        migration_of_a_device_without_p2p_is_stop_copy_and_pre_copy,
        probes_report_the_supported_operations,
        precopy_information_is_available_in_version_2,
        short_arguments_are_refused,
        unknown_flags_are_refused,
        get_with_set_and_neither_are_refused,
        unknown_features_are_refused,
        a_new_device_is_running,
        data_size_covers_the_stream,
    )
}

const MIGRATION: u32 = vfio::VFIO_DEVICE_FEATURE_MIGRATION;
const STATE: u32 = vfio::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
const DATA_SIZE: u32 = vfio::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE;

fn open(bed: &Bed) -> Result<Device> {
    Device::open(&bed.vf(0)?, &AddressSpace::iommufd()?)
}

fn migration_is(bed: &Bed, flags: u32) -> Result<()> {
    let migration = open(bed)?.feature(Feature::new(
        Operation::Get,
        MIGRATION,
        vfio_device_feature_migration::default(),
    ))?;
    expect::equal("flags of MIGRATION", migration.flags, flags.into())
}

fn migration_is_stop_copy_p2p_and_pre_copy(bed: &Bed) -> Result<()> {
    migration_is(
        bed,
        vfio::VFIO_MIGRATION_STOP_COPY | vfio::VFIO_MIGRATION_P2P | vfio::VFIO_MIGRATION_PRE_COPY,
    )
}

fn migration_of_a_device_without_p2p_is_stop_copy_and_pre_copy(bed: &Bed) -> Result<()> {
    migration_is(
        &bed.without_p2p()?,
        vfio::VFIO_MIGRATION_STOP_COPY | vfio::VFIO_MIGRATION_PRE_COPY,
    )
}

fn probes_report_the_supported_operations(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    for (operation, feature) in [
        (Operation::ProbeGet, MIGRATION),
        (Operation::ProbeGet, STATE),
        (Operation::ProbeSet, STATE),
        (Operation::ProbeGet, DATA_SIZE),
    ] {
        expect::equal(
            &format!("{operation:?} of feature {feature}"),
            device
                .probe(operation, feature)
                .map_err(|error| error.to_string()),
            Ok(()),
        )?;
    }
    for feature in [MIGRATION, DATA_SIZE] {
        expect::refused(
            &format!("probe of SET of feature {feature}"),
            device.probe(Operation::ProbeSet, feature),
            &[libc::EINVAL],
        )?;
    }
    Ok(())
}

fn precopy_information_is_available_in_version_2(bed: &Bed) -> Result<()> {
    const INFO: u32 = vfio::VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2;
    let device = open(bed)?;
    device.probe(Operation::ProbeSet, INFO)?;
    for operation in [Operation::ProbeGet, Operation::Get] {
        expect::refused(
            &format!("{operation:?}"),
            device.probe(operation, INFO),
            &[libc::EINVAL],
        )?;
    }
    device.feature(Feature::new(Operation::Set, INFO, ()))?;
    device.feature(Feature::new(Operation::Set, INFO, ()))?;
    Ok(())
}

/// Issues `feature` with the given `argsz` and `flags`.
fn ask<T>(device: &Device, argsz: usize, flags: u32, data: T) -> std::io::Result<()> {
    let argsz = argsz as u32;
    device.raw_feature(&mut Feature { argsz, flags, data })
}

fn short_arguments_are_refused(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    let get = vfio::VFIO_DEVICE_FEATURE_GET;
    let set = vfio::VFIO_DEVICE_FEATURE_SET;
    for argsz in [0, 7, 8, 15] {
        let state = vfio_device_feature_mig_state {
            device_state: State::Stop as u32,
            data_fd: 0,
        };
        for (what, result) in [
            (
                "GET of MIGRATION",
                ask(
                    &device,
                    argsz,
                    get | MIGRATION,
                    vfio_device_feature_migration::default(),
                ),
            ),
            (
                "GET of MIG_DEVICE_STATE",
                ask(&device, argsz, get | STATE, state),
            ),
            (
                "SET of MIG_DEVICE_STATE",
                ask(&device, argsz, set | STATE, state),
            ),
            (
                "GET of MIG_DATA_SIZE",
                ask(
                    &device,
                    argsz,
                    get | DATA_SIZE,
                    vfio_device_feature_mig_data_size::default(),
                ),
            ),
        ] {
            expect::refused(
                &format!("{what} with argsz {argsz}"),
                result,
                &[libc::EINVAL],
            )?;
        }
    }
    expect::equal("state after refusals", device.state()?, State::Running)
}

fn unknown_flags_are_refused(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    let state = vfio_device_feature_mig_state::default();
    for bit in 19..32 {
        let flags = vfio::VFIO_DEVICE_FEATURE_GET | STATE | (1 << bit);
        expect::refused(
            &format!("flags {flags:#x}"),
            ask(&device, 16, flags, state),
            &[libc::EINVAL],
        )?;
    }
    Ok(())
}

fn get_with_set_and_neither_are_refused(bed: &Bed) -> Result<()> {
    let device = open(bed)?;
    let both = vfio::VFIO_DEVICE_FEATURE_GET | vfio::VFIO_DEVICE_FEATURE_SET;
    for (what, operations) in [("GET and SET", both), ("neither GET nor SET", 0)] {
        let state = vfio_device_feature_mig_state::default();
        expect::refused(
            what,
            ask(&device, 16, operations | STATE, state),
            &[libc::EINVAL],
        )?;
    }
    expect::refused(
        "SET of MIGRATION",
        ask(&device, 16, vfio::VFIO_DEVICE_FEATURE_SET | MIGRATION, 0u64),
        &[libc::EINVAL],
    )
}

fn unknown_features_are_refused(bed: &Bed) -> Result<()> {
    expect::refused(
        "probe of feature 0xfff0",
        open(bed)?.probe(Operation::ProbeGet, 0xfff0),
        &[libc::ENOTTY],
    )
}

fn a_new_device_is_running(bed: &Bed) -> Result<()> {
    for _ in 0..2 {
        expect::equal("state after open", open(bed)?.state()?, State::Running)?;
    }
    Ok(())
}

fn data_size_covers_the_stream(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    let device = |guest: &Guest| guest.vf.device.data_size();
    let empty = device(&guest)?;
    guest.furnish(1)?;
    let running = device(&guest)?;
    guest.vf.device.change_state(State::Stop)?;
    let stopped = device(&guest)?;
    let stream = guest.vf.device.save()?.len() as u64;
    expect::claim("a size that is not 0 for an empty device", empty > 0)?;
    expect::claim(
        &format!("size {running} while running to cover the stream's {stream} bytes"),
        running >= stream,
    )?;
    expect::claim(
        &format!("size {stopped} while stopped to cover the stream's {stream} bytes"),
        stopped >= stream,
    )
}
