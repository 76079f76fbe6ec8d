// SPDX-License-Identifier: GPL-2.0

//! `vifactl list`

use crate::host::{region, FakeHost, PF, VF, VF_DRIVER};

#[test]
fn a_host_without_pci_has_no_interfaces() {
    let host = FakeHost::empty();

    std::fs::remove_dir_all(host.path("sys")).unwrap();
    assert_eq!(host.run(&["list"]).done(), "no VIFA interfaces\n");
}

#[test]
fn functions_of_other_drivers_are_not_listed() {
    let host = FakeHost::empty();

    host.driver("other");
    host.function("0000:02:00.0", 1);
    host.bound("0000:02:00.0", "other");
    assert_eq!(host.run(&["list"]).done(), "no VIFA interfaces\n");
}

#[test]
fn a_pf_is_found_by_its_driver_and_its_vfs_with_it() {
    let list = FakeHost::with_vfs().run(&["list", "--json"]).json();

    assert_eq!(list["physical_functions"][0]["function"], PF);
    assert_eq!(list["physical_functions"][0]["vfs_max"], 64);
    assert_eq!(list["virtual_functions"][1]["function"], "0000:01:00.2");
    assert_eq!(list["virtual_functions"][1]["index"], 1);
    assert_eq!(list["virtual_functions"][1]["physical_function"], PF);
    assert_eq!(list["virtual_functions"][1]["iommu_group"], "7");
}

#[test]
fn a_pf_without_a_driver_is_found_by_its_capability() {
    let host = FakeHost::empty();

    host.function(PF, 5);
    host.capability(PF, 0x3);
    let list = host.run(&["list", "--json"]).json();

    assert_eq!(
        list["physical_functions"][0]["driver"],
        serde_json::Value::Null
    );
    assert_eq!(
        list["physical_functions"][0]["capability"]["features"],
        serde_json::json!(["P2P", "DIRTY_LOG"])
    );
}

#[test]
fn state_features_and_holder_of_a_vf_are_listed() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.region(VF, &region());
    host.holder(412, "qemu-system-x86", VF);
    let text = host.run(&["list"]);
    let line = text
        .done()
        .lines()
        .find(|line| line.starts_with(VF))
        .unwrap()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");

    assert_eq!(
        line,
        "0000:01:00.1 VF 0 of 0000:01:00.0 1234:5649 vifa_vfio_pci 6 RUNNING P2P LOCAL_MEMORY \
         qemu-system-x86 (pid 412)"
    );
}

#[test]
fn an_invalid_region_leaves_only_its_own_cells_empty() {
    let host = FakeHost::with_vfs();

    host.bound(VF, VF_DRIVER);
    host.region(VF, b"no region");
    let list = host.run(&["list", "--json"]).json();

    assert_eq!(
        list["virtual_functions"][0]["state"],
        serde_json::Value::Null
    );
    assert_eq!(list["virtual_functions"][0]["driver"], VF_DRIVER);
}
