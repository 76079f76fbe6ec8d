// SPDX-License-Identifier: GPL-2.0

//! The DMA engine, with a submission ring and a completion ring.
//!
//! The engine processes and completes commands in order. The id of a command is its index in that
//! order. Each completion therefore confirms or disproves that every command completes exactly
//! once.
//!
//! Completions are collected only after an interrupt. After a timeout, the waiting task checks the
//! ring. If it contains a completion, an interrupt was lost, which is counted and logged.

use crate::{
    bindings::{
        self,
        vifa_reference_completion,
        vifa_reference_submission, //
    },
    registers::{
        self,
        DevresBar, //
    },
};
use kernel::{
    device::Core,
    dma::{
        Coherent,
        DmaAddress, //
    },
    io::{
        io_project,
        io_read,
        Io, //
    },
    irq,
    new_condvar,
    new_mutex,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        barrier::{
            dma_mb,
            Read,
            Write, //
        },
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic,
        Msecs, //
    }, //
};

/// Number of entries of each ring.
pub(crate) const RING_ENTRIES: usize = 64;

static_assert!(RING_ENTRIES.is_power_of_two());
static_assert!(RING_ENTRIES <= bindings::VIFA_REFERENCE_RING_MAX as usize);

/// Timeout of the next completion.
const TIMEOUT: Msecs = 10_000;

/// A command of the engine. Lengths are in bytes and multiples of 8. Addresses are DMA addresses,
/// and offsets are in local memory.
#[derive(Clone, Copy)]
pub(crate) enum Command {
    /// Completes without further effect.
    Nop,
    /// Writes the words `first`, `first + 1`, and so on.
    Fill {
        destination: DmaAddress,
        length: u64,
        first: u64,
    },
    /// Copies guest memory.
    Copy {
        source: DmaAddress,
        destination: DmaAddress,
        length: u64,
    },
    /// Computes the CRC-32C of guest memory.
    Checksum { source: DmaAddress, length: u64 },
    /// Copies guest memory to local memory.
    LocalWrite {
        source: DmaAddress,
        offset: u64,
        length: u64,
    },
    /// Copies local memory to guest memory.
    LocalRead {
        offset: u64,
        destination: DmaAddress,
        length: u64,
    },
}

impl Command {
    fn entry(&self, id: u32) -> vifa_reference_submission {
        let (opcode, source, destination, length, pattern) = match *self {
            Command::Nop => (bindings::VIFA_REFERENCE_NOP, 0, 0, 0, 0),
            Command::Fill {
                destination,
                length,
                first,
            } => (bindings::VIFA_REFERENCE_FILL, 0, destination, length, first),
            Command::Copy {
                source,
                destination,
                length,
            } => (
                bindings::VIFA_REFERENCE_COPY,
                source,
                destination,
                length,
                0,
            ),
            Command::Checksum { source, length } => {
                (bindings::VIFA_REFERENCE_CHECKSUM, source, 0, length, 0)
            }
            Command::LocalWrite {
                source,
                offset,
                length,
            } => (
                bindings::VIFA_REFERENCE_LOCAL_WRITE,
                source,
                offset,
                length,
                0,
            ),
            Command::LocalRead {
                offset,
                destination,
                length,
            } => (
                bindings::VIFA_REFERENCE_LOCAL_READ,
                offset,
                destination,
                length,
                0,
            ),
        };
        vifa_reference_submission {
            opcode: (opcode as u16).to_le(),
            reserved0: 0,
            id: id.to_le(),
            source: source.to_le(),
            destination: destination.to_le(),
            length: length.to_le(),
            pattern: pattern.to_le(),
            reserved1: [0; 3],
        }
    }
}

/// The reason why a command failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// The device does not support the command.
    Unknown,
    /// A length or an offset is invalid.
    Invalid,
    /// A DMA access failed.
    Fault,
    /// The device returned an undefined status.
    Undefined,
}

/// The outcome of a command: its result, or the reason why it failed.
pub(crate) type Outcome = core::result::Result<u64, Refusal>;

fn outcome_of(entry: &vifa_reference_completion) -> Outcome {
    match u32::from(u16::from_le(entry.status)) {
        bindings::VIFA_REFERENCE_COMPLETION_SUCCESS => Ok(u64::from_le(entry.result)),
        bindings::VIFA_REFERENCE_COMPLETION_UNKNOWN => Err(Refusal::Unknown),
        bindings::VIFA_REFERENCE_COMPLETION_INVALID => Err(Refusal::Invalid),
        bindings::VIFA_REFERENCE_COMPLETION_FAULT => Err(Refusal::Fault),
        _ => Err(Refusal::Undefined),
    }
}

/// Counters since the start of the engine.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counters {
    /// Number of submitted commands.
    pub(crate) submitted: u64,
    /// Number of collected completions.
    pub(crate) completed: u64,
    /// Number of handled interrupts.
    pub(crate) interrupts: u64,
    /// Number of times that completions were found without an interrupt, after [`TIMEOUT`].
    pub(crate) lost_interrupts: u64,
    /// Number of completions with an unexpected id: a command was lost, repeated or reordered.
    pub(crate) misordered: u64,
    /// Number of times that no completion arrived within [`TIMEOUT`].
    pub(crate) stalls: u64,
    /// Longest time without a completion while commands were in progress, in milliseconds.
    pub(crate) longest_gap: i64,
}

/// Indices of both rings, which count modulo 2^32, and the collected outcomes.
struct State {
    submitted: u32,
    completed: u32,
    finished: KVec<Outcome>,
    progress: Instant<Monotonic>,
    counters: Counters,
}

/// The engine of one virtual function.
#[pin_data]
pub(crate) struct Engine {
    device: ARef<pci::Device>,
    bar: DevresBar,
    local_memory: u64,
    submissions: Coherent<[vifa_reference_submission]>,
    completions: Coherent<[vifa_reference_completion]>,
    #[pin]
    state: Mutex<State>,
    #[pin]
    progress: CondVar,
}

impl Engine {
    /// Probes the engine of `pdev`, whose memory space is enabled. The engine is not started.
    ///
    /// # Errors
    ///
    /// `ENODEV` if this is not a reference device of a supported revision.
    pub(crate) fn new(pdev: &pci::Device<Core<'_>>) -> Result<Arc<Self>> {
        let bar: registers::Bar<'_> =
            pdev.iomap_region_sized(bindings::VIFA_REFERENCE_BAR, crate::NAME)?;

        let magic = bar.read(registers::MAGIC).value().get();
        let revision = bar.read(registers::REVISION).value().get();
        if magic != bindings::VIFA_REFERENCE_MAGIC_VALUE || revision != 1 {
            dev_err!(
                pdev,
                "invalid reference device: got magic {:#010x}, revision {}\n",
                magic,
                revision
            );
            return Err(ENODEV);
        }
        bar.write_reg(registers::CONTROL::zeroed());
        let local_memory = u64::from(bar.read(registers::LOCAL_LOW).into_raw())
            | u64::from(bar.read(registers::LOCAL_HIGH).into_raw()) << 32;

        Arc::pin_init(
            try_pin_init!(Self {
                device: pdev.into(),
                local_memory,
                submissions: Coherent::zeroed_slice(pdev.as_ref(), RING_ENTRIES, GFP_KERNEL)?,
                completions: Coherent::zeroed_slice(pdev.as_ref(), RING_ENTRIES, GFP_KERNEL)?,
                state <- new_mutex!(State {
                    submitted: 0,
                    completed: 0,
                    finished: KVec::with_capacity(RING_ENTRIES, GFP_KERNEL)?,
                    progress: Instant::now(),
                    counters: Counters::default(),
                }),
                progress <- new_condvar!(),
                bar: bar.into_devres()?,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Returns the size of the local memory in bytes.
    pub(crate) fn local_memory(&self) -> u64 {
        self.local_memory
    }

    pub(crate) fn device(&self) -> &pci::Device {
        &self.device
    }

    pub(crate) fn counters(&self) -> Counters {
        self.state.lock().counters
    }

    /// Starts the engine with empty rings, cleared counters and no speed limit.
    ///
    /// # Errors
    ///
    /// `ENXIO` if the device is gone, `EIO` if the engine does not start.
    pub(crate) fn start(&self) -> Result {
        self.stop();
        let mut state = self.state.lock();
        state.submitted = 0;
        state.completed = 0;
        state.finished.clear();
        state.counters = Counters::default();
        for index in 0..RING_ENTRIES {
            io_project!(self.completions, [panic: index]).copy_write(Zeroable::zeroed());
        }

        let bar = self.bar.try_access().ok_or(ENXIO)?;
        let submissions = self.submissions.dma_address();
        let completions = self.completions.dma_address();
        bar.write_reg(registers::RING_ENTRIES::from_raw(RING_ENTRIES as u32));
        bar.write_reg(registers::SUBMISSION_LOW::from_raw(submissions as u32));
        bar.write_reg(registers::SUBMISSION_HIGH::from_raw(
            (submissions >> 32) as u32,
        ));
        bar.write_reg(registers::COMPLETION_LOW::from_raw(completions as u32));
        bar.write_reg(registers::COMPLETION_HIGH::from_raw(
            (completions >> 32) as u32,
        ));
        bar.write_reg(registers::SPEED::zeroed());
        bar.write_reg(
            registers::CONTROL::zeroed()
                .with_enable(true)
                .with_interrupt(true),
        );
        let status = bar.read(registers::STATUS);
        if !status.enabled() || status.failed() {
            dev_err!(self.device, "failed to start the engine: {:?}\n", status);
            return Err(EIO);
        }
        Ok(())
    }

    /// Limits the speed of the engine to `speed` bytes per millisecond. 0 means no limit.
    ///
    /// # Errors
    ///
    /// `ENXIO` if the device is gone.
    pub(crate) fn set_speed(&self, speed: u32) -> Result {
        let bar = self.bar.try_access().ok_or(ENXIO)?;
        bar.write_reg(registers::SPEED::from_raw(speed));
        Ok(())
    }

    /// Stops the engine. It does no DMA after this has returned, and drops unfinished commands.
    pub(crate) fn stop(&self) {
        if let Some(bar) = self.bar.try_access() {
            bar.write_reg(registers::CONTROL::zeroed());
            // The read flushes the write to the device.
            bar.read(registers::STATUS);
        }
    }

    /// Submits all of `commands`, or none of them.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the rings have too few free entries, `ENXIO` if the device is gone.
    pub(crate) fn submit(&self, commands: &[Command]) -> Result {
        let mut state = self.state.lock();
        let outstanding = state.submitted.wrapping_sub(state.completed) as usize;
        if outstanding + state.finished.len() + commands.len() > RING_ENTRIES {
            return Err(EBUSY);
        }
        let bar = self.bar.try_access().ok_or(ENXIO)?;
        if outstanding == 0 {
            state.progress = Instant::now();
        }
        for command in commands {
            let index = state.submitted as usize % RING_ENTRIES;
            io_project!(self.submissions, [panic: index])
                .copy_write(command.entry(state.submitted));
            state.submitted = state.submitted.wrapping_add(1);
        }
        state.counters.submitted += commands.len() as u64;
        dma_mb(Write);
        bar.write_reg(registers::SUBMISSION_TAIL::from_raw(state.submitted));
        Ok(())
    }

    /// Waits until at least one command has finished. Replaces the contents of `finished` with the
    /// outcomes since the last call, in the order of submission.
    ///
    /// # Errors
    ///
    /// - `EINTR` if a signal arrived first.
    /// - `ETIMEDOUT` if no completion arrived within [`TIMEOUT`].
    /// - `EPROTO` if the device completed an unexpected command.
    pub(crate) fn wait(&self, finished: &mut KVec<Outcome>) -> Result {
        finished.clear();
        let mut state = self.state.lock();
        while state.finished.is_empty() {
            match self
                .progress
                .wait_interruptible_timeout(&mut state, msecs_to_jiffies(TIMEOUT))
            {
                CondVarTimeoutResult::Signal { .. } => return Err(EINTR),
                CondVarTimeoutResult::Woken { .. } => (),
                CondVarTimeoutResult::Timeout if !state.finished.is_empty() => (),
                CondVarTimeoutResult::Timeout => self.handle_timeout(&mut state)?,
            }
        }
        finished.extend_from_slice(&state.finished, GFP_KERNEL)?;
        state.finished.clear();
        if state.counters.misordered != 0 {
            return Err(EPROTO);
        }
        Ok(())
    }

    /// Checks whether completions are in the ring after [`TIMEOUT`].
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if the ring contains no completion.
    fn handle_timeout(&self, state: &mut State) -> Result {
        self.collect(state);
        if !state.finished.is_empty() {
            state.counters.lost_interrupts += 1;
            dev_err!(
                self.device,
                "lost interrupt: {} completions are in the ring\n",
                state.finished.len()
            );
            return Ok(());
        }
        state.counters.stalls += 1;
        let status = self
            .bar
            .try_access()
            .map(|bar| bar.read(registers::STATUS).into_raw());
        dev_err!(
            self.device,
            "completion timed out after {} ms: {} commands in progress, status {:#x?}\n",
            TIMEOUT,
            state.submitted.wrapping_sub(state.completed),
            status
        );
        Err(ETIMEDOUT)
    }

    /// Collects the new completions from the completion ring.
    fn collect(&self, state: &mut State) {
        let before = state.completed;
        loop {
            let index = state.completed as usize % RING_ENTRIES;
            let odd_pass = state.completed as usize / RING_ENTRIES % 2;
            let phase = u16::from_le(io_read!(self.completions, [panic: index].phase));
            if usize::from(phase) == odd_pass {
                break;
            }
            // The rest of the entry is valid once the phase is.
            dma_mb(Read);
            let entry = io_project!(self.completions, [panic: index]).copy_read();
            let id = u32::from_le(entry.id);
            if state.completed == state.submitted || id != state.completed {
                state.counters.misordered += 1;
                dev_err!(
                    self.device,
                    "invalid completion: got command {}, expected {} ({} submitted)\n",
                    id,
                    state.completed,
                    state.submitted
                );
                if state.completed == state.submitted {
                    break;
                }
            }
            // `submit()` guarantees that there is enough capacity.
            if state
                .finished
                .push_within_capacity(outcome_of(&entry))
                .is_err()
            {
                break;
            }
            state.completed = state.completed.wrapping_add(1);
        }

        let collected = state.completed.wrapping_sub(before);
        if collected == 0 {
            return;
        }
        state.counters.completed += u64::from(collected);
        let gap = state.progress.elapsed().as_millis();
        state.counters.longest_gap = state.counters.longest_gap.max(gap);
        state.progress = Instant::now();
        if let Some(bar) = self.bar.try_access() {
            bar.write_reg(registers::COMPLETION_HEAD::from_raw(state.completed));
        }
    }
}

/// The interrupt handler, which collects completions.
pub(crate) struct InterruptHandler(pub(crate) Arc<Engine>);

impl irq::ThreadedHandler for InterruptHandler {
    fn handle_threaded(&self) -> irq::IrqReturn {
        let engine = &self.0;
        let mut state = engine.state.lock();
        state.counters.interrupts += 1;
        engine.collect(&mut state);
        drop(state);
        engine.progress.notify_all();
        irq::IrqReturn::Handled
    }
}
