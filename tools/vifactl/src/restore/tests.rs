// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::{
    layer::{identity::Identity, tests::device::IDENTITY},
    migratable::fake::{Fake, Fault},
    stream_file::spool,
};

/// The address of the layer's fake devices.
const THERE: &str = "0000:02:02.1";
const HERE: &str = "0000:41:00.3";

fn place(address: &str) -> Place {
    Place {
        address: address.parse().unwrap(),
        host: save_set::Host {
            name: "beta".to_owned(),
            kernel: "7.3.4".to_owned(),
        },
        physical_function: "0000:41:00.0".parse().unwrap(),
        index: 2,
    }
}

fn file(stream: &[u8]) -> StreamFile {
    StreamFile::of(spool(stream).unwrap(), "stream".to_owned()).unwrap()
}

fn guide(text: &str) -> Guide {
    let mut file = tempfile::NamedTempFile::new().unwrap();

    write!(file, "{{\"guide\": {{\"major\": 1, \"minor\": 0}}{text}}}").unwrap();
    Guide::read(file.path()).unwrap()
}

/// Returns a device with empty state.
fn empty(state: DeviceState) -> Fake {
    let fake = Fake::new(state);

    *fake.device.borrow_mut() = layer::tests::device::Device::new(IDENTITY).unwrap();
    fake.device.borrow_mut().control.fill(0);
    fake
}

fn restore(device: &Fake, stream: &[u8]) -> Result<DeviceState> {
    restore_stream(device, &mut &*stream, stream.len() as u64, "stream")
}

#[test]
fn the_device_accepts_the_state_and_returns_to_its_migration_state() {
    let source = Fake::new(DeviceState::Stop);
    let stream = source.stream();

    for state in [
        DeviceState::Running,
        DeviceState::RunningP2p,
        DeviceState::Stop,
    ] {
        let device = empty(state);

        assert_eq!(restore(&device, &stream).unwrap(), state);
        assert!(device.device.borrow().has_state_of(&source.device.borrow()));
        assert_eq!(device.states.borrow().last(), Some(&state));
        assert_eq!(
            device.states.borrow()[..3],
            [state, DeviceState::Resuming, DeviceState::Stop]
        );
        assert_eq!(device.resets.get(), 0);
    }
}

#[test]
fn a_device_that_is_being_migrated_is_left_alone() {
    let stream = Fake::new(DeviceState::Stop).stream();

    for state in [DeviceState::StopCopy, DeviceState::PreCopy] {
        let device = empty(state);
        let error = restore(&device, &stream).unwrap_err();

        assert_eq!(Exit::of(&error), Exit::Busy);
        assert_eq!(*device.states.borrow(), [state]);
        assert_eq!(device.resets.get(), 0);
    }
}

/// Asserts that a restore with this fault fails, resets the device and returns it to its state.
fn fails(fault: Fault, words: &str) {
    let stream = Fake::new(DeviceState::Stop).stream();

    for state in [DeviceState::Running, DeviceState::Stop] {
        let device = empty(state).with_fault(fault);
        let error = format!("{:#}", restore(&device, &stream).unwrap_err());

        interrupt::IN_TEST.set(false);
        assert!(error.contains(words), "{error}");
        assert!(
            error.contains("fake rejected the state of stream and was reset"),
            "{error}"
        );
        assert!(error.contains("reported by the fake"), "{error}");
        assert_eq!(device.resets.get(), 1);
        assert_eq!(device.states.borrow().last(), Some(&state));
    }
}

#[test]
fn a_device_that_fails_is_reset() {
    for at in [0, 1, 16, 1000, 9000] {
        fails(Fault::Error(at), "Input/output error");
    }
}

#[test]
fn a_signal_resets_the_device() {
    for at in [0, 1, 16, 1000, 9000] {
        fails(Fault::Signal(at), "stopped by a signal");
    }
}

#[test]
fn a_stream_that_is_rejected_at_its_end_resets_the_device() {
    for at in [0, 100, 9000] {
        fails(Fault::Bit(at), "Invalid argument");
    }
}

#[test]
fn a_stream_is_accepted_by_a_compatible_function() {
    let stream = Fake::new(DeviceState::Stop).stream();

    assert_eq!(
        check(&mut file(&stream), None, IDENTITY, &place(HERE)).unwrap(),
        None
    );
}

#[test]
fn an_incompatible_function_is_rejected_with_all_reasons() {
    let stream = Fake::new(DeviceState::Stop).stream();
    let other = Identity {
        vendor: 0x4321,
        queues: 0,
        local_memory: 0x8000,
        ..IDENTITY
    };
    let error = check(&mut file(&stream), None, other, &place(HERE)).unwrap_err();

    assert_eq!(Exit::of(&error), Exit::Incompatible);
    for words in [
        "vendor: source has 0x1234, destination has 0x4321",
        "queues: source has 0x1, destination has 0x0",
        "local_memory: source has 0x10000, destination has 0x8000",
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_damaged_stream_is_rejected_before_the_device_is_accessed() {
    let stream = Fake::new(DeviceState::Stop).stream();

    for at in (0..stream.len()).step_by(501).chain([stream.len() - 1]) {
        let mut damaged = stream.clone();
        damaged[at] ^= 0x80;
        let error = check(&mut file(&damaged), None, IDENTITY, &place(HERE)).unwrap_err();

        assert_eq!(Exit::of(&error), Exit::Damaged, "{at}: {error}");
        assert!(error.to_string().contains("at byte"), "{error}");
    }
}

#[test]
fn a_guide_addresses_the_stream() {
    let stream = Fake::new(DeviceState::Stop).stream();
    let guide = guide(&format!(
        ", \"virtual_functions\": {{\"{THERE}\": \"{HERE}\"}}"
    ));
    let mut file = file(&stream);
    let receiver = check(&mut file, Some(&guide), IDENTITY, &place(HERE)).unwrap();
    let mut addressed = Vec::new();

    assert_eq!(receiver, Some(interfaces_of(HERE.parse().unwrap())));
    stream_of(&mut file, receiver)
        .unwrap()
        .read_to_end(&mut addressed)
        .unwrap();
    assert_ne!(addressed, stream);

    let mut addressed = self::file(&addressed);
    check(&mut addressed, None, IDENTITY, &place(HERE)).unwrap();
    let error = check(&mut addressed, None, IDENTITY, &place("0000:41:00.4")).unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Incompatible);
    assert!(error
        .to_string()
        .contains("addressed to 0000:41:00.3/control, not to 0000:41:00.4/control"));
}

#[test]
fn a_guide_to_another_function_is_rejected() {
    let stream = Fake::new(DeviceState::Stop).stream();
    let guide = guide(&format!(
        ", \"virtual_functions\": {{\"{THERE}\": \"0000:41:00.4\"}}"
    ));
    let error = check(&mut file(&stream), Some(&guide), IDENTITY, &place(HERE)).unwrap_err();

    assert_eq!(Exit::of(&error), Exit::Incompatible);
}

#[test]
fn a_guide_with_names_that_are_not_in_the_file_is_rejected() {
    let stream = Fake::new(DeviceState::Stop).stream();
    let guide = guide(", \"hosts\": {\"alpha\": \"beta\"}");
    let error = check(&mut file(&stream), Some(&guide), IDENTITY, &place(HERE)).unwrap_err();

    assert_eq!(Exit::of(&error), Exit::Damaged);
    assert!(error.to_string().contains("hosts: alpha"), "{error}");
}

#[test]
fn a_stream_is_not_addressed_to_its_own_source() {
    let stream = Fake::new(DeviceState::Stop).stream();

    assert_eq!(
        check(
            &mut file(&stream),
            Some(&guide("")),
            IDENTITY,
            &place(THERE)
        )
        .unwrap(),
        None
    );
}

#[test]
fn a_stream_for_another_data_interface_is_rejected() {
    let own = interfaces_of(HERE.parse().unwrap());
    let stream = Fake::new(DeviceState::Stop).stream();
    let mut source = file(&stream).source().unwrap();

    source.receivers = [0, own.plane(Plane::Data).as_raw()];
    check_receiver(&source, own).unwrap();
    source.receivers[1] += 0x100;
    let error = check_receiver(&source, own).unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Incompatible);
    assert!(error.to_string().contains("/data, not to"), "{error}");
}
