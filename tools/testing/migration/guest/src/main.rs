// SPDX-License-Identifier: GPL-2.0

//! The first and only process of the virtual machine that is migrated.
//!
//! It loads the driver of the reference device, starts the driver's workload and then tells the
//! serial console several times a second how the workload goes. It knows nothing of migration.
//!
//! What it says are lines of `vifa: ` and a JSON object with a member `event`:
//!
//! - `ready`: the driver is bound and the workload about to run;
//! - `progress`: `sequence` counts these lines, `workload` is what the driver reports;
//! - `finished`: a run of the workload has ended; `error` is null or says why it failed, `workload`
//!   is final;
//! - `failed`: there is no workload; `error` says why.
//!
//! What it obeys are lines on the console: `stop` ends the run, `run` begins another, and `tamper`
//! changes a bit that the run has to find wrong.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

const MODULE: &str = "/vifa_reference.ko";
const DRIVER: &str = "vifa_reference";
/// PCI class of the device: processing accelerator.
const CLASS: &str = "0x120000";
const DEVICES: &str = "/sys/bus/pci/devices";
const PROBE: &str = "/sys/bus/pci/drivers_probe";
const DEBUGFS: &str = "/sys/kernel/debug";
const WORKLOADS: &str = "/sys/kernel/debug/vifa_reference";

/// Between two lines of progress.
const PERIOD: Duration = Duration::from_millis(250);

/// How long the driver may take to find the device.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ! {
    if let Err(error) = run() {
        say(&format!(
            r#"{{"event":"failed","error":"{}"}}"#,
            escape(&error)
        ));
    }
    // The kernel does not survive the end of its first process.
    loop {
        thread::park();
    }
}

/// Something to act upon.
enum Event {
    Line(String),
    Ended(io::Result<()>),
}

/// Ends when there cannot be a workload.
fn run() -> Result<(), String> {
    quiet_console();
    mount("sysfs", "/sys")?;
    mount("debugfs", DEBUGFS)?;
    load(MODULE)?;
    bind_foreign()?;
    let workload = find_workload()?;
    say(r#"{"event":"ready"}"#);

    let (sender, events) = mpsc::channel();
    let lines = sender.clone();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if lines.send(Event::Line(line)).is_err() {
                return;
            }
        }
    });

    let begin = || {
        let (run, sender) = (workload.join("run"), sender.clone());
        // The write takes as long as the run.
        thread::spawn(move || sender.send(Event::Ended(fs::write(run, "\n"))));
    };
    let tell = |file: &str| {
        let path = workload.join(file);
        fs::write(&path, "\n").map_err(|error| format!("{}: {error}", path.display()))
    };
    let progress = || {
        let path = workload.join("progress");
        fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .map_err(|error| format!("{}: {error}", path.display()))
    };

    begin();
    let mut sequence = 0u64;
    loop {
        match events.recv_timeout(PERIOD) {
            Err(RecvTimeoutError::Timeout) => {
                say(&format!(
                    r#"{{"event":"progress","sequence":{sequence},"workload":{}}}"#,
                    progress()?
                ));
                sequence += 1;
            }
            Err(RecvTimeoutError::Disconnected) => return Err("nobody is left to listen".into()),
            Ok(Event::Line(line)) => match line.trim() {
                "run" => begin(),
                "stop" => tell("stop")?,
                "tamper" => tell("tamper")?,
                _ => (),
            },
            Ok(Event::Ended(result)) => {
                let error = match result {
                    Ok(()) => "null".to_owned(),
                    Err(error) => format!(r#""{}""#, escape(&error.to_string())),
                };
                say(&format!(
                    r#"{{"event":"finished","error":{error},"workload":{}}}"#,
                    progress()?
                ));
            }
        }
    }
}

/// Writes one line to the console, by one call, so that nothing gets in between.
fn say(line: &str) {
    let line = format!("vifa: {line}\n");
    // Where the console is gone nobody can be told so.
    let _ = io::stdout().write_all(line.as_bytes());
}

/// What makes `text` part of a JSON string.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => " ".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

/// Keeps the console from repeating what it is told.
fn quiet_console() {
    let console = io::stdin().as_raw_fd();
    // SAFETY: `termios` consists of integers; both calls read or write one that lives here.
    unsafe {
        let mut attributes: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(console, &mut attributes) == 0 {
            attributes.c_lflag &= !libc::ECHO;
            libc::tcsetattr(console, libc::TCSANOW, &attributes);
        }
    }
}

fn mount(kind: &str, target: &str) -> Result<(), String> {
    fs::create_dir_all(target).map_err(|error| format!("{target}: {error}"))?;
    let kind = CString::new(kind).map_err(|error| error.to_string())?;
    let path = CString::new(target).map_err(|error| error.to_string())?;
    // SAFETY: The strings end in NUL and outlive the call; there is no data.
    let result = unsafe {
        libc::mount(
            kind.as_ptr(),
            path.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(format!("mounting {target}: {}", io::Error::last_os_error()))
    }
}

fn load(module: &str) -> Result<(), String> {
    let file = fs::File::open(module).map_err(|error| format!("{module}: {error}"))?;
    // SAFETY: The descriptor is open and the parameters are an empty string.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(format!("loading {module}: {}", io::Error::last_os_error()))
    }
}

/// Binds the driver to devices that are alike in all but their ids, by which it does not know them.
fn bind_foreign() -> Result<(), String> {
    let devices = fs::read_dir(DEVICES).map_err(|error| format!("{DEVICES}: {error}"))?;
    for path in devices.map_while(Result::ok).map(|entry| entry.path()) {
        let class = fs::read_to_string(path.join("class")).unwrap_or_default();
        if class.trim() != CLASS || path.join("driver").exists() {
            continue;
        }
        let address = path.file_name().unwrap_or_default().to_string_lossy();
        for (file, text) in [
            (path.join("driver_override"), DRIVER),
            (PathBuf::from(PROBE), &*address),
        ] {
            fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    Ok(())
}

/// The debugfs directory of the first device that the driver is bound to.
fn find_workload() -> Result<PathBuf, String> {
    let deadline = Instant::now() + PROBE_TIMEOUT;
    loop {
        let found = fs::read_dir(WORKLOADS)
            .ok()
            .and_then(|mut entries| entries.next())
            .and_then(Result::ok);
        if let Some(entry) = found {
            return Ok(entry.path());
        }
        if Instant::now() > deadline {
            return Err("the driver is bound to no device".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
}
