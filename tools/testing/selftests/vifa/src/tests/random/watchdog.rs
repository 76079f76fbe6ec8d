// SPDX-License-Identifier: GPL-2.0

//! A watchdog for threads that call the kernel: it shows the kernel stacks of all threads if a call
//! does not return.

use std::{
    fmt::{Arguments, Write},
    fs,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail, Result};

/// Maximum duration of a call. The longest calls that the driver allows take some seconds; a busy
/// machine extends them.
pub const LONGEST_CALL: Duration = Duration::from_secs(60);

/// The current call of a thread.
struct Activity {
    call: String,
    since: Instant,
    /// The thread's directory in /proc/self/task.
    thread: Option<String>,
    has_ended: bool,
}

/// A watched thread, which records its calls here.
#[derive(Clone)]
pub struct Watched(Arc<Mutex<Activity>>);

impl Watched {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Activity {
            call: "no call yet".into(),
            since: Instant::now(),
            thread: None,
            has_ended: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.0.lock().expect("no thread panics with the lock held")
    }

    /// Records the beginning of another call.
    pub fn begins(&self, call: Arguments) {
        let mut activity = self.lock();
        activity.call.clear();
        let _ = activity.call.write_fmt(call);
        activity.since = Instant::now();
    }

    /// Describes the thread's call and its kernel stack.
    fn describe(&self) -> String {
        let activity = self.lock();
        if activity.has_ended {
            return "has ended".into();
        }
        let mut text = format!("{:?} in {}", activity.since.elapsed(), activity.call);
        let Some(thread) = &activity.thread else {
            return text;
        };
        for file in ["stat", "wchan", "syscall", "stack"] {
            let content = fs::read_to_string(format!("{thread}/{file}"));
            let content = content.unwrap_or_else(|error| error.to_string());
            let _ = write!(text, "\n{file}: {}", content.trim_end());
        }
        text
    }
}

/// Runs each of `jobs` in a thread, until the last has ended.
///
/// # Errors
///
/// A job failed, or a call took longer than `limit`. In the latter case the threads keep running,
/// and the error describes each of them.
pub fn run<J>(jobs: Vec<J>, limit: Duration) -> Result<()>
where
    J: FnOnce(Watched) -> Result<()> + Send + 'static,
{
    let threads: Vec<_> = jobs
        .into_iter()
        .map(|job| {
            let watched = Watched::new();
            let activity = watched.clone();
            let handle = thread::spawn(move || {
                let thread = fs::read_link("/proc/thread-self").ok();
                activity.lock().thread = thread.map(|thread| format!("/proc/{}", thread.display()));
                let result = job(activity.clone());
                activity.lock().has_ended = true;
                result
            });
            (watched, handle)
        })
        .collect();
    while !threads.iter().all(|(_, handle)| handle.is_finished()) {
        let hangs = |watched: &Watched| {
            let activity = watched.lock();
            !activity.has_ended && activity.since.elapsed() > limit
        };
        if threads.iter().any(|(watched, _)| hangs(watched)) {
            let all: Vec<_> = threads
                .iter()
                .map(|(thread, _)| thread.describe())
                .collect();
            bail!("a call timed out after {limit:?}:\n{}", all.join("\n"));
        }
        thread::sleep(Duration::from_millis(100));
    }
    threads
        .into_iter()
        .try_for_each(|(_, handle)| handle.join().map_err(|_| anyhow!("a thread panicked"))?)
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn call_that_does_not_return_is_described() {
        let (mut reader, _writer) = UnixStream::pair().unwrap();
        let blocks = move |watched: Watched| {
            watched.begins(format_args!("read of {}", 1));
            Ok(reader.read_exact(&mut [0])?)
        };
        let limit = Duration::from_millis(200);
        let text = format!("{:#}", run(vec![blocks], limit).unwrap_err());
        assert!(text.contains("in read of 1\nstat: "), "{text}");
        assert!(text.contains("\nstack: "), "{text}");
    }

    #[test]
    fn failure_of_a_thread_is_returned() {
        let fails = |_| bail!("it fails");
        let error = run(vec![fails], LONGEST_CALL).unwrap_err();
        assert_eq!(error.to_string(), "it fails");
    }
}
