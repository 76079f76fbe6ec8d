// SPDX-License-Identifier: GPL-2.0

use std::fs;

use super::*;
use crate::{
    exit::Exit,
    layer::tests::device::IDENTITY,
    migratable::fake::{Fake, Fault},
    place::Place,
    save_set::{Driver, SaveSet},
};

/// A temporary directory for save sets.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn set(&self) -> PathBuf {
        self.0.path().join("set")
    }

    fn names(&self) -> Vec<String> {
        fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Saves `device` to a set.
    fn save(&self, device: &Fake) -> Result<()> {
        let target = Target::new(&self.set(), false)?;

        save_to(device, target, Some(&origin())).map(drop)
    }
}

fn origin() -> Origin {
    Origin {
        place: Place {
            // The address of the layer's fake devices.
            address: "0000:02:02.1".parse().unwrap(),
            host: save_set::Host {
                name: "alpha".to_owned(),
                kernel: "7.3.4".to_owned(),
            },
            physical_function: "0000:02:00.0".parse().unwrap(),
            index: 16,
        },
        driver: Driver {
            name: "vifa_vfio_pci".to_owned(),
            version: None,
        },
    }
}

/// A disk that is full after this number of bytes.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(self.0);

        if length == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.0 -= length;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const FOUND: [DeviceState; 3] = [
    DeviceState::Running,
    DeviceState::RunningP2p,
    DeviceState::Stop,
];

#[test]
fn a_set_contains_the_stream_and_its_origin() {
    let directory = Directory::new();
    let device = Fake::new(DeviceState::Running);

    directory.save(&device).unwrap();
    let file = fs::read(directory.set()).unwrap();
    let (set, stream) = SaveSet::parse(&file).unwrap();
    assert_eq!(stream, device.stream());
    assert_eq!(set.stream_offset, 0x1000);
    assert_eq!(set.manifest.configuration, (&IDENTITY).into());
    assert_eq!(
        set.manifest.physical_function,
        origin().place.physical_function
    );
    assert_eq!(set.manifest.virtual_function.index, 16);
    assert_eq!(set.manifest.host, origin().place.host);
    assert_eq!(directory.names(), ["set"]);
}

#[test]
fn a_saved_set_is_valid() {
    let directory = Directory::new();
    let mut out = Vec::new();

    directory.save(&Fake::new(DeviceState::Stop)).unwrap();
    let file = fs::File::open(directory.set()).unwrap();
    assert_eq!(
        crate::decode::to_json(file, "set", false, &mut out).unwrap(),
        None
    );
    let shown: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(shown["save_set"]["manifest"]["host"]["name"], "alpha");
    assert_eq!(shown["stream"]["offset"], 0x1000);
}

#[test]
fn the_manifest_must_match_the_stream() {
    let directory = Directory::new();

    directory.save(&Fake::new(DeviceState::Stop)).unwrap();
    let file = fs::read(directory.set()).unwrap();
    let (set, stream) = SaveSet::parse(&file).unwrap();
    let damage = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut manifest = serde_json::to_value(&set.manifest).unwrap();

        change(&mut manifest);
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let file = [
            &Header::encode(&manifest, stream.len() as u64),
            &manifest,
            stream,
        ]
        .concat();
        crate::decode::to_json(&file[..], "set", false, io::sink())
            .unwrap()
            .map(|damage| damage.message.to_string())
            .unwrap_or_default()
    };

    assert_eq!(damage(&|_| {}), "");
    assert!(damage(&|manifest| manifest["stream"]["crc32c"] = 1.into()).contains("stream.crc32c"));
    assert!(
        damage(&|manifest| manifest["configuration"]["queues"] = 7.into())
            .contains("configuration.queues is not what the stream has")
    );
    assert!(damage(&|manifest| {
        manifest["virtual_function"]["address"] = "0000:02:02.2".into();
        manifest["interfaces"] = serde_json::json!({"control": 0x21201, "data": 0x21202});
    })
    .contains("interfaces.control"));
}

#[test]
fn the_device_returns_to_its_state() {
    for state in FOUND {
        let device = Fake::new(state);

        Directory::new().save(&device).unwrap();
        assert_eq!(
            *device.states.borrow(),
            [state, DeviceState::StopCopy, state]
        );
    }
}

#[test]
fn a_device_that_is_being_migrated_is_left_alone() {
    for (state, exit) in [
        (DeviceState::StopCopy, Exit::Busy),
        (DeviceState::Resuming, Exit::Busy),
        (DeviceState::PreCopy, Exit::Busy),
        (DeviceState::PreCopyP2p, Exit::Busy),
        (DeviceState::Error, Exit::Failed),
    ] {
        let directory = Directory::new();
        let device = Fake::new(state);

        assert_eq!(Exit::of(&directory.save(&device).unwrap_err()), exit);
        assert_eq!(*device.states.borrow(), [state]);
        assert!(directory.names().is_empty());
    }
}

/// Saves a device with this fault at many offsets of its stream; returns the errors.
fn interrupted(fault: fn(usize) -> Fault) -> Vec<String> {
    let length = Fake::new(DeviceState::Running).stream().len();
    let places = (0..200)
        .chain((200..length).step_by(971))
        .chain([length - 1]);

    places
        .map(|at| {
            let directory = Directory::new();
            let device = Fake::new(DeviceState::Running).with_fault(fault(at));
            let error = directory.save(&device).unwrap_err();

            interrupt::IN_TEST.set(false);
            assert!(directory.names().is_empty(), "{at}");
            assert_eq!(device.states.borrow().last(), Some(&DeviceState::Running));
            assert_eq!(device.resets.get(), 0);
            format!("{error:#}")
        })
        .collect()
}

#[test]
fn a_failing_device_leaves_no_file_and_returns_to_its_state() {
    for error in interrupted(Fault::Error) {
        assert!(error.contains("fake: reported by the fake"), "{error}");
        assert!(error.contains("Input/output error"), "{error}");
    }
}

#[test]
fn a_signal_leaves_no_file_and_the_device_returns_to_its_state() {
    for error in interrupted(Fault::Signal) {
        assert!(error.contains("stopped by a signal"), "{error}");
    }
}

#[test]
fn a_damaged_stream_leaves_no_file_and_the_device_returns_to_its_state() {
    for error in interrupted(Fault::Bit) {
        assert!(error.contains("invalid stream: at byte"), "{error}");
    }
}

#[test]
fn a_full_disk_is_reported_and_the_device_returns_to_its_state() {
    let length = Fake::new(DeviceState::Running).stream().len();

    for room in (0..length).step_by(613) {
        let device = Fake::new(DeviceState::Running);
        let error = save_stream(&device, &mut Disk(room), "disk").unwrap_err();

        assert!(format!("{error:#}").starts_with("disk: No space left"));
        assert_eq!(device.states.borrow().last(), Some(&DeviceState::Running));
    }
}

#[test]
fn a_device_that_begins_no_session_leaves_no_file() {
    let directory = Directory::new();
    let device = Fake::new(DeviceState::Running).with_fault(Fault::NoSession);

    directory.save(&device).unwrap_err();
    assert!(directory.names().is_empty());
    assert_eq!(device.states.borrow().last(), Some(&DeviceState::Running));
}

#[test]
fn a_device_that_fails_to_return_is_reported_and_its_file_kept() {
    let directory = Directory::new();
    let device = Fake::new(DeviceState::Running).with_fault(Fault::NoReturn);
    let error = directory.save(&device).unwrap_err();

    assert!(format!("{error:#}").contains("fake was saved, but failed to return to its state"));
    SaveSet::parse(&fs::read(directory.set()).unwrap()).unwrap();
}
