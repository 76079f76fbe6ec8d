// SPDX-License-Identifier: GPL-2.0

//! Virtual functions of Intel's 82576 and I350.
//!
//! These cards have no support for migration. The backend stops, reads and writes their virtual
//! functions through the registers of the guest. It observes the guest's requests to the physical
//! function in the mailbox, and repeats them on the destination. The physical function is driven by
//! `igb`, which is unaware of this.
//!
//! The guest accesses page 0 of BAR 0, which contains the mailbox, only through this driver. It
//! accesses the pages with interrupts and queues directly.
//!
//! Lock order: `opened` of a [`Function`] is innermost. While it is held, the backend waits for
//! nothing that a reset may hold.

mod hardware;
mod identity;
mod opened;
mod portable;
mod probe;
mod transfer;

pub(crate) use self::identity::{
    ID_82576,
    ID_I350, //
};
use self::{
    hardware::{
        Watch,
        BAR, //
    },
    identity::identify,
    opened::Opened,
    portable::{
        fault::Fault,
        registers::page0,
        state::State, //
    },
    probe::probe,
    transfer::{
        Receiver,
        Sender, //
    },
};
use super::{
    Backend,
    NoLog,
    NotLogged,
    RunState, //
};
use crate::{
    bindings::rate_limit::RateLimit,
    layer::{
        address::Range,
        identity::Identity,
        interface::{
            self,
            Interfaces, //
        },
    },
    vfio::{
        bar::{
            Registers,
            Window, //
        },
        pci::Address, //
    },
};
use kernel::{
    device::Core,
    new_mutex,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            AtomicFlag,
            Release, //
        },
        Arc,
        Mutex, //
    }, //
};

/// A virtual function.
#[pin_data]
pub(crate) struct Function {
    device: ARef<pci::Device>,
    identity: Identity,
    interfaces: Interfaces,
    /// The reason for which the function cannot be migrated.
    unsupported: Option<Fault>,
    watch: Watch,
    #[pin]
    warnings: RateLimit,
    /// Whether a reset is in progress. Only the guest's accesses may reach the function then.
    is_resetting: AtomicFlag,
    /// Whether a reset has begun or completed since `opened` was last locked.
    was_reset: AtomicFlag,
    #[pin]
    opened: Mutex<Option<Opened>>,
}

impl Backend for Function {
    type Fault = Fault;
    type Source = Sender;
    type Destination = Receiver;
    type Log = NoLog;

    const WINDOWS: &'static [Window] = &[Window {
        bar: BAR,
        start: 0,
        length: page0::LENGTH as u64,
    }];

    fn probe(device: &pci::Device<Core<'_>>) -> Result<Arc<Self>> {
        let identity = identify(device)?;
        let unsupported = probe(device, queue_pairs(&identity))?;
        let Address { domain, bus, devfn } = Address::of(device);

        Arc::pin_init(
            pin_init!(Self {
                device: device.into(),
                identity,
                unsupported,
                watch: Watch::new(),
                warnings <- RateLimit::new(5000, 10),
                interfaces: Interfaces::of(interface::Function { domain, bus, devfn }),
                is_resetting: AtomicFlag::new(false),
                was_reset: AtomicFlag::new(false),
                opened <- new_mutex!(None, "vifa_igb"),
            }),
            GFP_KERNEL,
        )
    }

    fn unsupported(&self) -> Option<Fault> {
        self.unsupported
    }

    fn open(&self, registers: Registers) -> Result {
        *self.lock() = Some(Opened {
            registers,
            state: State::new(queue_pairs(&self.identity)),
            run_state: RunState::Running,
        });
        Ok(())
    }

    fn close(&self) {
        if let Err(fault) = self.with(|state, hardware| state.close(hardware)) {
            self.warn(format_args!(
                "failed to release the MAC address and filters: {fault}"
            ));
        }
        *self.lock() = None;
    }

    fn reset_prepare(&self) {
        // ORDERING: A reader clears `was_reset`, then reads `is_resetting`. If it finds the latter
        // clear, it finds the former set afterwards.
        self.is_resetting.store(true, Release);
        self.was_reset.store(true, Release);
    }

    fn reset(&self) {
        self.was_reset.store(true, Release);
    }

    fn reset_settled(&self) {
        self.is_resetting.store(false, Release);
    }

    fn read(&self, _window: usize, offset: u64) -> Result<u32> {
        let offset = u32::try_from(offset)?;

        Ok(self.mediate(|state, hardware| state.read(hardware, offset))?)
    }

    fn write(&self, _window: usize, offset: u64, value: u32) -> Result {
        let offset = u32::try_from(offset)?;

        Ok(self.mediate(|state, hardware| state.write(hardware, offset, value))?)
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn interfaces(&self) -> Interfaces {
        self.interfaces
    }

    fn run_state(&self) -> Result<RunState, Fault> {
        let opened = self.lock();

        Ok(Option::as_ref(&*opened).ok_or(EIO)?.run_state)
    }

    fn set_run_state(&self, target: RunState) -> Result<(), Fault> {
        let mut opened = self.lock();
        let opened = Option::as_mut(&mut *opened).ok_or(EIO)?;
        let mut hardware = self.hardware(&opened.registers)?;

        match (opened.run_state, target) {
            (_, RunState::Running) => {
                if let Some(fault) = opened.state.resume(&mut hardware)? {
                    self.warn(format_args!("failed to restore unicast addresses: {fault}"));
                }
            }
            // The function is already stopped.
            (RunState::Stopped, RunState::P2pQuiesced) => {}
            (_, RunState::P2pQuiesced | RunState::Stopped) => {
                opened.state.quiesce(&mut hardware)?
            }
        }
        opened.run_state = target;
        Ok(())
    }

    fn source(device: &Arc<Self>) -> Result<Sender, Fault> {
        Sender::new(device.clone())
    }

    fn destination(device: &Arc<Self>) -> Result<Receiver, Fault> {
        Receiver::new(device.clone())
    }

    fn start_log(
        _device: &Arc<Self>,
        _ranges: KVec<Range>,
        _page_size: u64,
    ) -> Result<NoLog, NotLogged> {
        Err(NotLogged)
    }
}

/// Returns the number of queue pairs of a function.
fn queue_pairs(identity: &Identity) -> u8 {
    // The value is 1 or 2.
    identity.queues as u8
}
