// SPDX-License-Identifier: GPL-2.0

//! `vifactl list`: the VIFA interfaces of a host, and their physical functions.
//!
//! The list comes from sysfs and is available without the driver. A physical function is recognized
//! by its VIFA capability or its driver, a virtual function by its physical function or its driver.

use std::{collections::BTreeSet, fmt};

use anyhow::Result;
use serde::Serialize;
use vifa_vfio::pci::{Address, Function};

use crate::{
    context::Context,
    device::{Holder, PF_DRIVER, VF_DRIVER},
    identity::feature_names,
    output::Table,
    region,
    state::State,
};

/// Show the VIFA interfaces of this host, and their physical functions
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The listed functions.
#[derive(Serialize)]
struct List {
    physical_functions: Vec<Physical>,
    virtual_functions: Vec<Virtual>,
}

/// The fields of every listed function.
#[derive(Serialize)]
struct Common {
    function: Address,
    vendor: Option<u64>,
    device: Option<u64>,
    driver: Option<String>,
    iommu_group: Option<String>,
}

/// A physical function.
#[derive(Serialize)]
struct Physical {
    #[serde(flatten)]
    common: Common,
    /// `None` if the function has no capability or the user may not read it.
    capability: Option<Capability>,
    vfs: Option<u64>,
    vfs_max: Option<u64>,
}

/// A virtual function.
#[derive(Serialize)]
struct Virtual {
    #[serde(flatten)]
    common: Common,
    physical_function: Option<Address>,
    /// Index in the physical function, from 0.
    index: Option<usize>,
    /// The migration state, if the user may read it.
    state: Option<State>,
    /// The features, if the user may read them.
    features: Option<Vec<String>>,
    /// The process that has the function open, if the user may see it.
    holder: Option<Holder>,
}

impl Common {
    fn of(function: &Function) -> Self {
        Self {
            function: function.address(),
            vendor: function.number("vendor").ok(),
            device: function.number("device").ok(),
            driver: function.driver(),
            iommu_group: function.iommu_group(),
        }
    }

    /// Returns the cells of any function, with `kind` among them.
    fn cells(&self, kind: String) -> Vec<String> {
        let id = |id: Option<u64>| id.map_or("?".to_owned(), |id| format!("{id:04x}"));

        vec![
            self.function.to_string(),
            kind,
            format!("{}:{}", id(self.vendor), id(self.device)),
            self.driver.clone().unwrap_or_default(),
            self.iommu_group.clone().unwrap_or_default(),
        ]
    }
}

/// The VIFA capability of a physical function.
#[derive(Debug, Serialize)]
struct Capability {
    /// Revision of the hardware interface.
    revision: u32,
    /// Names of the features.
    features: Vec<String>,
}

impl Capability {
    fn of(function: &Function) -> Option<Self> {
        let found = vifa_vfio::Capability::of(function.directory()).ok()??;

        Some(Self {
            revision: found.revision,
            features: feature_names(found.features),
        })
    }
}

impl Physical {
    /// Returns the function if it has VIFA interfaces.
    fn of(function: &Function) -> Option<Self> {
        let capability = Capability::of(function);
        let ours = capability.is_some() || function.driver().as_deref() == Some(PF_DRIVER);

        (ours && function.physical_function().is_none()).then(|| Self {
            common: Common::of(function),
            capability,
            vfs: function.number("sriov_numvfs").ok(),
            vfs_max: function.number("sriov_totalvfs").ok(),
        })
    }
}

impl Virtual {
    fn of(function: &Function, context: &Context, holder: Option<Holder>) -> Self {
        let address = function.address();
        let physical = function
            .physical_function()
            .and_then(|address| context.host.function(address).ok());
        // Errors are not listed; `vifactl show` reports them.
        let region = region::peek(address, &context.host, holder.as_ref())
            .ok()
            .flatten();

        Self {
            common: Common::of(function),
            physical_function: physical.as_ref().map(Function::address),
            index: physical.and_then(|physical| {
                physical
                    .virtual_functions()
                    .position(|of| of.address() == address)
            }),
            state: region.as_ref().map(|(region, _)| region.state),
            features: region.map(|(region, _)| region.identity.features()),
            holder,
        }
    }
}

impl List {
    fn of(context: &Context) -> Result<Self> {
        let functions = context.host.functions()?;
        let physical_functions: Vec<_> = functions.iter().filter_map(Physical::of).collect();
        let ours: BTreeSet<_> = physical_functions
            .iter()
            .map(|physical| physical.common.function)
            .collect();
        let mut holders = Holder::all(&context.host);
        let virtual_functions = functions
            .iter()
            .filter(|function| {
                function.driver().as_deref() == Some(VF_DRIVER)
                    || function
                        .physical_function()
                        .is_some_and(|physical| ours.contains(&physical))
            })
            .map(|function| Virtual::of(function, context, holders.remove(&function.address())))
            .collect();

        Ok(Self {
            physical_functions,
            virtual_functions,
        })
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.physical_functions.is_empty() && self.virtual_functions.is_empty() {
            return writeln!(f, "no VIFA interfaces");
        }
        let mut table = Table::with_head(&[
            "FUNCTION", "KIND", "IDS", "DRIVER", "GROUP", "STATE", "FEATURES", "HOLDER",
        ]);

        for physical in &self.physical_functions {
            let count =
                |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
            let kind = format!(
                "PF, {} of {} VFs",
                count(physical.vfs),
                count(physical.vfs_max)
            );
            let features = physical
                .capability
                .as_ref()
                .map(|capability| capability.features.join(" "));
            let mut cells = physical.common.cells(kind);

            cells.extend([String::new(), features.unwrap_or_default(), String::new()]);
            table.row(&cells);
        }
        for virtual_function in &self.virtual_functions {
            let kind = match (virtual_function.index, virtual_function.physical_function) {
                (Some(index), Some(physical)) => format!("VF {index} of {physical}"),
                _ => "VF".to_owned(),
            };
            let text = |text: Option<String>| text.unwrap_or_default();
            let mut cells = virtual_function.common.cells(kind);

            cells.extend([
                text(virtual_function.state.map(|state| state.to_string())),
                text(
                    virtual_function
                        .features
                        .as_ref()
                        .map(|names| names.join(" ")),
                ),
                text(virtual_function.holder.as_ref().map(Holder::to_string)),
            ]);
            table.row(&cells);
        }
        table.fmt(f)
    }
}

/// Lists the functions.
///
/// # Errors
///
/// sysfs cannot be read.
pub(crate) fn run(_: &Arguments, context: &Context) -> Result<()> {
    context.output.print(&List::of(context)?)
}
