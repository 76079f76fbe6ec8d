// SPDX-License-Identifier: GPL-2.0

//! `vifactl bind` and `vifactl unbind`: bind virtual functions to the driver and unbind them.
//!
//! `driver_override` selects the driver, so that it binds to these functions only. All functions
//! are checked before the first one is changed.

use std::fmt;

use anyhow::{bail, Context as _, Result};
use serde::Serialize;
use vifa_vfio::{
    pci::{Address, Function},
    Capability,
};

use crate::{
    context::Context,
    device::{Holder, PF_DRIVER, VF_DRIVER},
    exit::Exit,
    host::Host,
};

/// Bind virtual functions to the driver vifa_vfio_pci
///
/// Each function must be a virtual function. Its physical function must be bound to
/// vifa_vfio_pci_pf, or to its own driver if it has no VIFA capability. No process may have the
/// function open, and no other device of its IOMMU group may be bound to a host driver. If one
/// function fails these checks, none is changed. If the driver rejects a function, driver_override
/// and the driver are restored.
#[derive(clap::Args)]
pub(crate) struct BindArguments {
    /// The virtual functions, as in 0000:01:00.1
    #[arg(required = true, value_name = "FUNCTION")]
    functions: Vec<Address>,
}

/// Unbind virtual functions from the driver vifa_vfio_pci
///
/// No process may have one of them open. Afterwards they have no driver, and any driver may bind to
/// them.
#[derive(clap::Args)]
pub(crate) struct UnbindArguments {
    /// The virtual functions, as in 0000:01:00.1
    #[arg(required = true, value_name = "FUNCTION")]
    functions: Vec<Address>,
}

/// The result of the command.
#[derive(Serialize)]
struct Done {
    functions: Vec<Change>,
}

/// The change of one function.
#[derive(Serialize)]
struct Change {
    function: Address,
    changed: bool,
    /// The driver before the change.
    before: Option<String>,
    /// The driver after the change.
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
/// A function fails the checks, or the driver rejects it.
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
/// A function is bound to another driver, is open, or fails to unbind.
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

/// Returns the functions at these addresses, without duplicates.
fn find(addresses: &[Address], host: &Host) -> Result<Vec<Function>> {
    let mut addresses = addresses.to_vec();

    addresses.sort();
    addresses.dedup();
    addresses
        .into_iter()
        .map(|address| host.function(address))
        .collect()
}

/// Checks that `physical` has a driver through which `function` can be migrated.
///
/// A physical function with the VIFA capability must be bound to [`PF_DRIVER`]. The driver also
/// migrates some virtual functions whose physical function is bound to its own driver. The driver
/// itself checks which functions these are, and reports an unsupported one.
fn check_physical(function: &Function, physical: &Function) -> Result<()> {
    match physical.driver() {
        Some(driver) if driver == PF_DRIVER => Ok(()),
        Some(driver) if matches!(Capability::of(physical.directory()), Ok(Some(_))) => bail!(
            "{function}: its physical function {physical} is bound to {driver}, not to {PF_DRIVER}"
        ),
        Some(_) => Ok(()),
        None => bail!(
            "{function}: its physical function {physical} is bound to no driver; \
             bind it to {PF_DRIVER} if it has the VIFA capability, else to its own driver"
        ),
    }
}

/// Checks that `function` may be bound to the driver.
fn check_bind(function: &Function, host: &Host) -> Result<()> {
    let Some(physical) = function.physical_function() else {
        bail!("{function} is not a virtual function");
    };

    check_physical(function, &host.function(physical)?)?;
    if !host.pci().driver(VF_DRIVER).is_dir() {
        bail!("{function}: no driver {VF_DRIVER}; load the module vifa_vfio_pci");
    }
    if function.driver().as_deref() == Some(VF_DRIVER) {
        return Ok(());
    }
    check_free(function, host)?;
    check_group(function, host)
}

/// Checks that no other device of the function's IOMMU group is bound to a host driver.
fn check_group(function: &Function, host: &Host) -> Result<()> {
    let Some(group) = function.iommu_group() else {
        bail!("{function} is in no IOMMU group: the host's IOMMU is off");
    };

    for address in function.iommu_group_members() {
        if address == function.address() {
            continue;
        }
        let other = host.function(address)?;

        if let Some(driver) = other.driver() {
            // VFIO allows a group with VFIO devices, bridges and devices bound to pci-stub.
            if other.vfio_device().is_none() && driver != "pcieport" && driver != "pci-stub" {
                return Err(Exit::Busy
                    .because(format!(
                        "{function}: {address} is in the same IOMMU group {group} \
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

/// Checks that `function` may be unbound from the driver.
fn check_unbind(function: &Function, host: &Host) -> Result<()> {
    match function.driver() {
        None => Ok(()),
        Some(driver) if driver == VF_DRIVER => check_free(function, host),
        Some(driver) => bail!("{function} is bound to {driver}, not to {VF_DRIVER}"),
    }
}

/// Binds `function` to the driver. On failure its previous driver is restored.
fn bind_one(function: &Function) -> Result<()> {
    let driver = function.driver();
    let reservation = function.driver_override();

    function
        .set_driver_override(Some(VF_DRIVER))
        .with_context(|| format!("{function}: failed to write driver_override"))?;
    let result = function
        .unbind()
        .with_context(|| {
            let driver = driver.as_deref().unwrap_or_default();

            format!("{function}: failed to unbind from {driver}")
        })
        .and_then(|()| {
            function.bind(VF_DRIVER).with_context(|| {
                format!("{function}: failed to bind to {VF_DRIVER} (see the kernel log)")
            })
        });
    let Err(error) = result else {
        return Ok(());
    };

    restore(function, reservation.as_deref(), driver.as_deref()).map_err(|left| {
        let exit = Exit::of(&error);

        exit.because(format!("{error:#}; in addition, {left:#}"))
    })?;
    Err(error)
}

/// Restores driver_override and driver of `function`.
fn restore(function: &Function, reservation: Option<&str>, driver: Option<&str>) -> Result<()> {
    function
        .set_driver_override(reservation)
        .with_context(|| format!("failed to restore driver_override of {function}"))?;
    if let (Some(driver), None) = (driver, function.driver()) {
        function
            .bind(driver)
            .with_context(|| format!("failed to bind {function} to {driver} again"))?;
    }
    Ok(())
}

/// Unbinds `function` and clears its driver_override.
fn unbind_one(function: &Function) -> Result<()> {
    function
        .unbind()
        .with_context(|| format!("{function}: failed to unbind"))?;
    if function.driver_override().as_deref() == Some(VF_DRIVER) {
        function
            .set_driver_override(None)
            .with_context(|| format!("{function}: failed to write driver_override"))?;
    }
    Ok(())
}
