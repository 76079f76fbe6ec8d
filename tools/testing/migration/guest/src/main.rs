// SPDX-License-Identifier: GPL-2.0

//! The first and only process of the virtual machine that is migrated.
//!
//! It loads the driver of the reference device, starts the driver's workload on each device and
//! then reports the progress of the workloads on the serial console several times a second. It is
//! not aware of migration. The kernel's command line sets the number of devices: `VIFA_DEVICES=2`,
//! by default one. If it sets an address (see [`network`]), the device is a network adapter and the
//! workload is its traffic.
//!
//! The output consists of lines of `vifa: ` and a JSON object with a member `event`:
//!
//! - `ready`: the driver is bound and the workloads are about to run;
//! - `progress`: `sequence` counts these lines, `workloads` contains the driver's report for each
//!   device, in the order of their addresses;
//! - `finished`: the runs of all workloads have ended; `error` is null or the reason of a failure,
//!   `workloads` is final;
//! - `failed`: there is no workload; `error` is the reason.
//!
//! The commands are lines on the console: `stop` ends the runs, `run` begins new ones, with the
//! settings that follow the word, and `tamper` changes a bit that the first run has to detect.

mod interface;
mod network;

use std::{
    env,
    ffi::CString,
    fs,
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

const MODULE: &str = "/vifa_reference.ko";
const DRIVER: &str = "vifa_reference";
/// PCI class of the device: processing accelerator.
const CLASS: &str = "0x120000";
const DEVICES: &str = "/sys/bus/pci/devices";
const PROBE: &str = "/sys/bus/pci/drivers_probe";
const DEBUGFS: &str = "/sys/kernel/debug";
/// Prefix of the name of each device's directory.
const WORKLOAD: &str = "vifa_reference-";

/// Interval between two lines of progress.
const PERIOD: Duration = Duration::from_millis(250);

/// Maximum time until the driver is bound to the devices.
const PROBE_TIMEOUT: Duration = Duration::from_secs(300);

fn main() -> ! {
    if let Err(error) = run() {
        print_line(&format!(
            r#"{{"event":"failed","error":"{}"}}"#,
            escape(&error)
        ));
    }
    // The kernel panics if its first process exits.
    loop {
        thread::park();
    }
}

/// An event of the main loop.
enum Event {
    Line(String),
    /// A workload's run has ended.
    Ended(io::Result<()>),
}

/// Runs the workloads. Returns only if there cannot be a workload.
fn run() -> Result<(), String> {
    quiet_console();
    mount("sysfs", "/sys")?;
    if let Some(settings) = network::Settings::read()? {
        return network::run(&settings);
    }
    mount("debugfs", DEBUGFS)?;
    load(MODULE)?;
    bind_foreign()?;
    let paths = find_workloads(expected_devices()?)?;
    print_line(r#"{"event":"ready"}"#);

    let (sender, events) = mpsc::channel();
    read_lines(sender.clone(), Event::Line);

    let mut workloads = Workloads {
        paths,
        sender,
        ended: 0,
        failure: None,
    };
    workloads.begin("");
    let mut sequence = 0u64;
    loop {
        match events.recv_timeout(PERIOD) {
            Err(RecvTimeoutError::Timeout) => {
                print_line(&format!(
                    r#"{{"event":"progress","sequence":{sequence},"workloads":{}}}"#,
                    progress(&workloads.paths)?
                ));
                sequence += 1;
            }
            Err(RecvTimeoutError::Disconnected) => return Err("the event channel is closed".into()),
            Ok(Event::Line(line)) => workloads.command(line.trim())?,
            Ok(Event::Ended(result)) => workloads.end(result)?,
        }
    }
}

/// The workloads of all devices, which run at the same time.
struct Workloads {
    /// The directory of each workload.
    paths: Vec<PathBuf>,
    sender: Sender<Event>,
    /// Number of workloads whose run has ended.
    ended: usize,
    /// The first failure of the current runs.
    failure: Option<io::Error>,
}

impl Workloads {
    /// Begins a run of each workload.
    fn begin(&self, settings: &str) {
        for workload in &self.paths {
            let (run, sender) = (workload.join("run"), self.sender.clone());
            let settings = format!("{settings}\n");
            // The write blocks until the run ends.
            thread::spawn(move || sender.send(Event::Ended(fs::write(run, settings))));
        }
    }

    /// Executes a command of the console.
    fn command(&self, line: &str) -> Result<(), String> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("run", settings) => self.begin(settings),
            ("stop", _) => {
                for workload in &self.paths {
                    write_control(workload, "stop")?;
                }
            }
            ("tamper", _) => {
                if let Some(first) = self.paths.first() {
                    write_control(first, "tamper")?;
                }
            }
            _ => (),
        }
        Ok(())
    }

    /// Counts the end of a run. Reports the result after the last one.
    fn end(&mut self, result: io::Result<()>) -> Result<(), String> {
        self.ended += 1;
        self.failure = self.failure.take().or(result.err());
        if self.ended < self.paths.len() {
            return Ok(());
        }
        self.ended = 0;
        let error = match self.failure.take() {
            None => "null".to_owned(),
            Some(error) => format!(r#""{}""#, escape(&error.to_string())),
        };
        print_line(&format!(
            r#"{{"event":"finished","error":{error},"workloads":{}}}"#,
            progress(&self.paths)?
        ));
        Ok(())
    }
}

/// Triggers the action of a workload's control file.
fn write_control(workload: &Path, file: &str) -> Result<(), String> {
    let path = workload.join(file);
    fs::write(&path, "\n").map_err(|error| format!("{}: {error}", path.display()))
}

/// Sends each line of the console to `sender`, in a separate thread.
fn read_lines<E: Send + 'static>(sender: Sender<E>, event: fn(String) -> E) {
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.send(event(line)).is_err() {
                return;
            }
        }
    });
}

/// Returns the driver's reports of all workloads, as a JSON array.
fn progress(workloads: &[PathBuf]) -> Result<String, String> {
    let mut reports = Vec::new();
    for workload in workloads {
        let path = workload.join("progress");
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        reports.push(text.trim().to_owned());
    }
    Ok(format!("[{}]", reports.join(",")))
}

/// Writes one line to the console in a single call, so that no other output interrupts it.
fn print_line(line: &str) {
    let line = format!("vifa: {line}\n");
    // If the console is gone, the error cannot be reported.
    let _ = io::stdout().write_all(line.as_bytes());
}

/// Escapes `text` for a JSON string.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => " ".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

/// Disables the echo of the console.
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
        Err(format!(
            "failed to mount {target}: {}",
            io::Error::last_os_error()
        ))
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
        Err(format!(
            "failed to load {module}: {}",
            io::Error::last_os_error()
        ))
    }
}

/// Binds the driver to devices that differ only in their ids, which are not in the driver's table.
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

/// Returns the number of this machine's devices. The kernel passes unknown command-line parameters
/// to init as environment variables.
fn expected_devices() -> Result<usize, String> {
    match env::var("VIFA_DEVICES") {
        Ok(number) => number
            .parse()
            .map_err(|error| format!("VIFA_DEVICES={number}: {error}")),
        Err(_) => Ok(1),
    }
}

/// Returns the debugfs directories of the `number` devices that the driver is bound to.
fn find_workloads(number: usize) -> Result<Vec<PathBuf>, String> {
    let deadline = Instant::now() + PROBE_TIMEOUT;
    loop {
        let entries = fs::read_dir(DEBUGFS).map_err(|error| format!("{DEBUGFS}: {error}"))?;
        let mut found: Vec<_> = entries
            .map_while(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(WORKLOAD))
            .map(|entry| entry.path())
            .collect();
        if found.len() == number {
            found.sort();
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!(
                "the driver is bound to {} devices, expected {number}",
                found.len()
            ));
        }
        thread::sleep(Duration::from_millis(10));
    }
}
