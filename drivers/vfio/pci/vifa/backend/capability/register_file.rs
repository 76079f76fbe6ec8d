// SPDX-License-Identifier: GPL-2.0

//! The VIFA capability and its register file.
//!
//! A DVSEC on the physical function identifies the capability. The driver of the physical function
//! and those of the virtual functions share the register file. The former owns the interrupts, and
//! each of the latter uses its two frames. All virtual functions are unbound before the physical
//! function, because unbinding the physical function begins with the removal of its virtual
//! functions.
//!
//! A reset or an error of the physical function destroys the state of all virtual functions. The
//! user of a frame stores the [`Epoch`] in which the state of its function was last known to be
//! valid, and later checks it with [`RegisterFile::loss_since`].

use super::{
    completion::TimedCompletion,
    memory::Memory, //
};
use crate::{
    bindings::{
        rate_limit::RateLimit,
        *, //
    },
    seam::Shown,
    vfio::{
        self,
        sriov::Loss, //
    }, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    io::Io,
    new_mutex,
    new_spinlock,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex,
        SpinLock, //
    },
    time::Msecs, //
};

/// Bounds of the command timeout that the capability states, in milliseconds.
const TIMEOUT_MIN: Msecs = 10;
const TIMEOUT_MAX: Msecs = 60_000;

/// Maximum number of VFs of a register file. A BAR is unlikely to have space for more frames.
const VFS_MAX: u32 = 4096;

/// The completions of the two frames of a VF.
pub(super) struct Signals {
    pub(super) control: Arc<TimedCompletion>,
    pub(super) data: Arc<TimedCompletion>,
}

/// A period between two losses of the virtual functions' state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u32);

/// The health of the physical function.
struct Health {
    epoch: Epoch,
    /// The last loss.
    loss: Loss,
    /// Whether the registers can be used.
    is_usable: bool,
}

/// The register file of a physical function.
#[pin_data]
pub(crate) struct RegisterFile {
    device: ARef<pci::Device>,
    bar: pci::DevresBar,
    /// Offset of frame 0 in the BAR.
    offset: usize,
    timeout: Msecs,
    /// Number of MSI-X vectors that the device can signal for frames.
    device_vectors: u32,
    /// Maximum number of entries of a scatter list.
    scatter_max: usize,
    /// Maximum number of ranges of a log, or 0 if there is no limit.
    log_ranges: usize,
    signals: KVec<Signals>,
    #[pin]
    quarantined: Mutex<KVec<Memory>>,
    /// Rate limit of messages that a device or its user can repeat.
    #[pin]
    messages: RateLimit,
    /// The innermost lock of the backend.
    #[pin]
    health: SpinLock<Health>,
}

/// The contents of the DVSEC.
struct Capability {
    bar: u32,
    offset: usize,
    features: u32,
    timeout: Msecs,
    frames: usize,
}

impl Capability {
    /// Finds and reads the capability.
    fn read(device: &pci::Device<Core<'_>>) -> Result<Self> {
        let Some(position) =
            vfio::pci::find_dvsec(device, VIFA_DVSEC_VENDOR as u16, VIFA_DVSEC_ID as u16)
        else {
            dev_err!(device, "failed to find the VIFA capability (DVSEC)\n");
            return Err(ENODEV);
        };
        let config = device.config_space_extended()?;
        let read16 = |field: u32| config.try_read16(position.get() + field as usize);
        let read32 = |field: u32| config.try_read32(position.get() + field as usize);

        let revision = u32::from(read16(VIFA_DVSEC_REVISION)?);
        if revision != VIFA_HW_REVISION {
            dev_err!(
                device,
                "invalid VIFA capability: revision: got {}, expected {}\n",
                revision,
                VIFA_HW_REVISION
            );
            return Err(ENODEV);
        }
        let timeout = read32(VIFA_DVSEC_TIMEOUT)?;
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) {
            dev_err!(
                device,
                "invalid VIFA capability: timeout: got {} ms, expected {} to {}\n",
                timeout,
                TIMEOUT_MIN,
                TIMEOUT_MAX
            );
            return Err(ENODEV);
        }
        let location = read32(VIFA_DVSEC_LOCATION)?;
        Ok(Self {
            bar: location & VIFA_DVSEC_LOCATION_BAR,
            offset: (location & VIFA_DVSEC_LOCATION_OFFSET) as usize,
            features: read32(VIFA_DVSEC_FEATURES)?,
            timeout,
            frames: read32(VIFA_DVSEC_FRAMES)? as usize,
        })
    }

    /// Checks that the frames fit in the BAR.
    fn check_frames(&self, device: &pci::Device<Core<'_>>) -> Result {
        let size = device.resource_len(self.bar).unwrap_or(0);
        let end = self
            .frames
            .checked_mul(VIFA_HW_FRAME_SIZE as usize)
            .and_then(|length| length.checked_add(self.offset))
            .filter(|&end| self.frames != 0 && end as u64 <= size);
        if end.is_none() {
            dev_err!(
                device,
                "invalid VIFA capability: frames: got {} at {:#x}, expected to fit in BAR {} of {:#x} bytes\n",
                self.frames,
                self.offset,
                self.bar,
                size
            );
            return Err(ENODEV);
        }
        Ok(())
    }
}

/// The constant registers of the layer frame.
struct LayerFrame {
    vfs: u32,
    device_vectors: u32,
    scatter_max: usize,
    log_ranges: usize,
}

impl LayerFrame {
    /// Reads the registers with `read`, and checks them.
    fn read(
        device: &pci::Device<Core<'_>>,
        capability: &Capability,
        read: impl Fn(u32) -> Result<u32>,
    ) -> Result<Self> {
        let expect = |name: &str, found: u32, expected: u32| {
            if found == expected {
                return Ok(());
            }
            dev_err!(
                device,
                "invalid layer frame: {}: got {:#x}, expected {:#x}\n",
                name,
                found,
                expected
            );
            Err(ENODEV)
        };
        expect("magic", read(VIFA_LAYER_MAGIC)?, VIFA_HW_MAGIC)?;
        expect("revision", read(VIFA_LAYER_REVISION)?, VIFA_HW_REVISION)?;
        expect("features", read(VIFA_LAYER_FEATURES)?, capability.features)?;
        let vfs = read(VIFA_LAYER_VFS)?;
        if vfs > VFS_MAX || 1 + 2 * vfs as usize > capability.frames {
            dev_err!(
                device,
                "invalid layer frame: VFs: got {}, expected to fit in {} frames\n",
                vfs,
                capability.frames
            );
            return Err(ENODEV);
        }
        let device_vectors = read(VIFA_LAYER_VECTORS)?;
        let scatter_max = read(VIFA_LAYER_SCATTER_MAX)? as usize;
        if scatter_max == 0 {
            dev_err!(
                device,
                "invalid layer frame: scatter_max: got 0, expected at least 1\n"
            );
            return Err(ENODEV);
        }
        Ok(Self {
            vfs,
            device_vectors,
            scatter_max,
            log_ranges: read(VIFA_LAYER_LOG_RANGES)? as usize,
        })
    }
}

impl RegisterFile {
    /// Finds, maps and checks the register file of `device`.
    pub(super) fn new(device: &pci::Device<Core<'_>>) -> Result<Arc<Self>> {
        let capability = Capability::read(device)?;
        capability.check_frames(device)?;
        let bar = device.iomap_region(capability.bar, c"vifa-vfio-pci")?;
        let layer = LayerFrame::read(device, &capability, |register| {
            bar.try_read32(capability.offset + register as usize)
        })?;

        let mut signals = KVec::with_capacity(layer.vfs as usize, GFP_KERNEL)?;
        for _ in 0..layer.vfs {
            let signal = || Arc::pin_init(TimedCompletion::new(), GFP_KERNEL);
            signals.push(
                Signals {
                    control: signal()?,
                    data: signal()?,
                },
                GFP_KERNEL,
            )?;
        }
        let bar = bar.into_devres()?;

        Arc::pin_init(
            try_pin_init!(Self {
                device: device.into(),
                bar,
                offset: capability.offset,
                timeout: capability.timeout,
                device_vectors: layer.device_vectors,
                scatter_max: layer.scatter_max,
                log_ranges: layer.log_ranges,
                signals,
                quarantined <- new_mutex!(KVec::new()),
                messages <- RateLimit::new(5000, 10),
                health <- new_spinlock!(Health {
                    epoch: Epoch(0),
                    loss: Loss::Reset,
                    is_usable: true,
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the physical function, which is bound while the register file is in use.
    pub(super) fn bound_device(&self) -> &Device<Bound> {
        let device: &Device = self.device.as_ref();
        // SAFETY: The users of the register file are the driver of the physical function, in its
        // probe, and those of its virtual functions. The virtual functions end their transfers and
        // are unbound before the physical function, as `vfio::sriov` guarantees.
        unsafe { device.as_bound() }
    }

    /// Returns the number of VFs of the register file.
    pub(super) fn virtual_functions(&self) -> usize {
        self.signals.len()
    }

    /// Returns the signals of the VF with this index.
    pub(super) fn signals(&self, index: u16) -> Option<&Signals> {
        self.signals.get(usize::from(index))
    }

    /// Returns the signals of every VF.
    pub(super) fn all_signals(&self) -> &[Signals] {
        &self.signals
    }

    /// Returns the number of MSI-X vectors that the device can signal for frames.
    pub(super) fn device_vectors(&self) -> u32 {
        self.device_vectors
    }

    /// Returns the maximum number of entries of a scatter list, which is at least one.
    pub(super) fn scatter_max(&self) -> usize {
        self.scatter_max
    }

    /// Returns the maximum number of ranges of a log, or `None` if there is no limit.
    pub(super) fn log_ranges(&self) -> Option<usize> {
        (self.log_ranges != 0).then_some(self.log_ranges)
    }

    /// Returns the command timeout in milliseconds.
    pub(super) fn timeout(&self) -> Msecs {
        self.timeout
    }

    /// Records that the virtual functions lose their state, and wakes all waiting tasks.
    pub(super) fn lose(&self, loss: Loss) {
        let mut health = self.health.lock();
        health.epoch = Epoch(health.epoch.0.wrapping_add(1));
        health.loss = loss;
        health.is_usable = false;
        drop(health);
        if self.messages.allows(c"vifa-vfio-pci") {
            dev_warn!(self.device, "lost the state of all VFs: {}\n", Shown(loss));
        }
        for both in &self.signals {
            both.control.signal();
            both.data.signal();
        }
    }

    /// Allows the use of the registers again, unless the device is gone.
    pub(super) fn recover(&self) {
        let mut health = self.health.lock();
        health.is_usable = health.loss != Loss::Gone;
    }

    /// Returns the present epoch.
    pub(super) fn epoch(&self) -> Epoch {
        self.health.lock().epoch
    }

    /// Returns the loss since `epoch`, or the loss in progress, if any.
    pub(super) fn loss_since(&self, epoch: Epoch) -> Option<Loss> {
        let health = self.health.lock();
        (health.epoch != epoch || !health.is_usable).then_some(health.loss)
    }

    /// Reads a register.
    ///
    /// # Errors
    ///
    /// `ENXIO` after the physical function has been unbound, `EINVAL` outside of the BAR, `ENODEV`
    /// if the device is gone.
    pub(super) fn read(&self, frame: usize, register: u32) -> Result<u32> {
        let registers = self.bar.try_access().ok_or(ENXIO)?;
        let value = registers.try_read32(self.at(frame, register))?;
        // A read that no device answers returns all ones. A register can have that value, too, but
        // the magic number does not.
        let magic = self.at(VIFA_HW_FRAME_LAYER as usize, VIFA_LAYER_MAGIC);
        if value == u32::MAX && registers.try_read32(magic)? != VIFA_HW_MAGIC {
            return Err(ENODEV);
        }
        Ok(value)
    }

    /// Writes a register.
    ///
    /// # Errors
    ///
    /// `ENXIO` after the physical function has been unbound, `EINVAL` outside of the BAR.
    pub(super) fn write(&self, frame: usize, register: u32, value: u32) -> Result {
        let at = self.at(frame, register);
        self.bar.try_access().ok_or(ENXIO)?.try_write32(value, at)
    }

    fn at(&self, frame: usize, register: u32) -> usize {
        self.offset + frame * VIFA_HW_FRAME_SIZE as usize + register as usize
    }

    /// Keeps memory that the device may still write to, until [`Self::release_quarantine`].
    pub(super) fn quarantine(&self, memory: Memory) {
        if self.messages.allows(c"vifa-vfio-pci") {
            dev_warn!(
                self.device,
                "failed to free {} bytes of DMA buffers until unbind: device may still write to them\n",
                memory.size()
            );
        }
        let mut quarantined = self.quarantined.lock();
        if quarantined.reserve(1, GFP_KERNEL).is_err() {
            // Leaking the memory is safer than freeing it.
            core::mem::forget(memory);
            return;
        }
        let _ = quarantined.push_within_capacity(memory);
    }

    /// Frees the quarantined memory. DMA of the physical function must be disabled.
    pub(super) fn release_quarantine(&self) {
        self.quarantined.lock().clear();
    }
}
