// SPDX-License-Identifier: GPL-2.0

//! `vifactl bind` and `vifactl unbind`: give virtual functions to the driver, and take them back.
//!
//! The driver is chosen by `driver_override`, so that it gets these functions and no others. All
//! functions are checked before the first of them is changed.

use std::fmt;

use anyhow::{bail, Context as _, Result};
use serde::Serialize;
use vifa_vfio::Capability;

use crate::{
    cli::Context,
    device::{Holder, PF_DRIVER, VF_DRIVER},
    exit::Exit,
    function::{Address, Function},
    host::Host,
};

/// Give virtual functions to the driver vifa_vfio_pci
///
/// Each has to be a virtual function whose physical function is bound to vifa_vfio_pci_pf, or to
/// its own driver where it has no VIFA capability; nothing may have it open, and no other device of
/// its IOMMU group may belong to a driver of the host's. Where one of them is not fit, none is
/// changed. Where the driver refuses a function, driver_override and the driver are as they were.
#[derive(clap::Args)]
pub(crate) struct BindArguments {
    /// The virtual functions, as in 0000:01:00.1
    #[arg(required = true, value_name = "FUNCTION")]
    functions: Vec<Address>,
}

/// Take virtual functions from the driver vifa_vfio_pci
///
/// Nothing may have one of them open. They belong to no driver then, and every driver may bind to
/// them.
#[derive(clap::Args)]
pub(crate) struct UnbindArguments {
    /// The virtual functions, as in 0000:01:00.1
    #[arg(required = true, value_name = "FUNCTION")]
    functions: Vec<Address>,
}

/// What has been done.
#[derive(Serialize)]
struct Done {
    functions: Vec<Change>,
}

/// What has been done with a function.
#[derive(Serialize)]
struct Change {
    function: Address,
    changed: bool,
    /// The driver before.
    before: Option<String>,
    /// The driver now.
    driver: Option<String>,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.functions {
            write!(f, "{}: ", change.function)?;
            match (&change.driver, &change.before, change.changed) {
                (Some(driver), _, false) => writeln!(f, "is bound to {driver} already")?,
                (None, _, false) => writeln!(f, "is bound to no driver")?,
                (Some(driver), Some(before), true) => writeln!(f, "{before} -> {driver}")?,
                (Some(driver), None, true) => writeln!(f, "bound to {driver}")?,
                (None, Some(before), true) => writeln!(f, "unbound from {before}")?,
                (None, None, true) => writeln!(f, "bound to no driver")?,
            }
        }
        Ok(())
    }
}

/// Binds functions.
///
/// # Errors
///
/// A function is not fit to be bound, or its driver refused it.
pub(crate) fn bind(arguments: &BindArguments, context: &Context) -> Result<()> {
    let functions = find(&arguments.functions, &context.host)?;

    for function in &functions {
        check_bind(function, &context.host)?;
    }
    let functions = functions
        .iter()
        .map(|function| {
            let before = function.driver();
            let changed = before.as_deref() != Some(VF_DRIVER);

            if changed {
                bind_one(function)?;
            }
            Ok(Change {
                function: function.address(),
                changed,
                before,
                driver: Some(VF_DRIVER.to_owned()),
            })
        })
        .collect::<Result<_>>()?;

    context.output.print(&Done { functions })
}

/// Unbinds functions.
///
/// # Errors
///
/// A function is bound to another driver, is open, or cannot be unbound.
pub(crate) fn unbind(arguments: &UnbindArguments, context: &Context) -> Result<()> {
    let functions = find(&arguments.functions, &context.host)?;

    for function in &functions {
        check_unbind(function, &context.host)?;
    }
    let functions = functions
        .iter()
        .map(|function| {
            let before = function.driver();
            let changed = before.is_some();

            unbind_one(function)?;
            Ok(Change {
                function: function.address(),
                changed,
                before,
                driver: None,
            })
        })
        .collect::<Result<_>>()?;

    context.output.print(&Done { functions })
}

/// The functions with these addresses, each once.
fn find(addresses: &[Address], host: &Host) -> Result<Vec<Function>> {
    let mut addresses = addresses.to_vec();

    addresses.sort();
    addresses.dedup();
    addresses
        .into_iter()
        .map(|address| Function::find(address, host))
        .collect()
}

/// Checks that the physical function `physical` has a driver by which `function` can be migrated.
///
/// What has the VIFA capability is migrated through the driver for it; the virtual functions that
/// the driver migrates by themselves have a physical function with a driver of its own. Which those
/// are the driver knows best, and says when it is given another.
fn check_physical(function: &Function, physical: &Function) -> Result<()> {
    match physical.driver() {
        Some(driver) if driver == PF_DRIVER => Ok(()),
        Some(driver) if matches!(Capability::of(physical.directory()), Ok(Some(_))) => bail!(
            "{function}: its physical function {physical} is bound to {driver}, not to {PF_DRIVER}"
        ),
        Some(_) => Ok(()),
        None => bail!(
            "{function}: its physical function {physical} is bound to no driver; \
             one with the VIFA capability has to be bound to {PF_DRIVER}, another to its own"
        ),
    }
}

/// Checks that `function` may be given to the driver.
fn check_bind(function: &Function, host: &Host) -> Result<()> {
    let Some(physical) = function.physical_function() else {
        bail!("{function} is no virtual function");
    };

    check_physical(function, &Function::find(physical, host)?)?;
    if !host.pci_drivers().join(VF_DRIVER).is_dir() {
        bail!("{function}: there is no driver {VF_DRIVER}; load the module vifa_vfio_pci");
    }
    if function.driver().as_deref() == Some(VF_DRIVER) {
        return Ok(());
    }
    check_free(function, host)?;
    check_group(function, host)
}

/// Checks that no other device of the function's IOMMU group belongs to a driver of the host's.
fn check_group(function: &Function, host: &Host) -> Result<()> {
    let Some(group) = function.iommu_group() else {
        bail!("{function} is in no IOMMU group: the host's IOMMU is off");
    };

    for address in function.iommu_group_members() {
        if address == function.address() {
            continue;
        }
        let other = Function::find(address, host)?;

        if let Some(driver) = other.driver() {
            // VFIO lets a group be used beside devices of its own, bridges, and what is put away.
            if other.vfio_device().is_none() && driver != "pcieport" && driver != "pci-stub" {
                return Err(Exit::Busy
                    .because(format!(
                        "{function}: {address} is in the same IOMMU group {group}, \
                         and bound to {driver}"
                    ))
                    .into());
            }
        }
    }
    Ok(())
}

/// Checks that no process has `function` open.
fn check_free(function: &Function, host: &Host) -> Result<()> {
    match Holder::of(function.address(), host) {
        Some(holder) => Err(Exit::Busy
            .because(format!("{function} is in use: {holder} has it open"))
            .into()),
        None => Ok(()),
    }
}

/// Checks that `function` may be taken from the driver.
fn check_unbind(function: &Function, host: &Host) -> Result<()> {
    match function.driver() {
        None => Ok(()),
        Some(driver) if driver == VF_DRIVER => check_free(function, host),
        Some(driver) => bail!("{function} is bound to {driver}, not to {VF_DRIVER}"),
    }
}

/// Gives `function` to the driver; after an error it is as it was.
fn bind_one(function: &Function) -> Result<()> {
    let driver = function.driver();
    let reservation = function.driver_override();

    function
        .set_driver_override(Some(VF_DRIVER))
        .with_context(|| format!("{function}: driver_override"))?;
    let result = function
        .unbind()
        .with_context(|| {
            let driver = driver.as_deref().unwrap_or_default();

            format!("{function}: cannot be unbound from {driver}")
        })
        .and_then(|()| {
            function.bind(VF_DRIVER).with_context(|| {
                format!("{function}: {VF_DRIVER} refuses it (the kernel log tells why)")
            })
        });
    let Err(error) = result else {
        return Ok(());
    };

    restore(function, reservation.as_deref(), driver.as_deref()).map_err(|left| {
        let exit = Exit::of(&error);

        exit.because(format!("{error:#}; besides, {left:#}"))
    })?;
    Err(error)
}

/// Makes driver_override and driver of `function` what they were.
fn restore(function: &Function, reservation: Option<&str>, driver: Option<&str>) -> Result<()> {
    function
        .set_driver_override(reservation)
        .with_context(|| format!("driver_override of {function} could not be restored"))?;
    if let (Some(driver), None) = (driver, function.driver()) {
        function
            .bind(driver)
            .with_context(|| format!("{function} could not be bound to {driver} again"))?;
    }
    Ok(())
}

/// Takes `function` from the driver, and its reservation for it.
fn unbind_one(function: &Function) -> Result<()> {
    function
        .unbind()
        .with_context(|| format!("{function}: cannot be unbound"))?;
    if function.driver_override().as_deref() == Some(VF_DRIVER) {
        function
            .set_driver_override(None)
            .with_context(|| format!("{function}: driver_override"))?;
    }
    Ok(())
}
