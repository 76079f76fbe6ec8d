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
//! - `finished`: the workload has ended; `error` is null or says why it failed, `workload` is final;
//! - `failed`: there is no workload; `error` says why.
//!
//! A line `stop` on the console ends the workload.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

const MODULE: &str = "/vifa_reference.ko";
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

/// Ends after the workload has, or when there cannot be one.
fn run() -> Result<(), String> {
    quiet_console();
    mount("sysfs", "/sys")?;
    mount("debugfs", DEBUGFS)?;
    load(MODULE)?;
    let workload = find_workload()?;
    say(r#"{"event":"ready"}"#);

    thread::spawn({
        let stop = workload.join("stop");
        move || listen(&stop)
    });
    let (ended, end) = mpsc::channel();
    thread::spawn({
        let run = workload.join("run");
        // The write takes as long as the workload runs.
        move || ended.send(fs::write(run, "\n"))
    });

    let progress = workload.join("progress");
    for sequence in 0u64.. {
        match end.recv_timeout(PERIOD) {
            Err(RecvTimeoutError::Timeout) => {
                let text = read(&progress)?;
                say(&format!(
                    r#"{{"event":"progress","sequence":{sequence},"workload":{text}}}"#
                ));
            }
            Err(RecvTimeoutError::Disconnected) => return Err("the workload's thread died".into()),
            Ok(result) => {
                let text = read(&progress)?;
                let error = match result {
                    Ok(()) => "null".to_owned(),
                    Err(error) => format!(r#""{}""#, escape(&error.to_string())),
                };
                say(&format!(
                    r#"{{"event":"finished","error":{error},"workload":{text}}}"#
                ));
                break;
            }
        }
    }
    Ok(())
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

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| format!("{}: {error}", path.display()))
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

/// Obeys the console.
fn listen(stop: &Path) {
    for line in io::stdin().lines() {
        match line.as_deref().map(str::trim) {
            Ok("stop") => {
                if let Err(error) = fs::write(stop, "\n") {
                    say(&format!(
                        r#"{{"event":"failed","error":"{}"}}"#,
                        escape(&error.to_string())
                    ));
                }
            }
            Ok(_) => (),
            Err(_) => return,
        }
    }
}
