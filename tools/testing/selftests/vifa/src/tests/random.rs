// SPDX-License-Identifier: GPL-2.0

//! A random caller: several threads per device, on two devices, issue the calls that a VMM can
//! issue, with valid and with arbitrary arguments, and reset and close the devices at any time. The
//! results of the calls do not matter. Afterwards both devices must migrate, the module must be
//! unused, and the kernel's log must contain no warning.

mod watchdog;

use std::{
    ffi::c_ulong,
    fs, io,
    os::fd::AsFd,
    sync::{
        atomic::{AtomicU64, AtomicUsize, Ordering},
        Arc, Mutex,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use vfio_bindings::bindings::vfio;
use vifa_vfio::{adopt, pci::Function, Mapping};

use self::watchdog::{Watched, LONGEST_CALL};
use super::{fixture::Guest, logging::random::Random, Test};
use crate::{
    bed::{Bed, VFS},
    engine::Vf,
    expect,
    migration::{Session, State},
    region,
    vfio::{AddressSpace, Device, DmaMemory, IovaRange, Place},
};

/// Threads per device.
const CALLERS: u64 = 3;
/// Maximum number of calls; more would not find anything new.
const CALLS_AT_MOST: u64 = 2_000_000;
/// Memory to which the devices may write.
const MEMORY: IovaRange = IovaRange::new(0x1000_0000, 1 << 20);
/// Maximum length of a read or write of a stream.
const LONGEST: u64 = 128 << 10;

/// Settings of the random caller.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Duration.
    pub seconds: u64,
    /// Seed of all actions.
    pub seed: u64,
}

pub fn tests(settings: Option<Settings>) -> Vec<Test> {
    let make = |settings: Settings| {
        let body = move |bed: &Bed| calls_leave_two_devices_usable(bed, settings);
        Test::new("random.calls_leave_two_devices_usable", body).with_more_time(settings.seconds)
    };
    settings.map(make).into_iter().collect()
}

/// An open device, and its session.
struct Opened {
    device: Device,
    session: Mutex<Option<Arc<Session>>>,
    /// Number of bytes of a valid stream written to the session.
    written: AtomicUsize,
    _memory: DmaMemory,
}

impl Opened {
    fn new(function: &Function) -> Result<Self> {
        let space = AddressSpace::iommufd()?;
        Ok(Self {
            device: Vf::open(function, &space)?.device,
            session: Mutex::default(),
            written: AtomicUsize::new(0),
            _memory: DmaMemory::new(&space, MEMORY.iova, MEMORY.length as usize)?,
        })
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.session
            .lock()
            .expect("no thread panics with the lock held")
            .clone()
    }

    fn set_session(&self, session: Option<Session>) {
        self.written.store(0, Ordering::Relaxed);
        *self
            .session
            .lock()
            .expect("no thread panics with the lock held") = session.map(Arc::new);
    }
}

/// A function and its open device.
struct Slot {
    function: Function,
    opened: Mutex<Option<Arc<Opened>>>,
    stream: Arc<Vec<u8>>,
}

impl Slot {
    /// Returns the device, opening it if necessary; `None` if that is currently impossible.
    fn device(&self) -> Option<Arc<Opened>> {
        let mut opened = self
            .opened
            .lock()
            .expect("no thread panics with the lock held");
        if opened.is_none() {
            *opened = Opened::new(&self.function).ok().map(Arc::new);
        }
        opened.clone()
    }

    /// Closes the device after the last call has returned.
    fn close(&self) {
        self.opened
            .lock()
            .expect("no thread panics with the lock held")
            .take();
    }
}

/// A calling thread.
struct Caller {
    slot: Arc<Slot>,
    random: Random,
    watched: Watched,
    /// A page for arguments, followed by an inaccessible page.
    page: Mapping,
}

const PAGE: usize = 4096;

/// Requests that return a descriptor: VFIO_DEVICE_FEATURE with these features.
const DEVICE_FEATURE: u64 = 17;
const DMA_BUF: (u64, u32) = (DEVICE_FEATURE, vfio::VFIO_DEVICE_FEATURE_DMA_BUF);
const MIG_DEVICE_STATE: (u64, u32) = (DEVICE_FEATURE, vfio::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE);
const PROBE_OR_GET: u32 = vfio::VFIO_DEVICE_FEATURE_PROBE | vfio::VFIO_DEVICE_FEATURE_GET;

impl Caller {
    fn chance(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.random.below(choice.len() as u64) as usize]
    }

    /// Returns a number that is often near a limit.
    fn number(&mut self) -> u64 {
        let bit = 1 << self.random.below(64);
        let any = self.random.next();
        let small = self.random.below(64);
        self.of(&[0, u64::MAX, bit, bit - 1, any, small, small])
    }

    /// Issues one call and ignores its result.
    fn call(&mut self) {
        self.watched.begins(format_args!("open"));
        let Some(opened) = self.slot.device() else {
            return;
        };
        match self.random.below(34) {
            0..=6 => self.change_state(&opened),
            7..=11 => self.read(&opened),
            12..=15 => self.write(&opened),
            16 => self.ask(&opened),
            17..=19 => self.log(&opened),
            20..=25 => self.wild_request(&opened),
            26..=29 => self.wild_access(&opened),
            30 => {
                self.watched.begins(format_args!("VFIO_DEVICE_RESET"));
                drop(opened.device.reset());
            }
            31 => {
                self.watched.begins(format_args!("write of reset"));
                drop(self.slot.function.reset());
            }
            32 => {
                self.watched.begins(format_args!("close of a session"));
                opened.set_session(None);
            }
            _ if self.chance(4) => {
                self.watched.begins(format_args!("close"));
                self.slot.close();
            }
            _ => {
                self.watched.begins(format_args!("read of region"));
                drop(region::of_function(&self.slot.function));
            }
        }
        // This may be the last reference.
        self.watched.begins(format_args!("close"));
        drop(opened);
    }

    fn change_state(&mut self, opened: &Opened) {
        let state = match self.chance(16) {
            true => self.number() as u32,
            false => self.of(&State::ALL) as u32,
        };
        self.watched
            .begins(format_args!("SET of MIG_DEVICE_STATE to {state:#x}"));
        if let Ok(Some(session)) = opened.device.request_state(state) {
            opened.set_session(Some(session));
        }
    }

    fn read(&mut self, opened: &Opened) {
        if let Some(session) = opened.session() {
            let length = self.random.below(LONGEST) as usize;
            self.watched
                .begins(format_args!("read of {length:#x} bytes, or two pages"));
            let _ = match self.chance(8) {
                true => self.page.fill_from(&*session).map(drop),
                false => session.read(length).map(drop),
            };
        }
    }

    fn write(&mut self, opened: &Opened) {
        let Some(session) = opened.session() else {
            return;
        };
        let from = opened.written.load(Ordering::Relaxed);
        let rest = &self.slot.stream[from.min(self.slot.stream.len())..];
        let length = self.random.below(LONGEST).min(rest.len() as u64) as usize;
        let mut piece = rest[..length].to_vec();
        if self.chance(64) && !piece.is_empty() {
            let at = self.random.below(piece.len() as u64) as usize;
            piece[at] ^= 1 << self.random.below(8);
        }
        self.watched
            .begins(format_args!("write of {length:#x} bytes from {from:#x}"));
        if let Ok(taken) = session.write(&piece) {
            opened.written.fetch_add(taken, Ordering::Relaxed);
        }
    }

    fn ask(&mut self, opened: &Opened) {
        self.watched.begins(format_args!(
            "MIG_DATA_SIZE, MIG_DEVICE_STATE, poll, PRECOPY_INFO"
        ));
        let _ = opened.device.data_size();
        let _ = opened.device.state();
        if let Some(session) = opened.session() {
            let _ = session.poll();
            let _ = session.precopy_info(self.number() as u32);
        }
    }

    fn log(&mut self, opened: &Opened) {
        let unit = self.of(&[4096, 4096, 65536, 2 << 20]);
        let range = match self.chance(8) {
            true => IovaRange::new(self.number(), self.number()),
            false => self.random.range_in(MEMORY, 4096),
        };
        match self.random.below(4) {
            0 => {
                let second = IovaRange::new(self.number(), self.number());
                let ranges = [range, second];
                let count = 1 + self.random.below(2) as usize;
                self.watched.begins(format_args!(
                    "DMA_LOGGING_START of {:#x?} in {unit:#x}",
                    &ranges[..count]
                ));
                let _ = opened.device.start_logging(&ranges[..count], unit);
            }
            1 => {
                self.watched.begins(format_args!("DMA_LOGGING_STOP"));
                drop(opened.device.stop_logging());
            }
            _ => {
                let offset = self.random.below(PAGE as u64) as usize & !7;
                let place = Place::of(&self.page, offset);
                // The bitmap must end at the inaccessible page, because other memory follows.
                let most = 8 * unit * (2 * PAGE - offset) as u64;
                let range = IovaRange::new(range.iova, range.length % most);
                self.watched.begins(format_args!(
                    "DMA_LOGGING_REPORT of {range:x?} in {unit:#x} to offset {offset:#x}"
                ));
                let _ = opened.device.report_to(place, range, unit);
            }
        }
    }

    /// Issues a VFIO request with arbitrary number and argument.
    fn wild_request(&mut self, opened: &Opened) {
        const FIRST: c_ulong = (b';' as c_ulong) << 8;
        let number = FIRST + 100 + self.random.below(32);
        let sizes = [0, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 4096];
        let argsz = match self.chance(4) {
            true => self.number(),
            false => self.of(&sizes),
        };
        let operations = [0, 1 << 16, 1 << 17, 1 << 18, 5 << 16, 6 << 16, 7 << 16];
        let feature = self.of(&operations) | self.random.below(16);
        let flags = match self.chance(4) {
            true => self.number(),
            false => feature,
        };
        let offset = self.of(&[0, 8, 1024, PAGE - 64, PAGE - 32, PAGE - 16, PAGE - 8]);
        let mut words = [(argsz & 0xffff_ffff) | (flags << 32), 0, 0, 0, 0, 0, 0, 0];
        for word in &mut words[1..] {
            *word = self.number();
        }
        // The fields with a report's page size and bitmap, and with a start's ranges.
        let addresses = [0, self.page.address(), Place::KERNEL.address()];
        for word in [3, 4] {
            words[word] = self.of(&addresses);
        }
        for (word, at) in words.iter().zip((offset..PAGE).step_by(8)) {
            self.page.write(at, *word);
        }
        let session = opened.session().filter(|_| self.random.below(4) == 0);
        let file = match &session {
            Some(session) => session.as_fd(),
            None => opened.device.as_fd(),
        };
        self.watched.begins(format_args!(
            "request {number:#x} with {words:x?} at {offset:#x}"
        ));
        // SAFETY: Besides their argument, which ends with the page, VFIO's requests write only the
        // bitmap of a report. Its page size is one of `addresses`, none of which is a power of two,
        // so that the report is rejected.
        let result = unsafe { self.page.any_ioctl(file, number, offset) };
        let request = (
            number - FIRST - 100,
            flags as u32 & vfio::VFIO_DEVICE_FEATURE_MASK,
        );
        match (request, result) {
            // SAFETY: The request has just made this descriptor.
            (DMA_BUF, Ok(fd @ 1..)) => drop(unsafe { adopt(fd) }),
            // The kernel has replaced the previous value of `words`.
            (MIG_DEVICE_STATE, Ok(_)) if flags as u32 & PROBE_OR_GET == 0 => {
                let fd = self.page.read::<u32>(offset + 12) as i32;
                // SAFETY: As above.
                drop((fd >= 0).then(|| unsafe { adopt(fd) }));
            }
            _ => {}
        }
    }

    /// Reads or writes at any offset of a region that may not exist.
    fn wild_access(&mut self, opened: &Opened) {
        let index = match self.chance(8) {
            true => self.number() as u32,
            false => self.random.below(12) as u32,
        };
        let offset = match self.chance(4) {
            true => self.number() >> 24,
            false => self.random.below(0x1000),
        };
        let length = self.of(&[1, 2, 3, 4, 8, 64, 4096]);
        self.watched.begins(format_args!(
            "read or write of {length} bytes at {offset:#x} of region {index}"
        ));
        let _ = match self.chance(2) {
            true => opened.device.read(index, offset, length).map(drop),
            false => {
                let value = self.number().to_le_bytes();
                let bytes: Vec<u8> = value.into_iter().cycle().take(length).collect();
                opened.device.write(index, offset, &bytes)
            }
        };
    }
}

fn page() -> io::Result<Mapping> {
    let page = Mapping::anonymous(2 * PAGE)?;
    page.forbid_from(PAGE)?;
    Ok(page)
}

/// Moves the state of the VF `from` to the VF `to` and back, and checks that it is the same and
/// that both work.
fn migrates(bed: &Bed, from: u32, to: u32) -> Result<()> {
    let (mut source, stream) = Guest::saved(bed, from)?;
    let mut destination = Guest::new(bed, to)?;
    destination.vf.device.load(&stream)?;
    source.recover()?;
    source.vf.device.load(&destination.vf.device.save()?)?;
    expect::same_bytes("stream", &source.vf.device.save()?, &stream)?;
    source.recover()?;
    destination.recover()
}

fn module_users() -> Result<String> {
    fs::read_to_string("/sys/module/vifa_vfio_pci/refcnt").context("refcnt")
}

fn calls_leave_two_devices_usable(bed: &Bed, settings: Settings) -> Result<()> {
    println!("# seed {:#x}, {} s", settings.seed, settings.seconds);
    let users = module_users()?;
    let stream = Arc::new(Guest::saved(bed, 0)?.1);
    let calls = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(settings.seconds);
    let mut seeds = Random::new(settings.seed.max(1));
    let mut jobs = Vec::new();
    for index in 0..VFS {
        let slot = Arc::new(Slot {
            function: bed.vf(index)?,
            opened: Mutex::default(),
            stream: stream.clone(),
        });
        for _ in 0..CALLERS {
            let (slot, calls) = (slot.clone(), calls.clone());
            let random = Random::new(seeds.next().max(1));
            jobs.push(move |watched| -> Result<()> {
                let page = page()?;
                let mut caller = Caller {
                    slot,
                    random,
                    watched,
                    page,
                };
                while Instant::now() < until
                    && calls.fetch_add(1, Ordering::Relaxed) < CALLS_AT_MOST
                {
                    caller.call();
                }
                Ok(())
            });
        }
    }
    let ended = watchdog::run(jobs, LONGEST_CALL);
    ended.with_context(|| format!("seed {:#x}", settings.seed))?;
    println!("# {} calls", calls.load(Ordering::Relaxed));
    let after = || -> Result<()> {
        expect::equal("users of the module", module_users()?, users)?;
        migrates(bed, 0, 1).context("VF 0 to VF 1")?;
        migrates(bed, 1, 0).context("VF 1 to VF 0")
    };
    after().with_context(|| format!("seed {:#x}", settings.seed))
}
