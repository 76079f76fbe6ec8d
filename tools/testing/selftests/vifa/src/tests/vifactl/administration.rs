// SPDX-License-Identifier: GPL-2.0

//! `vifactl list`, `bind`, `unbind`, `show` and `watch`, and the exit codes of all commands.

use std::{iter, process};

use anyhow::{Context, Result};
use serde_json::{json, Value};
use vifa_vfio::pci::Function;

use super::{claims, succeed, Guest, Test};
use crate::{
    bed::{Bed, VFS, VF_DRIVER},
    expect, hw,
    migration::{Segments, State},
    region,
    stream::RELATIONS_END,
    vifactl::{run, Exit, Running},
};

pub fn tests() -> Vec<Test> {
    claims!("vifactl":
        list_shows_functions_and_their_attributes,
        list_shows_state_and_holder_of_a_device_in_use,
        unbind_and_bind_change_the_driver,
        bind_of_a_bound_function_changes_nothing,
        unbind_of_a_device_in_use_is_refused_and_names_the_holder,
        bind_of_several_functions_is_all_or_nothing,
        show_matches_the_region,
        show_does_not_disturb_a_device_in_use,
        show_of_a_function_without_the_driver_fails,
        watch_shows_one_line_per_interval,
        watch_ends_when_the_device_is_removed,
        wrong_command_lines_have_their_own_exit_code,
    )
}

/// Returns the entry of `function` in the JSON list `list`.
fn entry<'a>(list: &'a Value, function: &Function) -> Result<&'a Value> {
    let name = function.to_string();
    list.as_array()
        .context("a list")?
        .iter()
        .find(|entry| entry["function"] == name)
        .with_context(|| format!("{name} in {list:#}"))
}

fn list_shows_functions_and_their_attributes(bed: &Bed) -> Result<()> {
    let list = succeed(&["list", "--json"])?.json()?;
    let physical = entry(&list["physical_functions"], &bed.pf)?;
    expect::equal("VFs", &physical["vfs"], &json!(VFS))?;
    expect::equal("driver", &physical["driver"], &json!(bed.pf_driver()?))?;
    for index in 0..VFS {
        let vf = bed.vf(index)?;
        let entry = entry(&list["virtual_functions"], &vf)?;
        for (field, expected) in [
            ("driver", json!(VF_DRIVER)),
            ("vendor", json!(hw::VIFA_REFERENCE_VENDOR)),
            ("device", json!(hw::VIFA_REFERENCE_VF_DEVICE)),
            ("iommu_group", json!(vf.iommu_group())),
            ("physical_function", json!(bed.pf.to_string())),
            ("index", json!(index)),
            ("state", json!("RUNNING")),
            (
                "features",
                json!(["P2P", "DIRTY_LOG", "LOCAL_MEMORY", "LOCAL_DIRTY"]),
            ),
            ("holder", Value::Null),
        ] {
            expect::equal(&format!("{field} of {vf}"), &entry[field], &expected)?;
        }
    }
    Ok(())
}

fn list_shows_state_and_holder_of_a_device_in_use(bed: &Bed) -> Result<()> {
    let guest = Guest::new(bed, 1)?;
    let _session = guest.vf.device.start(State::PreCopy)?;
    let list = succeed(&["list", "--json"])?.json()?;
    let entry = entry(&list["virtual_functions"], &bed.vf(1)?)?;
    expect::equal("state", &entry["state"], &json!("PRE_COPY"))?;
    expect::equal("holder", &entry["holder"]["pid"], &json!(process::id()))?;
    expect::equal("state afterwards", guest.vf.device.state()?, State::PreCopy)
}

fn unbind_and_bind_change_the_driver(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    let name = vf.to_string();
    succeed(&["unbind", &name])?;
    expect::equal("driver after unbind", vf.driver(), None)?;
    succeed(&["bind", &name])?;
    expect::equal("driver after bind", vf.driver().as_deref(), Some(VF_DRIVER))?;
    Guest::new(bed, 0)?.work(1)
}

fn bind_of_a_bound_function_changes_nothing(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?.to_string();
    let mut guest = Guest::new(bed, 0)?;
    let answer = succeed(&["bind", &vf, "--json"])?.json()?;
    expect::equal("changed", &answer["functions"][0]["changed"], &json!(false))?;
    guest.work(1)
}

fn unbind_of_a_device_in_use_is_refused_and_names_the_holder(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    let mut guest = Guest::new(bed, 0)?;
    run(&["unbind", &vf.to_string()])?
        .ends(Exit::Busy)?
        .reports(&[vf.to_string(), process::id().to_string()])?;
    expect::equal("driver", vf.driver().as_deref(), Some(VF_DRIVER))?;
    guest.work(1)
}

fn bind_of_several_functions_is_all_or_nothing(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    vf.unbind()?;
    run(&["bind", &vf.to_string(), &bed.pf.to_string()])?
        .ends(Exit::Failed)?
        .reports(&[bed.pf.to_string()])?;
    expect::equal("driver", vf.driver(), None)?;
    expect::equal("driver of the PF", bed.pf.driver(), Some(bed.pf_driver()?))
}

fn show_matches_the_region(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let device = &guest.vf.device;
    let noise = device.try_load(&stream[..100], Segments::Whole)?;
    expect::refused("a cut stream", noise, &[libc::EINVAL])?;
    device.reset()?;
    device.save()?;
    let shown = succeed(&["show", "--json", &bed.vf(0)?.to_string()])?.json()?;
    let region = region::read(device)?;
    for (what, value, expected) in [
        ("generation", &shown["generation"], json!(region.generation)),
        ("state", &shown["state"], json!("STOP")),
        ("errno", &shown["last_error"]["errno"], json!(libc::EINVAL)),
        (
            "text",
            &shown["last_error"]["text"],
            json!(region::error_text(&region)?),
        ),
        (
            "local memory",
            &shown["identity"]["local_memory"],
            json!(region.identity.local_memory),
        ),
        ("role", &shown["relations"][1]["role"], json!("output")),
        ("receiver", &shown["relations"][1]["receiver"], Value::Null),
        (
            "bytes of the stream",
            &shown["transfer"]["stream_bytes"],
            json!(region.stream_bytes),
        ),
        (
            "bytes of records",
            &shown["records"]["bytes"],
            json!(region.record_bytes),
        ),
        (
            "bytes of data",
            &shown["addresses"]["data_bytes"],
            json!(region.data_bytes),
        ),
        ("saved", &shown["counters"]["saved"], json!(region.saved)),
        ("failed", &shown["counters"]["failed"], json!(region.failed)),
    ] {
        expect::equal(what, value, &expected)?;
    }
    Ok(())
}

fn show_does_not_disturb_a_device_in_use(bed: &Bed) -> Result<()> {
    let mut guest = Guest::new(bed, 0)?;
    guest.furnish(3)?;
    let session = guest.vf.device.start(State::PreCopy)?;
    let before = region::read(&guest.vf.device)?.generation;
    succeed(&["show", &bed.vf(0)?.to_string()])?;
    expect::equal(
        "generation",
        region::read(&guest.vf.device)?.generation,
        before,
    )?;
    let beginning = session.read_to_pause(Segments::Whole)?;
    expect::claim(
        "identity, relations and local memory in PRE_COPY",
        beginning.len() > RELATIONS_END,
    )?;
    guest.work(4)
}

fn show_of_a_function_without_the_driver_fails(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    vf.unbind()?;
    run(&["show", &vf.to_string()])?
        .ends(Exit::Failed)?
        .reports(&[vf.to_string()])?;
    run(&["show", "0000:7f:1f.7"])?
        .ends(Exit::Failed)?
        .reports(&["0000:7f:1f.7"])
        .map(drop)
}

/// Returns lines of `vifactl watch` for the VF 0; runs `during` after the first line.
fn watch(bed: &Bed, count: u32, during: impl FnOnce() -> Result<()>) -> Result<Vec<Value>> {
    let vf = bed.vf(0)?.to_string();
    let count = count.to_string();
    let mut watching = Running::start(&["watch", "--json", "-i", "0.1", "-c", &count, &vf])?;
    let first = watching.line()?;
    during()?;
    let answer = watching.wait()?.ends(Exit::Done)?;
    iter::once(first.as_str())
        .chain(answer.text()?.lines())
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

fn watch_shows_one_line_per_interval(bed: &Bed) -> Result<()> {
    let (guest, stream) = Guest::saved(bed, 0)?;
    let lines = watch(bed, 40, || {
        let session = guest.vf.device.start(State::StopCopy)?;
        session.read_all(Segments::Whole)?;
        Ok(())
    })?;
    expect::equal("lines", lines.len(), 40)?;
    expect::equal("state at first", &lines[0]["state"], &json!("STOP"))?;
    let last = &lines[39];
    expect::equal("state at last", &last["state"], &json!("STOP_COPY"))?;
    expect::equal("bytes", &last["stream_bytes"], &json!(stream.len()))
}

fn watch_ends_when_the_device_is_removed(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?;
    watch(bed, 1000, || Ok(vf.unbind()?)).map(drop)
}

fn wrong_command_lines_have_their_own_exit_code(bed: &Bed) -> Result<()> {
    let vf = bed.vf(0)?.to_string();
    let vf = vf.as_str();
    for arguments in [
        &[][..],
        &["unknown"],
        &["show"],
        &["show", "not-an-address"],
        &["bind"],
        &["watch", "-i", "0", vf],
        &["save", vf, "-"],
        &["save", vf],
        &["restore", "set"],
    ] {
        run(arguments)?
            .ends(Exit::Usage)
            .with_context(|| format!("{arguments:?}"))?;
    }
    for arguments in [&["--help"][..], &["--version"], &["save", "--help"]] {
        succeed(arguments)?;
    }
    run(&["check", vf, "/nonexistent/set"])?
        .ends(Exit::Failed)?
        .reports(&["/nonexistent/set"])
        .map(drop)
}
