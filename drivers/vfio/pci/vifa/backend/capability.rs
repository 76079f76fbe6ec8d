// SPDX-License-Identifier: GPL-2.0

//! Devices with the VIFA capability.
//!
//! Such a device has its migration controls in a register file on the physical function, which no
//! guest can access. For each virtual function, the register file has a control frame and a data
//! frame, each with a mailbox for commands. `include/linux/vifa_hw.h` defines the layout and the
//! commands. `Documentation/vifa/hardware-interface.rst` specifies the hardware interface.
//!
//! Lock order: the mailbox of a control frame or of a data frame, then the quarantine of the
//! register file. The gate of a mailbox, a spinlock, is innermost.

mod buffer;
mod completion;
mod fault;
mod function;
mod local;
mod log;
mod mailbox;
mod memory;
mod physical;
mod register_file;
mod scatter;
mod spare;
mod status;
mod transfer;

use self::{
    fault::Fault,
    local::{
        Bitmap,
        Granules, //
    },
    log::WriteLog,
    mailbox::Command,
    transfer::{
        Receiver,
        Sender, //
    }, //
};
pub(crate) use self::{
    function::{
        Function,
        REFERENCE, //
    },
    physical::Driver, //
};
use super::{
    Backend,
    RunState, //
};
use crate::{
    bindings::{
        VIFA_CONTROL_RUN_STATE,
        VIFA_RUN_STATE_P2P,
        VIFA_RUN_STATE_RUNNING,
        VIFA_RUN_STATE_STOPPED, //
    },
    layer::{
        address::Range,
        granules::WINDOW,
        identity::Identity,
        interface::Interfaces, //
    },
    vfio::sriov::{
        Loss,
        NotVirtual,
        Virtual, //
    }, //
};
use kernel::{
    device::Core,
    pci,
    prelude::*,
    sync::Arc, //
};

impl Backend for Function {
    type Fault = Fault;
    type Source = Sender;
    type Destination = Receiver;
    type Log = WriteLog;

    fn probe(device: &pci::Device<Core<'_>>) -> Result<Arc<Self>> {
        let place = Virtual::new(device).map_err(|reason| {
            match reason {
                NotVirtual::NotAVirtualFunction => {
                    dev_err!(device, "failed to probe: not an SR-IOV virtual function\n")
                }
                NotVirtual::ForeignPhysicalFunction => dev_err!(
                    device,
                    "failed to probe: the physical function is not bound to vifa_vfio_pci_pf\n"
                ),
                NotVirtual::Unlinked => {
                    dev_err!(device, "failed to link to the physical function\n")
                }
            }
            ENODEV
        })?;
        Self::new(device, &place)
    }

    fn reset_prepare(&self) {
        self.control.hold();
        self.data.hold();
    }

    fn reset_settled(&self) {
        self.control.release();
        self.data.release();
    }

    fn loss(&self) -> Option<Loss> {
        self.control.loss()
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn interfaces(&self) -> Interfaces {
        self.interfaces
    }

    fn run_state(&self) -> Result<RunState, Fault> {
        match self.control.read(VIFA_CONTROL_RUN_STATE)? {
            VIFA_RUN_STATE_RUNNING => Ok(RunState::Running),
            VIFA_RUN_STATE_P2P => Ok(RunState::P2pQuiesced),
            VIFA_RUN_STATE_STOPPED => Ok(RunState::Stopped),
            unknown => Err(Fault::RunState(unknown)),
        }
    }

    fn set_run_state(&self, state: RunState) -> Result<(), Fault> {
        let number = match state {
            RunState::Running => VIFA_RUN_STATE_RUNNING,
            RunState::P2pQuiesced => VIFA_RUN_STATE_P2P,
            RunState::Stopped => VIFA_RUN_STATE_STOPPED,
        };
        self.control(Command::SET_RUN_STATE, number.into(), None)?;
        let reached = self.run_state()?;
        if reached != state {
            return Err(Fault::Unreached(reached, state));
        }
        Ok(())
    }

    fn mapped(&self) -> Result<u64, Fault> {
        let granule = u64::from(self.identity.granule);
        let end = self.identity.local_memory;
        if end == 0 {
            return Ok(0);
        }
        let mut bitmap = Bitmap::new(self)?;
        let step = WINDOW * granule;
        let mut granules = 0;
        for start in (0..end).step_by(step as usize) {
            let (_, count) = bitmap.query(self, Granules::Mapped, start, step.min(end - start))?;
            granules += count;
        }
        Ok(granules * granule)
    }

    fn source(device: &Arc<Self>) -> Result<Sender, Fault> {
        Ok(Sender::new(device.clone())?)
    }

    fn destination(device: &Arc<Self>) -> Result<Receiver, Fault> {
        Ok(Receiver::new(device.clone())?)
    }

    fn start_log(
        device: &Arc<Self>,
        ranges: KVec<Range>,
        page_size: u64,
    ) -> Result<WriteLog, log::Fault> {
        WriteLog::start(device.clone(), ranges, page_size)
    }
}
