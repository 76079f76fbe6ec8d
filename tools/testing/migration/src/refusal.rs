// SPDX-License-Identifier: GPL-2.0

//! A destination refuses a virtual machine, which goes on where it is.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::json;

use crate::guest::{Guest, Phase};
use crate::migration::{listen, notice, query, set_capabilities, Plan, Route};
use crate::qmp::Event;
use crate::vmm::Vmm;

/// What became of a machine that a destination refused to take.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// The states of the first device that the source QEMU went through.
    pub source_states: Vec<String>,
    /// From the order to migrate to its failure.
    pub took: Duration,
    /// What the destination's QEMU says.
    pub reason: String,
    /// What the workload did from the order to migrate until its failure was known.
    pub during: Phase,
    /// What it did then.
    pub after: Phase,
}

impl Guest {
    /// Has `destination` refuse the machine, which goes on where it is.
    ///
    /// # Errors
    ///
    /// As for [`Self::migrate`]; and when `destination` takes the machine, or the machine stops for
    /// any time.
    pub fn be_refused(&mut self, destination: &mut Vmm, plan: &Plan) -> Result<Refusal> {
        self.offer_to(destination, plan).map_err(|error| {
            let errors = destination.errors();
            self.explain(error)
                .context(format!("destination: {errors}"))
        })
    }

    fn offer_to(&mut self, destination: &mut Vmm, plan: &Plan) -> Result<Refusal> {
        let mut refusal = Refusal::default();
        let uri = listen(destination, plan.multifd)?;
        set_capabilities(&mut self.vmm, Route::Connection(plan.multifd))?;
        let booted = self.workloads();
        self.work("before the refusal", &booted, plan.operations)?;
        let begin = Instant::now();
        let offer = self.order(&uri, plan, &mut |_| ())?;
        self.until("the machine was not refused", |guest| {
            guest.hear(&mut refusal)?;
            match query(&mut guest.vmm)?.status.as_str() {
                "failed" => Ok(Some(())),
                "completed" => bail!("the destination took the machine"),
                _ => Ok(None),
            }
        })?;
        refusal.took = begin.elapsed();

        let running = self.vmm.qmp()?.execute("query-status", json!({}))?;
        ensure!(
            running["status"] == "running",
            "the refused machine is not running, but {}",
            running["status"]
        );
        refusal.reason = query(destination)?
            .error_desc
            .context("the destination's QEMU does not say why it failed")?;
        self.console.read()?;
        let left = self.workloads();
        refusal.during = Phase::between(&offer.start, &left);
        refusal.after = self.work("after the refusal", &left, plan.operations)?;
        self.hear(&mut refusal)?;
        Ok(refusal)
    }

    /// Takes in what the source's QEMU has told, which may not be that the machine stops.
    fn hear(&mut self, refusal: &mut Refusal) -> Result<()> {
        for (_, event) in self.vmm.qmp()?.take_events()? {
            match event {
                Event::VfioMigration { state, .. } => refusal.source_states.push(state),
                Event::Stop => bail!("the machine that is refused was stopped"),
                event => notice(event, "source:     ", &mut |_| ())?,
            }
        }
        Ok(())
    }
}
