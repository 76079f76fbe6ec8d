// SPDX-License-Identifier: GPL-2.0

//! A fake host made of files: the parts of sysfs, debugfs and procfs that `vifactl` reads.

use std::{
    fs,
    io::Write,
    mem::offset_of,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use vifa_headers::{vifa_identity, vifa_region};

pub const PF: &str = "0000:01:00.0";
pub const VF: &str = "0000:01:00.1";
pub const OTHER_VF: &str = "0000:01:00.2";

pub const PF_DRIVER: &str = "vifa_vfio_pci_pf";
pub const VF_DRIVER: &str = "vifa_vfio_pci";

/// A fake host, removed when dropped.
pub struct FakeHost {
    root: TempDir,
}

/// The result of a command.
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
        let outcome = Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };

        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        outcome
    }

    /// Returns the JSON on standard output.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// Asserts the exit code, and that standard error contains `message`.
    pub fn failed(&self, code: i32, message: &str) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert!(self.stderr.contains(message), "{}", self.stderr);
        assert!(self.stderr.starts_with("vifactl: "), "{}", self.stderr);
    }

    /// Asserts that the command succeeded; returns its standard output.
    pub fn done(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert_eq!(self.stderr, "");
        &self.stdout
    }
}

/// Runs the command with `arguments`.
pub fn vifactl(arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_vifactl"))
        .args(arguments)
        .output()
        .expect("the command can be run");

    Outcome::of(output)
}

impl FakeHost {
    /// Returns a host without PCI functions.
    pub fn empty() -> Self {
        let host = Self {
            root: TempDir::new().unwrap(),
        };

        fs::create_dir_all(host.path("sys/bus/pci/devices")).unwrap();
        fs::create_dir_all(host.path("proc")).unwrap();
        host
    }

    /// Returns a host with both drivers, a physical function and two unbound virtual functions.
    pub fn with_vfs() -> Self {
        let host = Self::empty();

        host.driver(PF_DRIVER);
        host.driver(VF_DRIVER);
        host.function(PF, 5);
        host.attribute(PF, "sriov_numvfs", "2\n");
        host.attribute(PF, "sriov_totalvfs", "64\n");
        host.bound(PF, PF_DRIVER);
        for (index, vf) in [VF, OTHER_VF].into_iter().enumerate() {
            host.function(vf, 6 + index);
            host.link(vf, "physfn", &format!("../{PF}"));
            host.link(PF, &format!("virtfn{index}"), &format!("../{vf}"));
        }
        host
    }

    /// Runs the command with `arguments` on this host.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let root = self.root.path().to_str().unwrap();

        vifactl(&[&["--root", root], arguments].concat())
    }

    /// Like [`Self::run`], with `input` on standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vifactl"))
            .arg("--root")
            .arg(self.root.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();

        command
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_ref())
            .unwrap();
        Outcome::of(command.wait_with_output().unwrap())
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    fn device(&self, function: &str) -> PathBuf {
        self.path("sys/bus/pci/devices").join(function)
    }

    /// Adds a function in an IOMMU group without other functions.
    pub fn function(&self, function: &str, group: usize) {
        let groups = self.path("sys/kernel/iommu_groups");
        let group = groups.join(group.to_string());

        fs::create_dir_all(self.device(function)).unwrap();
        fs::create_dir_all(group.join("devices")).unwrap();
        symlink(self.device(function), group.join("devices").join(function)).unwrap();
        symlink(&group, self.device(function).join("iommu_group")).unwrap();
        self.attribute(function, "vendor", "0x1234\n");
        self.attribute(function, "device", "0x5649\n");
        self.attribute(function, "driver_override", "(null)\n");
    }

    /// Adds a VIFA capability of revision 1 with `features` to a function.
    pub fn capability(&self, function: &str, features: u32) {
        let mut config = vec![0; 0x1000];

        for (offset, word) in [
            (0x100, 0x1_0023),
            (0x104, 0x1c0_1234),
            (0x108, 0x1_5649),
            (0x10c, features),
        ] {
            config[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(word));
        }
        self.attribute(function, "config", config);
    }

    pub fn attribute(&self, function: &str, name: &str, value: impl AsRef<[u8]>) {
        fs::write(self.device(function).join(name), value).unwrap();
    }

    fn link(&self, function: &str, name: &str, target: &str) {
        symlink(target, self.device(function).join(name)).unwrap();
    }

    /// Adds a driver whose `bind` and `unbind` keep the written data.
    pub fn driver(&self, name: &str) {
        let directory = self.path("sys/bus/pci/drivers").join(name);

        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("bind"), "").unwrap();
        fs::write(directory.join("unbind"), "").unwrap();
    }

    /// Binds a function to a driver.
    pub fn bound(&self, function: &str, driver: &str) {
        self.link(function, "driver", &format!("../../drivers/{driver}"));
    }

    /// Returns the data written to the attribute `name` of `driver`.
    pub fn written(&self, driver: &str, name: &str) -> String {
        let directory = self.path("sys/bus/pci/drivers").join(driver);

        fs::read_to_string(directory.join(name)).unwrap()
    }

    /// Returns the function's driver_override.
    pub fn driver_override(&self, function: &str) -> String {
        let text = fs::read_to_string(self.device(function).join("driver_override")).unwrap();

        // Unlike an attribute, a file keeps the tail of a longer old value.
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Adds the region `bytes` of a function to debugfs.
    pub fn region(&self, function: &str, bytes: &[u8]) {
        let directory = self.path("sys/kernel/debug/vifa").join(function);

        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("region"), bytes).unwrap();
    }

    /// Adds a process that has a function open.
    pub fn holder(&self, pid: u32, command: &str, function: &str) {
        let process = self.path("proc").join(pid.to_string());
        let path = format!("/sys/devices/pci0000:00/0000:00:04.0/{function}/vfio-dev/vfio0");

        fs::create_dir_all(process.join("fd")).unwrap();
        fs::create_dir_all(process.join("fdinfo")).unwrap();
        fs::write(process.join("comm"), format!("{command}\n")).unwrap();
        symlink("/dev/null", process.join("fd/0")).unwrap();
        symlink("anon_inode:[vfio-device]", process.join("fd/9")).unwrap();
        fs::write(
            process.join("fdinfo/9"),
            format!("pos:\t0\nvfio-device-syspath: {path}\n"),
        )
        .unwrap();
    }

    /// Writes a file in the host's directory and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);

        fs::write(&path, content).unwrap();
        path_text(&path)
    }
}

/// Returns a path as a command-line argument.
pub fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Returns the offset of the identity in a region.
pub fn identity_offset() -> usize {
    offset_of!(vifa_region, identity)
}

/// Returns the region of a running VF that was never migrated.
pub fn region() -> Vec<u8> {
    let mut bytes = vec![0; size_of::<vifa_region>()];
    let identity = identity_offset();
    let mut put = |offset: usize, value: &[u8]| {
        bytes[offset..offset + value.len()].copy_from_slice(value);
    };

    put(0, b"VIFAREGN");
    put(offset_of!(vifa_region, major), &1_u16.to_le_bytes());
    put(offset_of!(vifa_region, minor), &1_u16.to_le_bytes());
    put(
        offset_of!(vifa_region, size),
        &(size_of::<vifa_region>() as u32).to_le_bytes(),
    );
    put(offset_of!(vifa_region, state), &2_u32.to_le_bytes());
    put(
        offset_of!(vifa_region, control_interface),
        &0x1_0101_u64.to_le_bytes(),
    );
    put(
        offset_of!(vifa_region, data_interface),
        &0x1_0102_u64.to_le_bytes(),
    );
    put(
        identity + offset_of!(vifa_identity, vendor),
        &0x1234_u16.to_le_bytes(),
    );
    put(
        identity + offset_of!(vifa_identity, vifa_revision),
        &1_u16.to_le_bytes(),
    );
    put(
        identity + offset_of!(vifa_identity, features),
        &5_u32.to_le_bytes(),
    );
    put(
        identity + offset_of!(vifa_identity, queues),
        &4_u16.to_le_bytes(),
    );
    put(
        identity + offset_of!(vifa_identity, granule),
        &0x1000_u32.to_le_bytes(),
    );
    put(
        identity + offset_of!(vifa_identity, local_memory),
        &0x10_0000_u64.to_le_bytes(),
    );
    put(
        identity + offset_of!(vifa_identity, control_plane_max),
        &0x1000_u32.to_le_bytes(),
    );
    bytes
}
