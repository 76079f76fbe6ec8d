// SPDX-License-Identifier: GPL-2.0

//! `vifactl bind` and `vifactl unbind`

use std::fs;

use crate::host::{FakeHost, OTHER_VF, PF, PF_DRIVER, VF, VF_DRIVER};

/// Asserts that `vf` and the driver are unchanged.
fn untouched(host: &FakeHost, vf: &str) {
    assert_eq!(host.driver_override(vf), "(null)");
    assert_eq!(host.written(VF_DRIVER, "bind"), "");
    assert_eq!(host.written(VF_DRIVER, "unbind"), "");
}

#[test]
fn a_vf_is_reserved_and_bound() {
    let host = FakeHost::with_vfs();

    assert_eq!(
        host.run(&["bind", VF]).done(),
        "0000:01:00.1: bound to vifa_vfio_pci\n"
    );
    assert_eq!(host.driver_override(VF), VF_DRIVER);
    assert_eq!(host.written(VF_DRIVER, "bind"), VF);
}

#[test]
fn a_vf_of_another_driver_is_unbound_first() {
    let host = FakeHost::with_vfs();

    host.driver("other");
    host.bound(VF, "other");
    let outcome = host.run(&["bind", VF, "--json"]);

    outcome.done();
    assert_eq!(outcome.json()["functions"][0]["before"], "other");
    assert_eq!(host.written("other", "unbind"), VF);
    assert_eq!(host.written(VF_DRIVER, "bind"), VF);
}

#[test]
fn a_bound_vf_stays_bound() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    assert_eq!(
        host.run(&["bind", VF]).done(),
        "0000:01:00.1: is bound to vifa_vfio_pci already\n"
    );
    untouched(&host, VF);
}

#[test]
fn only_a_vf_is_bound() {
    let host = FakeHost::with_vfs();

    host.run(&["bind", PF])
        .failed(1, "0000:01:00.0 is not a virtual function");
    host.run(&["bind", "0000:09:00.0"])
        .failed(1, "0000:09:00.0: no such PCI function");
    untouched(&host, PF);
}

/// A host with VFs whose PF is bound to `driver`.
fn with_pf_bound_to(driver: Option<&str>) -> FakeHost {
    let host = FakeHost::with_vfs();

    fs::remove_file(host.path(&format!("sys/bus/pci/devices/{PF}/driver"))).unwrap();
    if let Some(driver) = driver {
        host.driver(driver);
        host.bound(PF, driver);
    }
    host
}

#[test]
fn a_pf_with_the_capability_must_be_bound_to_its_driver() {
    let host = with_pf_bound_to(Some("other"));

    host.capability(PF, 0x3);
    host.run(&["bind", VF])
        .failed(1, "0000:01:00.0 is bound to other, not to vifa_vfio_pci_pf");
    untouched(&host, VF);
}

#[test]
fn a_pf_without_the_capability_keeps_its_own_driver() {
    let host = with_pf_bound_to(Some("igb"));

    host.run(&["bind", VF]).done();
    assert_eq!(host.driver_override(VF), VF_DRIVER);
    assert_eq!(host.written(VF_DRIVER, "bind"), VF);
}

#[test]
fn the_pf_must_be_bound_to_a_driver() {
    let host = with_pf_bound_to(None);

    host.run(&["bind", VF])
        .failed(1, "0000:01:00.0 is bound to no driver");
    untouched(&host, VF);
}

#[test]
fn the_driver_must_be_loaded() {
    let host = FakeHost::with_vfs();

    fs::remove_dir_all(host.path(&format!("sys/bus/pci/drivers/{VF_DRIVER}"))).unwrap();
    host.run(&["bind", VF])
        .failed(1, "load the module vifa_vfio_pci");
    assert_eq!(host.driver_override(VF), "(null)");
}

#[test]
fn a_vf_that_a_process_has_open_is_busy() {
    let host = FakeHost::with_vfs();

    host.driver("vfio-pci");
    host.bound(VF, "vfio-pci");
    host.holder(412, "qemu-system-x86", VF);
    host.run(&["bind", VF]).failed(
        5,
        "0000:01:00.1 is in use: qemu-system-x86 (pid 412) has it open",
    );
    untouched(&host, VF);
}

#[test]
fn a_vf_without_an_iommu_group_is_not_bound() {
    let host = FakeHost::with_vfs();

    fs::remove_file(host.path(&format!("sys/bus/pci/devices/{VF}/iommu_group"))).unwrap();
    host.run(&["bind", VF]).failed(1, "is in no IOMMU group");
    untouched(&host, VF);
}

/// Returns a host whose VF shares its IOMMU group with a function bound to `driver`.
fn with_neighbour(driver: &str) -> FakeHost {
    let host = FakeHost::with_vfs();

    host.driver(driver);
    host.function("0000:02:00.0", 6);
    host.bound("0000:02:00.0", driver);
    host
}

#[test]
fn a_group_member_with_a_host_driver_prevents_binding() {
    let host = with_neighbour("e1000e");

    host.run(&["bind", VF]).failed(
        5,
        "0000:02:00.0 is in the same IOMMU group 6 and bound to e1000e",
    );
    untouched(&host, VF);
}

#[test]
fn a_bridge_in_the_group_does_not_prevent_binding() {
    let host = with_neighbour("pcieport");

    host.run(&["bind", VF]).done();
}

#[test]
fn a_vfio_device_in_the_group_does_not_prevent_binding() {
    let host = with_neighbour("vfio-pci");

    fs::create_dir_all(host.path("sys/bus/pci/devices/0000:02:00.0/vfio-dev/vfio3")).unwrap();
    host.run(&["bind", VF]).done();
}

#[test]
fn if_one_function_fails_the_checks_none_is_changed() {
    let host = FakeHost::with_vfs();

    host.driver("vfio-pci");
    host.bound(OTHER_VF, "vfio-pci");
    host.holder(412, "qemu-system-x86", OTHER_VF);
    host.run(&["bind", VF, OTHER_VF])
        .failed(5, "0000:01:00.2 is in use");
    untouched(&host, VF);
}

#[test]
fn a_rejected_vf_keeps_its_override_and_driver() {
    let host = FakeHost::with_vfs();
    let bind = host.path(&format!("sys/bus/pci/drivers/{VF_DRIVER}/bind"));

    host.driver("other");
    host.attribute(VF, "driver_override", "other\n");
    fs::remove_file(&bind).unwrap();
    // Writing to a directory fails.
    fs::create_dir(&bind).unwrap();
    host.run(&["bind", VF])
        .failed(1, "0000:01:00.1: failed to bind to vifa_vfio_pci");
    assert_eq!(host.driver_override(VF), "other");
}

#[test]
fn a_driver_that_fails_to_unbind_is_named() {
    let host = FakeHost::with_vfs();

    host.driver("other");
    host.bound(VF, "other");
    fs::remove_file(host.path("sys/bus/pci/drivers/other/unbind")).unwrap();
    host.run(&["bind", VF])
        .failed(1, "0000:01:00.1: failed to unbind from other");
    assert_eq!(host.driver_override(VF), "");
    assert_eq!(host.written(VF_DRIVER, "bind"), "");
}

#[test]
fn a_vf_is_unbound_and_its_override_cleared() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.attribute(VF, "driver_override", format!("{VF_DRIVER}\n"));
    assert_eq!(
        host.run(&["unbind", VF]).done(),
        "0000:01:00.1: unbound from vifa_vfio_pci\n"
    );
    assert_eq!(host.written(VF_DRIVER, "unbind"), VF);
    assert_eq!(host.driver_override(VF), "");
}

#[test]
fn only_an_override_to_our_driver_is_cleared() {
    let host = FakeHost::with_vfs();

    host.attribute(VF, "driver_override", format!("{VF_DRIVER}\n"));
    host.attribute(OTHER_VF, "driver_override", "other\n");
    host.run(&["unbind", VF, OTHER_VF]).done();
    assert_eq!(host.driver_override(VF), "");
    assert_eq!(host.driver_override(OTHER_VF), "other");
}

#[test]
fn a_vf_that_is_open_is_not_unbound() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.holder(412, "qemu-system-x86", VF);
    host.run(&["unbind", VF])
        .failed(5, "qemu-system-x86 (pid 412)");
    untouched(&host, VF);
}

#[test]
fn a_function_of_another_driver_is_not_unbound() {
    let host = FakeHost::with_vfs();

    host.run(&["unbind", PF]).failed(
        1,
        &format!("0000:01:00.0 is bound to {PF_DRIVER}, not to {VF_DRIVER}"),
    );
    assert_eq!(host.written(PF_DRIVER, "unbind"), "");
}
