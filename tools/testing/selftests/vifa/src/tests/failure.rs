// SPDX-License-Identifier: GPL-2.0

//! Injects a failure into each allocation and each copy from or to user memory of each call, on
//! devices of both backends. The call must return the error or succeed. The device must remain
//! usable, and the call must leave nothing behind.
//!
//! Calls on whose failure VFIO and the IOMMU core themselves warn are excluded: close, and the
//! registration of a device.

use std::{
    cell::RefCell,
    fs,
    io::{self, Read, Write},
};

use anyhow::{bail, Context, Result};
use vfio_bindings::bindings::vfio;
use vifa_vfio::{pci::Function, Mapping};

use super::{fixture::Guest, Test};
use crate::{
    bed::Bed,
    engine::Vf,
    expect,
    igb::Adapter,
    injection::{Injected, Injector},
    kmsg::KernelLog,
    migration::{Session, State},
    region,
    vfio::{AddressSpace, Device, DmaMemory, Interrupt, IovaRange, Place},
};

/// Errors of a call with a failed allocation or copy.
const ERRORS: [i32; 6] = [
    libc::ENOMEM,
    libc::EFAULT,
    // Errors of the PCI core for a BAR and for interrupts.
    libc::EBUSY,
    libc::ENOSPC,
    libc::ENODEV,
    // Error for a BAR that the VFIO core failed to map.
    libc::ENXIO,
];
/// Bytes per read or write of a stream.
const PIECE: usize = 32 << 10;
/// More failures than any call has.
const FAILURES_AT_MOST: u32 = 5000;
/// Memory whose writes are logged.
const LOGGED: IovaRange = IovaRange::new(0x2000_0000, 64 << 10);

/// The tested devices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backend {
    Capability,
    Igb,
}

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (name, backend) in [("capability", Backend::Capability), ("igb", Backend::Igb)] {
        for (group, operations) in [
            ("transition", transitions as fn() -> Vec<Operation>),
            ("transfer", transfers),
            ("question", questions),
        ] {
            let claim = format!("failure.each_in_a_{group}_leaves_{name}_usable");
            let run = move |bed: &Bed| leave_it_usable(bed, backend, operations());
            tests.push(Test::new(claim, run));
        }
        let claim = format!("failure.each_in_open_leaves_{name}_usable");
        tests.push(Test::new(claim, move |bed| open(bed, backend)));
    }
    let claim = "failure.each_in_logging_leaves_capability_usable";
    let run = move |bed: &Bed| leave_it_usable(bed, Backend::Capability, logging());
    tests.push(Test::new(claim, run));
    let claim = "failure.each_in_bind_of_the_pf_leaves_it_usable";
    tests.push(Test::new(claim, bind_of_the_pf));
    tests
}

impl Backend {
    fn function(self, bed: &Bed, index: u32) -> Result<Function> {
        match self {
            Self::Capability => bed.vf(index),
            Self::Igb => Adapter::set_up()?.vf(index),
        }
    }

    /// Checks that the device migrates to itself, and works if the tests can make it work.
    fn works(self, bed: &Bed) -> Result<()> {
        match self {
            Self::Capability => {
                let (mut guest, stream) = Guest::saved(bed, 0)?;
                guest.vf.device.load(&stream)?;
                expect::same_bytes("stream", &guest.vf.device.save()?, &stream)?;
                guest.vf.device.change_state(State::Running)?;
                guest.engine.enable(&guest.vf)?;
                guest.work(1)
            }
            Self::Igb => {
                let device = Device::open(&self.function(bed, 0)?, &AddressSpace::iommufd()?)?;
                let stream = device.save()?;
                device.load(&stream)?;
                device.change_state(State::Running)
            }
        }
    }
}

/// A device, and the data that calls need.
struct Subject {
    device: Device,
    /// A stream that the device accepts.
    stream: Vec<u8>,
    /// Whether the device yields this stream for every save.
    is_constant: bool,
    /// The index of the migration region.
    region: u32,
    /// Target of a bitmap.
    bitmap: Mapping,
    _memory: DmaMemory,
}

impl Subject {
    fn new(bed: &Bed, backend: Backend) -> Result<Self> {
        let space = AddressSpace::iommufd()?;
        let device = Device::open(&backend.function(bed, 0)?, &space)?;
        if backend == Backend::Capability {
            drop(device);
            Guest::saved(bed, 0)?;
            return Self::saved(Vf::open(&bed.vf(0)?, &space)?.device, &space, true);
        }
        Self::saved(device, &space, false)
    }

    fn saved(
        device: Device,
        space: &std::sync::Arc<AddressSpace>,
        is_constant: bool,
    ) -> Result<Self> {
        let stream = device.save()?;
        Ok(Self {
            region: region::index(&device)?,
            device,
            stream,
            is_constant,
            bitmap: Mapping::anonymous(4096)?,
            _memory: DmaMemory::new(space, LOGGED.iova, LOGGED.length as usize)?,
        })
    }

    /// Returns the device to RUNNING, with a reset if necessary.
    fn run(&self) -> Result<()> {
        if self.device.request_state(State::Running as u32).is_err() {
            self.device.reset()?;
        }
        expect::equal("state", self.device.state()?, State::Running)
    }
}

/// Brings the subject to the starting point of a call, with the session that the call uses.
type Prepare = dyn Fn(&Subject) -> Result<Option<Session>>;
/// A call.
type Call = dyn Fn(&Subject, Option<&Session>) -> io::Result<()>;

/// A call with an injected failure, and its preparation.
struct Operation {
    name: String,
    prepare: Box<Prepare>,
    call: Box<Call>,
}

impl Operation {
    /// Creates the case of `call` in the state `state`.
    fn new(
        name: impl Into<String>,
        state: State,
        call: impl Fn(&Subject, Option<&Session>) -> io::Result<()> + 'static,
    ) -> Self {
        Self {
            name: format!("{} in {}", name.into(), state.name()),
            prepare: Box::new(move |subject| subject.device.enter(state)),
            call: Box::new(call),
        }
    }
}

fn transitions() -> Vec<Operation> {
    let to = |state: State| {
        move |subject: &Subject| -> io::Result<()> {
            subject.device.request_state(state as u32).map(drop)
        }
    };
    let mut operations: Vec<_> = [
        (State::Running, State::PreCopy),
        (State::Running, State::StopCopy),
        (State::Running, State::Resuming),
        (State::PreCopy, State::StopCopy),
        (State::PreCopy, State::Running),
        (State::StopCopy, State::Running),
        (State::Stop, State::Running),
    ]
    .into_iter()
    .map(|(from, state)| {
        let call = to(state);
        Operation::new(state.name(), from, move |subject, _| call(subject))
    })
    .collect();
    let end = to(State::Running);
    operations.push(Operation {
        name: "end of RESUMING".into(),
        prepare: Box::new(|subject| {
            let session = subject.device.start(State::Resuming)?;
            session.file().write_all(&subject.stream)?;
            Ok(Some(session))
        }),
        call: Box::new(move |subject, _| end(subject)),
    });
    operations
}

fn transfers() -> Vec<Operation> {
    vec![
        Operation::new("read", State::PreCopy, |_, session| match read(session) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMSG) => Ok(()),
            result => result.map(drop),
        }),
        Operation::new("read", State::StopCopy, |subject, session| {
            let stream = read(session)?;
            if subject.is_constant && stream != subject.stream {
                return Err(io::Error::other("the stream does not match the device"));
            }
            Ok(())
        }),
        Operation::new("write", State::Resuming, |subject, session| {
            write(subject, session)
        }),
    ]
}

/// Repeats `call` if it failed with EFAULT: a stream continues at the same position.
fn once_more<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match call() {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => call(),
        result => result,
    }
}

fn file(session: Option<&Session>) -> io::Result<&fs::File> {
    Ok(session.ok_or(io::ErrorKind::NotConnected)?.file())
}

fn read(session: Option<&Session>) -> io::Result<Vec<u8>> {
    let mut file = file(session)?;
    let mut stream = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        match once_more(|| file.read(&mut piece))? {
            0 => return Ok(stream),
            length => stream.extend_from_slice(&piece[..length]),
        }
    }
}

fn write(subject: &Subject, session: Option<&Session>) -> io::Result<()> {
    let mut file = file(session)?;
    let mut rest = &subject.stream[..];
    while !rest.is_empty() {
        let piece = &rest[..rest.len().min(PIECE)];
        let taken = once_more(|| file.write(piece))?;
        rest = &rest[taken..];
    }
    // The device now has the accepted state.
    subject.device.request_state(State::Stop as u32).map(drop)
}

fn questions() -> Vec<Operation> {
    vec![
        Operation::new("data size", State::Running, |subject, _| {
            subject.device.data_size().map(drop)
        }),
        Operation::new("data size", State::StopCopy, |subject, _| {
            subject.device.data_size().map(drop)
        }),
        Operation::new("precopy info", State::PreCopy, |_, session| {
            let session = session.ok_or(io::ErrorKind::NotConnected)?;
            session.precopy_info(0).map(drop)
        }),
        Operation::new("migration region", State::Running, |subject, _| {
            let bytes = subject.device.read(subject.region, 0, region::SIZE)?;
            region::decode(&bytes).map(drop).map_err(io_error)
        }),
        Operation::new("register", State::Running, |subject, _| {
            let bar = vfio::VFIO_PCI_BAR0_REGION_INDEX;
            let value = subject.device.read(bar, 8, 4)?;
            subject.device.write(bar, 0x40, &value)
        }),
        Operation::new("interrupt", State::Running, |subject, _| {
            subject.device.signal(Interrupt::Msix).map(drop)
        }),
        Operation::new("reset", State::Running, |subject, _| subject.device.reset()),
        Operation::new("reset", State::StopCopy, |subject, _| {
            subject.device.reset()
        }),
    ]
}

fn logging() -> Vec<Operation> {
    const PAGE: u64 = 4096;
    let started = |subject: &Subject| -> Result<Option<Session>> {
        let _ = subject.device.stop_logging();
        subject.device.start_logging(&[LOGGED], PAGE)?;
        Ok(None)
    };
    vec![
        Operation {
            name: "LOG_START".into(),
            prepare: Box::new(|subject| {
                subject.device.stop_logging()?;
                Ok(None)
            }),
            call: Box::new(|subject, _| subject.device.start_logging(&[LOGGED], PAGE).map(drop)),
        },
        Operation {
            name: "LOG_REPORT".into(),
            prepare: Box::new(started),
            call: Box::new(|subject, _| {
                let place = Place::of(&subject.bitmap, 0);
                subject.device.report_to(place, LOGGED, PAGE)
            }),
        },
        Operation {
            name: "LOG_STOP".into(),
            prepare: Box::new(started),
            call: Box::new(|subject, _| subject.device.stop_logging()),
        },
    ]
}

/// Returns the kernel's error that caused `error`.
fn io_error(error: anyhow::Error) -> io::Error {
    match error.downcast::<io::Error>() {
        Ok(error) => error,
        Err(error) => io::Error::other(error),
    }
}

fn open_descriptors() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

/// Returns the kernel's count of users of the module.
fn module_users() -> Result<u32> {
    let text = fs::read_to_string("/sys/module/vifa_vfio_pci/refcnt").context("refcnt")?;
    Ok(text.trim().parse()?)
}

/// Runs `call` until no failure is injected any more: the first failures one by one, then with
/// increasing gaps. `before` and `after` run with each; returns the number of injected failures.
fn each_failure<T>(
    name: &str,
    mut before: impl FnMut() -> Result<T>,
    mut call: impl FnMut(&T) -> io::Result<()>,
    mut undo: impl FnMut(),
    mut after: impl FnMut(T) -> Result<()>,
) -> Result<u32> {
    let injector = Injector::of_this_thread()?;
    let mut nth = 1;
    let mut failures = 0;
    while nth < FAILURES_AT_MOST {
        let prepared = before().with_context(|| format!("before {name}"))?;
        let descriptors = open_descriptors()?;
        let (result, injected) = injector.fail(nth, || call(&prepared))?;
        undo();
        let what = format!("{name} with failure {nth}");
        expect::equal(
            &format!("open descriptors after {what}"),
            open_descriptors()?,
            descriptors,
        )?;
        match (injected, result) {
            (Injected::No, result) => {
                result.with_context(|| format!("{name} without a failure"))?;
                after(prepared)?;
                return Ok(failures);
            }
            (Injected::Yes, Ok(())) => {}
            (Injected::Yes, error) => expect::refused(&what, error, &ERRORS)?,
        }
        after(prepared).with_context(|| format!("after {what}"))?;
        failures += 1;
        nth += 1 + nth / 32;
    }
    bail!("{name} has more than {FAILURES_AT_MOST} failures")
}

/// A case without injected failures would prove nothing.
fn were_some(name: &str, failures: u32) -> Result<()> {
    println!("# {name}: {failures} failures");
    expect::claim(&format!("failures in {name}"), failures > 0)
}

fn leave_it_usable(bed: &Bed, backend: Backend, operations: Vec<Operation>) -> Result<()> {
    backend.function(bed, 0)?;
    let users = module_users()?;
    let subject = Subject::new(bed, backend)?;
    let mut all = 0;
    for Operation {
        name,
        prepare,
        call,
    } in &operations
    {
        let failures = each_failure(
            name,
            || {
                subject.run()?;
                prepare(&subject)
            },
            |session| call(&subject, session.as_ref()),
            || {},
            |session| {
                drop(session);
                subject.device.state().map(drop)
            },
        )?;
        println!("# {name}: {failures} failures");
        all += failures;
    }
    expect::claim("failures", all > 0)?;
    drop(subject);
    expect::equal("users of the module", module_users()?, users)?;
    backend.works(bed)
}

fn open(bed: &Bed, backend: Backend) -> Result<()> {
    let function = backend.function(bed, 0)?;
    let users = module_users()?;
    let node = Device::node(&function)?;
    let opened: RefCell<Option<Device>> = RefCell::new(None);
    let failures = each_failure(
        "open",
        AddressSpace::iommufd,
        |space| {
            let device = Device::open_node(&node, space).map_err(io_error)?;
            opened.replace(Some(device));
            Ok(())
        },
        || {
            opened.take();
        },
        |_| expect::equal("users of the module", module_users()?, users),
    )?;
    were_some("open", failures)?;
    backend.works(bed)
}

/// The kernel reports memory that is still mapped for the PF's DMA when its driver is unbound.
fn bind_of_the_pf(bed: &Bed) -> Result<()> {
    let mut log = KernelLog::from_now()?;
    let driver = bed.pf_driver()?;
    bed.pf.set_virtual_functions(0)?;
    let failures = each_failure(
        "bind of the PF",
        || bed.pf.unbind().context("unbind"),
        |()| bed.pf.bind(&driver),
        || {},
        |()| Ok(()),
    )?;
    were_some("bind of the PF", failures)?;
    bed.pf.unbind()?;
    expect::equal("complaints of DMA-API", log.count(&["DMA-API"])?, 0)?;
    bed.restore()?;
    Backend::Capability.works(bed)
}
