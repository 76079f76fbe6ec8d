// SPDX-License-Identifier: GPL-2.0

//! QEMU's qtest protocol (`docs/devel/testing/qtest.rst` in QEMU): lines of text over the standard
//! streams, one reply to each.

use std::{
    cell::RefCell,
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A QEMU without a processor that the test controls.
pub struct Qtest {
    streams: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
    child: Child,
}

/// Directories of the firmware in distributions. The machine requires the firmware, although it
/// does not run. A QEMU in its build directory does not search there by default.
const FIRMWARE: [&str; 2] = ["/usr/share/seabios", "/usr/share/qemu"];

fn command(arguments: &[&str]) -> Command {
    let qemu = env::var_os("VIFA_QEMU")
        .expect("VIFA_QEMU must be the path of the qemu-system-x86_64 with the reference device");
    let mut command = Command::new(qemu);
    command
        .args(["-machine", "q35", "-accel", "qtest", "-m", "256M"])
        .args(["-nodefaults", "-display", "none"])
        .args(FIRMWARE.iter().flat_map(|path| ["-L", path]))
        .args(arguments)
        .stdin(Stdio::piped());
    command
}

impl Qtest {
    /// Starts a QEMU with additional `arguments`.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments)
            .args(["-qtest", "stdio", "-qtest-log", "none"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("VIFA_QEMU starts");
        let input = child.stdin.take().expect("is piped");
        let output = BufReader::new(child.stdout.take().expect("is piped"));
        Self {
            streams: RefCell::new((input, output)),
            child,
        }
    }

    /// Returns the error output of a QEMU that must reject these arguments.
    pub fn refusal(arguments: &[&str]) -> String {
        let mut child = command(arguments)
            .args(["-monitor", "stdio"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("VIFA_QEMU starts");
        // Ends a QEMU that accepts the arguments. One that rejects them may have ended already.
        let _ = child.stdin.take().expect("a pipe").write_all(b"quit\n");
        let output = child.wait_with_output().expect("QEMU ends");
        assert!(
            !output.status.success(),
            "QEMU accepted {}",
            arguments.join(" ")
        );
        String::from_utf8(output.stderr).expect("QEMU writes UTF-8")
    }

    /// Sends a line. Returns the text after the `OK` of the reply.
    fn ask(&self, line: &str) -> String {
        let (input, output) = &mut *self.streams.borrow_mut();
        writeln!(input, "{line}").expect("QEMU listens");
        let mut answer = String::new();
        output.read_line(&mut answer).expect("QEMU answers");
        answer
            .trim_end()
            .strip_prefix("OK")
            .unwrap_or_else(|| panic!("{line}: {answer:?}"))
            .trim_start()
            .to_owned()
    }

    fn ask_number(&self, line: &str) -> u64 {
        let answer = self.ask(line);
        let digits = answer.strip_prefix("0x").expect("is hexadecimal");
        u64::from_str_radix(digits, 16).expect("is a number")
    }

    /// Writes a 32-bit I/O port.
    pub fn out32(&self, port: u16, value: u32) {
        self.ask(&format!("outl {port:#x} {value:#x}"));
    }

    /// Reads 32 bits of the physical address space.
    pub fn read32(&self, address: u64) -> u32 {
        self.ask_number(&format!("readl {address:#x}")) as u32
    }

    /// Reads 16 bits of the physical address space.
    pub fn read16(&self, address: u64) -> u16 {
        self.ask_number(&format!("readw {address:#x}")) as u16
    }

    /// Writes 32 bits of the physical address space.
    pub fn write32(&self, address: u64, value: u32) {
        self.ask(&format!("writel {address:#x} {value:#x}"));
    }

    /// Writes 16 bits of the physical address space.
    pub fn write16(&self, address: u64, value: u16) {
        self.ask(&format!("writew {address:#x} {value:#x}"));
    }

    /// Reads `length` bytes of memory.
    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        if length == 0 {
            return Vec::new();
        }
        let answer = self.ask(&format!("read {address:#x} {length:#x}"));
        let digits = answer.strip_prefix("0x").expect("is hexadecimal");
        digits
            .as_bytes()
            .chunks(2)
            .map(|pair| {
                let pair = std::str::from_utf8(pair).expect("are digits");
                u8::from_str_radix(pair, 16).expect("are hexadecimal digits")
            })
            .collect()
    }

    /// Writes `bytes` to memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut line = format!("write {address:#x} {:#x} 0x", bytes.len());
        for byte in bytes {
            line += &format!("{byte:02x}");
        }
        self.ask(&line);
    }

    /// Advances the virtual clock.
    pub fn step(&self, nanoseconds: u64) {
        self.ask(&format!("clock_step {nanoseconds}"));
    }
}

impl Drop for Qtest {
    fn drop(&mut self) {
        // QEMU has no state to save, and may already have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
