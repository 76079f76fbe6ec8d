// SPDX-License-Identifier: GPL-2.0

//! The reference devices of the SR-IOV host, which differ in the maximum number of virtual
//! functions and in the size of their local memory.

use std::path::PathBuf;

use anyhow::{ensure, Context, Result};
use vifa_device::capability;
use vifa_selftests::{
    bed::{physical_functions, Bed, Settings, MODULE, VF_DRIVER},
    hw,
};
use vifa_vfio::pci::Function;

/// A physical function, bound to its driver.
pub struct PhysicalFunction {
    /// The function.
    pub function: Function,
    /// Maximum number of virtual functions.
    pub most: u32,
    /// `VIFA_HW_FEATURE_*`
    features: u32,
}

/// All reference devices.
pub struct Machine {
    physical: Vec<PhysicalFunction>,
}

impl Machine {
    /// Loads the driver, and binds it to each physical function.
    pub fn set_up(module: Option<PathBuf>) -> Result<Self> {
        let bed = Bed::find(&Settings { module })?;
        if !MODULE.is_loaded() {
            bed.load_module()?;
        }
        let driver = bed.pf_driver()?;
        let physical = physical_functions()?
            .into_iter()
            .map(|function| {
                function.ensure_bound(&driver)?;
                Ok(PhysicalFunction {
                    most: function.number("sriov_totalvfs")?.try_into()?,
                    features: capability(&function)?.features,
                    function,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { physical })
    }

    /// Returns all physical functions.
    pub fn physical(&self) -> &[PhysicalFunction] {
        &self.physical
    }

    /// Returns the physical function with the largest number of virtual functions.
    pub fn fleet(&self) -> Result<&PhysicalFunction> {
        let fleet = self.physical.iter().max_by_key(|physical| physical.most);
        fleet.context("no VIFA reference device found")
    }

    /// Returns two physical functions that differ in one feature: the virtual functions of the
    /// first report changes of local memory, those of the second do not.
    pub fn twins(&self) -> Result<[&PhysicalFunction; 2]> {
        let second = self
            .physical
            .iter()
            .find(|physical| !physical.reports_dirty());
        let second = second.context("no VIFA reference device with local-dirty=off found")?;
        let is_twin =
            |first: &&PhysicalFunction| first.reports_dirty() && first.most == second.most;
        let first = self.physical.iter().find(is_twin);
        let first = first.context("no equal device with local-dirty=on found")?;
        Ok([first, second])
    }
}

impl PhysicalFunction {
    /// Returns whether the virtual functions report changes of local memory.
    pub fn reports_dirty(&self) -> bool {
        self.features & hw::VIFA_HW_FEATURE_LOCAL_DIRTY != 0
    }

    /// Replaces all virtual functions with `count` new ones, bound to `vifa_vfio_pci`, and returns
    /// them.
    pub fn virtual_functions(&self, count: u32) -> Result<Vec<Function>> {
        let function = &self.function;
        ensure!(
            count <= self.most,
            "{function} supports {} virtual functions, expected at least {count}",
            self.most
        );
        if function.number("sriov_numvfs")? != u64::from(count) {
            for count in [0, count] {
                function.set_virtual_functions(count).with_context(|| {
                    format!("failed to set sriov_numvfs of {function} to {count}")
                })?;
            }
        }
        (0..count)
            .map(|index| {
                let vf = function
                    .virtual_function(index)
                    .with_context(|| format!("{function} has no VF {index}"))?;
                vf.ensure_bound(VF_DRIVER)?;
                Ok(vf)
            })
            .collect()
    }
}
