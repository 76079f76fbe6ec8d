// SPDX-License-Identifier: GPL-2.0

//! A destination refuses a virtual machine, which continues at the source.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::json;
use vifa_qmp::Event;

use crate::{
    guest::{Guest, Phase},
    migration::{listen, notice, query, set_capabilities, Plan, Route},
    vmm::Vmm,
};

/// The result of a refused migration.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// The states of the first device at the source.
    pub source_states: Vec<String>,
    /// From the order to migrate to its failure.
    pub took: Duration,
    /// The error that the destination's QEMU reports.
    pub reason: String,
    /// Progress of the workload from the order to migrate until its failure was known.
    pub during: Phase,
    /// Progress of the workload after the failure.
    pub after: Phase,
}

impl Guest {
    /// Offers the machine to `destination`, which must refuse it. The machine continues at the
    /// source.
    ///
    /// # Errors
    ///
    /// As for [`Self::migrate`]. Also fails if `destination` accepts the machine, or if the machine
    /// stops for any time.
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
            guest.process_events(&mut refusal)?;
            match query(&mut guest.vmm)?.status.as_str() {
                "failed" => Ok(Some(())),
                "completed" => bail!("the destination accepted the machine"),
                _ => Ok(None),
            }
        })?;
        refusal.took = begin.elapsed();

        let running = self.vmm.qmp()?.execute("query-status", json!({}))?;
        ensure!(
            running["status"] == "running",
            "invalid state of the refused machine: got {}, expected running",
            running["status"]
        );
        refusal.reason = query(destination)?
            .error_desc
            .context("the destination's QEMU reports no reason")?;
        self.console.read()?;
        let left = self.workloads();
        refusal.during = Phase::between(&offer.start, &left);
        refusal.after = self.work("after the refusal", &left, plan.operations)?;
        self.process_events(&mut refusal)?;
        Ok(refusal)
    }

    /// Processes the events of the source's QEMU. An event that the machine stops is an error.
    fn process_events(&mut self, refusal: &mut Refusal) -> Result<()> {
        for (_, event) in self.vmm.qmp()?.take_events()? {
            match event {
                Event::VfioMigration { state, .. } => refusal.source_states.push(state),
                Event::Stop => bail!("the refused machine was stopped"),
                event => notice(event, "source:     ", &mut |_| ())?,
            }
        }
        Ok(())
    }
}
